"""What the pages of the tables on pictures and speech share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from reports import analysis, figures, store, tables
from reports.figures import Series, slug
from reports.statistics import Sample, summary


def of_cells(report: analysis.TableReport, column: str) -> pd.DataFrame:
    """The runs that stand in cells of a column."""
    found = report.by_column
    return found[column] if column in found else report.runs.iloc[:0]


def columns_of(report: analysis.TableReport) -> list[str]:
    """The columns that have runs in cells."""
    return [c for c in report.published.data_columns if len(of_cells(report, c))]


def data_of(report: analysis.TableReport, column: str) -> str:
    """The data set that a column's cells ran on; "" where nothing ran."""
    runs = of_cells(report, column)
    return ", ".join(sorted(set(runs["data.name"].astype(str)))) if len(runs) else ""


def titled(report: analysis.TableReport, column: str) -> str:
    """CIFAR-10 (ours: glyphs)."""
    name, data = report.published.group(column), data_of(report, column)
    return f"{name} (ours: {data})" if data else name


def commands(report: analysis.TableReport, plan: dict[str, Any]) -> list[tuple[str, str]]:
    """(cell, the exact command that fills it) for every point of the profile's grid."""
    pub = report.published
    names = {row.id: row.en for row in pub.rows}
    start = f"python -m experiments -m table={report.table} profile={report.profile}"
    return [
        (f"{pub.group(p['column'])}, {names[p['row']]}", f"{start} column={p['column']} row={p['row']}")
        for p in plan.get("points", [])
        if p["row"] in names
    ]


# -------------------------------------------------------------------------------------------------- numbers


def cell(report: analysis.TableReport, row: str, column: str, metric: str) -> dict[str, Any]:
    """One line of the report's cells; {} for a row that the column does not have."""
    return dict(report.lines.get((row, column, metric), {}))


def text(report: analysis.TableReport, row: str, column: str) -> str:
    """The error's mean ± sd, interval, n, and how many runs did not get away from chance; "" where nothing
    ran.
    """
    c = cell(report, row, column, "test_error")
    if not c or not c["n"]:
        return ""
    limits = "" if math.isnan(c["low"]) else f" ({c['low']:.2f} to {c['high']:.2f})"
    return f"{tables.mean_sd(c, 2)}{limits}, n = {c['n']}{stuck(report, row, column)}"


def outcome(report: analysis.TableReport, row: str, column: str) -> str:
    """The same, with how many runs diverged."""
    lost = cell(report, row, column, "test_error").get("diverged", 0)
    return text(report, row, column) + (f", {lost} diverged" if lost else "")


def stuck(report: analysis.TableReport, row: str, column: str) -> str:
    """How many of the runs are at chance, as in ", 2 of them at chance"."""
    hits, _ = report.stuck.get((row, column), (0, 0))
    return f", {hits} of them at chance" if hits else ""


def values(report: analysis.TableReport, row: str, column: str) -> dict[int, float]:
    """Test error by seed; a run that diverged counts as all wrong."""
    return dict(report.by_seed("test_error", 100.0).get((row, column), {}))


def by_seed(report: analysis.TableReport, row: str, column: str, metric: str) -> dict[int, float]:
    """Any metric by seed; a run that diverged counts as that metric says."""
    lost = report.published.metric(metric).lost
    found = report.by_seed(metric, math.nan if lost is None else lost).get((row, column), {})
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def gain(report: analysis.TableReport, better: str, than: str, column: str) -> str:
    """Points of error that a row saves against another, seed by seed, with the interval; "" where one of
    them did not run.
    """
    one, other = values(report, better, column), values(report, than, column)
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return ""
    found = summary(Sample({seed: other[seed] - one[seed] for seed in seeds}))
    limits = "" if math.isnan(found.low) else f", {found.low:+.2f} to {found.high:+.2f}"
    return f"{found.mean:+.2f} points{limits} (n = {found.n})"


# -------------------------------------------------------------------------------------------------- figures


def by_row(
    report: analysis.TableReport,
    column: str,
    rows: Sequence[str],
    metric: str,
    label: str,
    names: Mapping[str, str],
    linear: bool = False,
) -> str:
    """A metric of each row, beside what is printed; "" where nothing ran."""
    cells = report.cells
    mine = cells[(cells["column"] == column) & (cells["metric"] == metric) & cells["row"].isin(list(rows))]
    rows = [row for row in rows if (mine[mine["row"] == row]["n"] > 0).any()]
    if not rows:
        return ""

    def series(key: str, name: str) -> Series:
        some = mine[mine[key].notna() & mine["row"].isin(rows)]
        some = some.sort_values("row", key=lambda names: names.map(rows.index))
        x = [rows.index(row) for row in some["row"]]
        value, low, high = (some[k].astype(float).tolist() for k in (key, "low", "high"))
        return Series(name, x, value, low, high) if key == "mean" else Series(name, x, value)

    lines = [
        series("survey", "survey"),
        series("source", "source paper"),
        series("mean", "ours, 95 % interval"),
    ]
    which = hashlib.sha256(" ".join(rows).encode()).hexdigest()[:6]  # a page may have two of as many rows
    name, labels = f"{metric}-{slug(report.profile)}-{column}-{which}", [names[row] for row in rows]
    title = titled(report, column)
    return figures.points(name, title, labels, lines, xlabel="row", ylabel=label, linear=linear)


def mean_curves(
    report: analysis.TableReport,
    column: str,
    rows: Sequence[str],
    key: str,
    x: str = "epoch",
    names: Mapping[str, str] | None = None,
) -> list[tuple[int, Series]]:
    """(place among the table's main rows, mean over seeds) of each of the rows that has the curve."""
    runs, lines = of_cells(report, column), []
    for place, row in enumerate(report.published.main_rows):
        if row.id in rows:
            found = store.heavy(runs[runs["row"] == row.id], "curves")
            pairs = [(c[x], c[key]) for c in found if c and c.get(x) and c.get(key)]
            if len((line := figures.mean_curve((names or {}).get(row.id, row.en), pairs)).x):
                lines.append((place, line))
    return lines


def learning(
    report: analysis.TableReport,
    column: str,
    key: str,
    label: str,
    rows: Sequence[str] = (),
    names: Mapping[str, str] | None = None,
) -> str:
    """A curve of each of the main rows, or of these, over the epochs."""
    rows = rows or [r.id for r in report.published.main_rows]
    lines = mean_curves(report, column, rows, key, names=names)
    name, title = f"{key}-curves-{slug(report.profile)}-{column}", titled(report, column)
    places, shown = [place for place, _ in lines], [line for _, line in lines]
    return figures.curves(name, title, shown, ylabel=label, linear=True, ordered=False, places=places)


def to_target(report: analysis.TableReport, column: str, told: str) -> str:
    """Steps to the target, a dot a seed."""
    runs = of_cells(report, column)
    rows = [r for r in report.published.main_rows if (runs["row"] == r.id).any()]
    found = [runs.loc[runs["row"] == r.id, "metrics.steps_to_target"].tolist() for r in rows]
    name, title = f"target-{slug(report.profile)}-{column}", titled(report, column)
    return figures.strip(name, title, [r.en for r in rows], found, xlabel="row", ylabel=told)
