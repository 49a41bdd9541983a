"""A run's main metric as a share of another row's mean, so that columns on different scales can be averaged.

That row's mean is over its seeds in the same column and on the same data, diverged runs with what they count
as. It is taken as known: a contrast of shares, row minus that row, has the spread over seeds of the
differences of scores, which is right to first order where both rows score alike, and that is what a claim of
"more than" is tested against. Where the mean is 0 there is no share.
"""

from __future__ import annotations

import math

import pandas as pd

from reports.published import Published


def share(published: Published) -> str:
    """The column that `added` adds: of the metric that claims see as `relative`."""
    return next(f"metrics.{m.id}" for m in published.metrics if m.claim == "relative")


def added(runs: pd.DataFrame, published: Published) -> pd.DataFrame:
    """The runs with `share`; NaN where that row has no run in the column."""
    main = published.metrics[0]
    if runs.empty or f"metrics.{main.id}" not in runs:
        return runs.assign(**{share(published): pd.Series(math.nan, runs.index)})
    values = runs[f"metrics.{main.id}"].astype(float)
    if main.lost is not None:
        values = values.mask(runs["status"].astype(object) == "diverged", main.lost)
    places = pd.Series(
        list(zip(runs["column"].astype(object), runs["data.fingerprint"].astype(object), strict=True)),
        index=runs.index,
    )
    base = (runs["match"] == "cell") & (runs["row"].astype(object) == published.relative_to)
    base &= runs["status"].astype(object) != "failed"
    means = values[base].groupby(places[base]).mean()
    whole = places.map(means).astype(float)
    return runs.assign(**{share(published): values / whole.where(whole > 0)})
