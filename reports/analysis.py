"""Records + published figures -> one TableReport: cells, labelled rows, claims with verdicts, deviations.

A record fills a cell when its config without the seed is a point of the profile's grid. With the primary
variant put back it may be a point too: another *variant*, a labelled row. With the table's own normaliser
put back as well: a *norm* row, not in the survey. All else is for the sweep pages.
"""

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
from reports.published import Claim, Metric, Published
from reports.statistics import FEWEST, Interval, Judge, Sample, cells_of, smallest, summary
from reports.store import canonical, flat_config, heavy

VERDICTS = ("supported", "contradicted", "inconclusive", "not comparable", "not run")

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
class Component:
    """One part of a claim, in the claim's order, with its own interval at 95 %."""

    name: str
    column: str
    margin: float | None
    low: float | None
    high: float | None
    n: int
    verdict: str  # as for claims; parts that are not comparable or not run have no interval
    why: str = ""


@dataclass
class ClaimResult:
    id: str
    sentence: str
    inequality: str
    survey: tuple[float | None, str]  # margin of the worst part (None = n/a), holds | fails | n/a
    source: tuple[float | None, str]
    margin: float | None  # ours: the worst part's margin; > 0 means that the claim is met
    low: float | None
    high: float | None
    n: int  # the fewest seeds behind any part
    verdict: str  # one of VERDICTS
    label: str  # what the verdict rests on: "", "on mnist5k (stand-in); without ni (kdd_keel: mechanics)"
    why: str
    components: list[Component] = field(default_factory=list)


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


# ------------------------------------------------------------------------------------------------ matching


def matched(frame: pd.DataFrame, grid: dict[str, Any], profile: str) -> pd.DataFrame:
    """The rows that belong to the profile's table, with match, row, column, label and stale."""
    points = grid.get("profiles", {}).get(profile, {}).get("points", [])
    known: dict[str, dict[str, str] | None] = {}
    near = frame[nearby(frame, points, grid)]
    match = Matcher(points, grid)
    for text in near["config"].unique():
        known[text] = match(text)
    found = [known[text] for text in near["config"]]
    kept = near[np.array([f is not None for f in found], bool)].copy()
    for name in ("match", "row", "column", "label"):
        kept[name] = pd.Series([f[name] for f in found if f is not None], index=kept.index, dtype=object)
    kept["stale"] = stale(kept, grid)
    order = {point["row"]: i for i, point in enumerate(points)}
    kept["order"] = [order.get(row, len(order)) for row in kept["row"]]
    return kept.sort_values(["order", "label", "seed"], kind="stable").drop(columns="order")


def nearby(frame: pd.DataFrame, points: list[dict[str, Any]], grid: dict[str, Any]) -> np.ndarray:
    """Rows worth a closer look: each plain config column has a value that some point has, or none at all.

    Thousands of a sweep's records leave here, without their configs being parsed.
    """
    keep = (frame["role"].astype(object) != "trial").to_numpy(copy=True)
    if not points:
        return np.zeros(len(frame), bool)
    wanted: dict[str, set[Any]] = {}
    for point in points:
        for name, text in flat_config(point["config"]).items():
            value = orjson.loads(text)
            wanted.setdefault(name, set()).add(text if isinstance(value, list) else value)
    free = {f"config.{name}" for name in grid.get("primary", {})}
    for name, values in wanted.items():
        if name in frame.columns and name not in free and not name.startswith("config.norm."):
            keep &= (frame[name].isin(list(values)) | frame[name].isna()).to_numpy()
    return keep


def stale(kept: pd.DataFrame, grid: dict[str, Any]) -> list[bool]:
    """Whether each record was made by other code than the last sweep's.

    The hash covers the normaliser's own file, so a grid may have one a normaliser (`codes`); with the table's
    own only (`code`), records of other normalisers are not judged.
    """
    codes = {grid.get("norm"): grid.get("code"), **grid.get("codes", {})}
    norms = [orjson.loads(text).get("norm", {}).get("name") for text in kept["config"]]
    return [codes.get(norm) not in (None, code) for norm, code in zip(norms, kept["code"], strict=True)]


