"""Intervals against scipy, arithmetic done by hand, and simulations of what they promise."""

import math

import numpy as np
import pytest
from scipy import stats

from reports import claims
from reports.claims.table_03 import ALL, SETS
from reports.statistics import (
    Interval,
    Judge,
    Linear,
    Ordered,
    Sample,
    contrast,
    crossed,
    half_width,
    kth_largest,
    kth_smallest,
    largest,
    median,
    smallest,
    summary,
    time_to_target,
    two_way,
)

NOTHING = Linear({}, 0.0)


def samples(*columns, **more):
    return {i: Sample(dict(enumerate(values)), **more) for i, values in enumerate(columns)}


def limits(weights, found, tail=0.025):
    return contrast(weights, found).limits(tail, tail)


# ------------------------------------------------------------------------------------------- against scipy


def test_mean_interval_is_scipys():
    values = [52.0, 48.0, 61.0, 55.0]
    found = summary(Sample(dict(enumerate(values))))
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert (found.n, found.mean, found.sd) == pytest.approx((4, np.mean(values), np.std(values, ddof=1)))


def test_contrast_is_paired_by_seed():
    a, b = [5.0, 6.2, 4.1, 5.5, 7.0], [4.6, 6.0, 4.2, 4.9, 6.1]
    interval = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert limits({0: 1, 1: -1}, samples(a, b)) == pytest.approx((interval.low, interval.high))
    shuffled = {0: Sample(dict(enumerate(a))), 1: Sample({i: b[i] for i in (3, 1, 4, 0, 2)})}
    assert limits({0: 1, 1: -1}, shuffled) == pytest.approx((interval.low, interval.high))


def test_only_shared_seeds_are_paired():
    a, b = [5.0, 6.2, 4.1, 5.5], [4.6, 6.0, 4.2, 4.9]
    found = {0: Sample(dict(enumerate(a)) | {9: 50.0}), 1: Sample(dict(enumerate(b)) | {8: 0.0})}
    assert limits({0: 1, 1: -1}, found) == limits({0: 1, 1: -1}, samples(a, b))
    assert contrast({0: 1, 1: -1}, found).n == 4


def test_without_shared_seeds_variances_add():
    a, b = np.array([5.0, 6.2, 4.1, 5.5]), np.array([4.6, 6.0, 4.2, 4.9])
    found = {0: Sample(dict(enumerate(a))), 1: Sample({i + 10: v for i, v in enumerate(b)})}
    of_a, of_b = a.var(ddof=1) / 4, b.var(ddof=1) / 4
    welch = stats.ttest_ind(a, b, equal_var=False)
    quantile = (stats.t.isf(0.025, welch.df) + 2 * stats.t.isf(0.025, 3)) / 3  # 3: each cell's own df
    half, mean = quantile * math.sqrt(of_a + of_b), a.mean() - b.mean()
    assert limits({0: 1, 1: -1}, found) == pytest.approx((mean - half, mean + half))


def test_binomial_error_of_the_test_set_is_added_without_masks():
    """s^2/n with n - 1 df and sum w^2 p (1 - p) / N with infinitely many."""
    a, b = np.array([5.0, 6.0, 5.5]), np.array([4.0, 4.2, 4.4])
    found = contrast({0: 1, 1: -2}, samples(a, b, examples=1000))
    seeds = (a - 2 * b).var(ddof=1) / 3
    chance = 1e4 * (a.mean() / 100 * (1 - a.mean() / 100) + 4 * b.mean() / 100 * (1 - b.mean() / 100)) / 1000
    assert found.variance == pytest.approx(seeds + chance)
    weighted = (seeds * stats.t.isf(0.025, 2) + chance * stats.norm.isf(0.025)) / (seeds + chance)
    pooled = stats.t.isf(0.025, (seeds + chance) ** 2 / (seeds**2 / 2))  # Satterthwaite
    half = (pooled + 2 * weighted) / 3 * math.sqrt(seeds + chance)
    assert found.half_width(0.025) == pytest.approx(half)
    assert found.how == "binomial"


def test_different_test_sets_are_independent():
    a, b = [5.0, 6.0, 5.5], [4.0, 4.2, 4.4]
    found = {0: Sample(dict(enumerate(a)), test_set="x"), 1: Sample(dict(enumerate(b)), test_set="y")}
    assert contrast({0: 1, 1: -1}, found).parts == (
        pytest.approx((np.var(a, ddof=1) / 3, 2)),
        pytest.approx((np.var(b, ddof=1) / 3, 2)),
    )


# ------------------------------------------------------------------------------- the two-way layout by hand


