"""Table 8 in the reports: printed figures, claims, figures at another run's epoch, known verdicts."""

import math
from pathlib import Path

import numpy as np
import pytest

from reports import claims, epochs, published, readme, site, snapshot, store, tables
from reports.analysis import analyse
from reports.claims import table_08
from reports.pages import table_08 as page
from tests.reports import synthetic_lstm as make
from tests.reports import transcription
from tests.reports.html_checks import check_site

T8 = published.load("T8")
CLAIMS = claims.of("T8")
NOWHERE = Path("does-not-exist")


def report_of(root, measured=None):
    loaded = store.load(root, measured)
    return analyse(loaded.frame, loaded.grid.get("T8", {}), loaded.paper.get("T8", {}), T8, "quick", 0)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("t8")
    make.write(root / "runs", list(make.records()))
    site.build(root / "runs", root / "out", NOWHERE)
    return root, check_site(root / "out")


def mean(row, which, by=float):
    """Over three seeds, of training (0) or validation (1)."""
    return sum(by(make.figures(row, seed)[which]) for seed in range(3)) / 3


def cell(report, row, metric, column="ptb"):
    mine = report.cells
    (found,) = mine[(mine["row"] == row) & (mine["column"] == column) & (mine["metric"] == metric)].to_dict(
        "records"
    )
    return found


# ---- printed figures ---------------------------------------------------------------------------------------


def test_cells_rows_and_headings_are_the_surveys():
    told = transcription.of("T8")
    ours = {row: f.survey for (row, column), f in T8.figures.items() if column == "ppl"}
    assert ours == {c["row"]: c["value"] for c in told["cells"]}
    names = {r.id: (r.zh, r.en) for r in T8.rows}
    assert all(names[r["id"]] == (r["zh"], r["en"]) for r in told["rows"])
    (column,) = told["columns"]
    mine = next(c for c in T8.columns if c.id == column["id"])
    assert (mine.zh, mine.en, mine.unit, mine.better) == tuple(
        column[k] for k in ("zh", "en", "unit", "better")
    )
    assert T8.row_header == told["row_header"] and [a.id for a in T8.audit] == told["audit"]
    assert (T8.caption_zh, T8.caption_en) == (told["caption_zh"], told["caption_en"])


def test_the_surveys_column_is_the_sources_training_column():
    for (row, column), figure in T8.figures.items():
        if column == "ppl":
            assert figure.survey == figure.source and figure.audit == ("A22",)
        else:
            assert figure.survey is None, row


@pytest.mark.parametrize("claim", T8.claims, ids=lambda c: c.id)
@pytest.mark.parametrize("whose", ["survey", "source"])
def test_verdict_on_the_printed_numbers_is_the_fact_sheets(claim, whose):
    margin, verdict = claims.on_printed(CLAIMS[claim.id], T8, whose)
    assert verdict == getattr(claim, whose)
    assert (margin is None) == (verdict == "n/a")


@pytest.mark.parametrize(
    ("claim", "margins"),
    [
        ("T8.C1", [16.0, 8.1, 14.3]),
        ("T8.C2", [-1.7, -1.6, -15.6]),
        ("T8.C3", [1.7, 1.6, 15.6]),
        ("T8.C4", [-0.1, 14.0]),
        ("T8.C5", [13.9, 14.0]),
        ("T8.C6", [58.4 - 40.7, 49.6 - 39.9, 62.4 - 32.5]),
        ("T8.C7", [math.log(62.5 / 78.5 / (35 / 49.3)), math.log(41 / 49.1 / (35 / 49.3))]),
        ("T8.C10", [0.06, 5.2]),
    ],
)
def test_margins_by_hand_on_the_sources_figures(claim, margins):
    parts = CLAIMS[claim](claims.Printed(T8, "source"))
    assert [part.margin for part in parts] == pytest.approx(margins)