class Matcher:
    """Says of a config (canonical text, no seed) which point it fills, and as what; None if it fills none."""

    def __init__(self, points: list[dict[str, Any]], grid: dict[str, Any]):
        self.points, self.norm = points, grid.get("norm")
        self.primary: dict[str, Any] = grid.get("primary", {})
        self.exact = {canonical(p["config"]): p for p in points}
        self.reduced: dict[frozenset[str], dict[str, list[dict[str, Any]]]] = {}

    def __call__(self, text: str) -> dict[str, str] | None:
        if point := self.exact.get(text):
            return {"match": "cell", "row": point["row"], "column": point["column"], "label": ""}
        config = orjson.loads(text)
        changed = {k: config[k] for k, v in self.primary.items() if config.get(k) not in (v, None)}
        if config.get("norm", {}).get("name") == self.norm:
            point = self.exact.get(canonical({**config, **self.primary}))
            if not point or not changed:
                return None
            place = {"row": point["row"], "column": point["column"]}
            return {"match": "variant", **place, "label": words(changed)}
        # Another normaliser: what only the table's own one knows is null there (alpha, reading, ...).
        blank = frozenset(k for k, v in config.items() if v is None) | set(self.primary) | {"norm"}
        rest = canonical({k: v for k, v in config.items() if k not in blank})
        points = self.without(blank).get(rest, [])
        if not points:
            return None
        rows = {point["row"] for point in points}
        label = config["norm"]["name"] + (f" ({words(o)})" if (o := config["norm"].get("options")) else "")
        return {
            "match": "norm",
            "row": rows.pop() if len(rows) == 1 else "",
            "column": points[0]["column"],
            "label": label + (f", {words(changed)}" if changed else ""),
        }

    def without(self, blank: frozenset[str]) -> dict[str, list[dict[str, Any]]]:
        """The points by what is left of their configs when the blank keys are left out."""
        if blank not in self.reduced:
            self.reduced[blank] = {}
            for point in self.points:
                key = canonical({k: v for k, v in point["config"].items() if k not in blank})
                self.reduced[blank].setdefault(key, []).append(point)
        return self.reduced[blank]


def words(found: dict[str, Any]) -> str:
    return ", ".join(f"{key}={plain(value)}" for key, value in found.items())


def plain(value: Any) -> str:
    """A config value as a person writes it: 40 for 40.0, none for null."""
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "none"
    return value if isinstance(value, str) else orjson.dumps(value).decode().replace(".0", "")


