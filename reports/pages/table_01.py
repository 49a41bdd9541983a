"""What the page of Table 1 has of its own: accuracy against steps, what each part of the recipe gives, and
section 4.1 of the source.
"""

from __future__ import annotations

import math
import statistics
from typing import Any

from markupsafe import Markup

from reports import analysis, figures, store, tables
from reports.figures import Series, slug
from reports.pages.cells import cell, columns_of, of_cells, titled, to_target
from reports.pages.cells import commands as commands
from reports.statistics import Sample, summary

SHOWN = ["test_accuracy", "steps_to_target", "speed_up", "step_best_val"]
IN_README = ["test_accuracy", "steps_to_target"]
RUN_METRIC = "test_accuracy"
NOTE = (
    "Survey and source: single printed numbers, one run each, on ImageNet. Ours: mean ± sd over n seeds, "
    "below it the 95 % interval; of steps and of times faster the median, in which a miss is infinite. "
    "The target of a seed is the best validation accuracy of its plain Inception; one that diverged sets no "
    "target, and its seed has no steps. Diverged runs count as 0 % accuracy. A difference in brackets is one "
    "to a number measured on other data."
)
README = (
    "test accuracy in per cent: mean ± sd, evaluation chosen on validation; steps to the plain network's "
    "best: median"
)
ALT = "accuracy against steps; inputs of a sigmoid over time"
BASE = "bn_baseline"
TO_TARGET = "steps to the plain network's best accuracy"
SECTION = {"sigmoids": "without BN", "sigmoids_bn": "with BN"}
PERCENTILES = {"input_p15": "15th percentile", "input_p50": "median", "input_p85": "85th percentile"}


def against_steps(report: analysis.TableReport, column: str) -> str:
    """Test accuracy against training steps, a line a row; the recipe's single switches are left out."""
    runs, lines = of_cells(report, column), []
    for row in report.published.main_rows:
        found = store.heavy(runs[runs["row"] == row.id], "curves")
        pairs = [(c["step"], right(c["test_error"])) for c in found if c and c.get("step")]
        lines.append(figures.mean_curve(row.en, pairs))
    shown = [line for line in lines if len(line.x)]
    name, label = f"steps-{slug(report.profile)}-{column}", "test accuracy (%)"
    return figures.curves(
        name, titled(report, column), shown, xlabel="steps", ylabel=label, linear=True, ordered=False
    )


def right(errors: list[float | None]) -> list[float]:
    return [math.nan if e is None else 100 - e for e in errors]


