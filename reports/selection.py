"""From the trials of a grid search to the one that counts for each (row, column, data part, seed, variant).

The trial with the least validation error is selected, its test error is the value: nothing is trained again.
Ties, by the source paper's rule: more layers, then the lower learning rate, then the higher dropout rate;
of estimators (ours) the smoother one, with the lower C, gamma and share of inputs; then the run id, so that
the answer is always the same. A diverged trial loses to any that did not; where all
diverged, that is the outcome. Failed trials have no part in it.

grid.json notes the grid of such a table as patterns: {row, column, config, axes}, the points whose config is
`config` with every key of `axes` at one of its values. `trials` names all axes of the search; one that is in
neither part of a pattern may have any value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import orjson
import pandas as pd

from reports.matching import plain, stale, words
from reports.published import Published
from reports.store import canonical, numbers

PARTS = ("data.options.set", "data.options.fold")  # axes that name a part of the data: never searched over
KINDS = ("cell", "variant", "norm")
DIGITS = 6  # of a validation error that is compared: noise must not break a tie
ABSENT = "-"  # of an axis that a config does not have


def matched(frame: pd.DataFrame, grid: dict[str, Any], profile: str, published: Published) -> pd.DataFrame:
    """The trials of the profile's table, with kind (cell | variant | norm: what the selected one fills), row,
    column, label, part (of the data), planned (trials of its group in the grid) and stale.
    """
    match = Matcher(grid, profile, published.trials)
    known: dict[tuple[str, Any], dict[str, Any] | None] = {}
    found = []
    for key in zip(frame["config"].astype(object), frame["cell.row"].astype(object), strict=True):
        if key not in known:
            known[key] = match(*key)
        found.append(known[key])
    kept = frame[np.array([f is not None for f in found], bool)].copy()
    good = [f for f in found if f is not None]
    for name in ("kind", "row", "label", "part", "collection"):
        kept[name] = pd.Series([f[name] for f in good], index=kept.index, dtype=object)
    kept["planned"] = pd.Series([f["planned"] for f in good], index=kept.index, dtype=float)
    kept["column"] = kept["cell.column"].astype(object)
    kept["stale"] = stale(kept, grid)
    kept["data.name"] = kept["collection"]  # the published file speaks of collections, not of their sets
    return kept.drop(columns="collection")


class Matcher:
    """Says of a trial's config (canonical text, no seed) and record's row what it fills; None if nothing."""

    def __init__(self, grid: dict[str, Any], profile: str, column_axis: str):
        points = grid.get("profiles", {}).get(profile, {}).get("points", [])
        self.primary: dict[str, Any] = grid.get("primary", {})
        self.axes = list(
            dict.fromkeys([*grid.get("trials", []), *(a for p in points for a in p.get("axes", {}))])
        )
        self.patterns = [Pattern(point, self.axes, column_axis) for point in points]
        self.by_rest: dict[str, list[Pattern]] = {}
        self.by_model: dict[str, list[Pattern]] = {}
        blank = [*self.primary, "norm"]
        for pattern in self.patterns:
            self.by_rest.setdefault(canonical(pattern.rest), []).append(pattern)
            self.by_model.setdefault(canonical(without(pattern.rest, blank)), []).append(pattern)

    def __call__(self, text: str, record_row: Any) -> dict[str, Any] | None:
        config = orjson.loads(text)
        values = {axis: spelt(config, axis) for axis in self.axes}
        rest = without(config, self.axes)
        changed = {k: config[k] for k, v in self.primary.items() if config.get(k) not in (v, None)}
        back = {k: self.primary[k] for k in changed}
        found = fitting(self.by_rest.get(canonical({**rest, **back}), []), values)
        if found:
            place = {"row": found[0].row, "label": words(changed), "kind": "variant" if changed else "cell"}
        else:  # another normaliser, or one in another kind of network: a row of its own
            same = self.by_model.get(canonical(without(rest, [*self.primary, "norm"])), [])
            found = fitting(same, values)
            if not found or any(p.row == record_row for p in self.patterns):
                return None
            label = str(record_row) + (f", {words(changed)}" if changed else "")
            place = {"row": str(record_row), "label": label, "kind": "norm"}
        planned = sum(p.size(values) for p in self.patterns if p.row == found[0].row)
        parts = [value_at(config, axis) for axis in PARTS]
        part = " ".join(plain(value) for value in parts if value is not None)
        return {**place, "part": part, "planned": planned, "collection": config["data"]["name"]}


class Pattern:
    """A pattern of the grid: `rest`, its config without the axes of the search, and their allowed values."""

    def __init__(self, point: dict[str, Any], axes: Iterable[str], column_axis: str):
        config, listed = point["config"], point.get("axes", {})
        self.row = str(point["row"])
        self.allowed = {axis: {spelling(value) for value in values} for axis, values in listed.items()}
        for axis in axes:
            if axis not in listed and spelt(config, axis) != ABSENT:
                self.allowed[axis] = {spelt(config, axis)}
        self.rest = without(config, axes)
        named = (*PARTS, column_axis)
        self.searched = [axis for axis in listed if axis not in named]
        self.given = [axis for axis in self.allowed if axis in named]

    def fits(self, values: dict[str, str]) -> bool:
        return all(values.get(axis, ABSENT) in allowed for axis, allowed in self.allowed.items())

    def size(self, values: dict[str, str]) -> int:
        """How many trials it has for the column and part of the data that `values` name."""
        if not all(values.get(axis, ABSENT) in self.allowed[axis] for axis in self.given):
            return 0
        return math.prod(len(self.allowed[axis]) for axis in self.searched)


def points(point: dict[str, Any]) -> int:
    """How many points of the grid a point of grid.json stands for."""
    return math.prod(len(values) for values in point.get("axes", {}).values())


def fitting(patterns: list[Pattern], values: dict[str, str]) -> list[Pattern]:
    """The patterns that a config fits, the most specific first."""
    return sorted((p for p in patterns if p.fits(values)), key=lambda p: -len(p.allowed))


def value_at(config: dict[str, Any], key: str) -> Any:
    """The value at a dotted key; None where it is not there."""
    for name in key.split("."):
        config = config.get(name) if isinstance(config, dict) else None  # type: ignore[assignment]
    return config


def spelling(value: Any) -> str:
    return orjson.dumps(numbers(value)).decode()


def spelt(config: dict[str, Any], key: str) -> str:
    *parents, last = key.split(".")
    for name in parents:
        config = config.get(name) or {}
    return spelling(config[last]) if last in config else ABSENT


def without(config: dict[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The config without these dotted keys."""
    found = dict(config)
    for key in keys:
        first, dot, deeper = key.partition(".")
        if first in found:
            if not dot:
                del found[first]
            elif isinstance(found[first], dict):
                found[first] = without(found[first], [deeper])
    return found


