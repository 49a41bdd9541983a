"""The facts: what the survey and its sources print, one YAML file a table (`table_03.yaml`), read into
plain dataclasses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Column:
    """A printed column. `data` is the column id that records carry (mnist), `metric` what is printed there
    (error, epochs).
    """

    id: str
    data: str
    metric: str
    zh: str
    en: str
    unit: str
    better: str | None
    group: str


@dataclass(frozen=True)
class Row:
    id: str
    zh: str
    en: str
    value: float | str | None = None  # the swept value as configs spell it
    # fnn: a network that Table 5 also ranks among networks; ablation: ours, shown apart; printed: never run
    kind: str = ""
    columns: tuple[str, ...] = ()  # the data columns that have this row; () = all
    target: str = ""  # the row whose best validation error is this row's target; "": the table's `target`
    epoch_of: str = ""  # the row at whose best epoch this row's figures are read too, as epochs.py says


@dataclass(frozen=True)
class Metric:
    """One of our metrics: `printed` names the printed metric it stands beside, `claim` the name under which
    claims see it.
    """

    id: str
    short: str  # heading of a narrow column
    en: str
    unit: str
    digits: int
    better: str | None
    role: str  # cell | labelled
    printed: str | None = None
    claim: str | None = None
    per_example: bool = False  # True: a mean over test examples, so records' `wrong` masks or `scores` apply
    floor: float | None = None  # what no mean of it can lie below
    diverged: float | None = None  # what a diverged run counts as; by default 100 for a metric in %
    comparable: bool = (
        True  # False: ours and the printed numbers have different scales, only their order compares
    )
    constant: bool = False  # known, not measured: the accuracy of chance; takes no part in a claim's spread
    exact: bool = False  # 0 in every run is 0, and not a mean without a spread
    resolution: float = 0.0  # step of the grid on which it is measured, uniform over which is its error
    median: bool = False  # a cell prints the median of its runs, in which a miss (infinity) takes part
    columns: tuple[str, ...] = ()  # the data columns that have this metric; () = all

    @property
    def lost(self) -> float | None:
        """The value of a diverged run, whatever it had reached before; None: its own."""
        if self.diverged is None and self.unit == "%":
            return 0.0 if self.better == "higher" else 100.0
        return self.diverged


@dataclass(frozen=True)
class Figure:
    """One printed number: the survey's value and its source's, never merged."""

    row: str
    column: str
    survey: float | None
    source: float | None
    printed: str = ""
    audit: tuple[str, ...] = ()
    source_sd: float | None = None
    mark: str = ""  # how the source's value is known, where that differs from cell to cell: [memory]


@dataclass(frozen=True)
class Claim:
    id: str
    sentence: str
    inequality: str
    survey: str  # holds | fails | n/a, as the fact sheet states it
    source: str
    says: str = ""  # "stated: why", "denied: why": what the source says where it prints no figures for it
    repeats: str = (
        ""  # the claim that this one asks of data on which nothing is printed; "": the survey's own
    )


@dataclass(frozen=True)
class Audit:
    id: str
    where: str
    survey: str
    source: str
    kind: str
    consequence: str
    mark: str
    cite: str = ""  # what is compared with; "": the table's source


@dataclass(frozen=True)
class Word:
    """A cell of a table of words (Table 11)."""

    row: str
    column: str
    zh: str
    en: str
    claims: tuple[str, ...] = ()  # that measure it
    audit: tuple[str, ...] = ()
    why: str = ""  # of a cell without a claim: why there is none


@dataclass(frozen=True)
class Anchor:
    """A point of a public learning curve, neither the survey's nor its source's: drawn, never compared."""

    column: str  # as records name it
    agent: str
    x: float  # millions of frames
    value: float
    sd: float | None = None  # over its seeds


@dataclass(frozen=True)
class Published:
    table: str
    title_zh: str
    title_en: str
    caption_zh: str
    caption_en: str
    source: str
    source_version: str
    row_header: dict[str, str]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    metrics: tuple[Metric, ...]
    data: dict[str, dict[str, str]]  # records' column -> data set -> same | variant | stand-in | mechanics
    claims: tuple[Claim, ...]
    audit: tuple[Audit, ...]
    figures: dict[tuple[str, str], Figure]  # (row id, column id) -> printed number
    trials: str = (
        ""  # records are trials of a grid search: the axis that the record's column is; others searched
    )
    selections: dict[str, tuple[float, float]] = field(default_factory=dict)  # column -> rows N from, below
    # column -> data set -> [pictures to train and validate on, to test on] of the paper's data
    sizes: dict[str, dict[str, list[int]]] = field(default_factory=dict)
    target: str = ""  # the row whose best validation accuracy is the others' target
    beside: str = ""  # a row that the others' steps to the target are divided into as well
    relative_to: str = ""  # the row by whose mean over seeds the main metric is divided, as relative.py says
    lengths: dict[str, float] = field(default_factory=dict)  # column -> steps of training as published
    words: tuple[Word, ...] = ()
    own: dict[str, str] = field(default_factory=dict)  # names of records' columns that nobody has printed
    anchors: tuple[Anchor, ...] = ()
    references: dict[str, dict[str, float]] = field(default_factory=dict)  # column -> name -> known score
    # column that the paper profile does not have -> the one whose settings it is held against
    stands_for: dict[str, str] = field(default_factory=dict)

    @property
    def survey_rows(self) -> list[str]:
        """Ids of the rows that the survey prints; of a table of words those that it names."""
        if self.words:
            return [r.id for r in self.rows if r.zh]
        return [
            r.id
            for r in self.rows
            if any(f.survey is not None for k, f in self.figures.items() if k[0] == r.id)
        ]

    @property
    def data_columns(self) -> list[str]:
        """Columns as the records name them, in printed order."""
        return list(dict.fromkeys(c.data for c in self.columns))

    def rows_of(self, data: str) -> list[Row]:
        """The rows that a column of the records has."""
        return [row for row in self.rows if not row.columns or data in row.columns]

    def target_of(self, row: str) -> str:
        """The row whose run of the same seed and column sets the target of this row's runs; "" without."""
        return next((r.target for r in self.rows if r.id == row), "") or self.target

    @property
    def targets(self) -> set[str]:
        """The rows that set targets."""
        return {row for row in (self.target, *(r.target for r in self.rows)) if row}

    @property
    def main_rows(self) -> list[Row]:
        """The rows of the comparison: all but those of an ablation."""
        return [row for row in self.rows if row.kind != "ablation"]

    @property
    def printed_rows(self) -> set[str]:
        """The rows of the source that no profile runs."""
        return {row.id for row in self.rows if row.kind == "printed"}

    def column(self, data: str, metric: str | None) -> Column | None:
        return next((c for c in self.columns if c.data == data and c.metric == metric), None)

    def metric(self, id: str) -> Metric:
        return next(m for m in self.metrics if m.id == id)

    def metrics_of(self, data: str) -> list[Metric]:
        """The metrics that a column of the records has, the main one first."""
        return [m for m in self.metrics if not m.columns or data in m.columns]

    def figure(self, row: str, data: str, metric: str | None) -> Figure | None:
        """The printed number of a row, a column of the records and a printed metric; None where nothing is
        printed.
        """
        column = self.column(data, metric)
        return self.figures.get((row, column.id)) if column else None

    def group(self, data: str) -> str:
        """The printed heading over a column of the records ("MNIST")."""
        return next((c.group for c in self.columns if c.data == data), self.own.get(data, data))


