"""Numbers from few runs: means and signed margins of claims with their intervals, medians with misses.

A claim's margin is a *linear contrast* of cells (`Linear`: sum of weight x cell mean + constant) or an
*order statistic* of such margins (`Ordered`: the k-th smallest; k = 1 is the worst part of a conjunction, k =
m the best of an alternative).

Linear contrasts. Runs of different cells that share a seed are paired. Where every run carries its mask of
wrong test examples, x[s, e] = sum over cells of weight x 100 x wrong (n seeds, N examples) is a two-way
layout with both factors random, and

    Var(mean) = (MS_seed + MS_example - MS_residual) / (n N)

which covers another draw of seeds *and* another draw of test examples. The same layout takes real-valued
`scores` whose mean over the "examples" is the metric: the rank of a method on each data set (another draw of
data sets), an AUC as the mean of its influence values. Where some cells of a contrast have scores and others
of the same runs cannot (training beside validation), MS_seed / nN is the whole contrast's variance over
seeds and the rest the scored cells'. Without masks or scores the seeds' variance of the
contrast is taken and the binomial weight^2 p (1 - p) / N of each cell is added (conservative: it
ignores that cells share their test examples). Metrics that are no mean over examples (epochs, variances)
know the seeds' variance only.

Critical values. The variance has a part with n - 1 degrees of freedom and one with about N - 1. The t
quantile of Satterthwaite's single df covers too little where the parts are of one size (92 % at n = 3), the
parts' own t quantiles weighted by their variances (as Cochran and Cox do for two means [memory]) too much
(97.3 %). Both are exact where one part dominates. We take a third of the first and two thirds of the
second: ours, by simulation, 94.3 to 96.7 % for n = 3, 5, 10 whatever the parts' ratio
(tests/reports/test_statistics.py).

Order statistics. With one-sided error a for the lower limit, the k-th smallest of the parts' lower limits
at a/k is a lower limit of the k-th smallest margin (were it above, one of any k parts that lie at or below
the true value would have missed: union bound), and the k-th smallest of the upper limits at a/(m - k + 1)
an upper one. For k = 1 this is the intersection-union test below and Bonferroni above. It holds whatever
the dependence between parts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from scipy import special

LEVEL = 0.95
FEWEST = 3  # fewer seeds than this give no verdict
HOW = [
    "crossed",
    "sets",
    "partly",
    "binomial",
    "seeds",
    "share",
    "unpaired",
    "jackknife",
]  # what an interval is made of, the best first


# ----------------------------------------------------------------------------------- margins as expressions


@dataclass(frozen=True)
class Linear:
    """Sum over cells of weights[c] * cell_c, plus a constant; adds and scales like a number."""

    weights: Mapping[Any, float]
    constant: float = 0.0

    def __add__(self, other: Linear | float) -> Linear:
        if not isinstance(other, Linear):
            return Linear(self.weights, self.constant + other)
        weights = dict(self.weights)
        for cell, weight in other.weights.items():
            weights[cell] = weights.get(cell, 0.0) + weight
        return Linear({c: w for c, w in weights.items() if w}, self.constant + other.constant)

    def __mul__(self, factor: float) -> Linear:
        return Linear({c: factor * w for c, w in self.weights.items()}, factor * self.constant)

    def __neg__(self) -> Linear:
        return self * -1.0

    def __sub__(self, other: Linear | float) -> Linear:
        return self + -other

    def __rsub__(self, other: float) -> Linear:
        return -self + other

    __radd__ = __add__
    __rmul__ = __mul__


@dataclass(frozen=True)
class Ordered:
    """The k-th smallest (k from 1) of the parts."""

    k: int
    parts: tuple[Linear | Ordered, ...]


Margin: TypeAlias = float | Linear | Ordered


def kth_smallest(k: int, parts: Sequence[Any]) -> Any:
    """The k-th smallest (k from 1) of numbers (NaN where one is missing) or of expressions."""
    if not 1 <= k <= len(parts):
        raise ValueError(f"k = {k} of {len(parts)} parts: k must lie between 1 and their number")
    if any(isinstance(part, (Linear, Ordered)) for part in parts):
        return Ordered(k, tuple(parts))
    return math.nan if any(math.isnan(part) for part in parts) else sorted(parts)[k - 1]


def kth_largest(k: int, parts: Sequence[Any]) -> Any:
    return kth_smallest(len(parts) - k + 1, parts)


def smallest(parts: Sequence[Any]) -> Any:
    return kth_smallest(1, parts)


def largest(parts: Sequence[Any]) -> Any:
    return kth_largest(1, parts)


def cells_of(margin: Margin) -> set[Any]:
    """The cells that a margin is made of."""
    if isinstance(margin, Linear):
        return set(margin.weights)
    if isinstance(margin, Ordered):
        return set().union(*(cells_of(part) for part in margin.parts))
    return set()


# ------------------------------------------------------------------------------------ samples and estimates


@dataclass(frozen=True)
class Sample:
    """The runs of one cell and metric: seed -> value. `wrong`: seed -> bool [N], its mean x 100 is the value.

    A value may be infinity, a miss: `ends` then says how far that run looked, which its value exceeds.
    `examples` is the size N of the test set, None for a metric that is no percentage of test examples.
    `test_set` names the test set: cells of one test set are paired by example. `scores`: seed -> float [N],
    its mean is the value; in the place of `wrong` for other metrics. `ready`: the estimate itself, for a
    number that is no mean over seeds, such as a p-value. `how`: what the interval of masks or scores is
    called.
    """

    values: Mapping[int, float]
    examples: int | None = None
    test_set: str = ""
    wrong: Mapping[int, np.ndarray] = field(default_factory=dict)
    scores: Mapping[int, np.ndarray] = field(default_factory=dict)
    ready: Estimate | None = None
    how: str = "crossed"
    ends: Mapping[int, float] = field(default_factory=dict)

    @property
    def missed(self) -> bool:
        return any(math.isinf(value) for value in self.values.values())

    @property
    def bounded(self) -> Sample:
        """With a miss counted as far as its run looked: less than the truth."""
        values = {s: self.ends.get(s, 0.0) if math.isinf(v) else v for s, v in self.values.items()}
        return replace(self, values=values)

    def points(self, seed: int, weight: float) -> np.ndarray:
        """Weight x the metric of each example [N], whose mean is weight x value; KeyError without them."""
        if self.scores:
            return weight * np.asarray(self.scores[seed], np.float64)
        return np.float32(100 * weight) * self.wrong[seed]


@dataclass(frozen=True)
class Estimate:
    """A mean and its variance as parts (variance, degrees of freedom). n: the fewest seeds behind it."""

    mean: float
    parts: tuple[tuple[float, float], ...]
    n: int
    how: str = ""  # one of HOW

    @property
    def variance(self) -> float:
        return sum(variance for variance, _ in self.parts)

    def limits(self, low: float, high: float) -> tuple[float, float]:
        """Interval with one-sided errors `low` and `high` at its ends; unbounded where n < 2."""
        if self.n < 2:
            return -math.inf, math.inf
        return self.mean - self.half_width(low), self.mean + self.half_width(high)

    def scaled(self, weight: float) -> Estimate:
        parts = tuple((weight**2 * variance, df) for variance, df in self.parts)
        return replace(self, mean=weight * self.mean, parts=parts)

    def half_width(self, tail: float) -> float:
        if any(math.isinf(variance) for variance, _ in self.parts):
            return math.inf
        variances, dfs = zip(*self.parts, strict=True)
        if len(dfs) == 1:  # the plain t interval
            return math.sqrt(variances[0]) * float(-special.stdtrit(dfs[0], tail))
        return float(half_width(np.array(variances), np.array(dfs), tail))


@dataclass(frozen=True)
class PValue(Estimate):
    """weight x a p-value, its interval found for the normal score z = quantile(1 - p): on their own scale
    p-values are far too skew for one.
    """

    weight: float = 1.0
    z: Estimate | None = None

    def scaled(self, weight: float) -> PValue:
        return replace(self, mean=weight * self.mean, weight=weight * self.weight)

    def limits(self, low: float, high: float) -> tuple[float, float]:
        assert self.z is not None
        upward = self.weight < 0  # of z: p falls as z rises
        ends = self.z.limits(low, high) if upward else self.z.limits(high, low)
        first, second = sorted(self.weight * float(special.ndtr(-end)) for end in ends)
        return (first, second) if self.n > 1 else (-math.inf, math.inf)


@dataclass(frozen=True)
class Share(Estimate):
    """weight x the share of n runs of which something is true, with the exact interval of Clopper and
    Pearson: runs that all agree have no spread, and are no certainty either.
    """

    weight: float = 1.0
    hits: int = 0

    def scaled(self, weight: float) -> Share:
        return replace(self, mean=weight * self.mean, weight=weight * self.weight)

    def limits(self, low: float, high: float) -> tuple[float, float]:
        if self.n < 2:
            return -math.inf, math.inf
        if self.weight < 0:
            low, high = high, low
        k, n = self.hits, self.n
        ends = (
            float(special.betaincinv(k, n - k + 1, low)) if k else 0.0,
            float(special.betaincinv(k + 1, n - k, 1 - high)) if k < n else 1.0,
        )
        first, second = sorted(self.weight * end for end in ends)
        return first, second


def share(hits: int, n: int) -> Share:
    """Estimate of how often something is true, from n runs of which it is true in `hits`."""
    p = hits / n
    return Share(p, ((max(p * (1 - p), 1 / n) / n, max(n - 1, 1)),), n, "share", 1.0, hits)


def p_value(p: float, without: Sequence[float]) -> PValue:
    """Estimate of a p-value from the values without each of the n seeds."""
    z, *others = (-float(special.ndtri(min(max(x, 1e-300), 1 - 1e-12))) for x in (p, *without))
    found = jackknife(z, others)
    return PValue(p, found.parts, found.n, found.how, 1.0, found)


def half_width(variances: np.ndarray, dfs: np.ndarray, tail: float) -> np.ndarray:
    """Half widths of intervals with one-sided error `tail`; the parts of a variance are the last axis."""
    total = variances.sum(-1)
    safe = np.where(total > 0, total, 1.0)
    weighted = (variances * quantile(tail, dfs)).sum(-1) / safe
    with np.errstate(divide="ignore"):
        pooled = safe**2 / (variances**2 / dfs).sum(-1)
    return np.asarray((quantile(tail, pooled) + 2 * weighted) / 3 * np.sqrt(total))


def quantile(tail: float, df: np.ndarray) -> np.ndarray:
    """The upper `tail` quantile of Student's t (df = inf: normal)."""
    return -np.where(np.isinf(df), special.ndtri(tail), special.stdtrit(df, tail))


