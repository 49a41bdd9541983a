"""The committed snapshot of a table: measured/<table>/{records.parquet, grid.json, paper.json}, below 1 MB.

`records.parquet` has one column, `record`: each run's record as sealed JSON, its curves thinned and
rounded. What is kept: runs that fill a cell or a labelled row of some profile. Masks of wrong test examples
are dropped, the largest data set first, when the file would be too large. Of what has no value an epoch
(figures by layer, pictures) all of the short ones stay, the long ones of one seed only.

A table whose records are trials of a search may have 3 MB: of a trial that was not selected only what the
selection needs is kept, of a selected one the curves by layer, not those by epoch. Such a remainder has no
hash of its own, which would be most of it: one hash in the file's metadata covers them all.
"""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reports import published, selection, store
from reports.matching import matched
from reports.published import Published

LIMIT = 1_000_000  # bytes, all three files together
LIMIT_TRIALS = 3_000_000  # the same for a table of trials
BY_LAYER = ("act_mean_", "act_var_", "grad_norm_")  # curves with one value a layer
SCORES = ("val_error", "test_error", "test_auc")
STUB = ("schema", "run_id", "table", "profile", "role", "status", "cell", "config", "paper", "data", "code")
POINTS = 40  # of a curve
WHOLE = 64  # values of what is no curve over the epochs, kept of every run
DIGITS = 4  # significant, of a curve's values


def snapshot(runs: Path | str, measured: Path | str, table: str, limit: int | None = None) -> str:
    """Write the snapshot from the runs and the snapshot so far; returns a line saying what it holds.

    Raises ValueError where there is nothing to keep or it cannot be made small enough.
    """
    loaded = store.load(runs, measured)
    grid, paper = loaded.grid.get(table, {}), loaded.paper.get(table, {})
    pub, mine = published.load(table), loaded.frame[loaded.frame["table"] == table]
    limit = limit or (LIMIT_TRIALS if pub.trials else LIMIT)
    kept = trials(mine, grid, pub) if pub.trials else chosen(mine, grid)
    if not len(kept):
        raise ValueError(f"no record of {table} in {runs} fills a cell: sweep the table first")
    texts = {"grid.json": orjson.dumps(grid), "paper.json": orjson.dumps(used(paper, kept))}
    found = store.records(kept)
    if pub.trials:
        selected = kept["selected"]
        records = [with_layers(r) if own else stub(r) for r, own in zip(found, selected, strict=True)]
    else:
        # where steps to a target or figures at an epoch are read off the curves, every point of them counts
        whole = pub.targets or any(row.epoch_of for row in pub.rows)
        shown = first_seeds(found)
        records = found if whole else [thinned(r, long=r["run_id"] in shown) for r in found]
    room = limit - sum(len(text) for text in texts.values())
    blob, dropped = fitting(records, room)
    folder = Path(measured) / table
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {"records.parquet": blob, **texts}.items():
        partial = folder / f"{name}.{os.getpid()}.part"
        partial.write_bytes(content)
        partial.replace(folder / name)
    size = len(blob) + sum(len(text) for text in texts.values())
    lost = f", without the masks of {', '.join(dropped)}" if dropped else ""
    return f"{folder}: {len(records)} records, {size / 1e3:.0f} kB{lost}"


def chosen(frame: pd.DataFrame, grid: dict[str, Any]) -> pd.DataFrame:
    """The rows that some profile's table shows."""
    parts = [matched(frame, grid, profile) for profile in grid.get("profiles", {})]
    shown = {run_id for part in parts for run_id in part["run_id"]}
    return frame[frame["run_id"].isin(list(shown))].sort_values("run_id")


def trials(frame: pd.DataFrame, grid: dict[str, Any], pub: Published) -> pd.DataFrame:
    """The trials that some profile's table rests on, those that fill a cell or labelled row as `selected`."""
    parts = [
        selection.select(selection.matched(frame, grid, profile, pub)) for profile in grid.get("profiles", {})
    ]
    known = {run_id for part in parts for run_id in part["run_id"]}
    filling = {run_id for part in parts for run_id in part["run_id"][part["match"] != "trial"]}
    kept = frame[frame["run_id"].isin(list(known))]
    kept = kept.assign(selected=kept["run_id"].isin(list(filling)))
    # alike records side by side compress best
    return kept.sort_values(["selected", "profile", "cell.row", "cell.column", "run_id"], kind="stable")


