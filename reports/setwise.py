"""Cells of Table 5: averages over many data sets, of ranks, accuracies and selected depths; and paired tests.

A column is a selection of sets by their number of rows. Of its selected runs, those are taken in which every
ranked row has the same sets, folds and seeds: a rank means nothing where a rival is missing. Rows that ran on
fewer than half of the sets of the fullest row are not ranked at all; of seeds and sets, at least three seeds
where they share ten sets, then as many pairs of seed and set as there are. The folds of a set are averaged
first. A diverged run is wrong everywhere (accuracy 0).

With x[s, e] the value of seed s on set e (a centred rank, say), an interval covers another draw of seeds and
another draw of data sets (reports/statistics.py). On fewer than six sets it is unbounded: a method that won
on all five would not be significantly better by a two-sided sign test. A p-value is that of the accuracies
averaged over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from reports import ranking
from reports.published import Metric, Published
from reports.statistics import FEWEST, Estimate, Sample, p_value, summary
from reports.verdicts import Basis

LEAST = 6  # sets for an interval: 2 / 2^6 < 0.05 < 2 / 2^5
ENOUGH = 10  # sets that three seeds must share before they are preferred to more sets with fewer seeds
BASELINE = "snn"


@dataclass(frozen=True)
class Block:
    """Accuracies [R rows, n seeds, S sets] in [0, 1], with depths (NaN where a method has none) alike."""

    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    sets: tuple[str, ...]
    sizes: np.ndarray  # [S], rows of each set
    values: np.ndarray
    depths: np.ndarray
    left_out: tuple[str, ...] = ()  # rows that ran on too few sets
    lacking: int = 0  # sets of the selection on which some ranked row has not run
    used: frozenset[str] = frozenset()  # run ids

    def ranks(self, rows: Sequence[str]) -> np.ndarray:
        """Ranks [K, n, S] among these rows."""
        of = [self.rows.index(row) for row in rows]
        return np.moveaxis(ranking.ranks(np.moveaxis(self.values[of], 0, -1)), -1, 0)

    def mean(self) -> ranking.Table:
        """Accuracies [S, R] averaged over seeds."""
        return ranking.Table(self.sets, self.rows, self.values.mean(1).T, self.sizes)


@dataclass
class Found:
    cells: list[dict[str, Any]] = field(default_factory=list)
    extra: list[dict[str, Any]] = field(default_factory=list)
    samples: dict[Any, Sample] = field(default_factory=dict)
    bases: dict[str, Basis] = field(default_factory=dict)
    blocks: dict[str, Block | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def averages(runs: pd.DataFrame, published: Published) -> Found:
    """Cells, labelled rows, samples for claims and what they rest on, from matched and selected trials."""
    found, chosen = Found(), runs[runs["match"] != "trial"]
    chosen = chosen.assign(size=sizes(chosen))
    own = chosen[chosen["match"] == "cell"]
    names = [row.id for row in published.rows]
    for column, (low, high) in published.selections.items():
        inside = own[(own["size"] >= low) & (own["size"] < high)]
        block = complete(inside, names)
        found.blocks[column] = block
        found.bases[column] = basis(inside, block, column, published)
        standing = found.bases[column].standing
        for name in names:
            numbers = of_row(name, block, published)
            facts = counts(inside[inside["row"] == name], block)
            for metric in published.metrics:
                sample = numbers.get(metric.id, Sample({}))
                found.cells.append(cell(name, column, metric, sample, facts, block, standing, published))
                if metric.claim and (sample.values or sample.ready):
                    found.samples[name, column, metric.claim] = sample
        others = chosen[(chosen["match"] != "cell") & (chosen["size"] >= low) & (chosen["size"] < high)]
        for key, mine in others.groupby(["match", "label", "row"], sort=True):
            match, label, row = map(str, key)
            rivals = inside[inside["row"] != row] if match == "variant" else inside
            name = row if match == "variant" else label
            both = complete(pd.concat([rivals, mine.assign(row=name)]), list(dict.fromkeys([*names, name])))
            if both is not None and name not in both.rows:
                both = None
            numbers, facts = of_row(name, both, published), counts(mine, both)
            for metric in published.metrics:
                sample = numbers.get(metric.id, Sample({}))
                line = cell(row, column, metric, sample, facts, both, standing, published)
                found.extra.append({"label": label, "match": match, **line})
        found.notes += remarks(column, inside, block, published)
    return found


def sizes(chosen: pd.DataFrame) -> pd.Series:
    """N of each run's set: rows for training, validation and test."""
    parts = [f"data.{name}" for name in ("n_train", "n_val", "n_test")]
    there = [pd.to_numeric(chosen[name]) for name in parts if name in chosen]
    total = sum(there[1:], there[0]) if there else pd.Series(np.nan, index=chosen.index)
    return total.groupby(chosen["column"].astype(object)).transform("max")


