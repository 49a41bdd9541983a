"""Figures at another run's epoch: Table 8's source prints both networks of a pair at one epoch, most probably
that of the plain network's best validation perplexity, neither the last nor BN's own best.

The epoch belongs to a column and a seed: that of the run of the row's `epoch_of` with the same seed, in the
published file. A row without one is read at its own best epoch. Where the other run is not there, did not
finish, or went on for longer than this run, there is no figure. A run that diverged has infinity.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from reports.published import Published
from reports.store import heavy

CURVE = "val_ppl"
READ = ("train_ppl", "val_ppl", "val_ppl_mixture", "val_ppl_source", "train_ppl_evaluated")
OWN = ("metrics.val_ppl", "metrics.test_ppl", "metrics.test_bits")
EARLY = 5  # epochs: T8.C8
AT = [f"metrics.{name}" for name in (*(f"{r}_at" for r in READ), "gap_at", "train_log_at", "train_ppl_early")]


def added(runs: pd.DataFrame, published: Published) -> pd.DataFrame:
    """The runs with the columns AT: READ at that epoch, validation minus training there, the logarithm of
    training there, and training over epoch EARLY. OWN of a run that diverged, or that were too large for a
    number, are infinite too.
    """
    if runs.empty:
        return runs.assign(**dict.fromkeys(AT, pd.Series(dtype=float)))
    of = {row.id: row.epoch_of for row in published.rows}
    rows, curves = runs["row"].astype(object), heavy(runs, "curves")
    places = list(zip(runs["column"], runs["seed"], runs["data.fingerprint"].astype(object), strict=True))
    sound = (runs["match"] == "cell") & (runs["status"].astype(object) == "finished")
    best = {
        (row, *place): chosen
        for row, place, ok, curve in zip(rows, places, sound, curves, strict=True)
        if ok and row in of.values() and (chosen := at_best(curve)) is not None
    }
    found: dict[str, list[float]] = {name: [] for name in AT}
    for row, place, curve in zip(rows, places, curves, strict=True):
        other = of.get(row, "")
        epoch = best.get((other, *place)) if other else at_best(curve)
        read = {f"{name}_at": value_at(curve, name, epoch) for name in READ}
        read["gap_at"] = read["val_ppl_at"] - read["train_ppl_at"]
        read["train_log_at"] = math.log(read["train_ppl_at"]) if read["train_ppl_at"] > 0 else math.nan
        length = len((curve or {}).get("train_ppl") or ())
        read["train_ppl_early"] = value_at(curve, "train_ppl", min(EARLY, length) - 1)
        for name in AT:
            found[name].append(read[name.removeprefix("metrics.")])
    lost = runs["status"].astype(object) == "diverged"
    runs = runs.assign(**{name: pd.Series(v, runs.index).mask(lost, math.inf) for name, v in found.items()})
    for name in OWN:
        if name in runs:
            blown = runs[name].isna() & (runs["status"].astype(object) == "finished")
            runs = runs.assign(**{name: runs[name].mask(lost | blown, math.inf)})
    return runs


def at_best(curves: Any) -> int | None:
    """Index of the epoch of the best validation perplexity; None without curves."""
    values = [math.inf if v is None else v for v in (curves or {}).get(CURVE) or ()]
    return values.index(min(values)) if values and math.isfinite(min(values)) else None


def value_at(curves: Any, name: str, index: int | None) -> float:
    values = (curves or {}).get(name) or ()
    if index is None or not 0 <= index < len(values):
        return math.nan
    return math.inf if values[index] is None else float(values[index])  # null: too large for a number