def test_crossed_layout_by_hand():
    """x = [[1, 2, 6], [3, 4, 5]]: means of rows 3 and 4, of columns 2, 3, 5.5, mean 3.5.

    SS_seed = 3 (0.25 + 0.25) = 1.5, df 1;  SS_example = 2 (2.25 + 0.25 + 4) = 13, df 2;
    SS_total = 6.25 + 2.25 + 6.25 + 0.25 + 0.25 + 2.25 = 17.5;  SS_residual = 3, df 2.
    MS = 1.5, 6.5, 1.5: Var(mean) = (1.5 + 6.5 - 1.5) / 6.
    """
    found = crossed(np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 5.0]]))
    assert found.mean == 3.5
    assert found.variance == pytest.approx((1.5 + 6.5 - 1.5) / 6)
    assert found.parts == (pytest.approx((1.5 / 6, 1)), pytest.approx((5.0 / 6, 2)))


def test_crossed_layout_from_masks_is_an_anova_on_points():
    rng = np.random.default_rng(0)
    wrong = {c: rng.random((4, 60)) < 0.2 for c in "ab"}
    found = {
        c: Sample({s: 100 * m[s].mean() for s in range(4)}, 60, "t", {s: m[s] for s in range(4)})
        for c, m in wrong.items()
    }
    x = 100.0 * wrong["a"] - 300.0 * wrong["b"]
    ms_seed = 60 * x.mean(1).var(ddof=1)
    ms_example = 4 * x.mean(0).var(ddof=1)
    residual = x - x.mean(1, keepdims=True) - x.mean(0, keepdims=True) + x.mean()
    ms_residual = (residual**2).sum() / (3 * 59)
    estimate = contrast({"a": 1.0, "b": -3.0}, found)
    assert estimate.how == "crossed" and estimate.n == 4
    assert estimate.mean == pytest.approx(x.mean())
    assert estimate.variance == pytest.approx((ms_seed + max(ms_example - ms_residual, 0)) / 240, rel=1e-5)


def test_masks_that_only_some_runs_have_are_not_used():
    found = {
        c: Sample({0: 5.0, 1: 6.0, 2: 7.0}, 100, "t", {0: np.zeros(100, bool)} if c else {}) for c in (0, 1)
    }
    assert contrast({0: 1.0, 1: -1.0}, found).how == "binomial"


# ------------------------------------------------------------------------------------- expressions, verdicts


def test_linear_expressions_do_arithmetic():
    a, b = Linear({"a": 1.0}), Linear({"b": 1.0})
    assert 3 * a - 2 * b + 1 == Linear({"a": 3.0, "b": -2.0}, 1.0)
    assert 1 - a == Linear({"a": -1.0}, 1.0)
    assert a - a == Linear({}, 0.0)
    assert -(a + 2) == Linear({"a": -1.0}, -2.0)


def test_order_statistics_of_numbers_and_of_expressions():
    values = [3.0, 1.0, 2.0, 5.0]
    assert [kth_smallest(k, values) for k in (1, 2, 3, 4)] == sorted(values)
    assert (smallest(values), largest(values), kth_largest(2, values)) == (1.0, 5.0, 3.0)
    assert math.isnan(smallest([1.0, math.nan]))
    assert isinstance(kth_smallest(2, [NOTHING, NOTHING]), Ordered)
    with pytest.raises(ValueError, match="k = 5 of 4 parts"):
        kth_smallest(5, values)


def test_conjunction_is_intersection_union_above_and_bonferroni_below():
    rng = np.random.default_rng(1)
    data = rng.normal([3.0, 1.0, 2.0], 0.5, (5, 3))
    found = Judge(samples(*data.T)).interval(smallest([Linear({i: 1.0}) for i in range(3)]))

    def t(i, tail):
        return stats.t.isf(tail, 4) * data[:, i].std(ddof=1) / math.sqrt(5)

    assert found.low == pytest.approx(min(data[:, i].mean() - t(i, 0.025) for i in range(3)))
    assert found.high == pytest.approx(min(data[:, i].mean() + t(i, 0.025 / 3) for i in range(3)))
    assert found.margin == pytest.approx(data.mean(0).min())


def test_kth_smallest_splits_its_error_by_the_union_bound():
    rng = np.random.default_rng(2)
    data = rng.normal(0.0, 1.0, (6, 4))
    found = Judge(samples(*data.T)).interval(kth_smallest(3, [Linear({i: 1.0}) for i in range(4)]))

    def ends(sign, tail):
        return [m.mean() + sign * stats.t.isf(tail, 5) * m.std(ddof=1) / math.sqrt(6) for m in data.T]

    assert found.low == pytest.approx(sorted(ends(-1, 0.025 / 3))[2])
    assert found.high == pytest.approx(sorted(ends(1, 0.025 / 2))[2])


