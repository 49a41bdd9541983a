"""How large a margin is beside the spread of single runs, and how many seeds would decide an open claim.

Both take the margin and the spread that were measured for the true ones, so they plan and decide nothing:
the number of seeds is the least at which the 95 % interval leaves 0 out in about 80 % of repetitions.

A contrast's variance has a part over seeds, which n' in place of n seeds make n/n' times as large, and a
part over test examples, which no number of seeds makes smaller. With half width h(n') and variance v(n') the
least n' is sought for which |margin| >= h(n') + z sqrt(v(n')), z the 80 % quantile of the normal
distribution. The k-th smallest of m margins follows the limits in statistics.py: above 0 it is decided once
all but k - 1 of its parts are, at their levels.
"""

from __future__ import annotations

import math
from dataclasses import replace

from scipy import special

from reports.statistics import (
    FEWEST,
    LEVEL,
    Estimate,
    Judge,
    Linear,
    Ordered,
    PValue,
    Share,
    cells_of,
    kth_smallest,
    share,
)

POWER, MOST = 0.8, 10_000
Z = float(special.ndtri(POWER))


def seeds_needed(judge: Judge, margin: Linear | Ordered) -> float:
    """The least number of seeds; infinity where none up to MOST would do, NaN where one seed's spread is not
    known, or a run missed its target.
    """
    found = judge.interval(margin)
    if found.n < 2 or cells_of(margin) & judge.missed:
        return math.nan
    tail = (1 - LEVEL) / 2
    return _needed(judge, margin, tail, 1 if found.margin > 0 else -1)


def _needed(judge: Judge, margin: Linear | Ordered, tail: float, sign: int) -> float:
    """Seeds until the limit on the side of 0 with one-sided error `tail` has the sign."""
    if isinstance(margin, Linear):
        return _of_contrast(judge.estimate(margin.weights), margin.constant, tail, sign)
    k, m = margin.k, len(margin.parts)
    must, of = (m - k + 1, k) if sign > 0 else (k, m - k + 1)  # parts that must have the sign, share of error
    parts = sorted(_needed(judge, part, tail / of, sign) for part in margin.parts)
    return math.nan if any(map(math.isnan, parts)) else parts[must - 1]


def _of_contrast(found: Estimate, constant: float, tail: float, sign: int) -> float:
    if isinstance(found, PValue) or not math.isfinite(found.variance):
        return math.nan
    size = sign * (found.mean + constant)
    if size <= 0:
        return math.inf

    def decided(n: int) -> bool:
        if isinstance(found, Share):  # the exact interval, were the share of the n runs the same
            then = share(round(n * found.hits / found.n), n).scaled(found.weight)
            low, high = then.limits(tail, tail)
            return low + constant > 0 if sign > 0 else high + constant < 0
        parts = tuple(
            (v * found.n / n, df * (n - 1) / (found.n - 1)) if over_seeds(found, df) else (v, df)
            for v, df in found.parts
        )
        wide = replace(found, parts=parts, n=n)
        return size >= wide.half_width(tail) + Z * math.sqrt(wide.variance)

    if not decided(MOST):
        return math.inf
    low, high = FEWEST - 1, MOST  # decided grows with n
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return high


def over_seeds(found: Estimate, df: float) -> bool:
    """Whether a part of the variance is one over seeds: test sets have far more examples than 30."""
    return df < max(30, found.n)


def margin_of(judge: Judge, margin: Linear | Ordered) -> float:
    if isinstance(margin, Linear):
        return judge.estimate(margin.weights).mean + margin.constant
    return float(kth_smallest(margin.k, [margin_of(judge, part) for part in margin.parts]))


def effect_size(judge: Judge, margin: Linear | Ordered) -> float:
    """The margin over the standard deviation of a single seed's margin, of the part that decides; NaN below
    two seeds or without a spread.
    """
    while isinstance(margin, Ordered):
        whole = margin_of(judge, margin)
        margin = min(margin.parts, key=lambda part: abs(margin_of(judge, part) - whole))
    found = judge.estimate(margin.weights)
    variance = sum(v for v, df in found.parts if over_seeds(found, df)) * found.n
    if isinstance(found, (PValue, Share)) or found.n < 2 or not 0 < variance < math.inf:
        return math.nan
    return (found.mean + margin.constant) / math.sqrt(variance)


def by_seed(judge: Judge, margin: Linear | Ordered) -> dict[int, float]:
    """Seed -> the margin of that seed's runs alone, for the seeds that all cells have; none where a cell is
    no mean over seeds, or some run missed its target.
    """
    cells = cells_of(margin)
    if not cells or any(judge.samples[c].ready is not None for c in cells) or cells & judge.missed:
        return {}
    seeds = set.intersection(*(set(judge.samples[c].values) for c in cells))

    def value(part: Linear | Ordered, seed: int) -> float:
        if isinstance(part, Linear):
            return part.constant + sum(w * judge.samples[c].values[seed] for c, w in part.weights.items())
        return float(kth_smallest(part.k, [value(p, seed) for p in part.parts]))

    return {seed: value(margin, seed) for seed in sorted(seeds)}
