"""Where the configs that ran differ from the paper profile's: computed from stored configs, never typed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import orjson
import pandas as pd

from reports import selection
from reports.matching import plain
from reports.published import Published
from reports.store import flat_config

DEVIATIONS = ["column", "key", "paper", "ran", "rows"]


def deviations(
    runs: pd.DataFrame, grid: dict[str, Any], paper: dict[str, Any], published: Published
) -> pd.DataFrame:
    """Where the configs that ran differ from the paper profile's, key by key, alike ones together. A column
    that the paper profile has nothing like is held against the one that it stands for.
    """
    stood = {
        (point["row"], ours): point["config"]
        for point in grid.get("profiles", {}).get("paper", {}).get("points", [])
        for ours, theirs in published.stands_for.items()
        if point["column"] == theirs
    }
    filled = runs[runs["match"] == "cell"]
    ran_rows: dict[str, set[str]] = {}
    found: dict[tuple[str, str, str], dict[str, set[str]]] = {}
    distinct = filled.drop_duplicates(["row", "column", "config", "paper", "data.name"])
    for run in distinct[["row", "column", "config", "paper", "data.name"]].itertuples(index=False, name=None):
        row, column, text, key, data = run
        ran_rows.setdefault(column, set()).add(row)
        told = paper.get(key) or stood.get((row, column))
        if told is None:  # a run has no key of a paper config where the paper profile has nothing like it
            why = "not stored" if isinstance(key, str) and key else "no such cell"
            found.setdefault(("config", why, "-"), {}).setdefault(column, set()).add(row)
            continue
        own = {k: orjson.loads(v) for k, v in flat_config(orjson.loads(text)).items()}
        theirs = {k: orjson.loads(v) for k, v in flat_config(told).items() if k != "config.seed"}
        own["config.data.name"] = data  # what was found under that name: cifar10 may be cifar10_jpeg
        for name in sorted(own.keys() | theirs.keys()):
            if own.get(name) != theirs.get(name):
                change = (name.removeprefix("config."), plain(theirs.get(name)), plain(own.get(name)))
                found.setdefault(change, {}).setdefault(column, set()).add(row)
    order = [*published.data_columns, *sorted(ran_rows.keys() - {*published.data_columns})]
    places = ["all", *order]  # a grid may have columns that nobody has printed
    listed = []
    for (name, told, ran), where in found.items():
        whole = [column for column in where if where[column] == ran_rows[column]]
        if whole:
            names = ordered(whole, order)
            named = "all" if len(whole) == len(ran_rows) > 1 else ", ".join(names)
            listed.append((named, name, told, ran, "all"))
        for column in where.keys() - set(whole):
            rows = ordered(where[column], [row.id for row in published.rows])
            listed.append((column, name, told, ran, ", ".join(rows)))
    listed.sort(key=lambda d: (d[1], [places.index(c) for c in d[0].split(", ")], d[2], d[3]))
    return pd.DataFrame(listed, columns=DEVIATIONS)


def of_search(
    runs: pd.DataFrame, grid: dict[str, Any], paper: dict[str, Any], published: Published
) -> pd.DataFrame:
    """The same of trials: key by key, the values of a row's trials against those of the paper's search.

    The paper's are those of the grid's paper profile or, where that is not noted, of the paper configs that
    the records name (an axis of the search is a list there). Columns are alike and not told apart; of the
    axis that names them, listed is what the paper does not have.
    """
    theirs = allowed(grid.get("profiles", {}).get("paper", {}).get("points", []))
    filled = runs[runs["kind"] == "cell"]
    named = filled.drop_duplicates(["row", "paper"])[["row", "paper"]].astype(object)
    for row, key in named.itertuples(index=False, name=None):
        if row not in theirs or key in paper:
            told = [{"row": row, "config": paper[key]}] if key in paper else []
            for name, values in allowed(told).get(row, {}).items():
                theirs.setdefault(row, {}).setdefault(name, set()).update(values)
    keys = [str(c) for c in filled if str(c).startswith("config.") and str(c) != "config.seed"]
    passed, columns = {f"config.{name}" for name in selection.PARTS}, f"config.{published.trials}"
    found: dict[tuple[str, str, str], set[str]] = {}
    for row, mine in filled.groupby("row", sort=False, observed=True):
        paper_row = theirs.get(str(row))
        if paper_row is None:
            found.setdefault(("config", "not stored", "-"), set()).add(str(row))
            continue
        unnamed = {f"config.{axis}" for axis in grid.get("trials", [])} - paper_row.keys()  # free in patterns
        for name in sorted({*keys, *paper_row} - passed - unnamed):
            wanted = paper_row.get(name, {"null"})
            ran = {selection.spelling(v) for v in unique(mine[name])} if name in mine else {"null"}
            if ran - wanted or (name != columns and len(wanted) > 1 and wanted - ran):
                change = (name.removeprefix("config."), listing(wanted), listing(ran))
                found.setdefault(change, set()).add(str(row))
    every, order = set(filled["row"]), [row.id for row in published.rows]
    listed: list[tuple[str, ...]] = [
        ("all", *change, "all" if rows == every and len(every) > 1 else ", ".join(ordered(rows, order)))
        for change, rows in found.items()
    ]
    listed.sort(key=lambda line: line[1:])
    return pd.DataFrame(listed, columns=DEVIATIONS)


def unique(column: pd.Series) -> list[Any]:
    """The values of a config column, None for what is missing."""
    return [None if isinstance(v, float) and math.isnan(v) else v for v in column.astype(object).unique()]


def allowed(points: list[dict[str, Any]]) -> dict[str, dict[str, set[str]]]:
    """Row -> key -> the values, as JSON, that these points of a grid have; a list stands for an axis."""
    found: dict[str, dict[str, set[str]]] = {}
    for point in points:
        texts = {key: orjson.loads(text) for key, text in flat_config(point["config"]).items()}
        values = {key: value if isinstance(value, list) else [value] for key, value in texts.items()}
        values |= {f"config.{axis}": listed for axis, listed in point.get("axes", {}).items()}
        mine = found.setdefault(str(point["row"]), {})
        for key, listed in values.items():
            mine.setdefault(key, set()).update(selection.spelling(value) for value in listed)
    return found


def listing(texts: set[str]) -> str:
    """The values of an axis in order, as a person writes them."""
    values = [orjson.loads(text) for text in sorted(texts)]
    numbers = sorted(v for v in values if isinstance(v, float))
    return ", ".join(plain(v) for v in [*numbers, *(v for v in values if not isinstance(v, float))])


def ordered(names: Iterable[str], order: list[str]) -> list[str]:
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))
