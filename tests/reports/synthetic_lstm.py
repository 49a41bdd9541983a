"""Valid records of Table 8 without training, for the tests of the reports."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.reports import synthetic

EPOCHS, BLOCKS = 8, 40
PLAIN_BEST, BN_BEST = 6, 3  # epochs
# row -> training and validation perplexity of seed 0 at the plain network's best epoch
FIGURES = {
    "small": (80.0, 120.0), "small_bn": (62.0, 126.0), "medium": (50.0, 90.0), "medium_bn": (41.0, 100.0),
    "large": (50.0, 82.0), "large_bn": (35.0, 103.0), "small_recurrent_bn": (70.0, 118.0),
    "small_recurrent_bn_1": (85.0, 125.0), "small_ln": (66.0, 119.0), "small_wn": (78.0, 121.0),
    "char": (2.7, 2.8), "char_recurrent_bn": (2.5, 2.6),
}  # fmt: skip
NORMS = {
    "": "none", "_bn": "lstm_batch", "_recurrent_bn": "lstm_recurrent_batch", "_ln": "lstm_layer",
    "_recurrent_bn_1": "lstm_recurrent_batch", "_wn": "weight_norm",
}  # fmt: skip


def figures(row: str, seed: int) -> tuple[float, float]:
    """Training and validation perplexity of a seed: rows do not move alike from seed to seed."""
    jitter = 0.1 * ((list(FIGURES).index(row) * 7 + seed * 3) % 5 - 2)
    step, scale = (0.01, 0.01) if row.startswith("char") else (1.0, 1.0)
    train, val = FIGURES[row]
    return train + step * seed + scale * jitter, val + step * seed + scale * jitter


def size_of(row: str) -> str:
    return row.split("_")[0]


def config(row: str, seed: int, **changes: Any) -> dict[str, Any]:
    size = size_of(row)
    chars = size == "char"
    return {
        "table": "T8",
        "data": {"name": "ptb", "val_fraction": 0.1, "limit_train": None, "limit_eval": None,
                 "options": {"units": "chars" if chars else "words"}, "share": 1.0},
        "model": {"name": "lstm_lm", "size": size, "hidden": 200, "layers": 2, "dropout": 0.0, "start": 0.1,
                  "forget_bias": 0.0, "gamma": 1.0 if row.endswith("_1") else None},
        "norm": {"name": NORMS.get(row.removeprefix(size), "lstm_layer"), "options": {}},
        "optimizer": {"name": "SGD", "lr": 1.0, "l2": 0.0, "options": {}},
        "keep_rate": 4, "decay": 0.5, "clip": 5.0, "window": 20, "crop": False, "batch_size": 20,
        "epochs": EPOCHS, "seed": seed,
        **changes,
    }  # fmt: skip


def curves(row: str, seed: int) -> dict[str, list[float]]:
    """Training falls to its figure at PLAIN_BEST and goes on; validation has its best there or, with BN, at
    BN_BEST, 3 lower than at PLAIN_BEST.
    """
    train, val = figures(row, seed)
    step = 0.01 if row.startswith("char") else 1.0
    best = BN_BEST if "_bn" in row else PLAIN_BEST
    epochs = range(1, EPOCHS + 1)
    low = val - 3 * step if best != PLAIN_BEST else val
    found = {
        "epoch": list(epochs), "step": [100 * e for e in epochs],
        "train_ppl": [train + step * (10 if e < PLAIN_BEST else 1) * (PLAIN_BEST - e) for e in epochs],
        "val_ppl": [low + step * abs(e - best) for e in epochs],
    }  # fmt: skip
    for name, more in (("val_ppl_mixture", 1), ("val_ppl_source", 2), ("test_ppl", -4)):
        found[name] = [v + step * more for v in found["val_ppl"]]
    found["train_ppl_evaluated"] = [v - 5 * step for v in found["train_ppl"]]
    found["train_loss"] = [float(np.log(v)) for v in found["train_ppl"]]
    return found


def record(row: str, seed: int = 0, lost: bool = False, norm: str | None = None) -> dict[str, Any]:
    cfg = config(row, seed)
    if norm:
        cfg["norm"] = {"name": norm, "options": {}}
    out = synthetic.record("a1", "mnist", seed, table="T8", status="diverged" if lost else "finished")
    found: dict[str, list[Any]] = curves(row, seed)
    if lost:
        found = {"epoch": [1], "step": [3], "train_loss": [None], **{k: [None] for k in found if "ppl" in k}}
    at = 0 if lost else found["val_ppl"].index(min(found["val_ppl"]))
    metrics = {k: v[at] for k, v in found.items() if "ppl" in k}
    metrics |= {"epoch_best_val": found["epoch"][at], "steps": found["step"][-1]}
    metrics["test_bits"] = None if lost else float(np.log2(metrics["test_ppl"]))
    metrics |= {"train_ppl_last": found["train_ppl"][-1], "val_ppl_last": found["val_ppl"][-1]}
    noise = np.random.default_rng(7).standard_normal(BLOCKS)
    scores = (metrics["val_ppl"] or 0) + 8 * (noise - noise.mean())  # the same stretches are hard for all
    packed = base64.b64encode(zlib.compress(scores.astype("<f4").tobytes())).decode()
    return {
        **out,
        "run_id": synthetic.key_of({"run": cfg, "data": "f" * 16}),
        "cell": {"row": row, "column": "char" if size_of(row) == "char" else "ptb"},
        "config": cfg,
        "data": {**out["data"], "name": "ptb_chars" if size_of(row) == "char" else "ptb", "n_test": 82_430,
                 "error": "perplexity", "notes": []},
        "metrics": metrics,
        "curves": found,
        "wrong": None,
        **({} if lost else {"scores": packed}),
        "epochs": found["epoch"][-1],
        "steps": found["step"][-1],
    }  # fmt: skip


def records(seeds: int = 3) -> Iterator[dict[str, Any]]:
    for row in FIGURES:
        for seed in range(seeds):
            yield record(row, seed)


def write(runs: Path, made: list[dict[str, Any]], seeds: int = 3) -> None:
    """The records, and a grid with a point for each cell."""
    points = []
    for row in FIGURES:
        cfg = config(row, 0)
        del cfg["seed"]
        points.append({"row": row, "column": "char" if size_of(row) == "char" else "ptb", "config": cfg})
    grid = {"schema": 1, "table": "T8", "code": synthetic.CODE, "primary": {}, "norm": "none",
            "profiles": {"quick": {"seeds": list(range(seeds)), "points": points}}}  # fmt: skip
    synthetic.write(runs, made)
    (runs / "T8").mkdir(parents=True, exist_ok=True)
    (runs / "T8" / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
