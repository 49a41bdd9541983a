"""Seeds that would decide an open claim, against the exact power of the t test; effect sizes by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from reports import power
from reports.statistics import Judge, Linear, Ordered, Sample, share


def judge(*columns, **more):
    return Judge({i: Sample(dict(enumerate(values)), **more) for i, values in enumerate(columns)})


def with_effect(d, n=5, sd=2.0):
    """Values whose mean over their standard deviation is d."""
    x = np.arange(n) - (n - 1) / 2
    return list(x / x.std(ddof=1) * sd + d * sd)


@pytest.mark.parametrize("d", [0.2, 0.5, 1.0, -1.0, 2.0, 4.0])
def test_the_number_of_seeds_has_about_the_power_it_promises(d):
    n = power.seeds_needed(judge(with_effect(d)), Linear({0: 1.0}))

    def exact(n):  # of the two-sided t test at 5 %, from the noncentral t distribution
        bound = stats.t.ppf(0.975, n - 1)
        return 1 - stats.nct.cdf(bound, n - 1, abs(d) * math.sqrt(n))

    assert exact(n) >= 0.75
    assert n == 3 or exact(n - 1) < 0.9  # and not many more than needed


def test_a_margin_of_the_wrong_sign_or_none_is_never_decided_as_met():
    assert power.seeds_needed(judge(with_effect(0.0)), Linear({0: 1.0})) == math.inf
    both = judge(with_effect(1.0), with_effect(-1.0))
    smallest = Ordered(1, (Linear({0: 1.0}), Linear({1: 1.0})))
    largest = Ordered(2, (Linear({0: 1.0}), Linear({1: 1.0})))
    alone = power.seeds_needed(judge(with_effect(1.0)), Linear({0: 1.0}))
    # To contradict the worst part, or support the best, that part must be decided at half the error.
    assert power.seeds_needed(both, smallest) == power.seeds_needed(both, largest) > alone


def test_a_conjunction_needs_its_most_demanding_part():
    parts = [with_effect(d) for d in (2.0, 0.5, 1.0)]
    alone = [power.seeds_needed(judge(values), Linear({0: 1.0})) for values in parts]
    whole = Ordered(1, tuple(Linear({i: 1.0}) for i in range(3)))
    assert power.seeds_needed(judge(*parts), whole) == max(alone)
    # The second smallest is above 0 once two of the three are, each at half the error.
    middle = power.seeds_needed(judge(*parts), Ordered(2, whole.parts))
    assert alone[2] < middle < max(alone)


def test_no_number_of_seeds_replaces_test_examples():
    values = with_effect(2.0, sd=0.5)  # a mean of 1 point, in per cent of 100 examples
    few = judge([v + 50 for v in values], examples=100, test_set="a")
    assert power.seeds_needed(few, Linear({0: 1.0}, -50.0)) == math.inf
    many = judge([v + 50 for v in values], examples=10**7, test_set="a")
    assert power.seeds_needed(many, Linear({0: 1.0}, -50.0)) < 10


def test_unknown_spread_or_a_miss_gives_no_number():
    assert math.isnan(power.seeds_needed(judge([1.0]), Linear({0: 1.0})))
    missed = Judge({0: Sample({0: 1.0, 1: math.inf, 2: 2.0}, ends={1: 5.0})})
    assert math.isnan(power.seeds_needed(missed, Linear({0: 1.0})))
    assert power.by_seed(missed, Linear({0: 1.0})) == {}


def test_a_share_takes_its_exact_interval():
    """0 of 3 runs: above one half can be excluded from the n on with (1/2)^n < 2.5 %, which is 6."""
    found = Judge({0: Sample({}, ready=share(0, 3))})
    assert power.seeds_needed(found, Linear({0: 1.0}, -0.5)) == 6
    assert math.isnan(power.effect_size(found, Linear({0: 1.0}, -0.5)))


def test_effect_size_is_the_margin_over_one_seeds_spread():
    a, b = [5.0, 6.2, 4.1, 5.5, 7.0], [4.6, 6.0, 4.2, 4.9, 6.1]
    d = np.subtract(a, b)
    found = power.effect_size(judge(a, b), Linear({0: 1.0, 1: -1.0}, 0.1))
    assert found == pytest.approx((d.mean() + 0.1) / d.std(ddof=1))
    worst = Ordered(1, (Linear({0: 1.0}), Linear({0: 1.0, 1: -1.0}, 0.1)))
    assert power.effect_size(judge(a, b), worst) == pytest.approx(found)
    assert math.isnan(power.effect_size(judge([1.0]), Linear({0: 1.0})))


def test_effect_size_leaves_the_test_sets_error_out():
    values = with_effect(2.0, sd=0.5)
    found = judge([v + 50 for v in values], examples=100, test_set="a")
    assert power.effect_size(found, Linear({0: 1.0}, -50.0)) == pytest.approx(2.0)


def test_margins_by_seed():
    found = Judge({0: Sample({0: 1.0, 1: 2.0, 3: 5.0}), 1: Sample({0: 0.5, 1: 3.0, 2: 9.0})})
    margin = Linear({0: 1.0, 1: -1.0}, 10.0)
    assert power.by_seed(found, margin) == {0: 10.5, 1: 9.0}
    assert power.by_seed(found, Ordered(1, (margin, Linear({0: 1.0})))) == {0: 1.0, 1: 2.0}
