"""What the page of Table 6 has of its own: AUC against depth, activations and gradients layer by layer."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup

from reports import analysis, figures, store
from reports.figures import Series, slug
from reports.pages.variants import beside

SHOWN = ["test_auc"]
RUN_METRIC = "test_auc"
NOTE = (
    "Columns are hidden layers (ResNet: blocks). Survey and source: AUC x 100 on Tox21, the source's mean "
    "of 5 repeats. Ours: mean ± sd over n seeds, below it the 95 % interval; depth is fixed by the "
    "column, of each search over the rest the trial with the best validation AUC counts. Diverged runs "
    "count as AUC 50: they rank nothing. A difference in brackets is one to a number measured on other "
    "data."
)
README = "AUC x 100: mean ± sd over seeds, all but the depth chosen on validation"
ALT = "AUC against depth"
PROBES = {
    "act_mean": "mean of activations",
    "act_var": "variance of activations",
    "grad_norm": "gradient norm by the layer's weights",
}
OF_ANY_SIGN = ("act_mean",)
WHEN = {"start": "before training", "end": "after training"}


def depth(column: str) -> int:
    return int(column.removeprefix("d"))


def ours(report: analysis.TableReport, row: str, label: str) -> Series:
    """A row's AUC against depth."""
    main = report.published.metrics[0].id
    cells = report.cells
    mine = cells[(cells["metric"] == main) & (cells["row"] == row) & (cells["n"] > 0)]
    x = [float(depth(column)) for column in mine["column"]]
    value, low, high = (mine[key].astype(float).tolist() for key in ("mean", "low", "high"))
    return Series(label, x, value, low, high)


def printed(report: analysis.TableReport, row: str, whose: str, label: str) -> Series:
    found = [(c.data, report.published.figures.get((row, c.id))) for c in report.published.columns]
    points = [(depth(c), getattr(f, whose)) for c, f in found if f and getattr(f, whose) is not None]
    return Series(label, [float(x) for x, _ in points], [float(y) for _, y in points])


def against_depth(report: analysis.TableReport) -> str:
    """One panel a method: survey, source, ours."""
    found = {}
    for row in report.published.rows:
        lines = [
            printed(report, row.id, "survey", "survey"),
            printed(report, row.id, "source", "source paper"),
            ours(report, row.id, "ours, 95 % interval"),
        ]
        found[row.en] = [line for line in lines if len(line.x)]
    name = f"depth-{slug(report.profile)}"
    return figures.panels(name, data_of(report), found, xlabel="layers", ylabel="AUC x 100", log_x=True)


def together(report: analysis.TableReport) -> str:
    """Our methods in one picture."""
    lines = [ours(report, row.id, row.en) for row in report.published.rows]
    name = f"together-{slug(report.profile)}"
    shown = [line for line in lines if len(line.x)]
    return figures.line(name, data_of(report), shown, xlabel="layers", ylabel="AUC x 100", log_x=True)


def data_of(report: analysis.TableReport) -> str:
    named = sorted({str(name) for name in report.cells["data"] if name})
    return f"ours on {', '.join(named)}"


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README."""
    return {"auc": against_depth(report)} if (report.cells["n"] > 0).any() else {}


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}."""
    if not (report.cells["n"] > 0).any():
        return []
    groups: list[dict[str, Any]] = [
        {
            "title": "AUC against depth",
            "note": "Ours with 95 % intervals, beside what the survey and the source print.",
            "svgs": [Markup(against_depth(report)), Markup(together(report))],
            "wide": True,
        }
    ]
    layers = by_layer(report)
    svgs = [
        figures.panels(
            f"{slug(key)}-{when}-{slug(report.profile)}",
            f"{PROBES[key]}, {WHEN[when]}",
            found,
            xlabel="hidden layer",
            ylabel=PROBES[key],
            log_x=True,
            log_y=key not in OF_ANY_SIGN,
        )
        for (key, when), found in layers.items()
    ]
    if svgs:
        note = (
            "Selected runs, mean over seeds (of variances and norms the geometric one); one line a depth. "
            "Measured on the first training rows. A weight-normalised layer starts with g = |v|, without a "
            "data-dependent start; its gradient is that by v, of another scale than that by a plain weight."
        )
        drawn = [Markup(svg) for svg in svgs]
        groups.append({"title": "Layer by layer", "note": note, "svgs": drawn, "wide": True})
    return groups


