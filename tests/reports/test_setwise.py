"""Cells that are averages over data sets: the block of common sets, ranks, p-values, intervals, variants."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from reports import published, ranking, setwise, statistics, store
from reports.analysis import analyse
from reports.statistics import Judge, Linear, Sample
from tests.reports import synthetic_snn as make

T5 = published.load("T5")
SMALL = ["iris", "wine", "glass", "pima"]  # of make.SETS, N < 1000


def report_of(tmp_path, records, noted):
    make.write(tmp_path / "runs", noted, records)
    loaded = store.load(tmp_path / "runs")
    return analyse(loaded.frame, loaded.grid["T5"], loaded.paper["T5"], T5, "quick")


def cells_of(report, column, metric):
    mine = report.cells[(report.cells["column"] == column) & (report.cells["metric"] == metric)]
    return mine.set_index("row")


def chosen(rows):
    """Selected runs as setwise sees them: (row, seed, set, test error)."""
    frame = pd.DataFrame(rows, columns=["row", "seed", "column", "metrics.test_error"])
    frame["run_id"] = [f"r{i}" for i in range(len(frame))]
    return frame.assign(part=frame["column"], status="finished", size=100.0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    noted = make.grid("T5")
    return report_of(tmp_path_factory.mktemp("t5"), make.trials(noted), noted), noted


# ---------------------------------------------------------------------------------------------- by hand


def test_ranks_and_accuracies_are_those_of_the_records(whole):
    """Worked out again from the records with dicts: selection, ranks, averages."""
    report, noted = whole
    best = {}
    for rec in make.trials(noted):
        m = rec["config"]["model"]
        rule = (round(rec["metrics"]["val_error"], 6), -(m["layers"] or 0), rec["config"]["optimizer"]["lr"])
        key = (rec["cell"]["row"], rec["cell"]["column"], rec["config"]["seed"])
        best[key] = min(best.get(key, (rule, rec)), (rule, rec), key=lambda pair: pair[0])
    for column, names in (
        ("small", SMALL),
        ("large", sorted(set(make.SETS) - set(SMALL))),
        ("all", list(make.SETS)),
    ):
        means = {row: [] for row in make.ROWS}
        for seed in range(3):
            ranks = []
            for name in names:
                accuracy = [
                    round(1 - best[row, name, seed][1]["metrics"]["test_error"] / 100, 4) for row in make.ROWS
                ]
                ranks.append(stats.rankdata([-a for a in accuracy]))
            for row, rank in zip(make.ROWS, np.mean(ranks, 0), strict=True):
                means[row].append(rank - 5)
        found = cells_of(report, column, "rank_diff")
        for row in make.ROWS:
            assert found.loc[row, "mean"] == pytest.approx(np.mean(means[row]))
            assert found.loc[row, "sd"] == pytest.approx(np.std(means[row], ddof=1), abs=1e-12)
            assert (found.loc[row, "n"], found.loc[row, "sets"]) == (3, len(names))
        depths = [best["snn", name, s][1]["config"]["model"]["layers"] for name in names for s in range(3)]
        assert cells_of(report, column, "depth").loc["snn", "mean"] == pytest.approx(np.mean(depths))


def test_the_other_rankings_sum_to_zero_over_their_rows(whole):
    report, _ = whole
    for metric, rows in (("rank_diff", 9), ("fnn_rank_diff", 7), ("printed_rank_diff", 4)):
        found = cells_of(report, "all", metric)
        ran = found[found["n"] > 0]
        assert len(ran) == rows and ran["mean"].sum() == pytest.approx(0, abs=1e-9)
    assert (cells_of(report, "all", "rank")["mean"] - 5).tolist() == pytest.approx(
        cells_of(report, "all", "rank_diff")["mean"].tolist()
    )
    assert set(cells_of(report, "all", "fnn_rank_diff").query("n == 0").index) == {"svm", "forest"}


def test_differences_to_numbers_on_another_scale_are_not_formed(whole):
    assert cells_of(whole[0], "large", "rank_diff")["difference"].isna().all()
    assert cells_of(whole[0], "large", "rank_diff")["survey"].notna().sum() == 4


def test_p_is_that_of_accuracies_averaged_over_seeds(whole):
    report, _ = whole
    block = report.blocks["all"]
    a, b = (block.values[block.rows.index(row)].mean(0) for row in ("snn", "msra"))
    cell = cells_of(report, "all", "p").loc["msra"]
    assert cell["mean"] == pytest.approx(ranking.wilcoxon(a, b)) and cell["n"] == 3
    assert cell["low"] < cell["mean"] < cell["high"]
    assert cells_of(report, "all", "p").loc["snn", "n"] == 0


def test_claims_of_significance_are_read_off_p(whole):
    report, _ = whole
    (claim,) = (c for c in report.claims if c.id == "T5.C2")
    p = cells_of(report, "large", "p").loc["svm"]
    assert (
        claim.margin == pytest.approx(0.05 - p["mean"]) == pytest.approx(0.05 - 1 / 16)
    )  # wins on all 4 sets
    assert claim.verdict == "inconclusive"  # four sets cannot be significant
    assert "4 sets of keel (stand-in)" in claim.label


def test_counts_of_trials_stand_beside_each_cell(whole):
    cell = cells_of(whole[0], "small", "rank_diff").loc["snn"]
    assert (cell["trials"], cell["trials_planned"]) == (4 * 3 * 8, 4 * 3 * 8)
    assert any("216 runs selected by validation error from 1056 trials, 0" in note for note in whole[0].notes)


# ------------------------------------------------------------------------------------------- what is missing


def test_sets_where_a_row_is_missing_are_left_out_and_counted():
    rows = [(r, s, d, 10.0) for r in "abc" for s in (0, 1, 2) for d in "xyz" if (r, d) != ("c", "z")]
    block = setwise.complete(chosen(rows), "abc")
    assert (block.sets, block.rows, block.seeds, block.lacking) == (("x", "y"), ("a", "b", "c"), (0, 1, 2), 1)


def test_a_row_that_hardly_ran_is_not_ranked():
    rows = [(r, 0, d, 10.0) for r in "ab" for d in "wxyz"] + [("c", 0, "w", 1.0)]
    block = setwise.complete(chosen(rows), "abc")
    assert block.rows == ("a", "b") and block.left_out == ("c",) and len(block.sets) == 4


def test_three_seeds_on_ten_sets_are_preferred_to_more_sets():
    there = np.zeros((3, 60), bool)
    there[0] = True
    there[1:, :12] = True
    seeds, units = setwise.fullest(there)
    assert list(seeds) == [0, 1, 2] and len(units) == 12
    there[1:, 9:] = False  # nine sets are too few for that: then the most pairs
    assert [len(x) for x in setwise.fullest(there)] == [1, 60]
    assert setwise.fullest(np.zeros((2, 3), bool)) is None


def test_folds_of_a_set_are_averaged_before_ranking():
    rows = [("a", 0, "x", 10.0), ("b", 0, "x", 20.0), ("a", 0, "x", 40.0), ("b", 0, "x", 20.0)]
    frame = chosen(rows).assign(part=["x 0", "x 0", "x 1", "x 1"])
    block = setwise.complete(frame, "ab")
    assert block.sets == ("x",) and block.values[:, 0, 0].tolist() == pytest.approx([0.75, 0.8])


def test_a_diverged_run_is_wrong_everywhere():
    frame = chosen([("a", 0, "x", 10.0), ("b", 0, "x", 1.0)]).assign(status=["finished", "diverged"])
    assert setwise.complete(frame, "ab").values[:, 0, 0].tolist() == [0.9, 0.0]


def test_no_common_set_and_nothing_at_all():
    assert setwise.complete(chosen([("a", 0, "x", 1.0), ("b", 0, "y", 1.0)]), "ab") is None
    assert setwise.complete(chosen([("a", 0, "x", 1.0)]), "ab") is None
    assert setwise.complete(chosen([]), "ab") is None


def test_an_empty_store_says_not_run(tmp_path):
    report = report_of(tmp_path, [], make.grid("T5"))
    assert len(report.cells) == 9 * 3 * len(T5.metrics) and (report.cells["n"] == 0).all()
    assert {c.verdict for c in report.claims} == {"not run"}


def test_rows_that_did_not_run_are_named(tmp_path):
    noted = make.grid("T5", rows=["snn", "svm", "batch"])
    report = report_of(tmp_path, make.trials(noted), noted)
    assert any("ranks are among 3 rows; not run: Random forest, FNN + LN" in note for note in report.notes)
    assert cells_of(report, "all", "rank_diff")["mean"].sum() == pytest.approx(0, abs=1e-9)
    verdicts = {c.id: c.verdict for c in report.claims}
    assert verdicts["T5.C3"] == "not run"


def test_a_part_of_the_search_is_said(tmp_path):
    noted = make.grid("T5", sets=SMALL, seeds=[0])
    records = [
        r for r in make.trials(noted) if (r["config"]["model"]["layers"], r["cell"]["row"]) != (4, "snn")
    ]
    report = report_of(tmp_path, records, noted)
    cell = cells_of(report, "small", "rank_diff").loc["snn"]
    assert (cell["trials"], cell["trials_planned"]) == (4 * 4, 4 * 8)
    assert any(
        "4 of 36 selected runs rest on a part of their search: 16 of 32 trials" in n for n in report.notes
    )


# ---------------------------------------------------------------------------------------- variants and norms


def test_a_variant_stands_in_its_rows_place_and_a_norm_beside_all(tmp_path):
    noted = make.grid("T5", sets=SMALL, seeds=[0, 1])
    records = list(make.trials(noted))
    for seed in (0, 1):
        for name in SMALL[:3]:
            records.append(make.record("T5", "batch", seed, statistics="never", data__options__set=name))
            records.append(make.record("T5", "group", seed, skill={"group": -20.0}, data__options__set=name))
    report = report_of(tmp_path, records, noted)
    extra = report.extra[(report.extra["column"] == "small") & (report.extra["metric"] == "rank_diff")]
    lines = {(e["match"], e["label"], e["row"]): e for e in extra.to_dict("records")}
    assert set(lines) == {("variant", "statistics=never", "batch"), ("norm", "group", "group")}
    variant, norm = lines["variant", "statistics=never", "batch"], lines["norm", "group", "group"]
    assert (variant["sets"], norm["sets"]) == (3, 3)
    assert -4 <= variant["mean"] <= 4
    assert norm["mean"] == pytest.approx(1 - 11 / 2)  # the best of ten rows
    assert (
        cells_of(report, "small", "rank_diff").loc["batch", "sets"] == 4
    )  # the primary's cells do not change


# -------------------------------------------------------------------------------------------------- intervals


def block_of(rows, values):
    """A block of accuracies [R, n, S]."""
    _, n, sets = values.shape
    names = tuple(map(str, range(sets)))
    return setwise.Block(tuple(rows), tuple(range(n)), names, np.ones(sets), values, values)


def test_an_interval_needs_six_sets():
    def found(sets):
        values = np.random.default_rng(0).random((2, 3, sets))
        block = setwise.Block(
            ("a", "b"), (0, 1, 2), tuple(map(str, range(sets))), np.ones(sets), values, values
        )
        a, b = (setwise.scored(x, block) for x in block.ranks("ab"))
        return Judge({"a": a, "b": b}).interval(Linear({"b": 1.0, "a": -1.0}))

    assert math.isinf(found(5).low) and found(5).verdict == "inconclusive"
    assert math.isfinite(found(6).low) and found(6).how == "sets"


def test_ranks_without_any_spread_are_no_certainty():
    scores = {s: np.full(8, 1.0) for s in range(3)}
    sample = Sample(dict.fromkeys(range(3), 1.0), scores=scores)
    assert Judge({0: sample}).interval(Linear({0: 1.0})).verdict == "inconclusive"


def test_scores_are_crossed_as_masks_are():
    rng = np.random.default_rng(1)
    masks = {s: rng.random(50) < 0.3 for s in range(4)}
    values = {s: 100 * float(m.mean()) for s, m in masks.items()}
    by_mask = Judge({0: Sample(values, 50, "t", masks)}).interval(Linear({0: 1.0}))
    by_score = Judge({0: Sample(values, scores={s: 100.0 * m for s, m in masks.items()})}).interval(
        Linear({0: 1.0})
    )
    assert (by_score.low, by_score.high) == pytest.approx((by_mask.low, by_mask.high), rel=1e-5)


def test_jackknife_of_a_mean_is_its_standard_error():
    x = np.array([1.0, 4.0, 2.0, 7.0])
    found = statistics.jackknife(x.mean(), [np.delete(x, i).mean() for i in range(4)])
    assert found.variance == pytest.approx(x.var(ddof=1) / 4) and found.parts[0][1] == 3


def test_p_values_keep_their_order_and_their_range():
    found = statistics.p_value(0.03, [0.02, 0.05, 0.04])
    low, high = found.limits(0.025, 0.025)
    assert 0 < low < 0.03 < high < 1
    margin = Judge({0: Sample({}, ready=found)}).interval(0.05 - Linear({0: 1.0}))
    assert (margin.margin, margin.low, margin.high) == pytest.approx((0.02, 0.05 - high, 0.05 - low))
    assert statistics.p_value(0.03, []).limits(0.025, 0.025) == (-math.inf, math.inf)


def simulated(rng, effects, sets, n, of_set, of_run):
    """Accuracies [K, n, S] rounded to whole per cent, so that ties occur."""
    shape = (len(effects), n, sets)
    own, noise = rng.normal(0, of_set, (shape[0], 1, sets)), rng.normal(0, of_run, shape)
    return np.round(0.8 + rng.normal(0, 0.1, sets) + np.array(effects)[:, None, None] + own + noise, 2)


@pytest.mark.slow
@pytest.mark.parametrize("sets", [6, 46])
@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("spread", [(0.02, 0.005), (0.003, 0.02)], ids=str)
def test_intervals_of_rank_contrasts_hold_the_truth(sets, n, spread):
    """Nine methods, five of them alike; sets from an endless collection, each liking some methods more."""
    rows = tuple("abcdefghi")
    effects = [0.01, 0.005, 0, 0, 0, 0, 0, -0.005, -0.01]
    endless = simulated(np.random.default_rng(9), effects, 100_000, 1, *spread)
    truth = ranking.ranks(np.moveaxis(endless, 0, -1)).mean((0, 1))
    rng, held, alarms, repeats = np.random.default_rng(1), 0, 0, 1200
    for _ in range(repeats):
        values = simulated(rng, effects, sets, n, *spread)
        block = block_of(rows, values)
        judge = Judge({row: setwise.scored(x, block) for row, x in zip(rows, block.ranks(rows), strict=True)})
        gap = judge.interval(Linear({"b": 1.0, "a": -1.0}))
        held += gap.low <= truth[1] - truth[0] <= gap.high
        alarms += judge.interval(Linear({"d": 1.0, "e": -1.0})).verdict != "inconclusive"
    assert held / repeats >= 0.93 and alarms / repeats <= 0.07


@pytest.mark.slow
@pytest.mark.parametrize("sets", [8, 46])
@pytest.mark.parametrize("gap", [0.0, 0.004])
def test_intervals_of_p_values_hold_the_truth(sets, gap):
    """The data sets are given, seeds are drawn: the truth is the p-value at the mean normal score."""
    rng, held, repeats = np.random.default_rng(2), [], 30
    for _ in range(repeats):
        base, better = 0.8 + rng.normal(0, 0.1, sets), gap + rng.normal(0, 0.01, sets)

        def draw(base=base, better=better):
            noise = rng.normal(0, 0.01, (2, 3, sets))
            return np.round(base + better + noise[0], 3), np.round(base + noise[1], 3)

        scores = [stats.norm.isf(min(setwise.paired(*draw()).mean, 1 - 1e-12)) for _ in range(150)]
        truth = stats.norm.sf(np.mean(scores))
        ends = [setwise.paired(*draw()).limits(0.025, 0.025) for _ in range(12)]
        held += [low <= truth <= high for low, high in ends]
    assert 0.91 <= np.mean(held) <= 0.99
