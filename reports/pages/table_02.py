"""What the page of Table 2 has of its own: the rows as published and like for like, learning curves, and the
source's studies (input normalisation, batches of 1, dropout, learning rates).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from reports import analysis, figures
from reports.figures import Series, slug
from reports.pages import cells
from reports.pages.cells import columns_of, gain, learning, of_cells, stuck, text, titled
from reports.pages.cells import commands as commands

SHOWN = ["test_error", "input_mean", "early_spread", "epoch_seconds"]
RUN_METRIC = "test_error"
NOTE = (
    "Test errors. Survey and source: single printed numbers. Ours: mean ± sd over n seeds, below it the 95 % "
    "interval; the evaluation is chosen on a validation split. Diverged runs count as 100 % error. NIN and "
    "Maxout are other authors' networks, on whitened pictures; the last two rows are ours, on raw ones. What "
    "a profile changes of the published settings is in the list of deviations. A difference in brackets is "
    "one to a number measured on other data."
)
README = "test error in per cent: mean ± sd, evaluation chosen on validation"
ALT = "test error by row"
PUBLISHED = ("nin", "nin_np", "nin_bn", "maxout")
ALIKE = ("plain", "nin_np", "nin_bn", "maxout_raw")
NOTES = {  # of the groups of figures
    "Errors": (
        "Filled: ours with 95 % intervals; one that meets the edge goes on beyond it. Hollow and crossed:"
        " survey and source, on their data."
    ),
    "Learning curves": (
        "Thick: mean over seeds, thin: single seeds. A run that diverged is in the mean as long as it lasts."
    ),
    "Steadiness, means, time": (
        "Spread of the validation error over the first ten epochs (T2.C10), absolute mean of a layer's input"
        " channel at the end (T2.C11), time of an epoch on the machine that ran it (T2.C9)."
    ),
    "Means of the layers' inputs": (
        "Absolute mean of a layer's input channel, averaged over channels and the layers after the first"
        " (T2.C11)."
    ),
    "The source's studies": (
        "Dropout (T2.C15), normalisation of the data by the training set instead of the mini-batch (T2.C13),"
        " batches of 100 and of 1 (T2.C12), which are compared with each other: where a row"
        " trained for other epochs than NP, its name says so. Constant rates have a figure of their own."
    ),
    "The Jacobian factor": "Constant rates from the start; a run that diverges counts as 100 % (T2.C16).",
}
SHORT = {  # names for the axes of figures
    "nin_np": "NP",
    "nin_bn": "BN",
    "plain": "none",
    "maxout_raw": "Maxout, raw",
    "nin_np_dropout": "NP, dropout",
    "nin_np_global_b50": "NP, global",
    "nin_np_global_b100": "global, 100",
    "nin_np_global_b1": "global, 1",
}
GAMMAS = {"nin_np": "gamma = 1/1.21", "nin_np_gamma1": "gamma = 1"}


def by_row(report: analysis.TableReport, column: str, rows: list[str], metric: str, label: str) -> str:
    """A metric of each row, beside what is printed; "" where nothing ran."""
    names = {r.id: SHORT.get(r.id, r.en) + shorter(report, r.id, column) for r in report.published.rows}
    return cells.by_row(report, column, rows, metric, label, names)


def errors(report: analysis.TableReport, column: str) -> str:
    rows = [row.id for row in report.published.main_rows]
    return by_row(report, column, rows, "test_error", "test error (%)")


def rates(report: analysis.TableReport) -> str:
    """Test error at the end against a constant learning rate, with the Jacobian factor and without."""
    mine, lines = report.cells, []
    mine = mine[(mine["column"] == "cifar10") & (mine["metric"] == "test_error_last") & (mine["n"] > 0)]
    for start, label in GAMMAS.items():
        some = mine[mine["row"].astype(str).str.startswith(f"{start}_at_")]
        points = sorted(
            (float(r["row"].rpartition("_")[2]), r["mean"], r["low"], r["high"])
            for r in some.to_dict("records")
        )
        if points:
            x, y, low, high = zip(*points, strict=True)
            lines.append(Series(label, x, y, low, high))
    if not lines:
        return ""
    name, title = f"rates-{slug(report.profile)}", titled(report, "cifar10")
    label = "constant learning rate"
    return figures.line(name, title, lines, xlabel=label, ylabel="test error at the end (%)", log_x=True)


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README."""
    columns = columns_of(report)
    return {c: errors(report, c) for c in columns[:2]}


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}."""
    columns = columns_of(report)
    if not columns:
        return []
    alike = ["nin_np", "nin_bn", "plain"]
    studies = [
        "nin_np",
        *(r.id for r in report.published.rows if r.kind == "ablation" and "_at_" not in r.id),
    ]
    watched = [
        by_row(report, "cifar10", alike, metric, label)
        for metric, label in (
            ("early_spread", "spread of the validation error (points)"),
            ("input_mean", "mean of layers' inputs"),
            ("epoch_seconds", "seconds of training an epoch"),
        )
    ]
    found: dict[str, list[str]] = {
        "Errors": [errors(report, c) for c in columns],
        "Learning curves": [learning(report, c, "val_error", "validation error (%)") for c in columns],
        "Steadiness, means, time": watched,
        "Means of the layers' inputs": [
            learning(report, c, "input_mean", "mean of layers' inputs", alike) for c in columns
        ],
        "The source's studies": [by_row(report, "cifar10", studies, "test_error", "test error (%)")],
        "The Jacobian factor": [rates(report)],
    }
    return [
        {"title": title, "note": NOTES[title], "svgs": [Markup(svg) for svg in svgs if svg]}
        for title, svgs in found.items()
        if any(svgs)
    ]


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_02.html."""
    columns = columns_of(report)
    studies = [row.id for row in report.published.rows if row.kind == "ablation"]
    return {
        "groups": [report.published.group(c) for c in columns],
        "blocks": [
            {"title": "As published", "rows": lines(report, PUBLISHED, columns)},
            {
                "title": "Like for like: raw pictures, no dropout; all but Maxout one network",
                "rows": lines(report, ALIKE, columns),
            },
        ],
        "settings": settings(report),
        "answers": [text for c in columns if (text := answer(report, c))],
        "studies": lines(report, studies, ["cifar10"]),
    }


