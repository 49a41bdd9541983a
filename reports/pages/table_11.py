"""What the page of Table 11 has of its own: the survey's words, cell by cell, with what measuring them found;
learning curves; errors by what a study varies; costs; and what becomes of mean and variance in depth.
"""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from reports import analysis, figures, published, store, tables
from reports.claims.table_11 import COST, DROPOUT, RATES, SCALES, SIZES
from reports.figures import Series, slug
from reports.pages.cells import by_seed, cell, columns_of, learning, of_cells, titled
from reports.pages.cells import commands as commands
from reports.statistics import Sample, summary

SHOWN = ["test_error", "steps_to_target", "speed_beside", "time_ratio", "spread", "log2_largest", "drift"]
IN_README = ["test_error", "time_ratio"]
RUN_METRIC = "test_error"
NOTE = (
    "The survey compares the methods in words and prints no figure. Each of its cells is turned into one or "
    "more inequalities, and these are measured on three small networks - fully connected, convolutional, an "
    "LSTM over the rows of a picture - that differ in the method alone: same initial values by seed, same "
    "order of the data, same optimizer. Each has the learning rate that a search on another seed found best "
    "for it on that network, and so may differ by its rate as well; diminishing BN has BN's, since in "
    "training it is BN here (reading C), and recurrent BN the least bad of rates at none of which it learns "
    "well. The search chooses by 400 validation rows, where neighbours are often as good. A verdict holds "
    "for these networks and this data, not for the method everywhere; how much the rate matters is a study "
    "of its own. Studies: training, learning rates and the cost of a step beside that of batch "
    "normalisation in the same process, on all three networks; batches of two labels, statistics of four "
    "examples under the gradient of the whole batch, and sizes of the batch from 1 to 256 (as many "
    "examples, the rate in proportion to the size), on the convolutional one; initial scales, dropout and "
    "32 layers at the start, on the fully connected one. BN in the LSTM is that of its input (Laurent et "
    "al.), recurrent BN stands beside it; methods of which norms/ has no LSTM have no cell there. Times "
    "measure how well a method is implemented, too; operations, the bytes that they move, those that are "
    "kept for the backward pass and the peak of memory do not depend on the machine. Ours: mean ± sd over n "
    "seeds, below it the 95 % interval. Weight normalisation starts from a batch of data, but for initial "
    "scales and the 32 layers, where that start would undo what is varied: there it starts as the plain "
    "network. Dropout costs the plain network, too, in trainings this short: read T11.C15 beside its row. "
    "Figures beside ours are of single methods' own papers, on other data and in other units."
)
README = (
    "test error in per cent on small networks that differ in the method alone, and the time of a step "
    "divided by that of BN: mean ± sd"
)
ALT = "test error by size of the batch, and cost of a step, by method"
WORDS = {
    "convergence": "Convergence speed",
    "cost": "Computation",
    "advantages": "Advantages",
    "drawbacks": "Drawbacks",
    "applications": "Fields",
}
TRAINED = ("mlp", "cnn", "rnn")
FEW = ("cnn_groups_4", "cnn_labels")
# The figures beside a cell of words, by its column, or by method and column: (column of the records, metric).
BESIDE: dict[str, list[tuple[str, str]]] = {
    "convergence": [(c, m) for c in TRAINED for m in ("speed_up", "speed_beside")],
    "cost": [(c, m) for c in COST.values() for m in ("time_ratio", "peak_ratio")],
    "advantages": [(SCALES, "spread"), (RATES, "log2_largest"), ("rate_mlp", "log2_largest")],
    "drawbacks": [("mlp", "gap"), ("cnn", "gap")],
    "applications": [(c, "test_error") for c in TRAINED],
    "bn drawbacks": [(SIZES, "error_at_2"), (SIZES, "error_at_32"), ("cnn", "disagreement")],
    "normprop convergence": [(c, m) for c in TRAINED for m in ("speed_up", "speed_beside", "wobble")],
    "normprop advantages": [(SIZES, "error_at_1"), (SIZES, "error_at_128"), ("mlp", "ks_output")],
    "normprop drawbacks": [("cnn", "gap"), (DROPOUT, "error_at_0"), (DROPOUT, "error_at_0.2")],
    "br convergence": [(c, m) for c in ("cnn", *FEW) for m in ("speed_up", "speed_beside")],
    "br applications": [(c, "test_error") for c in FEW],
    "br drawbacks": [(c, "time_ratio") for c in COST.values()],
    "dbn convergence": [(c, m) for c in TRAINED for m in ("speed_up", "speed_beside", "wobble")],
    "dbn advantages": [("mlp", "disagreement"), ("cnn", "disagreement")],
    "dbn drawbacks": [(SIZES, "error_at_2"), (SIZES, "error_at_32")],
    "ln advantages": [("rnn", "test_error"), ("rnn", "speed_up"), ("rnn", "disagreement")],
    "ln drawbacks": [("cnn", "test_error")],
    "wn advantages": [(c, m) for c in ("mlp", "cnn") for m in ("disagreement", "gradient_noise")],
    "wn drawbacks": [(c, m) for c in ("mlp", "cnn") for m in ("gap", "test_error")],
    "snn advantages": [("depth_mlp", m) for m in ("mean_off", "variance_low", "variance_high")],
    "snn drawbacks": [("depth_mlp", "drift"), (DROPOUT, "error_at_0"), (DROPOUT, "error_at_0.2")],
}
VARIED = {  # column -> (what is varied, logarithmic)
    SIZES: ("examples of a batch", True),
    SCALES: ("scale of the initial weights", True),
    **dict.fromkeys((RATES, "rate_mlp", "rate_rnn"), ("learning rate", True)),
    DROPOUT: ("dropout", False),
}
RATIOS = {
    "time_ratio": "time",
    "traffic_ratio": "bytes moved",
    "saved_ratio": "bytes kept",
    "peak_ratio": "peak of memory",
}
NOTES = {  # of the groups of figures
    "Learning curves": (
        "Validation error after each evaluation: thick the mean over seeds, thin single seeds. A method has "
        "one colour and line in all figures."
    ),
    "By what a study varies": (
        "Test error, mean over seeds with the least and the largest; every point is a training of its own."
    ),
    "Cost of a training step": (
        "Divided by that of BN: time in the same process and in turns; bytes that the operations read and "
        "write; bytes kept for the backward pass; the most bytes held at a time. BN against itself says how "
        "far a ratio of times is off."
    ),
    "Thirty-two layers at the start": (
        "Variance behind each layer, the least and the largest over six kinds of input (mean -1 and 1, "
        "variance 0.5, 1 and 2), weights as each method starts; smallest seed."
    ),
}