def by_layer(report: analysis.TableReport) -> dict[tuple[str, str], dict[str, list[Series]]]:
    """(figure, when) -> method -> a line a depth, from the curves of the selected runs that have them."""
    chosen = report.runs[report.runs["match"] == "cell"]
    curves = pd.Series(store.heavy(chosen, "curves"), index=chosen.index, dtype=object)
    names = {row.id: row.en for row in report.published.rows}
    found: dict[tuple[str, str], dict[str, list[Series]]] = {}
    for key in PROBES:
        for when in WHEN:
            panels: dict[str, list[Series]] = {}
            for row, name in names.items():
                for column in report.published.data_columns:
                    mine = curves[(chosen["row"] == row) & (chosen["column"] == column)]
                    layers = [c[f"{key}_{when}"] for c in mine if c and c.get(f"{key}_{when}")]
                    if line := over_seeds(layers, f"{depth(column)} layers", key not in OF_ANY_SIGN):
                        panels.setdefault(name, []).append(line)
            if panels:
                found[key, when] = panels
    return found


def over_seeds(layers: list[list[float | None]], label: str, geometric: bool = True) -> Series | None:
    """Mean over runs of one figure a layer; layers where it is no number (or, of geometric ones, 0) are left
    out.
    """
    size = min(map(len, layers), default=0)
    values = np.array([[np.nan if v is None else v for v in run[:size]] for run in layers], float)
    if not values.size:
        return None
    good = (np.isfinite(values) & ((values > 0) | (not geometric))).all(0)
    x = np.flatnonzero(good)
    if not len(x):
        return None
    mean = np.exp(np.log(values[:, x]).mean(0)) if geometric else values[:, x].mean(0)
    return Series(label, (x + 1.0).tolist(), mean.tolist())


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_06.html."""
    pub = report.published
    return {
        "probes": probes(report),
        "beside": beside(report),
        "columns": [{"id": column, "group": pub.group(column)} for column in pub.data_columns],
    }


def probes(report: analysis.TableReport) -> list[dict[str, Any]]:
    """First and last layer's activations and gradients of the selected runs, medians over seeds."""
    chosen = report.runs[report.runs["match"] == "cell"]
    lines = []
    for row in report.published.rows:
        for column in report.published.data_columns:
            mine = chosen[(chosen["row"] == row.id) & (chosen["column"] == column)]
            line = {"row": row.en, "depth": depth(column), "n": len(mine)}
            for key in PROBES:
                for place in ("first", "last"):
                    for when in WHEN:
                        name = f"metrics.{key}_{place}_{when}"
                        line[f"{key}_{place}_{when}"] = (
                            float(mine[name].median()) if name in mine else math.nan
                        )
            if any(not math.isnan(v) for v in line.values() if isinstance(v, float)):
                lines.append(line)
    return lines


def files(report: analysis.TableReport) -> dict[str, str]:
    return {}


def commands(report: analysis.TableReport, plan: dict[str, Any]) -> list[tuple[str, str]]:
    """(cell, the command that runs its whole search) for every row and depth of the profile's grid."""
    names = {row.id: row.en for row in report.published.rows}
    start = f"python -m experiments -m table=T6 profile={report.profile}"
    return [
        (f"{names[p['row']]}, {depth} layers", f"{start} row={p['row']} model.layers={depth}")
        for p in plan.get("points", [])
        if p["row"] in names
        for depth in p.get("axes", {}).get("model.layers", [])
    ]
