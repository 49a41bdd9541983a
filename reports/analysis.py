"""Records + published figures -> one TableReport: cells, labelled rows, claims with verdicts, deviations."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import orjson
import pandas as pd

from reports import claims as claim_room
from reports import epochs, relative, selection, targets
from reports.deviations import deviations, of_search
from reports.matching import matched, one_content
from reports.published import Metric, Published
from reports.setwise import Block, averages
from reports.statistics import Estimate, Judge, Sample, Summary, median, share, summary
from reports.store import heavy
from reports.verdicts import VERDICTS, Basis, ClaimResult, Component, result

__all__ = ["CELLS", "EXTRA", "TRIALS", "VERDICTS", "ClaimResult", "Component", "TableReport", "analyse"]

# Columns of TableReport.cells, one row per (row, column, metric), also where nothing ran. `metric` is an id
# of the published file's metrics (test_error, epoch_best_val, test_error_best, ...), `column` a column of
# the records.
CELLS = [
    "row", "column", "metric", "survey", "source", "mean", "sd", "n", "low", "high", "difference",
    "missed", "diverged", "failed", "stale", "data", "standing", "origin", "runs",
]  # fmt: skip
# mean, sd, low, high, difference: NaN where missing; difference = mean - survey. data: the variant's own
# name, "mnist5k", "" where not run; standing: same | variant | stand-in | mechanics | unknown | "", printed
# for a row that only the source has; origin: measured | here | mixed | "". runs: run ids. n counts runs with
# a value, diverged ones included (their error is 100 %).
# Unit of a metric -> between what it lies.
LIMITS = {"%": (0.0, 100.0), "share": (0.0, 1.0), **dict.fromkeys(("epochs", "steps"), (0.0, math.inf))}
EXTRA = ["label", "match", *CELLS]  # match: variant (row: the survey's) | norm (not in the survey; row "")
# Of a table whose records are trials: how many data sets the number is over (0: no such), and how many trials
# the selected runs were selected from, of how many in the grid.
TRIALS = ["sets", "trials", "trials_planned", "trials_diverged", "trials_failed"]
FEW, MANY = 3, 20  # columns with one and the same note that are named one by one; notes on single columns


@dataclass
class TableReport:
    table: str
    title: str
    profile: str
    published: Published
    cells: pd.DataFrame  # columns CELLS, and TRIALS where the records are trials
    extra: pd.DataFrame  # columns EXTRA, and TRIALS where the records are trials
    claims: list[ClaimResult]
    deviations: pd.DataFrame  # columns DEVIATIONS; column and rows: "all" or names
    runs: pd.DataFrame  # the store's rows + match (cell | variant | norm | trial), row, column, label, stale
    damaged: int = 0
    blocks: dict[str, Block | None] = field(default_factory=dict)  # column -> accuracies by set, of Table 5
    notes: list[str] = field(default_factory=list)
    stuck: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # as at_chance says
    _by_seed: dict[tuple[str, str], dict[tuple[str, str], dict[int, float]]] = field(default_factory=dict)

    @cached_property
    def lines(self) -> dict[tuple[str, str, str], dict[str, Any]]:
        """(row, column, metric) -> that line of `cells`: pages ask for hundreds, one by one."""
        lines: list[dict[str, Any]] = self.cells.to_dict("records")  # type: ignore[assignment]
        return {(line["row"], line["column"], line["metric"]): line for line in lines}

    @cached_property
    def by_column(self) -> dict[str, pd.DataFrame]:
        """The runs that stand in the cells of each column, by seed: pages ask for them thousands of times."""
        mine = self.runs[(self.runs["match"] == "cell") & (self.runs["status"] != "failed")]
        return {
            str(k): v for k, v in mine.sort_values("seed", kind="stable").groupby("column", observed=True)
        }

    def by_seed(self, metric: str, diverged: float) -> dict[tuple[str, str], dict[int, float]]:
        """(row, column) -> seed -> a metric of the runs in cells; what a diverged run counts as."""
        if f"metrics.{metric}" not in self.runs:
            return {}
        if (metric, str(diverged)) not in self._by_seed:  # no two NaN are equal
            mine = self.runs[(self.runs["match"] == "cell") & (self.runs["status"] != "failed")]
            values = mine[f"metrics.{metric}"].astype(float).where(mine["status"] != "diverged", diverged)
            found: dict[tuple[str, str], dict[int, float]] = {}
            for row, column, seed, value in zip(
                mine["row"].astype(str), mine["column"].astype(str), mine["seed"], values, strict=True
            ):
                found.setdefault((row, column), {})[int(seed)] = value
            self._by_seed[metric, str(diverged)] = {k: dict(sorted(v.items())) for k, v in found.items()}
        return self._by_seed[metric, str(diverged)]


def analyse(
    frame: pd.DataFrame,
    grid: dict[str, Any],
    paper: dict[str, Any],
    published: Published,
    profile: str,
    damaged: int = 0,
) -> TableReport:
    """The report of one table and one profile; `grid`, `paper` and `damaged` are the store's for this
    table.
    """
    mine = frame[frame["table"] == published.table]
    if published.trials:
        return of_trials(mine, grid, paper, published, profile, damaged)
    runs, notes = one_content(matched(mine, grid, profile))
    runs = runs.assign(**{targets.LOST: (runs["status"].astype(object) == "diverged").astype(float)})
    if published.targets:
        runs = targets.added(runs, published)
    if any(row.epoch_of for row in published.rows):
        runs = epochs.added(runs, published)
    if published.relative_to:
        runs = relative.added(runs, published)
    stuck = at_chance(runs, published)
    filling = runs[runs["match"] == "cell"]
    cells, extra, samples = tabled(runs, published, masks(filling) or scores(filling))
    bases = {column: basis(runs, column, paper, published) for column in published.data_columns}
    return TableReport(
        **headed(published, profile, damaged),
        cells=pd.DataFrame(cells, columns=CELLS),
        extra=pd.DataFrame(extra, columns=EXTRA),
        claims=judged(published, samples, bases, stuck, cut_short(runs, published)),
        deviations=deviations(runs, grid, paper, published),
        runs=runs,
        notes=notes + remarks(runs, grid, profile, damaged),
        stuck=stuck,
    )


def of_trials(
    mine: pd.DataFrame,
    grid: dict[str, Any],
    paper: dict[str, Any],
    published: Published,
    profile: str,
    damaged: int,
) -> TableReport:
    """The same where the records are trials of a search: the selected ones fill the cells."""
    runs = selection.matched(mine, grid, profile, published)
    runs, notes = one_content(runs, ("column", "part"))
    runs = selection.select(runs)
    blocks: dict[str, Block | None] = {}
    if published.selections:
        found = averages(runs, published)
        cells, extra, samples = found.cells, found.extra, found.samples
        bases, blocks, notes = found.bases, found.blocks, notes + found.notes
    else:
        chosen = runs[runs["match"] != "trial"]
        lost = {metric.id: metric.lost for metric in published.metrics if metric.lost is not None}
        whole = selection.over_parts(chosen, lost)
        per_example = scores(whole[whole["match"] == "cell"])
        cells, extra, samples = tabled(whole, published, per_example)
        bases = {column: basis(whole, column, paper, published) for column in published.data_columns}
        if samples and not per_example:
            notes.append(
                "intervals cover another draw of seeds, not of test examples: no record has its scores"
            )
    return TableReport(
        **headed(published, profile, damaged),
        cells=pd.DataFrame(cells, columns=[*CELLS, *TRIALS]),
        extra=pd.DataFrame(extra, columns=[*EXTRA, *TRIALS]),
        claims=judged(published, samples, bases),
        deviations=of_search(runs, grid, paper, published),
        runs=runs,
        notes=notes + searched(runs) + remarks(runs, grid, profile, damaged),
        blocks=blocks,
    )


def headed(published: Published, profile: str, damaged: int) -> dict[str, Any]:
    title = f"Table {published.table[1:]}: {published.title_en}"
    return {
        "table": published.table, "title": title, "profile": profile, "published": published,
        "damaged": damaged,
    }  # fmt: skip


def judged(
    published: Published,
    samples: dict[Any, Sample],
    bases: dict[str, Basis],
    stuck: dict[tuple[str, str], tuple[int, int]] | None = None,
    short: dict[str, float] | None = None,
) -> list[ClaimResult]:
    functions, judge = claim_room.of(published.table), Judge(samples)
    return [
        result(claim, functions[claim.id], published, judge, bases, stuck or {}, short or {})
        for claim in published.claims
    ]


def at_chance(runs: pd.DataFrame, published: Published) -> dict[tuple[str, str], tuple[int, int]]:
    """(row, column) -> (finished runs whose error is nine tenths of a guess's or more, all runs), where there
    are any: what such networks say of a claim is not what it is about. Empty where the records do not say
    what a guess gives.
    """
    metric = published.metrics[0]
    if not {"metrics.chance", f"metrics.{metric.id}"} <= set(runs):
        return {}
    mine = runs[(runs["match"] == "cell") & (runs["status"] != "failed") & runs["metrics.chance"].notna()]
    error, guess = mine[f"metrics.{metric.id}"].astype(float), mine["metrics.chance"].astype(float)
    if metric.better == "higher":
        error, guess = 100 - error, 100 - guess
    found: dict[tuple[str, str], tuple[int, int]] = {}
    stuck = (error >= 0.9 * guess) & (mine["status"] != "diverged")
    for row, column, hit in zip(mine["row"], mine["column"], stuck, strict=True):
        hits, n = found.get((row, column), (0, 0))
        found[row, column] = (hits + int(hit), n + 1)
    return {key: (hits, n) for key, (hits, n) in found.items() if hits}


EARLY = 0.1  # of the published length of training


def cut_short(runs: pd.DataFrame, published: Published) -> dict[str, float]:
    """Column -> the largest share of the published length of training that a run of it has, where that is
    below EARLY.
    """
    if not published.lengths or "metrics.steps" not in runs:
        return {}
    mine = runs[runs["match"] == "cell"]
    longest = mine["metrics.steps"].astype(float).groupby(mine["column"].astype(object)).max()
    shares = {c: float(longest[c]) / whole for c, whole in published.lengths.items() if c in longest}
    return {column: share for column, share in shares.items() if share < EARLY}


# --------------------------------------------------------------------------------------------------- cells


def tabled(
    runs: pd.DataFrame, published: Published, per_example: dict[str, np.ndarray]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[Any, Sample]]:
    """(cells, labelled rows, samples for the claims); per_example: run id -> mask or scores."""
    cells, extra, samples = [], [], {}
    filled = grouped(runs[runs["match"] == "cell"], ["row", "column"])
    for row in published.rows:
        for column in published.data_columns:
            if row.columns and column not in row.columns:
                continue
            group = filled.get((row.id, column), Group())
            for metric in published.metrics_of(column):
                sample = sample_of(group, metric, per_example)
                cells.append(cell(row.id, column, metric, group, sample, published))
                if metric.claim and sample.values:
                    samples[row.id, column, metric.claim] = sample
    labelled = grouped(runs[runs["match"] != "cell"], ["match", "label", "row", "column"])
    for (match, label, row_id, name), group in labelled.items():
        for metric in published.metrics_of(name):
            found = cell(row_id, name, metric, group, sample_of(group, metric, {}), published)
            extra.append({"label": label, "match": match, **found})
    return cells, extra, samples


@dataclass(frozen=True)
class Group:
    """The runs of one cell or labelled row, as plain lists: pandas is slow on thousands of small frames."""

    run_id: tuple[str, ...] = ()
    seed: tuple[int, ...] = ()
    status: tuple[str, ...] = ()
    origin: tuple[str, ...] = ()
    stale: int = 0
    data: str = ""
    fingerprint: str = ""
    examples: int | None = None
    others: int | None = None  # training and validation examples
    sliced: bool = False  # config.data.limit_* cut the data set
    metrics: dict[str, list[float]] = field(default_factory=dict)
    trials: dict[str, int] = field(default_factory=dict)  # TRIALS of a table of trials


TRIAL_COLUMNS = {name: name for name in TRIALS} | {"trials_planned": "planned"}  # as selection.py names them


def grouped(runs: pd.DataFrame, by: list[str]) -> dict[tuple[str, ...], Group]:
    wanted = [*by, "run_id", "seed", "status", "origin", "stale", "data.name", "data.fingerprint"]
    lists = {name: runs[name].astype(object).to_numpy() for name in wanted}
    metrics = [str(name) for name in runs if str(name).startswith("metrics.")]
    numbers = {name.removeprefix("metrics."): runs[name].to_numpy(float) for name in metrics}
    sizes = pd.to_numeric(runs["data.n_test"]).to_numpy(float)
    parts = [runs[name] for name in ("data.n_train", "data.n_val") if name in runs]
    others = sum((pd.to_numeric(part).to_numpy(float) for part in parts), np.zeros(len(runs)))
    limits = [f"config.data.{name}" for name in ("limit_train", "limit_eval")]
    sliced = runs[[name for name in limits if name in runs]].notna().any(axis=1).to_numpy()
    counts = {
        name: runs[TRIAL_COLUMNS[name]].to_numpy() for name in TRIALS[1:] if TRIAL_COLUMNS[name] in runs
    }
    places: dict[tuple[str, ...], list[int]] = {}
    for i, key in enumerate(zip(*(lists[name] for name in by), strict=True)):
        places.setdefault(key, []).append(i)
    return {
        key: Group(
            run_id=tuple(lists["run_id"][at]),
            seed=tuple(int(seed) for seed in lists["seed"][at]),
            status=tuple(lists["status"][at]),
            origin=tuple(lists["origin"][at]),
            stale=int(sum(lists["stale"][at])),
            data=str(lists["data.name"][at[0]]),
            fingerprint=str(lists["data.fingerprint"][at[0]]),
            examples=None if math.isnan(sizes[at[0]]) else int(sizes[at[0]]),
            others=None if math.isnan(others[at[0]]) else int(others[at[0]]),
            sliced=bool(sliced[at[0]]),
            metrics={name: list(values[at]) for name, values in numbers.items()},
            trials={name: int(values[at].sum()) for name, values in counts.items()},
        )
        for key, at in places.items()
    }


def masks(runs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Run id -> bool [N], True where the test example was classified wrongly; runs without a (sound) mask
    left out.
    """
    found: dict[str, np.ndarray] = {}
    for run_id, text, size in zip(runs["run_id"], heavy(runs, "wrong"), runs["data.n_test"], strict=True):
        try:
            bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8))
            if not math.isnan(size) and len(bits) >= size:
                found[run_id] = bits[: int(size)].astype(bool)
        except (TypeError, zlib.error, binascii.Error):
            continue
    return found


