"""What the page of Table 9 has of its own: the misprinted MNIST column beside the corrected one, and what BN
does to a maxout network by depth and layer by layer.
"""

from __future__ import annotations

import math
from itertools import count
from typing import Any

import pandas as pd
from markupsafe import Markup

from reports import analysis, figures, tables
from reports.claims.table_09 import BY_DEPTH, MNIST, ROWS
from reports.figures import Series, slug
from reports.pages.cells import by_row, cell, columns_of, data_of, gain, learning, of_cells, outcome, titled
from reports.pages.cells import commands as commands
from reports.statistics import Sample, summary

SHOWN = ["test_error", "entropy", "degenerate"]
RUN_METRIC = "test_error"
NOTE = (
    "Test errors, without augmentation, which the survey does not say. Survey and source: single printed "
    "numbers; [memory]: recalled, not looked up. On MNIST the source column is the corrected one: as printed "
    "the column is misaligned, and its RCNN is RCNN-96. Ours: mean ± sd over n seeds, below it the 95 % "
    "interval; the evaluation is chosen on a validation split. Diverged runs count as 100 % error. maxout, "
    "NIN and RCNN are other authors' networks with their own training; the rows not in the survey are one "
    "network of nine convolutions, as MIM is. A difference in brackets is one to a number measured on other "
    "data."
)
README = (
    "test error in per cent: mean ± sd, evaluation chosen on validation; the survey's MNIST column is "
    "misaligned (A24, A25)"
)
ALT = "test error by row"
SHORT = {  # names for the axes and legends of figures
    "rcnn": "RCNN",
    "mim_plain": "MIM, no BN",
    "mim_equal": "MIM, ReLU's size",
    "nin_bn": "ReLU, BN",
    "nin_plain": "ReLU, no BN",
}
ON_MNIST = {"rcnn": "RCNN-96, printed as RCNN-160"}
PAIRS = {"maxout": ("mim", "mim_plain"), "ReLU": ("nin_bn", "nin_plain")}  # unit -> with BN, without
LAYERS = 3  # of a block
BALANCE = {"entropy": "entropy of the pieces' shares", "degenerate": "share of degenerate units"}
WIDE = "Balance layer by layer"  # the group of figures with two panels each
NOTES = {  # of the groups of figures
    "Errors": (
        "Filled: ours with 95 % intervals; one that meets the edge goes on beyond it. Hollow and crossed:"
        " survey and source, on their data."
    ),
    "Error by depth": "One, two and three blocks of three convolutions, with BN and without (T9.C8).",
    WIDE: (
        "Entropy of the shares in which a unit's pieces win, as a share of its maximum, and share of units of"
        " which one piece wins more than 95 % of the time; a ReLU's pieces are its two sides of 0. Evaluation"
        " of the best validation error, mean over seeds with 95 % intervals (T9.C9)."
    ),
    "Learning curves": (
        "Thick: mean over seeds, thin: single seeds. A run that diverged is in the mean as long as it lasts."
    ),
    "Balance while training": "The same figures over the epochs, averaged over layers.",
}


def names(report: analysis.TableReport) -> dict[str, str]:
    return {row.id: SHORT.get(row.id, row.en) for row in report.published.rows}


def errors(report: analysis.TableReport, column: str) -> str:
    rows = [row.id for row in report.published.main_rows]
    return by_row(report, column, rows, "test_error", "test error (%)", names(report))


def by_depth(report: analysis.TableReport, column: str) -> str:
    """Error against the number of blocks; "" where only the whole network ran."""
    lines, depths = [], list(BY_DEPTH)
    for which, label in enumerate(("with BN", "without BN")):
        found = [(i, cell(report, BY_DEPTH[d][which], column, "test_error")) for i, d in enumerate(depths)]
        ran = [(i, c) for i, c in found if c and c["n"]]
        if ran:
            value, low, high = ([float(c[key]) for _, c in ran] for key in ("mean", "low", "high"))
            lines.append(Series(label, [i for i, _ in ran], value, low, high))
    if max((len(line.x) for line in lines), default=0) < 2:
        return ""
    name, labels = f"depth-{slug(report.profile)}-{column}", [str(d) for d in depths]
    title, label = titled(report, column), "test error (%)"
    return figures.line(name, title, lines, xlabel="blocks", ylabel=label, labels=labels)


def by_layer(report: analysis.TableReport, column: str, key: str) -> str:
    """A measure of balance against the layer, a panel a kind of unit; "" where no run has it."""
    runs, found = of_cells(report, column), {}
    for unit, rows in PAIRS.items():
        lines = [
            layers(runs[runs["row"] == row], key, label)
            for row, label in zip(rows, ("with BN", "without BN"), strict=True)
        ]
        if shown := [line for line in lines if len(line.x)]:
            found[unit] = shown
    if not found:
        return ""
    name, title = f"layers-{key}-{slug(report.profile)}-{column}", titled(report, column)
    return figures.panels(name, title, found, xlabel="layer", ylabel=BALANCE[key], per_row=2)


