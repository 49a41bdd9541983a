"""What the pages of the tables on images share."""

from __future__ import annotations

from typing import Any

import pandas as pd

from reports import analysis


def of_cells(report: analysis.TableReport, column: str) -> pd.DataFrame:
    """The runs that stand in cells of a column."""
    runs = report.runs
    mine = (runs["match"] == "cell") & (runs["status"] != "failed") & (runs["column"] == column)
    return runs[mine].sort_values("seed")


def titled(report: analysis.TableReport, column: str) -> str:
    """CIFAR-10 (ours: glyphs)."""
    data = ", ".join(sorted(set(of_cells(report, column)["data.name"].astype(str))))
    return f"{report.published.group(column)} (ours: {data})"


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
