"""Records on disk -> one tidy DataFrame, one row a run.

Columns are the record's own dotted paths (run_id, table, profile, role, status, cell.row, cell.column,
config.alpha, config.optimizer.lr, metrics.test_error, data.name, time.wall_s, code, ...) and four more:

    config  the canonical JSON of the config without its seed: equal texts are the same point of a grid
    seed    config.seed
    origin  "measured" (the committed snapshot) | "here"
    file, offset   where the record stands, for `heavy`, which reads curves and masks when they are needed

`resolve(frame, "alpha")` finds a column by its short name. With a cache folder, parsed records are kept in
one Parquet file a table, keyed by each file's path, size and time of change: only new or changed files are
parsed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Container, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

SCHEMA = 1
PARSER = "1"  # of the cache: change it when the columns below change
BATCH = 5000  # records turned into Arrow at a time, so that memory stays small
VARYING = ("metrics", "time")  # parts that differ from run to run; others are flattened once each
REPEATING = "\x1f"  # marks the JSON text of such a part
UNSEALED = '"sha256":null'  # in a record that only its snapshot's own hash covers
NUMERIC = {
    "schema", "epochs", "steps", "parameters", "data.n_train", "data.n_val", "data.n_test",
    "time.wall_s", "time.cpu_s", "time.examples_per_s", "time.peak_memory_bytes", "time.resumed",
    "population.members", "host.cores", "host.threads", "host.memory_bytes",
}  # fmt: skip
TEXT = pa.dictionary(pa.int32(), pa.string())
TYPES = {"run_id": pa.string(), "time.started": pa.string(), "time.finished": pa.string(),
         "seed": pa.int64(), "offset": pa.int64()}  # fmt: skip
ALWAYS = [  # columns that exist even where no record does
    "run_id", "table", "profile", "role", "status", "cell.row", "cell.column", "seed", "code", "config",
    "data.name", "data.fingerprint", "data.n_test", "time.finished", "paper", "origin", "file", "offset",
]  # fmt: skip


@dataclass
class Store:
    frame: pd.DataFrame
    grid: dict[str, dict[str, Any]] = field(default_factory=dict)  # table -> grid.json
    paper: dict[str, dict[str, Any]] = field(default_factory=dict)  # table -> key -> paper-profile config
    damaged: dict[str, int] = field(default_factory=dict)  # table -> records that could not be read
    unread: dict[str, list[str]] = field(default_factory=dict)  # table -> the files that they stand in


class NewerSchema(ValueError):
    """A record or grid written by a newer version of the suite."""


class Damaged(ValueError):
    """A record that is truncated, not JSON, not a record, or does not match its own hash."""


# ------------------------------------------------------------------------------------ the store


def load(
    runs: Path | str,
    measured: Path | str | None = None,
    cache: Path | str | None = None,
    table: str | None = None,
) -> Store:
    """All records under `runs` (runs/T3/...) and `measured` (measured/T3/records.parquet), merged by run id;
    of one `table` alone, if it is given.

    Of records with one run id the one that finished last counts. Raises NewerSchema for a record or a grid
    of a newer schema. Missing folders are empty ones.
    """
    runs, measured = Path(runs), Path(measured) if measured else None
    store, tables = Store(pd.DataFrame(columns=ALWAYS)), []
    names = {p.name for folder in (runs, measured) if folder for p in folder.glob("T*") if p.is_dir()}
    for name in sorted(names & {table} if table else names, key=lambda text: (len(text), text)):
        grid, paper = _grid(name, runs, measured), _paper(name, runs, measured)
        defaults = grid.get("defaults", {})
        for plan in grid.get("profiles", {}).values():
            for point in plan.get("points", []):
                point["config"] = filled(point["config"], defaults, leave=point.get("axes", {}))
        store.grid[name] = grid
        store.paper[name] = {key: filled(config, defaults) for key, config in paper.items()}
        found, bad = _records(runs / name, Path(cache) if cache else None)
        tables.append(_with(_filled(found, defaults), "origin", "here"))
        if measured and (file := measured / name / "records.parquet").exists():
            found, more = _parse(_snapshot_lines(file))
            tables.append(_with(_filled(found, defaults), "origin", "measured"))
            bad |= more
        store.damaged[name] = sum(bad.values())
        store.unread[name] = [str(Path(*Path(path).parts[-3:])) for path, n in sorted(bad.items()) if n]
    if tables:
        store.frame = _frame(pa.concat_tables(tables, promote_options="permissive").unify_dictionaries())
        store.frame = store.frame.copy()  # in one piece: columns put in one by one are slow to extend
    return store


def _grid(name: str, runs: Path, measured: Path | None) -> dict[str, Any]:
    """The grid of the newest sweep here; profiles that were not swept here come from the snapshot's grid."""
    grids = [_json(folder / name / "grid.json") for folder in (measured, runs) if folder]
    merged: dict[str, Any] = {}
    for grid in filter(None, grids):
        profiles = {**merged.get("profiles", {}), **grid.get("profiles", {})}
        merged = {**merged, **grid, "profiles": profiles}
    return merged