@pytest.mark.parametrize(
    ("low", "high", "n", "verdict"),
    [
        (0.1, 0.3, 3, "supported"),
        (-0.3, -0.1, 3, "contradicted"),
        (-0.1, 0.3, 30, "inconclusive"),
        (0.1, 0.3, 2, "inconclusive"),
        (-0.3, -0.1, 1, "inconclusive"),
        (0.0, 0.3, 5, "inconclusive"),
    ],
)
def test_verdict(low, high, n, verdict):
    assert Interval((low + high) / 2, low, high, n, "seeds").verdict == verdict


def test_one_seed_has_no_interval():
    one = Sample({0: 5.0}, 1000, "t", {0: np.arange(1000) < 50})
    assert limits({0: 1.0}, {0: one}) == (-math.inf, math.inf)
    found = summary(one)
    assert found.n == 1 and found.mean == 5.0
    assert all(math.isnan(x) for x in (found.sd, found.low, found.high))


def test_seeds_without_any_spread_are_no_ground_for_certainty():
    """Three runs that all stop at epoch 1 say nothing about a fourth."""
    found = Judge(samples([5.0] * 3, [1.0] * 3)).interval(Linear({0: 1.0, 1: -1.0}))
    assert (found.margin, found.low, found.high, found.verdict) == (4.0, -math.inf, math.inf, "inconclusive")


def test_no_runs_no_numbers():
    found = summary(Sample({}))
    assert found.n == 0 and math.isnan(found.mean)


# ------------------------------------------------------------------------------------- medians with misses


def test_a_miss_takes_part_in_the_median():
    assert median([100.0, math.inf, 300.0]) == 300.0
    assert median([100.0, 200.0, 300.0, math.inf]) == 250.0
    assert median([100.0, 200.0, math.inf, math.inf]) == math.inf
    assert median([math.inf, math.inf]) == math.inf
    assert math.isnan(median([]))
    for values in ([3.0, 1.0, 2.0], [4.0, 1.0, 2.0, 9.0]):
        assert median(values) == np.median(values)


def test_time_to_target():
    assert time_to_target([10, 20, 30], [9.0, 5.0, 4.0], 5.0) == 20
    assert time_to_target([10, 20, 30], [9.0, None, 4.0], 3.0) == math.inf
    assert time_to_target([10, 20], [0.2, 0.8], 0.8, better="higher") == 20
    assert time_to_target([10], [math.nan], 1.0) == math.inf


# ----------------------------------------------------------------- simulations: what the intervals promise


REPEATS = 4000


def coverage(x, truth):
    """Share of the repeats x [repeats, n, N] whose interval holds the truth."""
    mean, of_seeds, of_examples = two_way(x)
    n, examples = x.shape[1:]
    half = half_width(np.stack([of_seeds, of_examples], -1), np.array([n - 1.0, examples - 1.0]), 0.025)
    for i in range(3):  # the arrays are the code's own way
        assert crossed(x[i]).limits(0.025, 0.025) == pytest.approx((mean[i] - half[i], mean[i] + half[i]))
    return (np.abs(mean - truth) <= half).mean()


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("sizes", [(0.3, 0.0), (0.2, 0.3), (0.1, 0.5), (0.3, 1.0), (0.0, 1.0)], ids=str)
def test_coverage_with_seed_and_example_effects(n, sizes):
    """x[s, e] = 0.7 + a_s + b_e + r, normal effects of sd (seed, example), residual sd 1, N = 100."""
    rng = np.random.default_rng(n)
    a = rng.normal(0, sizes[0], (8000, n, 1))
    b = rng.normal(0, sizes[1], (8000, 1, 100))
    held = coverage(0.7 + a + b + rng.standard_normal((8000, n, 100)), 0.7)
    assert 0.93 <= held <= 0.97, held


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("sizes", [(0.3, 0.0), (0.2, 0.3), (0.3, 1.0), (0.0, 1.0)], ids=str)
def test_coverage_where_one_cell_has_scores_and_the_other_has_none(n, sizes):
    """Validation minus training: x[s, e] as above, training with the run's effect and some of its own."""
    rng = np.random.default_rng(30 + n)
    held = 0
    for _ in range(2000):
        a, b = rng.normal(0, sizes[0], (n, 1)), rng.normal(0, sizes[1], 60)
        x = 0.7 + a + b + rng.standard_normal((n, 60))
        training = 0.2 + 0.8 * a[:, 0] + rng.normal(0, 0.1, n)
        found = {
            "val": Sample(dict(enumerate(x.mean(1))), test_set="text", scores=dict(enumerate(x))),
            "train": Sample(dict(enumerate(training))),
        }
        estimate = contrast({"val": 1.0, "train": -1.0}, found)
        low, high = estimate.limits(0.025, 0.025)
        held += low <= 0.5 <= high
    assert estimate.how == "partly" and 0.93 <= held / 2000 <= 0.97, held


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("skill", [0.0, 0.15])
def test_false_verdicts_on_masks_of_two_equal_methods(n, skill):
    """Wrong/right of two methods alike in every respect: examples differ in difficulty, runs in skill.

    Each method has weak spots of its own, which another test set would draw anew. The difference is 0 in
    truth, so an interval that misses it is a false verdict.
    """
    rng = np.random.default_rng(10 + n)
    examples = 300
    difficulty = rng.normal(0, 1.0, (REPEATS, 1, examples))

    def masks():
        of_run = rng.normal(0, skill, (REPEATS, n, 1))
        weak_spots = rng.normal(0, 0.5, (REPEATS, 1, examples))
        return difficulty + of_run + weak_spots + rng.standard_normal((REPEATS, n, examples)) > 2.2

    held = coverage(100.0 * masks() - 100.0 * masks(), 0.0)
    assert 1 - held <= 0.06, held
    assert held <= 0.97, held