def lines(report: analysis.TableReport, rows: Sequence[str], columns: list[str]) -> list[dict[str, Any]]:
    """A line a row: its name and its error in each column; rows of which nothing ran are left out."""
    names = {row.id: row.en for row in report.published.rows}
    texts = {row: [text(report, row, c) for c in columns] for row in rows}
    told = {row: "".join(dict.fromkeys(shorter(report, row, c) for c in columns)) for row in rows}
    return [{"row": names[row] + told[row], "cells": found} for row, found in texts.items() if any(found)]


def shorter(report: analysis.TableReport, row: str, column: str) -> str:
    """For how many epochs the row trained, as in " (4 epochs)", where NormProp's row had others."""
    runs = of_cells(report, column)
    if runs.empty:  # and perhaps without columns
        return ""
    mine, its = (set(runs.loc[runs["row"] == r, "config.epochs"].dropna()) for r in (row, "nin_np"))
    if not mine or not its or mine == its:
        return ""
    return f" ({', '.join(f'{n:.0f}' for n in sorted(mine))} {'epoch' if mine == {1} else 'epochs'})"


def settings(report: analysis.TableReport) -> str:
    """What the rows of the network had: rates, and what the published rows were given."""
    runs, told = report.runs, []
    runs = runs[(runs["match"] == "cell") & (runs["column"] == "cifar10")]
    for row in ("nin_np", "nin_bn", "plain", "nin", "maxout"):
        mine = runs[runs["row"] == row]
        if len(mine):
            rate = ", ".join(sorted({f"{v:g}" for v in mine["config.optimizer.lr"]}))
            dropout = ", ".join(sorted({f"{v:g}" for v in mine["config.model.dropout"]}))
            told.append(f"{row}: learning rate {rate}, dropout {dropout}")
    return "; ".join(told)


def answer(report: analysis.TableReport, column: str) -> str:
    """What remains of the printed differences when only the normaliser changes."""
    parts = []
    for than, what in (("plain", "the same network without a normaliser"), ("nin", "NIN as published")):
        found = {n: gain(report, row, than, column) for row, n in (("nin_np", "NormProp"), ("nin_bn", "BN"))}
        if all(found.values()):
            many = stuck(report, than, column).replace(", ", "; of its runs ", 1).replace(" of them", "")
            parts.append(f"against {what} {' and '.join(f'{n} gains {v}' for n, v in found.items())}{many}")
    if not parts:
        return ""
    between = gain(report, "nin_np", "nin_bn", column)
    return f"{titled(report, column)}: {'; '.join(parts)}. NormProp against BN: {between}."


def files(report: analysis.TableReport) -> dict[str, str]:
    return {}
