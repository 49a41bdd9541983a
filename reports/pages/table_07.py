"""What the page of Table 7 has of its own: all eight cells of the design, of which the survey prints a
diagonal, so that what BN does and what the learning rate does are told apart.
"""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from reports import analysis, figures, statistics, tables
from reports.claims.table_07 import ACTIVATIONS, HIGH, LOW, SHARE, bn, plain
from reports.figures import Series, slug
from reports.pages.cells import (
    by_row,
    cell,
    columns_of,
    gain,
    mean_curves,
    of_cells,
    outcome,
    titled,
    to_target,
)
from reports.pages.cells import commands as commands

SHOWN = ["test_error", "steps_to_target", "speed_up"]
RUN_METRIC = "test_error"
NOTE = (
    "wm50 and wm100 are not public and nowhere explained; most probably they are 50 and 100 hours of speech "
    "recorded in-house. So no cell can be compared in absolute terms, only orders and relative differences. "
    "The survey does not name its error. Ours is the share of examples that are classified wrongly: of "
    "spoken words, or of pictures of digits where the data are mnist5k, which is no speech; it is no word "
    "error rate. Here wm50 is half of wm100's training set, with the same test set. Where the data are fsdd "
    "split by speakers, the test words are of two speakers and validation is on one: the intervals cover "
    "further words of these speakers and further seeds, not further speakers. Ours: mean ± sd over n "
    "seeds, below it the 95 % interval, evaluation chosen on a validation split; of steps and of times "
    "faster the median, in which a miss is infinite. Diverged runs count as 100 % error; a plain network at "
    "0.008 that diverged sets no target, and its seed has no steps."
)
README = (
    "classification error in per cent (no word error rate, on data that stand in for the survey's, so that "
    "only orders compare): mean ± sd, evaluation chosen on validation"
)
ALT = "test error by row"
NAMES = {"relu": "ReLU", "sigmoid": "sigmoid"}
# of an activation, in the order of figures: the same place, the same colour
CROSSED = {
    f"none, {LOW}": (plain, LOW),
    f"none, {HIGH}": (plain, HIGH),
    f"BN, {LOW}": (bn, LOW),
    f"BN, {HIGH}": (bn, HIGH),
}
NOTES = {  # of the groups of figures
    "Errors": (
        "Filled: ours with 95 % intervals; one that meets the edge goes on beyond it. Hollow: the survey, on"
        " its data, an unnamed error: its points are there for their order, not for their height."
    ),
    "Validation error on the way to the target": (
        "Thick: mean over seeds, thin: single seeds; a run that diverged is in the mean as long as it lasts."
        " Dashed: the target, the best validation error of the plain network at 0.008 of the same seed, mean"
        " over seeds."
    ),
    "Steps to the target": (
        "One dot a seed, bar at the median, in which a run that never gets there is infinite; how many never"
        " do stands above, and there is no bar where they are the half or more."
    ),
}


def rows_of(activation: str) -> dict[str, str]:
    """Row -> its short name, {BN, none} x both learning rates."""
    return {of(activation, rate): label for label, (of, rate) in CROSSED.items()}


def errors(report: analysis.TableReport, column: str) -> str:
    names = {row: f"{NAMES[a]}, {label}" for a in ACTIVATIONS for row, label in rows_of(a).items()}
    return by_row(report, column, list(names), "test_error", "test error (%)", names, linear=True)


