"""Table 11 in the reports: the survey's words, claims on other tables' figures and on ours, the page."""

import math
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from reports import claims, published, relative, site, store, targets
from reports.analysis import analyse
from reports.pages import table_11 as page
from tests.reports import synthetic_functional as make
from tests.reports import transcription
from tests.reports.html_checks import check_site

T11 = published.load("T11")
CLAIMS = claims.of("T11")
NOWHERE = Path("does-not-exist")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    root = tmp_path_factory.mktemp("t11")
    make.write(root / "runs")
    site.build(root / "runs", root / "out", NOWHERE)
    return root, check_site(root / "out")


@pytest.fixture(scope="module")
def report(built):
    loaded = store.load(built[0] / "runs", None)
    return analyse(loaded.frame, loaded.grid["T11"], loaded.paper.get("T11", {}), T11, "quick", 0)


def test_steps_beside_bns_are_of_the_same_seed():
    """To the target 10 of each seed: none has 400 steps, BN 100, 100 and never, LN 200, never and 300."""
    steps = {"none": (400, 400, 400), "bn": (100, 100, None), "ln": (200, None, 300)}
    records = []
    for row, by_seed in steps.items():
        for seed, reached in enumerate(by_seed):
            val = [10.0 if reached and step >= reached else 20.0 for step in (100, 200, 300, 400)]
            curves = {"step": [100, 200, 300, 400], "epoch": [1, 2, 3, 4], "val_error": val}
            records.append(
                {"row": row, "column": "mlp", "seed": seed, "match": "cell", "status": "finished",
                 "data.fingerprint": "x", "config.epochs": 4.0, "curves": curves}
            )  # fmt: skip
    runs = pd.DataFrame(records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(targets, "heavy", lambda frame, key: list(frame[key]))
        found = targets.added(runs, T11)
    beside = found.groupby("row")["metrics.speed_beside"].apply(list)
    assert beside["none"] == [0.25, 0.25, math.inf] and beside["bn"][:2] == [1, 1]
    assert beside["ln"] == [0.5, 0.0, math.inf] and math.isnan(beside["bn"][2])  # neither says nothing
    assert found.groupby("row")["metrics.speed_up"].apply(list)["ln"] == [2, 0, 400 / 300]


def test_words_are_the_surveys():
    told = transcription.of("T11")
    words = {(w.row, w.column): (w.zh, w.en) for w in T11.words}
    assert words == {(c["row"], c["column"]): (c["printed"], c["en"]) for c in told["cells"] if c["en"]}
    assert {w.column for w in T11.words} == {c["id"] for c in told["columns"]} == set(page.WORDS)
    names = {r.id: r.zh for r in T11.rows}
    assert all(names[r["id"]] == r["zh"] for r in told["rows"])


def test_every_claim_measures_words_and_every_audit_row_is_known():
    measured = [claim for word in T11.words for claim in word.claims]
    assert set(measured) == set(CLAIMS) == {c.id for c in T11.claims}
    assert all(page.place(a) for word in T11.words for a in word.audit)
    assert all(bool(word.why) != bool(word.claims) for word in T11.words)  # measured, or said why not
    columns = {c.data: {m.id for m in T11.metrics_of(c.data)} for c in T11.columns}
    rows = {row.id: row for row in T11.rows}
    for word in T11.words:  # every cell has figures that its row can have
        known = page.BESIDE.get(f"{word.row} {word.column}", page.BESIDE[word.column])
        assert all(metric in columns[column] for column, metric in known)
        assert any(column in rows[word.row].columns for column, _ in known), word


@pytest.mark.parametrize("claim", T11.claims, ids=lambda c: c.id)
@pytest.mark.parametrize("whose", ["survey", "source"])
def test_verdict_on_the_printed_numbers_is_the_fact_sheets(claim, whose):
    margin, verdict = claims.on_printed(CLAIMS[claim.id], T11, whose)
    assert verdict == getattr(claim, whose)
    assert (margin is None) == (verdict == "n/a")


@pytest.mark.parametrize(
    ("claim", "whose", "margin"),
    [
        ("T11.C1", "survey", 1.0e6),  # 3.1 - 2.1
        ("T11.C2", "survey", -10.2e6),
        ("T11.C5", "source", 25.8 - 21.7),
        ("T11.C7", "source", 73.7 - 80.2),  # of 7 depths the worst
        ("T11.C8", "survey", 0.088 - 0.220),
        ("T11.C8", "source", 0.018 + 0.074),
        ("T11.C11", "source", 12.0),
        ("T11.C18", "source", 6.5),
        ("T11.C25", "survey", 77.0 - 82.5 + (75.0 - 80.9) - (75.0 - 80.9) - 1.3),
        ("T11.C29", "source", 0.41),
    ],
)
def test_margins_by_hand(claim, whose, margin):
    if claim == "T11.C25":
        margin = 77.2 - 84.0  # with 4 layers LN is furthest above
    assert claims.on_printed(CLAIMS[claim], T11, whose)[0] == pytest.approx(margin, rel=0.01, abs=0.002)


def test_verdicts_on_generated_runs(report):
    found = {c.id: c.verdict for c in report.claims}
    met = (3, 4, 5, 6, 7, 9, 11, 16, 18, 19, 21, 22, 25, 26, 28, 29, 31, 32, 33, 34, 35, 36)
    assert {k: found[f"T11.C{k}"] for k in met} == dict.fromkeys(met, "supported")
    assert found["T11.C13"] == "contradicted" and found["T11.C30"] == "not run"


def test_what_is_exactly_the_same_is_supported_and_else_contradicted(report):
    """A disagreement of 0 in every run meets "the same", without a spread."""
    parts = {p.name: p for c in report.claims if c.id == "T11.C33" for p in c.components}
    assert {p.verdict for p in parts.values()} == {"supported"} and len(parts) == 3
    assert {p.low for p in parts.values()} == {1e-12}


def test_one_run_that_differs_is_no_identity(tmp_path):
    made = make.write(tmp_path)
    next(r for r in made if r["cell"] == {"row": "ln", "column": "mlp"})["metrics"]["disagreement"] = 1e-3
    make.synthetic.write(tmp_path, made)
    loaded = store.load(tmp_path, None)
    found = analyse(loaded.frame, loaded.grid["T11"], {}, T11, "quick", 0)
    verdicts = {c.id: c.verdict for c in found.claims}
    assert verdicts["T11.C33"] == "inconclusive" and verdicts["T11.C34"] == "supported"


def test_the_largest_rate_is_known_to_a_step_of_its_grid(report):
    """All seeds alike: the interval has the grid's error, 2 x 1/12 for a difference."""
    found = next(c for c in report.claims if c.id == "T11.C4")
    half = stats.norm.ppf(0.975) * math.sqrt(2 / 12)
    assert found.margin == pytest.approx(4 - math.log2(5))
    assert (found.low, found.high) == pytest.approx((found.margin - half, found.margin + half), rel=1e-3)


def test_relative_error_by_hand(report):
    assert relative.share(T11) == "metrics.relative_error"
    cnn = report.by_column["cnn"]
    none, bn = (cnn.loc[cnn["row"] == row, "metrics.test_error"].astype(float) for row in ("none", "bn"))
    shares = cnn.loc[cnn["row"] == "bn", "metrics.relative_error"].tolist()
    assert shares == pytest.approx((bn / none.mean()).tolist())


def test_the_page(built):
    text = (built[0] / "out" / "table_11.html").read_text(encoding="utf-8")
    assert "the survey's table is of words, which are read to say 36 things" in text
    assert "收敛速度加快10倍以上" in text and 'href="table_01.html#audit-A04"' in text
    assert "not in the survey" in text  # of group normalisation, say
    for figure in ("varied-quick-batch-size-cnn", "cost-quick-cnn", "depth-quick"):
        assert figure in text


def test_pictures_for_the_readme(report):
    assert set(page.pictures(report)) == {"batch_size", "cost"}
    assert page.short("Layer normalisation (LN)") == "LN" and page.short("RMS normalisation") == "RMS"


def test_a_page_without_records(tmp_path):
    (tmp_path / "runs").mkdir()
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    check_site(tmp_path / "out")
