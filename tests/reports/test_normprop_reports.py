"""Table 2 in the reports: printed figures, claims, the page with both ways to compare, snapshot."""

import json
import math
from pathlib import Path

import pytest
from scipy import stats

from reports import claims, published, readme, site, snapshot, store, tables, view
from reports.analysis import analyse
from reports.claims import table_02
from reports.pages import table_02 as page
from reports.statistics import Sample, summary
from tests.reports import synthetic_normprop as make
from tests.reports import transcription
from tests.reports.html_checks import check_site

T2 = published.load("T2")
CLAIMS = claims.of("T2")
NOWHERE = Path("does-not-exist")


def report_of(root, measured=None):
    loaded = store.load(root, measured)
    return analyse(loaded.frame, loaded.grid["T2"], loaded.paper.get("T2", {}), T2, "quick", 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("t2")
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
    told = transcription.of("T2")
    assert list(T2.survey_rows) == [r["id"] for r in told["rows"]]
    for c in told["cells"]:
        figure = T2.figures[c["row"], c["column"]]
        assert (figure.survey, figure.printed) == (c["value"], c["printed"])
        assert list(figure.audit) == c.get("audit", [])
    ours = {(r, c) for (r, c), f in T2.figures.items() if f.survey is not None}
    assert ours == {(c["row"], c["column"]) for c in told["cells"]}
    for theirs in told["columns"]:
        mine = next(c for c in T2.columns if c.id == theirs["id"])
        assert {k: getattr(mine, k) for k in theirs} == theirs
    for theirs in told["rows"]:
        row = next(r for r in T2.rows if r.id == theirs["id"])
        assert (row.zh, row.en) == (theirs["zh"], theirs["en"])
    assert [a.id for a in T2.audit] == told["audit"]
    assert (T2.caption_zh, T2.caption_en) == (told["caption_zh"], told["caption_en"])


@pytest.mark.parametrize("claim", T2.claims, ids=lambda c: c.id)
@pytest.mark.parametrize("whose", ["survey", "source"])
def test_verdict_on_the_printed_numbers_is_the_fact_sheets(claim, whose):
    margin, verdict = claims.on_printed(CLAIMS[claim.id], T2, whose)
    assert verdict == getattr(claim, whose)
    assert (margin is None) == (verdict == "n/a")


@pytest.mark.parametrize(
    ("claim", "margin"),
    [
        ("T2.C1", 35.32 - 32.19 - 1),
        ("T2.C2", 2.25 - 1.88),
        ("T2.C3", 9.41 - 9.11),
        ("T2.C4", 7.25 - 7.47),
        ("T2.C5", 30.26 - 29.24),
        ("T2.C6", 2.35 - 1.88),
        ("T2.C7", 2.35 - 2.25),
        ("T2.C8", 2.47 - 2.35),
        ("T2.C9", 12.0),
        ("T2.C11", 0.33 - 0.19),
    ],
)
def test_margins_by_hand_on_the_sources_figures(claim, margin):
    assert claims.on_printed(CLAIMS[claim], T2, "source")[0] == pytest.approx(margin)


# ---- the whole way -----------------------------------------------------------------------------------------


def test_margins_and_verdicts_on_generated_runs(built):
    report = report_of(built[0] / "runs")
    found = {c.id: c for c in report.claims}
    assert found["T2.C3"].margin == pytest.approx(1, abs=0.51)  # errors are of whole pictures
    assert found["T2.C15"].margin == pytest.approx(5, abs=0.51)
    # stable rates of five, seed by seed
    assert found["T2.C16"].margin == pytest.approx((4 - 3 + 4 - 2 + 4 - 2) / 3)
    assert {found[c].n for c in ("T2.C3", "T2.C15", "T2.C16")} == {3}
    assert found["T2.C9"].margin == pytest.approx(4, abs=0.2) and found["T2.C9"].verdict == "supported"
    assert found["T2.C10"].verdict == found["T2.C11"].verdict == "supported"
    # thresholds in points mean nothing on other data than the paper's
    for name in ("T2.C1", "T2.C12", "T2.C13"):
        assert found[name].verdict == "not comparable", name
    assert found["T2.C14"].verdict == "inconclusive" and found["T2.C14"].margin == pytest.approx(16 + 2 / 3)
    assert {found[c].verdict for c in ("T2.C2", "T2.C4", "T2.C5")} == {"not run"}  # no SVHN, no flips
    # each holds where it ran, and not all of its columns did
    assert [found[c].verdict for c in ("T2.C6", "T2.C7", "T2.C8")] == ["inconclusive"] * 3
    assert found["T2.C6"].components[0].verdict == found["T2.C8"].components[0].verdict == "supported"


def test_margins_of_what_is_not_comparable_here():
    on = "cifar10"
    cells = {
        ("nin_np", "cifar100", "error"): 30.0, ("nin_bn", "cifar100", "error"): 36.0,
        ("nin_np", on, "error"): 9.0, ("nin_np_global_b50", on, "error"): 9.2,
        ("nin_np_global_b100", on, "error"): 12.0, ("nin_np_global_b1", on, "error"): 18.0,
        ("plain_at_0.05", on, "diverged"): 100 * 2 / 3,
    }  # fmt: skip
    by_hand = {"T2.C1": [5], "T2.C12": [-5.5], "T2.C13": [0.3, 0.7], "T2.C14": [16 + 2 / 3]}
    for name, margins in by_hand.items():
        assert [part.margin for part in CLAIMS[name](cells)] == pytest.approx(margins), name


def test_a_diverged_run_counts_as_all_wrong_and_as_not_trained(built):
    report = report_of(built[0] / "runs")
    assert cell(report, "plain_at_0.05", "test_error")["mean"] == pytest.approx((60 + 100 + 100) / 3)
    assert cell(report, "plain_at_0.05", "stable")["mean"] == pytest.approx(1 / 3)
    assert cell(report, "nin_np_at_0.2", "stable")["mean"] == 0
    assert cell(report, "nin_np_at_0.14", "stable")["mean"] == 1


def test_runs_at_chance_are_said_to_be(tmp_path):
    made = [make.record("nin", "cifar10", seed) for seed in range(3)]
    for record in made[1:]:
        record["metrics"]["test_error"] = 89.5
        record.pop("wrong")
    made += [make.record(row, "cifar10", seed) for row in ("nin_np", "nin_bn") for seed in range(3)]
    make.write(tmp_path, made)
    report = report_of(tmp_path)
    assert page.text(report, "nin", "cifar10").endswith("n = 3, 2 of them at chance")
    assert "chance" not in page.text(report, "nin_np", "cifar10")
    assert "; of its runs 2 at chance" in page.answer(report, "cifar10")
    found = {c.id: c for c in report.claims}
    assert found["T2.C6"].label.endswith("; at chance: 2 of 3 of nin (cifar10)")
    assert "chance" not in found["T2.C3"].label  # does not look at nin


def test_many_cells_at_chance_are_counted(tmp_path):
    rows = [f"nin_np{gamma}_at_{rate}" for gamma in ("", "_gamma1") for rate in table_02.RATES]
    made = [make.record(row, "cifar10", seed) for row in rows for seed in range(3)]
    for record in made[:5]:
        record["metrics"]["test_error"] = 90.0
        record.pop("wrong")
    make.write(tmp_path, made)
    found = {c.id: c for c in report_of(tmp_path).claims}
    assert found["T2.C16"].label.endswith("; at chance: 3 of 3 of nin_np_at_0.05 (cifar10), "
                                          "2 of 3 of nin_np_at_0.07 (cifar10)")  # fmt: skip
    for record in made[5:12]:
        record["metrics"]["test_error"] = 90.0
        record.pop("wrong")
    make.write(tmp_path, made)
    found = {c.id: c for c in report_of(tmp_path).claims}
    assert found["T2.C16"].label.endswith("; at chance: 12 of 12 runs of 4 cells")


def test_an_interval_of_percentages_ends_at_0_and_100(tmp_path):
    made = [make.record(row, "cifar10", seed) for row in ("nin_np", "nin") for seed in range(3)]
    for record, error in zip(made, (0.5, 0.5, 8.0, 95.0, 95.0, 60.0), strict=True):
        record["metrics"]["test_error"] = error
        record.pop("wrong")
    make.write(tmp_path, made)
    report = report_of(tmp_path)
    assert cell(report, "nin_np", "test_error")["low"] == 0
    assert cell(report, "nin", "test_error")["high"] == 100
    # the other ends are what they are: the mean and Student's t on the seeds, with the test set's share added
    low, high = cell(report, "nin", "test_error")["low"], cell(report, "nin_np", "test_error")["high"]
    whole = [
        summary(Sample(dict(enumerate(v)), make.N_TEST, "f")) for v in ((95.0, 95.0, 60.0), (0.5, 0.5, 8.0))
    ]
    assert whole[0].high > 100 and whole[1].low < 0
    assert (low, high) == pytest.approx((whole[0].low, whole[1].high))


def test_columns_with_nothing_in_them_are_named_not_drawn(built):
    root, _ = built
    html = (root / "out" / "table_02.html").read_text(encoding="utf-8")
    captions = [t.split("</caption>") for t in html.split("<caption>")[1:]]
    ((told, body),) = [(a, b[0]) for a, *b in captions if a.startswith("absolute mean")]
    assert "Neither printed nor run: " in told and "SVHN" in told and "flips" in told
    head = body.split("</thead>")[0]
    assert "CIFAR-10" in head and "SVHN" not in head and "flips" not in head
    ((told, body),) = [(a, b[0]) for a, *b in captions if a.startswith("test error (%), evaluation chosen")]
    head = body.split("</thead>")[0]
    assert "Neither" not in told and "SVHN" in head and "flips" in head  # printed, though not run


def test_the_interval_of_a_gain_is_of_differences_seed_by_seed(tmp_path):
    made = [make.record(row, "cifar10", seed) for row in ("nin_np", "plain") for seed in range(3)]
    gains = (4.0, 6.0, 8.0)
    for seed, gained in enumerate(gains):
        made[seed]["metrics"]["test_error"] = 10.0 * seed  # large spread between seeds, none of the gain's
        made[3 + seed]["metrics"]["test_error"] = 10.0 * seed + gained
    for record in made:
        record.pop("wrong")
    make.write(tmp_path, made)
    half = stats.t.ppf(0.975, 2) * 2 / math.sqrt(3)
    expected = f"+6.00 points, {6 - half:+.2f} to {6 + half:+.2f} (n = 3)"
    assert page.gain(report_of(tmp_path), "nin_np", "plain", "cifar10") == expected
    assert page.gain(report_of(tmp_path), "nin_np", "maxout", "cifar10") == ""


def test_the_rates_tried_are_the_published_files():
    rows = {row.id for row in T2.rows}
    for start in ("nin_np", "nin_np_gamma1"):
        assert {f"{start}_at_{rate}" for rate in table_02.RATES} <= rows


def test_the_page_has_both_ways_to_compare(built):
    root, _ = built
    html = (root / "out" / "table_02.html").read_text(encoding="utf-8")
    own = html.split("As published, and like for like")[1]
    assert "Like for like: raw pictures, no dropout" in own and "The source's studies" in own.replace(
        "&#39;", "'"
    )
    report = report_of(root / "runs")
    text = page.answer(report, "cifar10")
    assert "the same network without a normaliser NormProp gains +6.00 points" in text
    assert "BN gains +5.00 points" in text and "NIN as published NormProp gains +11.00 points" in text
    assert "NormProp against BN: +1.00 points" in text and text.count("n = 3") == 5
    without = page.answer(report, "cifar100")  # NIN as published did not run there
    assert "as published" not in without and "NormProp against BN: +6.00" in without
    assert page.answer(report, "svhn") == ""
    assert "plain: learning rate 0.05, dropout 0" in page.settings(report)
    blocks = page.section(report, {})["blocks"]
    assert [line["row"] for line in blocks[1]["rows"]] == [
        "NIN + NP's network without a normaliser", "NIN + NormProp", "NIN + BN", "Maxout, raw pictures",
    ]  # fmt: skip
    assert html.count("<svg") >= 8
    titles = [group["title"] for group in page.draw(report)]
    assert titles == list(page.NOTES)
    assert "NIN + NormProp" in tables.terminal(report)


def test_rows_with_more_seeds_are_counted_as_planned(tmp_path):
    """Three seeds of every row and two more of one: 5 + 3 for each of the others, not 5 for all."""
    made = list(make.records()) + [make.record("nin_np_at_0.1", "cifar10", seed) for seed in (3, 4)]
    make.write(tmp_path, made)
    path = tmp_path / "T2" / "grid.json"
    noted = json.loads(path.read_text(encoding="utf-8"))
    plan = noted["profiles"]["quick"]
    plan["seeds"] = [0, 1, 2, 3, 4]
    for point in plan["points"]:
        point["seeds"] = plan["seeds"] if point["row"] == "nin_np_at_0.1" else [0, 1, 2]
    path.write_text(json.dumps(noted), encoding="utf-8")
    loaded = store.load(tmp_path, None)
    pane = view.pane(report_of(tmp_path), loaded.frame, loaded.grid["T2"])
    assert pane["planned"] == pane["done"] == 3 * len(make.ERRORS) + 2


def test_commands_are_those_of_the_grid(built):
    report = report_of(built[0] / "runs")
    plan = {
        "points": [{"row": "nin_np", "column": "cifar10"}, {"row": "nin_np_at_0.14", "column": "cifar10"}]
    }
    found = dict(page.commands(report, plan))
    assert len(found) == 2 and all(
        f"column=cifar10 row={row}" in c
        for row, c in zip(("nin_np", "nin_np_at_0.14"), found.values(), strict=True)
    )


def test_snapshot_and_readme(tmp_path, built):
    measured = tmp_path / "measured"
    snapshot.snapshot(built[0] / "runs", measured, "T2")
    again, first = report_of(tmp_path / "nothing", measured), report_of(built[0] / "runs")
    for row, metric in (("nin_np", "test_error"), ("nin_bn", "early_spread"), ("nin_np_at_0.1", "stable")):
        assert cell(again, row, metric)["mean"] == cell(first, row, metric)["mean"]
    readme_file = tmp_path / "README.md"
    readme_file.write_text(
        "<!-- begin: python -m reports readme table=T2 -->\n<!-- end -->\n", encoding="utf-8"
    )
    readme.update(readme_file, measured, "T2")
    text = readme_file.read_text(encoding="utf-8")
    line = next(x for x in text.splitlines() if x.startswith("| NIN + NormProp |"))
    assert "9.11" in line and "9.50 ± 0.50" in line


def test_rows_of_other_epochs_say_so(tmp_path):
    made = [make.record(row, "cifar10", seed) for row in ("nin_np", "nin_np_dropout") for seed in range(3)]
    short = [make.record("nin_np_global_b1", "cifar10", seed) for seed in range(3)]
    for record in short:
        record["config"]["epochs"] = record["epochs"] = 2
    made += short
    make.write(tmp_path, made)
    path = tmp_path / "T2" / "grid.json"
    grid = json.loads(path.read_text())
    for point in grid["profiles"]["quick"]["points"]:
        if point["row"] == "nin_np_global_b1":
            point["config"]["epochs"] = 2
    path.write_text(json.dumps(grid))
    report = report_of(tmp_path)
    names = [line["row"] for line in page.section(report, {})["studies"]]
    assert [n.endswith("(2 epochs)") for n in names] == [False, True], names
    assert "global, 1 (2 epochs)" in page.by_row(
        report, "cifar10", ["nin_np_global_b1"], "test_error", "error"
    )
