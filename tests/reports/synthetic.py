"""Valid records of Table 3 without training: for the tests of the site and for benchmarks/bench_reports.py.

The numbers follow the published pattern (alpha = 0 bad, alpha = 1 a little worse, the rest alike) plus noise
drawn from the run's own id, so that a store is the same whenever and in whatever order it is made.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import itertools
import json
import random
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ALPHAS: dict[str, float | str] = {
    "a1": 1.0,
    "a0_75": 0.75,
    "a0_5": 0.5,
    "a0_25": 0.25,
    "a0_1": 0.1,
    "a0_01": 0.01,
    "a0_001": 0.001,
    "a1_over_j": "inv_m",
    "a1_over_j2": "inv_m2",
    "a0": 0.0,
}
# column id -> data set, size of the test part, error of a good row, error of alpha = 0
COLUMNS: dict[str, tuple[str, int, float, float]] = {
    "mnist": ("mnist5k", 1000, 4.0, 24.0),
    "ni": ("kdd_keel", 480, 7.0, 26.0),
    "cifar10": ("glyphs", 1000, 17.0, 79.0),
}
PRIMARY = {"reading": "C", "initial": "zero_one", "unit": "epoch", "placement": "before"}
CODE = "c0de" * 4


def config(row: str, column: str, seed: int = 0, epochs: int = 12, **changes: Any) -> dict[str, Any]:
    """The `run` part of a config; `changes` takes dotted keys with `__`: optimizer__lr=0.03."""
    name = COLUMNS[column][0] if column in COLUMNS else column
    conv = column == "cifar10"
    out: dict[str, Any] = {
        "data": {"name": name, "val_fraction": 0.1, "limit_train": None, "limit_eval": None, "options": {}},
        "model": {"name": "cnn"}
        if conv
        else {"name": "mlp", "hidden": [300, 300] if column == "mnist" else [50, 50]},
        "norm": {"name": "diminishing", "options": {"eps": 1e-4}},
        "optimizer": {"name": "adagrad", "lr": 0.01, "l2": 1e-4},
        "alpha": ALPHAS[row],
        **PRIMARY,
        "batch_size": 100,
        "epochs": epochs,
        "seed": seed,
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        node = out
        for part in path:
            node = node[part]
        node[last] = value
    return out


def key_of(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _good(row: str, column: str, cfg: dict[str, Any], noise: random.Random) -> tuple[float, float]:
    """Final test error and its epoch-to-epoch sd, in %, of a run that follows the published pattern."""
    _, _, low, bad = COLUMNS.get(column, (column, 1000, 10.0, 60.0))
    alpha = cfg["alpha"]
    lr = abs(float(cfg["optimizer"]["lr"]) / 0.01 - 1.0)
    reading = {"A": 1.5, "B": 0.2, "C": 0.0}.get(cfg["reading"], 0.0)
    if alpha == 0 and (cfg["initial"] == "zero_one" and cfg["reading"] != "A"):
        level = bad
    elif alpha == 1.0:
        level = low * 1.35
    else:
        level = low * (1.0 + 0.02 * noise.random())
    sd = 0.03 * low * (2.0 if alpha == 1.0 else 1.0)
    return max(0.1, level + reading + lr * 0.2 + noise.gauss(0, 0.02 * low)), sd


def record(
    row: str,
    column: str,
    seed: int = 0,
    *,
    profile: str = "quick",
    status: str = "finished",
    code: str = CODE,
    paper: str | None = None,
    population: str | None = None,
    hour: int = 12,
    data_name: str | None = None,
    table: str = "T3",
    **changes: Any,
) -> dict[str, Any]:
    """One record of schema 1 with a right checksum."""
    cfg = config(row, column, seed, **changes)
    if data_name is not None:
        cfg["data"]["name"] = data_name
    run_id = key_of({"run": cfg, "data": "f" * 16})
    noise = random.Random(run_id)
    error, sd = _good(row, column, cfg, noise)
    epochs: int = cfg["epochs"]
    n_test = COLUMNS.get(column, (column, 1000, 0.0, 0.0))[1]
    test = [round(error + 30.0 * 0.55**e + noise.gauss(0, sd), 4) for e in range(1, epochs + 1)]
    val = [round(t + noise.gauss(0, sd), 4) for t in test]
    if status == "diverged":
        test[epochs // 2 :] = val[epochs // 2 :] = [100.0] * (epochs - epochs // 2)
        error = 100.0
    best = min(range(epochs), key=val.__getitem__)
    selected = test[best] if status == "finished" else error
    half = test[epochs // 2 :]
    variance = sum((b - a) ** 2 for a, b in itertools.pairwise(half)) / (2 * max(1, len(half) - 1))
    bits = bytearray((n_test + 7) // 8)  # big-endian bits, as numpy.packbits writes them
    for i in noise.sample(range(n_test), round(min(100.0, selected) / 100 * n_test)):
        bits[i // 8] |= 128 >> i % 8
    failed = status == "failed"
    cell_column = column if data_name is None else data_name
    out: dict[str, Any] = {
        "schema": 1,
        "run_id": run_id,
        "table": table,
        "profile": profile,
        "role": "cell",
        "status": status,
        "cell": {"row": row, "column": cell_column},
        "config": cfg,
        "paper": paper,
        "data": {
            "name": cfg["data"]["name"],
            "fingerprint": "f" * 16,
            "n_train": 3500,
            "n_val": 500,
            "n_test": n_test,
            "error": "balanced_error" if column == "ni" else "error",
            "notes": [f"{cfg['data']['name']}: synthetic stand-in"],
        },
        "metrics": {}
        if failed
        else {
            "test_error": selected,
            "test_error_last": test[-1],
            "test_error_best": min(test),
            "val_error": val[best],
            "epoch_best_val": best + 1,
            "epoch_best_test": min(range(epochs), key=test.__getitem__) + 1,
            "test_error_variance": variance,
            "train_loss_last": 0.01,
            "weight_norm_last": round(12 + noise.random(), 3),
        },
        "curves": {}
        if failed
        else {
            "epoch": list(range(1, epochs + 1)),
            "train_loss": [round(2.3 * 0.7**e, 5) for e in range(epochs)],
            "val_error": val,
            "test_error": test,
            "weight_norm": [round(10 + 0.2 * e, 3) for e in range(epochs)],
        },
        "epochs": epochs,
        "steps": 35 * epochs,
        "parameters": 330310,
        "time": {
            "wall_s": round(2 + noise.random(), 3),
            "cpu_s": round(2 + noise.random(), 3),
            "examples_per_s": 50000.0,
            "peak_memory_bytes": 300000000,
            "started": f"2026-01-02T{hour - 1:02d}:00:00Z",
            "finished": f"2026-01-02T{hour:02d}:00:00Z",
            "resumed": 0,
        },
        "population": None if population is None else {"id": population, "members": 10},
        "code": code,
        "git": {"commit": "0" * 40, "dirty": False},
        "host": {"cpu": "synthetic", "cores": 2, "threads": 1, "gpu": None, "memory_bytes": 1, "os": "Linux"},
        "packages": {"torch": "2.14.1"},
        "device": "cpu",
        "error": 'Traceback (most recent call last):\n  File "x.py", line 1\nRuntimeError: <boom> & co'
        if failed
        else None,
    }
    if not failed and table == "T3":
        out["wrong"] = base64.b64encode(zlib.compress(bytes(bits))).decode()
    return out


def line(rec: dict[str, Any]) -> str:
    """Record as one JSON line, with the checksum over the canonical form of everything else."""
    body = json.dumps(rec, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f'{body[:-1]},"sha256":"{hashlib.sha256(body.encode()).hexdigest()}"}}'


def write(runs: Path, records: Iterable[dict[str, Any]], shard: int = 100) -> int:
    """Write records into shards of `shard` lines each (shard=0: a directory a run); returns how many."""
    n = 0
    batch: list[str] = []
    for rec in records:
        root = runs / rec["table"]
        if shard == 0:
            (root / rec["run_id"]).mkdir(parents=True, exist_ok=True)
            (root / rec["run_id"] / "record.json").write_text(line(rec) + "\n", encoding="utf-8")
        else:
            batch.append(line(rec))
            if len(batch) == shard:
                flush(root, n // shard, batch)
                batch = []
        n += 1
    if batch:
        flush(root, (n - 1) // shard, batch)
    return n


def flush(root: Path, i: int, lines: list[str]) -> None:
    where = root / "shards" / f"population{i:06d}"
    where.mkdir(parents=True, exist_ok=True)
    (where / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def grid(epochs: int = 12, profiles: Iterable[str] = ("quick",)) -> dict[str, Any]:
    points = []
    for row, column in itertools.product(ALPHAS, COLUMNS):
        cfg = config(row, column, epochs=epochs)
        del cfg["seed"]
        points.append({"row": row, "column": column, "config": cfg})
    return {
        "schema": 1,
        "table": "T3",
        "code": CODE,
        "primary": PRIMARY,
        "norm": "diminishing",
        "profiles": {p: {"seeds": [0, 1, 2], "points": copy.deepcopy(points)} for p in profiles},
    }


def write_grid(runs: Path, epochs: int = 12, profiles: Iterable[str] = ("quick",)) -> str:
    """Write grid.json and one paper-profile config; returns the key of the latter."""
    root = runs / "T3"
    (root / "paper").mkdir(parents=True, exist_ok=True)
    (root / "grid.json").write_text(json.dumps(grid(epochs, profiles)), encoding="utf-8")
    paper = config("a1", "mnist", epochs=200)
    paper["data"]["name"] = "mnist"
    del paper["seed"]
    (root / "paper" / f"{key_of(paper)}.json").write_text(json.dumps({"config": paper}), encoding="utf-8")
    return key_of(paper)


def cells(
    seeds: int = 3, epochs: int = 12, columns: Iterable[str] = tuple(COLUMNS), **options: Any
) -> Iterator[dict[str, Any]]:
    """The grid of a profile, or some of its columns."""
    for row, column, seed in itertools.product(ALPHAS, columns, range(seeds)):
        yield record(row, column, seed, epochs=epochs, **options)


def variants(
    seeds: int = 1, epochs: int = 12, columns: Iterable[str] = ("mnist",), **options: Any
) -> Iterator[dict[str, Any]]:
    """Every reading x initial x unit other than the primary one."""
    axes = itertools.product("ABC", ("zero_one", "zero_zero", "first_batch"), ("epoch", "step"))
    for reading, initial, unit in axes:
        if (reading, initial, unit) == ("C", "zero_one", "epoch"):
            continue
        for row, column, seed in itertools.product(ALPHAS, columns, range(seeds)):
            yield record(
                row, column, seed, epochs=epochs, reading=reading, initial=initial, unit=unit, **options
            )


def many(n: int, epochs: int = 40) -> Iterator[dict[str, Any]]:
    """Arguments of `record` for n runs: grid and variants with 5 seeds, then learning rates off the grid."""
    axes = itertools.product("ABC", ("zero_one", "zero_zero", "first_batch"), ("epoch", "step"), range(5))
    on = (
        {"reading": reading, "initial": initial, "unit": unit, "seed": seed}
        for reading, initial, unit, seed in axes
    )
    lrs = [round(0.001 * 1.5**i, 6) for i in range(10)]
    off = (
        {"optimizer__lr": lr, "batch_size": size, "seed": seed}
        | {"status": "failed" if seed % 97 == 96 else "diverged" if seed % 89 == 88 else "finished"}
        for seed in itertools.count()
        for lr in lrs
        for size in (50, 200)
    )
    points = (
        {"row": row, "column": column, "epochs": epochs, **rest}
        for rest in itertools.chain(on, off)
        for row, column in itertools.product(ALPHAS, COLUMNS)
    )
    return itertools.islice(points, n)
