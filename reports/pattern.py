"""Which way of reading the paper gives the published pattern? Answered from the runs of all variants.

The level of the error differs from data set to data set, so the shape is compared: with
l_i = log(ours_i / published_i) over the rows i of the table, the distance of a variant is
exp(sqrt(mean((l_i - median(l))^2))), the typical factor by which a row is off once the common level is taken
out (1 = the published shape exactly). Beside it stand four features that a reader takes from the printed
table, as plain inequalities on our means. The factors 1.5 are ours, the factor 3 is that of claim T3.C2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from reports.published import Published

FEATURES = {
    "zero": "alpha = 0 is useless: err(0) > 3 x the largest other error",
    "alike": "constants between 0 and 1 work alike: largest / smallest error <= 1.5",
    "square": "1/m^2 works: err(1/m^2) <= 1.5 x the median of the constants between 0 and 1",
    "one": "alpha = 1 is the worst useful value: err(1) > every other error with alpha > 0",
}
KEYS = ["config.reading", "config.initial", "config.unit", "config.placement"]


@dataclass(frozen=True)
class Variant:
    """One way of reading the paper on one data set.

    errors: mean test error in %, in the order of published.rows, NaN where not run.
    """

    column: str
    data: str
    reading: str
    initial: str
    unit: str
    placement: str
    primary: bool
    errors: list[float]
    n: int  # the fewest seeds behind a row that has any
    distance: float | None
    features: dict[str, bool | None]

    @property
    def score(self) -> int:
        return sum(bool(v) for v in self.features.values())

    @property
    def name(self) -> str:
        return f"{self.reading}, {self.initial}, m in {self.unit}s, {self.placement} the activation"


def features(values: list[float | str | None], errors: list[float]) -> dict[str, bool | None]:
    """The four features of a column of errors; None where the rows that it needs did not run."""
    known = {v: e for v, e in zip(values, errors, strict=True) if not math.isnan(e)}
    middle = [e for v, e in known.items() if isinstance(v, (int, float)) and 0 < v < 1]
    useful = [e for v, e in known.items() if v != 0]
    complete = len(known) == len(values)
    return {
        "zero": known[0] > 3 * max(useful) if complete and 0 in known else None,
        "alike": max(middle) <= 1.5 * min(middle) if len(middle) > 1 else None,
        "square": known["inv_m2"] <= 1.5 * float(np.median(middle)) if "inv_m2" in known and middle else None,
        "one": known[1] > max(e for v, e in known.items() if v not in (0, 1))
        if complete and 1 in known
        else None,
    }


def distance(published: list[float | None], errors: list[float]) -> float | None:
    """Typical factor off the published shape, over the rows that have both; None below five rows."""
    logs = [
        math.log(max(e, 0.01) / p)  # a run without one error still has a logarithm
        for p, e in zip(published, errors, strict=True)
        if p is not None and p > 0 and not math.isnan(e)
    ]
    if len(logs) < 5:
        return None
    off = np.asarray(logs) - np.median(logs)
    return math.exp(math.sqrt(float(np.mean(off**2))))


def printed(published: Published, column: str) -> list[float | None]:
    """The published errors of a column in row order: the source's where it prints one, else the survey's."""
    found = [published.figure(row.id, column, "error") for row in published.rows]
    return [None if f is None else f.source if f.source is not None else f.survey for f in found]


def variants(
    runs: pd.DataFrame, published: Published, primary: dict[str, Any], metric: str = "metrics.test_error"
) -> list[Variant]:
    """All variants among a report's runs (match: cell | variant), best first within each column."""
    if runs.empty or not {*KEYS, "match", metric} <= set(runs.columns):
        return []
    rows = [row.id for row in published.rows]
    values = [row.value for row in published.rows]
    constant = {row.id for row in published.rows if not isinstance(row.value, str)}
    used = runs[runs["match"].isin(["cell", "variant"]) & runs[metric].notna() & runs["row"].isin(rows)]
    other = (
        used[used["row"].isin(constant)]
        .groupby(["column", *[k for k in KEYS if k != "config.unit"], "row"])[metric]
        .mean()
    )
    found = []
    for key, group in used.groupby(["column", *KEYS], sort=True):
        column, reading, initial, unit, placement = (str(part) for part in key)
        by_row = group.groupby("row")[metric].agg(["mean", "count"])
        # a constant alpha does not depend on what m counts: such rows may have run under the other unit alone
        fill = {row: other.get((column, reading, initial, placement, row), math.nan) for row in rows}
        errors = [float(by_row["mean"].get(row, fill[row])) for row in rows]
        mine = {"reading": reading, "initial": initial, "unit": unit, "placement": placement}
        found.append(
            Variant(
                column=column,
                data=", ".join(sorted(set(group["data.name"].astype(str)))),
                **mine,
                primary=all(str(primary.get(k)) == v for k, v in mine.items()),
                errors=errors,
                n=int(by_row["count"].min()),
                distance=distance(printed(published, column), errors),
                features=features(values, errors),
            )
        )
    order = {column: i for i, column in enumerate(published.data_columns)}
    return sorted(found, key=lambda v: (order.get(v.column, 99), -v.score, v.distance or math.inf))
