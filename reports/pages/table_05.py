"""What the page of Table 5 has of its own: critical-difference diagrams, paired tests, accuracies by set."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np
from markupsafe import Markup

from reports import analysis, figures, published, ranking
from reports.figures import slug
from reports.pages.variants import beside
from reports.setwise import BASELINE, Block

SHOWN = ["rank_diff", "fnn_rank_diff", "accuracy"]
RUN_METRIC = "test_error"
NOTE = (
    "On each data set the most accurate method has rank 1; ranks are averaged over the sets and the "
    "middle rank is taken off. The printed numbers rank 24 methods around 12.5 on 46 sets, ours the rows "
    "below on the sets named: their levels do not compare, their order does. Of each search the trial "
    "with the least validation error counts. Mean ± sd over n seeds; below it the 95 % interval for "
    "another draw of seeds and of data sets (none below six sets). A diverged run is wrong everywhere."
)
README = "average rank among our rows minus the middle rank (lower is better): mean ± sd over seeds"
ALT = "critical differences of mean ranks"


def names(report: analysis.TableReport) -> dict[str, str]:
    return {row.id: row.en for row in report.published.rows}


def diagram(report: analysis.TableReport, column: str, block: Block) -> str:
    """Critical differences of the accuracies averaged over seeds."""
    found = ranking.ranking(block.mean(), BASELINE if BASELINE in block.rows else None)
    told, group = names(report), report.published.group(column)
    return figures.critical_difference(
        f"cd-{slug(report.profile)}-{column}",
        f"{group}: {found.sets}, {len(block.seeds)} {'seed' if len(block.seeds) == 1 else 'seeds'}",
        [told[line.method] for line in found.lines],
        [line.rank for line in found.lines],
        [[told[method] for method in group] for group in found.groups()],
        found.cd,
    )


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README."""
    return {column: diagram(report, column, block) for column, block in report.blocks.items() if block}


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}."""
    ours = [Markup(svg) for svg in pictures(report).values()]
    if not ours:
        return []
    source = ranking.ranking(ranking.read(published.FOLDER / "table_05_a11.csv"), "SNN")
    theirs = figures.critical_difference(
        f"cd-{slug(report.profile)}-source",
        f"source, 7 networks, all sets: {source.sets}",
        [line.method for line in source.lines],
        [line.rank for line in source.lines],
        source.groups(),
        source.cd,
    )
    note = (
        "Mean ranks; a bar joins methods whose mean ranks lie closer than Nemenyi's critical difference "
        "(0.05, all pairs at once). Ours: accuracies averaged over seeds. The source's: computed from its "
        "table of accuracies."
    )
    return [{"title": "Critical differences", "note": note, "svgs": [*ours, Markup(theirs)]}]


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_05.html."""
    pub = report.published
    blocks = {column: block for column, block in report.blocks.items() if block}
    return {
        "orders": [order(report, column, block) for column, block in blocks.items()],
        "tests": [tests(report, column, block) for column, block in blocks.items()],
        "accuracies": accuracies(report),
        "beside": beside(report),
        "columns": [{"id": column, "group": pub.group(column)} for column in pub.data_columns],
    }


def order(report: analysis.TableReport, column: str, block: Block) -> dict[str, str]:
    """The rows from best to worst, ours and as printed."""
    told = names(report)
    mine = ranking.ranking(block.mean()).lines
    figures_of: dict[str, float] = {}
    for metric in ("rank_diff", "rank", "fnn_rank_diff"):  # the last is of the seven networks alone
        found = {row.id: report.published.figure(row.id, column, metric) for row in report.published.rows}
        values = {row: f.source for row, f in found.items() if f and f.source is not None}
        figures_of = values if len(values) > len(figures_of) else figures_of
    theirs = sorted(figures_of, key=lambda row: figures_of[row])
    return {
        "group": f"{report.published.group(column)}, {len(block.sets)} here",
        "ours": " < ".join(told[line.method] for line in mine),
        "source": " < ".join(told[row] for row in theirs),
    }


def tests(report: analysis.TableReport, column: str, block: Block) -> dict[str, Any]:
    """SNN against each row: wins, ties, losses and one-sided p of the accuracies averaged over seeds."""
    pub, table = report.published, block.mean()
    found = ranking.ranking(table, BASELINE if BASELINE in block.rows else None)
    lines = {line.method: line for line in found.lines}
    rows = []
    for row in pub.rows:
        figure = pub.figure(row.id, column, "p")
        if row.id in lines and row.id != found.baseline:
            line = lines[row.id]
            wins = "/".join(map(str, line.wins))
            rows.append(
                {"row": row.en, "wins": wins, "p": line.p, "source": figure.source if figure else None}
            )
    return {
        "group": pub.group(column), "sets": found.sets, "rows": rows, "friedman": found.test,
        "baseline": names(report)[found.baseline], "sourced": any(row["source"] is not None for row in rows),
    }  # fmt: skip


def accuracies(report: analysis.TableReport) -> dict[str, Any] | None:
    """Accuracy in % of each row on each set, averaged over seeds."""
    block = report.blocks.get("all")
    if not block:
        return None
    table, told = block.mean(), names(report)
    lines = [
        {"set": name, "size": int(size), "values": [100 * v for v in values], "best": int(np.argmax(values))}
        for name, size, values in zip(block.sets, block.sizes, table.values, strict=True)
    ]
    return {"rows": [told[row] for row in block.rows], "lines": lines}


def files(report: analysis.TableReport) -> dict[str, str]:
    """Accuracies by data set, as `python -m reports rank` reads them."""
    block = report.blocks.get("all")
    if not block:
        return {}
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["dataset", "N", *block.rows])
    for name, size, values in zip(block.sets, block.sizes, block.mean().values, strict=True):
        writer.writerow([name, int(size), *(f"{v:.4f}" for v in values)])
    return {"accuracies.csv": out.getvalue()}


def commands(report: analysis.TableReport, plan: dict[str, Any]) -> list[tuple[str, str]]:
    """(row, the command that runs its search on every set); its rank needs the other rows' as well."""
    names = {row.id: row.en for row in report.published.rows}
    start = f"python -m experiments -m table=T5 profile={report.profile}"
    return [(names[p["row"]], f"{start} row={p['row']}") for p in plan.get("points", []) if p["row"] in names]
