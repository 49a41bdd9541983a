"""Table 7 in the reports: printed figures, claims, verdicts known by construction, misses, crossed cells."""

import math
from pathlib import Path

import pytest

from reports import claims, published, readme, site, snapshot, store, tables
from reports.analysis import analyse
from reports.claims import table_07
from reports.pages import table_07 as page
from tests.reports import synthetic_speech as make
from tests.reports import transcription
from tests.reports.html_checks import check_site

T7 = published.load("T7")
CLAIMS = claims.of("T7")
NOWHERE = Path("does-not-exist")


def report_of(root, measured=None):
    loaded = store.load(root, measured)
    return analyse(loaded.frame, loaded.grid.get("T7", {}), loaded.paper.get("T7", {}), T7, "quick", 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("t7")
    make.write(root / "runs", list(make.records()))
    site.build(root / "runs", root / "out", NOWHERE)
    return root, check_site(root / "out")


def cell(report, row, metric, column="wm50"):
    mine = report.cells
    (found,) = mine[(mine["row"] == row) & (mine["column"] == column) & (mine["metric"] == metric)].to_dict(
        "records"
    )
    return found


# ---- printed figures ---------------------------------------------------------------------------------------


def test_cells_rows_and_headings_are_the_surveys():
    """A printed row is a column, an activation and a model, with its learning rate in a column of its own:
    here the rate is a part of the row.
    """
    told = transcription.of("T7")
    cells = {(c["row"], c["column"]): c for c in told["cells"]}
    ours = {}
    for (row, column), figure in T7.figures.items():
        names = next(r for r in T7.rows if r.id == row)
        activation, model, rate = row.split("_")
        key = f"{column}_{activation}_{model}"
        ours[key] = (figure.survey, figure.printed, rate, f"{column} {names.zh}", f"{column} {names.en}")
    assert ours == {
        r["id"]: (
            cells[r["id"], "error_rate"]["value"],
            cells[r["id"], "error_rate"]["printed"],
            cells[r["id"], "learning_rate"]["printed"],
            f"{r['zh']} {cells[r['id'], 'learning_rate']['printed']}",
            "{dataset} {activation}, {model}, ".format(**r["keys"])
            + cells[r["id"], "learning_rate"]["printed"],
        )
        for r in told["rows"]
    }
    rate, error = told["columns"]
    for column in T7.columns:
        assert {k: getattr(column, k) for k in error if k != "id"} == {
            k: error[k] for k in error if k != "id"
        }
    assert set(T7.row_header["zh"].split()) < {*told["row_header"]["zh"].split(), rate["zh"]}
    assert [a.id for a in T7.audit] == told["audit"]
    assert (T7.caption_zh, T7.caption_en) == (told["caption_zh"], told["caption_en"])


def test_the_source_is_not_known_cell_by_cell_and_no_data_are_its_own():
    assert all(figure.source is None for figure in T7.figures.values())
    assert {kind for sets in T7.data.values() for kind in sets.values()} == {"stand-in"}
    assert not T7.metric("test_error").comparable
    assert "most probably" in T7.source and "not public" in page.NOTE


@pytest.mark.parametrize("claim", T7.claims, ids=lambda c: c.id)
@pytest.mark.parametrize("whose", ["survey", "source"])
def test_verdict_on_the_printed_numbers_is_the_fact_sheets(claim, whose):
    margin, verdict = claims.on_printed(CLAIMS[claim.id], T7, whose)
    assert verdict == getattr(claim, whose)
    assert (margin is None) == (verdict == "n/a")


@pytest.mark.parametrize(
    ("claim", "margins"),
    [
        ("T7.C1", [1.92, 7.28, 0.20, 4.73]),
        ("T7.C2", [7.28 - 1.92, 4.73 - 0.20]),
        ("T7.C3", [1.92 - 0.20, 7.28 - 4.73]),
        ("T7.C4", [0.3, 0.7]),
        ("T7.C5", [-0.17, 1.17]),
        # 5.4, 17.0, 0.6 and 12.3 % of what it was: the last alone within 8 to 13 %
        (
            "T7.C6",
            [1.92 - 0.08 * 35.32, 0.13 * 35.32 - 1.92, 7.28 - 0.08 * 42.8, 0.13 * 42.8 - 7.28,
             0.2 - 0.08 * 33.1, 0.13 * 33.1 - 0.2, 4.73 - 0.08 * 38.5, 0.13 * 38.5 - 4.73],
        ),
    ],
)  # fmt: skip
def test_margins_by_hand_on_the_surveys_figures(claim, margins):
    parts = CLAIMS[claim](claims.Printed(T7, "survey"))
    assert [part.margin for part in parts] == pytest.approx(margins)
    absolute = claim in ("T7.C4", "T7.C5")
    assert {part.absolute for part in parts} == {absolute}


def test_an_equal_error_is_no_gain_and_a_gap_of_half_a_point_is_level():
    flat = {(row.id, s, "error"): 30.0 for row in T7.rows for s in table_07.SETS}
    assert claims_met(flat, "T7.C1") == claims_met(flat, "T7.C7") == [False] * 4
    moved = {**flat, ("sigmoid_bn_0.08", "wm50", "error"): 30.5}
    assert claims_met(moved, "T7.C4") == [True, True] == claims_met(flat, "T7.C5")


def claims_met(cells, name):
    return [p.margin > 0 or (not p.strict and p.margin == 0) for p in CLAIMS[name](cells)]


def test_steps_that_are_just_short_enough():
    steps = {(row.id, s, "steps"): 100.0 for row in T7.rows for s in table_07.SETS}
    steps |= {(f"{a}_bn_0.08", s, "steps"): 60.0 for a in table_07.ACTIVATIONS for s in table_07.SETS}
    assert claims_met(steps, "T7.C8") == [True] * 4
    assert claims_met({**steps, ("relu_bn_0.08", "wm100", "steps"): 60.1}, "T7.C8").count(False) == 1


# ---- the whole way -----------------------------------------------------------------------------------------


def test_verdicts_on_generated_runs(built):
    report = report_of(built[0] / "runs")
    found = {c.id: c for c in report.claims}
    verdicts = {name: claim.verdict for name, claim in found.items()}
    assert verdicts == {
        **dict.fromkeys(("T7.C1", "T7.C2", "T7.C3", "T7.C7", "T7.C8"), "supported"),
        **dict.fromkeys(("T7.C4", "T7.C5"), "not comparable"),  # half a point means nothing on other data
        "T7.C6": "contradicted",  # the gains are a sixth of the error and more
    }
    assert [c.margin for c in found["T7.C1"].components] == pytest.approx([10, 28, 4, 18], abs=0.3)
    assert [c.margin for c in found["T7.C2"].components] == pytest.approx([18, 14], abs=0.3)
    assert [c.margin for c in found["T7.C3"].components] == pytest.approx([6, 10], abs=0.3)
    assert [c.margin for c in found["T7.C7"].components] == pytest.approx([59.5, 19, 8, 39], abs=0.3)
    steps = (0.6 * (80 + 90 + 100) - (30 + 40 + 40)) / 3
    assert [c.margin for c in found["T7.C8"].components] == pytest.approx([steps] * 4)
    assert all(c.label.startswith("on fsdd (stand-in)") for c in report.claims if c.margin is not None)
    assert all(c.n == 3 for c in report.claims if c.margin is not None)


def test_a_plain_network_at_ten_times_the_rate_diverges_or_sits_at_chance(built):
    report = report_of(built[0] / "runs")
    assert cell(report, "relu_plain_0.08", "test_error")["mean"] == 100
    assert cell(report, "relu_plain_0.08", "diverged")["mean"] == 100
    assert page.outcome(report, "relu_plain_0.08", "wm50").endswith("n = 3, 3 diverged")
    assert page.outcome(report, "sigmoid_plain_0.08", "wm50").endswith("n = 3, 3 of them at chance")
    (c7,) = [c for c in report.claims if c.id == "T7.C7"]
    assert "at chance: 3 of 3 of sigmoid_plain_0.08 (wm50)" in c7.label


def test_the_target_is_the_plain_networks_of_the_same_activation_column_and_seed(built):
    report = report_of(built[0] / "runs")
    for row, steps in (("relu_bn_0.08", 40), ("sigmoid_bn_0.08", 40), ("sigmoid_plain_0.008", 90)):
        for column in table_07.SETS:
            found = cell(report, row, "steps_to_target", column)
            assert (found["mean"], found["n"], found["missed"]) == (steps, 3, 0), (row, column)
    assert cell(report, "relu_bn_0.08", "speed_up")["mean"] == pytest.approx(100 / 40)  # of 80/30, 9/4, 10/4
    for row in ("relu_plain_0.08", "sigmoid_plain_0.08"):
        found = cell(report, row, "steps_to_target")
        assert found["mean"] == math.inf and found["missed"] == 3
    targets = report.runs.set_index(["row", "column", "seed"])["metrics.target"]
    assert targets["relu_bn_0.08", "wm100", 1] == targets["relu_plain_0.008", "wm100", 1]
    assert targets["sigmoid_bn_0.08", "wm100", 1] == pytest.approx(50.5)


def test_a_target_that_is_missed_is_contradicted_or_open(tmp_path):
    """BN never comes to the plain network's best: more than 0.6 of the steps, since it had all of them."""
    made = [make.record(row, "wm50", seed) for row in ("relu_plain_0.008",) for seed in range(3)]
    made += [make.record("relu_bn_0.08", "wm50", seed, floor=20) for seed in range(3)]
    make.write(tmp_path, made)
    report = report_of(tmp_path)
    found = cell(report, "relu_bn_0.08", "steps_to_target")
    assert found["mean"] == math.inf and found["missed"] == 3
    assert cell(report, "relu_bn_0.08", "speed_up")["mean"] == 0
    assert page.share(report, "relu_bn_0.08", "wm50") == "never (3 of 3 never)"
    (c8,) = [c for c in report.claims if c.id == "T7.C8"]
    assert c8.verdict == "contradicted" and c8.low is None and c8.n == 3
    assert c8.components[0].margin == pytest.approx((0.6 * 270 - 300) / 3)  # at most
    assert [c.verdict for c in c8.components[1:]] == ["not run"] * 3


def test_one_miss_leaves_the_median_and_opens_the_interval(tmp_path):
    made = [make.record("relu_plain_0.008", "wm50", seed) for seed in range(3)]
    made += [make.record("relu_bn_0.08", "wm50", seed, floor=20 * (seed == 1)) for seed in range(3)]
    make.write(tmp_path, made)
    report = report_of(tmp_path)
    assert cell(report, "relu_bn_0.08", "steps_to_target")["mean"] == 40  # of 30, never and 40
    assert page.share(report, "relu_bn_0.08", "wm50") == "40 % (1 of 3 never)"
    (c8,) = [c for c in report.claims if c.id == "T7.C8"]
    assert c8.verdict == "inconclusive" and c8.components[0].low is None
    assert c8.components[0].high is not None


def test_a_plain_network_that_diverged_sets_no_target(tmp_path):
    """It has 100 % at its first evaluation, which BN reaches at once: no evidence against BN."""
    made = [make.record("relu_plain_0.008", "wm50", seed, lost=seed == 1) for seed in range(4)]
    made += [make.record(row, "wm50", s) for row in ("relu_bn_0.08", "relu_plain_0.08") for s in range(4)]
    make.write(tmp_path, made, seeds=4)
    report = report_of(tmp_path)
    runs = report.runs.set_index(["row", "seed"]).sort_index()
    for name in ("steps_to_target", "speed_up", "target"):
        assert runs[f"metrics.{name}"].isna().groupby("seed").agg(list).to_dict() == {
            seed: [seed == 1] * 3 for seed in range(4)
        }
    assert runs.loc["relu_bn_0.08", "metrics.steps_to_target"].dropna().tolist() == [30, 40, 30]
    lost = cell(report, "relu_plain_0.08", "steps_to_target")  # a miss, where there is a target
    assert (lost["mean"], lost["n"], lost["missed"]) == (math.inf, 3, 3)
    assert page.share(report, "relu_bn_0.08", "wm50") == "38 % (n = 3)"  # of 30/80, 40/100, 30/90
    (c8,) = [c for c in report.claims if c.id == "T7.C8"]
    first = c8.components[0]
    assert (first.verdict, first.n) == ("supported", 3)
    assert first.margin == pytest.approx((0.6 * (80 + 100 + 90) - (30 + 40 + 30)) / 3)


def test_without_a_target_there_are_no_steps(tmp_path):
    """Every plain network diverged."""
    made = [make.record("relu_plain_0.008", "wm50", seed, lost=True) for seed in range(3)]
    make.write(tmp_path / "runs", made + [make.record("relu_bn_0.08", "wm50", seed) for seed in range(3)])
    report = report_of(tmp_path / "runs")
    assert cell(report, "relu_bn_0.08", "steps_to_target")["n"] == 0
    assert [c.verdict for c in report.claims if c.id == "T7.C8"] == ["not run"]
    assert page.share(report, "relu_bn_0.08", "wm50") == ""
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    check_site(tmp_path / "out")


def test_part_of_the_cells(tmp_path):
    """A column of two rows: what did not run is said to be, the page stands."""
    rows = ("relu_plain_0.008", "relu_bn_0.08")
    make.write(tmp_path / "runs", [make.record(row, "wm50", seed) for row in rows for seed in range(3)])
    report = report_of(tmp_path / "runs")
    found = {c.id: c for c in report.claims}
    assert found["T7.C1"].verdict == "inconclusive"
    assert found["T7.C1"].components[0].verdict == "supported"
    assert {found[c].verdict for c in ("T7.C2", "T7.C3", "T7.C7")} == {"not run"}
    assert found["T7.C6"].verdict == "contradicted"  # one part is enough
    own = page.section(report, {})
    assert [line["row"] for line in own["crossed"][0]["lines"]] == ["ReLU, CNN", "ReLU, CNN + BN"]
    assert [bool(line["ours"]) for line in own["pairs"]] == [True, False, False, False]
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    check_site(tmp_path / "out")


def test_a_page_without_records(tmp_path):
    (tmp_path / "runs").mkdir()
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    text = check_site(tmp_path / "out")["table_07.html"].text
    assert "No cell has run under this profile." in text and "+7.28 points" in text and "17.0 %" in text
    assert "not public" in text and "in-house" in text


def test_other_normalisers_keep_activation_and_rate_apart(tmp_path):
    made = list(make.records())
    for row, error in (("relu_group_0.08", 36), ("sigmoid_group_0.08", 48), ("relu_group_0.008", 38)):
        made += [make.record(row, "wm50", seed, error=error) for seed in range(3)]
    make.write(tmp_path, made)
    report = report_of(tmp_path)
    extra = report.extra[report.extra["metric"] == "test_error"]
    found = {(e["label"], e["row"]): (e["mean"], e["n"]) for e in extra.to_dict("records")}
    assert found == {
        ("group", "relu_bn_0.08"): (pytest.approx(36.5), 3),
        ("group", "sigmoid_bn_0.08"): (pytest.approx(48.5), 3),
        ("group", "relu_bn_0.008"): (pytest.approx(38.5), 3),
    }
    steps = report.extra[report.extra["metric"] == "steps_to_target"]["mean"]
    assert list(steps) == [40, 40, 40]  # to the plain networks' targets, too


def test_the_page_tells_bn_and_the_rate_apart(built):
    root, pages = built
    own = page.section(report_of(root / "runs"), {})
    line = own["pairs"][0]
    assert line["row"] == "wm50 (ours: fsdd), ReLU" and line["survey"] == "+1.92 points"
    assert (line["survey_relative"], line["relative"]) == ("5.4 %", "24.7 %")
    assert line["ours"].startswith("+10.00 points") and line["by_bn"].startswith("+7.00 points")
    assert line["by_rate"].startswith("+3.00 points") and line["share"] == "40 % (n = 3)"
    crossed = {line["row"]: line for line in own["crossed"][0]["lines"]}
    assert crossed["ReLU, gain of BN"]["high"].startswith("+69.50 points")  # of a network that diverges
    assert crossed["sigmoid, CNN"]["change"].startswith("-19.00 points")
    assert len(own["crossed"]) == 2 and len(crossed) == 6
    assert [len(group["svgs"]) for group in page.draw(report_of(root / "runs"))] == [2, 4, 2]
    text = pages["table_07.html"].text
    assert "most probably they are 50 and 100 hours" in text and "source" in text
    assert "wm100 (ours: fsdd), sigmoid" in text and "not further speakers" in text
    assert "ours - survey" not in pages["table_07.html"].raw.split("<h2>Figures")[0]  # scales differ
    terminal = tables.terminal(report_of(root / "runs"))
    assert "ReLU, CNN + BN, 0.08" in terminal and "diff." not in terminal


def test_the_figure_of_errors_has_all_cells_and_the_surveys_points(built):
    picture = page.errors(report_of(built[0] / "runs"), "wm50")
    told = picture.split("<desc")[1].split("</desc>")[0]
    assert "survey: " in told and "source" not in told
    ours = told.split("ours, 95 % interval: ")[1]
    names = [part.rsplit(": ", 1)[0] for part in ours.rstrip(".").split("; ")]
    assert names == [f"{a}, {n}, {r}" for a in ("ReLU", "sigmoid") for n in ("none", "BN")
                     for r in ("0.008", "0.08")]  # fmt: skip
    for printed in ("33.4", "35.3", "35.5", "42.8"):
        assert printed in told.split("ours, ")[0]


def test_curves_end_at_their_target(built):
    report = report_of(built[0] / "runs")
    for activation, target in (("relu", "40.5"), ("sigmoid", "70.5")):
        told = page.approach(report, "wm50", activation)
        told = told.split("<desc")[1].split("</desc>")[0]
        assert f"target: {target}" in told and "BN, 0.08: " in told


def test_snapshot_and_readme(tmp_path, built):
    measured = tmp_path / "measured"
    snapshot.snapshot(built[0] / "runs", measured, "T7")
    again, first = report_of(tmp_path / "nothing", measured), report_of(built[0] / "runs")
    for row, metric in (("relu_bn_0.08", "test_error"), ("sigmoid_bn_0.08", "steps_to_target")):
        assert cell(again, row, metric, "wm100")["mean"] == cell(first, row, metric, "wm100")["mean"]
    file = tmp_path / "README.md"
    file.write_text("<!-- begin: python -m reports readme table=T7 -->\n<!-- end -->\n", encoding="utf-8")
    readme.update(file, measured, "T7")
    text = file.read_text(encoding="utf-8")
    line = next(x for x in text.splitlines() if x.startswith("| ReLU, CNN + BN, 0.08 |"))
    assert "33.40" in line and "30.50 ± 0.50" in line and "no word error rate" in text


def test_commands_are_those_of_the_grid(built):
    plan = {"points": [{"row": "relu_plain_0.08", "column": "wm50"}]}
    ((name, command),) = page.commands(report_of(built[0] / "runs"), plan)
    assert name == "wm50, ReLU, CNN, 0.08" and command.endswith("column=wm50 row=relu_plain_0.08")
