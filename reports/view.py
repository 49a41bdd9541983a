"""What the templates of a table's page need, from one TableReport: rows, figures, counts, commands."""

from __future__ import annotations

import json
import math
from typing import Any

import pandas as pd
from markupsafe import Markup

from reports import analysis, figures, pages, selection, snapshot, store
from reports.published import Metric
from reports.tables import NONE

USED_AS = {
    "cell": "cell",
    "variant": "variant",
    "norm": "not in the survey",
    "trial": "trial",
    "": "off the grid",
}


def pane(report: analysis.TableReport, everything: pd.DataFrame, grid: dict[str, Any]) -> dict[str, Any]:
    """One profile of a table. `everything`: all runs of the table, `grid`: its grid.json."""
    pub, profile, runs, own = report.published, report.profile, report.runs, pages.of(report.table)
    mine = everything[(everything["profile"] == profile) | everything["run_id"].isin(list(runs["run_id"]))]
    plan = grid.get("profiles", {}).get(profile, {})
    in_cells = runs[(runs["kind" if pub.trials else "match"] == "cell") & (runs["status"] != "failed")]
    if plan:  # further seeds take part in the cells but do not count as planned
        seeds = planned_seeds(plan)
        places = zip(in_cells["row"], in_cells["column"], in_cells["seed"], strict=True)
        in_cells = in_cells[[seed in seeds.get((row, column), plan["seeds"]) for row, column, seed in places]]
    counts = {status: int((mine["status"] == status).sum()) for status in ("finished", "diverged", "failed")}
    counts |= {"stale": int(runs["stale"].sum()), "damaged": report.damaged}
    return {
        "id": profile,
        "report": report,
        "counts": counts,
        "records": len(mine),
        "committed": int((mine["origin"] == "measured").sum()),
        "off_grid": len(mine) - len(runs),
        "planned": sum(
            selection.points(p) * len(p.get("seeds", plan["seeds"])) for p in plan.get("points", [])
        ),
        "done": len(in_cells),
        **took(mine),
        "open_tables": [comparison(report, m) for m in pub.metrics if m.id in own.SHOWN],
        "folded_tables": [comparison(report, m) for m in pub.metrics if m.id not in own.SHOWN],
        "note": own.NOTE,
        "figures": own.draw(report),
        "own": own.section(report, grid),
        "extra": extra_rows(report),
        "deviations": report.deviations.to_dict("records"),
        "verdicts": {v: sum(c.verdict == v for c in report.claims) for v in analysis.VERDICTS},
        "seeds": sorted({c.n for c in report.claims if c.margin is not None}),
        "commands": own.commands(report, plan),
    }


def took(runs: pd.DataFrame) -> dict[str, float]:
    """Seconds of training: of all runs together, the median run and the longest."""
    told = runs["time.wall_s"].dropna() if "time.wall_s" in runs else pd.Series(dtype=float)
    if not len(told):
        return {"seconds": 0.0, "median_s": 0.0, "longest_s": 0.0}
    return {
        "seconds": float(told.sum()),
        "median_s": float(told.median()),
        "longest_s": float(told.max()),
    }


def planned_seeds(plan: dict[str, Any]) -> dict[tuple[str, str], set[int]]:
    """Row and column -> seeds, where a profile's rows have not all the same."""
    found: dict[tuple[str, str], set[int]] = {}
    for point in plan["points"]:
        if "seeds" in point:
            found.setdefault((point["row"], point["column"]), set()).update(point["seeds"])
    return found


# A cell of a row that its column does not have.
NOWHERE: dict[str, Any] = {
    **dict.fromkeys(("survey", "source", "mean", "sd", "low", "high", "difference"), math.nan),
    **dict.fromkeys(("n", "missed", "diverged", "failed", "stale"), 0),
    "data": NONE,
    "standing": "",
}


def comparison(report: analysis.TableReport, metric: Metric) -> dict[str, Any]:
    """One metric beside what is printed: for each printed row, one cell a data column. Columns of which
    nothing is printed and nothing ran are only named (`empty`).
    """
    pub = report.published
    mine = report.cells[report.cells["metric"] == metric.id]
    known = mine[mine["data"].ne("") | mine["survey"].notna() | mine["source"].notna()]
    used = {*known["column"], *report.extra["column"]}
    having = [c for c in pub.data_columns if not metric.columns or c in metric.columns]
    shown = [c for c in having if c in used] or having
    columns = []
    for column in shown:
        held = (report.lines.get((row.id, column, metric.id), {}) for row in pub.rows)
        ran = next((line for line in held if line.get("data")), {})
        where = {k: ran.get(k, "") for k in ("data", "standing")}
        columns.append({"id": column, "group": pub.group(column), **where})
    rows = []
    for row in pub.main_rows:
        if row.columns and not set(row.columns) & set(shown):
            continue
        line = []
        for column in shown:
            figure = pub.figure(row.id, column, metric.printed)
            found = report.lines.get((row.id, column, metric.id), NOWHERE)
            told = {"audit": figure.audit, "mark": figure.mark} if figure else {"audit": (), "mark": ""}
            line.append({**found, **told})
        if row.kind == "printed" and not any(pub.figure(row.id, c, metric.printed) for c in shown):
            continue
        rows.append(
            {
                "id": row.id,
                "label": row.en,
                "cells": line,
                "dropped": bool(pub.survey_rows) and row.id not in pub.survey_rows,
            }
        )
    has = {key: bool(mine[key].notna().any()) for key in ("survey", "source")}
    told = pd.concat([mine["survey"], mine["source"]]).dropna()
    digits = 0 if len(told) and (told == told.round()).all() else metric.digits  # as it is printed
    empty = [pub.group(c) for c in having if c not in shown]
    return {"metric": metric, "columns": columns, "rows": rows, "digits": digits, "empty": empty, **has}


