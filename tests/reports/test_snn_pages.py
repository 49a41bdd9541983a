"""Tables 5 and 6 the whole way: cells of AUC, pages, pictures, snapshot, README; from generated trials."""

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from reports import figures, published, readme, site, snapshot, store, tables
from reports.analysis import analyse
from reports.pages import table_06
from tests.reports import synthetic_snn as make
from tests.reports.html_checks import check_site

NOWHERE = Path("does-not-exist")
VARIANTS = [
    {"row": "batch", "placement": "before"},
    {"row": "batch", "statistics": "never"},
    {"row": "layer", "placement": "before"},
]


def with_variants(table, noted):
    records = list(make.trials(noted))
    axis = "model__layers" if table == "T6" else "data__options__set"
    columns = make.DEPTHS if table == "T6" else list(make.SETS)
    for seed in range(3):
        for v in VARIANTS:
            changes = {k: x for k, x in v.items() if k != "row"}
            records += [make.record(table, v["row"], seed, **changes, **{axis: c}) for c in columns]
    return records


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(folder, pages) of a site of both tables, with variants."""
    root = tmp_path_factory.mktemp("snn")
    for table in ("T5", "T6"):
        noted = make.grid(table)
        make.write(root / "runs", noted, with_variants(table, noted))
    site.build(root / "runs", root / "out", NOWHERE)
    return root, check_site(root / "out")


def report_of(root, table, measured=None):
    loaded = store.load(root, measured)
    facts = published.load(table)
    paper, damaged = loaded.paper.get(table, {}), loaded.damaged.get(table, 0)
    return analyse(loaded.frame, loaded.grid.get(table, {}), paper, facts, "quick", damaged)


def auc_of(report, row, column):
    cells = report.cells
    (found,) = cells[
        (cells["row"] == row) & (cells["column"] == column) & (cells["metric"] == "test_auc")
    ].to_dict("records")
    return found


# ------------------------------------------------------------------------------------------- cells of AUC


def one_row(tmp_path, records, row="snn"):
    make.write(tmp_path / "runs", make.grid("T6", rows=[row]), records)
    return report_of(tmp_path / "runs", "T6")


def test_auc_is_the_mean_of_the_selected_trials(tmp_path):
    records = []
    for seed, (good, bad) in enumerate(((80.0, 90.0), (82.0, 60.0), (84.0, 85.0))):
        for auc, val, lr in ((good, 10.0, 0.01), (bad, 11.0, 0.1)):  # the better test AUC must not be chosen
            rec = make.record("T6", "snn", seed, model__layers=2, optimizer__lr=lr)
            rec["metrics"] |= {"test_auc": auc, "val_error": val}
            records.append(rec)
    cell = auc_of(one_row(tmp_path, records), "snn", "d2")
    assert (cell["mean"], cell["sd"], cell["n"]) == (82.0, 2.0, 3)
    assert cell["difference"] == pytest.approx(82.0 - 83.7)
    assert (cell["trials"], cell["trials_planned"]) == (6, 12)
    half = 4.302652729911275 * 2 / math.sqrt(3)  # t with 2 degrees of freedom
    assert (cell["low"], cell["high"]) == pytest.approx((82 - half, 82 + half))


def test_a_diverged_network_has_auc_50(tmp_path):
    records = [make.record("T6", "snn", 0, model__layers=2, status="diverged")]
    cell = auc_of(one_row(tmp_path, records), "snn", "d2")
    assert (cell["mean"], cell["diverged"]) == (50.0, 1)


def test_scores_bring_the_test_set_into_the_interval(tmp_path):
    records = [make.with_scores(make.record("T6", "snn", s, model__layers=2)) for s in range(3)]
    report = one_row(tmp_path / "with", records)
    wide = auc_of(report, "snn", "d2")
    plain = [{k: v for k, v in r.items() if k != "scores"} for r in records]
    bare = one_row(tmp_path / "without", plain)
    narrow = auc_of(bare, "snn", "d2")
    assert wide["mean"] == pytest.approx(narrow["mean"], abs=1e-4)
    assert not any("test examples" in note for note in report.notes)
    assert any("not of test examples" in note for note in bare.notes)
    # noise of sd 30 on each of 647 compounds, drawn anew for each of 3 seeds
    assert wide["high"] - wide["low"] > 2 * 1.96 * 30 / math.sqrt(3 * 647) / 2


def test_unsound_scores_are_not_used(tmp_path):
    records = [
        {**make.record("T6", "snn", s, model__layers=2), "scores": x} for s, x in enumerate(("", "!", None))
    ]
    report = one_row(tmp_path, records)
    assert auc_of(report, "snn", "d2")["n"] == 3 and any(
        "no record has its scores" in n for n in report.notes
    )
    other = [make.with_scores(make.record("T6", "snn", s, model__layers=2)) for s in range(3)]
    for rec in other:
        rec["metrics"]["test_auc"] += 5  # their mean is not the metric
    cell = auc_of(one_row(tmp_path / "b", other), "snn", "d2")
    values = [rec["metrics"]["test_auc"] for rec in other]
    half = 4.302652729911275 * np.std(values, ddof=1) / math.sqrt(3)
    assert cell["high"] - cell["mean"] == pytest.approx(half)


def test_verdicts_follow_the_direction_of_auc(built):
    report = report_of(built[0] / "runs", "T6")
    verdicts = {c.id: c for c in report.claims}
    assert verdicts["T6.C11"].verdict == "supported" and verdicts["T6.C11"].margin > 0
    assert verdicts["T6.C7"].label == "on tox21 (variant); without its absolute thresholds"
    assert verdicts["T6.C1"].verdict == "not comparable"
    assert verdicts["T6.C7"].verdict == "supported"  # the generator lets WN collapse at 32


# -------------------------------------------------------------------------------------------------- pages


def test_pages_say_what_they_must(built):
    _, pages = built
    t5, t6 = (" ".join(pages[f"table_0{i}.html"].text.split()) for i in (5, 6))
    assert "their levels do not compare, their order does" in t5
    assert "1056 of 1056" in t5 and "420 of 420" in t6
    assert "0 off the grid" not in t5 and "off the grid" not in t6
    assert "printed numbers rank 24 methods around 12.5" in t5
    assert "Other ways to read the paper" in t5 and "statistics=never" in t5 and "placement=before" in t6
    assert "count as AUC 50" in t6 and "ResNet: blocks" in t6
    assert {"audit-A16", "audit-A17"} <= set(pages["table_05.html"].ids)
    assert {"audit-A18", "audit-A19"} <= set(pages["table_06.html"].ids)
    assert "not in the survey" in t5 and "96 trials" in t5
    index = " ".join(pages["index.html"].text.split())
    assert "1056 of 1056" in index and "420 of 420" in index


def rows_of(page, caption):
    found = next(t for t in page.tables if any(caption in cell for cell in t[0]))
    return found


def test_variants_stand_beside_their_primary(built):
    root, pages = built
    report = report_of(root / "runs", "T5")
    wanted = ("primary", "statistics=never")
    lines = [r for t in pages["table_05.html"].tables for r in t if len(r) > 2 and r[1] in wanted]
    names = [(r[0], r[1]) for r in lines]
    assert names == [("FNN + LN", wanted[0]), ("FNN + BN", wanted[0]), ("FNN + BN", wanted[1])]
    extra = report.extra[report.extra["metric"] == "rank_diff"]
    mine = extra[(extra["label"] == "statistics=never") & (extra["column"] == "large")]
    (cell,) = mine.to_dict("records")
    assert lines[2][2].startswith(f"{cell['mean']:.2f} ")


def test_pictures_are_there_and_tell_what_they_show(built):
    raw = built[1]["table_05.html"].raw
    for column in ("large", "small", "all", "source"):
        assert f'id="cd-quick-{column}-d"' in raw
    assert "Not told apart:" in raw
    raw = built[1]["table_06.html"].raw
    for name in ("depth", "together", "act-var-start", "act-var-end", "grad-norm-start"):
        assert f'id="{name}-quick-d"' in raw, name
    assert "[FNN + WN] survey: 2.00: 83.7" in raw


def test_the_accuracies_download_is_a_table_to_rank(built):
    root, _ = built
    text = (root / "out/downloads/T5_quick_accuracies.csv").read_text()
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [r["dataset"] for r in rows] == sorted(make.SETS) and rows[0].keys() == {
        "dataset",
        "N",
        *make.ROWS,
    }
    block = report_of(root / "runs", "T5").blocks["all"]
    at = block.sets.index("iris")
    iris = next(r for r in rows if r["dataset"] == "iris")
    assert float(iris["snn"]) == pytest.approx(block.values[0, :, at].mean(), abs=5e-5)


def test_long_and_short_forms(built):
    report = report_of(built[0] / "runs", "T5")
    long = pd.read_csv(io.StringIO(tables.csv(report)))
    assert {"sets", "trials", "trials_planned", "trials_diverged", "trials_failed"} <= set(long.columns)
    text = tables.terminal(report)
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "96 trials" in tables.markdown(report) and "statistics=never" in tables.markdown(report)
    assert json.loads(site.as_json(report))["cells"]


def test_layers_without_a_positive_number_are_left_out():
    line = table_06.over_seeds([[1.0, 0.0, 4.0], [4.0, 1.0, None]], "x")
    assert (line.x, line.y) == ([1.0], [2.0])  # sqrt(1 x 4)
    signed = table_06.over_seeds([[-1.0, 0.0], [3.0, 1.0]], "x", geometric=False)
    assert (signed.x, signed.y) == ([1.0, 2.0], [1.0, 0.5])
    assert table_06.over_seeds([], "x") is None and table_06.over_seeds([[None]], "x") is None


def test_panels_have_a_description_for_each_series():
    found = {"a": [figures.Series("ours", [2.0, 4.0], [1.0, 2.0], [0.5, 1.0], [1.5, 3.0])], "b": []}
    svg = figures.panels("p", "t", found, xlabel="x", ylabel="y", log_x=True, log_y=True)
    assert "[a] ours: 2.00: 1.00 (0.500 to 1.50); 4.00: 2.00 (1.00 to 3.00)." in svg


def test_empty_tables_say_not_run(tmp_path):
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    pages = check_site(tmp_path / "out")
    for name in ("table_05.html", "table_06.html"):
        assert "No records of this profile yet" in pages[name].text and "<svg" not in pages[name].raw


@pytest.mark.slow
def test_only_failed_and_diverged_trials_still_make_a_page(tmp_path):
    for table in ("T5", "T6"):
        noted = make.grid(table, seeds=[0])
        records = list(make.trials(noted))
        for i, rec in enumerate(records):
            rec["status"] = "failed" if i % 3 else "diverged"
            rec["metrics"] = {} if i % 3 else rec["metrics"]
        make.write(tmp_path / "runs", noted, records)
    site.build(tmp_path / "runs", tmp_path / "out", NOWHERE)
    pages = check_site(tmp_path / "out")
    assert "diverged" in pages["table_06.html"].text


# ------------------------------------------------------------------------------------------ snapshot, README


@pytest.mark.parametrize("table", ["T5", "T6"])
def test_the_report_is_the_same_from_the_snapshot_alone(built, tmp_path, table):
    root, _ = built
    said = snapshot.snapshot(root / "runs", tmp_path / "measured", table)
    assert sum(p.stat().st_size for p in (tmp_path / "measured" / table).iterdir()) < 150_000, said
    before, after = (
        report_of(root / "runs", table),
        report_of(tmp_path / "none", table, tmp_path / "measured"),
    )
    same = [c for c in before.cells if c not in ("runs", "origin")]
    pd.testing.assert_frame_equal(before.cells[same], after.cells[same])
    pd.testing.assert_frame_equal(before.deviations, after.deviations)
    first, second = ([(c.id, c.verdict, c.low, c.why) for c in r.claims] for r in (before, after))
    assert first == second
    again = snapshot.snapshot(tmp_path / "none", tmp_path / "measured", table)  # from itself: nothing is lost
    assert again.split(":")[1].split(",")[0] == said.split(":")[1].split(",")[0]


def test_a_snapshot_keeps_layers_of_selected_trials_and_little_of_others(built, tmp_path):
    snapshot.snapshot(built[0] / "runs", tmp_path, "T6")
    texts = pq.read_table(tmp_path / "T6" / "records.parquet")["record"].to_pylist()
    records = [json.loads(text) for text in texts]
    assert len(records) == 420 + 3 * 3 * 7
    full = [r for r in records if r["sha256"]]
    assert len(full) == 3 * 7 * (7 + 3)  # seeds x depths x (rows + variants)
    layered = {f"{key}_{when}" for key in ("act_mean", "act_var", "grad_norm") for when in ("start", "end")}
    assert set(full[0]["curves"]) == layered
    stubs = [r for r in records if not r["sha256"]]
    assert all("curves" not in r and set(r["metrics"]) == {"val_error", "test_auc"} for r in stubs)
    assert table_06.by_layer(report_of(tmp_path / "none", "T6", tmp_path))


def test_a_changed_snapshot_is_found_out(built, tmp_path):
    snapshot.snapshot(built[0] / "runs", tmp_path, "T6")
    file = tmp_path / "T6" / "records.parquet"
    table = pq.read_table(file)
    texts = table["record"].to_pylist()
    at = next(i for i, text in enumerate(texts) if store.UNSEALED in text)
    texts[at] = texts[at].replace('"val_error":', '"val_error":1')
    changed = table.set_column(0, "record", [texts])
    pq.write_table(changed.replace_schema_metadata(table.schema.metadata), file)
    loaded = store.load(tmp_path / "none", tmp_path)
    assert loaded.damaged["T6"] == sum(store.UNSEALED in text for text in texts)


def test_too_many_trials_are_one_clear_line(built, tmp_path):
    with pytest.raises(ValueError, match=r"records need .* there is room for"):
        snapshot.snapshot(built[0] / "runs", tmp_path, "T5", limit=20_000)


@pytest.mark.parametrize(("table", "pictures"), [("T5", 3), ("T6", 1)])
def test_the_readmes_section_and_its_pictures(built, tmp_path, table, pictures):
    measured = tmp_path / "reports" / "measured"
    snapshot.snapshot(built[0] / "runs", measured, table)
    file = tmp_path / "README.md"
    begin = f"<!-- begin: python -m reports readme table={table} -->"
    file.write_text(f"before\n{begin}\nOLD\n<!-- end -->\nafter\n")
    said = readme.update(file, measured, table)
    text = file.read_text()
    assert f"{pictures} pictures" in said and text.startswith("before") and text.endswith("after\n")
    assert text.count("<img src=") == pictures and "OLD" not in text
    assert f"{table}.C1:" in text
    if table == "T5":
        assert "sets with N >= 1000 on 4 sets of `keel` (stand-in), n = 3" in text
        assert "| -6.70 | -4.00 ± 0.00 |" in text
    else:
        assert "all columns on `tox21` (variant), n = 3" in text and "| 83.7 |" in text
