"""Valid records of Table 9 without training, for the tests of the reports."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.reports import synthetic

N_TEST, EPOCHS = 400, 4
# (row, column) -> test error of seed 0, a later seed has half a point more. On MNIST in the corrected order.
ERRORS: dict[tuple[str, str], float] = {
    ("maxout", "cifar10"): 40, ("nin", "cifar10"): 30, ("rcnn", "cifar10"): 24, ("mim", "cifar10"): 20,
    ("mim_plain", "cifar10"): 45, ("mim_equal", "cifar10"): 25, ("nin_bn", "cifar10"): 26,
    ("nin_plain", "cifar10"): 34, ("mim_b1", "cifar10"): 36, ("mim_plain_b1", "cifar10"): 38,
    ("mim_b2", "cifar10"): 26, ("mim_plain_b2", "cifar10"): 36,
    ("maxout", "mnist"): 9, ("nin", "mnist"): 12, ("rcnn", "mnist"): 3, ("mim", "mnist"): 6,
    ("mim_plain", "mnist"): 20, ("mim_b1", "mnist"): 10, ("mim_plain_b1", "mnist"): 11,
    ("mim_b2", "mnist"): 8, ("mim_plain_b2", "mnist"): 13,
}  # fmt: skip
DATA = {"cifar10": "glyphs", "mnist": "mnist5k"}
MODELS = {"nin": "lin_nin", "maxout": "maxout", "rcnn": "rcnn"}
LOST = {"nin_plain": 2}  # rows of which runs diverge -> from which seed on


def config(
    row: str, column: str, seed: int, data: str = "", norm: str = "", **changes: Any
) -> dict[str, Any]:
    own = row not in MODELS
    plain = not own or "plain" in row
    return {
        "table": "T9",
        "data": {"name": data or DATA[column], "val_fraction": 0.1, "limit_train": None, "limit_eval": None,
                 "options": {}},
        "model": {"name": MODELS.get(row, "mim"), "activation": "relu" if "nin" in row else "maxout",
                  "blocks": int(row[-1]) if "_b" in row and row[-1].isdigit() else 3,
                  "equal": row.endswith("equal")},
        "norm": {"name": norm or ("none" if plain else "batch"), "options": {}},
        "optimizer": {"name": "SGD", "lr": 0.1, "l2": 2.5e-4, "options": {}},
        "epochs": EPOCHS,
        "seed": seed,
        **changes,
    }  # fmt: skip


def record(
    row: str, column: str, seed: int = 0, status: str = "finished", error: float | None = None, **changes: Any
) -> dict[str, Any]:
    out = synthetic.record("a1", "mnist", seed, table="T9", status=status)
    cfg = config(row, column, seed, **changes)
    rng = np.random.default_rng(seed * 100_003 + zlib.crc32(row.encode()))
    error = (ERRORS[row, column] if error is None else error) + 0.5 * seed
    wrong = np.zeros(N_TEST, bool)
    wrong[np.random.default_rng(seed).permutation(N_TEST)[: round(error / 100 * N_TEST)]] = True
    error = 100 * wrong.mean()  # a run's wrong pictures are among those of a worse one with the same seed
    epochs = list(range(1, 2 if status == "diverged" else EPOCHS + 1))
    curve = [error + 10.0 * (EPOCHS - e) for e in epochs]
    # balanced with BN; without it less so in later layers
    bn, size = cfg["norm"]["name"] != "none", 3 * cfg["model"]["blocks"]
    layers = {
        f"entropy_{i}": (0.95 if bn else 0.9 - 0.05 * i) + 0.01 * rng.random() for i in range(1, size + 1)
    }
    layers |= {
        f"degenerate_{i}": (0.01 if bn else 0.05 * i) + 0.001 * rng.random() for i in range(1, size + 1)
    }
    means = {
        key: float(np.mean([v for name, v in layers.items() if name.startswith(key)]))
        for key in ("entropy", "degenerate")
    }
    watched = {**means, **layers, "chance": 90.0, "parameters": 1_000_000.0 + 3_000_000.0 * (row == "mim")}
    if status == "diverged":
        watched = {key: None if key in (means | layers) else value for key, value in watched.items()}
    return {
        **out,
        "run_id": synthetic.key_of({"run": cfg, "data": "f" * 16}),
        "cell": {"row": row, "column": column},
        "config": cfg,
        "data": {**out["data"], "name": cfg["data"]["name"], "fingerprint": f"{cfg['data']['name']:f<16}",
                 "n_test": N_TEST, "error": "error", "notes": []},
        "metrics": {
            "test_error": error, "test_error_last": error, "test_error_best": error, "val_error": error,
            "stable": float(status != "diverged"), "epoch_best_val": len(epochs), "train_loss_last": 1.0,
            **watched,
        },
        "curves": {
            "epoch": epochs, "step": [10 * e for e in epochs], "train_loss": [1.0] * len(epochs),
            "val_error": curve, "test_error": curve,
            **{key: [value] * len(epochs) for key, value in watched.items()},
        },
        "wrong": base64.b64encode(zlib.compress(np.packbits(wrong).tobytes())).decode(),
        "epochs": len(epochs),
        "steps": 10 * len(epochs),
    }  # fmt: skip


def records(seeds: int = 3) -> Iterator[dict[str, Any]]:
    for row, column in ERRORS:
        for seed in range(seeds):
            yield record(row, column, seed, "diverged" if seed >= LOST.get(row, seeds) else "finished")


def write(
    runs: Path, made: list[dict[str, Any]], seeds: int = 3, data: str = "", as_paper: bool = False
) -> None:
    """The records, and a grid with a point for each cell; data: in the place of CIFAR-10's;
    as_paper: the paper profile's configs are those of the points.
    """
    points = []
    for row, column in ERRORS:
        cfg = config(row, column, 0, data if column == "cifar10" else "")
        del cfg["seed"]
        points.append({"row": row, "column": column, "config": cfg})
    grid = {"schema": 1, "table": "T9", "code": synthetic.CODE, "primary": {}, "norm": "batch",
            "profiles": {"quick": {"seeds": list(range(seeds)), "points": points}}}  # fmt: skip
    folder = runs / "T9"
    (folder / "paper").mkdir(parents=True)
    if as_paper:
        for one in made:
            one["paper"] = one["cell"]["row"]
            told = {key: value for key, value in one["config"].items() if key != "seed"}
            (folder / "paper" / f"{one['paper']}.json").write_text(json.dumps({"config": told}))
    synthetic.write(runs, made)
    (folder / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
