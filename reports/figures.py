"""Pictures of the report: matplotlib figures as inline SVG text.

Same numbers, same bytes: no dates, fixed hash salt, ids prefixed with the figure's name so that many figures
live in one page. Colours are CSS variables with the light colour as fallback: one picture serves light and
dark and can still be saved as a file. Every figure carries a title and a description for those who do not
see it.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FixedLocator,
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    NullLocator,
    SymmetricalLogLocator,
)
from PIL import Image

from reports.statistics import median

# CSS variable -> (light, dark). c1.. follows the Okabe-Ito set (safe for the common colour blindnesses),
# lightened on dark ground; s0..s7 follows viridis, for ordered values, darker where it would fade.
INK, GRID, FAINT = "#1d2126", "#d5d9de", "#717982"
PALETTE: dict[str, tuple[str, str]] = {
    "ink": (INK, "#e6e8eb"),
    "grid": (GRID, "#3a4048"),
    "faint": (FAINT, "#9aa3ad"),
    "c1": ("#0072b2", "#56b4e9"),
    "c2": ("#d55e00", "#f08a3c"),
    "c3": ("#009e73", "#2fc79b"),
    "c4": ("#aa4499", "#df8fd0"),
    "s0": ("#440154", "#fde725"),
    "s1": ("#472d7b", "#b5de2b"),
    "s2": ("#3b528c", "#6ece58"),
    "s3": ("#2c728f", "#35b779"),
    "s4": ("#21918d", "#1f9e89"),
    "s5": ("#1f9a70", "#3f9bb4"),
    "s6": ("#4c9a2a", "#7d8fd0"),
    "s7": ("#8a8a00", "#b48ad6"),
}
C = {name: light for name, (light, _) in PALETTE.items()}
ORDERED = [C[f"s{i}"] for i in range(8)]
LINES = ("-", "--", ":", "-.")
KINDS = [C["ink"], *(C[f"c{i}"] for i in range(1, 5))]
STYLE: Any = {
    "svg.hashsalt": "bn",
    "svg.fonttype": "none",
    "path.simplify": True,
    "font.family": "sans-serif",
    "font.size": 9,
    "text.parse_math": False,  # a data set called "$x" is a name, not a formula
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
}


@dataclass(frozen=True)
class Series:
    """One named set of points.

    x: positions [P]; y: values [P]; low, high: interval ends [P] or empty; runs: (x, y) of each seed's curve.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    runs: Sequence[tuple[Sequence[float], Sequence[float]]] = field(default=())


def slug(text: Any) -> str:
    """Letters, digits and dashes: safe as a file name and as an id in a page."""
    return re.sub(r"[^A-Za-z0-9]+", "-", str(text)).strip("-").lower() or "x"


def pretty(text: Any) -> str:
    return str(text).replace("^2", "²").replace("^(j)", "⁽ʲ⁾")


def css_variables(dark: bool) -> str:
    return "".join(f"--{name}:{colours[dark]};" for name, colours in PALETTE.items())


