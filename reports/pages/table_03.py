"""What the page of Table 3 has of its own: error against alpha, learning curves, and the question which
reading of the paper gives the published pattern.
"""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from markupsafe import Markup

from reports import analysis, figures, pattern, store
from reports.figures import Series, pretty, slug
from reports.published import Published

SEEDS_DRAWN = 20
SHOWN = ["test_error", "test_error_best", "epoch_best_val"]  # metrics with a table in the open
RUN_METRIC = "test_error"  # of one run, in the lists
NOTE = (
    "Survey and source: single printed numbers. Ours: mean ± sd (n - 1) over n seeds, below it the 95 % "
    "interval. Diverged runs count as 100 % error. A difference in brackets is one to a number measured "
    "on other data. Of our two errors the first chooses the epoch on a validation split and is the one "
    "that fills the cell; the second chooses it on the test set as the source did, is biased downwards, "
    "and takes part in no claim."
)
README = "test error in per cent: mean ± sd, epoch chosen on validation"
ALT = "error against alpha"  # of the README's pictures


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_03.html."""
    found = pattern.variants(report.runs, report.published, grid.get("primary", {}))
    return {
        "variants": found,
        "answers": answers(report.published, found),
        "svgs": draw_pattern(report, found),
        "features": pattern.FEATURES,
    }


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README."""
    cells = report.runs[(report.runs["match"] == "cell") & (report.runs["status"] != "failed")]
    by_column = {c: cells[cells["column"] == c] for c in report.published.data_columns}
    return {c: error_figure(report, c, mine) for c, mine in by_column.items() if len(mine)}


