"""Records on disk -> one tidy DataFrame. First body: reads everything each time; the cache follows, the signatures stay.

Columns are the record's own dotted paths: run_id, table, profile, role, status, cell.row, cell.column, config.alpha,
config.optimizer.lr, metrics.test_error, data.name, time.wall_s, code ... plus
    seed    config.seed as an integer
    config  the canonical JSON of the config without its seed (equal texts = the same point)
    origin  "measured" (committed snapshot) | "here"
Curves and `wrong` masks stay on disk until `heavy` asks for them. `resolve(frame, "alpha")` finds a column by its short name.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

SCHEMA = 1


@dataclass
class Store:
    frame: pd.DataFrame
    grid: dict[str, dict[str, Any]] = field(default_factory=dict)  # table -> grid.json
    paper: dict[str, dict[str, Any]] = field(default_factory=dict)  # table -> key -> paper-profile config
    damaged: dict[str, int] = field(default_factory=dict)  # table -> records that could not be read


class NewerSchema(ValueError):
    """A record or grid written by a newer version of the suite."""


def load(runs: Path | str, measured: Path | str | None = None, cache: Path | str | None = None) -> Store:
    """Everything under `runs` (runs/T3/...) and `measured` (reports/measured/T3/...), merged by run id, latest finished wins."""
    rows: list[dict[str, Any]] = []
    store = Store(pd.DataFrame())
    for folder in sorted(Path(runs).glob("T*")):
        table = folder.name
        if (folder / "grid.json").exists():
            store.grid[table] = orjson.loads((folder / "grid.json").read_bytes())
        store.paper[table] = {
            p.stem: orjson.loads(p.read_bytes())["config"] for p in sorted((folder / "paper").glob("*.json"))
        }
        files = [*folder.glob("*/record.json"), *folder.glob("shards/*/records.jsonl")]
        for file in sorted(files):
            offset = 0
            lines = [file.read_bytes()] if file.name == "record.json" else file.read_bytes().splitlines(keepends=True)
            for line in lines:
                try:
                    record = orjson.loads(line)
                    rows.append({**flat(record), "file": str(file), "offset": offset, "origin": "here"})
                except orjson.JSONDecodeError:
                    store.damaged[table] = store.damaged.get(table, 0) + 1
                offset += len(line)
    store.frame = pd.DataFrame(rows)
    if len(rows):
        store.frame = store.frame.sort_values("time.finished").drop_duplicates("run_id", keep="last")
    return store


def flat(record: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
        elif isinstance(value, list):
            row[prefix] = json.dumps(value)
        else:
            row[prefix] = value

    walk("", {k: v for k, v in record.items() if k not in ("curves", "wrong")})
    row["seed"] = record["config"].get("seed", 0)
    row["config"] = canonical({k: v for k, v in record["config"].items() if k != "seed"})
    return row


def numbers(value: Any) -> Any:
    """The same value with every number a float, so that 1 and 1.0 are equal texts."""
    if isinstance(value, dict):
        return {key: numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [numbers(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def canonical(config: dict[str, Any]) -> str:
    return orjson.dumps(numbers(config), option=orjson.OPT_SORT_KEYS).decode()


def seal(record: dict[str, Any]) -> str:
    """The record as one canonical JSON line with its `sha256`, as writers leave it."""
    body = {key: value for key, value in record.items() if key != "sha256"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    body["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    return json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def heavy(frame: pd.DataFrame, name: str = "curves") -> list[Any]:
    """The `curves` (dict of lists) or `wrong` (base64 text) of each row of the frame, read from disk now; None where missing."""
    found: list[Any] = []
    for file, offset, run_id in zip(frame["file"], frame["offset"], frame["run_id"], strict=True):
        with open(file, "rb") as stream:
            stream.seek(offset)
            record = orjson.loads(stream.read() if file.endswith("record.json") else stream.readline())
        found.append(record.get(name) if record["run_id"] == run_id else None)
    return found


def resolve(frame: pd.DataFrame, name: str) -> str:
    """The frame's column that `name` means: itself, config.<name>, metrics.<name>, or the only one ending in .<name>.

    Raises ValueError with one line for an unknown or ambiguous name.
    """
    for candidate in (name, f"config.{name}", f"metrics.{name}"):
        if candidate in frame.columns:
            return candidate
    ending = [str(c) for c in frame.columns if str(c).endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ValueError(f"{name!r} is ambiguous: {', '.join(sorted(ending))}")
    raise ValueError(f"no record has {name!r}; try one of: {', '.join(sorted(str(c) for c in frame.columns))}")