def to_svg(fig: Figure, name: str, title: str, description: str, tight: bool = True) -> str:
    """Figure -> one `<svg>` element that can stand inside HTML. `name` must be unique in its page.

    tight=False for a figure that sets its own margins: measuring them draws everything twice.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        fig.savefig(
            buffer,
            format="svg",
            transparent=True,
            bbox_inches="tight" if tight else None,
            pad_inches=0.04,
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    view = re.search(r'viewBox="0 0 ([\d.]+) [\d.]+"', text)
    size = (
        f'{view.group()} style="max-width:{1.4 * float(view[1]):.0f}px"' if view else ""
    )  # one size of letters in all figures
    head = (
        f'<svg {size} role="img" aria-labelledby="{name}-t {name}-d" class="plot" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
        f'<title id="{name}-t">{html.escape(title)}</title>'
        f'<desc id="{name}-d">{html.escape(description)}</desc>'
    )
    text = head + text[text.index(">") + 1 :]
    text = re.sub(
        r'(?<=[\s"])(id="|xlink:href="#|clip-path="url\(#)(?!' + re.escape(name) + '-[td]")',
        rf"\g<1>{name}-",
        text,
    )
    # 1/100 pt is enough, and halves the page; only inside tags: the words of the picture keep their digits
    text = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\d\.\d\d)\d+", r"\1", tag.group()), text)
    text = re.sub(r"(?<=px )'[^;\"]*sans-serif", "system-ui, sans-serif", text)
    text = re.sub(r"\n\s*", "\n", text)
    for variable, (light, _) in PALETTE.items():
        text = text.replace(light, f"var(--{variable},{light})")
    return text


def on_white(svg: str) -> str:
    """The picture as a file of its own: on white ground, for it may be looked at on a dark page."""
    return svg.replace("</desc>", '</desc><rect width="100%" height="100%" fill="white"/>', 1)


def _new(
    width: float = 4.8, height: float = 3.1, rows: int = 1, cols: int = 1, **options: Any
) -> tuple[Figure, Any]:
    with matplotlib.rc_context(STYLE):
        fig = Figure(figsize=(width, height))
        return fig, fig.subplots(rows, cols, **options)


def _finite(values: Sequence[float]) -> list[float]:
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def number(value: float | None, digits: int = 3) -> str:
    """Short text of a number: 3 significant digits, no exponent between 1e-4 and 1e6; a dash for nothing."""
    if value is None or not math.isfinite(value):
        return "–"
    if abs(value) < 1e-12:  # what rounding left of a difference
        value = 0.0
    if value != 0 and not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    places = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
    return f"{value:.{min(places, 6)}f}"


def _log_if_wide(ax: Axes, values: Sequence[float], factor: float = 3.0, ends: Sequence[float] = ()) -> bool:
    """Logarithmic y axis when the positive values span more than `factor`, else linear.

    `ends` (of intervals) widen the limits to at most three times the values' own span: one wide interval must
    not squeeze the rest, it leaves the picture.
    """
    good = _finite(values)
    if good and _finite(ends):
        typical = 2 * float(np.median(np.abs(np.asarray(_finite(ends)) - np.median(good))))
        room = max(max(good) - min(good), min(typical, max(map(abs, good))))
        low, high = max(min(_finite(ends)), min(good) - room), min(max(_finite(ends)), max(good) + room)
        # On a logarithmic axis an interval down to 0 and below leaves the picture; on a linear one it counts.
        spans = max(good) > factor * max(min(good), 0) > 0
        good = [*good, *([] if spans and low <= 0 else [low]), high]
    positive = [v for v in good if v > 0]
    log = bool(positive) and len(positive) == len(good) and max(positive) / min(positive) > factor
    if log:
        ax.set_yscale("log", nonpositive="clip")
        ax.set_ylim(min(positive) / 1.4, max(positive) * 1.4)
        wide = max(positive) / min(positive) > 1000
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.yaxis.set_minor_locator(NullLocator())
        ax.yaxis.set_minor_formatter(NullFormatter())
    elif good:
        pad = 0.08 * (max(good) - min(good)) or 0.1 * abs(good[0]) or 1.0
        ax.set_ylim(min(good) - pad, max(good) + pad)
    return log


def _categories(ax: Axes, labels: Sequence[str], xlabel: str) -> bool:
    """Names along the x axis; True where they are long and stand upright."""
    ax.set_xlim(-0.6, len(labels) - 0.4)
    ax.xaxis.set_major_locator(FixedLocator(list(range(len(labels)))))
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda v, _: labels[round(v)] if 0 <= round(v) < len(labels) else "")
    )
    ax.set_xlabel(xlabel)
    # Long in all, or two neighbours longer together than the room that a name has.
    room = 54 / max(1, len(labels))
    beside = max((len(a) + len(b) for a, b in pairwise(labels)), default=0)
    upright = sum(map(len, labels)) + 2 * len(labels) > 54 or beside / 2 + 0.5 > room
    if upright:
        ax.tick_params(axis="x", labelrotation=90, labelsize=7.5)
    return upright


def _interval(ax: Axes, x: np.ndarray, s: Series, **style: Any) -> None:
    y = np.asarray(s.y, float)
    if len(s.low):
        span = np.vstack([y - np.asarray(s.low, float), np.asarray(s.high, float) - y])
        ax.errorbar(
            x,
            y,
            yerr=np.nan_to_num(np.clip(span, 0, None)),
            label=s.label,
            elinewidth=1.0,
            capsize=2,
            **style,
        )
    else:
        ax.plot(x, y, label=s.label, **style)


def _describe(s: Series, labels: Sequence[str]) -> str:
    parts = []
    for i, y in enumerate(s.y):
        if y is None or not math.isfinite(y):
            continue
        ends = (
            f" ({number(s.low[i])} to {number(s.high[i])})" if len(s.low) and math.isfinite(s.low[i]) else ""
        )
        parts.append(f"{labels[i]}: {number(y)}{ends}")
    return f"{s.label}: " + ("; ".join(parts) if parts else "no values") + "."


def points(
    name: str,
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    xlabel: str,
    ylabel: str,
    linear: bool = False,
    zero: bool = False,
) -> str:
    """Values over named settings (error against alpha). linear: also where the values span a wide range.
    zero: of differences, where a line at 0 says which way they go.

    The first two series are the published ones (survey, source: hollow and crossed marks); up to four further
    ones are measured (filled, with intervals).

    labels: [P] names on the x axis; series[i].x: indices into labels; y in `ylabel`'s unit.
    """
    fig, ax = _new()
    marks = [
        {"marker": "o", "mfc": "none", "mec": C["ink"], "ms": 8.5, "ls": "none"},
        {"marker": "x", "color": C["ink"], "ms": 5, "ls": "none"},
        {"marker": "o", "color": C["c1"], "ms": 4.5, "ls": "none"},
        {"marker": "^", "color": C["c2"], "ms": 4.5, "ls": "none"},
        {"marker": "s", "color": C["c3"], "ms": 4.0, "ls": "none"},
        {"marker": "D", "color": C["c4"], "ms": 3.8, "ls": "none"},
    ]
    # Ours to the right of what is printed; three and four of ours around the name.
    shifts = [0.0, 0.0, 0.18, 0.36] if len(series) <= 4 else [0.0, 0.0, -0.21, -0.07, 0.07, 0.21]
    with matplotlib.rc_context(STYLE):
        for i, s in enumerate(series):
            if not _finite(s.y):  # nothing is printed for these settings: no word of it in the legend
                continue
            _interval(ax, np.asarray(s.x, float) + shifts[i], s, **marks[i])
        if zero:
            ax.axhline(0, color=C["faint"], lw=0.8, zorder=0)
        ends = [v for s in series for v in [*s.low, *s.high]] + [0.0] * zero
        _log_if_wide(ax, [v for s in series for v in s.y] + [0.0] * zero, math.inf if linear else 3.0, ends)
        upright = _categories(ax, labels, xlabel)
        ax.set(title=title, ylabel=ylabel)
        if upright and max(map(len, labels)) > 10:  # their names reach down to where the legend is else
            ax.legend(loc="upper left", bbox_to_anchor=(1.02, 1))
        else:
            ax.legend(loc="lower center", bbox_to_anchor=(0.5, -0.42), ncols=2)
    told = [label.replace("\n", " ") for label in labels]
    text = " ".join(_describe(s, [told[int(i)] for i in s.x]) for s in series if _finite(s.y))
    return to_svg(fig, name, title, f"{ylabel} against {xlabel}. {text}")


def curves(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    xlabel: str = "epoch",
    ylabel: str,
    linear: bool = False,
    ordered: bool = True,
    places: Sequence[int] = (),
    marks: Sequence[Series] = (),
    log_x: bool = False,
    log_from: float = 0.0,
    whole: bool = True,
) -> str:
    """Learning curves, one colour a series. linear: also where the values span a wide range. ordered: False
    for series that are no sequence of values, whose colours then differ as much as they can. places: of each
    series among all that a page has, so that one has one colour in all its figures. marks: points of others
    to stand beside the curves. log_from: of values that are not negative, logarithmic from there on and
    linear below. whole: False where x is no count.

    Up to 5 seeds are drawn as thin lines, more as a min-max band; the thick line is the mean over the seeds
    that have the epoch. Series run from dark to light in their order; those beyond the palette are dashed.
    """
    fig, ax = _new(4.8, 3.3)
    seen: list[float] = []
    with matplotlib.rc_context(STYLE):
        for i, s in zip(places or range(len(series)), series, strict=True):
            if not ordered:
                color, ls = KINDS[i % len(KINDS)], LINES[i // len(KINDS) % len(LINES)]
            else:
                color, ls = (
                    (ORDERED[i], "-")
                    if i < len(ORDERED)
                    else ((C["c2"], "--"), (C["c4"], ":"))[(i - len(ORDERED)) % 2]
                )
            mean = np.asarray(s.y, float)
            seen += _finite(list(mean))
            ax.plot(s.x, mean, color=color, ls=ls, label=s.label)
            if 1 < len(s.runs) <= 5:
                for x, y in s.runs:
                    ax.plot(x, y, color=color, lw=0.5, alpha=0.5, ls=ls)
            elif len(s.low):
                ax.fill_between(s.x, s.low, s.high, color=color, alpha=0.12, lw=0)
        for i, s in enumerate(marks):
            seen += _finite(list(s.y))
            style = {"marker": "sDv"[i % 3], "mfc": "none", "color": C["faint"], "ms": 4.5, "ls": "none"}
            _interval(ax, np.asarray(s.x, float), s, **style)
        _log_if_wide(ax, seen, math.inf if linear else 3.0)
        if log_from:
            ax.set_yscale("symlog", linthresh=log_from, linscale=0.5)
            ax.set_ylim(0, 1.4 * max(seen, default=1.0))
            ax.yaxis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=log_from, subs=[1, 2, 5]))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
        if log_x:
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
        elif whole:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if series:
            longest = max(len(s.label) for s in (*series, *marks))
            columns = max(1, min(3 if marks else 5, int(80 / (longest + 6))))  # no wider than the axes
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns, columnspacing=1.0)
        else:
            ax.text(0.5, 0.5, "no curves yet", ha="center", transform=ax.transAxes)
    last = "; ".join(f"{s.label}: {number(_finite(s.y)[-1])}" for s in series if _finite(s.y))
    beside = " ".join(_describe(s, [number(x) for x in s.x]) for s in marks)
    told = f"{ylabel} against {xlabel}. Last values: {last or 'none'}."
    return to_svg(fig, name, title, f"{told} {beside}" if beside else told)


def mean_curve(label: str, runs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Series:
    """Series of the mean over runs at every epoch that any of them has, with the min-max band."""
    xs = sorted({x for x, _ in ((float(x), 0) for run in runs for x in run[0])})
    where = {x: i for i, x in enumerate(xs)}
    table = np.full((len(runs), len(xs)), np.nan)
    for r, (x, y) in enumerate(runs):
        for xi, yi in zip(x, y, strict=True):
            table[r, where[float(xi)]] = np.nan if yi is None else yi
    alive = ~np.isnan(table).all(axis=0)
    xs, table = [x for x, keep in zip(xs, alive, strict=True) if keep], table[:, alive]
    if not xs:
        return Series(label, [], [])
    return Series(
        label,
        xs,
        np.nanmean(table, 0).tolist(),
        np.nanmin(table, 0).tolist(),
        np.nanmax(table, 0).tolist(),
        runs,
    )


def strip(
    name: str,
    title: str,
    labels: Sequence[str],
    values: Sequence[Sequence[float]],
    *,
    xlabel: str,
    ylabel: str,
) -> str:
    """One dot a run over named settings, with a dash at the median. values[i]: numbers of labels[i]; an
    infinite one is a run that never got there: it has no dot, counts in the median, and is named above.
    """
    fig, ax = _new()
    with matplotlib.rc_context(STYLE):
        for i, group in enumerate(values):
            good, never = _finite(group), sum(map(math.isinf, group))
            if good:
                jitter = np.linspace(-0.15, 0.15, len(good)) if len(good) > 1 else np.zeros(1)
                ax.plot(i + jitter, good, "o", color=C["c1"], ms=3, alpha=0.7)
            if math.isfinite(middle := _middle(group)):
                ax.plot([i - 0.3, i + 0.3], [middle] * 2, color=C["ink"], lw=1.6)
            if never:
                top = ax.get_xaxis_transform()
                ax.text(i, 0.98, f"{never}\nnever", transform=top, ha="center", va="top", fontsize=6.5)
        _log_if_wide(ax, [v for group in values for v in group])
        _categories(ax, labels, xlabel)
        ax.set(title=title, ylabel=ylabel)
    told = []
    for label, group in zip(labels, values, strict=True):
        good, never = _finite(group), sum(map(math.isinf, group))
        if good or never:
            value = number(_middle(group)) if math.isfinite(_middle(group)) else "never"
            told.append(f"{label}: {value} (n = {len(good) + never}{f', {never} never' * bool(never)})")
    return to_svg(
        fig, name, title, f"{ylabel} against {xlabel}; medians: {'; '.join(told) or 'no runs yet'}."
    )


def _middle(values: Sequence[float]) -> float:
    return median([v for v in values if not math.isnan(v)])


def pattern(
    name: str,
    title: str,
    labels: Sequence[str],
    published: Sequence[float],
    panels: dict[tuple[str, str], list[Series]],
    rows: Sequence[str],
    cols: Sequence[str],
    *,
    xlabel: str,
    ylabel: str,
) -> str:
    """Small multiples of error against alpha, a panel for each (row, col), the published points in each.

    rows: initial statistics, cols: readings; panels[(row, col)]: at most two series (what m counts).
    """
    width, height = 2.5 * len(cols) + 0.65, 1.55 * len(rows) + 1.7  # inches
    fig, axes = _new(width, height, len(rows), len(cols), sharex=True, sharey=True, squeeze=False)
    seen = [*published, *(v for group in panels.values() for s in group for v in s.y)]
    x = np.arange(len(labels))
    styles = [{"color": C["c1"], "marker": "o", "ls": "-"}, {"color": C["c2"], "marker": "^", "ls": "--"}]
    with matplotlib.rc_context(STYLE):
        margins = {"left": 0.6 / width, "right": 1 - 0.05 / width, "bottom": 1.05 / height}
        fig.subplots_adjust(top=1 - 0.55 / height, hspace=0.28, wspace=0.08, **margins)
        for r, row in enumerate(rows):
            for c, col in enumerate(cols):
                ax = axes[r][c]
                ax.plot(x, published, "o", mfc="none", mec=C["faint"], ms=7, label="published")
                for s, style in zip(panels.get((row, col), []), styles, strict=False):
                    ax.plot(s.x, s.y, ms=3, lw=1.1, label=s.label, **style)
                if not panels.get((row, col)):
                    ax.text(0.5, 0.5, "not run", ha="center", color=C["faint"], transform=ax.transAxes)
                ax.set_title(f"{col}, {row}", fontsize=8.5)
        _log_if_wide(axes[0][0], seen)
        for ax in axes[-1]:
            _categories(ax, labels, xlabel)
            ax.tick_params(axis="x", labelrotation=90, labelsize=7.5)
        for line in axes:
            line[0].set_ylabel(ylabel, fontsize=8)
        fig.suptitle(title, fontsize=10, y=1 - 0.12 / height)
        handles: dict[str, Any] = {}
        for ax in axes.flat:
            handles.update({lab: h for h, lab in zip(*ax.get_legend_handles_labels(), strict=True)})
        fig.legend(
            handles.values(),
            handles.keys(),
            loc="lower center",
            ncols=len(handles),
            bbox_to_anchor=(0.5, 0.05 / height),
        )
    text = " ".join(
        f"[{col}, {row}] " + _describe(s, [labels[int(i)] for i in s.x])
        for (row, col), group in panels.items()
        for s in group
    )
    return to_svg(
        fig,
        name,
        title,
        f"{ylabel} against {xlabel} for every way of reading the paper. {text or 'No runs yet.'}",
        tight=False,
    )


def line(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    xlabel: str,
    ylabel: str,
    labels: Sequence[str] | None = None,
    log_x: bool = False,
) -> str:
    """Metric against one swept parameter with 95 % intervals; `labels` when the parameter is not a number."""
    fig, ax = _new(5.6, 3.4)
    with matplotlib.rc_context(STYLE):
        for i, s in enumerate(series):
            few = len(series) <= 3
            color = (
                (C["c1"], C["c2"], C["c3"])[i]
                if few
                else ORDERED[i * (len(ORDERED) - 1) // max(1, len(series) - 1)]
            )
            at, step = (
                np.asarray(s.x, float),
                i - (len(series) - 1) / 2,
            )  # lines side by side: intervals must not hide one another
            at = at + 0.05 * step if labels is not None else at * 1.02**step if log_x else at
            _interval(
                ax,
                at,
                s,
                color=color,
                marker="o^sDvPX*"[i % 8],
                ms=4,
                lw=1.0,
                ls="-" if len(s.x) > 1 else "none",
            )
        _log_if_wide(
            ax, [v for s in series for v in s.y], ends=[v for s in series for v in [*s.low, *s.high]]
        )
        if labels is not None:
            _categories(ax, labels, xlabel)
        else:
            ax.set_xlabel(xlabel)
            if log_x:
                ax.set_xscale("log")
                ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
                ticks = sorted({float(v) for s in series for v in s.x})
                if len(ticks) <= 8:
                    ax.xaxis.set_major_locator(FixedLocator(ticks))
                ax.xaxis.set_minor_locator(NullLocator())
        ax.set(title=title, ylabel=ylabel)
        if len(series) > 1:
            fig.legend(loc="upper left", bbox_to_anchor=(0.1, -0.02 - 0.06 * (labels is not None)))
    text = " ".join(
        _describe(s, [number(v) if labels is None else labels[int(v)] for v in s.x]) for s in series
    )
    return to_svg(fig, name, title, f"{ylabel} against {xlabel}. {text}")


def panels(
    name: str,
    title: str,
    found: dict[str, list[Series]],
    *,
    xlabel: str,
    ylabel: str,
    log_x: bool = False,
    log_y: bool = False,
    per_row: int = 4,
) -> str:
    """Small multiples with common axes, a panel for each name. Series of one label look alike everywhere.

    log_x: base 2, with ticks at the values themselves where they are few.
    """
    rows = -(-len(found) // per_row)
    fig, axes = _new(9.0, 2.05 * rows + 0.9, rows, per_row, sharex=True, sharey=True, squeeze=False)
    labels = list(dict.fromkeys(s.label for group in found.values() for s in group))
    at = sorted({float(x) for group in found.values() for s in group for x in s.x})
    many = len(labels) > 4
    marks: list[dict[str, Any]] = [
        {"color": ORDERED[i % len(ORDERED)], "marker": ".", "ms": 3, "lw": 1.0}
        if many
        else {"color": (C["ink"], C["faint"], C["c1"], C["c2"])[i], "marker": "ox^s"[i], "ms": 4, "lw": 1.0}
        for i in range(len(labels))
    ]
    with matplotlib.rc_context(STYLE):
        for ax, (heading, group) in zip(axes.flat, found.items(), strict=False):
            for s in group:
                style = marks[labels.index(s.label)]
                _interval(ax, np.asarray(s.x, float), s, **style, ls="-" if len(s.x) > 1 else "none")
            ax.set_title(heading, fontsize=9)
        for i, ax in enumerate(axes.flat):
            if i >= len(found):
                ax.axis("off")
            ax.tick_params(labelbottom=i + per_row >= len(found))
        first = axes.flat[0]
        if log_y:
            first.set_yscale("log")
            first.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            first.yaxis.set_minor_locator(NullLocator())
        if log_x:
            first.set_xscale("log", base=2)
            if len(at) <= 8:
                first.xaxis.set_major_locator(FixedLocator(at))
            first.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            first.xaxis.set_minor_locator(NullLocator())
        for line in axes:
            line[0].set_ylabel(ylabel, fontsize=8)
        fig.suptitle(title, fontsize=10)
        fig.supxlabel(xlabel, fontsize=9)
        fig.tight_layout()
        handles: dict[str, Any] = {}
        for ax in axes.flat:
            handles.update({lab: h for h, lab in zip(*ax.get_legend_handles_labels(), strict=True)})
        known = [lab for lab in labels if lab in handles]
        fig.legend(
            [handles[lab] for lab in known], known, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=8
        )
    text = " ".join(
        f"[{heading}] " + _describe(s, [number(v) for v in s.x])
        for heading, group in found.items()
        for s in group
    )
    return to_svg(fig, name, title, f"{ylabel} against {xlabel}. {text or 'No runs yet.'}")


def clouds(
    name: str, title: str, found: dict[str, dict[str, tuple[Sequence[float], Sequence[float]]]]
) -> str:
    """Point clouds side by side with common axes, a panel for each name: {panel: {cloud: (x, y)}}."""
    fig, axes = _new(3.1 * len(found) + 0.4, 3.2, 1, len(found), sharex=True, sharey=True, squeeze=False)
    labels = list(dict.fromkeys(label for group in found.values() for label in group))
    with matplotlib.rc_context(STYLE):
        for ax, (heading, group) in zip(axes.flat, found.items(), strict=True):
            for label, (x, y) in group.items():
                i = labels.index(label)
                style = {
                    "color": KINDS[1 + i % 4],
                    "marker": "ox^s"[i % 4],
                    "ms": 3,
                    "ls": "none",
                    "alpha": 0.6,
                }
                ax.plot(x, y, label=label, **style)
            ax.set_title(heading, fontsize=9)
            ax.tick_params(labelbottom=False, labelleft=False)
        fig.suptitle(title, fontsize=10)
        fig.legend(
            *axes.flat[0].get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, 0.04), ncols=4
        )
    told = []
    for heading, group in found.items():
        middles = {k: (sum(x) / len(x), sum(y) / len(y)) for k, (x, y) in group.items() if len(x)}
        told.append(
            f"{heading}: "
            + ", ".join(f"{k} around ({number(a)}, {number(b)})" for k, (a, b) in middles.items())
        )
    return to_svg(fig, name, title, f"Features in a plane. {'; '.join(told)}.")


def frames(
    name: str,
    title: str,
    description: str,
    found: dict[str, np.ndarray],
    palette: Sequence[str] = (),
    meaning: Sequence[str] = (),
) -> str:
    """Frames of an episode, a row a name, from left to right; by hand, since pixels are to stay pixels.

    found[name]: uint8 [frames, height, width], grey values or, with a palette, its indices.
    meaning: of the palette's colours from 1; below the frames those that are there.
    """
    colours = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in palette], np.uint8)
    side, gap, head = 60, 4, 17
    width = max(len(row) for row in found.values()) * (side + gap) - gap
    out = [f'<text x="0" y="{head - 5}">{html.escape(title)}</text>']
    y = head
    for label, row in found.items():
        out.append(f'<text x="0" y="{y + 11}">{html.escape(label)}</text>')
        y += head
        for i, frame in enumerate(row):
            pixels = colours[np.minimum(frame, len(colours) - 1)] if len(colours) else frame
            out.append(
                f'<image x="{i * (side + gap)}" y="{y}" width="{side}" height="{side}" '
                f'style="image-rendering:pixelated" href="data:image/png;base64,{png(pixels)}"/>'
            )
        y += side + gap
    there = {int(i) for row in found.values() for i in np.unique(row)}
    x = 0
    for i, word in enumerate(meaning, 1):
        if i not in there:
            continue
        step = 24 + 6 * len(word)  # wide enough for most letters of this size
        if x and x + step > width:
            x, y = 0, y + head
        out.append(f'<rect x="{x}" y="{y + 4}" width="9" height="9" fill="{palette[i]}"/>')
        out.append(f'<text x="{x + 13}" y="{y + 13}">{html.escape(word)}</text>')
        x += step + gap
    y += head + gap if x else 0
    return (
        f'<svg viewBox="0 0 {width} {y}" style="max-width:{1.4 * width:.0f}px" role="img" class="plot" '
        f'aria-labelledby="{name}-t {name}-d" xmlns="http://www.w3.org/2000/svg" '
        f'font-family="system-ui, sans-serif" font-size="12" fill="var(--ink,{INK})">'
        f'<title id="{name}-t">{html.escape(title)}</title>'
        f'<desc id="{name}-d">{html.escape(description)}</desc>' + "\n".join(out) + "</svg>"
    )


def png(pixels: np.ndarray) -> str:
    """uint8 [height, width] or [height, width, 3] as base64 of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def critical_difference(
    name: str,
    title: str,
    methods: Sequence[str],
    mean_ranks: Sequence[float],
    groups: Sequence[Sequence[str]],
    cd: float,
) -> str:
    """Demsar's diagram: methods on an axis of mean ranks, best on the left; a bar joins each of `groups`, the
    methods that a critical difference of `cd` does not tell apart.
    """
    k = len(methods)
    order = sorted(range(k), key=lambda i: (mean_ranks[i], methods[i]))
    rank = dict(zip(methods, mean_ranks, strict=True))
    left, right = order[: (k + 1) // 2], order[(k + 1) // 2 :][::-1]
    first, bars = 0.55 + 0.17 * len(groups), len(left)  # of the names, below the axis, in rows
    height = 0.95 + 0.22 * (first + bars)  # inches
    fig, ax = _new(5.6, height)
    with matplotlib.rc_context(STYLE):
        ax.set_xlim(0.5 - 0.2 * k, k + 0.5 + 0.2 * k)
        ax.set_ylim(first + bars, -2.2)
        ax.axis("off")
        ax.plot([1, k], [0, 0], color=C["ink"], lw=1)
        for at in range(1, k + 1):
            ax.plot([at, at], [0, -0.25], color=C["ink"], lw=1)
            ax.text(at, -0.4, str(at), ha="center", va="bottom", fontsize=8)
        for side, mine in (("left", left), ("right", right)):
            end = 0.7 if side == "left" else k + 0.3
            for i, at in enumerate(mine):
                y, x = first + i + 0.4, mean_ranks[at]
                ax.plot([x, x, end], [0, y, y], color=C["faint"], lw=0.8)
                words = f"{methods[at]} ({mean_ranks[at]:.2f})"
                where = (
                    {"x": end - 0.08, "ha": "right"} if side == "left" else {"x": end + 0.08, "ha": "left"}
                )
                ax.text(y=y, s=words, va="center", fontsize=8.5, **where)
        for i, group in enumerate(groups):
            ends = [min(rank[m] for m in group) - 0.05, max(rank[m] for m in group) + 0.05]
            ax.plot(ends, [0.45 + 0.17 * i * 1.9] * 2, color=C["c1"], lw=2.6, solid_capstyle="butt")
        if cd < k - 1:
            ax.plot([1, 1 + cd], [-1.5, -1.5], color=C["ink"], lw=1.4)
            for x in (1, 1 + cd):
                ax.plot([x, x], [-1.7, -1.3], color=C["ink"], lw=1.4)
        ax.text(
            1.1 + (cd if cd < k - 1 else 0), -1.5, f"critical difference {cd:.2f}", va="center", fontsize=8
        )
        ax.set_title(title)
    text = "; ".join(f"{methods[i]}: {mean_ranks[i]:.2f}" for i in order)
    joined = "; ".join(", ".join(group) for group in groups) or "none"
    said = f"Mean ranks, lower is better: {text}. Critical difference {cd:.2f}. Not told apart: {joined}."
    return to_svg(fig, name, title, said)


def heat(
    name: str,
    title: str,
    xs: Sequence[str],
    ys: Sequence[str],
    values: np.ndarray,
    counts: np.ndarray,
    *,
    xlabel: str,
    ylabel: str,
    zlabel: str,
) -> str:
    """Metric against two swept parameters. values, counts: [len(ys), len(xs)]; NaN where nothing ran."""
    fig, ax = _new(min(11.0, 1.9 + 0.62 * len(xs)), min(9.0, 1.3 + 0.42 * len(ys)))
    with matplotlib.rc_context(STYLE):
        ax.grid(visible=False)
        good = values[np.isfinite(values)]
        wide = good.size > 0 and good.min() > 0 and good.max() / good.min() > 4
        norm: Any = matplotlib.colors.LogNorm() if wide else None
        mesh = ax.pcolormesh(
            np.arange(len(xs) + 1) - 0.5,
            np.arange(len(ys) + 1) - 0.5,
            np.ma.masked_invalid(values),
            cmap="cividis",
            norm=norm,
            edgecolors="none",
        )
        if len(xs) * len(ys) <= 400:
            for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True):
                red, green, blue, _ = mesh.cmap(mesh.norm(values[i, j]))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
                ax.text(
                    j,
                    i,
                    number(values[i, j]),
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="#ffffff" if dark else "#000000",
                )
        _categories(ax, xs, xlabel)
        ax.yaxis.set_major_locator(FixedLocator(list(range(len(ys)))))
        ax.yaxis.set_major_formatter(
            FuncFormatter(lambda v, _: ys[round(v)] if 0 <= round(v) < len(ys) else "")
        )
        ax.set_xlim(-0.5, len(xs) - 0.5)
        ax.set(title=title, ylabel=ylabel)
        bar = fig.colorbar(mesh, ax=ax, label=zlabel, pad=0.02)
        bar.outline.set_visible(False)
        if wide:
            bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
            bar.ax.yaxis.set_minor_formatter(NullFormatter())
    text = "; ".join(
        f"{xs[j]}, {ys[i]}: {number(values[i, j])} (n = {int(counts[i, j])})"
        for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True)
    )
    return to_svg(fig, name, title, f"{zlabel} for {xlabel} and {ylabel}. {text or 'No values.'}")


