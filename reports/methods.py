"""The methods, a page each: what norms/build.py says of one, the tables it is in, and how it did there.

Which rows of a table use a method is read off the configs of its grid, so nothing here is typed twice;
norms/ itself is read as text, since reports never import torch.
"""

from __future__ import annotations

import ast
import html
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from markupsafe import Markup

from reports import analysis
from reports.published import Published

BUILD = Path(__file__).parents[1] / "norms" / "build.py"
# Of Table 10, whose networks all have BN: method -> the procedure of norms, by its first word, and the
# values of config.method that use it.
PROCEDURES = {
    "adabn": ("adapt_batch_statistics", ("adabn", "adabn_coral", "adabn_svm", "adabn_zscore")),
    "coral": ("Coral", ("coral", "deep_coral", "adabn_coral")),
}
TITLES = {
    "none": "No normalisation", "batch": "Batch normalisation", "layer": "Layer normalisation",
    "group": "Group normalisation", "instance": "Instance normalisation",
    "rms": "Root-mean-square normalisation",
    "diminishing": "Diminishing batch normalisation", "renorm": "Batch renormalisation",
    "l1": "L1 batch normalisation", "mean_only": "Mean-only batch normalisation",
    "frn": "Filter response normalisation", "dyt": "Dynamic tanh",
    "domain": "Domain-specific batch normalisation",
    "weight_norm": "Weight normalisation", "centered_weight_norm": "Centred weight normalisation",
    "cosine": "Cosine normalisation", "normprop": "Normalisation propagation",
    "snn": "Self-normalising networks",
    "lstm_batch": "Batch normalisation in an LSTM, input part",
    "lstm_recurrent_batch": "Recurrent batch normalisation", "lstm_layer": "Layer normalisation in an LSTM",
    "adabn": "AdaBN", "coral": "CORAL",
}  # fmt: skip


@dataclass(frozen=True)
class Method:
    id: str
    title: str
    line: str
    paper: str
    equation: str
    use: str  # a line of Python


@cache
def known() -> tuple[Method, ...]:
    """Every method of norms, in its order, then the procedures."""
    found = []
    for node in ast.parse(BUILD.read_text(encoding="utf-8")).body:
        name = getattr(node.targets[0], "id", "") if isinstance(node, ast.Assign) else ""
        if name == "METHODS" and isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            for key, call in zip(node.value.keys, node.value.values, strict=True):
                assert isinstance(key, ast.Constant) and isinstance(call, ast.Call)
                id, (line, paper, equation) = str(key.value), map(ast.literal_eval, call.args[:3])
                layer = len(call.args) > 3  # else it changes other parts of a model
                use = f'norms.build("{id}", C)' if layer else f'norms.convert(model, "{id}")'
                found.append(Method(id, TITLES.get(id, id), line, paper, equation, use))
        if name == "PROCEDURES" and isinstance(node, ast.Assign):
            told = {str(call).split("(")[0]: (call, *rest) for call, *rest in ast.literal_eval(node.value)}
            for id, (function, _) in PROCEDURES.items():
                call, line, paper = told[function]
                found.append(Method(id, TITLES[id], line, paper, "", f"norms.{call}"))
    return tuple(found)


def of_config(config: dict[str, Any]) -> list[str]:
    """The methods that a config uses; of Table 10's the procedures alone, since all its networks have BN."""
    found = [id for id, (_, names) in PROCEDURES.items() if config.get("method") in names]
    norm = config.get("norm") or {}
    return found or ([norm["name"]] if norm.get("name") else [])


def cells_of(grid: dict[str, Any]) -> dict[str, list[list[str]]]:
    """Method -> the cells [row, column] that use it, of all profiles that have been swept: "BN" may be one
    layer in a convolutional network and another in an LSTM. Column "": every one of that row.
    """
    found: dict[str, dict[tuple[str, str], None]] = {}
    for plan in grid.get("profiles", {}).values():
        for point in plan.get("points", []):
            for method in of_config(point["config"]):
                found.setdefault(method, {})[point["row"], point["column"] or ""] = None
    return {method: [list(cell) for cell in cells] for method, cells in found.items()}


def uses(cells: list[list[str]], row: str, column: str) -> bool:
    return [row, column] in cells or [row, ""] in cells


def narrowed(lines: list[dict[str, Any]], cells: list[list[str]]) -> list[dict[str, Any]]:
    """Of what `standing` found the cells of a method alone."""
    found = []
    for line in lines:
        mine = [cell for cell in line["cells"] if uses(cells, line["row"], cell["id"])]
        if mine:
            found.append({**line, "cells": mine})
    return found


def standing(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The main metric of every row of the comparison that ran, a line a row, as a stamp can hold it."""
    pub, lines = report.published, []
    main = {column: pub.metrics_of(column)[0] for column in pub.data_columns}
    labels = {row.id: row.en for row in pub.main_rows}
    cells = report.cells[report.cells["n"] > 0].to_dict("records")
    for row in labels:
        found = [c for c in cells if c["row"] == row and c["metric"] == main[c["column"]].id]
        told = [
            {
                "id": c["column"],
                "column": pub.group(c["column"]),
                "data": c["data"],
                "metric": main[c["column"]].en,
                "digits": main[c["column"]].digits,
                **{k: finite(c[k]) for k in ("survey", "source", "mean", "sd", "n")},
                "never": c["mean"] == math.inf,
            }
            for c in found
        ]
        if told:
            lines.append({"row": row, "label": labels[row], "cells": told})
    return lines


def finite(value: Any) -> float | None:
    return float(value) if value == value and math.isfinite(value) else None


def said(published: Published, cells: list[list[str]]) -> list[dict[str, Any]]:
    """What a table of words says of the rows of these cells, a line a word."""
    columns = {c.id: c.en for c in published.columns}
    rows = {row for row, _ in cells}
    return [
        {"column": columns.get(w.column, w.column), "zh": w.zh, "en": w.en, "claims": list(w.claims)}
        for w in published.words
        if w.row in rows
    ]


GREEK = {"gamma": "γ", "beta": "β", "mu": "μ", "sigma": "σ", "eps": "ε", "alpha": "α", "tau": "τ"}


def formula(text: str) -> Markup:
    """An equation as norms/ writes it, with Greek letters, subscripts and squares."""
    text = html.escape(text)
    text = re.sub(r"\b(" + "|".join(GREEK) + r")(?=\b|_)", lambda m: GREEK[m[1]], text)
    text = re.sub(r"_(\{[^}]*\}|[A-Za-z0-9]+)", lambda m: f"<sub>{m[1].strip('{}')}</sub>", text)
    text = re.sub(r"\bsqrt\(", "√(", text).replace("^2", "²").replace("fan<sub>in</sub>", "fan-in")
    return Markup(text)