def stub(record: dict[str, Any]) -> dict[str, Any]:
    """What the selection needs of a trial that was not selected."""
    kept = {key: record[key] for key in STUB if key in record}
    metrics = {k: v for k, v in (record.get("metrics") or {}).items() if k in SCORES and v is not None}
    if "val_error" in metrics:
        metrics["val_error"] = round(metrics["val_error"], selection.DIGITS)
    for name in metrics.keys() - {"val_error"}:  # where a better trial is replaced some day, this one counts
        metrics[name] = rounded(metrics[name])
    seconds = (record.get("time") or {}).get("wall_s")
    time = {} if seconds is None else {"wall_s": rounded(seconds)}
    return {**kept, "metrics": metrics, "time": time, "sha256": None}


def with_layers(record: dict[str, Any]) -> dict[str, Any]:
    """A selected trial: its curves by layer only, without the mask of wrong test examples."""
    curves = {
        name: [rounded(value) for value in values]
        for name, values in (record.get("curves") or {}).items()
        if name.startswith(BY_LAYER)
    }
    return {**without_mask(record), "curves": curves}


def used(paper: dict[str, Any], kept: pd.DataFrame) -> dict[str, Any]:
    keys = set(kept["paper"].astype(object))
    return {key: config for key, config in paper.items() if key in keys}


def first_seeds(records: list[dict[str, Any]]) -> set[str]:
    """Run ids of the smallest seed of each config that has anything long beside its curves."""
    first: dict[str, tuple[int, str]] = {}
    for record in records:
        curves = record.get("curves") or {}
        length = length_of(curves)
        if any(len(values) > WHOLE and len(values) != length for values in curves.values()):
            config = {key: value for key, value in record["config"].items() if key != "seed"}
            mine = (record["config"].get("seed", 0), record["run_id"])
            key = store.canonical(config)
            first[key] = min(first.get(key, mine), mine)
    return {run_id for _, run_id in first.values()}


def length_of(curves: dict[str, Any]) -> int:
    """Of the curves over the epochs."""
    lengths = [len(values) for values in curves.values()]
    return len(curves["epoch"]) if "epoch" in curves else max(lengths, default=0)


def thinned(record: dict[str, Any], long: bool = True) -> dict[str, Any]:
    """At most POINTS points a curve, the first and the last among them, values rounded. What has another
    length than `epoch` is no curve over the epochs and stays whole, or goes where it is long and not wanted.
    """
    curves = record.get("curves") or {}
    length = length_of(curves)
    if length > POINTS:
        picked = [round(i * (length - 1) / (POINTS - 1)) for i in range(POINTS)]
    else:
        picked = list(range(length))
    short: dict[str, list[Any]] = {}
    for name, values in curves.items():
        if len(values) == length:
            short[name] = [rounded(values[i]) for i in picked]
        else:
            short[name] = [rounded(v) for v in values] if long or len(values) <= WHOLE else []
    return {**record, "curves": short}


def rounded(value: Any) -> Any:
    if not isinstance(value, float) or value == 0 or not math.isfinite(value):
        return value
    return round(value, DIGITS - 1 - math.floor(math.log10(abs(value))))


def fitting(records: list[dict[str, Any]], room: int) -> tuple[bytes, list[str]]:
    """The Parquet bytes within the room, and the data sets whose masks had to go."""
    weight: dict[str, int] = {}
    for record in records:
        name = record["data"]["name"]
        weight[name] = weight.get(name, 0) + len(record.get("wrong") or "")
    largest_first = sorted((name for name in weight if weight[name]), key=lambda name: -weight[name])
    for count in range(len(largest_first) + 1):
        dropped = largest_first[:count]
        blob = encoded([without_mask(r) if r["data"]["name"] in dropped else r for r in records])
        if len(blob) <= room:
            return blob, dropped
    raise ValueError(f"{len(records)} records need {len(blob)} bytes without masks, there is room for {room}")


def without_mask(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "wrong"}


def encoded(records: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    texts = [store.canonical_json(r) if r.get("sha256", "") is None else store.seal(r) for r in records]
    column = pa.table({"record": pa.array(texts, pa.string())})
    if any(record.get("sha256", "") is None for record in records):
        column = column.replace_schema_metadata({"sha256": store.digest(texts)})
    pq.write_table(column, buffer, compression="zstd", compression_level=19, use_dictionary=False)
    return buffer.getvalue()