# ------------------------------------------------------------------------------------------ complete blocks


def complete(chosen: pd.DataFrame, names: Sequence[str]) -> Block | None:
    """The block of accuracies in which every ranked row has every seed and set; None where there is none."""
    if "metrics.test_error" not in chosen:  # an empty store
        return None
    chosen = chosen[chosen["metrics.test_error"].notna() | (chosen["status"].astype(object) == "diverged")]
    chosen = chosen[chosen["row"].isin(list(names))]
    if not len(chosen):
        return None
    rows = [name for name in names if (chosen["row"] == name).any()]
    units = sorted(set(zip(chosen["column"].astype(str), chosen["part"].astype(str), strict=True)))
    seeds = sorted(set(chosen["seed"]))
    at = (
        chosen["row"].map({name: i for i, name in enumerate(rows)}).to_numpy(int),
        chosen["seed"].map({seed: i for i, seed in enumerate(seeds)}).to_numpy(int),
        np.array(
            [
                units.index(u)
                for u in zip(chosen["column"].astype(str), chosen["part"].astype(str), strict=True)
            ]
        ),
    )
    shape = (len(rows), len(seeds), len(units))
    values, depths, size = np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(len(units))
    lost = (chosen["status"].astype(object) == "diverged").to_numpy()
    values[at] = np.where(lost, 0.0, 1 - chosen["metrics.test_error"].to_numpy(float) / 100)
    if "config.model.layers" in chosen:
        depths[at] = pd.to_numeric(chosen["config.model.layers"]).to_numpy(float)
    size[at[2]] = chosen["size"].to_numpy(float)
    there = ~np.isnan(values)
    reach = there.any(1).sum(1)  # units of each row
    ranked = np.flatnonzero(2 * reach >= reach.max())
    kept = fullest(there[ranked].all(0))
    if kept is None or len(ranked) < 2:
        return None
    of_seed, of_unit = kept
    sets = list(dict.fromkeys(units[u][0] for u in of_unit))
    folds = [[u for u in of_unit if units[u][0] == name] for name in sets]

    def averaged(x: np.ndarray) -> np.ndarray:
        taken = x[np.ix_(ranked, of_seed)]
        return np.stack([taken[:, :, f].mean(-1) for f in folds], -1)

    taken = np.isin(at[0], ranked) & np.isin(at[1], of_seed) & np.isin(at[2], of_unit)
    return Block(
        rows=tuple(rows[i] for i in ranked),
        seeds=tuple(int(seeds[i]) for i in of_seed),
        sets=tuple(sets),
        sizes=np.array([size[f[0]] for f in folds]),
        values=averaged(values),
        depths=averaged(depths),
        left_out=tuple(name for i, name in enumerate(rows) if i not in ranked),
        lacking=len({name for name, _ in units}) - len(sets),
        used=frozenset(chosen["run_id"][taken]),
    )