def varied(report: analysis.TableReport, column: str) -> str:
    """Test error against what the study varies, a line a method; "" where nothing ran."""
    runs, lines = of_cells(report, column), []
    for place, row in enumerate(report.published.main_rows):
        found = store.heavy(runs[runs["row"] == row.id], "curves")
        pairs = [(c["value"], c["test_error"]) for c in found if c and c.get("value") and c.get("test_error")]
        if len((line := figures.mean_curve(short(row.en), pairs)).x):
            lines.append((place, line))
    if not lines:
        return ""
    what, log = VARIED[column]
    return figures.curves(
        f"varied-{slug(report.profile)}-{slug(column)}", titled(report, column), [s for _, s in lines],
        xlabel=what, ylabel="test error (%)", linear=True, ordered=False,
        places=[place for place, _ in lines], log_x=log, whole=False,
    )  # fmt: skip


def cost(report: analysis.TableReport, network: str) -> str:
    """Ratios to BN by method; "" where nothing ran."""
    column = COST[network]
    rows = [r for r in report.published.rows_of(column) if cell(report, r.id, column, "time_ratio").get("n")]
    if not rows:
        return ""
    nothing = [Series(name, [], []) for name in ("survey", "source paper")]

    def ours(metric: str, label: str) -> Series:
        found = [summary(Sample(by_seed(report, r.id, column, metric))) for r in rows]
        return Series(label, list(range(len(rows))), [s.mean for s in found], [s.low for s in found],
                      [s.high for s in found])  # fmt: skip

    return figures.points(
        f"cost-{slug(report.profile)}-{network}", titled(report, column), [short(r.en) for r in rows],
        nothing + [ours(metric, label) for metric, label in RATIOS.items()],
        xlabel="method", ylabel="BN = 1", linear=True,
    )  # fmt: skip