def spark(
    name: str,
    run: dict[str, Sequence[float | None]],
    keys: Sequence[str] = ("test_error", "val_error"),
    unit: str = "%",
) -> str:
    """Small picture of one run's curves, by hand: a page holds hundreds, matplotlib would take minutes."""
    width, height, left, top, bottom = 340, 130, 40, 8, 22
    x_all = [float(v) for v in run.get("epoch", []) if v is not None]
    lines = {
        k: [
            (float(x), float(y))
            for x, y in zip(run.get("epoch", []), run.get(k, []), strict=False)
            if x is not None and y is not None and math.isfinite(y)
        ]
        for k in keys
    }
    y_all = [y for pairs in lines.values() for _, y in pairs]
    if not x_all or not y_all:
        return ""
    x0, x1, y0, y1 = min(x_all), max(x_all), min(y_all), max(y_all)

    def fx(x: float) -> float:
        return left + (width - left - 8) * ((x - x0) / (x1 - x0) if x1 > x0 else 0.5)

    def fy(y: float) -> float:
        return top + (height - top - bottom) * ((y1 - y) / (y1 - y0) if y1 > y0 else 0.5)

    told = ", ".join(k.replace("_", " ") for k in keys) + (f" in {unit}" if unit else "")
    out = [
        f'<svg viewBox="0 0 {width} {height}" role="img" class="spark" aria-label="{html.escape(name)}: '
        f"{html.escape(told)}, "
        f'{number(y0)} to {number(y1)}">',
        f'<path class="axis" d="M{left} {top}V{height - bottom}H{width - 8}"/>',
        f'<text x="{left - 4}" y="{top + 8}" text-anchor="end">{number(y1)}</text>'
        f'<text x="{left - 4}" y="{height - bottom}" text-anchor="end">{number(y0)}</text>'
        f'<text x="{left}" y="{height - 6}">epoch {x0:g}</text>'
        f'<text x="{width - 8}" y="{height - 6}" text-anchor="end">{x1:g}</text>',
    ]
    for i, (key, pairs) in enumerate(lines.items()):
        if pairs:
            path = "M" + "L".join(f"{fx(x):.1f} {fy(y):.1f}" for x, y in pairs)
            dash = ' stroke-dasharray="3 2"' if i else ""
            line = f'fill="none" stroke="var(--c{i + 1},{C[f"c{i + 1}"]})"{dash}'
            out.append(  # the words in ink: as text the lines' colours are too light
                f'<path d="{path}" {line}/><path d="M{width - 24} {top + 5 + 11 * i}h16" {line}/>'
                f'<text x="{width - 28}" y="{top + 8 + 11 * i}" text-anchor="end">'
                f"{html.escape(key.replace('_', ' '))}{f' ({html.escape(unit)})' if unit else ''}</text>"
            )
    return "".join(out) + "</svg>"
