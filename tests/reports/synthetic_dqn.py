"""Valid records of Table 4 without training, for the tests of the reports."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.reports import synthetic

EPOCHS, EVERY = 50, 20_000  # evaluations; steps of training between two
BEST = 40  # evaluation in which the score is higher by a tenth
ATARI = ("breakout", "enduro", "seaquest", "space_invaders")
MINATAR = ("breakout_minatar", "freeway_minatar", "seaquest_minatar", "space_invaders_minatar")
# column -> score of DQN; row -> what its score is of that, on Breakout and elsewhere
SCORES = {
    "breakout": 4.0, "enduro": 10.0, "seaquest": 200.0, "space_invaders": 250.0,
    "breakout_minatar": 10.0, "freeway_minatar": 50.0, "seaquest_minatar": 8.0,
    "space_invaders_minatar": 40.0, "asterix_minatar": 17.0,
}  # fmt: skip
SHARES = {"dqn": (1.0, 1.0), "dqn_wn": (0.98, 1.2), "dqn_bn": (0.6, 0.5), "dqn_wn_standard": (0.9, 1.1)}
NORMS = {"dqn": "none", "dqn_wn": "weight_norm", "dqn_bn": "batch", "dqn_wn_standard": "weight_norm"}


def score(row: str, column: str, seed: int) -> float:
    """Of the end of training: rows do not move alike from seed to seed."""
    jitter = 0.002 * ((list(SHARES).index(row) * 7 + seed * 3) % 5 - 2)
    return SCORES[column] * (SHARES[row][not column.startswith("breakout")] + 0.01 * seed + jitter)


def config(row: str, column: str, seed: int, lr: float = 0.0003) -> dict[str, Any]:
    atari = column in ATARI
    options = {"game": column.removesuffix("_minatar"), "sticky": 0.0 if atari else 0.1}
    start = "standard" if row in ("dqn_bn", "dqn_wn_standard") else "data"
    return {
        "table": "T4",
        "data": {"name": "atari" if atari else "minatar", "val_fraction": 0.1, "limit_train": None,
                 "limit_eval": None, "options": options, "share": 1.0},
        "model": {"name": "nature" if atari else "minatar", "bias": 0.0, "start": start, "head": True},
        "norm": {"name": NORMS[row], "options": {}},
        "optimizer": {"name": "Adamax", "lr": lr, "l2": 0.0, "options": {"betas": [0.5, 0.999]}},
        "replay": {"size": 100_000, "first": 5000, "history": 4 if atari else 1},
        "explore": {"first": 1.0, "last": 0.1, "steps": 100_000, "evaluation": 0.05},
        "evaluation": {"every": EVERY, "steps": 2000},
        "gamma": 0.99, "update_every": 4, "target_every": 1000, "batch_size": 64, "epochs": EPOCHS,
        "seed": seed,
    }  # fmt: skip


def curves(row: str, column: str, seed: int) -> dict[str, list[Any]]:
    """The score is reached half way, and stays, but for one evaluation."""
    end, epochs = score(row, column, seed), range(1, EPOCHS + 1)
    returns = [end * min(1.0, 2 * e / EPOCHS) * (1.1 if e == BEST else 1.0) for e in epochs]
    shape = [8, 42, 42] if column in ATARI else [8, 10, 10]
    size = shape[0] * shape[1] * shape[2]
    return {
        "epoch": list(epochs), "step": [float(EVERY * e) for e in epochs],
        "train_loss": [1.0 / e for e in epochs], "train_return": [0.9 * r for r in returns],
        "test_return": returns, "test_episodes": [float(5 + e % 3) for e in epochs],
        "value": [2.0 + 0.01 * e for e in epochs], "remaining": [float(EPOCHS - e) for e in epochs],
        "strip": [i % 5 for i in range(size)], "strip_shape": shape,
    }  # fmt: skip


def record(row: str, column: str, seed: int = 0, lost: bool = False, lr: float = 0.0003) -> dict[str, Any]:
    cfg = config(row, column, seed, lr)
    out = synthetic.record("a1", "mnist", seed, table="T4", status="diverged" if lost else "finished")
    found = curves(row, column, seed)
    if lost:
        found = {name: values[:3] for name, values in found.items() if not name.startswith("strip")}
        found["train_loss"][-1] = None
    returns, episodes = found["test_return"], found["test_episodes"]
    last = max(1, round(len(returns) / 10))
    best = returns.index(max(returns))
    metrics = {
        "best_return": returns[best], "best_episodes": episodes[best],
        "last_return": sum(returns[-last:]) / last, "last_episodes": sum(episodes[-last:]),
        "mean_return": sum(returns) / len(returns), "train_loss_last": found["train_loss"][-1],
        "value_last": found["value"][-1], "steps": found["step"][-1],
    }  # fmt: skip
    return {
        **out,
        "run_id": synthetic.key_of({"run": cfg, "data": column}),
        "cell": {"row": row, "column": column},
        "config": cfg,
        "data": {**out["data"], "name": cfg["data"]["name"], "fingerprint": f"{column:f<16}"[:16],
                 "n_train": 0, "n_val": 0, "n_test": 0, "error": "return", "notes": [f"{column}, 6 actions"]},
        "metrics": metrics,
        "curves": found,
        "wrong": None,
        "epochs": found["epoch"][-1],
        "steps": int(found["step"][-1]),
    }  # fmt: skip


def write(runs: Path, seeds: dict[str, int], rows: Iterable[str] = tuple(SHARES)) -> list[dict[str, Any]]:
    """The records of so many seeds of each column, and a grid with a point for each cell."""
    made = [record(row, column, seed) for column, n in seeds.items() for row in rows for seed in range(n)]
    save(runs, made)
    return made


def save(runs: Path, made: list[dict[str, Any]]) -> None:
    points, known = [], set()
    for found in made:
        place = (found["cell"]["row"], found["cell"]["column"])
        if place not in known:
            known.add(place)
            cfg = {k: v for k, v in found["config"].items() if k != "seed"}
            points.append({"row": place[0], "column": place[1], "config": cfg})
    seeds = sorted({found["config"]["seed"] for found in made})
    grid = {"schema": 1, "table": "T4", "code": synthetic.CODE, "primary": {}, "norm": "none",
            "profiles": {"quick": {"seeds": seeds, "points": points}}}  # fmt: skip
    synthetic.write(runs, made)
    (runs / "T4").mkdir(parents=True, exist_ok=True)
    (runs / "T4" / "grid.json").write_text(json.dumps(grid), encoding="utf-8")
