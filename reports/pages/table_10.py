"""What the page of Table 10 has of its own: source x target for each method, gains over one's own source-only
network, how many target pictures are enough, and how far the domains are apart inside the network.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from reports import analysis, figures, store, tables
from reports.claims.table_10 import LAYERS, SIX
from reports.figures import Series, slug
from reports.pages.cells import cell, columns_of, of_cells, titled
from reports.pages.cells import commands as commands
from reports.statistics import Sample, summary

SHOWN = ["test_accuracy"]
RUN_METRIC = "test_accuracy"
NOTE = (
    "Accuracy on all target pictures, in per cent; higher is better. The survey's table body is missing "
    "from the text at hand: the printed figures are its source's, and on other networks (AlexNet or a "
    "pre-trained Inception-BN), so that only gains over one's own source-only row compare. "
    "Transductive: the pictures that statistics are taken of are those that are scored; target labels "
    "give the score and nothing else. On our networks source-only, CORAL, SA, GFK, AdaBN and AdaBN + "
    "CORAL are ways of using one and the same trained network; SA, GFK and CORAL classify with an SVM on its "
    "features, and what is theirs is the gain over that SVM on features as they are; Deep CORAL and "
    "DANN train with the target's pictures. Where the data are digit_domains, A stands for textured, "
    "D for coloured and W for blurred digits: nothing of Amazon's pictures is in them. "
    "Ours: mean ± sd over n seeds, below it the 95 % interval. Runs that diverged count as 0 %."
)
README = (
    "accuracy on the target in per cent: mean ± sd; the source's figures rest on other networks, so that "
    "only gains over the source-only row compare"
)
ALT = "gain over the source-only network"
METHODS = (
    "source", "source_svm", "sa", "gfk", "coral", "adabn", "adabn_svm", "adabn_coral", "deep_coral", "dann",
)  # fmt: skip
# Rows that classify with an SVM, and the same SVM on features that are not aligned.
CONTROL = {**dict.fromkeys(("sa", "gfk", "coral"), "source_svm"), "adabn_coral": "adabn_svm"}
FEW = (1, 4, 16, 32, 64, 128, 256)
FROM_A = ("aw", "ad")
NOTES = {  # of the groups of figures
    "Gain over the source-only network": (
        "Points of accuracy over the source-only row of the same network or seed, mean over the six "
        "transfers. Crossed: the source paper's gains over its own source-only row (Deep CORAL and DANN: "
        "over AlexNet's; DANN: on three transfers)."
    ),
    "Source x target": ("Accuracy, mean over seeds; a field a pair of domains."),
    "How many target pictures": (
        "AdaBN with statistics of 1 to 256 pictures and of all; the line: source only."
    ),
    "Divergence by layer": (
        "Symmetric KL between the domains behind each layer of batch normalisation and its ReLU, before and "
        "after adaptation. Before the ReLU, means and variances are made equal by construction."
    ),
    "Features in a plane": (
        "Penultimate features of source and target pictures of one seed, before and after adaptation, on the "
        "first two principal directions of all of them together."
    ),
}


def runs_of(report: analysis.TableReport, column: str, row: str) -> Any:
    runs = of_cells(report, column)
    return runs[runs["row"] == row]


def by_seed(report: analysis.TableReport, column: str, row: str) -> dict[int, float]:
    """Accuracy by seed; a run that diverged has none of it right."""
    runs = runs_of(report, column, row)
    if runs.empty:
        return {}
    values = runs["metrics.test_accuracy"].where(runs["status"] != "diverged", 0.0).astype(float)
    return dict(zip(runs["seed"].astype(int), values, strict=True))


def gains(report: analysis.TableReport, row: str, over: str = "source") -> dict[int, float]:
    """Mean gain over another row on the six transfers, seed by seed; {} unless all of them ran."""
    found: dict[int, list[float]] = {}
    for column in SIX:
        mine, base = by_seed(report, column, row), by_seed(report, column, over)
        for seed in mine.keys() & base.keys():
            found.setdefault(seed, []).append(mine[seed] - base[seed])
    return {seed: sum(v) / len(v) for seed, v in sorted(found.items()) if len(v) == len(SIX)}


def printed_gain(report: analysis.TableReport, row: str) -> float:
    """The source paper's mean gain over its own source-only row, over the transfers that it prints (of
    RevGrad three); NaN without any.
    """
    base = "alexnet" if row in ("deep_coral", "dann") else "source"
    pairs = [[report.published.figure(r, c, "accuracy") for r in (row, base)] for c in SIX]
    told = [[f.source if f else None for f in pair] for pair in pairs]
    known = [a - b for a, b in told if a is not None and b is not None]
    return sum(known) / len(known) if known else math.nan


def gain_figure(report: analysis.TableReport) -> str:
    rows = [row for row in METHODS if row != "source" and gains(report, row)]
    if not rows:
        return ""
    names = {r.id: r.en.split(" (")[0] for r in report.published.rows}
    ours = [summary(Sample(gains(report, row))) for row in rows]
    x = list(range(len(rows)))
    lines = [
        Series("survey", [], []),
        Series("source paper", x, [printed_gain(report, row) for row in rows]),
        Series(
            "ours, 95 % interval", x, [s.mean for s in ours], [s.low for s in ours], [s.high for s in ours]
        ),
    ]
    title = f"Six transfers (ours: {titled(report, SIX[0]).split('ours: ')[-1]}"
    return figures.points(
        f"gain-{slug(report.profile)}", title, [names[row] for row in rows], lines,
        xlabel="method", ylabel="gain (points)", linear=True,
    )  # fmt: skip


def domains(report: analysis.TableReport) -> tuple[list[str], dict[tuple[str, str], str]]:
    """Names of domains, and (source, target) -> column, of columns with one source that ran."""
    found: dict[tuple[str, str], str] = {}
    runs = report.runs[report.runs["match"] == "cell"]
    keys = ["column", "config.data.options.source", "config.data.options.target"]
    if not len(runs) or not set(keys) <= set(runs):
        return [], {}
    for column, source, target in runs[keys].drop_duplicates().itertuples(index=False, name=None):
        if "+" not in str(source) and not str(column).endswith("_features"):
            found[str(source), str(target)] = str(column)
    return list(dict.fromkeys(name for pair in found for name in pair)), found


def matrix(report: analysis.TableReport, row: str) -> str:
    names, columns = domains(report)
    values, counts = (np.full((len(names), len(names)), np.nan) for _ in range(2))
    for (source, target), column in columns.items():
        if found := by_seed(report, column, row):
            i, j = names.index(source), names.index(target)
            values[i, j], counts[i, j] = sum(found.values()) / len(found), len(found)
    if np.isnan(values).all():
        return ""
    told = next((r.en.split(" (")[0] for r in report.published.rows if r.id == row), row)
    return figures.heat(
        f"matrix-{row.replace('_', '-')}-{slug(report.profile)}", told, names, names, values, counts,
        xlabel="target", ylabel="source", zlabel="accuracy (%)",
    )  # fmt: skip


def few(report: analysis.TableReport, column: str) -> str:
    """Accuracy of AdaBN against the number of target pictures, beside the source-only network."""
    found = [(n, summary(Sample(v))) for n in FEW if (v := by_seed(report, column, f"adabn_{n}"))]
    if not found:
        return ""
    labels = [str(n) for n, _ in found]
    points = [s for _, s in found]
    if every := by_seed(report, column, "adabn"):
        points, labels = [*points, summary(Sample(every))], [*labels, "all"]
    x = list(range(len(points)))
    lines = [Series("AdaBN", x, [s.mean for s in points], [s.low for s in points], [s.high for s in points])]
    if base := by_seed(report, column, "source"):
        lines.append(Series("source only", x, [sum(base.values()) / len(base)] * len(x)))
    name, title = f"few-{slug(report.profile)}-{column}", titled(report, column)
    return figures.line(name, title, lines, xlabel="target pictures", ylabel="accuracy (%)", labels=labels)


def curves_of(report: analysis.TableReport, column: str) -> list[dict[str, Any]]:
    found = store.heavy(runs_of(report, column, "adabn"), "curves")
    return [c for c in found if c and c.get("divergence_before") and c.get("divergence_after")]


def by_layer(report: analysis.TableReport, column: str) -> str:
    told = curves_of(report, column)
    if not told:
        return ""
    lines = []
    for when in ("before", "after"):
        layers = list(zip(*(c[f"divergence_{when}"] for c in told), strict=True))
        sums = [summary(Sample(dict(enumerate(map(float, values))))) for values in layers]
        x = [i + 1 for i in range(len(layers))]
        low = [max(s.low, 0.0) for s in sums]
        lines.append(Series(when, x, [s.mean for s in sums], low, [s.high for s in sums]))
    name, title = f"divergence-{slug(report.profile)}-{column}", titled(report, column)
    return figures.line(name, title, lines, xlabel="layer", ylabel="symmetric KL")


def plane(report: analysis.TableReport, column: str) -> str:
    """Of the first seed that has them."""
    told = [c for c in curves_of(report, column) if c.get("plane_before") and c.get("plane_after")]
    if not told:
        return ""
    panels = {}
    for when in ("before", "after"):
        flat, n = told[0][f"plane_{when}"], told[0].get("plane_rows") or [0]
        first = int(n[0])
        second = (len(flat) - 2 * first) // 2
        x, y = flat[:first], flat[first : 2 * first]
        u, v = flat[2 * first : 2 * first + second], flat[2 * first + second :]
        panels[when] = {"source": (x, y), "target": (u, v)}
    return figures.clouds(f"plane-{slug(report.profile)}-{column}", titled(report, column), panels)


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README."""
    return {name: svg for name, svg in (("gains", gain_figure(report)),) if svg}


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}."""
    columns = [c for c in FROM_A if c in columns_of(report)]
    found = [
        [gain_figure(report)],
        [matrix(report, row) for row in METHODS],
        [few(report, c) for c in columns],
        [by_layer(report, c) for c in columns],
        [plane(report, c) for c in columns],
    ]
    return [
        {"title": title, "note": note, "svgs": [Markup(svg) for svg in svgs if svg]}
        for (title, note), svgs in zip(NOTES.items(), found, strict=True)
        if any(svgs)
    ]


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_10.html."""
    told = {r.id: r.en for r in report.published.rows}
    return {
        "gains": [
            {
                "row": told[row],
                "printed": signed(printed_gain(report, row)),
                "ours": interval(gains(report, row)),
                "svm": interval(gains(report, row, CONTROL[row])) if row in CONTROL else "",
            }
            for row in METHODS
            if row != "source"
        ],
        "apart": [apart(report, column, layer) for column in FROM_A for layer in LAYERS],
    }


def apart(report: analysis.TableReport, column: str, layer: str) -> dict[str, str]:
    """Divergence before and after, printed and ours."""
    line = {"where": f"{titled(report, column)}, {layer}"}
    for when in ("before", "after"):
        found = cell(report, "adabn", column, f"{layer}_{when}")
        line[when] = tables.mean_sd(found, 3) if found and found["n"] else ""
        line[f"{when}_printed"] = printed(report, column, f"{layer}_{when}")
    return line


def printed(report: analysis.TableReport, column: str, metric: str) -> str:
    figure = report.published.figure("adabn", column, metric)
    return "" if figure is None or figure.source is None else f"{figure.source:.4f}"


def signed(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.1f}"


def interval(values: dict[int, float]) -> str:
    if not values:
        return ""
    found = summary(Sample(values))
    limits = "" if math.isnan(found.low) else f" ({found.low:+.1f} to {found.high:+.1f})"
    return f"{found.mean:+.1f}{limits}, n = {found.n}"


def files(report: analysis.TableReport) -> dict[str, str]:
    return {}
