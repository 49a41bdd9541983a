"""Records + published figures -> one TableReport: cells, labelled extra rows, claims with verdicts, deviations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from reports.published import Published

VERDICTS = ("supported", "contradicted", "inconclusive", "not comparable", "not run")

# Columns of TableReport.cells. One row per (row, column, metric), also where nothing ran. `metric` is a metric id of the
# published file (test_error, epoch_best_val, test_error_best, ...); `column` a column of the records (mnist, ni, cifar10).
CELLS = [
    "row", "column", "metric", "survey", "source", "mean", "sd", "n", "low", "high", "difference",
    "diverged", "failed", "stale", "data", "standing", "origin", "runs",
]  # fmt: skip
# mean, sd, low, high, difference: NaN where missing. difference = mean - survey. data: the variant's own name ("mnist5k", "" where not run);
# standing: same | variant | stand-in | mechanics | unknown | "". origin: measured | here | mixed | "". runs: list of run ids.
EXTRA = ["label", "match", *CELLS]  # match: "variant" (row = the survey's row) | "norm" (not in the survey: row = "")


@dataclass
class Component:
    """One part of a claim, in the claim's order."""

    name: str
    column: str
    margin: float | None
    low: float | None
    high: float | None
    n: int
    verdict: str  # as for claims; "not comparable" and "not run" parts have no interval
    why: str = ""


@dataclass
class ClaimResult:
    id: str
    sentence: str
    inequality: str
    survey: tuple[float | None, str]  # margin of the worst part (None = n/a), holds | fails | n/a
    source: tuple[float | None, str]
    margin: float | None  # ours: the worst part's margin; > 0 means that the claim is met
    low: float | None
    high: float | None
    n: int  # the fewest seeds behind any part
    verdict: str  # one of VERDICTS
    label: str  # what the verdict rests on: "", "on mnist5k (stand-in); without ni (kdd_keel: mechanics)" ...
    why: str  # one sentence
    components: list[Component] = field(default_factory=list)


@dataclass
class TableReport:
    table: str
    title: str
    profile: str
    published: Published
    cells: pd.DataFrame  # columns CELLS
    extra: pd.DataFrame  # columns EXTRA
    claims: list[ClaimResult]
    deviations: pd.DataFrame  # column, key, paper, ran, rows ("all" or a list of row ids as text)
    runs: pd.DataFrame  # the store's rows behind it + match (cell | variant | norm), row, column, label, stale
    damaged: int = 0
    notes: list[str] = field(default_factory=list)


def analyse(
    frame: pd.DataFrame,
    grid: dict[str, Any],
    paper: dict[str, Any],
    published: Published,
    profile: str,
    damaged: int = 0,
) -> TableReport:
    """The report of one table and one profile from all records; `grid` and `paper` are the store's for this table."""
    cells = []
    for row in published.rows:
        for column in published.data_columns:
            for metric in published.metrics:
                figure = published.figure(row.id, column, metric.printed)
                cells.append(
                    {"row": row.id, "column": column, "metric": metric.id, "n": 0, "diverged": 0, "failed": 0, "stale": 0}
                    | {"survey": figure.survey if figure else None, "source": figure.source if figure else None}
                    | {"data": "", "standing": "", "origin": "", "runs": []}
                )
    claims = [
        ClaimResult(c.id, c.sentence, c.inequality, (None, c.survey), (None, c.source), None, None, None, 0, "not run", "", "")
        for c in published.claims
    ]
    return TableReport(
        table=published.table,
        title=published.title_en,
        profile=profile,
        published=published,
        cells=pd.DataFrame(cells, columns=CELLS),
        extra=pd.DataFrame(columns=EXTRA),
        claims=claims,
        deviations=pd.DataFrame(columns=["column", "key", "paper", "ran", "rows"]),
        runs=frame.iloc[:0],
        damaged=damaged,
    )
