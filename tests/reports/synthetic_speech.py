"""Valid records of Table 7 without training, for the tests of the reports."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.reports import synthetic

N_TEST, STEPS, ROUNDS = 400, 10, 10  # steps between two evaluations
# (row, column) -> test error of seed 0, of which a later seed has half a point more
ERRORS: dict[tuple[str, str], float] = {
    ("relu_plain_0.008", "wm50"): 40, ("relu_bn_0.08", "wm50"): 30, ("relu_bn_0.008", "wm50"): 33,
    ("relu_plain_0.08", "wm50"): 100, ("sigmoid_plain_0.008", "wm50"): 70, ("sigmoid_bn_0.08", "wm50"): 42,
    ("sigmoid_bn_0.008", "wm50"): 60, ("sigmoid_plain_0.08", "wm50"): 89,
    ("relu_plain_0.008", "wm100"): 24, ("relu_bn_0.08", "wm100"): 20, ("relu_bn_0.008", "wm100"): 22,
    ("relu_plain_0.08", "wm100"): 32, ("sigmoid_plain_0.008", "wm100"): 50,
    ("sigmoid_bn_0.08", "wm100"): 32, ("sigmoid_bn_0.008", "wm100"): 41, ("sigmoid_plain_0.08", "wm100"): 89,
}  # fmt: skip
LOST = ("relu_plain_0.08", "wm50")  # diverges with every seed
# at which evaluation a run has its best validation error: of seeds 0, 1, 2, ...
BEST = {"plain": [8, 9, 10, 9, 10], "bn": [3, 4, 4, 3, 4]}


def config(row: str, column: str, seed: int, **changes: Any) -> dict[str, Any]:
    activation, norm, rate = row.split("_")
    return {
        "table": "T7",
        "data": {"name": "fsdd", "val_fraction": 0.1, "limit_train": None, "limit_eval": None, "options": {},
                 "share": {"wm50": 0.5, "wm100": 1.0}[column]},
        "model": {"name": "speech", "width": 1.0, "activation": activation},
        "norm": {"name": {"plain": "none", "bn": "batch"}.get(norm, norm), "options": {}},
        "optimizer": {"name": "SGD", "lr": float(rate), "l2": 0.0, "options": {}},
        "batch_size": 50,
        "epochs": 5,
        "evaluations": 2,
        "seed": seed,
        **changes,
    }  # fmt: skip


def record(
    row: str, column: str, seed: int = 0, *, error: float | None = None, floor: float = 0, lost: bool = False
) -> dict[str, Any]:
    """error: of seed 0, by default that of ERRORS; floor: points added to the validation errors alone; lost:
    diverges at its first evaluation.
    """
    diverged = lost or (row, column) == LOST
    error = 100 if lost else error
    out = synthetic.record("a1", "mnist", seed, table="T7", status="diverged" if diverged else "finished")
    cfg = config(row, column, seed)
    error = (ERRORS[row, column] if error is None else error) + 0.5 * seed * (not diverged)
    wrong = np.zeros(N_TEST, bool)
    wrong[np.random.default_rng(seed).permutation(N_TEST)[: round(error / 100 * N_TEST)]] = True
    error = 100 * wrong.mean()  # a run's wrong examples are among those of a worse one with the same seed
    best = BEST["plain" if "plain" in row else "bn"][seed]
    rounds = list(range(1, 2 if diverged else ROUNDS + 1))
    test = [min(error + 35 * (r < best) + (r > best), 100.0) for r in rounds]
    chosen = 0 if diverged else best - 1
    return {
        **out,
        "run_id": synthetic.key_of({"run": cfg, "data": "f" * 16}),
        "cell": {"row": row, "column": column},
        "config": cfg,
        "data": {**out["data"], "name": "fsdd", "n_test": N_TEST, "error": "error", "notes": []},
        "metrics": {
            "test_error": error, "test_error_last": test[-1], "test_error_best": min(test),
            "val_error": test[chosen] + floor, "chance": 90.0, "steps": STEPS * rounds[-1],
            "step_best_val": STEPS * rounds[chosen], "train_loss_last": 1.0,
        },
        "curves": {
            "epoch": [r / 2 for r in rounds], "step": [STEPS * r for r in rounds],
            "train_loss": [1.0] * len(rounds), "val_error": [v + floor for v in test], "test_error": test,
            "chance": [90.0] * len(rounds),
        },
        "wrong": base64.b64encode(zlib.compress(np.packbits(wrong).tobytes())).decode(),
        "epochs": rounds[-1] / 2,
        "steps": STEPS * rounds[-1],
    }  # fmt: skip


def records(seeds: int = 3) -> Iterator[dict[str, Any]]:
    for row, column in ERRORS:
        for seed in range(seeds):
            yield record(row, column, seed)


def write(runs: Path, made: list[dict[str, Any]], seeds: int = 3) -> None:
    """The records, and a grid with a point for each cell."""
    points = []
    for row, column in ERRORS:
        cfg = config(row, column, 0)
        del cfg["seed"]
        points.append({"row": row, "column": column, "config": cfg})
    grid = {"schema": 1, "table": "T7", "code": synthetic.CODE, "primary": {}, "norm": "batch",
            "profiles": {"quick": {"seeds": list(range(seeds)), "points": points}}}  # fmt: skip
    synthetic.write(runs, made)
    (runs / "T7").mkdir(parents=True, exist_ok=True)
    (runs / "T7" / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
