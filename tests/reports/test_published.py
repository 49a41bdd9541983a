"""The published figures against the transcription of the survey, where one is at hand."""

import pytest

from reports import published
from tests.reports import transcription

T3 = published.load("T3")


def without_latex(text):
    text = text.replace("\\alpha", "α")
    return "".join(letter for letter in text if letter not in "$ {}")


def test_cells_are_the_surveys():
    told = transcription.of("T3")
    assert {(c["row"], c["column"]): (c["value"], c["printed"]) for c in told["cells"]} == {
        key: (figure.survey, figure.printed) for key, figure in T3.figures.items()
    }
    assert {(c["row"], c["column"]): tuple(c.get("audit", ())) for c in told["cells"]} == {
        key: figure.audit for key, figure in T3.figures.items()
    }


def test_headings_rows_and_audit_are_the_surveys():
    told = transcription.of("T3")
    for ours, theirs in zip(T3.columns, told["columns"], strict=True):
        assert {k: getattr(ours, k) for k in theirs} == theirs
    assert [(r.id, r.zh, r.en) for r in T3.rows] == [(r["id"], r["zh"], r["en"]) for r in told["rows"]]
    assert [a.id for a in T3.audit] == told["audit"]
    assert without_latex(T3.caption_zh) == without_latex(told["caption_zh"])
    assert without_latex(T3.caption_en) == without_latex(told["caption_en"])


def test_index_lists_the_surveys_tables():
    for entry in published.index()["tables"]:
        told = transcription.of(entry["id"])
        for language in ("caption_zh", "caption_en"):
            assert without_latex(entry[language]) == without_latex(told[language]), entry["id"]


def test_index_has_all_eleven_tables_built_or_not():
    tables = published.index()["tables"]
    assert [t["id"] for t in tables] == [f"T{i}" for i in range(1, 12)]
    assert "T3" in [t["id"] for t in tables if t["built"]]
    assert all(t["title_en"] and t["caption_zh"] for t in tables)


def test_survey_and_source_are_kept_apart():
    """A09: 7.32 against 7.24 is the only difference of errors; the source prints no epochs (A10)."""
    errors = {k: f for k, f in T3.figures.items() if k[1].endswith("error")}
    differ = {k: (f.survey, f.source) for k, f in errors.items() if f.survey != f.source}
    assert differ == {("a0_25", "ni_error"): (7.32, 7.24)}
    assert all(f.source is None for k, f in T3.figures.items() if k[1].endswith("epochs"))
    assert len(T3.figures) == 60 and [c.id for c in T3.claims] == [f"T3.C{i}" for i in range(1, 10)]


def test_every_data_column_says_which_data_may_stand_for_it():
    kinds = {kind for sets in T3.data.values() for kind in sets.values()}
    assert list(T3.data) == T3.data_columns == ["mnist", "ni", "cifar10"]
    assert kinds == {"same", "variant", "stand-in", "mechanics"}
    assert T3.data["ni"]["kdd_keel"] == "mechanics" and T3.data["cifar10"]["cifar10_jpeg"] == "variant"


def test_a_table_without_figures_is_one_clear_line():
    for table in ("T12", "T99", "spam"):
        with pytest.raises(FileNotFoundError, match=f"'{table}' has no published figures; there are: .*T3"):
            published.load(table)