def approach(report: analysis.TableReport, column: str, activation: str) -> str:
    """Validation error against steps of an activation's four rows, and their target; "" where none ran."""
    names, runs = rows_of(activation), of_cells(report, column)
    lines = [
        (place, line)
        for place, row in enumerate(names)
        for _, line in mean_curves(report, column, [row], "val_error", "step", names)
    ]
    if not lines:
        return ""
    ends = [min(line.x[0] for _, line in lines), max(line.x[-1] for _, line in lines)]
    targets = runs.loc[runs["row"] == plain(activation), "metrics.target"].dropna()
    if len(targets):
        lines.append((len(figures.KINDS), Series("target", ends, [float(targets.mean())] * 2)))
    name = f"approach-{slug(report.profile)}-{column}-{activation}"
    title, label = f"{titled(report, column)}, {NAMES[activation]}", "validation error (%)"
    places, shown = [place for place, _ in lines], [line for _, line in lines]
    return figures.curves(
        name, title, shown, xlabel="steps", ylabel=label, linear=True, ordered=False, places=places
    )


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README."""
    return {column: errors(report, column) for column in columns_of(report)}


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}."""
    columns = columns_of(report)
    told = "steps to the plain network's best error"
    found = [
        [errors(report, c) for c in columns],
        [approach(report, c, a) for c in columns for a in ACTIVATIONS],
        [to_target(report, c, told) for c in columns],
    ]
    return [
        {"title": title, "note": note, "svgs": [Markup(svg) for svg in svgs if svg]}
        for (title, note), svgs in zip(NOTES.items(), found, strict=True)
        if any(svgs)
    ]


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_07.html."""
    columns = columns_of(report)
    return {
        "pairs": [pair(report, c, a) for c in report.published.data_columns for a in ACTIVATIONS],
        "crossed": [{"title": titled(report, c), "lines": crossed(report, c)} for c in columns],
        "share": tables.number(100 * SHARE, 0),
        "low": LOW,
        "high": HIGH,
    }


def pair(report: analysis.TableReport, column: str, activation: str) -> dict[str, str]:
    """The printed pair, BN at HIGH against none at LOW: the survey's and our gain, and what it is made of."""
    old, new = plain(activation), bn(activation)
    told = [report.published.figure(row, column, "error") for row in (old, new)]
    before, after = (f.survey if f and f.survey is not None else math.nan for f in told)
    mine = [cell(report, row, column, "test_error")["mean"] for row in (old, new)]
    return {
        "row": f"{titled(report, column)}, {NAMES[activation]}",
        "survey": f"{before - after:+.2f} points",
        "survey_relative": relative(before, after),
        "ours": gain(report, new, old, column),
        "relative": relative(*mine),
        "by_bn": gain(report, bn(activation, LOW), old, column),
        "by_rate": gain(report, new, bn(activation, LOW), column),
        "share": share(report, new, column),
    }


def relative(before: float, after: float) -> str:
    """The gain as a share of what was before, as in "12.3 %"; "" where one is missing."""
    return "" if math.isnan(before - after) or not before else f"{100 * (before - after) / before:.1f} %"


def share(report: analysis.TableReport, row: str, column: str) -> str:
    """Of the plain network's steps to its best error, how many the row takes to it: median over seeds."""
    runs = of_cells(report, column)
    speeds = runs.loc[runs["row"] == row, "metrics.speed_up"].dropna()
    if not len(speeds):
        return ""
    middle = statistics.median([100 / s if s else math.inf for s in speeds])
    missed, n = int((speeds == 0).sum()), len(speeds)
    of = f"{missed} of {n} never" if missed else f"n = {n}"
    return ("never" if math.isinf(middle) else f"{middle:.0f} %") + f" ({of})"


def crossed(report: analysis.TableReport, column: str) -> list[dict[str, str]]:
    """For each activation a line without BN, one with it, and what BN gains at each learning rate."""
    lines = []
    for activation in ACTIVATIONS:
        for label, of in (("CNN", plain), ("CNN + BN", bn)):
            low, high = of(activation, LOW), of(activation, HIGH)
            lines.append(
                {
                    "row": f"{NAMES[activation]}, {label}",
                    "low": outcome(report, low, column),
                    "high": outcome(report, high, column),
                    "change": gain(report, high, low, column),
                }
            )
        gains = {
            key: gain(report, bn(activation, rate), plain(activation, rate), column)
            for key, rate in (("low", LOW), ("high", HIGH))
        }
        lines.append({"row": f"{NAMES[activation]}, gain of BN", "change": "", **gains})
    return [line for line in lines if any(line[key] for key in ("low", "high"))]


def files(report: analysis.TableReport) -> dict[str, str]:
    return {}
