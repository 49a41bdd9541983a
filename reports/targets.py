"""Steps to a target: how long a run needs for the best validation accuracy of another row's run.

The target belongs to a column and a seed: the best validation error of the target row's run with that seed.
That row is fixed by the published file, for all rows or for each, before anything is judged; a run that
never gets there has infinity, a miss. A target row's run that diverged sets no target: its best may be
that of a network that learned nothing, which any run reaches at once. Such a seed has NaN in every row, as
where the target row's run is not there.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from reports.published import Published
from reports.statistics import time_to_target
from reports.store import heavy

CURVE = "val_error"
STEPS, END = "metrics.steps_to_target", "metrics.steps_allowed"
SPEED = "metrics.speed_up"
BESIDE = "metrics.speed_beside"
TARGET = "metrics.target"
LOST = "metrics.diverged"  # 1 where a run diverged, 0 where not; in every table


def added(runs: pd.DataFrame, published: Published) -> pd.DataFrame:
    """The runs with STEPS; END, the steps that a run had, which a miss is known to exceed; SPEED, the target
    row's steps divided by the run's (0: a miss); BESIDE, the steps to the same target of the row that the
    published file sets beside, divided by the run's (infinity: that row missed it, NaN: both did); TARGET,
    the validation error to reach.
    """
    if runs.empty:
        return runs.assign(**dict.fromkeys((STEPS, END, SPEED, BESIDE, TARGET), pd.Series(dtype=float)))
    curves = [usable(c) for c in heavy(runs, "curves")]
    targets: dict[tuple[Any, ...], float] = {}
    own: dict[tuple[Any, ...], float] = {}
    rows = runs["row"].astype(object)
    places = list(zip(runs["column"], runs["seed"], runs["data.fingerprint"].astype(object), strict=True))
    sound = (runs["match"] == "cell") & (runs["status"].astype(object) == "finished")
    of_target = sound & rows.isin(list(published.targets))
    for row, place, mine, curve in zip(rows, places, of_target, curves, strict=True):
        if mine and curve and (values := [v for v in curve[CURVE] if v is not None]):
            targets[row, *place] = min(values)
            own[row, *place] = time_to_target(curve["step"], curve[CURVE], min(values))
    keys = [(published.target_of(row), *place) for row, place in zip(rows, places, strict=True)]
    steps, ends = [], []
    for key, curve, epochs, status in zip(keys, curves, runs["config.epochs"], runs["status"], strict=True):
        if status == "failed" or key not in targets:
            steps.append(math.nan)
            ends.append(math.nan)
            continue
        steps.append(time_to_target(curve["step"], curve[CURVE], targets[key]) if curve else math.inf)
        # a run that diverged would not have got there with the rest of its steps either
        ends.append(curve["step"][-1] / curve["epoch"][-1] * float(epochs) if curve else 0.0)
    speed = [ratio(own.get(key, math.nan), s) for key, s in zip(keys, steps, strict=True)]
    cells = zip(rows, runs["match"] == "cell", places, steps, strict=True)
    others = {place: s for row, mine, place, s in cells if mine and row == published.beside}
    beside = [ratio(others.get(place, math.nan), s) for place, s in zip(places, steps, strict=True)]
    wanted = [targets.get(key, math.nan) for key in keys]
    found: dict[str, Any] = {STEPS: steps, END: ends, SPEED: speed, BESIDE: beside, TARGET: wanted}
    return runs.assign(**found)


def ratio(one: float, other: float) -> float:
    """NaN where it says nothing."""
    return math.nan if not other or (math.isinf(one) and math.isinf(other)) else one / other


def usable(curves: Any) -> dict[str, list[Any]] | None:
    """Curves with a point at least, cut where the shortest of those needed here ends."""
    wanted = ("step", "epoch", CURVE)
    if not curves or not all(curves.get(name) for name in wanted):
        return None
    size = min(len(curves[name]) for name in wanted)
    return {name: curves[name][:size] for name in wanted}
