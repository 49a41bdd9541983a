"""What the page of Table 8 has of its own: training beside validation, which the survey does not print, the
gap between them epoch by epoch, and what the statistics of evaluation do to it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from reports import analysis, figures, store, tables
from reports.claims.table_08 import CHAR, PTB, SIZES, bn
from reports.figures import Series, mean_curve, slug
from reports.pages.cells import by_row, by_seed, cell, columns_of, of_cells, titled
from reports.pages.cells import commands as commands
from reports.statistics import Sample, summary

SHOWN = ["train_ppl_at", "val_ppl_at", "test_ppl", "test_bits"]
IN_README = ["train_ppl_at", "val_ppl_at", "test_bits"]
RUN_METRIC = "val_ppl"
NOTE = (
    "Perplexities; lower is better. The survey prints training perplexities and does not say so (A22): "
    "on validation its source's order is the reverse. Training: over an epoch as it goes, with dropout "
    "and batch statistics. Training and validation are read at the plain network's epoch of best "
    "validation with the same seed, as the source's pairs most probably are (which is the plain "
    "network's best and not BN's: 'own best' has each at its own, and so has test). Validation and "
    "test: every word but the first, with running statistics, which belong to a step of a window and "
    "not to a time of the text; the source's own rule, nine tenths of the evaluation batch's "
    "statistics, is beside it. Ours: mean ± sd over n seeds, below it the 95 % interval; that of a "
    "validation perplexity covers another draw of stretches of text, too, where the epoch is the row's "
    "own best. Diverged runs count as a guess among 10,000 words or 50 characters. Profile quick "
    "(40,000 words of the King James text, 32 to 64 units, 7 epochs) is unfinished training: nearly "
    "all its networks were best in their last epoch, those without BN, which start slowly, far from done, "
    "so that it says who learns faster and nothing of who ends better. In cpu medium and large networks "
    "have 4 epochs of 39 and 55, and quick's large network half the learning rate: claims across sizes "
    "compare different schedules there. A published anchor of the plain networks on Penn Treebank "
    "(Zaremba et al.): validation and test 120.7 and 114.5 (small), 86.2 and 82.7 (medium, from "
    "memory), 82.2 and 78.4 (large). Permuted MNIST (half of T8.C10) is not run."
)
README = (
    "perplexity: mean ± sd, read at the plain network's epoch of best validation; the survey's column is "
    "*training* perplexity (A22)"
)
ALT = "training and validation perplexity by row"
KINDS = {"train_ppl": "training", "val_ppl": "validation"}
NOTES = {  # of the groups of figures
    "Training and validation, epoch by epoch": (
        "The gap between the dashed line (training, as it goes) and the solid one (validation, running"
        " statistics) is what a network has learned by heart. Thick: mean over seeds, thin: single seeds."
    ),
    "The gap": "Validation minus training perplexity after each epoch.",
    "By row": (
        "Filled: ours with 95 % intervals. Hollow and crossed: survey and source, on Penn Treebank; of"
        " validation the survey prints nothing."
    ),
    "Statistics in evaluation": (
        "Validation perplexity with BN of the input: running statistics, and nine tenths of the evaluation"
        " batch's mixed in, as the source has it."
    ),
}


def named(size: str) -> dict[str, str]:
    return {size: "LSTM", bn(size): "LSTM + BN"}


def lines_of(
    report: analysis.TableReport, column: str, row: str, label: str, of: Callable[..., Any]
) -> Series:
    """Mean over seeds of `of(curves)`, a list with a value an epoch, of a row's runs."""
    runs = of_cells(report, column)
    found = [c for c in store.heavy(runs[runs["row"] == row], "curves") if c and c.get("val_ppl")]
    return mean_curve(label, [(c["epoch"], of(c)) for c in found])


def drawn(
    report: analysis.TableReport, name: str, title: str, lines: list[tuple[int, Series]], label: str
) -> str:
    lines = [(place, line) for place, line in lines if len(line.x)]
    if not lines:
        return ""
    places, shown = [place for place, _ in lines], [line for _, line in lines]
    name = f"{name}-{slug(report.profile)}"
    return figures.curves(name, title, shown, ylabel=label, linear=True, ordered=False, places=places)


def headed(report: analysis.TableReport, size: str) -> str:
    return f"{size}, {titled(report, PTB)}"


def learning(report: analysis.TableReport, size: str) -> str:
    """Training and validation of a size, with BN and without; "" where nothing ran."""
    dashed = len(figures.KINDS)
    lines = []
    for colour, (row, name) in enumerate(named(size).items(), 1):
        for key, kind in KINDS.items():
            place = colour + (dashed if key == "train_ppl" else 0)
            lines.append((place, lines_of(report, PTB, row, f"{name}, {kind}", lambda c, key=key: c[key])))
    return drawn(report, f"learning-{size}", headed(report, size), lines, "perplexity")


