"""The results section of the README, written from the committed snapshot between two marks: nothing in it is
typed.

<!-- begin: python -m reports readme table=T3 --> <!-- end -->
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from reports import figures, pages, site, store, tables
from reports.analysis import TableReport

FEW = 3  # columns whose data are named one by one
ORDER = ("cpu", "quick")  # the profiles worth a newcomer's look, best data first


def update(readme: Path, measured: Path, table: str) -> str:
    """Rewrite the section of `table` and its pictures (measured/<table>/<column>.svg). Returns a line saying
    what was done.

    Raises ValueError where the README has no such section or the snapshot nothing to show.
    """
    text = readme.read_text(encoding="utf-8")
    begin = f"<!-- begin: python -m reports readme table={table} -->\n"
    found = re.search(re.escape(begin) + r".*?(?=<!-- end -->)", text, flags=re.S)
    if not found:
        raise ValueError(f"{readme} has no line {begin.strip()!r} followed by <!-- end -->")
    reports = of_snapshot(measured, table)
    pictures = save_pictures(reports, measured / table)
    paths = [os.path.relpath(path, readme.parent) for path in pictures]
    new = begin + section(reports, paths)
    readme.write_text(text.replace(found.group(), new), encoding="utf-8")
    return (
        f"{readme}: {', '.join(r.profile for r in reports)}; {len(pictures)} pictures in {measured / table}"
    )


def of_snapshot(measured: Path, table: str) -> list[TableReport]:
    loaded = store.load(measured / "nothing", measured, table=table)
    reports = [site.analyse(loaded, table, profile) for profile in ORDER]
    reports = [r for r in reports if (r.cells["n"] > 0).any()]
    if not reports:
        raise ValueError(
            f"no records of {table} in {measured}: python -m reports snapshot table={table} puts them there"
        )
    return reports


def save_pictures(reports: list[TableReport], folder: Path) -> list[Path]:
    """Each picture from the first of the reports that has it."""
    out: list[Path] = []
    found: dict[str, str] = {}
    for report in reports:
        found = {**pages.of(report.table).pictures(report), **found}
    for name, svg in found.items():
        (folder / f"{name}.svg").write_text(figures.on_white(svg), encoding="utf-8")
        out.append(folder / f"{name}.svg")
    return out


def section(reports: list[TableReport], pictures: list[str]) -> str:
    own = pages.of(reports[0].table)
    lines = [
        f"**{reports[0].title}**, {own.README}.",
        "",
    ]
    for report in reports:
        lines += [
            f"Profile `{report.profile}`: {'; '.join(bases(report))}." + standing_of_code(report),
            "",
            *table_of(report),
            "",
        ]
    lines += [
        " ".join(f'<img src="{path}" width="{96 // len(pictures)}%" alt="{own.ALT}">' for path in pictures),
        "",
    ]
    lines += [
        "Verdicts on the claims (below three seeds always inconclusive):",
        "",
        *table_of_claims(reports),
    ]
    return "\n".join(lines) + "\n"


def cells_of(report: TableReport, column: str, metric: str = "") -> dict[str, dict[str, Any]]:
    """Row -> cell of a metric, by default the first."""
    metric = metric or report.published.metrics_of(column)[0].id
    mine = report.cells[(report.cells["column"] == column) & (report.cells["metric"] == metric)]
    cells: list[dict[str, Any]] = mine.to_dict("records")  # type: ignore[assignment]
    return {cell["row"]: cell for cell in cells}


def bases(report: TableReport) -> list[str]:
    """What each column was measured on; once, where that is the same for all."""
    columns = report.published.data_columns
    found = [basis(report, column) for column in columns]
    if len(columns) > FEW and len(set(found)) == 1:
        return [f"all columns {found[0]}"]
    return [f"{report.published.group(c)} {text}" for c, text in zip(columns, found, strict=True)]


def basis(report: TableReport, column: str) -> str:
    ran = [c for c in cells_of(report, column).values() if c["n"]]
    if not ran:
        return "not run"
    counts = sorted({int(c["n"]) for c in ran})
    n = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]} by row"
    standing = "" if ran[0]["standing"] == "same" else f" ({ran[0]['standing']})"
    sets = f"{ran[0]['sets']:.0f} sets of " if ran[0].get("sets", math.nan) > 0 else ""
    return f"on {sets}`{ran[0]['data']}`{standing}, n = {n}"


def standing_of_code(report: TableReport) -> str:
    mine = report.runs[report.runs["match"] == "cell"]
    stale = int(mine["stale"].sum())
    return f" {stale} of these {len(mine)} runs were made by an earlier version of the code." if stale else ""


def table_of(report: TableReport) -> list[str]:
    """Survey and ours for each column, and for each of the page's IN_README metrics that the column has; last
    what the page has of its own.
    """
    pub = report.published
    shown = getattr(pages.of(report.table), "IN_README", [pub.metrics[0].id])
    heads, found = [pub.row_header["en"]], []
    for column in pub.data_columns:
        for metric in map(pub.metric, shown):
            cells = cells_of(report, column, metric.id)
            told = any(not math.isnan(cell["survey"]) for cell in cells.values())
            main = bool(metric.columns) or metric is pub.metrics_of(column)[0]
            ran = main and any(cell["data"] for cell in cells.values())
            if not told and not ran:  # that it is not run stands in the line above the table
                continue
            name = pub.group(column) + (f", {metric.short}" if len(shown) > 1 else "")
            heads += [f"{name}: survey", "ours"] if told else [f"{name}: ours"]
            found.append((cells, metric.digits, told))
    columns_of = getattr(pages.of(report.table), "readme_columns", None)
    more: list[tuple[str, dict[str, str]]] = columns_of(report) if columns_of else []
    heads += [head for head, _ in more]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for row in pub.main_rows:
        words = [row.en]
        for cells, digits, told in found:
            cell = cells.get(row.id)
            words += [tables.number(cell["survey"] if cell else None, digits)] if told else []
            words.append(tables.mean_sd(cell, digits) if cell else "")
        words += [texts.get(row.id) or tables.NONE for _, texts in more]
        lines.append("| " + " | ".join(words) + " |")
    return lines


def table_of_claims(reports: list[TableReport]) -> list[str]:
    heads = ["claim", "survey's figures", "source's figures", *(f"ours, `{r.profile}`" for r in reports)]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " --- |" * (len(heads) - 1)]
    for same in zip(*(r.claims for r in reports), strict=True):
        first = same[0]
        ours = [tables.escape_markdown(c.verdict + (f" ({c.label})" if c.label else "")) for c in same]
        words = [
            f"{first.id}: {tables.escape_markdown(first.sentence)}",
            first.survey[1],
            first.source[1],
            *ours,
        ]
        lines.append("| " + " | ".join(words) + " |")
    return lines
