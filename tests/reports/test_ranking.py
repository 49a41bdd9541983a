"""Ranks, paired tests and critical differences: by hand, against scipy, and on the published table A11."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from reports import figures, published, ranking
from reports.__main__ import main

A11 = published.FOLDER / "table_05_a11.csv"
NA = math.nan


def table(text: str, tmp_path: Path, **options: str) -> ranking.Table:
    file = tmp_path / "t.csv"
    file.write_text(text)
    return ranking.read(file, **options)


# ------------------------------------------------------------------------------------------------- by hand


def test_ranks_by_hand():
    values = np.array([[0.9, 0.8, 0.7], [0.5, 0.5, 0.6], [NA, 0.2, NA], [0.3, 0.3, 0.3]])
    wanted = [[1, 2, 3], [2.5, 2.5, 1], [2.5, 1, 2.5], [2, 2, 2]]
    assert ranking.ranks(values).tolist() == wanted
    assert ranking.differences(values) == pytest.approx([2 - 2, 7.5 / 4 - 2, 8.5 / 4 - 2])
    assert ranking.differences(values).sum() == pytest.approx(0)


def test_ranks_know_no_floating_point_noise():
    assert ranking.ranks(np.array([[0.1 + 0.2, 0.3, 0.30004]])).tolist() == [[2, 2, 2]]
    assert ranking.ranks(np.array([[0.3, 0.3001]])).tolist() == [[2, 1]]


def test_win_tie_loss_leaves_out_what_is_missing():
    assert ranking.win_tie_loss(np.array([0.5, 0.5, NA, 0.1 + 0.2]), np.array([0.4, 0.6, 0.1, 0.3])) == (
        1,
        1,
        1,
    )


def test_exact_p_is_counted_from_all_signs():
    """d = 1, 2, 3, -4: of the 16 signs 7 give a sum of positive ranks >= 6."""
    a = np.array([0.01, 0.02, 0.03, 0.00])
    b = np.array([0.00, 0.00, 0.00, 0.04])
    sums = [
        sum(r for r, s in zip((1, 2, 3, 4), signs, strict=True) if s)
        for signs in itertools.product((0, 1), repeat=4)
    ]
    assert sum(s >= 6 for s in sums) == 7
    assert ranking.wilcoxon(a, b) == pytest.approx(7 / 16)


def test_normal_p_by_hand():
    """|d| = 1, 1, 2 (ranks 1.5, 1.5, 3), one zero dropped: W = 4.5, mean 3, variance 3.5 - 6/48 = 3.375."""
    a, b = np.array([0.01, 0.01, 0.00, 0.5]), np.array([0.0, 0.0, 0.02, 0.5])
    z = (3.0 - 3.0 - 0.5) / math.sqrt(3 * 4 * 7 / 24 - 6 / 48)
    assert ranking.wilcoxon(a, b) == pytest.approx(1 - stats.norm.cdf(z))
    z = (4.5 - 3.0 - 0.5) / math.sqrt(3 * 4 * 7 / 24 - 6 / 48)
    assert ranking.wilcoxon(a, np.array([0.0, -0.02, 0.01, 0.5])) == pytest.approx(1 - stats.norm.cdf(z))


def test_nothing_but_ties_is_no_evidence():
    same = np.array([0.1, 0.2, 0.3])
    assert ranking.wilcoxon(same, same) == 1.0
    assert ranking.wilcoxon(np.array([NA]), np.array([0.1])) == 1.0


def test_critical_differences_are_demsars():
    """q of his Table 5(a); CD = q sqrt(K (K + 1) / 6 S), as in his example of 4 methods on 14 sets: 1.25."""
    for k, q in {
        2: 1.960,
        3: 2.343,
        4: 2.569,
        5: 2.728,
        6: 2.850,
        7: 2.949,
        8: 3.031,
        9: 3.102,
        10: 3.164,
    }.items():
        assert ranking.critical_difference(k, 30) == pytest.approx(q * math.sqrt(k * (k + 1) / 180), rel=5e-4)
    assert ranking.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)


def test_bars_are_the_largest_groups_within_the_difference():
    assert ranking.groups([1.0, 1.9, 2.5, 4.0], 1.6) == [(0, 1, 2), (2, 3)]
    assert ranking.groups([3.0, 1.0, 2.0], 0.5) == []
    assert ranking.groups([3.0, 1.0, 2.0], 5) == [(1, 2, 0)]
    assert ranking.groups([1.0, 2.0], 1.0) == []  # a difference of CD is one


# ---------------------------------------------------------------------------------------------- scipy as peer


@pytest.mark.parametrize("n", [5, 20, 46])
def test_p_is_scipys(n):
    rng = np.random.default_rng(n)
    a, b = rng.permutation(8000)[:n] / 10_000 + 0.1, rng.random(n) * 0
    d = rng.permutation(np.arange(1, n + 1)) / 1000 * rng.choice([1, -1], n, p=[0.7, 0.3])
    exact = stats.wilcoxon(d, alternative="greater", method="exact").pvalue
    assert ranking.wilcoxon(a + d, a + b) == pytest.approx(exact)
    tied = np.round(d, 2)
    if (tied > 0).sum() > (tied < 0).sum():  # elsewhere scipy's correction has the other sign
        normal = stats.wilcoxon(tied, alternative="greater", method="asymptotic", correction=True).pvalue
        assert ranking.wilcoxon(tied, np.zeros(n)) == pytest.approx(normal)


def test_friedman_is_scipys_and_f_follows_from_it():
    rng = np.random.default_rng(0)
    values = np.round(rng.random((25, 5)) + np.array([0, 0, 0.1, 0.2, 0.2]), 1)  # many ties
    found, peer = ranking.friedman(values), stats.friedmanchisquare(*values.T)
    assert (found.chi2, found.p) == pytest.approx((peer.statistic, peer.pvalue))
    f = 24 * peer.statistic / (25 * 4 - peer.statistic)
    assert (found.f, found.p_f) == pytest.approx((f, stats.f.sf(f, 4, 96)))


def test_friedman_at_its_ends():
    assert ranking.friedman(np.full((5, 3), 0.5)).p == 1.0
    same_order = ranking.friedman(np.tile([0.1, 0.2, 0.3], (6, 1)))
    assert same_order.chi2 == pytest.approx(12) and math.isinf(same_order.f) and same_order.p_f == 0.0


# ------------------------------------------------------------------------------------ the published table A11

NAMES = ["MS", "LN", "HW", "ResNet", "WN", "BN"]


@pytest.fixture(scope="module")
def a11():
    return ranking.read(A11)


def test_a11_has_75_small_and_46_large_sets(a11):
    parts = ranking.selections(a11)
    assert {name: len(part.sets) for name, part in parts.items()} == {"all": 121, "large": 46, "small": 75}
    assert np.isnan(a11.values).sum() == 4 and np.isnan(a11.values[a11.sets.index("trains")]).sum() == 4
    assert a11.methods == ("SNN", "MS", "HW", "ResNet", "BN", "WN", "LN")


def test_a11_rank_differences_are_the_published_ones(a11):
    """Published with ties broken at random: 0.03 either way."""
    found = {line.method: line.difference for line in ranking.ranking(a11, "SNN").lines}
    printed = dict(zip(["SNN", *NAMES], [-0.756, -0.240, -0.198, 0.021, 0.273, 0.397, 0.504], strict=True))
    assert found == pytest.approx(printed, abs=0.03)
    exact = dict(zip(["SNN", *NAMES], [-0.744, -0.219, -0.194, 0.012, 0.252, 0.384, 0.508], strict=True))
    assert found == pytest.approx(exact, abs=5e-4)


@pytest.mark.parametrize(
    ("part", "printed", "ours"),
    [
        ("all", [2.7e-2, 1.5e-2, 1.9e-3, 5.4e-4, 7.8e-7, 3.5e-6],
         [2.78e-2, 1.51e-2, 1.86e-3, 5.41e-4, 8.15e-7, 3.35e-6]),
        ("large", [4.5e-3, 7.1e-2, 1.7e-3, 1.7e-4, 5.5e-4, 1.8e-4],
         [4.40e-3, 6.79e-2, 1.61e-3, 1.52e-4, 5.53e-4, 1.79e-4]),
    ],
)  # fmt: skip
def test_a11_p_values_are_the_published_ones(a11, part, printed, ours):
    lines = {line.method: line.p for line in ranking.ranking(ranking.selections(a11)[part], "SNN").lines}
    found = [lines[name] for name in NAMES]
    assert found == pytest.approx(printed, rel=0.15)
    assert found == pytest.approx(ours, rel=5e-3)


def test_a11_wins_ties_and_losses(a11):
    found = {line.method: "/".join(map(str, line.wins)) for line in ranking.ranking(a11, "SNN").lines}
    told = ["66/12/42", "63/12/45", "69/8/43", "65/18/37", "79/8/33", "75/11/34"]
    assert [found[name] for name in NAMES] == told


# ------------------------------------------------------------------------------------------- files and words


def test_per_cent_and_shares_are_one(tmp_path):
    a = table("set,a,b\nx,50.001,50.002\ny,3,4\n", tmp_path)
    assert a.values.tolist() == [[0.50001, 0.50002], [0.03, 0.04]]
    assert ranking.ranks(a.values).tolist() == [[1.5, 1.5], [2, 1]]


def test_sizes_come_from_a_column_or_a_file(tmp_path):
    assert table("set,N,a,b\nx,10,0,1\ny,1000,1,0\n", tmp_path).sizes.tolist() == [10, 1000]
    sizes = tmp_path / "sizes.csv"
    sizes.write_text("name,rows\ny,1000\nx,999\nz,5\n")
    found = table("set,a,b\nx,0,1\ny,1,0\n", tmp_path, sizes=sizes)
    assert {k: p.sets for k, p in ranking.selections(found).items()} == {
        "all": ("x", "y"),
        "large": ("y",),
        "small": ("x",),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "needs a heading and at least one data set"),
        ("set,a,b\n", "needs a heading and at least one data set"),
        ("set,a\nx,1\n", "at least two methods"),
        ("set,N,a\nx,1,1\n", "at least two methods"),
        ("set,a,b\nx,0.1,spam\n", "line 2, column b: 'spam' is not a number"),
        ("set,a,b\n\nx,0.1,inf\n", "line 3, column b: 'inf' is not a number"),
        ("set,a,b\nx,0.1\n", "line 2: 2 cells, the heading has 3"),
        ("set,a,b\nx,0,1\nx,1,0\n", "data set 'x' occurs twice"),
        ("set,a,a\nx,0,1\n", "column 'a' occurs twice"),
        ("set,a,b\nx,NA,\n", "line 2: x has no accuracy of any method"),
        ("set,a,b\nx,-1,1\n", "must lie in"),
        ("set,N,a,b\nx,,1,1\n", "line 2, column N: '' is not a number"),
    ],
)
def test_a_bad_file_is_one_line_and_status_2(text, said, tmp_path, capsys):
    file = tmp_path / "t.csv"
    file.write_text(text)
    assert main(["rank", str(file), f"out={tmp_path}"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert said in line and "t.csv" in line


def test_other_bad_words_are_one_line_too(tmp_path, capsys):
    (tmp_path / "t.csv").write_text("set,SNN,b\nx,0,1\n")
    (tmp_path / "latin.csv").write_bytes(b"set,a,b\nM\xfcnchen,0,1\n")
    (tmp_path / "sizes.csv").write_text("set,N\ny,3\n")
    wrong = [
        (["rank"], "rank needs file=..."),
        (["rank", str(tmp_path / "none.csv")], "none.csv does not exist"),
        (["rank", str(tmp_path / "latin.csv")], "not a CSV file in UTF-8"),
        (["rank", str(tmp_path / "t.csv"), "baseline=SNM"], "did you mean SNN?"),
        (["rank", str(tmp_path / "t.csv"), f"n={tmp_path / 'sizes.csv'}"], "has no size of x"),
    ]
    for words, said in wrong:
        assert main(words) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert said in line


def test_what_a_ranking_rests_on_is_said(tmp_path, capsys):
    (tmp_path / "gaps.csv").write_text("set,a,b\nx,0.5,nan\ny,0.4,0.3\nz,0.2,0.6\n")
    (tmp_path / "one.csv").write_text("set,a,b\nx,0.5,0.4\n")
    assert main(["rank", str(tmp_path / "gaps.csv"), f"out={tmp_path}"]) == 0
    assert "note: 1 of 6 accuracies are missing: ranked last" in capsys.readouterr().out
    assert main(["rank", str(tmp_path / "one.csv"), f"out={tmp_path}"]) == 0
    told = capsys.readouterr().out
    assert "all sets: 1 set, 2 methods" in told and "F =" not in told and "missing" not in told
    assert main(["rank", "--help"]) == 0 and "python -m reports rank FILE.csv" in capsys.readouterr().out


def test_rank_prints_three_selections_and_writes_their_diagrams(tmp_path, capsys):
    assert main(["rank", str(A11), "baseline=SNN", f"out={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert "all sets: 121 sets, 7 methods, against SNN" in out and "66/12/42" in out
    assert "sets with N >= 1000: 46 sets" in out and "sets with N < 1000: 75 sets" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"rank_table-05-a11_{part}.svg" for part in ("all", "large", "small")
    ]


def test_the_diagram_says_what_it_shows():
    svg = figures.critical_difference(
        "cd", "t", ["a", "b", "c"], [1.2, 2.9, 1.9], [("a", "c"), ("c", "b")], 1.1
    )
    assert "a: 1.20; c: 1.90; b: 2.90. Critical difference 1.10. Not told apart: a, c; c, b." in svg
    assert svg == figures.critical_difference(
        "cd", "t", ["a", "b", "c"], [1.2, 2.9, 1.9], [("a", "c"), ("c", "b")], 1.1
    )
    assert "a (1.20)" in svg and 'role="img"' in svg