def gaps(report: analysis.TableReport, size: str) -> str:
    def gap(curves: dict[str, Any]) -> list[float | None]:
        pairs = zip(curves["val_ppl"], curves["train_ppl"], strict=True)
        return [None if v is None or t is None else v - t for v, t in pairs]

    lines = [
        (i, lines_of(report, PTB, row, name, gap)) for i, (row, name) in enumerate(named(size).items(), 1)
    ]
    return drawn(report, f"gap-{size}", headed(report, size), lines, "validation - training perplexity")


def rules(report: analysis.TableReport, size: str) -> str:
    """Both rules of evaluation, of the network with BN."""
    told = {"val_ppl": "running", "val_ppl_mixture": "0.9 of the batch"}
    lines = [
        (i, lines_of(report, PTB, bn(size), name, lambda c, key=key: c[key]))
        for i, (key, name) in enumerate(told.items(), 1)
    ]
    return drawn(report, f"rules-{size}", headed(report, size), lines, "validation perplexity")


def shown_rows(report: analysis.TableReport) -> dict[str, str]:
    return {r.id: r.en.replace(" LSTM", "") for r in report.published.rows if PTB in r.columns}


def errors(report: analysis.TableReport, metric: str, label: str) -> str:
    told = shown_rows(report)
    return by_row(report, PTB, list(told), metric, label, told)


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README."""
    if PTB not in columns_of(report):
        return {}
    return {
        "training": errors(report, "train_ppl_at", "training perplexity"),
        "validation": errors(report, "val_ppl_at", "validation perplexity"),
    }


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}."""
    found = [
        [learning(report, size) for size in SIZES],
        [gaps(report, size) for size in SIZES],
        list(pictures(report).values()),
        [rules(report, size) for size in SIZES],
    ]
    return [
        {"title": title, "note": note, "svgs": [Markup(svg) for svg in svgs if svg]}
        for (title, note), svgs in zip(NOTES.items(), found, strict=True)
        if any(svgs)
    ]


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_08.html."""
    return {
        "title": titled(report, PTB),
        "pairs": [pair(report, size) for size in SIZES],
        "rules": [line for row in shown_rows(report) if (line := rule(report, row))["val_ppl"]],
        "char": titled(report, CHAR),
        "bits": [bits(report, r.id) for r in report.published.rows if CHAR in r.columns],
    }


def pair(report: analysis.TableReport, size: str) -> dict[str, str]:
    """What BN changes in a size: printed training and validation, and ours."""
    told = {}
    for metric in ("train", "val"):
        printed = [report.published.figure(row, PTB, metric) for row in (size, bn(size))]
        before, after = (f.source if f and f.source is not None else math.nan for f in printed)
        told[metric] = f"{before:.1f} → {after:.1f} ({after - before:+.1f})"
    return {
        "size": size,
        "train": told["train"],
        "val": told["val"],
        "ours_train": change(report, size, "train_ppl_at"),
        "ours_val": change(report, size, "val_ppl_at"),
        "ours_own": change(report, size, "val_ppl"),
        "ours_test": change(report, size, "test_ppl"),
    }


def change(report: analysis.TableReport, size: str, metric: str) -> str:
    """Means without and with BN, and the difference seed by seed with its interval over seeds; "" where one
    of them did not run.
    """
    one, other = (values(report, row, metric) for row in (size, bn(size)))
    seeds = sorted(one.keys() & other.keys())
    if not seeds:
        return ""
    found = summary(Sample({seed: other[seed] - one[seed] for seed in seeds}))
    limits = "" if math.isnan(found.low) else f", {found.low:+.1f} to {found.high:+.1f}"
    before, after = (sum(v[s] for s in seeds) / len(seeds) for v in (one, other))
    return f"{before:.1f} → {after:.1f} ({found.mean:+.1f}{limits}; n = {found.n})"


def values(report: analysis.TableReport, row: str, metric: str) -> dict[int, float]:
    """A metric by seed; a run that diverged counts as that metric says."""
    return by_seed(report, row, PTB, metric)


def rule(report: analysis.TableReport, row: str) -> dict[str, str]:
    """A row's figures by each rule: training as it goes and evaluated, validation by three rules."""
    keys = ("train_ppl_at", "train_ppl_evaluated_at", "val_ppl_at", "val_ppl_mixture_at", "val_ppl_source_at")
    found = {key.removesuffix("_at"): text(report, row, PTB, key, 1) for key in keys}
    return {"row": next(r.en for r in report.published.rows if r.id == row), **found}


def text(report: analysis.TableReport, row: str, column: str, metric: str, digits: int) -> str:
    c = cell(report, row, column, metric)
    return f"{tables.mean_sd(c, digits)}, n = {c['n']}" if c and c["n"] else ""


def bits(report: analysis.TableReport, row: str) -> dict[str, str]:
    figure = report.published.figure(row, CHAR, "bits")
    name = next(r.en for r in report.published.rows if r.id == row)
    source = "" if figure is None or figure.source is None else f"{figure.source:.2f}"
    return {"row": name, "source": source, "ours": text(report, row, CHAR, "test_bits", 3)}


def files(report: analysis.TableReport) -> dict[str, str]:
    return {}
