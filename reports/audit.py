"""The survey audit: where the survey, its sources and others disagree, from the published files alone."""

from __future__ import annotations

from typing import Any

from reports import published as facts


def entries() -> list[dict[str, Any]]:
    """Every entry by number: the fields of published.Audit, with what it compares, and the tables in whose
    files it stands.
    """
    sources = {entry["id"]: entry["source"] for entry in facts.index()["tables"]}
    return [
        {**vars(one), "tables": tables, "cite": one.cite or sources[tables[0]]}
        for one, tables in facts.audit()
    ]


def kinds(found: list[dict[str, Any]]) -> dict[str, int]:
    """Kind -> how many entries have it; an entry may have two."""
    counts: dict[str, int] = {}
    for entry in found:
        for kind in entry["kind"].split(", "):
            counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def cells(tables: list[str]) -> list[dict[str, Any]]:
    """For each table how many numbers the survey prints, how many of them its source prints too and equal,
    and the unequal ones.
    """
    found = []
    for table in tables:
        pub = facts.load(table)
        both = [f for f in pub.figures.values() if f.survey is not None and f.source is not None]
        names = {column.id: column for column in pub.columns}
        rows = {row.id: row for row in pub.rows}
        unlike = [
            {
                "row": rows[f.row].en,
                "row_zh": rows[f.row].zh,
                "column": heading(names[f.column].group, names[f.column].en),
                "survey": f.printed or f.survey,
                "source": f.source,
                "audit": f.audit,
                "mark": f.mark,
            }
            for f in both
            if f.survey != f.source
        ]
        printed = sum(f.survey is not None for f in pub.figures.values())
        found.append({"table": table, "printed": printed, "both": len(both), "unlike": unlike})
    return found


def heading(group: str, name: str) -> str:
    return name if name.startswith(group) else f"{group}, {name}"