def scores(runs: pd.DataFrame) -> dict[str, np.ndarray]:
    """Run id -> float [N], a number for each test example whose mean is the main metric (of an AUC: its
    influence values); runs without sound ones left out. In records: base64 of zlib of little-endian float32.
    """
    found: dict[str, np.ndarray] = {}
    for run_id, text in zip(runs["run_id"], heavy(runs, "scores"), strict=True):
        try:
            values = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f4").astype(float)
            if len(values) > 1 and np.isfinite(values).all():
                found[run_id] = values
        except (TypeError, ValueError, zlib.error, binascii.Error):
            continue
    return found


def sample_of(group: Group, metric: Metric, wrong: dict[str, np.ndarray]) -> Sample:
    """The values of a cell's runs by seed, with their masks or scores where all of them agree with the
    metric.
    """
    values, held, ends = {}, {}, {}
    allowed = group.metrics.get(targets.END.removeprefix("metrics."), [math.nan] * len(group.run_id))
    for run_id, seed, status, value, end in zip(
        group.run_id, group.seed, group.status, group.metrics.get(metric.id, ()), allowed, strict=False
    ):
        if status == "failed" or math.isnan(value):
            continue
        lost = metric.lost if status == "diverged" else None  # whatever it had reached before
        values[seed] = float(value) if lost is None else lost
        if math.isinf(values[seed]):
            ends[seed] = end
        if metric.per_example and run_id in wrong:
            held[seed] = wrong[run_id] if lost is None else np.full_like(wrong[run_id], lost)
            if metric.unit == "%" and metric.better == "higher":  # an accuracy: what was right
                held[seed] = ~wrong[run_id] if lost is None else np.full_like(wrong[run_id], lost)
    if metric.constant and values:
        known = sum(values.values()) / len(values)
        return Sample(values, ready=Estimate(known, ((0.0, math.inf),), len(values), "crossed"))
    if metric.exact and values and not any(values.values()):
        return Sample(values, ready=Estimate(0.0, ((0.0, math.inf),), len(values), "seeds"))
    if metric.resolution and len(values) > 1:
        found = np.fromiter(values.values(), float)
        parts = (
            (float(found.var(ddof=1)) / len(found), len(found) - 1.0),
            (metric.resolution**2 / 12, math.inf),
        )
        return Sample(values, ready=Estimate(float(found.mean()), parts, len(found), "seeds"))
    if metric.unit == "% of runs":
        hits = sum(value > 0 for value in values.values())
        return Sample(values, ready=share(hits, len(values)).scaled(100) if values else None)
    if metric.unit != "%":
        fits = bool(held) and all(abs(x.mean() - values[seed]) < 0.01 for seed, x in held.items())
        return Sample(values, test_set=group.fingerprint, scores=held) if fits else Sample(values, ends=ends)
    # A balanced error is no mean over examples: then the mask says another number and is of no use here.
    fits = all(abs(100 * mask.mean() - values[seed]) <= 50 / len(mask) for seed, mask in held.items())
    return Sample(values, group.examples, group.fingerprint, held if fits else {})