def short(name: str) -> str:
    """What stands in brackets at the end of a row's name, or the name."""
    return name[name.rindex("(") + 1 : -1] if name.endswith(")") else name.removesuffix(" normalisation")


def names(report: analysis.TableReport) -> dict[str, str]:
    return {row.id: short(row.en) for row in report.published.main_rows}


def depth(report: analysis.TableReport) -> str:
    """Variance behind each layer; "" where nothing ran."""
    runs, lines = of_cells(report, "depth_mlp"), []
    for place, row in enumerate(report.published.main_rows):
        for curves in store.heavy(runs[runs["row"] == row.id], "curves"):
            told = [v for k, v in (curves or {}).items() if k.startswith("variances_") and all(v)]
            if not told:
                continue
            x = list(range(1, len(told[0]) + 1))
            sides = [(min(v), max(v)) for v in zip(*told, strict=True)]
            middle = [math.sqrt(low * high) for low, high in sides]
            lines.append(
                (place, Series(short(row.en), x, middle, [s[0] for s in sides], [s[1] for s in sides]))
            )
            break
    if not lines:
        return ""
    return figures.curves(
        f"depth-{slug(report.profile)}", "Variance behind each layer", [s for _, s in lines],
        xlabel="layer", ylabel="variance", ordered=False, places=[place for place, _ in lines],
    )  # fmt: skip


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README."""
    found = {"batch_size": varied(report, SIZES), "cost": cost(report, "cnn")}
    return {name: svg for name, svg in found.items() if svg}


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}."""
    ran = columns_of(report)
    trained = [c for c in ran if c not in (*VARIED, *COST.values(), "depth_mlp")]
    found = [
        [learning(report, c, "val_error", "validation error (%)", names=names(report)) for c in trained],
        [varied(report, c) for c in VARIED if c in ran],
        [cost(report, network) for network in COST],
        [depth(report)],
    ]
    return [
        {"title": title, "note": note, "svgs": [Markup(svg) for svg in svgs if svg]}
        for (title, note), svgs in zip(NOTES.items(), found, strict=True)
        if any(svgs)
    ]


def place(audit: str) -> str:
    """Where an audit row stands: on this page, or on that of the table that it is about first."""
    for entry in published.index()["tables"]:
        if entry["built"] and any(a.id == audit for a in published.load(entry["id"]).audit):
            page = "" if entry["id"] == "T11" else f"table_{int(entry['id'][1:]):02d}.html"
            return f"{page}#audit-{audit}"
    raise ValueError(f"no table has {audit}")


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_11.html: the survey's cells with what their claims came to."""
    claims = {c.id: c for c in report.claims}
    names = {row.id: row for row in report.published.rows}
    return {
        "words": [
            {
                "method": names[word.row].en,
                "zh_method": names[word.row].zh,
                "column": WORDS[word.column],
                "zh": word.zh,
                "en": word.en,
                "audit": {a: place(a) for a in word.audit},
                "claims": [claims[i] for i in word.claims],
                "why": word.why,
                "figures": beside(report, word),
            }
            for word in report.published.words
        ],
    }


def beside(report: analysis.TableReport, word: published.Word) -> list[dict[str, Any]]:
    """The method's figures that a cell of words is about, with those of BN and of no normaliser."""
    found = []
    for column, metric in BESIDE.get(f"{word.row} {word.column}", BESIDE[word.column]):
        known = report.published.metric(metric)
        cells = {row: cell(report, row, column, metric) for row in dict.fromkeys((word.row, "bn", "none"))}
        told = {row: c["mean"] for row, c in cells.items() if c.get("n")}
        if word.row in told:
            found.append(
                {
                    "column": report.published.group(column),
                    "metric": known.short,
                    "n": cells[word.row]["n"],
                    "ours": tables.number(told[word.row], known.digits),
                    "others": [
                        f"{'BN' if row == 'bn' else row} {tables.number(told[row], known.digits)}"
                        for row in told
                        if row != word.row
                    ],
                }
            )
    return found


def files(report: analysis.TableReport) -> dict[str, str]:
    return {}