def crossed(x: np.ndarray) -> Estimate:
    """Mean of x [n seeds, N examples], both random and crossed, one observation a cell of the layout."""
    n, examples = x.shape
    if n < 2 or examples < 2:
        return Estimate(float(x.mean()), ((math.inf, 1),), n, "crossed")
    mean, of_seeds, of_examples = two_way(x)
    parts = ((float(of_seeds), n - 1), (float(of_examples), examples - 1))
    return Estimate(float(mean), parts, n, "crossed")


def two_way(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of x [..., n, N] and its variance's parts, MS_seed / nN and (MS_example - MS_residual) / nN.

    Neither is negative, and together they are at least a quarter of MS_residual / nN.
    """
    n, examples = x.shape[-2:]
    by_seed, by_example = x.mean(-1, dtype=np.float64), x.mean(-2, dtype=np.float64)
    mean = by_seed.mean(-1)
    ss_total = np.square(x).sum((-2, -1), dtype=np.float64) - n * examples * mean**2
    ss_seed = examples * np.square(by_seed - mean[..., None]).sum(-1)
    ss_example = n * np.square(by_example - mean[..., None]).sum(-1)
    ms_seed, ms_example = ss_seed / (n - 1), ss_example / (examples - 1)
    ms_residual = (ss_total - ss_seed - ss_example) / ((n - 1) * (examples - 1))
    size = n * examples
    # Counts are discrete: three seeds may differ by the same count, and no spread is no certainty.
    floor = np.maximum(ms_residual / 4 - ms_seed, 0)
    return mean, np.maximum(ms_seed, 0) / size, np.maximum(ms_example - ms_residual, floor) / size


def jackknife(whole: float, without: Sequence[float]) -> Estimate:
    """Estimate of a statistic of n seeds from its values without each of them, n - 1 degrees of freedom."""
    n = len(without)
    if n < 2:
        return Estimate(whole, ((math.inf, 1),), 1, "jackknife")
    variance = (n - 1) / n * float(np.square(np.asarray(without) - np.mean(without)).sum())
    return Estimate(whole, ((variance or math.inf, n - 1),), n, "jackknife")


def contrast(weights: Mapping[Any, float], samples: Mapping[Any, Sample]) -> Estimate:
    """Estimate of sum_c weights[c] * mean_c: paired by seed within a test set, independent across them."""
    groups: dict[str, dict[Any, float]] = {}
    found = []
    for cell, weight in weights.items():
        if (own := samples[cell].ready) is None:
            groups.setdefault(samples[cell].test_set, {})[cell] = weight
        else:
            found.append(own.scaled(weight))
    if len(found) == len(weights) == 1:
        return found[0]
    scored = [name for name, group in groups.items() if name and any(samples[cell].scores for cell in group)]
    if "" in groups and len(scored) == 1:  # other metrics of the same runs, as training beside validation
        groups[scored[0]].update(groups.pop(""))
    found += [_paired(group, samples) for group in groups.values()]
    parts = tuple(part for estimate in found for part in estimate.parts)
    how = max((estimate.how for estimate in found), key=HOW.index)
    return Estimate(sum(e.mean for e in found), parts, min(e.n for e in found), how)


def _paired(weights: Mapping[Any, float], samples: Mapping[Any, Sample]) -> Estimate:
    seeds = sorted(set.intersection(*(set(samples[cell].values) for cell in weights)))
    if len(seeds) < FEWEST and min(len(samples[cell].values) for cell in weights) > len(seeds):
        return _unpaired(weights, samples)
    if all(set(seeds) <= set(samples[cell].scores or samples[cell].wrong) for cell in weights):
        found = [np.stack([samples[cell].points(seed, w) for seed in seeds]) for cell, w in weights.items()]
        if len({x.shape for x in found}) == 1:
            how = max((samples[cell].how for cell in weights), key=HOW.index)
            whole = replace(crossed(sum(found[1:], found[0])), how=how)
            if whole.variance or not any(samples[cell].scores for cell in weights):
                return whole
            return replace(whole, parts=((math.inf, 1),))  # no spread of ranks at all is no certainty
    values = [sum(w * samples[cell].values[seed] for cell, w in weights.items()) for seed in seeds]
    n, mean = len(values), sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (n - 1) / n if n > 1 else math.inf
    if part := _example_part(weights, samples, seeds):
        return Estimate(mean, ((variance, max(n - 1, 1)), part), n, "partly")
    parts = [(variance, max(n - 1, 1)), *_binomial(weights, samples)]
    if sum(part for part, _ in parts) == 0:
        parts = [(math.inf, 1)]  # seeds without any spread are no ground for certainty
    return Estimate(mean, tuple(parts), n, "binomial" if len(parts) > 1 else "seeds")


def _example_part(
    weights: Mapping[Any, float], samples: Mapping[Any, Sample], seeds: Sequence[int]
) -> tuple[float, float] | None:
    """(variance, df) of another draw of examples, of those cells of a contrast that have scores, where some
    have and some have not (training beside validation); else None. What the seeds' variance of the whole
    contrast is added to: that pairs by seed what belongs together.
    """
    scored = {cell: w for cell, w in weights.items() if set(seeds) <= set(samples[cell].scores)}
    if not scored or len(scored) == len(weights) or len(seeds) < 2:
        return None
    found = [np.stack([samples[cell].points(seed, w) for seed in seeds]) for cell, w in scored.items()]
    if len({x.shape for x in found}) > 1 or found[0].shape[1] < 2:
        return None
    _, _, of_examples = two_way(sum(found[1:], found[0]))
    return float(of_examples), float(found[0].shape[1] - 1)


def _unpaired(weights: Mapping[Any, float], samples: Mapping[Any, Sample]) -> Estimate:
    """Cells with (nearly) no seed in common: their variances add."""
    parts, mean, n = list(_binomial(weights, samples)), 0.0, math.inf
    for cell, weight in weights.items():
        values = np.array(list(samples[cell].values.values()))
        mean, n = mean + weight * float(values.mean()), min(n, len(values))
        variance = float(values.var(ddof=1)) if len(values) > 1 else math.inf
        parts.append((weight**2 * variance / len(values), max(len(values) - 1, 1)))
    return Estimate(mean, tuple(parts), int(n), "unpaired" if len(weights) > 1 else "seeds")


def _binomial(weights: Mapping[Any, float], samples: Mapping[Any, Sample]) -> list[tuple[float, float]]:
    """Sampling error of the test set, in squared points, where the metric is a percentage of examples."""
    found = []
    for cell, weight in weights.items():
        if size := samples[cell].examples:
            p = min(max(float(np.mean(list(samples[cell].values.values()))) / 100, 0.0), 1.0)
            found.append((weight**2 * 1e4 * p * (1 - p) / size, math.inf))
    return found


# ------------------------------------------------------------------------------------------------ intervals


@dataclass(frozen=True)
class Interval:
    margin: float
    low: float
    high: float
    n: int
    how: str

    @property
    def verdict(self) -> str:
        """Supported: wholly above 0; contradicted: wholly below; else, and below 3 seeds, inconclusive."""
        if self.n < FEWEST or self.low <= 0 <= self.high:
            return "inconclusive"
        return "supported" if self.low > 0 else "contradicted"


class Judge:
    """Intervals of margins over a fixed set of samples; contrasts are computed once each."""

    def __init__(self, samples: Mapping[Any, Sample]):
        self.missed = {cell for cell, sample in samples.items() if sample.missed}
        self.samples = {c: s.bounded if c in self.missed else s for c, s in samples.items()}
        self.known: dict[frozenset[tuple[Any, float]], Estimate] = {}

    def estimate(self, weights: Mapping[Any, float]) -> Estimate:
        key = frozenset(weights.items())
        if key not in self.known:
            self.known[key] = contrast(weights, self.samples)
        return self.known[key]

    def interval(self, margin: Linear | Ordered, level: float = LEVEL) -> Interval:
        return self._interval(margin, (1 - level) / 2, (1 - level) / 2)

    def _interval(self, margin: Linear | Ordered, low: float, high: float) -> Interval:
        if isinstance(margin, Linear):
            found = self.estimate(margin.weights)
            below, above = found.limits(low, high)
            # A miss counts as far as its run looked, so the true margin may lie any distance beyond.
            for weight in (w for cell, w in margin.weights.items() if cell in self.missed):
                below, above = (below, math.inf) if weight > 0 else (-math.inf, above)
            c = margin.constant
            return Interval(found.mean + c, below + c, above + c, found.n, found.how)
        k, m = margin.k, len(margin.parts)
        parts = [self._interval(part, low / k, high / (m - k + 1)) for part in margin.parts]
        return Interval(
            margin=sorted(p.margin for p in parts)[k - 1],
            low=sorted(p.low for p in parts)[k - 1],
            high=sorted(p.high for p in parts)[k - 1],
            n=min(p.n for p in parts),
            how=max((p.how for p in parts), key=HOW.index),
        )


# --------------------------------------------------------------------------------------- what a cell prints


@dataclass(frozen=True)
class Summary:
    n: int
    mean: float
    sd: float  # ddof = 1; NaN below two runs
    low: float  # 95 % interval of the mean, with the test set's sampling error for a percentage
    high: float


def summary(sample: Sample, level: float = LEVEL) -> Summary:
    values = np.array(list(sample.values.values()), dtype=float)
    n = len(values)
    if n == 0 and sample.ready is None:
        return Summary(0, math.nan, math.nan, math.nan, math.nan)
    if sample.missed:
        return Summary(n, median(list(values)), math.nan, math.nan, math.nan)
    sd = float(values.std(ddof=1)) if n > 1 else math.nan
    if sample.ready is None:
        mean = float(values.mean())
    else:
        n, mean = sample.ready.n, sample.ready.mean
    tail = (1 - level) / 2
    low, high = contrast({0: 1.0}, {0: sample}).limits(tail, tail)
    if math.isinf(low):
        low = high = math.nan
    return Summary(n, mean, sd, low, high)


def median(values: Sequence[float]) -> float:
    """Median in which a miss (infinity) takes part; NaN for no values."""
    ordered = sorted(values)
    if not ordered:
        return math.nan
    below, above = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    return above if below == above else (below + above) / 2


def time_to_target(
    steps: Sequence[float], values: Sequence[float | None], target: float, better: str = "lower"
) -> float:
    """The first step whose value reaches the target; infinity where none does (None reaches nothing)."""
    for step, value in zip(steps, values, strict=True):
        if value is not None and (value <= target if better == "lower" else value >= target):
            return step
    return math.inf