def _paper(name: str, runs: Path, measured: Path | None) -> dict[str, Any]:
    kept = _json(measured / name / "paper.json") if measured else {}
    files = sorted((runs / name / "paper").glob("*.json"))
    here = {file.stem: _json(file).get("config", {}) for file in files}
    return {**kept, **here}


def filled(
    config: dict[str, Any], defaults: dict[str, Any], path: str = "", leave: Container[str] = ()
) -> dict[str, Any]:
    """The config with every key that the code declares a default for: a record or grid from before a key came
    means its default. `leave`: dotted keys that are not the config's to say, but an axis'.
    """
    whole = dict(config)
    for key, value in defaults.items():
        if isinstance(value, dict) and value:
            if isinstance(config.get(key), dict):
                whole[key] = filled(config[key], value, f"{path}{key}.", leave)
        elif f"{path}{key}" not in leave:
            whole.setdefault(key, value)
    return whole


def _filled(table: pa.Table, defaults: dict[str, Any]) -> pa.Table:
    """The same for the configs of records, and the columns that come of them."""
    if not defaults or not len(table):
        return table
    column = table["config"].combine_chunks()
    texts = column.dictionary.to_pylist()
    whole = [canonical(filled(orjson.loads(text), defaults)) for text in texts]
    if whole == texts:
        return table
    configs = pa.array(whole, pa.string()).take(column.indices).dictionary_encode()
    table = table.drop_columns([n for n in table.column_names if n == "config" or n.startswith("config.")])
    for name, values in {"config": configs, **_expanded("config", configs)}.items():
        table = table.append_column(name, values)
    return table


def _json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        found = orjson.loads(file.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ValueError(f"{file} is not valid JSON ({error}); sweep again or delete it") from error
    _check_schema(found, file)
    return dict(found)


def _check_schema(found: Any, where: Path | str) -> None:
    schema = found.get("schema", SCHEMA) if isinstance(found, dict) else SCHEMA
    if isinstance(schema, int) and schema > SCHEMA:
        raise NewerSchema(f"{where} has schema {schema}, this version reads up to {SCHEMA}: update the suite")


# ------------------------------------------------------------------------------------ files, cache, parsing


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    """<run_id>/record.json and shards/<population>/records.jsonl; superseded records are left out."""
    for parent, name in ((folder, "record.json"), (folder / "shards", "records.jsonl")):
        for entry in os.scandir(parent) if parent.is_dir() else ():
            if entry.is_dir() and entry.name not in ("superseded", "shards", "paper"):
                yield from (file for file in os.scandir(entry) if file.name == name)


def _records(folder: Path, cache: Path | None) -> tuple[pa.Table, dict[str, int]]:
    """The records of a table, and how many of which file cannot be read."""
    stats = {str(Path(file.path).absolute()): file.stat() for file in _files(folder)}
    state = {path: [stat.st_size, stat.st_mtime_ns] for path, stat in sorted(stats.items())}
    key = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:8]
    kept_file = cache / f"records_{folder.name}_{key}.parquet" if cache else None
    kept, known = _cached(kept_file)
    same = {path for path, now in state.items() if known.get(path, [])[:2] == now}
    changed = (path for path in state if path not in same)
    fresh, damaged = _parse((path, line, at) for path in changed for line, at in _lines(path))
    if len(same) == len(state) == len(known) and kept is not None:
        return kept, {path: entry[2] for path, entry in known.items()}
    if kept is not None:
        unchanged = kept.filter(pc.is_in(kept["file"], pa.array(sorted(same), pa.string())))
        fresh = pa.concat_tables([unchanged, fresh], promote_options="permissive")
    counts = {p: [*now, known[p][2] if p in same else damaged.get(p, 0)] for p, now in state.items()}
    if kept_file:
        _keep(kept_file, fresh, counts)
    return fresh, {path: entry[2] for path, entry in counts.items()}