# ------------------------------------------------------------------------------------ rows of small tables


def extra_rows(report: analysis.TableReport) -> list[dict[str, Any]]:
    """Other variants and norms not in the survey, a line a (label, row): the main metric in each column."""
    main = {c: report.published.metrics_of(c)[0].id for c in report.published.data_columns}
    mine = report.extra[report.extra["metric"] == report.extra["column"].map(main)]
    names = {row.id: row.en for row in report.published.rows}
    out: dict[tuple[str, ...], dict[str, Any]] = {}
    for cell in mine.to_dict("records"):
        key = tuple(str(cell[k]) for k in ("match", "label", "row"))
        line = {"match": key[0], "label": key[1], "row": names.get(key[2], key[2]), "cells": {}}
        out.setdefault(key, line)["cells"][cell["column"]] = cell
    return list(out.values())


# ------------------------------------------------------------------------------------------------- runs


def ordered_runs(everything: pd.DataFrame, reports: list[analysis.TableReport]) -> pd.DataFrame:
    """All runs of a table with what each is used for: cells, then what failed or diverged, then the rest."""
    if everything.empty:
        return everything
    keys = ["run_id", "match", "row", "column", "label", "stale"]
    known = pd.concat([r.runs[keys] for r in reports]).drop_duplicates("run_id")
    out = everything.merge(known, on="run_id", how="left")
    out = out.assign(match=out["match"].fillna(""), stale=out["stale"].eq(True))
    rank = out["match"].map({"cell": 0, "variant": 3, "norm": 2, "trial": 4}).fillna(5)
    rank = rank.where(out["status"].eq("finished") | (rank == 0), 1)
    by = ["_rank", "profile", "column", "row", "seed", "run_id"]
    return out.assign(_rank=rank).sort_values(by, kind="stable").drop(columns="_rank").reset_index(drop=True)


def run_line(run: dict[Any, Any]) -> dict[str, Any]:
    """One run for the lists: plain values, None for what it lacks."""
    score = pages.of(str(run["table"])).RUN_METRIC

    def get(key: str) -> Any:
        value = run.get(key)
        return None if value is None or value != value else value

    return {
        "id": str(run["run_id"]),
        "profile": run["profile"],
        "status": run["status"],
        "stale": bool(run["stale"]),
        "match": USED_AS.get(run["match"], run["match"]),
        "label": get("label") or "",
        "row": get("cell.row") or get("row") or "",
        "column": get("cell.column") or get("column") or "",
        "seed": run["seed"],
        "score": get(f"metrics.{score}"),
        "seconds": get("time.wall_s"),
        "epochs": get("epochs"),
        "finished": get("time.finished") or "",
        "origin": get("origin") or "",
        "members": get("population.members"),
    }


def run_details(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Runs with config, traceback and a small picture of the curves, all read from disk now."""
    whole = store.records(runs)
    found = [record.get("curves") for record in whole]
    return [
        {
            **run_line(run),
            "config": json.dumps(record.get("config"), indent=1, ensure_ascii=False, sort_keys=True),
            "error": run.get("error") if isinstance(run.get("error"), str) else None,
            "svg": Markup(figures.spark(str(run["run_id"]), curves, *drawn(curves))) if curves else "",
            "log": log(curves) if curves else [],
        }
        for run, record, curves in zip(runs.to_dict("records"), whole, found, strict=True)
    ]


LINES = 25  # of a run's log


def drawn(curves: dict[str, Any]) -> tuple[list[str], str]:
    """Which curves the small picture has, and their unit: of test and validation what there is, else two."""
    keys = [k for k, values in curves.items() if k != "epoch" and any(number(v) for v in values)]
    keys = [k for k in keys if k.startswith(("test", "val"))] or keys
    first = keys[0].split("_")[-1] if keys else ""  # error, accuracy, ppl: one axis, one kind
    keys = [k for k in keys if k.endswith(first)][:2]
    return keys, "%" if first in ("error", "accuracy") else ""


def number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def log(curves: dict[str, Any]) -> list[str]:
    """Points of a run's curves, evenly spread and with the last, as lines of text."""
    n = snapshot.length_of(curves)
    told = {k: v for k, v in curves.items() if len(v) == n and not k.startswith("strip")}  # not of an epoch
    at = sorted({round(i * (n - 1) / max(min(n, LINES) - 1, 1)) for i in range(min(n, LINES))})
    return ["  ".join(f"{k} {value(v[i])}" for k, v in told.items()) for i in at]


def value(x: Any) -> str:
    return "–" if x is None else f"{x:.5g}" if isinstance(x, float) else str(x)
