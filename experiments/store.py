"""The run store: `runs/<table>/`.

    <run_id>/record.json                a run trained alone; <run_id>/checkpoint.<sha>.pt while it is under
    way
    <run_id>/old.<sha>.pt               a checkpoint of code that has changed since, kept for its owner
    shards/<population>/records.jsonl   the records of one population, one a line; checkpoint.<sha>.pt while
    it is under way
    paper/<key>.json                    configs under the paper profile, once each
    grid.json                           the grid's points, for the reports
    locks/<run_id>.lock                 held while a process works on the run; freed by the process's death
    jobs/<id>.json                      heartbeat of a job: where it runs and how far it is
    superseded/                         records that a rerun replaced
    index.json                          a cache of what is finished; made anew from the files where it
    disagrees with them

A finished record means skip, a checkpoint means resume, a lock means another process has it: running again is
resuming. Everything is written to a temporary file in the same folder, flushed to disk, and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
from filelock import FileLock, Timeout

from experiments.config import BadInput, digest

SCHEMA = 1
INDEX = 1  # layout of index.json
BESIDE = "memory"  # folder of what a table writes beside its checkpoint
HEARTBEAT = 600.0  # seconds after which a lock held on another host counts as left behind


def write(path: Path, content: bytes) -> None:
    """Atomic: a reader sees the old file or the new one, and a full disk leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as f:
            f.write(content)
            f.flush()
            os.fsync(f.fileno())
        os.replace(part, path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise unwritable(path, e) from e


def unwritable(path: Path | str, e: OSError) -> BadInput:
    return BadInput(f"cannot write {path}: {e.strerror} (choose another folder with runs=DIR, or free space)")


def check_writable(runs: Path) -> None:
    try:
        runs.mkdir(parents=True, exist_ok=True)
        probe = runs / f".probe-{os.getpid()}"
        probe.write_bytes(b"x" * 4096)
        probe.unlink()
    except OSError as e:
        raise BadInput(
            f"cannot write to runs={runs}: {e.strerror} (choose another folder with runs=DIR)"
        ) from e


# ---- records ----------------------------------------------------------------------------------------------


def seal(record: dict[str, Any]) -> bytes:
    """The record as one line of canonical JSON, then the sha256 of that: readers check it without parsing."""
    text = _canonical({k: v for k, v in record.items() if k != "sha256"})
    sha = hashlib.sha256(text.encode()).hexdigest()
    return f'{text[:-1]},"sha256":"{sha}"}}\n'.encode()


def _canonical(record: dict[str, Any]) -> str:
    return json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _sha(record: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(record).encode()).hexdigest()


def unseal(line: bytes) -> dict[str, Any] | None:
    """The record, or None where it is truncated or damaged. BadInput where it is of a newer schema than this
    code knows.
    """
    try:
        record = orjson.loads(line)
        if record["schema"] > SCHEMA:
            raise BadInput(
                f"record {record.get('run_id')} has schema {record['schema']}, newer than {SCHEMA}: update"
            )
        sha = record.pop("sha256")
        return record if sha == _sha(record) else None
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None


def finished(table: Path) -> dict[str, dict[str, str]]:
    """{run_id: {status, code, finished, profile, config (its digest)}} of every whole record. Files unchanged
    since the last look come from index.json.
    """
    try:
        seen = orjson.loads((table / "index.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        seen = {}
    index: dict[str, Any] = {}
    out: dict[str, dict[str, str]] = {}
    for path in [*table.glob("*/record.json"), *table.glob("shards/*/records.jsonl")]:
        stat = path.stat()
        name = str(path.relative_to(table))
        known = seen.get(name)
        if known is None or known["stat"] != [INDEX, stat.st_size, stat.st_mtime_ns]:
            records = [r for r in map(unseal, path.read_bytes().splitlines()) if r is not None]
            known = {
                "stat": [INDEX, stat.st_size, stat.st_mtime_ns],
                "runs": {
                    r["run_id"]: [
                        r["status"],
                        r["code"],
                        r["time"]["finished"],
                        r["profile"],
                        digest(r["config"]),
                    ]
                    for r in records
                },
            }
        index[name] = known
        for rid, (status, code, when, profile, config) in known["runs"].items():
            if rid not in out or when >= out[rid]["finished"]:
                out[rid] = {
                    "status": status,
                    "code": code,
                    "finished": when,
                    "profile": profile,
                    "config": config,
                }
    if index != seen and table.is_dir():
        write(table / "index.json", orjson.dumps(index))
    return out


def wanted(known: dict[str, str] | None, code: str, rerun: str) -> bool:
    """Whether a run with this record is to be done (again). Divergence is a finished result; a failure is
    retried.
    """
    if known is None or rerun == "all":
        return True
    if rerun == "stale" and known["code"] != code:
        return True
    return rerun != "none" and known["status"] == "failed"


def save_single(table: Path, record: dict[str, Any]) -> None:
    path = table / record["run_id"] / "record.json"
    if path.exists():
        kept = table / "superseded" / f"{record['run_id']}-{time.time_ns()}.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, kept)
    write(path, seal(record))


def save_population(table: Path, population: str, records: Iterable[dict[str, Any]]) -> None:
    """All records of a population in one shard; an earlier shard of the same members goes to superseded/."""
    path = table / "shards" / population / "records.jsonl"
    if path.exists():
        kept = table / "superseded" / f"{population}-{time.time_ns()}.jsonl"
        kept.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, kept)
    write(path, b"".join(map(seal, records)))


# ---- checkpoints ------------------------------------------------------------------------------------------


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """`checkpoint.<sha256[:16]>.pt`: the name vouches for the content, so a truncated file is noticed."""
    import torch

    buffer = io.BytesIO()
    torch.save(state, buffer)
    content = buffer.getvalue()
    path = folder / f"checkpoint.{hashlib.sha256(content).hexdigest()[:16]}.pt"
    write(path, content)
    for old in folder.glob("checkpoint.*.pt"):
        if old != path:
            old.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint, or None. Damaged ones are removed: the run starts again from the one
    before or anew.
    """
    import torch

    # One written on a GPU goes on without one; where there is one, tensors stay where they were.
    where = None if torch.cuda.is_available() else "cpu"
    for path in sorted(folder.glob("checkpoint.*.pt"), key=lambda p: p.stat().st_mtime_ns, reverse=True):
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest()[:16] == path.name.split(".")[1]:
            state: dict[str, Any] = torch.load(io.BytesIO(content), map_location=where, weights_only=True)
            return state
        path.unlink(missing_ok=True)
    return None


def set_aside(folder: Path) -> list[Path]:
    """Checkpoints that cannot be gone on from, under another name: `old.<sha256[:16]>.pt`."""
    return [
        p.replace(p.with_name(p.name.replace("checkpoint.", "old.", 1)))
        for p in folder.glob("checkpoint.*.pt")
    ]


def drop_checkpoints(folder: Path) -> None:
    for path in folder.glob("checkpoint.*.pt"):
        path.unlink(missing_ok=True)
    drop_beside(folder)


def drop_beside(folder: Path) -> None:
    shutil.rmtree(folder / BESIDE, ignore_errors=True)


def pending(table: Path) -> Iterator[tuple[str, list[str]]]:
    """Populations with a checkpoint but no end: (population, its members in order)."""
    for path in sorted(table.glob("shards/*/members.json")):
        if any(path.parent.glob("checkpoint.*.pt")):
            with contextlib.suppress(OSError, orjson.JSONDecodeError):
                yield path.parent.name, orjson.loads(path.read_bytes())


# ---- locks and heartbeats ---------------------------------------------------------------------------------


class Busy(Exception):
    """Another process has this run."""


@contextlib.contextmanager
def lock(table: Path, run_id: str) -> Iterator[None]:
    """Hold the run, or raise Busy. An OS lock, so the holder's death frees it. Where the file system does not
    carry locks between hosts, the owner note beside it does: host, pid, and a heartbeat not older than ten
    minutes.
    """
    folder = table / "locks"
    owner = folder / f"{run_id}.json"
    held = FileLock(folder / f"{run_id}.lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        held.acquire()
    except Timeout:
        raise Busy(run_id) from None
    except OSError as e:
        raise unwritable(held.lock_file, e) from e
    try:
        if (
            (other := _owner(owner))
            and other["host"] != socket.gethostname()
            and time.time() - other["time"] < HEARTBEAT
        ):
            raise Busy(run_id)
        beat_owner(table, [run_id])
        try:
            yield
        finally:
            owner.unlink(missing_ok=True)
    finally:
        held.release()


def _owner(path: Path) -> dict[str, Any] | None:
    try:
        note = json.loads(path.read_text())
        return note if {"host", "time"} <= set(note) else None
    except (OSError, json.JSONDecodeError):
        return None


def beat_owner(table: Path, run_ids: Iterable[str]) -> None:
    """Renew the owner notes. On a full disk they go without: the OS lock holds all the same."""
    note = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()})
    for run_id in run_ids:
        _put(table / "locks" / f"{run_id}.json", note.encode())


def is_locked(table: Path, run_id: str) -> bool:
    if not (table / "locks" / f"{run_id}.lock").exists():
        return False
    try:
        with lock(table, run_id):
            return False
    except Busy:
        return True


def beat(table: Path, job: str, note: dict[str, Any]) -> None:
    """A job's heartbeat: {runs, step, steps, ...}."""
    host = {"host": socket.gethostname(), "pid": os.getpid(), "time": time.time()}
    _put(table / "jobs" / f"{job}.json", orjson.dumps({**note, **host}))


def _put(path: Path, content: bytes) -> None:
    """Atomic like `write`, but of notes that nothing depends on: not flushed to disk, and lost in silence."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def beats(table: Path) -> list[dict[str, Any]]:
    out = []
    for path in table.glob("jobs/*.json"):
        with contextlib.suppress(OSError, orjson.JSONDecodeError):
            out.append(orjson.loads(path.read_bytes()))
    return out
