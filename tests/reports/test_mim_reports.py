"""Table 9 in the reports: printed figures, the corrected column, claims, verdicts known by construction."""

import math
from pathlib import Path

import numpy as np
import pytest

from reports import claims, published, readme, site, snapshot, store, tables
from reports.analysis import analyse
from reports.claims import table_09
from reports.pages import table_09 as page
from reports.statistics import Judge, Sample, smallest
from tests.reports import synthetic_mim as make
from tests.reports import transcription
from tests.reports.html_checks import check_site

T9 = published.load("T9")
CLAIMS = claims.of("T9")
NOWHERE = Path("does-not-exist")
THEIRS = {"rcnn": "rcnn160"}  # the transcription's row ids


def report_of(root, measured=None):
    loaded = store.load(root, measured)
    return analyse(loaded.frame, loaded.grid.get("T9", {}), loaded.paper.get("T9", {}), T9, "quick", 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("t9")
    make.write(root / "runs", list(make.records()))
    site.build(root / "runs", root / "out", NOWHERE)
    return root, check_site(root / "out")


def cell(report, row, metric, column="cifar10"):
    mine = report.cells
    (found,) = mine[(mine["row"] == row) & (mine["column"] == column) & (mine["metric"] == metric)].to_dict(
        "records"
    )
    return found


# ---- printed figures ---------------------------------------------------------------------------------------


def test_cells_rows_and_headings_are_the_surveys():
    told = transcription.of("T9")
    rows = {THEIRS.get(r, r): r for r in T9.survey_rows}
    assert list(rows) == [r["id"] for r in told["rows"]]
    assert len(T9.figures) == len(told["cells"])
    for c in told["cells"]:
        figure = T9.figures[rows[c["row"]], c["column"]]
        assert (figure.survey, figure.printed) == (c["value"], c["printed"])
        assert list(figure.audit) == c.get("audit", [])
    for theirs in told["columns"]:
        mine = next(c for c in T9.columns if c.id == theirs["id"])
        assert {k: getattr(mine, k) for k in theirs} == theirs
    for theirs in told["rows"]:
        row = next(r for r in T9.rows if r.id == rows[theirs["id"]])
        assert (row.zh, row.en) == (theirs["zh"], theirs["en"])
    assert T9.row_header == told["row_header"] and [a.id for a in T9.audit] == told["audit"]
    assert (T9.caption_zh, T9.caption_en) == (told["caption_zh"], told["caption_en"])


def test_the_source_column_is_the_corrected_one_and_says_what_is_recalled():
    corrected = {row: T9.figures[row, "mnist"].source for row in table_09.ROWS}
    assert corrected == {"maxout": 0.45, "nin": 0.47, "rcnn": 0.31, "mim": 0.35}
    # the same four figures, each in another row
    assert sorted(corrected.values()) == sorted(T9.figures[row, "mnist"].survey for row in table_09.ROWS)
    assert all(T9.figures[row, "mnist"].survey != value for row, value in corrected.items())
    assert all(
        T9.figures[row, "cifar10"].survey == T9.figures[row, "cifar10"].source for row in table_09.ROWS
    )
    recalled = {key for key, figure in T9.figures.items() if figure.mark == "[memory]"}
    assert recalled == {("rcnn", "cifar10"), ("mim", "cifar10"), ("mim", "mnist")}


@pytest.mark.parametrize("claim", T9.claims, ids=lambda c: c.id)
@pytest.mark.parametrize("whose", ["survey", "source"])
def test_verdict_on_the_printed_numbers_is_the_fact_sheets(claim, whose):
    margin, verdict = claims.on_printed(CLAIMS[claim.id], T9, whose)
    assert verdict == getattr(claim, whose)
    assert (margin is None) == (verdict == "n/a")


@pytest.mark.parametrize(
    ("claim", "whose", "margins"),
    [
        ("T9.C1", "survey", [10.41 - 8.52, 11.68 - 8.52]),
        ("T9.C2", "source", [8.69 - 8.52]),
        ("T9.C3", "source", [8.69 - 8.52 - 0.20]),
        ("T9.C4", "survey", [0.45 - 0.31, 0.47 - 0.31]),
        ("T9.C4", "source", [0.47 - 0.35, 0.45 - 0.35]),
        ("T9.C5", "source", [0.31 - 0.35]),
        ("T9.C6", "survey", [0.47 - 0.45]),
        # maxout and NIN, maxout and RCNN, maxout and MIM, NIN and RCNN, NIN and MIM, RCNN and MIM
        ("T9.C7", "survey", [0.02, 0.12, 0.16, 0.10, 0.14, 0.04]),
        ("T9.C7", "source", [-0.02, 0.14, 0.10, 0.16, 0.12, -0.04]),
    ],
)
def test_margins_by_hand(claim, whose, margins):
    parts = CLAIMS[claim](claims.Printed(T9, whose))
    assert [part.margin for part in parts] == pytest.approx(margins)


def test_the_printed_spread_is_a_threshold_for_ours_and_the_survey_has_none():
    cell_of_spread = ("mim", "cifar10", "error_sd")
    assert math.isnan(claims.Printed(T9, "survey")[cell_of_spread])
    assert claims.Printed(T9, "source")[cell_of_spread] == claims.Measured(T9)[cell_of_spread] == 0.20
    (part,) = CLAIMS["T9.C3"](claims.Measured(T9))
    assert part.margin.constant == -0.20 and part.absolute


def test_an_order_is_the_same_where_each_pair_of_rows_agrees():
    """T9.C7 on random columns, against the ranks; ties are no order."""
    rng = np.random.default_rng(9)
    answers = []
    for i in range(300):
        first, second = (rng.integers(0, [9, 4][i % 2], 4) for _ in range(2))
        if i % 3 == 0:
            second = np.argsort(np.argsort(first)) * 2
        cells = {(row, s, "error"): float(v) for s, values in (("cifar10", first), ("mnist", second))
                 for row, v in zip(table_09.ROWS, values, strict=True)}  # fmt: skip
        met = all(part.margin > 0 for part in CLAIMS["T9.C7"](cells))
        strict = len(set(first)) == len(set(second)) == 4
        assert met == (strict and list(np.argsort(first)) == list(np.argsort(second)))
        answers.append(met)
    assert 20 < sum(answers) < 280


@pytest.mark.parametrize(("gap", "n"), [(0.0, 3), (0.0, 5), (8.0, 3), (8.0, 5)])
def test_an_order_in_doubt_seldom_gets_a_verdict(gap, n):
    """T9.C7 by simulation where its margin is 0: two rows level on MNIST, on CIFAR-10 too or far apart."""
    rng = np.random.default_rng(int(10 * gap) + n)
    truth = {("cifar10", row): 30.0 * i for i, row in enumerate(("mim", "rcnn", "nin"))}
    truth |= {("mnist", row): value for (_, row), value in truth.items()}
    truth |= {(s, "maxout"): truth[s, "nin"] + gap * (s == "cifar10") for s in ("cifar10", "mnist")}
    margin = smallest([part.margin for part in CLAIMS["T9.C7"](claims.Measured(T9))])
    draws, wrong = 1000, 0
    for _ in range(draws):
        judge = Judge({
            (row, s, "error"): Sample(dict(enumerate(value + rng.normal(size=n))), None, s)
            for (s, row), value in truth.items()
        })  # fmt: skip
        wrong += judge.interval(margin).verdict != "inconclusive"
    assert wrong <= 0.06 * draws, wrong


# ---- the whole way -----------------------------------------------------------------------------------------


def test_verdicts_on_generated_runs(built):
    found = {c.id: c for c in report_of(built[0] / "runs").claims}
    assert {name: claim.verdict for name, claim in found.items()} == {
        **dict.fromkeys(("T9.C1", "T9.C2", "T9.C4", "T9.C8", "T9.C9"), "supported"),
        **dict.fromkeys(("T9.C5", "T9.C6", "T9.C7"), "contradicted"),  # as in the corrected column
        **dict.fromkeys(("T9.C3", "T9.C10"), "not comparable"),  # points mean nothing on other data
    }
    assert [c.margin for c in found["T9.C1"].components] == pytest.approx([10, 20], abs=0.3)
    assert [c.margin for c in found["T9.C8"].components] == pytest.approx([25, 14, 4, 9], abs=0.3)
    assert found["T9.C5"].margin == pytest.approx(-3, abs=0.3)
    worst = {c.name: c.verdict for c in found["T9.C7"].components if c.verdict == "contradicted"}
    assert set(worst) == {"maxout and nin in one order", "rcnn and mim in one order"}
    assert {c.n for c in found.values() if c.margin is not None} == {3}
    entropy, degenerate = 0.95 - (0.9 - 0.05 * 5), 0.05 * 5 - 0.01  # of the middle one of nine layers
    margins = [c.margin for c in found["T9.C9"].components]
    assert margins == pytest.approx([entropy, degenerate] * 2, abs=0.02)
    assert found["T9.C1"].label == "on glyphs (stand-in)"


def on_cifar10(tmp_path, rows, **changes):
    made = [make.record(row, "cifar10", seed, data="cifar10", **changes.get(row, {}))
            for row in rows for seed in range(3)]  # fmt: skip
    make.write(tmp_path, made, data="cifar10", as_paper=True)
    return {c.id: c for c in report_of(tmp_path).claims}


def test_thresholds_in_points_on_the_papers_data_and_epochs(tmp_path):
    found = on_cifar10(tmp_path, ("mim", "mim_plain", "rcnn"))
    assert found["T9.C3"].verdict == found["T9.C10"].verdict == "supported"
    assert found["T9.C3"].margin == pytest.approx(24 - 20 - 0.2, abs=0.3)
    assert found["T9.C10"].margin == pytest.approx(45 - 20 - 1, abs=0.3)
    assert found["T9.C10"].label == ""


def test_a_lead_within_the_printed_spread_is_no_lead(tmp_path):
    found = on_cifar10(tmp_path, ("mim", "rcnn"), rcnn={"error": 20.1})
    assert found["T9.C3"].margin < 0 and found["T9.C2"].margin >= 0


@pytest.mark.parametrize("fate", ["diverged", "at chance"])
def test_a_deep_network_without_bn_that_is_lost(tmp_path, fate):
    """Not finite counts as all wrong; at chance is said, and is far enough behind."""
    lost = {"status": "diverged"} if fate == "diverged" else {"error": 89.0}
    found = on_cifar10(tmp_path, ("mim", "mim_plain"), mim_plain=lost)
    c10 = found["T9.C10"]
    assert c10.verdict == "supported"
    assert c10.margin == pytest.approx((100 if fate == "diverged" else 89.5) - 20.5 - 1, abs=0.3)
    report = report_of(tmp_path)
    if fate == "diverged":
        assert cell(report, "mim_plain", "stable")["mean"] == 0
        assert page.outcome(report, "mim_plain", "cifar10").endswith("n = 3, 3 diverged")
        assert found["T9.C9"].verdict == "not run"  # no balance of a network that is not finite
    else:
        assert c10.label == "at chance: 3 of 3 of mim_plain (cifar10)"


def test_a_diverged_run_counts_as_all_wrong(built):
    report = report_of(built[0] / "runs")
    found = cell(report, "nin_plain", "test_error")
    assert found["mean"] == pytest.approx((34 + 34.5 + 100) / 3) and found["diverged"] == 1
    assert cell(report, "nin_plain", "stable")["mean"] == pytest.approx(2 / 3)
    assert cell(report, "nin_plain", "entropy")["n"] == 2


def test_no_balance_of_networks_that_all_diverged(tmp_path):
    made = [make.record("mim", column, seed) for column in make.DATA for seed in range(3)]
    made += [make.record("mim_plain", column, seed, "diverged") for column in make.DATA for seed in range(3)]
    make.write(tmp_path, made)
    (c9,) = [c for c in report_of(tmp_path).claims if c.id == "T9.C9"]
    assert c9.verdict == "not run" and {c.verdict for c in c9.components} == {"not run"}


def test_our_order_says_how_many_seeds_each_row_has(tmp_path):
    made = [make.record(row, "mnist", s) for row in table_09.ROWS for s in range(2 + (row == "mim"))]
    make.write(tmp_path, made)
    orders = page.orders(report_of(tmp_path))
    assert (orders["data"], orders["n"]) == ("mnist5k", "2 to 3") and orders["ours"]


def test_part_of_the_rows(tmp_path):
    made = [make.record(row, "cifar10", seed) for row in ("mim", "nin") for seed in range(3)]
    make.write(tmp_path / "runs", made)
    report = report_of(tmp_path / "runs")
    found = {c.id: c for c in report.claims}
    assert found["T9.C1"].verdict == "inconclusive" and found["T9.C1"].components[0].verdict == "supported"
    assert {found[c].verdict for c in ("T9.C2", "T9.C4", "T9.C5", "T9.C6")} == {"not run"}
    own = page.section(report, {})
    assert own["orders"]["ours"] == "" and [line["blocks"] for line in own["depths"][0]["lines"]] == [3]
    titles = [group["title"] for group in page.draw(report)]
    assert "Error by depth" not in titles and "Errors" in titles
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    check_site(tmp_path / "out")


def test_a_page_without_records(tmp_path):
    (tmp_path / "runs").mkdir()
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    text = check_site(tmp_path / "out")["table_09.html"].text
    assert "as printed: MIM < RCNN < NIN < maxout; corrected: RCNN < MIM < maxout < NIN." in text
    assert "0.35 ± 0.03" in text and "[memory]" in text and "RCNN-96, printed as RCNN-160" in text
    assert "MNIST: error (%)" in text and "ours, on" not in text


def test_other_normalisers_stand_beside_their_own_network(tmp_path):
    made = [make.record("mim", "cifar10", seed, norm="group", error=22) for seed in range(3)]
    made += [make.record("nin_bn", "cifar10", seed, norm="group", error=28) for seed in range(3)]
    made += [make.record("mim_b1", "cifar10", seed, norm="group", error=37) for seed in range(3)]
    make.write(tmp_path, made)
    extra = report_of(tmp_path).extra
    found = {
        (e["label"], e["row"]): e["mean"] for e in extra[extra["metric"] == "test_error"].to_dict("records")
    }
    assert found == {("group", "mim"): 22.5, ("group", "nin_bn"): 28.5, ("group", "mim_b1"): 37.5}


def test_the_page_has_the_columns_beside_each_other_and_the_ablations_apart(built):
    root, pages = built
    report = report_of(root / "runs")
    own = page.section(report, {})
    lines = {line["row"]: line for line in own["mnist"]}
    assert list(lines)[2] == "RCNN-96, printed as RCNN-160"
    assert (lines["MIM"]["printed"], lines["MIM"]["corrected"], lines["MIM"]["mark"]) == (
        "0.31", "0.35 ± 0.03", "[memory]",
    )  # fmt: skip
    assert own["orders"]["ours"] == own["orders"]["corrected"] == "RCNN < MIM < maxout < NIN"
    text = pages["table_09.html"].text
    assert "MNIST (ours: mnist5k): error (%)" in text  # beside the survey's 0.31 %
    assert "ours, on mnist5k, n = 3 seeds, in the order of the means whatever their intervals: RCNN <" in text
    deep = own["depths"][0]["lines"]
    assert [(line["blocks"], line["layers"]) for line in deep] == [(1, 3), (2, 6), (3, 9)]
    assert [line["gain"].split(" points")[0] for line in deep] == ["+2.00", "+10.00", "+25.00"]
    assert own["depths"][1]["lines"][2]["gain"].startswith("+14.00 points")
    assert deep[2]["balance"][0].startswith("0.95") and " against 0.65" in deep[2]["balance"][0]
    sizes = {line["row"]: line["parameters"] for line in own["sizes"][0]["lines"]}
    assert sizes["MIM"] == "4,000,000" and sizes["NIN"] == "1,000,000"
    raw = pages["table_09.html"].raw
    comparison = raw.split("<h2>Figures")[0].split("<h2>Comparison")[1]
    assert "MIM, 1 block" not in comparison and "MIM without BN" in comparison
    assert comparison.count("[memory]") == 4  # three figures and the note
    assert "MIM, 1 block" not in tables.terminal(report)


def test_figures(built):
    report = report_of(built[0] / "runs")
    groups = {group["title"]: group["svgs"] for group in page.draw(report)}
    assert list(groups) == list(page.NOTES)
    assert [len(svgs) for svgs in groups.values()] == [2, 2, 4, 2, 4]
    told = page.by_depth(report, "cifar10").split("<desc")[1].split("</desc>")[0]
    assert "with BN: 1: 36.5" in told and "3: 20.5" in told and "without BN: 1: 38.5" in told
    told = page.by_layer(report, "cifar10", "degenerate").split("<desc")[1].split("</desc>")[0]
    assert "[maxout] with BN: 1.00: 0.01" in told and "[ReLU]" in told
    last = told.split("[maxout] without BN: ")[1].split("9.00: ")[1]
    assert last.startswith("0.45")


def test_layers_are_means_over_the_seeds_that_have_them(built):
    runs = page.of_cells(report_of(built[0] / "runs"), "cifar10")
    line = page.layers(runs[runs["row"] == "nin_plain"], "entropy", "x")
    mine = runs[(runs["row"] == "nin_plain") & (runs["status"] == "finished")]
    assert list(line.x) == list(range(1, 10)) and len(mine) == 2
    assert line.y == pytest.approx([mine[f"metrics.entropy_{i}"].mean() for i in line.x])
    assert all(low < y < high for low, y, high in zip(line.low, line.y, line.high, strict=True))
    assert not page.layers(runs[runs["row"] == "nobody"], "entropy", "x").x


def test_snapshot_and_readme(tmp_path, built):
    measured = tmp_path / "measured"
    snapshot.snapshot(built[0] / "runs", measured, "T9")
    again, first = report_of(tmp_path / "nothing", measured), report_of(built[0] / "runs")
    for row, metric in (("mim", "test_error"), ("mim_plain", "entropy"), ("mim_b2", "test_error")):
        assert cell(again, row, metric)["mean"] == cell(first, row, metric)["mean"]
    file = tmp_path / "README.md"
    file.write_text("<!-- begin: python -m reports readme table=T9 -->\n<!-- end -->\n", encoding="utf-8")
    readme.update(file, measured, "T9")
    text = file.read_text(encoding="utf-8")
    line = next(x for x in text.splitlines() if x.startswith("| MIM |"))
    assert "8.52" in line and "20.50 ± 0.50" in line and "0.31" in line and "misaligned" in text


def test_commands_are_those_of_the_grid(built):
    plan = {"points": [{"row": "mim_plain_b1", "column": "cifar10"}]}
    ((name, command),) = page.commands(report_of(built[0] / "runs"), plan)
    assert name == "CIFAR-10, MIM without BN, 1 block" and command.endswith("column=cifar10 row=mim_plain_b1")


def test_intervals_of_shares_stay_between_0_and_1(tmp_path):
    made = [make.record("mim", "cifar10", seed) for seed in range(3)]
    for one, low, high in zip(made, (0.0, 0.0, 0.2), (1.0, 1.0, 0.8), strict=True):
        one["metrics"] |= {"degenerate": low, "entropy": high}
        one["metrics"] |= {"degenerate_2": low, "entropy_2": high}
    make.write(tmp_path / "runs", made)
    report = report_of(tmp_path / "runs")
    few, most = cell(report, "mim", "degenerate"), cell(report, "mim", "entropy")
    assert few["low"] == 0 and 0.3 < few["high"] < 1
    assert most["high"] == 1 and 0 < most["low"] < 0.7
    series = page.layers(report.runs[report.runs["row"] == "mim"], "degenerate", "")
    assert series.low[1] == 0 and series.high[1] == pytest.approx(few["high"])