def _cached(file: Path | None) -> tuple[pa.Table | None, dict[str, list[int]]]:
    """The cached table and {path: [size, mtime, damaged]}; nothing where it is missing or unreadable."""
    if file is None or not file.exists():
        return None, {}
    try:
        schema = pq.read_schema(file)
        meta = schema.metadata or {}
        if meta.get(b"parser") != PARSER.encode():
            return None, {}
        return pq.read_table(file), orjson.loads(meta[b"files"])
    except (OSError, pa.ArrowException, KeyError, orjson.JSONDecodeError):
        return None, {}


def _keep(file: Path, table: pa.Table, files: dict[str, list[int]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}.part")
    meta = {b"parser": PARSER.encode(), b"files": orjson.dumps(files)}
    pq.write_table(table.replace_schema_metadata(meta), partial, compression="zstd")
    partial.replace(file)


def _lines(path: str) -> Iterator[tuple[bytes, int]]:
    """The records of a file as (text, offset); of one that may not be read a single one, damaged."""
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 - closed below
    except PermissionError:
        yield b"", 0
        return
    with stream:
        if path.endswith("record.json"):
            yield stream.read(), 0
            return
        offset = 0
        for line in stream:
            if line.strip():
                yield line, offset
            offset += len(line)


def _snapshot_lines(file: Path) -> Iterator[tuple[str, bytes, int]]:
    """The records of a snapshot. Where one hash covers the file, those without their own are sealed now."""
    table = pq.read_table(file, columns=["record"])
    texts: list[str] = table["record"].to_pylist()
    whole = (table.schema.metadata or {}).get(b"sha256", b"").decode()
    sound = bool(whole) and whole == digest(texts)
    for i, text in enumerate(texts):
        if sound and UNSEALED in text:
            text = seal(orjson.loads(text))
        yield str(file), text.encode(), i


def digest(texts: list[str]) -> str:
    """One hash over all these texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _parse(lines: Iterator[tuple[str, bytes, int]]) -> tuple[pa.Table, dict[str, int]]:
    """Records as an Arrow table and the damaged ones counted by file."""
    tables: list[pa.Table] = []
    rows: list[dict[str, Any]] = []
    damaged: dict[str, int] = {}
    configs: dict[bytes, str] = {}
    for path, line, offset in lines:
        try:
            row = tidy(checked(line, path), configs)
        except Damaged:
            damaged[path] = damaged.get(path, 0) + 1
            continue
        row["file"], row["offset"] = path, offset
        rows.append(row)
        if len(rows) == BATCH:
            tables.append(_arrow(rows))
            rows = []
    tables.append(_arrow(rows))
    return pa.concat_tables(tables, promote_options="permissive").unify_dictionaries(), damaged


def checked(line: bytes, where: str) -> dict[str, Any]:
    """The record of one line. Raises Damaged where it cannot be trusted, NewerSchema where it is too new."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Damaged(f"{where}: not JSON") from error
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict) or not record.get("run_id"):
        raise Damaged(f"{where}: not a record")
    _check_schema(record, where)
    if not _matches(line, str(record.get("sha256"))):
        raise Damaged(f"{where}: does not match its sha256")
    return record