def cell(
    row: str, column: str, metric: Metric, group: Group, sample: Sample, published: Published
) -> dict[str, Any]:
    figure = published.figure(row, column, metric.printed)
    survey, source = (figure.survey, figure.source) if figure else (None, None)
    found = summary(sample)
    if metric.median and sample.values:
        found = Summary(found.n, median(list(sample.values.values())), math.nan, math.nan, math.nan)
    low, high = found.low, found.high
    if metric.unit in LIMITS:  # a mean of such is known to lie there, whatever the spread of three seeds
        low, high = max(low, LIMITS[metric.unit][0]), min(high, LIMITS[metric.unit][1])
    if metric.floor is not None:
        low = max(low, metric.floor)
    origins = set(group.origin)
    return {
        "row": row, "column": column, "metric": metric.id,
        "survey": math.nan if survey is None else float(survey),
        "source": math.nan if source is None else float(source),
        "mean": found.mean, "sd": found.sd, "n": found.n, "low": low, "high": high,
        "difference": found.mean - survey if survey is not None and metric.comparable else math.nan,
        "missed": sum(map(math.isinf, sample.values.values())),
        "diverged": group.status.count("diverged"), "failed": group.status.count("failed"),
        "stale": group.stale, "data": group.data,
        "standing": "printed" if row in published.printed_rows else standing(group, column, published),
        "origin": origins.pop() if len(origins) == 1 else "mixed" if origins else "",
        "runs": list(group.run_id), **group.trials,
    }  # fmt: skip


