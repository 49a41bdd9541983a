"""Valid records of Table 11 without training, for the tests of the reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from reports import published
from tests.reports import synthetic

T11 = published.load("T11")
NORMS = {
    "bn": "batch",
    "br": "renorm",
    "dbn": "diminishing",
    "ln": "layer",
    "wn": "weight_norm",
    "gn": "group",
}
TRAINED = ("mlp", "cnn", "rnn", "cnn_labels", "cnn_groups_4")
# row -> test error; the others have 9. In the order of what the survey says of them where it says it
ERRORS = {"none": 10.0, "bn": 8.0, "normprop": 8.5, "br": 6.5, "ln": 8.6, "wn": 9.0}
TIMES = {"none": 0.7, "normprop": 0.8, "ln": 0.9, "wn": 0.85, "bn": 1.0, "snn": 1.05, "br": 1.2, "dbn": 1.3}
SAME = ("none", "normprop", "ln", "wn", "snn", "gn", "rms")


def config(row: str, column: str, seed: int) -> dict[str, Any]:
    network = next(n for n in ("mlp", "cnn", "rnn") if n in column)
    study = "training" if column in TRAINED else column.rsplit("_", 1)[0]
    name = row.split("_")[0]
    data = {"name": "mnist5k", "val_fraction": 0.1, "limit_train": None, "limit_eval": None, "options": {}}
    model = {"name": network, "width": 8, "depth": 2, "activation": "relu" if row == "snn_relu" else None}
    return {
        "table": "T11", "data": data, "model": model,
        "norm": {"name": NORMS.get(name, name), "options": {}},
        "optimizer": {"name": "SGD", "lr": 0.01, "l2": 0.0, "options": {}},
        "study": study, "values": [], "scale": 1.0, "dropout": 0.1 if "dropout" in row else 0.0,
        "dropout_kind": "own" if "alpha" in row else "plain",
        "order": "labels" if "labels" in column else "random",
        "groups": 4 if "groups" in column else None, "start": "standard",
        "rate_factor": 5.0 if row.endswith("_x5") else 1.0,
        "batch_size": 32, "epochs": 4, "evaluations": 1, "seed": seed,
    }  # fmt: skip


def measured(row: str, column: str, seed: int) -> tuple[dict[str, float], dict[str, list[Any]]]:
    """(metrics, curves) as the runner's."""
    place = [r.id for r in T11.rows].index(row)
    jitter = 0.01 * ((place * 7 + seed * (1 + place % 4)) % 5)
    error = ERRORS.get(row, 9.0) + jitter
    base = {"epoch": [1, 2, 3, 4], "train_loss": [2.0, 1.0, 0.5, 0.4]}
    if column in TRAINED:
        if "labels" in column and row == "bn":
            error += 10
        val = [60.0, 30.0, error + 1 - 0.5 * (row == "bn_x5"), error]
        metrics = {
            "test_error": error, "test_error_last": error, "val_error": error, "epoch_best_val": 4.0,
            "epochs_to_90": 3.0, "wobble": 5.0 + jitter + (row == "bn"), "train_loss_last": 0.4,
            "gap": 1.0 + jitter, "disagreement": 0.0 if row in SAME else 0.2 + jitter,
            "gradient_noise": 2.0 + jitter + (row == "bn"),
        }  # fmt: skip
        if column == "mlp":
            metrics |= {"ks_input": 0.05, "ks_output": 0.4 + jitter, "ks_rectified": 0.06}
        return metrics, {**base, "step": [100, 200, 300, 400], "val_error": val, "test_error": val}
    if column.startswith("cost"):
        ratios = {"operations_ratio": 1.1, "traffic_ratio": 1.0, "saved_ratio": 0.9}
        return {"time_ratio": TIMES.get(row, 1.0) + 0.1 * jitter, **ratios}, {**base, "time_ratio": [1.0] * 4}
    if column == "depth_mlp":
        drift = {"snn": 0.05, "snn_alpha_dropout": 0.1, "snn_relu": 20.0}.get(row, 0.9) + jitter
        low = 1e-9 if row == "snn_relu" else 0.9 - jitter
        high = {"snn_relu": 1e-8, "snn": 1.1}.get(row, 2.0) + (0 if row == "snn_relu" else jitter)
        layers = {
            f"{k}_{m:+g}_{v:g}": [0.9, 1.0]
            for k in ("means", "variances")
            for m in (-1, 1)
            for v in (0.5, 1, 2)
        }
        metrics = {"mean_off": 0.01 + jitter / 10, "variance_low": low, "variance_high": high, "drift": drift}
        return metrics, {**base, **layers}
    values = {
        "batch_size": [1.0, 2, 4, 8, 16, 32, 64, 128, 256], "scale": [0.01, 0.1, 1.0, 10.0],
        "rate": [0.01, 0.1, 1.0], "dropout": [0.0, 0.2, 0.5],
    }[column.rsplit("_", 1)[0]]  # fmt: skip
    slope = {"bn": 6.0, "dbn": 3.0}.get(row, 0.1) if column.startswith("batch_size") else -0.2
    errors = [error + slope / v if v else error for v in values]
    metrics = {f"error_at_{v:g}": e for v, e in zip(values, errors, strict=True)}
    metrics |= {
        "spread": (3.0 if row == "none" else 1.0) + jitter,
        "log2_largest": 0.0 if row == "bn" else -4.0,
    }
    return metrics, {**base, "value": values, "test_error": errors, "val_error": errors}


def record(row: str, column: str, seed: int) -> dict[str, Any]:
    cfg, (metrics, curves) = config(row, column, seed), measured(row, column, seed)
    out = synthetic.record("a1", "mnist", seed, table="T11", status="finished")
    return {
        **out, "run_id": synthetic.key_of({"run": cfg, "row": row, "column": column}), "paper": None,
        "cell": {"row": row, "column": column}, "config": cfg,
        "metrics": metrics, "curves": curves, "wrong": None,
        "data": {**out["data"], "n_test": 1_000_000, "notes": ["digits"]},
    }  # fmt: skip


def write(runs: Path, seeds: int = 3) -> list[dict[str, Any]]:
    """Every cell that the facts name, and a grid with a point for each."""
    cells = [(r.id, c) for r in T11.rows for c in r.columns if c != "dqn"]
    made = [record(row, column, seed) for row, column in cells for seed in range(seeds)]
    points = [
        {
            "row": row,
            "column": column,
            "config": {k: v for k, v in config(row, column, 0).items() if k != "seed"},
        }
        for row, column in cells
    ]
    grid = {"schema": 1, "table": "T11", "code": synthetic.CODE, "primary": {}, "norm": "none",
            "profiles": {"quick": {"seeds": list(range(seeds)), "points": points}}}  # fmt: skip
    synthetic.write(runs, made)
    (runs / "T11").mkdir(parents=True, exist_ok=True)
    (runs / "T11" / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
    return made