def fullest(there: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """(seeds, units) of a full rectangle in `there` [n, U]; seeds are added in the order of their reach."""
    order = np.argsort(-there.sum(1), kind="stable")
    best, most = None, (False, 0, 0)
    for k in range(1, len(order) + 1):
        units = np.flatnonzero(there[order[:k]].all(0))
        worth = (k >= FEWEST and len(units) >= ENOUGH, k * len(units), k)
        if len(units) and worth > most:
            best, most = (np.sort(order[:k]), units), worth
    return best


# --------------------------------------------------------------------------------------- a row's own numbers


def of_row(name: str, block: Block | None, published: Published) -> dict[str, Sample]:
    """Metric -> sample of one row of the block; nothing for a row that is not in it."""
    if block is None or name not in block.rows:
        return {}
    i, found = block.rows.index(name), {}
    networks = {row.id for row in published.rows if row.kind == "fnn"}
    if not math.isnan(block.depths[i].max()):
        networks.add(name)
        found["depth"] = scored(block.depths[i], block)
    among = {
        "rank_diff": block.rows,
        "fnn_rank_diff": [row for row in block.rows if row in networks],
        "printed_rank_diff": [row for row in block.rows if row in published.survey_rows],
    }
    for metric, rows in among.items():
        if name in rows and len(rows) > 1:
            ranks = block.ranks(rows)[list(rows).index(name)]
            found[metric] = scored(ranks - (len(rows) + 1) / 2, block)
            if metric == "rank_diff":
                found["rank"] = scored(ranks, block)
    found["accuracy"] = scored(100 * block.values[i], block)
    if BASELINE in block.rows and name != BASELINE:
        found["p"] = Sample({}, ready=paired(block.values[block.rows.index(BASELINE)], block.values[i]))
    return found


def scored(x: np.ndarray, block: Block) -> Sample:
    """Sample of values x [n seeds, S sets], paired with all others of the block."""
    by_seed = dict(zip(block.seeds, x, strict=True))
    values = {seed: float(v.mean()) for seed, v in by_seed.items()}
    if len(block.sets) < LEAST:
        return Sample(values, ready=Estimate(float(x.mean()), ((math.inf, 1),), len(x), "sets"))
    return Sample(values, test_set="sets", scores=by_seed, how="sets")


def paired(a: np.ndarray, b: np.ndarray) -> Estimate:
    """The one-sided p-value that a [n, S] is larger than b [n, S], both averaged over seeds."""
    n, sets = a.shape
    if sets < LEAST:  # too few for the test to say much, whatever the seeds
        return Estimate(ranking.wilcoxon(a.mean(0), b.mean(0)), ((math.inf, 1),), n, "jackknife")
    fewer = [[np.delete(x, i, 0).mean(0) for x in (a, b)] for i in range(n)] if n > 1 else []
    return p_value(ranking.wilcoxon(a.mean(0), b.mean(0)), [ranking.wilcoxon(*pair) for pair in fewer])


# ------------------------------------------------------------------------------------------- what is printed


def counts(mine: pd.DataFrame, block: Block | None) -> dict[str, Any]:
    """Of a row's selected runs in the block (of all where it has no part in it): trials and what became of
    them.
    """
    used = mine[mine["run_id"].isin(list(block.used))] if block else mine
    used = used if len(used) else mine
    sums = {name: int(used[name].sum()) for name in ("trials", "trials_diverged", "trials_failed", "planned")}
    origins = set(used["origin"].astype(str))
    return {
        **sums,
        "diverged": int((used["status"].astype(object) == "diverged").sum()),
        "stale": int(used["stale"].sum()),
        "data": str(used["data.name"].iloc[0]) if len(used) else "",
        "origin": origins.pop() if len(origins) == 1 else "mixed" if origins else "",
        "runs": list(used["run_id"]),
    }


def cell(
    row: str,
    column: str,
    metric: Metric,
    sample: Sample,
    facts: dict[str, Any],
    block: Block | None,
    standing: str,
    published: Published,
) -> dict[str, Any]:
    figure = published.figure(row, column, metric.printed)
    survey, source = (figure.survey, figure.source) if figure else (None, None)
    number = summary(sample)
    difference = math.nan if survey is None or not metric.comparable else number.mean - survey
    first = metric is published.metrics[0]  # which runs is said once, not for every metric
    return {
        "row": row, "column": column, "metric": metric.id,
        "survey": math.nan if survey is None else float(survey),
        "source": math.nan if source is None else float(source),
        "mean": number.mean, "sd": number.sd, "n": number.n, "low": number.low, "high": number.high,
        "difference": difference, "missed": 0, "diverged": facts["diverged"], "failed": 0,
        "stale": facts["stale"],
        "data": facts["data"], "standing": standing if facts["data"] else "", "origin": facts["origin"],
        "runs": facts["runs"] if first else [], "sets": len(block.sets) if block and number.n else 0,
        "trials": facts["trials"], "trials_planned": facts["planned"],
        "trials_diverged": facts["trials_diverged"], "trials_failed": facts["trials_failed"],
    }  # fmt: skip


def basis(inside: pd.DataFrame, block: Block | None, column: str, published: Published) -> Basis:
    """What the column's claims rest on. Never quite the paper's: fewer rivals, other sets."""
    if not len(inside) or block is None:
        return Basis(column, "", "", False)
    name = str(inside["data.name"].iloc[0])
    stands = published.data.get(column, {}).get(name, "unknown")
    limits = [f"config.data.{key}" for key in ("limit_train", "limit_eval")]
    if inside[[key for key in limits if key in inside]].notna().any(axis=None) and stands == "variant":
        stands = "stand-in"
    return Basis(column, f"{len(block.sets)} sets of {name}", stands, False)


def remarks(column: str, inside: pd.DataFrame, block: Block | None, published: Published) -> list[str]:
    group, notes = published.group(column), []
    if block is None:
        return [f"{group}: no two rows have a set in common yet"] if len(inside) else []
    if block.lacking:
        notes.append(f"{group}: {block.lacking} sets left out, on which some row or seed has not run")
    if block.left_out:
        names = ", ".join(row.en for row in published.rows if row.id in block.left_out)
        notes.append(f"{group}: not ranked, run on too few sets: {names}")
    absent = [row.en for row in published.rows if row.id not in (*block.rows, *block.left_out)]
    if absent:
        notes.append(f"{group}: ranks are among {len(block.rows)} rows; not run: {', '.join(absent)}")
    return notes
