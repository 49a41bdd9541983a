"""Records + published figures -> one TableReport: cells, labelled rows, claims with verdicts, deviations."""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import orjson
import pandas as pd

from reports import claims as claim_room
from reports.matching import matched, one_content, plain
from reports.published import Metric, Published
from reports.statistics import Judge, Sample, summary
from reports.store import flat_config, heavy
from reports.verdicts import VERDICTS, Basis, ClaimResult, Component, result

__all__ = ["CELLS", "EXTRA", "VERDICTS", "ClaimResult", "Component", "TableReport", "analyse"]

# Columns of TableReport.cells, one row per (row, column, metric), also where nothing ran. `metric` is an id
# of the published file's metrics (test_error, epoch_best_val, test_error_best, ...), `column` a column of
# the records.
CELLS = [
    "row", "column", "metric", "survey", "source", "mean", "sd", "n", "low", "high", "difference",
    "diverged", "failed", "stale", "data", "standing", "origin", "runs",
]  # fmt: skip
# mean, sd, low, high, difference: NaN where missing; difference = mean - survey. data: the variant's own
# name, "mnist5k", "" where not run; standing: same | variant | stand-in | mechanics | unknown | ""; origin:
# measured | here | mixed | "". runs: run ids. n counts runs with a value, diverged ones included (their
# error is 100 %).
EXTRA = ["label", "match", *CELLS]  # match: variant (row: the survey's) | norm (not in the survey; row "")
DEVIATIONS = ["column", "key", "paper", "ran", "rows"]


@dataclass
class TableReport:
    table: str
    title: str
    profile: str
    published: Published
    cells: pd.DataFrame  # columns CELLS
    extra: pd.DataFrame  # columns EXTRA
    claims: list[ClaimResult]
    deviations: pd.DataFrame  # columns DEVIATIONS; column and rows: "all" or names
    runs: pd.DataFrame  # the store's rows + match (cell | variant | norm), row, column, label, stale
    damaged: int = 0
    notes: list[str] = field(default_factory=list)


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
    runs = matched(frame[frame["table"] == published.table], grid, profile)
    runs, notes = one_content(runs)
    wrong = masks(runs[runs["match"] == "cell"])
    cells, extra, samples = [], [], {}
    filled = grouped(runs[runs["match"] == "cell"], ["row", "column"])
    for row in published.rows:
        for column in published.data_columns:
            group = filled.get((row.id, column), Group())
            for metric in published.metrics:
                sample = sample_of(group, metric, wrong)
                cells.append(cell(row.id, column, metric, group, sample, published))
                if metric.claim and sample.values:
                    samples[row.id, column, metric.claim] = sample
    labelled = grouped(runs[runs["match"] != "cell"], ["match", "label", "row", "column"])
    for (match, label, row_id, name), group in labelled.items():
        for metric in published.metrics:
            found = cell(row_id, name, metric, group, sample_of(group, metric, {}), published)
            extra.append({"label": label, "match": match, **found})
    bases = {column: basis(runs, column, paper, published) for column in published.data_columns}
    functions, judge = claim_room.of(published.table), Judge(samples)
    return TableReport(
        table=published.table,
        title=f"Table {published.table[1:]}: {published.title_en}",
        profile=profile,
        published=published,
        cells=pd.DataFrame(cells, columns=CELLS),
        extra=pd.DataFrame(extra, columns=EXTRA),
        claims=[result(claim, functions[claim.id], published, judge, bases) for claim in published.claims],
        deviations=deviations(runs, paper, published),
        runs=runs,
        damaged=damaged,
        notes=notes + remarks(runs, grid, profile, damaged),
    )


# --------------------------------------------------------------------------------------------------- cells


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
    sliced: bool = False  # config.data.limit_* cut the data set
    metrics: dict[str, list[float]] = field(default_factory=dict)


def grouped(runs: pd.DataFrame, by: list[str]) -> dict[tuple[str, ...], Group]:
    wanted = [*by, "run_id", "seed", "status", "origin", "stale", "data.name", "data.fingerprint"]
    lists = {name: runs[name].astype(object).to_numpy() for name in wanted}
    metrics = [str(name) for name in runs if str(name).startswith("metrics.")]
    numbers = {name.removeprefix("metrics."): runs[name].to_numpy(float) for name in metrics}
    sizes = pd.to_numeric(runs["data.n_test"]).to_numpy(float)
    limits = [f"config.data.{name}" for name in ("limit_train", "limit_eval")]
    sliced = runs[[name for name in limits if name in runs]].notna().any(axis=1).to_numpy()
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
            sliced=bool(sliced[at[0]]),
            metrics={name: list(values[at]) for name, values in numbers.items()},
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


