"""Valid records of Table 2 without training, for the tests of the reports."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.reports import synthetic

N_TEST, EPOCHS = 200, 4
# (row, column) -> test error of seed 0; the next seeds are half a point worse each.
ERRORS: dict[tuple[str, str], float] = {
    ("nin", "cifar10"): 20, ("nin_np", "cifar10"): 9, ("nin_bn", "cifar10"): 10, ("maxout", "cifar10"): 30,
    ("plain", "cifar10"): 15, ("maxout_raw", "cifar10"): 40, ("nin_np", "cifar100"): 30,
    ("nin_bn", "cifar100"): 36, ("plain", "cifar100"): 50, ("nin_np_dropout", "cifar10"): 14,
    ("nin_np_global_b50", "cifar10"): 9, ("nin_np_global_b100", "cifar10"): 12,
    ("nin_np_global_b1", "cifar10"): 18, ("plain_at_0.05", "cifar10"): 60,
    **{(f"nin_np_at_{rate}", "cifar10"): 20 for rate in ("0.05", "0.07", "0.1", "0.14", "0.2")},
    **{(f"nin_np_gamma1_at_{rate}", "cifar10"): 22 for rate in ("0.05", "0.07", "0.1", "0.14", "0.2")},
}  # fmt: skip
# rows of which runs diverge -> from which seed on
LOST = {"plain_at_0.05": 1, "nin_np_at_0.2": 0, "nin_np_gamma1_at_0.1": 1, "nin_np_gamma1_at_0.14": 0,
        "nin_np_gamma1_at_0.2": 0}  # fmt: skip
DATA = {"cifar10": "glyphs", "cifar100": "glyphs"}


def config(row: str, column: str, seed: int, **changes: Any) -> dict[str, Any]:
    return {
        "table": "T2",
        "data": {"name": DATA[column], "val_fraction": 0.1, "limit_train": None, "limit_eval": None,
                 "options": {"alphabet": "letters"} if column == "cifar100" else {}},
        "model": {"name": "nin", "width": 0.25, "dropout": 0.0},
        "norm": {"name": "normprop", "options": {}},
        "optimizer": {"name": "SGD", "lr": 0.05, "l2": 5e-5, "options": {}},
        "named": row,
        "epochs": EPOCHS,
        "seed": seed,
        **changes,
    }  # fmt: skip


def record(row: str, column: str, seed: int = 0, status: str = "finished") -> dict[str, Any]:
    out = synthetic.record("a1", "mnist", seed, table="T2", status=status)
    cfg = config(row, column, seed)
    rng = np.random.default_rng(seed * 100_003 + zlib.crc32(row.encode()))
    error = ERRORS[row, column] + 0.5 * seed
    wrong = np.zeros(N_TEST, bool)
    wrong[rng.permutation(N_TEST)[: round(error / 100 * N_TEST)]] = True
    epochs = list(range(1, 2 if status == "diverged" else EPOCHS + 1))
    curve = [error + 10.0 * (EPOCHS - e) for e in epochs]
    bn = "bn" in row
    chance = 90.0 if column == "cifar10" else 97.2
    return {
        **out,
        "run_id": synthetic.key_of({"run": cfg, "data": "f" * 16}),
        "cell": {"row": row, "column": column},
        "config": cfg,
        "data": {**out["data"], "name": DATA[column], "n_test": N_TEST, "error": "error"},
        "metrics": {
            "test_error": 100 * wrong.mean(), "test_error_last": error, "test_error_best": error,
            "val_error": error, "chance": chance, "stable": 1.0,
            "epoch_best_val": EPOCHS, "epoch_seconds": 8.0 + 4 * bn + 0.1 * rng.random(),
            "input_mean": 0.2 + 0.2 * bn + 0.01 * rng.random(), "train_loss_last": 1.0,
            "early_spread": 1.0 + bn + 0.1 * rng.random(),
        },
        "curves": {
            "epoch": epochs, "step": [10 * e for e in epochs], "train_loss": [1.0] * len(epochs),
            "val_error": curve, "test_error": curve, "input_mean": [0.3] * len(epochs),
        },
        "wrong": base64.b64encode(zlib.compress(np.packbits(wrong).tobytes())).decode(),
        "epochs": len(epochs),
        "steps": 10 * len(epochs),
    }  # fmt: skip


def records(seeds: int = 3) -> Iterator[dict[str, Any]]:
    for row, column in ERRORS:
        for seed in range(seeds):
            yield record(row, column, seed, "diverged" if seed >= LOST.get(row, seeds) else "finished")


def write(runs: Path, made: list[dict[str, Any]], seeds: int = 3) -> None:
    """The records, and a grid with a point for each."""
    points = []
    for row, column in ERRORS:
        cfg = config(row, column, 0)
        del cfg["seed"]
        points.append({"row": row, "column": column, "config": cfg})
    grid = {"schema": 1, "table": "T2", "code": synthetic.CODE, "primary": {}, "norm": "normprop",
            "profiles": {"quick": {"seeds": list(range(seeds)), "points": points}}}  # fmt: skip
    synthetic.write(runs, made)
    (runs / "T2" / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