def test_ties():
    level = {(row.id, c, m): 5.0 for row in T8.rows for c in ("ptb", "char", "pmnist")
             for m in ("train", "val", "early", "train_log", "bits", "accuracy")}  # fmt: skip

    def met(name):
        return [p.margin > 0 or (not p.strict and p.margin == 0) for p in CLAIMS[name](level)]

    assert met("T8.C9") == [True] and met("T8.C10") == [True, True]
    assert {tuple(met(f"T8.C{i}")) for i in (1, 2, 3, 6, 8)} == {(False,) * 3}


# ---- figures at another run's epoch ------------------------------------------------------------------------


def test_both_of_a_pair_are_read_at_the_plain_networks_best_epoch(built):
    report = report_of(built[0] / "runs")
    runs = report.runs.set_index(["row", "seed"]).sort_index()
    for row in ("small", "small_bn", "large_bn", "small_recurrent_bn"):
        for seed in range(3):
            train, val = make.figures(row, seed)
            mine = runs.loc[(row, seed)]
            assert (mine["metrics.train_ppl_at"], mine["metrics.val_ppl_at"]) == pytest.approx(
                (train, val)
            ), row
            assert mine["metrics.gap_at"] == pytest.approx(val - train)
            assert mine["metrics.train_log_at"] == pytest.approx(math.log(train))
            assert mine["metrics.train_ppl_early"] == pytest.approx(train + 10 * (make.PLAIN_BEST - 5))
            assert mine["metrics.val_ppl_mixture_at"] == pytest.approx(val + 1)
    own = cell(report, "small_bn", "val_ppl")
    assert own["mean"] == pytest.approx(mean("small_bn", 1) - 3)  # at its own best epoch
    assert cell(report, "small_bn", "epoch_best_val")["mean"] == make.BN_BEST


def test_without_the_plain_run_of_the_seed_there_is_no_figure(tmp_path):
    made = [make.record("small", seed) for seed in (0, 2)]
    make.write(tmp_path, made + [make.record("small_bn", seed) for seed in range(3)])
    report = report_of(tmp_path)
    assert (
        cell(report, "small_bn", "train_ppl_at")["n"] == 2 and cell(report, "small_bn", "val_ppl")["n"] == 3
    )
    early = report.runs[report.runs["row"] == "small_bn"]["metrics.train_ppl_early"]
    assert early.notna().all()


def test_divergence_counts_as_a_guess(tmp_path):
    """BN that diverges at once, in one seed of three; a plain network that diverges sets no epoch."""
    made = [make.record("small", s) for s in range(3)] + [
        make.record("medium", s, lost=s == 1) for s in range(3)
    ]
    made += [make.record("small_bn", s, lost=s == 1) for s in range(3)]
    make.write(tmp_path, made + [make.record("medium_bn", s) for s in range(3)])
    report = report_of(tmp_path)
    for metric in ("train_ppl_at", "val_ppl_at", "test_ppl", "val_ppl"):
        found = cell(report, "small_bn", metric)
        assert (found["n"], found["diverged"]) == (3, 1) and found["mean"] > 10_000 / 3, metric
    assert (
        cell(report, "medium", "train_ppl_at")["n"] == 3
        and cell(report, "medium", "train_ppl_at")["mean"] > 3000
    )
    assert cell(report, "medium_bn", "train_ppl_at")["n"] == 2
    log = cell(report, "small_bn", "train_log_at")["mean"]
    assert log == pytest.approx(
        (sum(math.log(make.figures("small_bn", s)[0]) for s in (0, 2)) + math.log(10_000)) / 3
    )


def test_training_beside_validation_is_paired_by_seed(built):
    """The gap's interval (T8.C6): the seeds' spread of the whole contrast, and beside it that of another draw
    of text, not the spreads of training and of validation as if they were other runs.
    """
    found = {c.id: c for c in report_of(built[0] / "runs").claims}["T8.C6"].components[0]
    gaps = {}
    for row in ("small", "small_bn"):
        gaps[row] = [make.figures(row, s)[1] - make.figures(row, s)[0] for s in range(3)]
    differences = [b - a for a, b in zip(*gaps.values(), strict=True)]
    assert found.margin == pytest.approx(sum(differences) / 3)
    noise = np.random.default_rng(7).standard_normal(make.BLOCKS)
    text = 8 * noise.std(ddof=1) / math.sqrt(make.BLOCKS)  # of the plain row, which alone has scores there
    assert found.high - found.low < 2 * 3.2 * text and found.high - found.low > 2 * 1.9 * text


