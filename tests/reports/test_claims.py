"""Each claim of Table 3 on printed numbers, against the fact sheet and against the sentence written out in
numpy.
"""

import math

import numpy as np
import pytest

from reports import claims, published
from reports.claims.table_03 import ALL, MIDDLE, MOVING, SETS
from reports.statistics import Judge, Sample, smallest

T3 = published.load("T3")
CLAIMS = claims.of("T3")


class Numbers:
    """Cells from a plain dict, NaN where missing."""

    def __init__(self, values):
        self.values = values

    def __getitem__(self, cell):
        return self.values.get(cell, math.nan)


def survey():
    return {
        (row.id, column.data, column.metric): float(T3.figures[row.id, column.id].survey)
        for row in T3.rows
        for column in T3.columns
    }


def holds(claim, values):
    parts = claim(Numbers(values))
    assert not any(math.isnan(part.margin) for part in parts)
    return all(part.margin > 0 or (not part.strict and part.margin == 0) for part in parts)


@pytest.mark.parametrize("claim", T3.claims, ids=lambda c: c.id)
@pytest.mark.parametrize("whose", ["survey", "source"])
def test_verdict_on_the_printed_numbers_is_the_fact_sheets(claim, whose):
    margin, verdict = claims.on_printed(CLAIMS[claim.id], T3, whose)
    assert verdict == getattr(claim, whose)
    assert (margin is None) == (verdict == "n/a")


@pytest.mark.parametrize(
    ("claim", "whose", "margin"),
    [
        ("T3.C1", "survey", 17.31 - 17.26),  # 1/j on CIFAR-10
        ("T3.C2", "survey", 26.09 - 3 * 7.69),
        ("T3.C3", "survey", 0.3 - (2.10 - 1.84)),
        ("T3.C4", "survey", 0.0),  # tie of 0.25 with 0.75 on MNIST
        ("T3.C5", "survey", 7.36 - 7.32),
        ("T3.C5", "source", 7.36 - 7.24),
        ("T3.C6", "source", 17.00 - 16.82),
        ("T3.C7", "survey", 0.0),  # 37 and 98 are printed
        ("T3.C8", "survey", 2.0),
    ],
)
def test_worst_margin_by_hand(claim, whose, margin):
    assert claims.on_printed(CLAIMS[claim], T3, whose)[0] == pytest.approx(margin, abs=1e-9)


@pytest.mark.parametrize(
    ("claim", "cell", "value"),
    [
        ("T3.C1", ("a0_5", "mnist", "error"), 2.70),  # equal is not better
        ("T3.C2", ("a0", "ni", "error"), 23.0),
        ("T3.C3", ("a0_1", "cifar10", "error"), 17.4),
        ("T3.C4", ("a0_25", "cifar10", "error"), 17.05),
        ("T3.C4", ("a0_1", "cifar10", "error"), 16.9),  # 0.1 joins the top three everywhere
        ("T3.C5", ("a0", "ni", "error"), 7.0),
        ("T3.C6", ("a0_01", "cifar10", "error"), 16.0),
        ("T3.C7", ("a1", "mnist", "epochs"), 36.0),
        ("T3.C7", ("a1", "ni", "epochs"), 99.0),
        ("T3.C8", ("a0_1", "mnist", "epochs"), 46.0),
    ],
)
def test_one_changed_cell_breaks_the_claim(claim, cell, value):
    assert holds(CLAIMS[claim], survey())
    assert not holds(CLAIMS[claim], {**survey(), cell: value})


def test_missing_cells_make_a_claim_not_applicable():
    values = survey()
    del values["a0_1", "ni", "error"]
    for name in ("T3.C1", "T3.C2", "T3.C3", "T3.C4", "T3.C5"):
        assert math.isnan(smallest([part.margin for part in CLAIMS[name](Numbers(values))])), name


