"""Which cell or labelled row a record fills, by its config alone.

A record fills a cell when its config without the seed is a point of the profile's grid. With the primary
variant put back it may be a point too: another *variant*, a labelled row. With the table's own normaliser
put back as well: a *norm* row, not in the survey. All else is for the sweep pages.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import orjson
import pandas as pd

from reports.store import canonical, flat_config


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
    named = "config.norm.name" in kept  # not in an empty frame
    norms = kept["config.norm.name"].astype(object) if named else [None] * len(kept)
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
        if len(rows) > 1:  # a row with the table's own normaliser, and the same without any
            rows = {p["row"] for p in points if p["config"].get("norm", {}).get("name") == self.norm} or rows
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
    return value if isinstance(value, str) else re.sub(r"(\d)\.0\b", r"\1", orjson.dumps(value).decode())


def one_content(runs: pd.DataFrame, by: tuple[str, ...] = ("column",)) -> tuple[pd.DataFrame, list[str]]:
    """Runs on one data content a column: where a column has two (a data set that changed), the one with
    more runs.
    """
    notes, drop = [], []
    for (column, *_), group in runs.groupby(list(by), observed=True):
        counts = group["data.fingerprint"].astype(object).value_counts()
        if len(counts) > 1:
            others = group.index[group["data.fingerprint"] != counts.index[0]]
            drop += list(others)
            notes.append(
                f"{column}: {len(others)} runs on another content of the data"
                f" (fingerprint not {counts.index[0]}) are left out of the cells"
            )
    return runs.drop(index=drop), notes