def standing(group: Group, column: str, published: Published) -> str:
    """How these runs' data may stand for the published column; a slice of the paper's data is a stand-in, a
    user's folder as large as the paper's data is that.
    """
    if not group.run_id:
        return ""
    found = published.data.get(column, {}).get(group.data, "unknown")
    if published.sizes.get(column, {}).get(group.data) == [group.others, group.examples]:
        found = "same"
    return "stand-in" if group.sliced and found in ("same", "variant") else found


def basis(runs: pd.DataFrame, column: str, paper: dict[str, Any], published: Published) -> Basis:
    runs = runs[(runs["column"] == column) & (runs["match"] == "cell")]
    if not len(runs):
        return Basis(column, "", "", False)
    group = grouped(runs, ["column"])[(column,)]
    stands = standing(group, column, published)
    told = [paper.get(key, {}).get("epochs") for key in runs["paper"].astype(object)]
    epochs = all(a is not None and a == b for a, b in zip(told, runs["config.epochs"], strict=True))
    return Basis(column, group.data, stands, stands == "same" and epochs)


# ------------------------------------------------------------------------------------------------- remarks


def searched(runs: pd.DataFrame) -> list[str]:
    """How much of the search the selected runs rest on."""
    own = runs[runs["match"] == "cell"]
    if not len(own):
        return []
    short = own[own["trials"] < own["planned"]]
    notes = [
        f"{len(own)} runs selected by validation error from {int(own['trials'].sum())} trials,"
        f" {int(own['trials_diverged'].sum())} of them diverged"
    ]
    if len(short):
        notes.append(
            f"{len(short)} of {len(own)} selected runs rest on a part of their search:"
            f" {int(short['trials'].sum())} of {int(short['planned'].sum())} trials"
        )
    return notes