def path(table: str) -> Path:
    return FOLDER / f"table_{int(table.removeprefix('T')):02d}.yaml"


def parsed(text: str) -> Any:
    """YAML as `yaml.safe_load` reads it; with libyaml, where PyYAML has it, in a seventh of the time."""
    return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def index() -> dict[str, Any]:
    """`{"survey": {...}, "tables": [{id, caption_zh, caption_en, title_en, source, built}]}`: all tables,
    built here or not.
    """
    found = parsed((FOLDER / "index.yaml").read_text(encoding="utf-8"))
    for entry in found["tables"]:
        entry["built"] = path(entry["id"]).exists()
    return found


def audit() -> list[tuple[Audit, list[str]]]:
    """Every entry of the survey audit by its number, with the tables in whose files it stands; an entry of
    two tables once, as the first says it.
    """
    found: dict[str, tuple[Audit, list[str]]] = {}
    for entry in (e for e in index()["tables"] if e["built"]):
        for one in load(entry["id"]).audit:
            found.setdefault(one.id, (one, []))[1].append(entry["id"])
    for facts in index()["audit"]:
        found[facts["id"]] = (Audit(**facts), [])
    return [found[id] for id in sorted(found)]


@cache
def load(table: str) -> Published:
    """The published facts of a table ("T3"). Raises FileNotFoundError for a table that is not built."""
    try:
        text = path(table).read_text(encoding="utf-8")
    except (FileNotFoundError, ValueError) as error:
        built = [entry["id"] for entry in index()["tables"] if entry["built"]]
        known = ", ".join(built)
        raise FileNotFoundError(f"table {table!r} has no published figures; there are: {known}") from error
    facts = parsed(text)
    figures = [Figure(**{**cell, "audit": tuple(cell.get("audit", ()))}) for cell in facts.pop("cells")]
    spans = facts.pop("selections", {}).items()
    return Published(
        selections={k: (float(low), math.inf if high is None else float(high)) for k, (low, high) in spans},
        columns=tuple(Column(**c) for c in facts.pop("columns")),
        rows=tuple(Row(**{**r, "columns": tuple(r.get("columns", ()))}) for r in facts.pop("rows")),
        metrics=tuple(Metric(**{**m, "columns": tuple(m.get("columns", ()))}) for m in facts.pop("metrics")),
        claims=tuple(Claim(**c) for c in facts.pop("claims")),
        audit=tuple(Audit(**a) for a in facts.pop("audit")),
        anchors=tuple(Anchor(**a) for a in facts.pop("anchors", ())),
        words=tuple(
            Word(**{**w, **{k: tuple(w.get(k, ())) for k in ("claims", "audit")}})
            for w in facts.pop("words", ())
        ),
        figures={(f.row, f.column): f for f in figures},
        **facts,
    )