def test_a_perplexity_too_large_for_a_number_counts(tmp_path):
    made = [make.record("small", s) for s in range(3)] + [make.record("small_bn", s) for s in range(3)]
    made[4]["metrics"]["test_ppl"] = made[4]["metrics"]["val_ppl"] = None
    made[4]["curves"]["val_ppl"] = [None] * make.EPOCHS
    make.write(tmp_path, made)
    report = report_of(tmp_path)
    for metric in ("val_ppl", "val_ppl_at", "test_ppl"):
        found = cell(report, "small_bn", metric)
        assert (found["n"], found["missed"]) == (3, 1), metric


def test_where_a_run_is_shorter_than_the_epoch(tmp_path):
    made = [make.record("small", 0)]
    short = make.record("small_bn", 0)
    short["curves"] = {k: v[:4] for k, v in short["curves"].items()}
    make.write(tmp_path, [*made, short])
    runs = report_of(tmp_path).runs.set_index("row")
    assert math.isnan(runs.loc["small_bn", "metrics.train_ppl_at"])
    assert runs.loc["small_bn", "metrics.train_ppl_early"] == short["curves"]["train_ppl"][3]


@pytest.mark.parametrize("curve", [None, {}, {"val_ppl": []}, {"val_ppl": [None, None]}])
def test_no_best_epoch(curve):
    assert epochs.at_best(curve) is None and not math.isfinite(epochs.value_at(curve, "val_ppl", 0))


# ---- the whole way -----------------------------------------------------------------------------------------


def test_verdicts_on_generated_runs(built):
    report = report_of(built[0] / "runs")
    found = {c.id: c for c in report.claims}
    assert {name: claim.verdict for name, claim in found.items()} == {
        **dict.fromkeys(
            ("T8.C1", "T8.C3", "T8.C4", "T8.C5", "T8.C6", "T8.C7", "T8.C8", "T8.C9"), "supported"
        ),
        "T8.C2": "contradicted",
        "T8.C10": "inconclusive",  # half of it is not run
    }
    assert [c.margin for c in found["T8.C3"].components] == pytest.approx(
        [mean(f"{s}_bn", 1) - mean(s, 1) for s in table_08.SIZES]
    )
    assert [c.margin for c in found["T8.C4"].components] == pytest.approx([4, 11], abs=0.3)
    assert [c.margin for c in found["T8.C6"].components] == pytest.approx([24, 19, 36], abs=0.3)
    logs = {row: mean(row, 0, math.log) for row in make.FIGURES}
    large = logs["large_bn"] - logs["large"]
    assert [c.margin for c in found["T8.C7"].components] == pytest.approx(
        [logs[f"{s}_bn"] - logs[s] - large for s in ("small", "medium")]
    )
    assert "1 of 2 parts not run" in found["T8.C10"].why
    assert found["T8.C10"].components[0].verdict == "supported"


def test_the_interval_of_a_validation_perplexity_covers_another_text(built):
    """The plain row has scores that mean its figure; the spread of 40 stretches, 8, is in its interval."""
    report = report_of(built[0] / "runs")
    found = cell(report, "small", "val_ppl_at")
    assert found["mean"] == pytest.approx(mean("small", 1))
    of_seeds = 4.303 * found["sd"] / math.sqrt(3)
    assert (found["high"] - found["low"]) / 2 > of_seeds + 0.2
    train = cell(report, "small", "train_ppl_at")
    assert (train["high"] - train["low"]) / 2 == pytest.approx(of_seeds, rel=1e-3)


def test_other_normalisers_are_labelled(tmp_path):
    made = list(make.records())
    made += [make.record("medium", seed, norm="lstm_layer") for seed in range(3)]
    make.write(tmp_path, made)
    extra = report_of(tmp_path).extra
    found = extra[extra["metric"] == "train_ppl_at"].to_dict("records")
    assert [(e["label"], e["n"]) for e in found] == [("lstm_layer", 3)]