# ------------------------------------------------------------------------------------------------- selection

GROUP = ["kind", "label", "row", "column", "part", "seed"]
COUNTS = ["trials", "trials_diverged", "trials_failed", "planned"]


def select(runs: pd.DataFrame) -> pd.DataFrame:
    """The matched trials with `match`: the kind for the selected ones, "trial" for all others; and with the
    counts of its group beside each (trials: those with an outcome; trials_diverged, trials_failed).
    """

    def column(name: str, fill: float) -> pd.Series:
        there = name in runs
        values = pd.to_numeric(runs[name], errors="coerce") if there else pd.Series(np.nan, index=runs.index)
        return values.astype(float).fillna(fill)

    status = runs["status"].astype(object)
    keys = pd.DataFrame(
        {
            "lost": status.map({"finished": 0, "diverged": 1}).fillna(2),
            "val": column("metrics.val_error", np.inf).round(DIGITS),
            "layers": -column("config.model.layers", 0),
            "lr": column("config.optimizer.lr", 0),
            "dropout": -column("config.model.dropout", 0),
            **{name: column(f"config.model.{name}", 0) for name in ("C", "gamma", "max_features")},
            "run_id": runs["run_id"].astype(object),
        },
        index=runs.index,
    )
    group = runs.groupby(GROUP, sort=False, observed=True).ngroup()
    order = keys.assign(group=group).sort_values(["group", *keys.columns], kind="stable")
    first = order.drop_duplicates("group")
    chosen = first.index[first["lost"] < 2]
    out = runs.assign(match="trial")
    out.loc[chosen, "match"] = out.loc[chosen, "kind"]
    for name, mask in (
        ("trials", status != "failed"),
        ("trials_diverged", status == "diverged"),
        ("trials_failed", status == "failed"),
    ):
        out[name] = mask.groupby(group).transform("sum").astype(int)
    places = {kind: i for i, kind in enumerate((*KINDS, "trial"))}
    out["order"] = out["match"].map(places)
    return out.sort_values(["order", *GROUP, "run_id"], kind="stable").drop(columns="order")


def over_parts(chosen: pd.DataFrame, lost: dict[str, float]) -> pd.DataFrame:
    """The selected runs with several parts of the data in one column made one row a seed: metrics averaged, a
    diverged run at the values of `lost`. Seeds that lack a part of the column are left out.
    """
    parts = chosen.groupby("column", observed=True)["part"].nunique()
    several = chosen["column"].isin(list(parts.index[parts > 1]))
    if not several.any():
        return chosen
    mine = chosen[several].copy()
    diverged = mine["status"].astype(object) == "diverged"
    for name, value in lost.items():
        if f"metrics.{name}" in mine:
            mine.loc[diverged, f"metrics.{name}"] = value
    by = [name for name in GROUP if name != "part"]
    grouped = mine.groupby(by, sort=False, observed=True)
    whole = grouped["part"].transform("nunique") == mine["column"].map(parts)
    mine, metrics = mine[whole], [str(c) for c in mine if str(c).startswith("metrics.")]
    grouped = mine.groupby(by, sort=False, observed=True)
    for name in metrics:
        mine[name] = grouped[name].transform("mean")
    for name in COUNTS:
        mine[name] = grouped[name].transform("sum")
    mine["status"] = "finished"  # a part that diverged is in the mean
    mine["data.n_test"] = math.nan
    return pd.concat([chosen[~several], mine.drop_duplicates(by)])


def remark(trials: float, planned: float, diverged: float) -> str:
    """12 of 18 trials, 3 diverged: what a selected run was selected from."""
    text = f"{int(trials)} trial" if trials >= planned else f"{int(trials)} of {int(planned)} trial"
    text += "" if text.startswith("1 t") or text.endswith("of 1 trial") else "s"
    return text + (f" ({int(diverged)} diverged)" if diverged else "")
