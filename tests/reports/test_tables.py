"""The comparison in five forms: what a cell says, escaping, width."""

import csv
import html.parser
import io
import math

import pytest

from reports import published, store, tables
from reports.analysis import analyse
from tests.reports.fixtures import make_golden as make

T3 = published.load("T3")
NASTY = "a|b_<i>&%$#{x}~^\\ `c`"


def report_of(runs, records, **grid):
    make.write_grid(runs, **grid)
    make.write_shard(runs, records)
    loaded = store.load(runs)
    return analyse(loaded.frame, loaded.grid["T3"], loaded.paper["T3"], T3, "quick", loaded.damaged["T3"])


@pytest.fixture
def some(tmp_path):
    nasty = {
        "norm": {"name": NASTY, "options": {}},
        "alpha": None,
        "reading": None,
        "initial": None,
        "unit": None,
    }
    records = [make.record("a0_5", "mnist", s, wrong=w) for s, w in enumerate((9, 10, 14))]
    records += [make.record("a0_25", "mnist", 0), make.record("a0_1", "mnist", 0, status="failed")]
    records += [make.record("a0", "mnist", s, status="diverged") for s in range(2)]
    records.append(make.record("a1", "mnist", 0, changes=nasty))
    return report_of(tmp_path, records)


def line_of(text, alpha, block="MNIST"):
    """The cells of a Markdown table's row under a heading."""
    part = text.split(f"### {block}")[1].split("###")[0]
    rows = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in part.splitlines() if "|" in row]
    head = rows[0]
    (row,) = [row for row in rows if row[0].strip() == alpha]
    return dict(zip(head, row, strict=True))


def test_a_cell_in_markdown(some):
    row = line_of(tables.markdown(some), "0.5")
    assert (row["survey"], row["source"], row["ours"], row["n"]) == ("1.84", "1.84", "2.75 ± 0.66", "3")
    assert row["diff."] == "(+0.91)"  # in brackets: mnist5k stands in for MNIST
    assert row["best on test"] == "2.67 ± 0.72" and row["last epoch"] == "3.00 ± 0.66"
    assert row["epochs survey"] == "69"


def test_one_run_has_no_spread_and_no_run_says_so(some):
    text = tables.markdown(some)
    assert line_of(text, "0.25")["ours"] == "2.00"
    assert line_of(text, "1")["ours"] == "not run"
    assert line_of(text, "1")["n"] == "0" and line_of(text, "1")["diff."] == "–"
    assert line_of(text, "0.1")["ours"] == "failed"
    assert line_of(text, "0")["ours"] == "100.00 ± 0.00" and line_of(text, "0")["remarks"] == "2 diverged"
    assert "### CIFAR-10: not run" in text


def test_survey_and_source_are_both_printed(some):
    row = line_of(tables.markdown(some), "0.25", "NI")
    assert (row["survey"], row["source"]) == ("7.32", "7.24")


def test_difference_on_the_papers_own_data_has_no_brackets(tmp_path):
    grid = make.grid()
    for point in grid["profiles"]["quick"]["points"]:
        point["config"] = make.paper_config(point["row"], point["column"])
    told = make.paper_config("a0_5", "mnist")
    changes = {"data": told["data"], "epochs": told["epochs"]}
    found = report_of(tmp_path, [make.record("a0_5", "mnist", 0, wrong=9, changes=changes)], found=grid)
    assert line_of(tables.markdown(found), "0.5")["diff."] == "+0.41"


def test_markdown_has_the_same_number_of_cells_in_every_row(some):
    for part in tables.markdown(some).split("###"):
        rows = [row.replace("\\|", "") for row in part.splitlines() if row.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1
    assert "<i>" not in tables.markdown(some).replace("\\<i\\>", "")


def test_csv_holds_every_number_in_full(some):
    rows = list(csv.DictReader(io.StringIO(tables.csv(some))))
    assert len(rows) == len(some.cells) + len(some.extra)
    cells = some.cells.set_index(["row", "column", "metric"])
    for row in rows:
        if row["match"] == "cell":
            told = cells.loc[(row["row"], row["column"], row["metric"])]
            for name in ("survey", "source", "mean", "sd", "low", "high", "difference"):
                read = float(row[name]) if row[name] else math.nan
                assert read == pytest.approx(told[name], rel=1e-9, nan_ok=True), (row, name)
            assert int(row["n"]) == told["n"] and row["profile"] == "quick"
    assert NASTY in {row["label"] for row in rows}


def test_latex_escapes_and_balances(some):
    text = tables.latex(some)
    assert r"a|b\_\textless{}i\textgreater{}\&\%\$\#\{x\}\textasciitilde{}\textasciicircum{}" in text
    assert r"2.75 $\pm$ 0.66" in text and "±" not in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == text.count(r"\midrule") > 3
    body = [row for row in text.splitlines() if row.endswith(r"\\")]
    for block in text.split(r"\begin{tabular}{")[1:]:
        columns = len(block.split("}")[0])
        rows = [row for row in block.splitlines() if row.endswith(r"\\")]
        assert {row.replace(r"\&", "").count("&") + 1 for row in rows} == {columns}
    assert body


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.seen, self.text = [], set(), []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_html_is_escaped_and_closed(some):
    page = Tags()
    page.feed(tables.html(some))
    assert page.open == [] and "i" not in page.seen
    assert NASTY in page.text
    assert page.seen == {"h2", "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "li"}


def test_terminal_fits_100_columns(some):
    text = tables.terminal(some)
    assert max(len(row) for row in text.splitlines()) <= 100
    assert "2.75±0.66" in text and "2 diverged" in text and "best on test" in text
    assert all(f"T3.C{i}" in text for i in range(1, 10))
    assert (
        text.splitlines()[0]
        == "Table 3: Diminishing batch normalization: test error against alpha (profile quick)"
    )


def test_terminal_of_a_table_that_has_not_run(tmp_path):
    found = report_of(tmp_path, [])
    text = tables.terminal(found)
    assert "MNIST: not run" in text and text.count("not run") > 30
    assert max(len(row) for row in text.splitlines()) <= 100
    for write in (tables.markdown, tables.csv, tables.latex, tables.html):
        assert write(found)


def test_other_variants_are_blocks_of_their_own(tmp_path, monkeypatch):
    records = [make.record("a0_5", "mnist", s, changes={"reading": "A"}) for s in range(2)]
    found = report_of(tmp_path, records)
    row = tables.labelled(found, "variant")[0]
    assert row.title == "MNIST: other variants"
    assert row.rows[0][:2] == ["reading=A", "0.5"] and row.rows[0][3] == "2"
    assert tables.labelled(found, "norm") == []
    assert "MNIST: other variants" in tables.terminal(found)
    monkeypatch.setattr(tables, "FEW", 0)
    assert "1 cells of other variants" in tables.terminal(found)


def test_what_rounding_leaves_of_a_margin_is_zero() -> None:
    assert [tables.short(v) for v in (4.74e-15, -1e-12, 0.0, 0.00123456, -2.5)] == [
        "0",
        "0",
        "0",
        "0.00123",
        "-2.5",
    ]


def test_latex_has_no_letter_that_pdflatex_stops_at():
    """Names and signs of every table, infinite figures among them."""
    known = [published.load(entry["id"]) for entry in published.index()["tables"] if entry["built"]]
    names = [row.en for table in known for row in table.rows]
    names += [column.group for table in known for column in table.columns]
    for text in [*names, "∞ (2 missed)", "A→W", "±", "–", "≥"]:
        assert tables.escape_latex(text).isascii(), text
