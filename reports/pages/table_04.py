"""What the page of Table 4 has of its own: learning curves beside public ones, gains over the plain network,
scores on a human's scale, how many episodes an evaluation has, and frames of an agent at play.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from reports import analysis, figures, store
from reports.claims.table_04 import ATARI, BN, PLAIN, WN
from reports.figures import Series, slug
from reports.pages.cells import by_seed, cell, columns_of, of_cells, titled
from reports.pages.cells import commands as commands
from reports.published import Row
from reports.statistics import Sample, summary

SHOWN = ["best_return", "last_return"]
RUN_METRIC = "best_return"
NOTE = (
    "Points of game score, higher is better: the return of an episode is the sum of its rewards as the game "
    "gives them, not clipped and not discounted. After every stretch of training the agent plays a fixed "
    "number of steps with 5 % random actions, and its score is the mean over the episodes that it finished "
    "(of none: what the one that was cut off had by then). Printed is the highest of some 200 such "
    "evaluations of one run, with a learning rate chosen on that score (A14): the maximum over evaluations "
    "is above what the agent is good for, and the more so the noisier its curve and the fewer the episodes "
    "of an evaluation. The mean of the last tenth of the evaluations does not reward noise and stands beside "
    "it. There are two blocks: Atari games, which the printed figures are of, and MinAtar, small games "
    "of the same names on a board of 10x10 with scores of their own, where an agent learns in a million "
    "frames and five seeds are affordable. Claims T4.C1 to C7 are judged on Atari alone; T4.M1 to M7 ask the "
    "same of MinAtar, with Freeway in the place of Enduro, which it does not have. An agent that has played "
    "a small part of the source's 200 million frames says little of a claim, whatever its "
    "verdict; profile quick is early learning only. In training rewards are clipped to ±1, as the source's "
    "are; MinAtar's authors do not clip. T4.C4 and M4 have no value where DQN scores 0. Ours: mean ± sd over "
    "n seeds, below it the 95 % interval; evaluations have episodes of their own, so that another draw of "
    "these is in it. Runs that diverged count as 0 points."
)
README = (
    "points of game score of the best evaluation: mean ± sd; the printed figures are maxima over some 200 "
    "evaluations of one run (A14)"
)
ALT = "gain of weight normalisation over the plain network by game, and learning curves"
OTHERS = {WN: "WN", BN: "BN", "dqn_wn_standard": "WN, standard start"}
FRAMES_A_STEP = {True: 4, False: 1}  # Atari: an action is for four frames; MinAtar: for one
# Public points beyond so many times our last frame, our highest mean, put x, y on a logarithmic axis.
FURTHEST, HIGHEST = 2.0, 3.0
NOTES = {  # of the groups of figures
    "Learning curves": (
        "Return in evaluation, mean over seeds with the 95 % interval. Hollow: public curves of other "
        "agents, to see whether ours learn at all. On Atari these are Dopamine's, at 1, 4 and 10 million "
        "frames: returns in training, with sticky actions (each action repeated with probability 0.25), "
        "which makes the games harder, so that they are lower than returns without; bars: sd of 5 seeds. On "
        "MinAtar they are those of its authors, also in training, read off their figures and approximate. "
        "Ours in training, which is like for like, stands below in a table."
    ),
    "Gain over the plain network": (
        "Per cent of DQN's mean over seeds, seed by seed, of the best evaluation. Hollow and crossed: survey "
        "and source, on Atari."
    ),
    "An agent at play": (
        "Frames, evenly spread, of the first episode of the last evaluation, of the smallest seed. MinAtar: "
        "a colour an object, where several share a field the last of the game's own list; Atari: every "
        "second pixel of what the network sees."
    ),
}
# Of the number of an object: 0 is the empty field. On dark ground in both schemes.
COLOURS = ("#14171a", "#56b4e9", "#f08a3c", "#2fc79b", "#fde725", "#df8fd0", "#e6e8eb", "#b48ad6", "#6ece58",
           "#d55e00", "#0072b2")  # fmt: skip
# By game, in the order of MinAtar's own channels, from 1.
OBJECTS = {
    "breakout_minatar": ("paddle", "ball", "ball's trail", "brick"),
    "space_invaders_minatar": (
        "cannon", "alien", "alien, moving left", "alien, moving right", "own bullet", "enemy's bullet",
    ),
    "seaquest_minatar": (
        "submarine's front", "submarine's back", "own bullet", "trail", "enemy's bullet", "fish",
        "enemy submarine", "oxygen gauge", "divers aboard", "diver",
    ),
    "freeway_minatar": (
        "chicken", "car", "trail, speed 1 (fastest)", "trail, speed 2", "trail, speed 3", "trail, speed 4",
        "trail, speed 5 (slowest)",
    ),
    "asterix_minatar": ("player", "enemy", "trail", "gold"),
}  # fmt: skip


def names(report: analysis.TableReport) -> dict[str, str]:
    return {row.id: row.en for row in report.published.rows}


def gains(report: analysis.TableReport, row: str, column: str, metric: str) -> dict[int, float]:
    """What a row has over the plain network, seed by seed."""
    mine, base = (by_seed(report, r, column, metric) for r in (row, PLAIN))
    return {seed: mine[seed] - base[seed] for seed in sorted(mine.keys() & base.keys())}


# -------------------------------------------------------------------------------------------------- figures


def curve(report: analysis.TableReport, column: str, row: str) -> Series:
    """Mean over seeds of the return in evaluation, with its interval, against millions of frames."""
    runs = of_cells(report, column)
    frames = FRAMES_A_STEP[column in ATARI]
    at: dict[float, dict[int, float]] = {}  # millions of frames -> seed -> return
    mine = runs[runs["row"] == row]
    for seed, curves in zip(mine["seed"], store.heavy(mine, "curves"), strict=True):
        told = curves or {}
        for step, value in zip(told.get("step") or (), told.get("test_return") or (), strict=False):
            if step is not None and value is not None:
                at.setdefault(frames * step / 1e6, {})[int(seed)] = float(value)
    x = sorted(at)
    sums = [summary(Sample(at[million])) for million in x]
    name = names(report)[row]
    low, high = ([s.low for s in sums], [s.high for s in sums]) if any(s.n > 1 for s in sums) else ([], [])
    return Series(name, x, [s.mean for s in sums], low, high)


def anchors(report: analysis.TableReport, column: str) -> list[Series]:
    """Points of public curves, a series an agent."""
    told = [a for a in report.published.anchors if a.column == column]
    found = []
    for agent in dict.fromkeys(a.agent for a in told):
        mine = [a for a in told if a.agent == agent]
        spread = [0.0 if a.sd is None else a.sd for a in mine]
        y = [a.value for a in mine]
        low, high = ([v + sign * s for v, s in zip(y, spread, strict=True)] for sign in (-1, 1))
        bars = (low, high) if any(spread) else ([], [])
        found.append(Series(agent, [a.x for a in mine], y, *bars))
    return found


def learning(report: analysis.TableReport, column: str) -> str:
    """A curve of each row, beside what is public; "" where nothing ran."""
    lines = [(i, curve(report, column, row.id)) for i, row in enumerate(report.published.main_rows)]
    lines = [(place, line) for place, line in lines if line.x]
    if not lines:
        return ""
    marks = anchors(report, column)
    last = max(line.x[-1] for _, line in lines)
    far = any(x > FURTHEST * last for s in marks for x in s.x)
    top = max(max(line.y) for _, line in lines)
    high = any(y > HIGHEST * top for s in marks for y in s.y)
    return figures.curves(
        f"learning-{slug(report.profile)}-{slug(column)}", titled(report, column), [s for _, s in lines],
        xlabel="million frames", ylabel="return", linear=True, ordered=False,
        places=[place for place, _ in lines], marks=marks, log_x=far,
        log_from=1.0 if high else 0.0, whole=False,
    )  # fmt: skip


def gain_figure(report: analysis.TableReport, columns: list[str], name: str) -> str:
    """Gain of WN and BN over the plain network by game, in per cent of its mean."""
    pub = report.published
    columns = [c for c in columns if gains(report, WN, c, "relative_return")]
    if not columns:
        return ""
    x = list(range(len(columns)))

    def printed(whose: str) -> list[float]:
        told = [[getattr(pub.figure(r, c, "best"), whose, None) for r in (WN, PLAIN)] for c in columns]
        return [100 * (a / b - 1) if a is not None and b else math.nan for a, b in told]

    def ours(row: str) -> Series:
        found = [summary(Sample(gains(report, row, c, "relative_return"))) for c in columns]
        mean, low, high = ([100 * getattr(s, k) for s in found] for k in ("mean", "low", "high"))
        return Series(f"ours: {OTHERS[row]}", x, mean, low, high)

    told = [Series("survey", x, printed("survey")), Series("source paper", x, printed("source"))]
    lines = [*told, ours(WN), ours(BN)]
    games = [report.published.group(c).removeprefix("MinAtar ").replace(" ", "\n") for c in columns]
    title = f"{'MinAtar' if name == 'minatar' else 'Atari'}: gain over DQN"
    return figures.points(
        f"gain-{slug(report.profile)}-{name}", title, games, lines,
        xlabel="game", ylabel="gain (% of DQN's score)", linear=True, zero=True,
    )  # fmt: skip


def strips(report: analysis.TableReport, column: str) -> dict[str, np.ndarray]:
    """Name of a row -> frames [n, height, width] of its smallest seed that has them."""
    runs, found = of_cells(report, column), {}
    for row, name in names(report).items():
        for curves in store.heavy(runs[runs["row"] == row], "curves"):
            flat, shape = ((curves or {}).get(key) or [] for key in ("strip", "strip_shape"))
            if len(shape) == 3 and flat and math.prod(map(int, shape)) == len(flat):
                found[name] = np.asarray(flat, np.uint8).reshape([int(n) for n in shape])
                break
    return found


def at_play(report: analysis.TableReport, column: str) -> str:
    found = strips(report, column)
    if not found:
        return ""
    counts = ", ".join(f"{name}: {len(frames)}" for name, frames in found.items())
    kind = "grey" if column in ATARI else "a colour an object"
    said = f"Frames of an episode of each agent in the last evaluation, from start to end ({kind}). {counts}."
    return figures.frames(
        f"play-{slug(report.profile)}-{slug(column)}",
        titled(report, column),
        said,
        found,
        () if column in ATARI else COLOURS,
        OBJECTS.get(column, ()),
    )


def blocks(report: analysis.TableReport) -> dict[str, list[str]]:
    """The columns that ran, Atari and MinAtar apart."""
    ran = columns_of(report)
    return {"atari": [c for c in ran if c in ATARI], "minatar": [c for c in ran if c not in ATARI]}


def pictures(report: analysis.TableReport) -> dict[str, str]:
    """Name -> picture, for the README: gains, and the game of which the source shows a curve."""
    found = {
        "gain": gain_figure(report, blocks(report)["minatar"], "minatar"),
        "minatar": learning(report, "space_invaders_minatar"),
        "atari": learning(report, "space_invaders"),
    }
    return {name: svg for name, svg in found.items() if svg}


def draw(report: analysis.TableReport) -> list[dict[str, Any]]:
    """The figures of one profile in groups {"title", "note", "svgs"}."""
    columns = columns_of(report)
    found = [
        [learning(report, c) for c in columns],
        [gain_figure(report, some, name) for name, some in blocks(report).items()],
        [at_play(report, c) for c in columns],
    ]
    return [
        {"title": title, "note": note, "svgs": [Markup(svg) for svg in svgs if svg]}
        for (title, note), svgs in zip(NOTES.items(), found, strict=True)
        if any(svgs)
    ]


# --------------------------------------------------------------------------------------------------- tables


def section(report: analysis.TableReport, grid: dict[str, Any]) -> dict[str, Any]:
    """For parts/table_04.html."""
    columns = columns_of(report)
    return {
        "changes": [
            {"game": report.published.group(c), "row": name, **changes}
            for c in columns
            for row, name in OTHERS.items()
            if (changes := changes_of(report, row, c))["best"]
        ],
        "human": [
            line for c in ATARI for row in names(report) if any((line := human(report, row, c))["told"])
        ],
        "agents": [row.en for row in agents(report)],
        "episodes": [episodes(report, c) for c in columns],
        "training": [in_training(report, c) for c in columns],
    }


def agents(report: analysis.TableReport) -> list[Row]:
    """The rows that can run."""
    return [row for row in report.published.main_rows if row.id not in report.published.printed_rows]


def in_training(report: analysis.TableReport, column: str) -> dict[str, Any]:
    """Return in training, the mean of the last tenth of the stretches between two evaluations, of each agent
    that did not diverge, beside what is public at as many frames.
    """
    runs, frames, found, ends = of_cells(report, column), FRAMES_A_STEP[column in ATARI], [], set[float]()
    runs = runs[runs["status"] == "finished"]
    for row in agents(report):
        mine, ours = runs[runs["row"] == row.id], dict[int, float]()
        for seed, curves in zip(mine["seed"], store.heavy(mine, "curves"), strict=True):
            told = [v for v in (curves or {}).get("train_return") or () if v is not None]
            if told:
                last = told[-max(1, round(len(told) / 10)) :]
                ours[int(seed)] = sum(last) / len(last)
                ends.add(round(frames * curves["step"][-1] / 1e6, 6))
        total = summary(Sample(ours))
        spread = f" ± {total.sd:.1f}" if total.n > 1 else ""
        found.append(f"{total.mean:.1f}{spread} (n = {total.n})" if ours else "")
    public = [a for a in report.published.anchors if a.column == column and {a.x} == ends]
    return {
        "game": report.published.group(column),
        "frames": " to ".join(f"{x:g}" for x in sorted({min(ends), max(ends)})) if ends else "",
        "ours": found,
        "public": ", ".join(f"{a.value:g} ({a.agent})" for a in public),
    }


def changes_of(report: analysis.TableReport, row: str, column: str) -> dict[str, str]:
    """Plain -> row (difference seed by seed with its interval) by each of the three figures."""
    return {key: change(report, row, column, f"{key}_return") for key in ("best", "last", "mean")}


def change(report: analysis.TableReport, row: str, column: str, metric: str) -> str:
    differences = gains(report, row, column, metric)
    if not differences:
        return ""
    base, mine = (by_seed(report, r, column, metric) for r in (PLAIN, row))
    before, after = (sum(v[s] for s in differences) / len(differences) for v in (base, mine))
    found = summary(Sample(differences))
    limits = "" if math.isnan(found.low) else f", {found.low:+.1f} to {found.high:+.1f}"
    return f"{before:.1f} → {after:.1f} ({found.mean:+.1f}{limits}; n = {found.n})"


def normalised(report: analysis.TableReport, column: str, score: float | None) -> float:
    """100 (score - random) / (human - random); NaN without a score."""
    known = report.published.references[column]
    if score is None:
        return math.nan
    return 100 * (score - known["random"]) / (known["human"] - known["random"])


def human(report: analysis.TableReport, row: str, column: str) -> dict[str, Any]:
    """A row's scores on a game on the scale where a random player has 0 and a person 100."""
    figure = report.published.figure(row, column, "best")
    scores = [figure.survey, figure.source] if figure else [None, None]
    for metric in SHOWN:
        found = cell(report, row, column, metric)
        scores.append(found["mean"] if found and found["n"] else None)
    told = [normalised(report, column, score) for score in scores]
    return {
        "game": report.published.group(column),
        "row": names(report)[row],
        "told": ["" if math.isnan(value) else f"{value:.1f}" for value in told],
    }


def episodes(report: analysis.TableReport, column: str) -> dict[str, Any]:
    """How many evaluations a run has, of how many steps, and how many episodes of them were finished: the
    fewest and the most of an evaluation.
    """
    runs = of_cells(report, column)
    found = []
    for row in agents(report):
        curves = store.heavy(runs[runs["row"] == row.id], "curves")
        counts = [int(n) for c in curves for n in (c or {}).get("test_episodes") or () if n is not None]
        found.append(span(counts))
    plans = {key: [int(v) for v in runs[f"config.{key}"].dropna().unique()] for key in
             ("evaluation.every", "epochs", "evaluation.steps") if f"config.{key}" in runs}  # fmt: skip
    return {
        "game": report.published.group(column),
        "plans": [span(v) for v in plans.values()],
        "counts": found,
    }


def span(counts: list[int]) -> str:
    """12, or 12 to 20."""
    if not counts:
        return ""
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def files(report: analysis.TableReport) -> dict[str, str]:
    return {}
