"""What a build was made from, and files that appear whole or not at all.

Standard library only: a build with nothing new must not wait for pandas and matplotlib to be imported.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = ".build.json"
VERSION = 3
HERE = Path(__file__).parent


def _inside(folder: Path, deep: bool) -> Iterator[Path]:
    """Files that can change a report, in a fixed order.

    A run's directory is not listed: only its record counts, and one stat for each of 200,000 directories is
    far cheaper than 200,000 listings.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda e: e.name)
    except OSError:
        return
    for entry in entries:
        if entry.name.startswith((".", "__pycache__")) or entry.name == "superseded":
            continue
        if not entry.is_dir():
            yield Path(entry.path)
        elif deep or entry.name == "paper":
            yield from _inside(Path(entry.path), deep)
        elif entry.name == "shards":
            yield from (
                Path(shard.path) / "records.jsonl"
                for shard in sorted(os.scandir(entry.path), key=lambda e: e.name)
            )
        else:
            yield Path(entry.path) / "record.json"


def inputs(runs: Path, measured: Path, table: str) -> str:
    """Hash of name, size and time of each file that the page of `table` is made from, the code included."""
    digest = hashlib.sha256()
    code = [
        (HERE, p)
        for part in ("published", "claims", "pages", "templates")
        for p in _inside(HERE / part, deep=True)
    ]
    code += [(HERE, p) for p in sorted(HERE.glob("*.py"))]
    code.append((HERE.parent, HERE.parent / "norms" / "build.py"))  # what the pages of the methods say
    records = [(runs, p) for p in _inside(runs / table, deep=False)]
    records += [(measured, p) for p in _inside(measured / table, deep=True)]
    for root, path in code + records:
        try:
            stat = path.stat()
        except OSError:
            continue  # a run without a record yet
        digest.update(f"{path.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:24]


def size(runs: Path, measured: Path, table: str) -> int:
    """Bytes of the records of a table, roughly: a folder's own size stands for many small files."""
    total = 0
    for folder in (runs / table, measured / table):
        with contextlib.suppress(OSError):
            total += sum(entry.stat().st_size for entry in os.scandir(folder))
    return total


def read(out: Path) -> dict[str, Any]:
    """The stamp of the last build; empty when there is none, or none that this version can read."""
    try:
        found = json.loads((out / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("version") == VERSION else {}


def intact(out: Path, files: dict[str, int]) -> bool:
    """Whether every file of a build is still there with its size."""
    try:
        return all((out / name).stat().st_size == size for name, size in files.items())
    except OSError:
        return False


def prepare(out: Path) -> None:
    """Make the output folder. Errors: ValueError with one line when it cannot be written."""
    try:
        (out / "downloads").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
        for left in [*out.glob(".*.tmp"), *out.glob("downloads/.*.tmp")]:  # of a build that was killed
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink(missing_ok=True)
    except OSError as error:
        raise ValueError(
            f"cannot write to out={out}: {error.strerror or error}; name another folder with out=DIR"
        ) from None


def write(path: Path, content: str | bytes) -> int:
    """Replace a file in one step: a killed build leaves the old page, never half a page. Returns its size."""
    blob = content.encode("utf-8") if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(blob)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ValueError(
            f"cannot write {path}: {error.strerror or error}; free some space or name another out=DIR"
        ) from None
    return len(blob)
