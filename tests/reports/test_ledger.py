"""The ledger, the audit and the pages of the methods: counts of the fact sheets, rules, what stands where."""

import csv
import io
import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from norms.build import METHODS
from reports import audit, ledger, methods, published, strips, verdicts
from reports import claims as claim_room
from tests.reports import synthetic
from tests.reports.html_checks import check_site
from tests.reports.test_site import build, mixed

TABLES = [f"T{i}" for i in range(1, 12)]
# Of each table: claims; on the survey's figures holds, fails, n/a; at the source holds, fails, stated,
# denied, n/a. Not computed from the published files: counted in the papers.
COUNTS = {
    "T1": (12, (7, 1, 4), (8, 1, 3, 0, 0)),
    "T2": (16, (6, 0, 10), (9, 1, 6, 0, 0)),
    "T3": (9, (8, 0, 1), (6, 0, 0, 0, 3)),
    "T4": (7, (4, 0, 3), (5, 0, 2, 0, 0)),
    "T5": (9, (2, 0, 7), (5, 4, 0, 0, 0)),
    "T6": (12, (10, 1, 1), (10, 1, 0, 0, 1)),
    "T7": (8, (4, 2, 2), (0, 0, 1, 0, 7)),
    "T8": (10, (2, 0, 8), (6, 2, 2, 0, 0)),
    "T9": (10, (6, 0, 4), (3, 4, 0, 0, 3)),
    "T10": (12, (0, 0, 12), (8, 3, 1, 0, 0)),
    "T11": (36, (1, 4, 31), (7, 3, 13, 4, 9)),
}


def line(claim="T3.C1", **changes):
    found = verdicts.ClaimResult(
        id=claim, sentence="s", inequality="a > b", survey=(1.0, "holds"), source=(None, "n/a"),
        margin=1.0, low=0.5, high=1.5, n=3, verdict="supported", label="", why="",
    )  # fmt: skip
    entry = ledger.entry(claim.split(".")[0], changes.pop("profile", "quick"), found)
    return {**entry, **changes}


@pytest.mark.parametrize("table", TABLES)
def test_every_claim_has_the_verdicts_counted_in_the_papers(table):
    pub = published.load(table)
    survey, source = Counter(), Counter()
    own = [c for c in pub.claims if not c.repeats]
    for claim in own:
        function = claim_room.of(table)[claim.id]
        survey[claim_room.on_printed(function, pub, "survey")[1]] += 1
        said = claim_room.on_printed(function, pub, "source")[1]
        told = ledger.source_of({"source": said, "source_says": claim.says})
        # T1.C8 is stated in words that the claim's function reads as a figure: parameters not finite
        source["stated" if claim.id == "T1.C8" else told] += 1
    n, on_survey, at_source = COUNTS[table]
    assert len(own) == n
    assert tuple(survey[k] for k in ("holds", "fails", "n/a")) == on_survey
    assert tuple(source[k] for k in ("holds", "fails", "stated", "denied", "n/a")) == at_source


def test_all_tables_have_141_claims():
    assert sum(n for n, *_ in COUNTS.values()) == 141


def test_words_stand_only_where_the_source_has_no_figures():
    for table in TABLES:
        for claim in published.load(table).claims:
            if claim.says:
                assert claim.source == "n/a" and claim.says.split(": ")[0] in ("stated", "denied"), claim.id


# ------------------------------------------------------------------------------------------------- lines


def test_the_line_that_counts():
    quick, cpu = line(), line(profile="cpu", ours="inconclusive", n=5)
    smoke = line(profile="smoke", ours="contradicted")
    assert ledger.best([quick, cpu, smoke]) is cpu  # the larger budget, whatever either finds
    decided = line(profile="cpu", ours="contradicted", n=5)
    assert ledger.best([quick, decided]) is decided
    one_seed = line(profile="cpu", ours="inconclusive", n=1)
    assert ledger.best([one_seed, quick]) is quick
    assert ledger.best([one_seed, line(ours="inconclusive", n=3)])["profile"] == "quick"
    parts = line(profile="cpu", ours="inconclusive", n=5, rests_on="1 of 3 parts not run")
    assert ledger.best([parts, quick]) is quick
    idle = line(profile="cpu", ours="not run", margin=None, n=0)
    assert ledger.best([idle, one_seed]) is one_seed and ledger.best([idle, parts]) is parts


def test_who_decides_the_opposite_is_named():
    cpu = line(profile="cpu", ours="contradicted", n=5)
    assert [c["otherwise"] for c in ledger.by_claim([line(), cpu])] == [["quick"]]
    assert ledger.by_claim([line(ours="inconclusive"), cpu])[0]["otherwise"] == []


def test_counts_leave_repeated_claims_out():
    claims = ledger.by_claim([line(), line("T4.M1", repeats="T4.C1"), line("T3.C2", ours="not run")])
    assert ledger.counts(claims) == {**dict.fromkeys(verdicts.VERDICTS, 0), "supported": 1, "not run": 1}
    assert ledger.counts(claims, repeats=True)["supported"] == 2


