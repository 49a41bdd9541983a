"""Valid records of Tables 5 and 6 without training, for the tests of the reports: trials of a grid search.

Numbers are drawn from the run's own id. A method has a skill, a data set or a depth a difficulty; the setting
of the hyper-parameters moves validation and test error together.
"""

from __future__ import annotations

import base64
import copy
import itertools
import random
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tests.reports import synthetic

CODE = "5eed" * 4
PRIMARY = {"placement": "after", "statistics": "updated"}
ROWS = ("snn", "svm", "forest", "layer", "msra", "highway", "resnet", "weight", "batch")
NORM = {"snn": "snn", "layer": "layer", "weight": "weight_norm", "batch": "batch", "group": "group"}
# error in % that a method adds: the order of the source paper
SKILL = dict(
    zip(
        ("snn", "svm", "forest", "msra", "layer", "highway", "resnet", "weight", "batch"),
        range(9),
        strict=True,
    )
)
SETS = {
    "iris": 150,
    "wine": 178,
    "glass": 214,
    "pima": 768,
    "yeast": 1484,
    "segment": 2310,
    "bank": 4521,
    "letter": 20000,
}
DEPTHS = (2, 3, 4, 6, 8, 16, 32)
T5_AXES = [
    "data.options.set",
    "data.options.fold",
    "model.layers",
    "model.units",
    "model.form",
    "model.bottleneck",
    "model.dropout",
    "model.C",
    "model.gamma",
    "model.max_features",
    "optimizer.lr",
]
T6_AXES = [
    "model.layers",
    "model.units",
    "model.form",
    "model.bottleneck",
    "model.dropout",
    "optimizer.lr",
    "optimizer.l2",
]
DROPOUT = {"snn": [0.05, 0.0], "msra": [0.5, 0.0], "highway": [0.0, 0.5]}