def one_content(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Runs on one data content a column: where a column has two (a data set that changed), the one with
    more runs.
    """
    notes, drop = [], []
    for column, group in runs.groupby("column", observed=True):
        counts = group["data.fingerprint"].astype(object).value_counts()
        if len(counts) > 1:
            others = group.index[group["data.fingerprint"] != counts.index[0]]
            drop += list(others)
            notes.append(
                f"{column}: {len(others)} runs on another content of the data"
                f" (fingerprint not {counts.index[0]}) are left out of the cells"
            )
    return runs.drop(index=drop), notes


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
        values[seed] = float(value)
        if metric.per_example and run_id in wrong:
            held[seed] = wrong[run_id]
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


# -------------------------------------------------------------------------------------------------- claims


@dataclass(frozen=True)
class Basis:
    """What a column's runs rest on: data set, its standing, and whether data and epochs are the paper's."""

    column: str
    data: str
    standing: str
    as_paper: bool


def basis(runs: pd.DataFrame, column: str, paper: dict[str, Any], published: Published) -> Basis:
    runs = runs[(runs["column"] == column) & (runs["match"] == "cell")]
    if not len(runs):
        return Basis(column, "", "", False)
    group = grouped(runs, ["column"])[(column,)]
    stands = standing(group, column, published)
    told = [paper.get(key, {}).get("epochs") for key in runs["paper"].astype(object)]
    epochs = all(a is not None and a == b for a, b in zip(told, runs["config.epochs"], strict=True))
    return Basis(column, group.data, stands, stands == "same" and epochs)


def result(
    claim: Claim, function: Any, published: Published, judge: Judge, bases: dict[str, Basis]
) -> ClaimResult:
    """The claim on the survey's, the source's and our figures."""
    parts = function(claim_room.Measured())
    components = [component(part, judge, [bases[c] for c in part.columns]) for part in parts]
    usable = [i for i, c in enumerate(components) if c.margin is not None]
    missing = [c for c in components if c.verdict == "not run"]
    found: Interval | None = None
    if usable:
        found = judge.interval(smallest([parts[i].margin for i in usable]))
        verdict = found.verdict
        if missing and verdict != "contradicted":
            verdict = "inconclusive"
        why = explained(verdict, found, [components[i] for i in usable], len(missing), len(parts))
    else:
        verdict = "not run" if missing else "not comparable"
        why = f"{len(missing)} of {len(parts)} parts not run" if missing else components[0].why
    return ClaimResult(
        id=claim.id,
        sentence=claim.sentence,
        inequality=claim.inequality,
        survey=claim_room.on_printed(function, published, "survey"),
        source=claim_room.on_printed(function, published, "source"),
        margin=found.margin if found else None,
        low=finite(found.low) if found else None,
        high=finite(found.high) if found else None,
        n=found.n if found else 0,
        verdict=verdict,
        label=label_of([parts[i] for i in usable], components, bases),
        why=why,
        components=components,
    )


def component(part: claim_room.Part, judge: Judge, bases: list[Basis]) -> Component:
    column = ", ".join(b.column for b in bases)

    def without(verdict: str, why: str) -> Component:
        return Component(part.name, column, None, None, None, 0, verdict, why)

    for b in bases:
        if b.standing == "mechanics":
            return without("not comparable", f"{b.column}: {b.data} is a check of mechanics only")
        if b.standing == "unknown":
            return without("not comparable", f"{b.column}: {b.data} does not stand for the published column")
        if part.absolute and b.standing and not b.as_paper:
            why = f"{b.column}: an absolute threshold needs the paper's data and epochs"
            return without("not comparable", why)
    if not cells_of(part.margin) <= judge.samples.keys():
        return without("not run", "")
    assert not isinstance(part.margin, float)
    found = judge.interval(part.margin)
    return Component(
        part.name, column, found.margin, finite(found.low), finite(found.high), found.n, found.verdict
    )


def finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


HOW = {
    "crossed": "paired by seed and test example",
    "binomial": "paired by seed, binomial test-set error added",
    "seeds": "paired by seed; the test set's sampling error has no part in this metric",
}


def explained(verdict: str, found: Interval, usable: list[Component], missing: int, total: int) -> str:
    """One sentence: what decided, on how many seeds, with which kind of interval."""
    if missing and verdict == "inconclusive":
        return f"{missing} of {total} parts not run"
    if found.n < FEWEST:
        return f"fewer than {FEWEST} seeds (n = {found.n})"
    worst = min(usable, key=lambda c: c.margin if c.margin is not None else math.inf)
    if verdict == "supported":
        text = f"the 95 % interval of every part lies above 0; least margin: {worst.name}"
    elif verdict == "contradicted":
        lowest = min(usable, key=lambda c: c.high if c.high is not None else math.inf)
        text = f"below 0 with all {len(usable)} parts allowed for: {lowest.name}"
    else:
        open_parts = sum(c.verdict != "supported" for c in usable)
        text = f"{open_parts} of {len(usable)} parts not above 0 with confidence; least margin: {worst.name}"
    return f"{text}; n = {found.n}, {HOW[found.how]}"


def label_of(usable: list[claim_room.Part], components: list[Component], bases: dict[str, Basis]) -> str:
    """What the verdict rests on, where that is not simply the paper's data."""
    columns = dict.fromkeys(column for part in usable for column in part.columns)
    on = [f"{bases[c].data} ({bases[c].standing})" for c in columns if bases[c].standing != "same"]
    if on:
        on += [bases[c].data for c in columns if bases[c].standing == "same"]
    left = dict.fromkeys(c.why for c in components if usable and c.verdict == "not comparable")
    without = [
        f"without {b.column} ({b.data}: {b.standing})"
        for b in bases.values()
        if b.standing in ("mechanics", "unknown") and any(why.startswith(f"{b.column}:") for why in left)
    ]
    if any("absolute" in why for why in left):
        without.append("without its absolute thresholds")
    if usable and (missing := sum(c.verdict == "not run" for c in components)):
        without.append(f"{missing} of {len(components)} parts not run")
    return "; ".join((["on " + ", ".join(on)] if on else []) + without)


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