def test_what_surprises():
    against = line(ours="contradicted", margin=-1.0, low=-1.5, high=-0.5)
    assert ledger.surprising(against)
    assert not ledger.surprising(line())  # as printed
    assert not ledger.surprising({**against, "survey": "n/a"})  # nobody said otherwise
    assert ledger.surprising({**against, "survey": "n/a", "source_says": "stated: in words"})
    assert ledger.surprising(line(survey="n/a", source_says="denied: in words"))
    assert not ledger.surprising({**against, "rests_on": "early learning only: 0.8 % of the published steps"})
    assert not ledger.surprising({**against, "rests_on": "at chance: 3 of 3 of nin (mnist)"})


def test_surprises_on_the_surveys_data_come_first_then_the_clearest():
    stand_in = line(
        "T1.C1", ours="contradicted", margin=-9.0, low=-9.1, high=-8.9, rests_on="on x (stand-in)"
    )
    vague = line("T2.C1", ours="contradicted", margin=-1.0, low=-1.9, high=-0.1)
    clear = line("T3.C1", ours="contradicted", margin=-1.0, low=-1.1, high=-0.9)
    more = [{**clear, "claim": f"T3.C{i}"} for i in (2, 3, 4)]
    found = ledger.surprises([stand_in, vague, clear, *more])
    assert [c["claim"] for c in found] == ["T3.C1", "T3.C2", "T2.C1", "T1.C1"]  # two of a table at most
    assert len(ledger.surprises([stand_in, vague, clear], most=2)) == 2


def test_overturned_claims_fail_on_the_sources_figures():
    assert ledger.overturned([line(source="fails"), line(source="fails", survey="fails"), line()]) == [
        line(source="fails")
    ]


def test_exports_hold_every_number_and_null_for_none():
    found = verdicts.ClaimResult(
        id="T3.C1", sentence='says "a", b', inequality="a > b", survey=(math.inf, "holds"),
        source=(None, "n/a"), margin=0.1 + 0.2, low=None, high=1.5, n=3, verdict="inconclusive", label="",
        why="", needed=math.inf, effect=0.4,
    )  # fmt: skip
    lines = [ledger.entry("T3", "quick", found)]
    (row,) = csv.DictReader(io.StringIO(ledger.as_csv(lines)))
    assert list(row) == ledger.COLUMNS
    assert float(row["margin"]) == 0.1 + 0.2 and row["low"] == "" and row["sentence"] == 'says "a", b'
    assert row["seeds_needed"] == "more than 10000" and row["survey_margin"] == ""
    (told,) = json.loads(ledger.as_json(lines))
    assert told["margin"] == 0.1 + 0.2 and told["low"] is None and told["effect_size"] == 0.4
    (few,) = [ledger.entry("T3", "quick", replace(found, needed=7.0))]
    assert few["seeds_needed"] == 7


# --------------------------------------------------------------------------------------------- the audit


def test_the_audit_has_each_of_its_forty_entries_once():
    found = audit.entries()
    assert [e["id"] for e in found] == [f"A{i:02d}" for i in range(1, 41)]
    assert next(e for e in found if e["id"] == "A06")["tables"] == ["T2", "T9"]
    kinds = {"number", "label", "omission", "claim", "internal", "reference", "source", "open"}
    assert set(audit.kinds(found)) == kinds
    assert all(e["survey"] and e["source"] and e["consequence"] and "[" in e["mark"] for e in found)


def test_the_audit_counts_figures_that_differ():
    found = {t["table"]: t for t in audit.cells(TABLES)}
    unlike = {
        t: [(u["survey"], u["source"]) for u in found[t]["unlike"]] for t in TABLES if found[t]["unlike"]
    }
    assert unlike["T4"] == [("7 357", 7375)] and unlike["T3"] == [("7.32", 7.24)]
    assert len(unlike["T9"]) == 4 and set(unlike) == {"T2", "T3", "T4", "T9"}
    assert (found["T3"]["printed"], found["T3"]["both"]) == (60, 30)
    for table in unlike:  # each with the entry that explains it
        assert all(u["audit"] for u in found[table]["unlike"])


# -------------------------------------------------------------------------------------------- the methods


def test_methods_are_those_of_norms_word_for_word():
    found = {m.id: m for m in methods.known()}
    for name, method in METHODS.items():
        told = found[name]
        assert (told.line, told.paper, told.equation) == (method.line, method.paper, method.equation)
        assert told.use.startswith("norms.build(" if method.make else "norms.convert(")
        assert told.title != name
    assert set(found) - set(METHODS) == {"adabn", "coral"}


def test_formulas_are_escaped():
    assert methods.formula("y = gamma x / sqrt(mean(x^2) + eps)") == "y = γ x / √(mean(x²) + ε)"
    assert methods.formula("<b> mu_B") == "&lt;b&gt; μ<sub>B</sub>"