def _matches(line: bytes, sha256: str) -> bool:
    """Whether the hash is that of the canonical JSON of everything else.

    A line that is itself canonical only has to lose its hash, which spares writing the JSON again.
    """
    head, found, tail = line.strip().partition(f',"sha256":"{sha256}"'.encode())
    if found:
        digest = hashlib.sha256(head)
        digest.update(tail)
        if digest.hexdigest() == sha256:
            return True
    record = json.loads(line)
    record.pop("sha256", None)
    return hashlib.sha256(canonical_json(record).encode()).hexdigest() == sha256


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def seal(record: dict[str, Any]) -> str:
    """The record as one canonical JSON line with its `sha256`, as the runner writes it."""
    body = {key: value for key, value in record.items() if key != "sha256"}
    return canonical_json({**body, "sha256": hashlib.sha256(canonical_json(body).encode()).hexdigest()})


# ------------------------------------------------------------------------------------ records to columns


def tidy(record: dict[str, Any], configs: dict[bytes, str]) -> dict[str, Any]:
    """One row of a record: parts that repeat from record to record (config, data, host, ...) stay one JSON
    text.

    `configs` remembers the canonical texts of configs.
    """
    config = record["config"]
    seed = config.pop("seed", 0)
    text = orjson.dumps(config, option=orjson.OPT_SORT_KEYS)
    if text not in configs:
        configs[text] = canonical(config)
    row: dict[str, Any] = {"config": configs[text], "seed": seed if isinstance(seed, int) else 0}
    for key in record.keys() - {"config", "curves", "wrong", "sha256"}:
        value = record[key]
        if type(value) is not dict:
            row[key] = value
        elif key in VARYING:
            for name, inner in value.items():
                row[f"{key}.{name}"] = inner
        else:
            row[key] = REPEATING + orjson.dumps(value).decode()
    return row


def _flatten(row: dict[str, Any], path: str, found: dict[str, Any]) -> None:
    for key, value in found.items():
        if type(value) is dict:
            _flatten(row, f"{path}.{key}", value)
        else:
            row[f"{path}.{key}"] = value


