"""The results that the README shows, written from the committed snapshot between two marks: nothing in them
is typed. The README has an overview of all tables and one of them, reports/measured/README.md the others.

<!-- begin: python -m reports readme --> <!-- end -->
<!-- begin: python -m reports readme table=T3 --> <!-- end -->
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

from reports import figures, ledger, pages, site, store, tables
from reports import published as facts
from reports.analysis import TableReport

FEW = 3  # columns whose data are named one by one
ORDER = ("cpu", "quick")  # the profiles worth a newcomer's look, best data first


def update(readme: Path, measured: Path, table: str) -> str:
    """Rewrite the section of `table` and its pictures (measured/<table>/<column>.svg). Returns a line saying
    what was done.

    Raises ValueError where the README has no such section or the snapshot nothing to show.
    """
    section_in(readme, table)
    reports = of_snapshot(measured, table)
    pictures = save_pictures(reports, measured / table)
    paths = {os.path.relpath(path, readme.parent): profile for path, profile in pictures.items()}
    rewrite(readme, table, section(reports, paths))
    return (
        f"{readme}: {', '.join(r.profile for r in reports)}; {len(pictures)} pictures in {measured / table}"
    )


def begin(table: str) -> str:
    return f"<!-- begin: python -m reports readme{f' table={table}' if table else ''} -->\n"


def section_in(readme: Path, table: str) -> str:
    """The file's section of a table, "" the overview, up to the mark of its end."""
    text = readme.read_text(encoding="utf-8")
    found = re.search(re.escape(begin(table)) + r".*?(?=<!-- end -->)", text, flags=re.S)
    if not found:
        raise ValueError(f"{readme} has no line {begin(table).strip()!r} followed by <!-- end -->")
    return found.group()


def rewrite(readme: Path, table: str, content: str) -> None:
    old = section_in(readme, table)
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace(old, begin(table) + content), encoding="utf-8")


def home_of(table: str, measured: Path) -> Path:
    """Which of the two files has the section of a table."""
    homes = [Path("README.md"), measured / "README.md"]
    for home in homes:
        if home.is_file() and begin(table) in home.read_text(encoding="utf-8"):
            return home
    raise ValueError(f"neither {homes[0]} nor {homes[1]} has a line {begin(table).strip()!r}")


def overview(readme: Path, measured: Path) -> str:
    """Rewrite the overview: verdicts of every table and profile, and what surprises."""
    section_in(readme, "")
    entries, lines = [], []
    for table in (t["id"] for t in facts.index()["tables"] if t["built"]):
        loaded = store.load(measured / "nothing", measured, table=table)
        runs = site.of_table(loaded, table)
        reports = [site.analyse(loaded, table, profile) for profile in site.profiles_of(runs)]
        mine = [ledger.entry(table, r.profile, c) for r in reports for c in r.claims]
        entries += mine
        for report in reports:
            claims = ledger.by_claim([e for e in mine if e["profile"] == report.profile])
            counts = [str(n or "") for n in ledger.counts(claims, repeats=True).values()]
            n = len(runs[runs["profile"] == report.profile])
            title = facts.load(table).title_en if report is reports[0] else ""
            name = f"T{table[1:]}" if report is reports[0] else ""
            lines.append("| " + " | ".join([name, title, f"`{report.profile}`", str(n), *counts]) + " |")
    claims = ledger.by_claim(entries)
    rewrite(readme, "", "\n".join([*table_of_counts(claims, lines), "", *found_of(claims)]) + "\n")
    return f"{readme}: overview of {len(lines)} profiles, {len(claims)} claims"


def table_of_counts(claims: list[dict[str, Any]], lines: list[str]) -> list[str]:
    counts = ledger.counts(claims)
    heads = ["table", "", "profile", "runs", *counts]
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    return [
        f"Of the {sum(counts.values())} claims that the tables are read to make, each by the largest profile"
        f" with three seeds and all its parts, or by what there is: {told}. (T4's line counts those that"
        " ask the same of MinAtar as well.)",
        "",
        "| " + " | ".join(heads) + " |",
        "| --- | --- | --- |" + " ---: |" * (len(heads) - 3),
        *lines,
    ]


def found_of(claims: list[dict[str, Any]]) -> list[str]:
    """The most surprising findings as a list, as the site's front page chooses them."""
    lines = ["What our runs decide against the printed figures, or the source's words:", ""]
    for c in ledger.surprises(claims):
        low = "−∞" if c["low"] is None else figures.number(c["low"])
        high = "∞" if c["high"] is None else figures.number(c["high"])
        rests = f", {tables.escape_markdown(c['rests_on'])}" if c["rests_on"] else ""
        lines.append(
            f"- {c['claim']}, {tables.escape_markdown(c['sentence'])}: **{c['ours']}** (margin"
            f" {figures.number(c['margin'])}, {low} to {high}, n = {c['n']}, `{c['profile']}`{rests});"
            f" survey's figures: {c['survey']}, source: {ledger.source_of(c)}."
            + "".join(f" `{profile}` decides the opposite." for profile in c["otherwise"])
        )
    return lines


def of_snapshot(measured: Path, table: str) -> list[TableReport]:
    loaded = store.load(measured / "nothing", measured, table=table)
    reports = [site.analyse(loaded, table, profile) for profile in ORDER]
    reports = [r for r in reports if (r.cells["n"] > 0).any()]
    if not reports:
        raise ValueError(
            f"no records of {table} in {measured}: python -m reports snapshot table={table} puts them there"
        )
    return reports


def save_pictures(reports: list[TableReport], folder: Path) -> dict[Path, str]:
    """Each picture from the first of the reports that has it: its file and that profile."""
    found: dict[str, tuple[str, str]] = {}
    for report in reports:
        drawn = pages.of(report.table).pictures(report)
        found = {**{name: (svg, report.profile) for name, svg in drawn.items()}, **found}
    out = {}
    for name, (svg, profile) in found.items():
        (folder / f"{name}.svg").write_text(figures.on_white(svg), encoding="utf-8")
        out[folder / f"{name}.svg"] = profile
    return out


def section(reports: list[TableReport], pictures: dict[str, str]) -> str:
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
        f"Pictures: {profiles_of(pictures)}.",
        "",
    ]
    lines += [
        "Verdicts on the claims (below three seeds always inconclusive):",
        "",
        *table_of_claims(reports),
    ]
    return "\n".join(lines) + "\n"


def profiles_of(pictures: dict[str, str]) -> str:
    """Whose runs the pictures show: all of `cpu`, or one by one."""
    profiles = list(pictures.values())
    if len(set(profiles)) == 1:
        return f"`{profiles[0]}`"
    return ", ".join(f"{Path(path).stem} `{profile}`" for path, profile in pictures.items())


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