def in_words(values, name):
    """The sentence of a claim, said a second time with arrays."""
    err = {s: np.array([values[row, s, "error"] for row in ALL]) for s in SETS}
    row = {name: i for i, name in enumerate(ALL)}
    middle, moving = [row[r] for r in MIDDLE], [row[r] for r in MOVING]
    if name == "T3.C1":
        return all((err[s][middle] < err[s][row["a1"]]).all() for s in SETS)
    if name == "T3.C2":
        return all(err[s][row["a0"]] > 3 * err[s][moving].max() for s in SETS)
    if name == "T3.C3":
        return all(np.ptp(err[s][middle]) <= t for s, t in zip(SETS, (0.3, 0.4, 1.1), strict=True))
    if name == "T3.C4":
        top = [{a for a in ALL if (err[s] < err[s][row[a]]).sum() < 3} for s in SETS]
        return set.intersection(*top) == {"a0_25"}
    if name == "T3.C5":
        return int(np.argmin(err["ni"])) == row["a0_25"] and (err["ni"] == err["ni"].min()).sum() == 1
    if name == "T3.C6":
        e = err["cifar10"]
        return e[row["a0_001"]] < e[row["a0_01"]] < e[row["a0_25"]]
    epochs = {s: np.array([values[r, s, "epochs"] for r in MOVING]) for s in SETS}
    if name == "T3.C7":
        whole = np.concatenate(list(epochs.values()))
        return (
            whole.min() >= 37 and whole.max() <= 98 and all(e.max() / e.min() <= 3 for e in epochs.values())
        )
    if name == "T3.C8":
        others = [i for i, r in enumerate(MOVING) if r != "a0_25"]
        quickest = MOVING.index("a0_25")
        return all((epochs[s][others] > epochs[s][quickest]).all() for s in ("mnist", "ni"))
    variance = {r: [values[r, s, "variance"] for s in SETS] for r in ALL}
    return all(v < b for r in MIDDLE for v, b in zip(variance[r], variance["a1"], strict=True))


@pytest.mark.parametrize("name", list(CLAIMS))
def test_claim_is_its_sentence_on_random_tables(name):
    """Numbers on a coarse grid (so that ties occur), half of them near the survey's: both answers must come
    up.
    """
    rng = np.random.default_rng(3)
    answers, base = [], survey()
    for i in range(160):
        values = dict(base)
        values |= {(r, s, "variance"): 2.0 if r == "a1" else 1.0 for r in ALL for s in SETS}
        changed = rng.integers(0, len(values), size=[0, 1, 3, 40][i % 4])
        for k in changed:
            cell = list(values)[k]
            step = {"error": rng.choice([0.02, 0.4]), "epochs": 1.0, "variance": 0.5}[cell[2]]
            values[cell] = round(values[cell] + step * rng.integers(-20, 21), 6)
        said = in_words(values, name)
        assert holds(CLAIMS[name], values) == said, (i, values)
        answers.append(bool(said))
    assert 3 < sum(answers) < 157, sum(answers)


def test_expressions_and_numbers_give_the_same_margins():
    """Ours go through expressions and estimates, printed numbers through plain arithmetic: one answer."""
    values = {**survey(), **{(r, s, "variance"): 1.0 + len(r) for r in ALL for s in SETS}}
    judge = Judge({cell: Sample({0: v, 1: v, 2: v}) for cell, v in values.items()})
    for name, claim in CLAIMS.items():
        for ours, plain in zip(claim(claims.Measured()), claim(Numbers(values)), strict=True):
            assert judge.interval(ours.margin).margin == pytest.approx(plain.margin, abs=1e-9), (
                name,
                ours.name,
            )


def test_claims_with_absolute_thresholds_need_the_papers_data():
    absolute = [name for name, claim in CLAIMS.items() if any(p.absolute for p in claim(claims.Measured()))]
    assert absolute == ["T3.C3", "T3.C7"]
    assert {part.absolute for part in CLAIMS["T3.C7"](claims.Measured())} == {True, False}