def test_cells_of_a_method_are_read_off_the_grid():
    points = [
        {"row": "a", "column": "cnn", "config": {"norm": {"name": "batch"}}},
        {"row": "a", "column": "rnn", "config": {"norm": {"name": "lstm_batch"}}},
        {"row": "b", "column": None, "config": {"norm": {"name": "none"}}},
        {"row": "c", "column": "cnn", "config": {"norm": {"name": "batch"}, "method": "adabn_coral"}},
        {"row": "a", "column": "cnn", "config": {"norm": {"name": "batch"}}},
        {"row": "d", "column": "cnn", "config": {}},
    ]
    found = methods.cells_of({"profiles": {"quick": {"points": points}, "cpu": {"points": points}}})
    assert found == {
        "batch": [["a", "cnn"]], "lstm_batch": [["a", "rnn"]], "none": [["b", ""]],
        "adabn": [["c", "cnn"]], "coral": [["c", "cnn"]],
    }  # fmt: skip
    line = {"row": "a", "cells": [{"id": "cnn", "mean": 1.0}, {"id": "rnn", "mean": 2.0}]}
    assert methods.narrowed([line], found["lstm_batch"]) == [{"row": "a", "cells": [line["cells"][1]]}]
    assert methods.narrowed([{**line, "row": "b"}], found["none"]) == [{**line, "row": "b"}]
    assert methods.narrowed([line], found["none"]) == []


# --------------------------------------------------------------------------------------------- the pages


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("ledger")
    out = build(root, mixed(synthetic.write_grid(root / "runs")))
    return out, check_site(out)


def test_the_ledger_agrees_with_the_tables_page(made):
    out, pages = made
    lines = json.loads((out / "downloads/claims.json").read_text())
    assert len({x["claim"] for x in lines if not x["repeats"]}) == 141
    page = json.loads((out / "downloads/T3_quick.json").read_text())
    for claim in page["claims"]:
        mine = next(x for x in lines if x["claim"] == claim["id"])
        assert mine["ours"] == claim["verdict"] and mine["margin"] == claim["margin"]
    shown = {row[0]: row for row in pages["claims.html"].tables[0][1:]}
    decided = {x["claim"]: x["ours"] for x in lines}
    assert len(shown) == len(decided)
    assert all(shown[claim][5] == verdict for claim, verdict in decided.items())


def test_front_page_counts_every_claim_once(made):
    _, pages = made
    assert "Of 141 claims" in pages["index.html"].text
    assert len(pages["index.html"].raw) < 1_000_000


def test_the_page_of_a_method_shows_its_rows_and_claims(made):
    out, pages = made
    page = pages["method_diminishing.html"]
    text = page.text
    assert "T3.C1" in text and "Ma & Klabjan 2017" in text and 'norms.build("diminishing", C)' in text
    cells = json.loads((out / "downloads/T3_quick.json").read_text())["cells"]
    ours = next(c for c in cells if (c["row"], c["column"], c["metric"]) == ("a1", "mnist", "test_error"))
    rows = [row for table in page.tables for row in table if row and f"{ours['mean']:.2f}" in row[-2]]
    assert any("mnist5k" in " ".join(row) for row in rows)
    assert "No table of the survey has a row of it" in pages["method_dyt.html"].text
    assert not [p for p in Path(out).glob("method_*.html") if p.name not in pages]


def test_every_run_stands_on_the_page_that_filters_them(made):
    _, pages = made
    table = pages["table_03_runs.html"].tables[0]
    records = mixed()
    assert len(table) - 1 == len({(r["run_id"]) for r in records})
    assert 'class="sorts"' in pages["table_03_runs.html"].raw


def test_pages_cite_the_survey_and_the_tables_source(made):
    _, pages = made
    text = pages["table_03.html"].text
    assert "@article{liu2020batch" in text and "@article{ma2024diminishing" in text


# ---------------------------------------------------------------------------------------------- pictures


def test_a_strip_puts_zero_margin_and_seeds_in_their_order():
    svg = strips.strip(1.0, -1.0, 3.0, [0.5, 1.5])
    at = {k: float(svg.split(f'class="{k}" d="M')[1].split(" ")[0]) for k in ("zero", "span", "seed")}
    ring = float(svg.split('cx="')[1].split('"')[0])
    assert at["span"] < at["zero"] < at["seed"] < ring
    assert svg.count('class="seed"') == 2 and 'role="img"' in svg


def test_a_strip_without_interval_or_margin():
    assert strips.strip(None, None, None, []) == ""
    assert 'class="span"' not in strips.strip(1.0, None, None, [1.0])
    assert 'd="M0 ' in strips.strip(1.0, None, 2.0, [1.0])  # open at one end
    assert strips.strip(0.0, 0.0, 0.0, [])