def layers(runs: pd.DataFrame, key: str, label: str) -> Series:
    """Mean over seeds with its interval, layer by layer."""
    x, found = [], []
    for layer in count(1):
        if (name := f"metrics.{key}_{layer}") not in runs:
            break
        told = runs[["seed", name]].dropna()
        if len(told):
            x.append(layer)
            found.append(summary(Sample(dict(zip(told["seed"], told[name].astype(float), strict=True)))))
    ends = [max(s.low, 0.0) for s in found], [min(s.high, 1.0) for s in found]  # shares
    return Series(label, x, [s.mean for s in found], *ends)


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README."""
    return {column: errors(report, column) for column in columns_of(report)}


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}."""
    columns, told = columns_of(report), names(report)
    pair = PAIRS["maxout"]
    found = [
        [errors(report, c) for c in columns],
        [by_depth(report, c) for c in columns],
        [by_layer(report, c, key) for c in columns for key in BALANCE],
        [learning(report, c, "val_error", "validation error (%)", names=told) for c in columns],
        [learning(report, c, key, label, pair, told) for c in columns for key, label in BALANCE.items()],
    ]
    return [
        {"title": title, "note": note, "svgs": [Markup(svg) for svg in svgs if svg]}
        | ({"wide": True} if title == WIDE else {})
        for (title, note), svgs in zip(NOTES.items(), found, strict=True)
        if any(svgs)
    ]


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_09.html."""
    columns = columns_of(report)
    return {
        "on_mnist": titled(report, MNIST),
        "mnist": mnist(report),
        "orders": orders(report),
        "depths": [{"title": titled(report, c), "lines": depth(report, c)} for c in columns],
        "sizes": [{"title": titled(report, c), "lines": sizes(report, c)} for c in columns],
    }


def mnist(report: analysis.TableReport) -> list[dict[str, str]]:
    """The MNIST column as printed, corrected, how that is known, and ours."""
    pub, lines = report.published, []
    for row in ROWS:
        figure = pub.figures[row, MNIST]
        name = next(r.en for r in pub.rows if r.id == row)
        spread = "" if figure.source_sd is None else f" ± {figure.source_sd:.2f}"
        lines.append(
            {
                "row": ON_MNIST.get(row, name),
                "printed": tables.number(figure.survey, 2),
                "corrected": tables.number(figure.source, 2) + spread,
                "mark": figure.mark,
                "ours": outcome(report, row, MNIST),
            }
        )
    return lines


def orders(report: analysis.TableReport) -> dict[str, str]:
    """The rows of the MNIST column from best to worst, "" where one is missing; data and n: of ours."""
    printed = [report.published.figures[row, MNIST] for row in ROWS]
    mine = [cell(report, row, MNIST, "test_error") for row in ROWS]
    found: dict[str, list[float | None]] = {
        "printed": [figure.survey for figure in printed],
        "corrected": [figure.source for figure in printed],
        "ours": [c["mean"] for c in mine],
    }
    told = names(report)
    fewest, most = min(c["n"] for c in mine), max(c["n"] for c in mine)
    n = str(fewest) if fewest == most else f"{fewest} to {most}"
    out = {"data": data_of(report, MNIST), "n": n}
    for whose, values in found.items():
        known = {row: v for row, v in zip(ROWS, values, strict=True) if v is not None and not math.isnan(v)}
        whole = len(known) == len(ROWS)
        out[whose] = " < ".join(told[row] for row in sorted(known, key=known.__getitem__)) if whole else ""
    return out


def depth(report: analysis.TableReport, column: str) -> list[dict[str, Any]]:
    """With BN and without, by the number of blocks: error, BN's gain, and both measures of balance."""
    lines = []
    for blocks, (bn, plain) in BY_DEPTH.items():
        with_bn, without = outcome(report, bn, column), outcome(report, plain, column)
        balance = [
            " against ".join(tables.mean_sd(cell(report, row, column, key), 3) for row in (bn, plain))
            for key in BALANCE
        ]
        if with_bn or without:
            lines.append(
                {
                    "blocks": blocks, "layers": LAYERS * blocks, "with": with_bn, "without": without,
                    "gain": gain(report, bn, plain, column), "balance": balance,
                }
            )  # fmt: skip
    return lines


def sizes(report: analysis.TableReport, column: str) -> list[dict[str, str]]:
    """Error beside the number of parameters: k pieces multiply a network's filters."""
    found = {row.id: cell(report, row.id, column, "parameters") for row in report.published.main_rows}
    told = {row.id: row.en for row in report.published.rows}
    return [
        {"row": told[row], "parameters": f"{c['mean']:,.0f}", "error": outcome(report, row, column)}
        for row, c in found.items()
        if c["n"]
    ]


def files(report: analysis.TableReport) -> dict[str, str]:
    return {}
