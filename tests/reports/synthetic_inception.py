"""Valid records of Table 1 without training, for the tests of the reports."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.reports import synthetic

N_TEST, STEPS = 200, 10  # steps between two evaluations
# Row -> accuracy at each evaluation; validation and test part alike.
CURVES: dict[str, list[float]] = {
    "inception": [20, 30, 40, 44, 48, 50, 52, 52.5, 53, 53],
    "bn_baseline": [30, 45, 52, 54, 55, 55.5, 56, 56, 56, 56],
    "bn_x5": [54, 56, 57],
    "bn_x30": [40, 55, 60],
    "bn_x5_sigmoid": [20, 35, 45],
    "inception_x5": [10, 10, 10],
    "inception_sigmoid": [10, 10, 10],
    "bn_with_dropout": [35, 50, 54, 55],
    "bn_with_lrn": [32, 46, 51, 52],
    "bn_x5_without_reshuffle": [50, 54, 55],
}
SECTION = {"sigmoids": 3.0, "sigmoids_bn": 1.0}  # how far the inputs wander


def config(row: str, seed: int, **changes: Any) -> dict[str, Any]:
    mlp = row in SECTION
    return {
        "table": "T1",
        "data": {"name": "mnist5k" if mlp else "glyphs", "val_fraction": 0.1, "limit_train": None,
                 "limit_eval": None, "options": {}},
        "model": {"name": "sigmoids" if mlp else "inception", "width": 0.25},
        "norm": {"name": "batch" if "bn" in row else "none", "options": {}},
        "optimizer": {"name": "SGD", "lr": 0.01, "l2": 5e-5, "options": {}},
        "recipe": {"row": row},
        "batch_size": 32,
        "epochs": 10 if mlp else len(CURVES[row]),
        "evaluations": 1,
        "seed": seed,
        **changes,
    }  # fmt: skip


def record(
    row: str, seed: int = 0, shift: float = 0.0, status: str = "finished", **changes: Any
) -> dict[str, Any]:
    """shift: points added to every accuracy."""
    out = synthetic.record("a1", "mnist", seed, table="T1", status=status)
    cfg = config(row, seed, **changes)
    mlp = row in SECTION
    right = [a + shift for a in (CURVES[row] if not mlp else [90 + 0.5 * e for e in range(10)])]
    if status == "diverged":
        right = right[:1]
    steps = [STEPS * (i + 1) for i in range(len(right))]
    best = max(range(len(right)), key=right.__getitem__)
    rng = np.random.default_rng(seed * 100 + len(row))
    wrong = np.zeros(N_TEST, bool)
    wrong[rng.permutation(N_TEST)[: round((100 - right[best]) / 100 * N_TEST)]] = True
    accuracy = 100 * (1 - wrong.mean())
    wander = {"median_wander": SECTION[row] + 0.1 * rng.random()} if mlp else {}
    curves: dict[str, list[float]] = {
        "epoch": list(range(1, len(right) + 1)),
        "step": steps,
        "train_loss": [1.0] * len(right),
        "val_error": [100 - a for a in right],
        "test_error": [100 - a for a in right],
    }
    if mlp:
        curves |= {f"input_p{p}": [0.01 * p * e for e in range(10)] for p in (15, 50, 85)}
    return {
        **out,
        "run_id": synthetic.key_of({"run": cfg, "data": "f" * 16}),
        "cell": {"row": row, "column": "mnist" if mlp else "imagenet"},
        "config": cfg,
        "data": {**out["data"], "name": cfg["data"]["name"], "n_test": N_TEST, "error": "error"},
        "metrics": {
            "test_accuracy": accuracy, "test_accuracy_last": right[-1], "test_accuracy_best": right[best],
            "test_accuracy_mean": sum(right) / len(right) + 3 * (row == "sigmoids_bn") + 0.1 * rng.random(),
            "val_accuracy": right[best], "chance": 10.0, "step_best_val": steps[best], "steps": steps[-1],
            "train_loss_last": 1.0, **wander,
        },
        "curves": curves,
        "wrong": base64.b64encode(zlib.compress(np.packbits(wrong).tobytes())).decode(),
        "epochs": len(right),
        "steps": steps[-1],
    }  # fmt: skip


def records(seeds: int = 3) -> Iterator[dict[str, Any]]:
    for row in [*CURVES, *SECTION]:
        for seed in range(seeds):
            diverged = row == "inception_x5"
            yield record(row, seed, shift=0.5 * seed, status="diverged" if diverged else "finished")


def write(runs: Path, made: list[dict[str, Any]], seeds: int = 3) -> None:
    """The records, and a grid with a point for each row."""
    points = []
    for row in [*CURVES, *SECTION]:
        cfg = config(row, 0)
        del cfg["seed"]
        points.append({"row": row, "column": "mnist" if row in SECTION else "imagenet", "config": cfg})
    grid = {"schema": 1, "table": "T1", "code": synthetic.CODE, "primary": {}, "norm": "batch",
            "profiles": {"quick": {"seeds": list(range(seeds)), "points": points}}}  # fmt: skip
    synthetic.write(runs, made)
    (runs / "T1" / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