def remarks(runs: pd.DataFrame, grid: dict[str, Any], profile: str, damaged: int) -> list[str]:
    """What a reader must know beside the numbers."""
    notes = []
    if profile not in grid.get("profiles", {}):
        notes.append(f"profile {profile} has not been swept: no grid for it")
    if damaged:
        notes.append(f"{damaged} damaged {'record' if damaged == 1 else 'records'} ignored")
    if len(runs):
        for status in ("failed", "diverged"):
            if count := int((runs["status"].astype(object) == status).sum()):
                notes.append(f"{count} of {len(runs)} runs {status}")
        if count := int(runs["stale"].sum()):
            notes.append(f"{count} of {len(runs)} runs are stale: made by another version of the code")
    notes += notes_on_data(runs)
    if "data.error" in runs:
        scores = runs.groupby("column", sort=False, observed=True)["data.error"].first().astype(object)
        for column in scores[scores == "balanced_error"].index:
            if not any(note.startswith(f"{column}:") and "balanced" in note for note in notes):
                notes.append(f"{column}: the error is the balanced error")
    return notes


def notes_on_data(runs: pd.DataFrame) -> list[str]:
    """What the data sets say of themselves, a note that many columns share only once."""
    if "data.notes" not in runs:
        return []
    told: dict[str, list[str]] = {}
    for column, text in runs.groupby("column", sort=False, observed=True)["data.notes"].first().items():
        for note in orjson.loads(text) if isinstance(text, str) else ():
            told.setdefault(note, []).append(str(column))
    own = [f"{c}: {note}" for note, columns in told.items() if len(columns) <= FEW for c in columns]
    if len(own) > MANY:
        own = [*own[:MANY], f"{len(own) - MANY} more such notes: see the records"]
    return own + [f"{len(columns)} columns: {note}" for note, columns in told.items() if len(columns) > FEW]
