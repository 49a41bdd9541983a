"""Table 1 in the reports: printed figures, claims, steps to a target and misses, ablation, page, snapshot."""

import json
import math
from pathlib import Path

import pytest
from scipy import stats

from reports import claims, published, readme, site, snapshot, store, tables
from reports.analysis import analyse
from reports.pages import table_01
from reports.statistics import Judge, Linear, Sample, share, smallest, summary
from tests.reports import synthetic_inception as make
from tests.reports import transcription
from tests.reports.html_checks import check_site

T1 = published.load("T1")
CLAIMS = claims.of("T1")
NOWHERE = Path("does-not-exist")
THEIRS = {"bn_baseline": "bn_inception"}  # the transcription's row ids


def report_of(root, measured=None, profile="quick"):
    loaded = store.load(root, measured)
    grid, paper = loaded.grid["T1"], loaded.paper.get("T1", {})
    return analyse(loaded.frame, grid, paper, T1, profile, 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("t1")
    make.write(root / "runs", list(make.records()))
    site.build(root / "runs", root / "out", NOWHERE)
    return root, check_site(root / "out")


def cell(report, row, metric, column="imagenet"):
    mine = report.cells
    (found,) = mine[(mine["row"] == row) & (mine["column"] == column) & (mine["metric"] == metric)].to_dict(
        "records"
    )
    return found


# ---- printed figures ---------------------------------------------------------------------------------------


def test_cells_rows_and_headings_are_the_surveys():
    told = transcription.of("T1")
    columns = {c["id"] for c in told["columns"]}
    rows = {THEIRS.get(r, r): r for r in T1.survey_rows}
    assert list(rows) == [r["id"] for r in told["rows"]]
    for c in told["cells"]:
        figure = T1.figures[rows[c["row"]], c["column"]]
        assert (figure.survey, figure.printed) == (c["value"], c["printed"])
    ours = {(r, c) for (r, c), f in T1.figures.items() if f.survey is not None}
    assert ours == {(rows[c["row"]], c["column"]) for c in told["cells"] if c["value"] is not None}
    for theirs in told["columns"]:
        mine = next(c for c in T1.columns if c.id == theirs["id"])
        assert {k: getattr(mine, k) for k in theirs} == theirs
    assert len(columns) == 2 and [a.id for a in T1.audit] == told["audit"]
    assert (T1.caption_zh, T1.caption_en) == (told["caption_zh"], told["caption_en"])


@pytest.mark.parametrize("claim", T1.claims, ids=lambda c: c.id)
@pytest.mark.parametrize("whose", ["survey", "source"])
def test_verdict_on_the_printed_numbers_is_the_fact_sheets(claim, whose):
    margin, verdict = claims.on_printed(CLAIMS[claim.id], T1, whose)
    assert verdict == getattr(claim, whose)
    assert (margin is None) == (verdict == "n/a")


@pytest.mark.parametrize(
    ("claim", "margin"),
    [
        ("T1.C1", 15.5e6 - 13.3e6),
        ("T1.C2", 3.1e6 - 2.1e6),
        ("T1.C3", 3.1e6 - 2.7e6),
        ("T1.C4", 3.1e6 - 13.3e6),
        ("T1.C5", 0.6e6),
        ("T1.C6", 0.3),
        ("T1.C7", 74.8 - 72.2 - 1),
        ("T1.C8", 50),
        ("T1.C9", 2.0),
        ("T1.C10", 31e6 / 3 - 6e6),
    ],
)
def test_margins_by_hand_on_the_sources_figures(claim, margin):
    assert claims.on_printed(CLAIMS[claim], T1, "source")[0] == pytest.approx(margin)


# ---- misses, shares ----------------------------------------------------------------------------------------


def test_a_miss_opens_the_interval_on_its_side_only():
    reached = Sample({0: 100.0, 1: 110.0, 2: 105.0})
    missed = Sample({0: 900.0, 1: math.inf, 2: math.inf}, ends={1: 1000.0, 2: 1000.0})
    judge = Judge({"a": reached, "b": missed})
    later = judge.interval(Linear({"b": 1.0, "a": -1.0}))  # b - a: at least what it was when b gave up
    plain = Judge({"a": reached, "b": Sample({0: 900.0, 1: 1000.0, 2: 1000.0})})
    bounded = plain.interval(Linear({"b": 1.0, "a": -1.0}))
    assert later.low == bounded.low > 0 and later.high == math.inf and later.verdict == "supported"
    sooner = judge.interval(Linear({"a": 1.0, "b": -1.0}))
    assert sooner.low == -math.inf and sooner.high == bounded.high * 0 - bounded.low
    assert sooner.verdict == "contradicted"
    both = judge.interval(smallest([Linear({"b": 1.0, "a": -1.0}), Linear({"b": 1.0}, -2000.0)]))
    assert both.verdict == "inconclusive"  # it may have taken 2,000 steps and more
    found = summary(missed)
    assert found.mean == math.inf and found.n == 3 and math.isnan(found.low)
    assert summary(Sample({0: 5.0, 1: math.inf, 2: 7.0}, ends={1: 9.0})).mean == 7.0


@pytest.mark.parametrize(("hits", "n"), [(0, 3), (3, 3), (6, 6), (2, 5)])
def test_a_share_of_runs_has_clopper_and_pearsons_interval(hits, n):
    exact = stats.binomtest(hits, n).proportion_ci(0.95, "exact")
    assert share(hits, n).limits(0.025, 0.025) == pytest.approx((exact.low, exact.high))
    low, high = share(hits, n).scaled(-100).limits(0.025, 0.025)
    assert (low, high) == pytest.approx((-100 * exact.high, -100 * exact.low))


# ---- the whole way -----------------------------------------------------------------------------------------


def test_steps_to_the_target_of_the_same_seed(built):
    report = report_of(built[0] / "runs")
    # seed s: every accuracy + s / 2, so the plain network's 53 is first reached at the same steps
    expected = {"inception": 90, "bn_baseline": 40, "bn_x5": 10, "bn_x30": 20, "bn_with_dropout": 30}
    for row, steps in expected.items():
        found = cell(report, row, "steps_to_target")
        assert (found["mean"], found["n"], found["missed"]) == (steps, 3, 0), row
        assert cell(report, row, "speed_up")["mean"] == pytest.approx(90 / steps)
    for row in ("bn_x5_sigmoid", "inception_sigmoid", "bn_with_lrn", "inception_x5"):
        found = cell(report, row, "steps_to_target")
        assert (
            found["mean"] == math.inf and found["missed"] == 3 and cell(report, row, "speed_up")["mean"] == 0
        )
    assert cell(report, "inception_x5", "test_accuracy")["mean"] == 0  # diverged
    assert cell(report, "inception_x5", "diverged")["mean"] == 100
    assert cell(report, "bn_x30", "test_accuracy")["mean"] == pytest.approx(60.5)
    assert not ((report.cells["row"] == "inception") & (report.cells["column"] == "mnist")).any()


def test_verdicts_on_generated_runs(built):
    report = report_of(built[0] / "runs")
    found = {c.id: c for c in report.claims}
    # Steps agree in all seeds, and no spread is no certainty.
    assert found["T1.C1"].verdict == "inconclusive" and found["T1.C1"].margin == 45 - 40
    assert found["T1.C5"].verdict == "inconclusive" and found["T1.C5"].margin == 10
    assert found["T1.C6"].margin == pytest.approx(1.0) and found["T1.C6"].n == 3
    assert found["T1.C8"].verdict == "inconclusive" and found["T1.C8"].margin == 50  # 3 of 3 is too few
    assert found["T1.C12"].verdict == "supported"
    chance, above, below = found["T1.C9"].components
    assert [c.margin for c in (chance, above, below)] == pytest.approx([1.5, 25.5, 12.0])
    # chance is known: it adds nothing to the interval, and does not make it infinite either
    own = cell(report, "inception_sigmoid", "test_accuracy")
    assert (chance.low, chance.high) == pytest.approx((12 - own["high"], 12 - own["low"]))
    assert above.verdict == "supported"


def test_six_runs_that_diverge_are_enough(tmp_path):
    made = [make.record("inception_x5", seed, status="diverged") for seed in range(6)]
    made += [make.record("inception", seed) for seed in range(6)]
    make.write(tmp_path, made, seeds=6)
    (found,) = [c for c in report_of(tmp_path).claims if c.id == "T1.C8"]
    assert found.verdict == "supported" and found.n == 6
    assert found.low == pytest.approx(100 * 0.025 ** (1 / 6) - 50)


def test_target_of_no_plain_run_is_no_target(tmp_path):
    make.write(tmp_path, [make.record("bn_x5", seed) for seed in range(3)])
    report = report_of(tmp_path)
    assert cell(report, "bn_x5", "steps_to_target")["n"] == 0
    assert {c.verdict for c in report.claims if c.id in ("T1.C1", "T1.C2")} == {"not run"}


def test_the_ablation_shares_out_the_speed_up(built):
    report = report_of(built[0] / "runs")
    lines = {line["row"]: line for line in table_01.ablation(report, "imagenet")["lines"]}
    assert lines["BN-x5"]["faster"] == "9.00" and lines["BN-x5"]["share"] == "100 %"
    share_alone = 100 * math.log(90 / 40) / math.log(9)
    assert lines["BN-Inception"]["share"] == f"{share_alone:.0f} %"
    assert lines["BN, no LRN"]["faster"] == "never there" and lines["BN, no LRN"]["steps"] == "∞ (3 missed)"
    # rows trained for 30 to 100 steps are compared after 30: third evaluations, seeds 0.5 apart
    assert {row: line["trained"] for row, line in lines.items()} == {
        "Inception": "100", "BN-Inception": "100", "BN-x5": "30", "BN, no dropout": "40", "BN, no LRN": "40",
        "BN-x5, the same batches every epoch": "30",
    }  # fmt: skip
    assert table_01.ablation(report, "imagenet")["equal"] == "30"
    assert (
        lines["BN-Inception"]["accuracy"] == "52.50 ± 0.50" and lines["BN-x5"]["accuracy"] == "57.50 ± 0.50"
    )
    assert lines["BN, no dropout"]["accuracy"] == "54.50 ± 0.50"
    text = table_01.answer(report, "imagenet")
    assert "BN alone: 2.2 times" in text and "The source has 2.3 and 14.8 times, which is 31 %" in text


def test_shares_are_of_each_seed_and_diverged_runs_are_not_compared_at_a_step(tmp_path):
    made = [make.record(row, seed) for row in ("inception", "bn_baseline", "bn_x5") for seed in range(3)]
    made += [make.record("bn_with_lrn", 0, status="diverged"), make.record("bn_with_lrn", 1)]
    slow = make.CURVES["bn_x5"]
    make.CURVES["bn_x5"] = [20, 40, 57]  # of seed 2: third evaluation instead of the first
    try:
        made = [r for r in made if not (r["cell"]["row"] == "bn_x5" and r["config"]["seed"] == 2)]
        made.append(make.record("bn_x5", 2))
    finally:
        make.CURVES["bn_x5"] = slow
    make.write(tmp_path, made)
    found = table_01.ablation(report_of(tmp_path), "imagenet")
    lines = {line["row"]: line for line in found["lines"]}
    by_seed = [100 * math.log(90 / 40) / math.log(90 / whole) for whole in (10, 10, 30)]
    low, middle, high = (f"{x:.0f}" for x in sorted(by_seed))
    assert lines["BN-Inception"]["share"] == f"{middle} % ({low} to {high})"
    assert lines["BN, no LRN"]["accuracy"] == f"{51 / 2:.2f} ± {51 / math.sqrt(2):.2f}"


def test_the_page_says_what_was_missed(built):
    root, _ = built
    page = (root / "out" / "table_01.html").read_text(encoding="utf-8")
    assert "3 missed" in page and "Which part of the speed-up comes from BN?" in page
    assert page.count("<svg") >= 4 and "input of a last hidden sigmoid" in page
    assert "bn_with_dropout" not in page.split("<h2>Figures")[0].split("<h2>Comparison")[1]
    text = tables.terminal(report_of(root / "runs"))
    assert "∞" in text and "3 x 100 sigmoids, BN" in text


def test_snapshot_keeps_every_point_and_readme_shows_steps(tmp_path, built):
    measured = tmp_path / "measured"
    snapshot.snapshot(built[0] / "runs", measured, "T1")
    again, first = report_of(tmp_path / "nothing", measured), report_of(built[0] / "runs")
    for row in ("inception", "bn_baseline", "bn_x5_sigmoid"):
        for metric in ("steps_to_target", "test_accuracy"):
            assert cell(again, row, metric)["mean"] == cell(first, row, metric)["mean"]
    readme_file = tmp_path / "README.md"
    readme_file.write_text(
        "<!-- begin: python -m reports readme table=T1 -->\n<!-- end -->\n", encoding="utf-8"
    )
    readme.update(readme_file, measured, "T1")
    text = readme_file.read_text(encoding="utf-8")
    line = next(x for x in text.splitlines() if x.startswith("| BN-x5 |"))
    assert "2100000" in line and "| 10 |" in line
    assert "BN, no dropout" not in text and measured.joinpath("T1", "steps.svg").is_file()


@pytest.mark.parametrize(
    "sizes", [(1_153_050, 128_117, 50_000), (1_153_050, 128_117, 49_999), (90, 10, 50_000)]
)
def test_a_folder_is_imagenet_if_it_is_as_large(tmp_path, sizes):
    """The claim with an absolute threshold has a verdict on the paper's own data alone."""
    folder = {"name": "folder", "val_fraction": 0.1, "limit_train": None, "limit_eval": None, "options": {}}
    made = [make.record(row, seed, data=folder) for row in ("inception", "bn_x30") for seed in range(3)]
    for r in made:
        r["data"] |= dict(zip(("n_train", "n_val", "n_test"), sizes, strict=True))
        r |= {"paper": r["cell"]["row"], "wrong": None}
    make.write(tmp_path, made)
    path = tmp_path / "T1" / "grid.json"
    path.write_text(path.read_text().replace('"glyphs"', '"folder"'))
    (tmp_path / "T1" / "paper").mkdir()
    for r in made:
        told = json.dumps({"config": r["config"]})
        (tmp_path / "T1" / "paper" / f"{r['paper']}.json").write_text(told)
    (c7,) = [c for c in report_of(tmp_path).claims if c.id == "T1.C7"]
    assert c7.verdict == ("supported" if sizes == (1_153_050, 128_117, 50_000) else "not comparable"), c7