@pytest.mark.parametrize("n", [3, 5, 10])
def test_false_verdicts_of_paired_contrasts_without_masks(n):
    rng = np.random.default_rng(20 + n)
    verdicts = 0
    for _ in range(1500):
        skill = rng.normal(0, 1.0, n)
        a, b = skill + rng.normal(0, 0.4, n), skill + rng.normal(0, 0.4, n)
        verdicts += Judge(samples(a, b)).interval(Linear({0: 1.0, 1: -1.0})).verdict != "inconclusive"
    assert 0.03 <= verdicts / 1500 <= 0.06, verdicts


def simulated_verdicts(name, truth, spread, n, repeats, seed):
    """Verdicts and intervals of one of the table's claims when the cells' true means are `truth`."""
    rng = np.random.default_rng(seed)
    parts = [part.margin for part in claims.of("T3")[name](claims.Measured())]
    found = []
    for _ in range(repeats):
        data = {}
        for s in SETS:
            skill = rng.normal(0, spread, n)
            for row in ALL:
                values = truth[row, s] + skill + rng.normal(0, spread, n)
                data[row, s, "error"] = Sample(dict(enumerate(values)), test_set=s)
        found.append(Judge(data).interval(smallest(parts)))
    return found


def margin_of(name, truth):
    """The claim's margin on the true means."""
    return smallest([part.margin for part in claims.of("T3")[name](Truth(truth))])


class Truth:
    def __init__(self, truth):
        self.truth = truth

    def __getitem__(self, cell):
        return self.truth[cell[:2]]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["T3.C1", "T3.C4", "T3.C5"])
def test_false_verdicts_of_whole_claims_when_nothing_differs(name):
    """All true means equal: the margin is exactly 0, so every verdict is a false one."""
    truth = {(row, s): 5.0 for row in ALL for s in SETS}
    assert margin_of(name, truth) == 0.0
    found = simulated_verdicts(name, truth, 0.2, 5, 200, seed=4)
    assert sum(f.verdict != "inconclusive" for f in found) / len(found) <= 0.06


@pytest.mark.slow
def test_interval_of_the_top_three_claim_holds_the_true_margin():
    """T3.C4 is no linear contrast: random true means that make it hold and fail."""
    rng = np.random.default_rng(5)
    held, signs = [], []
    for trial in range(12):
        truth = {(row, s): 5.0 + rng.normal(0, 0.6) for row in ALL for s in SETS}
        if trial % 2:  # every other trial 0.25 leads, so that the claim is true
            truth |= {("a0_25", s): 3.5 for s in SETS}
        margin = margin_of("T3.C4", truth)
        found = simulated_verdicts("T3.C4", truth, 0.2, 5, 15, seed=100 + trial)
        held += [f.low <= margin <= f.high for f in found]
        wrong = "contradicted" if margin > 0 else "supported"
        assert sum(f.verdict == wrong for f in found) <= 1
        signs.append(margin > 0)
    assert 2 <= sum(signs) <= 10
    assert sum(held) / len(held) >= 0.93


@pytest.mark.slow
def test_a_clear_effect_gets_its_verdict():
    """The promise is not kept by never saying anything."""
    clear = {(row, s): 8.0 if row == "a1" else 5.0 for row in ALL for s in SETS}
    found = simulated_verdicts("T3.C1", clear, 0.2, 5, 30, seed=6)
    assert all(f.verdict == "supported" for f in found)
    worse = {**clear, ("a0_5", "ni"): 10.0}
    found = simulated_verdicts("T3.C1", worse, 0.2, 5, 30, seed=7)
    assert sum(f.verdict == "contradicted" for f in found) >= 28