def config(table: str, row: str, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """The `run` part of a config; `changes` takes dotted keys with `__`: optimizer__lr=0.1."""
    name = row if row in ("svm", "forest", "highway", "resnet") else "fnn"
    network = name not in ("svm", "forest")
    placed = network and NORM.get(row, "none") not in ("none", "snn", "weight_norm")
    model = dict.fromkeys(
        ("layers", "units", "form", "bottleneck", "dropout", "C", "gamma", "max_features", "trees")
    )
    model |= {"layers": 2, "units": 64, "dropout": 0.0} if network else {}
    model |= {"form": "rectangular"} if name in ("fnn", "resnet") else {}
    model |= (
        {"C": 2.0, "gamma": 0.125}
        if name == "svm"
        else {"max_features": 0.3, "trees": 200}
        if name == "forest"
        else {}
    )
    options = {"set": "iris", "fold": 0} if table == "T5" else {"validation": "cv0", "min_share": 0.025}
    out: dict[str, Any] = {
        "table": table,
        "data": {
            "name": "keel" if table == "T5" else "tox21",
            "val_fraction": 0.15,
            "limit_train": None,
            "limit_eval": None,
            "options": options,
        },
        "model": {"name": name, **model},
        "norm": {"name": NORM.get(row, "none"), "options": {}},
        "optimizer": {
            "name": "SGD" if network else "none",
            "lr": 0.01 if network else 0.0,
            "l2": 0.0,
            "options": {},
        },
        "placement": "after" if placed else None,
        "statistics": "updated" if row == "batch" else None,
        "batch_size": 128 if network else 0,
        "epochs": 100 if network else 1,
        "seed": seed,
    }
    for key, value in changes.items():
        *path, last = key.split("__")
        node = out
        for part in path:
            node = node[part]
        node[last] = value
    return out


def record(
    table: str,
    row: str,
    seed: int = 0,
    *,
    status: str = "finished",
    profile: str = "quick",
    code: str = CODE,
    paper: str | None = None,
    skill: dict[str, float] | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """One record of schema 1 with a right checksum once `synthetic.line` has written it."""
    cfg = config(table, row, seed, **changes)
    run_id = synthetic.key_of({"run": cfg})
    noise, m = random.Random(run_id), cfg["model"]
    options = cfg["data"]["options"]
    name, depth = options.get("set", ""), m["layers"] or 0
    off = (
        0.5 * abs(len(str(cfg["optimizer"]["lr"])) - 3) + (1.0 if m["dropout"] else 0.0) + abs(depth - 4) / 8
    )
    off += 3.0 if cfg["placement"] == "before" else 0.0
    n_test = 647 if table == "T6" else round(SETS.get(name, 100) * 0.25)
    data = {
        "name": f"keel_{name}" if name else cfg["data"]["name"],
        "fingerprint": synthetic.key_of([name, options.get("fold")]),
        "n_train": 3 * n_test - n_test // 2,
        "n_val": n_test // 2,
        "n_test": n_test,
        "error": "error" if table == "T5" else "auc",
        "notes": [f"{cfg['data']['name']}: synthetic"],
    }
    level = (skill or SKILL).get(row, 4.0)
    if table == "T5":
        test = min(
            99.0, max(0.5, 12 + level + off + 8 * (random.Random(name).random()) + noise.gauss(0, 0.7))
        )
        metrics = {"test_error": test, "test_error_best": test - 0.5, "test_error_last": test + 0.5}
        val = test + noise.gauss(0, 1.0)
    else:
        drop = {"weight": 25.0 if depth == 32 else depth / 5, "batch": 4 + depth / 6, "snn": 0.0}.get(
            row, depth / 8
        )
        auc = 84.0 - drop - off + abs(depth - 4) / 8 + noise.gauss(0, 0.5)
        metrics = {"test_auc": auc, "test_auc_best": auc + 0.5, "test_auc_last": auc - 0.5}
        val = 100 - auc + noise.gauss(0, 0.5)
    metrics |= {
        "val_error": val,
        "val_error_last": val + 0.5,
        "epoch_best_val": noise.randint(20, 100),
        "train_loss_last": 0.1,
    }
    curves: dict[str, list[float]] = {
        "epoch": list(range(1, 6)),
        "val_error": [val] * 5,
        "test_error": [val] * 5,
    }
    if table == "T6":
        shrink = 0.6 if row == "weight" else 0.99
        for when in ("start", "end"):
            curves |= {
                f"act_mean_{when}": [0.01] * depth,
                f"act_var_{when}": [shrink**i for i in range(depth)],
                f"grad_norm_{when}": [shrink ** (depth - i) for i in range(depth)],
            }
            for key in ("act_mean", "act_var", "grad_norm"):
                metrics |= {
                    f"{key}_first_{when}": curves[f"{key}_{when}"][0],
                    f"{key}_last_{when}": curves[f"{key}_{when}"][-1],
                }
    failed = status == "failed"
    return {
        "schema": 1,
        "run_id": run_id,
        "table": table,
        "profile": profile,
        "role": "trial",
        "status": status,
        "cell": {"row": row, "column": name if table == "T5" else f"d{depth}"},
        "config": cfg,
        "paper": paper,
        "data": data,
        "metrics": {} if failed else metrics,
        "curves": {} if failed else curves,
        "epochs": cfg["epochs"],
        "steps": 100,
        "parameters": 1000,
        "time": {
            "wall_s": 0.5,
            "cpu_s": 0.5,
            "started": "2026-01-02T11:00:00Z",
            "finished": "2026-01-02T12:00:00Z",
            "resumed": 0,
        },
        "population": None,
        "code": code,
        "git": {"commit": "0" * 40, "dirty": False},
        "host": {"cpu": "synthetic", "cores": 2, "threads": 1},
        "packages": {"torch": "2.14.1"},
        "device": "cpu",
        "error": "Traceback\nRuntimeError: boom" if failed else None,
    }


def with_scores(rec: dict[str, Any], noise: float = 30.0) -> dict[str, Any]:
    """A record of Table 6 with one number a test compound whose mean is its AUC."""
    rng = np.random.default_rng(int(rec["run_id"][:8], 16))
    x = rng.normal(0, noise, rec["data"]["n_test"])
    x = (x - x.mean() + rec["metrics"]["test_auc"]).astype("<f4")
    return {**rec, "scores": base64.b64encode(zlib.compress(x.tobytes())).decode()}


def axes(
    table: str, row: str, sets: Iterable[str], layers: Iterable[int], rates: Iterable[float]
) -> dict[str, list[Any]]:
    """The axes of a row's pattern in the grid."""
    found: dict[str, list[Any]] = {}
    if table == "T5":
        found = {"data.options.set": list(sets), "data.options.fold": [0]}
    if row == "svm":
        return found | {"model.C": [0.5, 2], "model.gamma": [0.125]}
    if row == "forest":
        return found | {"model.max_features": [0.1, 0.3]}
    return found | {
        "model.layers": list(layers),
        "optimizer.lr": list(rates),
        "model.dropout": DROPOUT.get(row, [0.0]),
    }


def grid(
    table: str,
    *,
    rows: Iterable[str] | None = None,
    sets: Iterable[str] = tuple(SETS),
    layers: Iterable[int] | None = None,
    rates: Iterable[float] = (0.01, 0.1),
    seeds: Iterable[int] = (0, 1, 2),
    profiles: Iterable[str] = ("quick",),
) -> dict[str, Any]:
    names = rows or (ROWS if table == "T5" else [r for r in ROWS if r not in ("svm", "forest")])
    layers = layers or ((2, 4) if table == "T5" else DEPTHS)
    listed = T5_AXES if table == "T5" else T6_AXES
    points = []
    for row in names:
        cfg = config(table, row)
        del cfg["seed"]
        mine = axes(table, row, sets, layers, rates)
        for key in listed:
            *parents, last = key.split(".")
            node: Any = cfg
            for parent in parents:
                node = node.get(parent, {})
            if key in mine or node.get(last) is None:
                node.pop(last, None)
        points.append({"row": row, "column": None, "config": cfg, "axes": mine})
    return {
        "schema": 1,
        "table": table,
        "code": CODE,
        "codes": {},
        "norm": "none",
        "primary": PRIMARY,
        "trials": listed,
        "profiles": {p: {"seeds": list(seeds), "points": copy.deepcopy(points)} for p in profiles},
    }


def trials(noted: dict[str, Any], profile: str = "quick", **options: Any) -> Iterator[dict[str, Any]]:
    """Records of every point of the profile's grid, each seed."""
    part = noted["profiles"][profile]
    for seed, point in itertools.product(part["seeds"], part["points"]):
        for combo in itertools.product(*point["axes"].values()):
            changes = {k.replace(".", "__"): v for k, v in zip(point["axes"], combo, strict=True)}
            yield record(noted["table"], point["row"], seed, profile=profile, **changes, **options)


def write(runs: Path, noted: dict[str, Any], records: Iterable[dict[str, Any]], shard: int = 1000) -> int:
    """A store of these records and this grid; returns how many records."""
    root = runs / noted["table"]
    root.mkdir(parents=True, exist_ok=True)
    (root / "grid.json").write_bytes(orjson.dumps(noted))
    return synthetic.write(runs, records, shard)