def sample_of(group: Group, metric: Metric, wrong: dict[str, np.ndarray]) -> Sample:
    """The values of a cell's runs by seed, with their masks where all of them agree with the metric."""
    values, held = {}, {}
    for run_id, seed, status, value in zip(
        group.run_id, group.seed, group.status, group.metrics.get(metric.id, ()), strict=False
    ):
        if status == "failed" or math.isnan(value):
            continue
        lost = status == "diverged" and metric.unit == "%"  # whatever it had reached before
        values[seed] = 100.0 if lost else float(value)
        if metric.per_example and run_id in wrong:
            held[seed] = np.ones_like(wrong[run_id]) if lost else wrong[run_id]
    if metric.unit != "%":
        return Sample(values)
    # A balanced error is no mean over examples: then the mask says another number and is of no use here.
    fits = all(abs(100 * mask.mean() - values[seed]) <= 50 / len(mask) for seed, mask in held.items())
    return Sample(values, group.examples, group.fingerprint, held if fits else {})


def cell(
    row: str, column: str, metric: Metric, group: Group, sample: Sample, published: Published
) -> dict[str, Any]:
    figure = published.figure(row, column, metric.printed)
    survey, source = (figure.survey, figure.source) if figure else (None, None)
    found = summary(sample)
    origins = set(group.origin)
    return {
        "row": row, "column": column, "metric": metric.id,
        "survey": math.nan if survey is None else float(survey),
        "source": math.nan if source is None else float(source),
        "mean": found.mean, "sd": found.sd, "n": found.n, "low": found.low, "high": found.high,
        "difference": found.mean - survey if survey is not None else math.nan,
        "diverged": group.status.count("diverged"), "failed": group.status.count("failed"),
        "stale": group.stale, "data": group.data, "standing": standing(group, column, published),
        "origin": origins.pop() if len(origins) == 1 else "mixed" if origins else "",
        "runs": list(group.run_id),
    }  # fmt: skip


def standing(group: Group, column: str, published: Published) -> str:
    """How these runs' data may stand for the published column; a slice of the paper's data is a stand-in."""
    if not group.run_id:
        return ""
    found = published.data.get(column, {}).get(group.data, "unknown")
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


# --------------------------------------------------------------------------------------- deviations, remarks


def deviations(runs: pd.DataFrame, paper: dict[str, Any], published: Published) -> pd.DataFrame:
    """Where the configs that ran differ from the paper profile's, key by key, alike ones together."""
    filled = runs[runs["match"] == "cell"]
    ran_rows: dict[str, set[str]] = {}
    found: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    distinct = filled.drop_duplicates(["row", "column", "config", "paper", "data.name"])
    for run in distinct[["row", "column", "config", "paper", "data.name"]].itertuples(index=False, name=None):
        row, column, text, key, data = run
        ran_rows.setdefault(column, set()).add(row)
        told = paper.get(key)
        if told is None:
            found.setdefault(("config", "not stored", "-"), {}).setdefault(column, set()).add(row)
            continue
        own = {k: orjson.loads(v) for k, v in flat_config(orjson.loads(text)).items()}
        theirs = {k: orjson.loads(v) for k, v in flat_config(told).items() if k != "config.seed"}
        own["config.data.name"] = data  # what was found under that name: cifar10 may be cifar10_jpeg
        for name in sorted(own.keys() | theirs.keys()):
            if own.get(name) != theirs.get(name):
                change = (name.removeprefix("config."), plain(theirs.get(name)), plain(own.get(name)))
                found.setdefault(change, {}).setdefault(column, set()).add(row)
    listed = []
    for (name, told, ran), where in found.items():
        whole = [column for column in where if where[column] == ran_rows[column]]
        if whole:
            names = ordered(whole, published.data_columns)
            named = "all" if len(whole) == len(ran_rows) > 1 else ", ".join(names)
            listed.append((named, name, told, ran, "all"))
        for column in where.keys() - set(whole):
            rows = ordered(where[column], [row.id for row in published.rows])
            listed.append((column, name, told, ran, ", ".join(rows)))
    places = ["all", *published.data_columns]
    listed.sort(key=lambda d: (d[1], [places.index(c) for c in d[0].split(", ")], d[2], d[3]))
    return pd.DataFrame(listed, columns=DEVIATIONS)


def ordered(names: Iterable[str], order: list[str]) -> list[str]:
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


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
    if "data.notes" in runs:
        for column, text in runs.groupby("column", sort=False, observed=True)["data.notes"].first().items():
            if isinstance(text, str):
                notes += [f"{column}: {note}" for note in orjson.loads(text)]
    if "data.error" in runs:
        scores = runs.groupby("column", sort=False, observed=True)["data.error"].first().astype(object)
        for column in scores[scores == "balanced_error"].index:
            if not any(note.startswith(f"{column}:") and "balanced" in note for note in notes):
                notes.append(f"{column}: the error is the balanced error")
    return notes