def drift(report: analysis.TableReport) -> str:
    """Section 4.1's figure: percentiles of a last hidden sigmoid's input over the steps, first seed."""
    runs, panels = of_cells(report, "mnist"), {}
    for row, label in SECTION.items():
        mine = runs[runs["row"] == row].head(1)
        for curves in store.heavy(mine, "curves"):
            if curves and curves.get("input_p50"):
                panels[label] = [Series(PERCENTILES[k], curves["step"], curves[k]) for k in PERCENTILES]
    name, title = (
        f"drift-{slug(report.profile)}",
        f"{titled(report, 'mnist')}: input of a last hidden sigmoid",
    )
    return figures.panels(name, title, panels, xlabel="steps", ylabel="input", per_row=2)


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README."""
    found = {}
    if len(of_cells(report, "imagenet")):
        found["steps"] = against_steps(report, "imagenet")
    if len(of_cells(report, "mnist")):
        found["drift"] = drift(report)
    return found


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}."""
    columns = columns_of(report)
    if not columns:
        return []
    note = (
        "Thick: mean over seeds, thin: single seeds. The accelerated rows train for fewer steps: their "
        "learning rate falls six times as fast."
    )
    groups: list[dict[str, Any]] = [
        {"title": "Accuracy against steps", "note": note,
         "svgs": [Markup(against_steps(report, c)) for c in columns]},
    ]  # fmt: skip
    on = [c for c in columns if c != "mnist"]
    if on:
        note = (
            "One dot a seed, bar at the median, in which a run that never gets there is infinite; how many"
            " never do stands above, and there is no bar where they are the half or more."
        )
        groups.append(
            {
                "title": "Steps to the target",
                "note": note,
                "svgs": [Markup(to_target(report, c, TO_TARGET)) for c in on],
            }
        )
    if "mnist" in columns:
        note = (
            "The source's Figure 1 (b, c): 15th percentile, median and 85th percentile of the input of one "
            "sigmoid of the last hidden layer, over the test pictures. The network is in its evaluation mode."
        )
        title = "Section 4.1: inputs of a sigmoid over time"
        groups.append({"title": title, "note": note, "svgs": [Markup(drift(report))], "wide": True})
    return groups


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_01.html: the ablation, a table a column."""
    found = {c: ablation(report, c) for c in report.published.data_columns if c != "mnist"}
    return {"ablations": [{"title": titled(report, c), **a} for c, a in found.items() if a["lines"]]}


def ablation(report: analysis.TableReport, column: str) -> dict[str, Any]:
    """What BN alone, each switch beside it and the whole recipe give: steps to the target, share of the
    speed-up, and accuracy after as many steps as every row has.
    """
    pub, runs = report.published, of_cells(report, column)
    rows = [r for r in pub.rows_of(column) if r.kind == "ablation" or r.id in ("inception", BASE, "bn_x5")]
    found = {r.id: trained(runs[runs["row"] == r.id]) for r in rows}
    rows = [r for r in rows if found[r.id]]
    equal = min((found[r.id]["steps"] for r in rows if found[r.id]["steps"]), default=0)
    lines = []
    for row in rows:
        mine = found[row.id]
        after = summary(Sample({seed: accuracy_at(c, equal) for seed, c in mine["curves"].items()}))
        faster = times(report, column, row.id)
        lines.append(
            {
                "row": row.en,
                "n": after.n,
                "trained": tables.number(mine["steps"], 0) if mine["steps"] else "diverged",
                "steps": tables.mean_sd(cell(report, row.id, column, "steps_to_target"), 0),
                "faster": tables.number(faster, 2) if faster else "never there",
                "share": "" if row.id == "inception" else share_text(runs, row.id),
                "accuracy": tables.mean_sd({"mean": after.mean, "sd": after.sd, "n": after.n}, 2),
            }
        )
    extra = [line for line in lines if line["row"] not in ("Inception",)]
    return {
        "lines": lines if len(extra) > 2 else [],
        "equal": tables.number(equal, 0),
        "answer": answer(report, column),
    }


def trained(runs: Any) -> dict[str, Any]:
    """Of one row: its steps (0: every run diverged) and curves by seed (None: diverged); {}: not run."""
    found: dict[int, dict[str, Any] | None] = {}
    for seed, status, curves in zip(runs["seed"], runs["status"], store.heavy(runs, "curves"), strict=True):
        if status == "diverged":
            found[int(seed)] = None
        elif curves and curves.get("step"):
            found[int(seed)] = curves
    steps = max((c["step"][-1] for c in found.values() if c), default=0)
    return {"steps": steps, "curves": found} if found else {}


def accuracy_at(curves: dict[str, Any] | None, step: float) -> float:
    """Test accuracy at the last evaluation up to a step; a run that diverged has 0 %."""
    if curves is None:
        return 0.0
    errors = [e for s, e in zip(curves["step"], curves["test_error"], strict=True) if s <= step]
    return right(errors[-1:])[0] if errors else math.nan


def shares(runs: Any, row: str) -> dict[int, float]:
    """Seed -> log(speed-up of the row) / log(speed-up of BN-x5) in per cent; seeds of which one of the two
    never got there, or BN-x5 was not faster, are left out.
    """

    def speeds(of: str) -> dict[int, float]:
        mine = runs[runs["row"] == of]
        return dict(zip(mine["seed"].astype(int), mine["metrics.speed_up"].astype(float), strict=True))

    part, whole = speeds(row), speeds("bn_x5")
    both = [seed for seed in sorted(part) if part[seed] > 0 and whole.get(seed, 0) > 1]
    return {seed: share_of(part[seed], whole[seed]) for seed in both}


def share_text(runs: Any, row: str) -> str:
    """The median over seeds, and their range where there are several; "" without any."""
    found = sorted(shares(runs, row).values())
    if not found:
        return ""
    middle = statistics.median(found)
    ends = f"{found[0]:.0f} to {found[-1]:.0f}"
    return f"{middle:.0f} %" if f"{found[0]:.0f}" == f"{found[-1]:.0f}" else f"{middle:.0f} % ({ends})"


def times(report: analysis.TableReport, column: str, row: str) -> float:
    """How many times as fast as the plain network, the median over seeds; 0: never there, NaN: not run."""
    mine = report.cells
    mine = mine[(mine["row"] == row) & (mine["column"] == column) & (mine["metric"] == "speed_up")]
    return float(mine["mean"].iloc[0]) if len(mine) else math.nan


def answer(report: analysis.TableReport, column: str) -> str:
    """Which part of the speed-up is BN's own."""
    alone, whole = times(report, column, BASE), times(report, column, "bn_x5")
    if math.isnan(alone) or math.isnan(whole):
        return ""
    if not whole > 1:
        return "With the whole recipe BN was not faster here than the plain network: nothing to share out."
    if not alone:
        return f"BN and the recipe: {whole:.1f} times as fast; BN alone never reached the target."
    theirs = [printed(report, "inception") / printed(report, row) for row in (BASE, "bn_x5")]
    verdict = next((c.verdict for c in report.claims if c.id == "T1.C8"), "not run")
    return (
        f"BN alone: {alone:.1f} times as fast as the plain network; with the recipe {whole:.1f} times. On a "
        f"logarithmic scale BN alone is {share_text(of_cells(report, column), BASE)} of it: median over "
        "seeds, and their range. What the recipe adds needs BN in so far as its rate is impossible "
        f"without: claim T1.C8 ({verdict} here). The source has {theirs[0]:.1f} and "
        f"{theirs[1]:.1f} times, which is {share_of(*theirs):.0f} %."
    )


def share_of(part: float, whole: float) -> float:
    return 100 * math.log(part) / math.log(whole)


def printed(report: analysis.TableReport, row: str) -> float:
    """The source's steps to the target."""
    figure = report.published.figure(row, "imagenet", "steps")
    assert figure is not None and figure.source is not None
    return figure.source


def files(report: analysis.TableReport) -> dict[str, str]:
    return {}
