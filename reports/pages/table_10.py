"""What the page of Table 10 has of its own: source x target for each method, gains over one's own source-only
network, how many target pictures are enough, and how far the domains are apart inside the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from reports import analysis, figures, store, tables
from reports.claims.table_10 import LAYERS, MULTI, SIX
from reports.figures import Series, slug
from reports.pages.cells import cell, columns_of, data_of, of_cells, titled
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
    "features, and what is theirs is the gain over that SVM on the features that they begin with (each "
    "domain's with mean 0 and variance 1); Deep CORAL and DANN train with the target's pictures. Where the "
    "data are digit_domains, A stands for textured, D for coloured and W for blurred digits: nothing of "
    "Amazon's pictures is in them. "
    "Ours: mean ± sd over n seeds, below it the 95 % interval. Runs that diverged count as 0 %."
)
README = (
    "accuracy on the target in per cent: mean ± sd; the source's figures rest on other networks, so that "
    "only gains over the source-only row compare"
)
ALT = "gain over the source-only network"
METHODS = (
    "source", "source_svm", "source_zscore", "sa", "gfk", "coral",
    "adabn", "adabn_svm", "adabn_zscore", "adabn_coral", "deep_coral", "dann",
)  # fmt: skip
ONE_NETWORK = METHODS[:-2]  # Deep CORAL and DANN train one of their own
# Rows that classify with an SVM, and the same SVM on the features that they begin with.
CONTROL = {**dict.fromkeys(("sa", "gfk", "coral"), "source_zscore"), "adabn_coral": "adabn_zscore"}
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
    return report.by_seed("test_accuracy", 0.0).get((row, column), {})


def averages(report: analysis.TableReport, row: str, columns: Sequence[str] = SIX) -> dict[int, float]:
    """Mean accuracy over columns, seed by seed; {} unless all of them ran."""
    found = [by_seed(report, column, row) for column in columns]
    seeds = set.intersection(*map(set, found)) if found else set()
    return {seed: sum(values[seed] for values in found) / len(found) for seed in sorted(seeds)}


def gains(
    report: analysis.TableReport, row: str, over: str = "source", columns: Sequence[str] = SIX
) -> dict[int, float]:
    """Mean gain over another row on the columns, seed by seed; {} unless all of them ran."""
    mine, base = averages(report, row, columns), averages(report, over, columns)
    return {seed: mine[seed] - base[seed] for seed in sorted(mine.keys() & base.keys())}


def printed_average(report: analysis.TableReport, row: str, columns: Sequence[str] = SIX) -> float:
    """Of the source paper's figures; NaN unless it prints all of them."""
    told = [report.published.figure(row, c, "accuracy") for c in columns]
    known = [f.source for f in told if f is not None and f.source is not None]
    return sum(known) / len(known) if len(known) == len(columns) else math.nan


def blocks(report: analysis.TableReport) -> dict[str, list[str]]:
    """Title -> columns that go together: the source's six transfers, those from two sources, and what ran
    besides.
    """
    found: dict[str, list[str]] = {"six transfers": list(SIX), "two sources": list(MULTI)}
    runs = report.runs[report.runs["match"] == "cell"]
    others = sorted({*runs["column"].astype(str)} - {*SIX, *MULTI})
    for column in others:
        if column.endswith("_features"):
            title = "GoogLeNet's features"
        elif "mnist_usps" in data_of(report, column):
            title = "MNIST and USPS"
        else:
            title = "pairs with Caltech" if len(column) == 2 else "other pairs"
        found.setdefault(title, []).append(column)
    return found


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


def domains(report: analysis.TableReport) -> dict[str, dict[tuple[str, str], str]]:
    """Data set -> (source, target) -> column, of columns with one source that ran."""
    found: dict[str, dict[tuple[str, str], str]] = {}
    runs = report.runs[report.runs["match"] == "cell"]
    keys = ["data.name", "column", "config.data.options.source", "config.data.options.target"]
    if not len(runs) or not set(keys) <= set(runs):
        return {}
    for data, column, source, target in runs[keys].drop_duplicates().itertuples(index=False, name=None):
        if "+" not in str(source):
            found.setdefault(str(data), {})[str(source), str(target)] = str(column)
    return found


def matrix(report: analysis.TableReport, row: str, data: str) -> str:
    """Source x target on one data set."""
    columns = domains(report)[data]
    names = list(dict.fromkeys(name for pair in columns for name in pair))
    values, counts = (np.full((len(names), len(names)), np.nan) for _ in range(2))
    for (source, target), column in columns.items():
        if found := by_seed(report, column, row):
            i, j = names.index(source), names.index(target)
            values[i, j], counts[i, j] = sum(found.values()) / len(found), len(found)
    if np.isnan(values).all():
        return ""
    told = next((r.en.split(" (")[0] for r in report.published.rows if r.id == row), row)
    return figures.heat(
        f"matrix-{row.replace('_', '-')}-{slug(report.profile)}-{slug(data)}", f"{told}, {data}",
        names, names, values, counts, xlabel="target", ylabel="source", zlabel="accuracy (%)",
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
        [matrix(report, row, data) for data in domains(report) for row in METHODS],
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
    ran = {title: columns for title, columns in blocks(report).items() if averages(report, "source", columns)}
    runs = report.runs[report.runs["match"] == "cell"]
    return {
        "averages": [
            {
                "row": row.en,
                "printed": [figure(printed_average(report, row.id, c)) for c in (SIX, MULTI)],
                "ours": [spread(averages(report, row.id, c)) for c in (SIX, MULTI)],
            }
            for row in report.published.main_rows
        ],
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
        "blocks": [f"{title} ({len(columns)})" for title, columns in ran.items()],
        "by_block": [
            {"row": told[row], "ours": [interval(gains(report, row, "source", c)) for c in ran.values()]}
            for row in METHODS
            if row != "source"
        ],
        "results": len(runs),
        "networks": int(runs["weights"].nunique()) if "weights" in runs else 0,
        "mixed": mixed(report),
        "apart": [apart(report, column, layer) for column in FROM_A for layer in LAYERS],
    }


def mixed(report: analysis.TableReport) -> list[str]:
    """Columns in which the methods on one seed's network rest on several: part of it was run again elsewhere,
    where training ends in other weights.
    """
    found = []
    for column in columns_of(report):
        runs = of_cells(report, column)
        runs = runs[runs["row"].isin(list(ONE_NETWORK))]
        if "weights" in runs and (runs.groupby("seed")["weights"].nunique() > 1).any():
            found.append(report.published.group(column))
    return found


def readme_columns(report: analysis.TableReport) -> list[tuple[str, dict[str, str]]]:
    """Head and text by row of the README's last columns: the means, with their spread over seeds."""
    found = []
    for head, columns in (("mean of the six", SIX), ("mean of two sources", MULTI)):
        ours = {row.id: averages(report, row.id, columns) for row in report.published.main_rows}
        if any(ours.values()):
            printed = {row: figure(printed_average(report, row, columns)) for row in ours}
            found.append((f"{head}: source paper", printed))
            found.append((f"{head}: ours", {row: spread(values) for row, values in ours.items()}))
    return found


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


def figure(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}"


def spread(values: dict[int, float]) -> str:
    """71.3 ± 0.4; "" without any."""
    if not values:
        return ""
    found = summary(Sample(values))
    return f"{found.mean:.1f}" + ("" if math.isnan(found.sd) else f" ± {found.sd:.1f}")


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