def numbers(value: Any) -> Any:
    """The same value with every number a float, so that 1 and 1.0 give equal texts."""
    if isinstance(value, dict):
        return {key: numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [numbers(inner) for inner in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def canonical(config: dict[str, Any]) -> str:
    """Equal texts for equal configs; the seed is the caller's to leave out."""
    return orjson.dumps(numbers(config), option=orjson.OPT_SORT_KEYS).decode()


def flat_config(config: dict[str, Any]) -> dict[str, str]:
    """{"config.optimizer.lr": "0.01", ...}: values as JSON, since one column may hold 0.5 and "inv_m"."""
    row: dict[str, Any] = {}
    _flatten(row, "config", config)
    return {key: orjson.dumps(numbers(value)).decode() for key, value in row.items()}


def _type(name: str) -> pa.DataType:
    return TYPES.get(name) or (pa.float64() if name.startswith("metrics.") or name in NUMERIC else TEXT)


def _arrow(rows: list[dict[str, Any]]) -> pa.Table:
    if not rows:
        return pa.table({name: pa.array([], _type(name)) for name in ("run_id", "file", "offset")})
    columns = {}
    for name in sorted(set(chain.from_iterable(rows))):
        column = _array([row.get(name) for row in rows], _type(name))
        if name == "config":
            columns[name] = column
        columns |= _expanded(name, column) or {name: column}
    return pa.table(columns)


def _expanded(name: str, column: pa.Array) -> dict[str, pa.Array]:
    """The columns inside a column of JSON texts, each distinct text flattened once; {} for any other
    column.
    """
    if column.type != TEXT:
        return {}
    texts = column.dictionary.to_pylist()
    if name == "config":
        distinct = [flat_config(orjson.loads(text)) for text in texts]
    elif all(text.startswith(REPEATING) for text in texts):
        distinct = [{} for _ in texts]
        for row, text in zip(distinct, texts, strict=True):
            _flatten(row, name, orjson.loads(text.removeprefix(REPEATING)))
    else:
        return {}
    names = sorted(set(chain.from_iterable(distinct)))
    return {n: _array([row.get(n) for row in distinct], _type(n)).take(column.indices) for n in names}


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    """The values as one type: numbers that are not are missing, text that is not is JSON."""
    plain = pa.string() if kind == TEXT else kind
    try:
        array = pa.array(values, plain)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if kind == pa.float64():
            values = [float(v) if isinstance(v, (int, float)) else None for v in values]
        else:
            values = [v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in values]
        array = pa.array(values, plain)
    return array.dictionary_encode() if kind == TEXT else array


def _with(table: pa.Table, name: str, value: str) -> pa.Table:
    return table.append_column(name, pa.array([value] * len(table), pa.string()).dictionary_encode())


def _frame(table: pa.Table) -> pd.DataFrame:
    """Pandas' form: one row a run id, config columns as numbers where all of them are, else as objects."""
    frame: pd.DataFrame = table.to_pandas(self_destruct=True, split_blocks=True)
    for name in frame.columns:
        if name.startswith("config."):
            frame[name] = _decoded(frame[name])
    missing = [name for name in ALWAYS if name not in frame.columns]
    frame = frame.assign(**dict.fromkeys(missing))
    order = frame["time.finished"].astype(object).fillna("").astype(str)
    latest = pd.DataFrame({"finished": order, "here": frame["origin"] == "here"}).sort_values(
        ["finished", "here"], kind="stable"
    )
    return frame.loc[latest.index].drop_duplicates("run_id", keep="last").sort_index().reset_index(drop=True)


def _decoded(column: pd.Series) -> pd.Series:
    texts = list(column.cat.categories)
    values = [text if text.startswith("[") else orjson.loads(text) for text in texts]
    codes = column.cat.codes.to_numpy()
    table = pd.Series([*values, None], dtype=object)  # code -1, a missing value, is the last entry
    if all(isinstance(v, float) or v is None for v in values):
        return pd.Series(table.astype(float).to_numpy()[codes], index=column.index, name=column.name)
    return pd.Series(table.to_numpy()[codes], index=column.index, name=column.name, dtype=object)


# ------------------------------------------------------------------------------------ reading it again


def heavy(frame: pd.DataFrame, name: str = "curves") -> list[Any]:
    """The `curves` (dict of lists) or `wrong` (base64 text) of each row, read from disk now; None where
    missing.
    """
    return [record.get(name) for record in records(frame)]


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The whole record of each row, read from disk now; {} where the file has changed since it was loaded."""
    found: list[dict[str, Any]] = [{}] * len(frame)
    by_file: dict[str, list[tuple[int, str, int]]] = {}
    places = zip(frame["file"], frame["offset"], frame["run_id"], strict=True)
    for i, (file, offset, run_id) in enumerate(places):
        by_file.setdefault(file, []).append((offset, run_id, i))
    for file, wanted in by_file.items():
        lines = _lines_at(file, [offset for offset, _, _ in sorted(wanted)])
        for (_, run_id, i), line in zip(sorted(wanted), lines, strict=True):
            try:
                record = orjson.loads(line)
            except orjson.JSONDecodeError:
                continue
            if record.get("run_id") == run_id:
                found[i] = record
    return found


def _lines_at(file: str, offsets: list[int]) -> Iterator[bytes | str]:
    if file.endswith(".parquet"):
        texts = pq.read_table(file, columns=["record"])["record"]
        yield from (texts[i].as_py() for i in offsets)
        return
    try:
        with Path(file).open("rb") as stream:
            for offset in offsets:
                stream.seek(offset)
                yield stream.read() if file.endswith("record.json") else stream.readline()
    except FileNotFoundError:
        yield from (b"" for _ in offsets)


def resolve(frame: pd.DataFrame, name: str) -> str:
    """The column that `name` means: itself, config.<name>, metrics.<name>, or the only one ending in .<name>.

    A part of the config that has a name (norm, model, optimizer) means that name. Raises ValueError with one
    line for an unknown or ambiguous name.
    """
    for candidate in (name, f"config.{name}", f"metrics.{name}", f"config.{name}.name"):
        if candidate in frame.columns:
            return candidate
    ending = [str(column) for column in frame.columns if str(column).endswith(f".{name}")]
    if len(ending) == 1:
        return ending[0]
    if ending:
        raise ValueError(f"{name!r} is ambiguous: {', '.join(sorted(ending))}")
    named = [str(column) for column in frame.columns if str(column).startswith(("config.", "metrics."))]
    short = sorted({column.split(".", 1)[1] for column in named})
    near = get_close_matches(name, short, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(f"no record has {name!r}{hint}; there are: {', '.join(short)}")