def files(report: analysis.TableReport) -> dict[str, str]:
    """Further downloads: ending of the file's name -> content."""
    return {}


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}, one a data column that has runs."""
    pub, runs = report.published, report.runs
    cells = runs[(runs["match"] == "cell") & (runs["status"] != "failed")]
    error, learning, variance = [], [], []
    for column in pub.data_columns:
        mine = cells[cells["column"] == column]
        if len(mine):
            error.append(Markup(error_figure(report, column, mine)))
            learning.append(Markup(learning_figure(report, column, mine)))
            variance.append(Markup(variance_figure(report, column, mine)))
    notes = {
        "error": "Filled: our means, epoch chosen on the validation split, with 95 % intervals. Triangles: "
        "the same runs at their best epoch on the test set, as the source chose. Hollow and crossed: what "
        "the survey and the source paper print, on their data.",
        "learning": "Thick: mean over seeds. Thin: single seeds, or a min-max band from 6 seeds on "
        f"(at most {SEEDS_DRAWN} seeds a line).",
        "variance": "Half the mean squared difference between successive epochs, second half of training. "
        "One dot a seed, bar at the median.",
    }
    groups = [
        {"title": f"Error against {pub.row_header['en']}", "svgs": error, "note": notes["error"]},
        {"title": "Learning curves", "svgs": learning, "note": notes["learning"]},
        {"title": "Epoch-to-epoch variance of the test error", "svgs": variance, "note": notes["variance"]},
    ]
    return groups if error else []


def heading(pub: Published, column: str, runs: pd.DataFrame) -> tuple[str, str]:
    """(title, label of the error axis) of a data column."""
    data = ", ".join(sorted(set(runs["data.name"].astype(str))))
    title = pub.group(column) if data == column else f"{pub.group(column)} (ours: {data})"
    balanced = set(runs["data.error"].dropna()) == {"balanced_error"}
    return title, "balanced test error (%)" if balanced else "test error (%)"


def error_figure(report: analysis.TableReport, column: str, runs: pd.DataFrame) -> str:
    pub = report.published
    title, label = heading(pub, column, runs)
    order = {row.id: i for i, row in enumerate(pub.rows)}

    def series(metric: str, key: str, name: str) -> Series:
        mine = report.cells[(report.cells["column"] == column) & (report.cells["metric"] == metric)]
        mine = mine[mine[key].notna()]
        x = [order[row] for row in mine["row"]]
        value, low, high = (mine[k].astype(float).tolist() for k in (key, "low", "high"))
        return Series(name, x, value, low, high) if key == "mean" else Series(name, x, value)

    lines = [
        series("test_error", "survey", "survey"),
        series("test_error", "source", "source paper"),
        series("test_error", "mean", "ours, 95 % interval"),
        series("test_error_best", "mean", "ours, best on test"),
    ]
    labels = [pretty(row.en) for row in pub.rows]
    name = f"error-{slug(report.profile)}-{column}"
    return figures.points(name, title, labels, lines, xlabel=pub.row_header["en"], ylabel=label)


def learning_figure(report: analysis.TableReport, column: str, runs: pd.DataFrame) -> str:
    title, label = heading(report.published, column, runs)
    by_row = dict(iter(runs.sort_values("seed").groupby("row")))
    lines = []
    for row in report.published.rows:
        if row.id in by_row:
            found = store.heavy(by_row[row.id].head(SEEDS_DRAWN), "curves")
            pairs = [
                (c["epoch"], c["test_error"]) for c in found if c and c.get("epoch") and c.get("test_error")
            ]
            lines.append(figures.mean_curve(pretty(row.en), pairs))
    name = f"curves-{slug(report.profile)}-{column}"
    return figures.curves(name, title, [line for line in lines if len(line.x)], ylabel=label)


def variance_figure(report: analysis.TableReport, column: str, runs: pd.DataFrame) -> str:
    pub = report.published
    title, _ = heading(pub, column, runs)
    by_row = {row: group["metrics.test_error_variance"].tolist() for row, group in runs.groupby("row")}
    labels, values = [pretty(row.en) for row in pub.rows], [by_row.get(row.id, []) for row in pub.rows]
    name, axis = f"variance-{slug(report.profile)}-{column}", "epoch-to-epoch variance (%²)"
    return figures.strip(name, title, labels, values, xlabel=pub.row_header["en"], ylabel=axis)


# --------------------------------------------------------------------------------- which reading is it?


def draw_pattern(report: analysis.TableReport, found: list[pattern.Variant]) -> list[Markup]:
    pub = report.published
    out = []
    for column in pub.data_columns:
        here = [v for v in found if v.column == column]
        placement = next((v.placement for v in here if v.primary), here[0].placement if here else "")
        mine = sorted((v for v in here if v.placement == placement), key=lambda v: v.unit)
        if len(mine) < 2:
            continue
        panels: dict[tuple[str, str], list[Series]] = {}
        for v in mine:
            x = [i for i, e in enumerate(v.errors) if not math.isnan(e)]
            line = Series(f"ours, m counts {v.unit}s", x, [v.errors[i] for i in x])
            panels.setdefault((v.initial, f"reading {v.reading}"), []).append(line)
        rows = [r for r in ("zero_one", "zero_zero", "first_batch") if any(r == key[0] for key in panels)]
        printed = [math.nan if p is None else p for p in pattern.printed(pub, column)]
        svg = figures.pattern(
            f"pattern-{slug(report.profile)}-{column}",
            f"{pub.group(column)} (ours: {mine[0].data}), layer {placement} the activation",
            [pretty(row.en) for row in pub.rows],
            printed,
            panels,
            rows,
            sorted({key[1] for key in panels}),
            xlabel=pub.row_header["en"],
            ylabel="test error (%)",
        )
        out.append(Markup(svg))
    return out


def answers(pub: Published, found: list[pattern.Variant]) -> list[dict[str, str]]:
    """Some sentences a data column: which variants show every feature of the printed table, which is near."""
    out, full = [], []
    for column in pub.data_columns:
        mine = [v for v in found if v.column == column]
        shaped = sorted((v for v in mine if v.distance is not None), key=lambda v: v.distance or 0.0)
        if len(mine) < 2 or not shaped:
            continue
        most = max(v.score for v in mine)
        best = [v.name for v in mine if v.score == most]
        full.append({v.name for v in mine if v.score == len(pattern.FEATURES)})
        all_four = most == len(pattern.FEATURES)
        text = (
            f"All four features: {len(best)} of {len(mine)} variants"
            if all_four
            else f"At most {most} of the four features"
        )
        text += f" ({some(best)})."
        near, far = shaped[0], shaped[-1]
        text += f" Nearest in shape: {near.name} (off by {near.distance:.2f}×)"
        text += f"; furthest: {far.name} ({far.distance:.2f}×)."
        first = next((v for v in shaped if v.primary and v is not near), None)
        text += f" The primary variant is off by {first.distance:.2f}×." if first else ""
        fewest = min(v.n for v in mine)
        lacking = sum(any(map(math.isnan, v.errors)) for v in mine)
        text += f" {lacking} of the {len(mine)} variants lack rows and cannot show all." if lacking else ""
        text += f" With n = {fewest}, differences of a few per cent are noise." if fewest < 10 else ""
        out.append({"group": pub.group(column), "data": mine[0].data, "text": text})
    if len(out) > 1:
        everywhere = sorted(set.intersection(*full))
        text = (
            f"All four features in each: {some(everywhere)}."
            if everywhere
            else "No variant has all four features in each."
        )
        out.insert(0, {"group": f"The {len(out)} data columns together", "data": "", "text": text})
    return out


def some(names: list[str], most: int = 4) -> str:
    more = f"; and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more


def commands(report: analysis.TableReport, plan: dict[str, Any]) -> list[tuple[str, str]]:
    """(cell, the exact command that fills it) for every point of the profile's grid."""
    pub, axis = report.published, report.published.row_header["en"]
    rows = {row.id: row for row in pub.rows}
    start = f"python -m experiments -m table={report.table} profile={report.profile}"
    return [
        (
            f"{pub.group(point['column'])}, {axis} = {pretty(rows[point['row']].en)}",
            f"{start} column={point['column']} {axis}={rows[point['row']].value}",
        )
        for point in plan.get("points", [])
        if point["row"] in rows
    ]