def test_part_of_the_cells_and_none(tmp_path):
    make.write(tmp_path / "runs", [make.record(row, s) for row in ("small", "small_bn") for s in range(3)])
    report = report_of(tmp_path / "runs")
    found = {c.id: c for c in report.claims}
    assert found["T8.C1"].verdict == "inconclusive" and found["T8.C2"].verdict == "contradicted"
    assert {found[c].verdict for c in ("T8.C4", "T8.C5", "T8.C7", "T8.C9", "T8.C10")} == {"not run"}
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    check_site(tmp_path / "out")
    (tmp_path / "empty").mkdir()
    site.build(tmp_path / "empty", tmp_path / "out2", NOWHERE)
    text = check_site(tmp_path / "out2")["table_08.html"].text
    assert "No records of this profile yet" in text and "81.8 → 97.4 (+15.6)" in text


def test_the_page_shows_training_beside_validation(built):
    root, pages = built
    report = report_of(root / "runs")
    own = page.section(report, {})
    small = own["pairs"][0]
    assert small["train"] == "78.5 → 62.5 (-16.0)" and small["val"] == "119.2 → 120.9 (+1.7)"
    assert small["ours_train"].startswith("80.9 → 63.0 (-18.0") and small["ours_val"].startswith(
        "120.9 → 127.0 (+6.0"
    )
    assert small["ours_own"].startswith("120.9 → 124.0 (+3.0") and small["ours_val"].endswith("n = 3)")
    assert len(own["rules"]) == 10 and own["rules"][1]["val_ppl_mixture"].startswith("128.0 ± 1.")
    assert [line["source"] for line in own["bits"]] == ["1.38", "1.32"]
    assert [len(group["svgs"]) for group in page.draw(report)] == [3, 3, 2, 3]
    text = pages["table_08.html"].text
    assert (
        "training perplexities and does not say so" in text
        and "Bits per character" not in text.split("Figures")[0]
    )
    terminal = tables.terminal(report)
    assert "Small LSTM, layer norm" in terminal and "permuted MNIST: not run" in terminal
    assert "LSTM of characters" in terminal and "1.380" in terminal


def test_the_main_figure_has_both_networks_with_training_and_validation(built):
    told = page.learning(report_of(built[0] / "runs"), "large").split("<desc")[1].split("</desc>")[0]
    for name in (
        "LSTM, training: 49",
        "LSTM, validation: 85",
        "LSTM + BN, training: 33.9",
        "LSTM + BN, validation: 106",
    ):
        assert name in told, told
    gap = page.gaps(report_of(built[0] / "runs"), "large").split("<desc")[1].split("</desc>")[0]
    assert "LSTM: 36" in gap and "LSTM + BN: 72" in gap


def test_snapshot_and_readme(tmp_path, built):
    measured = tmp_path / "measured"
    snapshot.snapshot(built[0] / "runs", measured, "T8")
    again, first = report_of(tmp_path / "nothing", measured), report_of(built[0] / "runs")
    for row, metric in (("small_bn", "train_ppl_at"), ("large_bn", "val_ppl_at"), ("small", "val_ppl_at")):
        mine, theirs = cell(again, row, metric), cell(first, row, metric)
        assert {k: mine[k] for k in ("mean", "low", "n")} == pytest.approx(
            {k: theirs[k] for k in ("mean", "low", "n")}
        )
    file = tmp_path / "README.md"
    file.write_text(
        "x\n<!-- begin: python -m reports readme table=T8 -->\n<!-- end -->\ny\n", encoding="utf-8"
    )
    readme.update(file, measured, "T8")
    text = file.read_text(encoding="utf-8")
    assert "Penn Treebank, training: survey" in text and "Penn Treebank, validation: ours" in text
    assert "| Small LSTM + BN | 62.5 | 63.0 ± 1.1 | 127.0 ± 1.1 |" in text
    assert "permuted MNIST not run" in text and "T8.C2" in text
    assert {p.name for p in (measured / "T8").glob("*.svg")} == {"training.svg", "validation.svg"}
    assert table_08.SIZES == ("small", "medium", "large")
