"""Where files are: the data root (read only), the cache, and the prepared files in it.

A prepared file is one .npz without pickles (`<cache>/<variant>[-<options>].npz`) and one .json beside it that
holds what can be known without opening the arrays: classes, licence, fingerprint, size, and a stamp of the
files it was made from. Both are written under another name and renamed, so a reader never sees half a file,
and two processes that prepare the same set at once only do the work twice. The zip container checks each
array's CRC as it is read.
"""

import errno
import hashlib
import json
import os
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from data.errors import Damaged

Arrays = Mapping[str, NDArray[Any]]
PathLike = str | os.PathLike[str]
FORMAT = 1  # raise when the same source files would give other prepared content


def root_folder(root: PathLike | None = None) -> Path:
    """The data root: the argument, else $BN_DATA_ROOT, else in the user's cache. May be read-only."""
    return Path(root or os.environ.get("BN_DATA_ROOT") or _user_folder("raw")).expanduser()


def cache_folder(cache: PathLike | None = None) -> Path:
    """The writable folder of prepared files: the argument, else $BN_DATA_CACHE, else in the user's cache."""
    return Path(cache or os.environ.get("BN_DATA_CACHE") or _user_folder("prepared")).expanduser()


def _user_folder(name: str) -> Path:
    import pooch  # knows each system's place for caches

    return Path(pooch.os_cache("bn-survey")) / name


def stamp(files: Sequence[Path]) -> str:
    """Hash of the files' names below their common folder, sizes and times, in place of their content."""
    common = os.path.commonpath([f.parent for f in files])
    rows = []
    for f in files:
        s = f.stat()
        rows.append([str(f.relative_to(common)), s.st_size, s.st_mtime_ns])
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


def content_hash(arrays: Arrays, about: Mapping[str, Any]) -> str:
    """sha256 (16 hex digits) of the arrays' bytes, little-endian, and of the facts that give them meaning."""
    h = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        a = a.astype(a.dtype.newbyteorder("<"), copy=False)
        h.update(f"{name} {a.dtype.str} {a.shape}".encode())
        h.update(a.reshape(-1).view(np.uint8).data)
    return h.hexdigest()[:16]


def write(path: Path, arrays: Arrays, meta: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the prepared file and its sidecar; returns the sidecar's content."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # savez's stub confuses array names with its own keywords
        size = _replace(path, lambda f: np.savez(f, **arrays))  # type: ignore[arg-type]
        meta = {**meta, "format": FORMAT, "size": size}
        text = json.dumps(meta, indent=1, sort_keys=True).encode()
        _replace(path.with_suffix(".json"), lambda f: f.write(text))
    except OSError as e:
        why = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}.get(
            e.errno or 0, e.strerror
        )
        raise OSError(
            f"cannot write prepared data to {path.parent}: {why}; "
            "choose another folder with cache= or the environment variable BN_DATA_CACHE"
        ) from e
    return dict(meta)


def _replace(path: Path, fill: Callable[[BinaryIO], Any]) -> int:
    """Writes a new file next to `path`, then renames it to `path`. Returns its size in bytes."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as f:
            fill(f)
            f.flush()
            os.fsync(f.fileno())
            size = f.tell()
        Path(temporary).chmod(0o644)  # mkstemp gives 0600, a cache may be shared
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return size


def sidecar(path: Path) -> dict[str, Any] | None:
    """The sidecar of a prepared file; None when either is missing, cut short or of another format."""
    try:
        meta = json.loads(path.with_suffix(".json").read_bytes())
        ok = meta["format"] == FORMAT and meta["size"] == path.stat().st_size
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return meta if ok else None


def read(path: Path, *needed: str) -> dict[str, NDArray[Any]]:
    """All arrays of an npz file. Raises Damaged when it cannot be read whole or lacks one that is needed."""
    with _opened(path) as z:
        return {k: z[k] for k in [*needed, *(k for k in z.files if k not in needed)]}


def pick(path: Path, *names: str) -> list[NDArray[Any]]:
    """These arrays of an npz file, in this order; the others stay on disk. Raises Damaged as `read` does."""
    with _opened(path) as z:
        return [z[k] for k in names]


def array_names(path: Path) -> list[str]:
    """What an npz file holds. Raises Damaged when it is none."""
    with _opened(path) as z:
        return list(z.files)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with np.load(path, allow_pickle=False) as z:
            yield z
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as e:
        raise Damaged(f"{path} is damaged or no npz file ({e}); delete it and get it again") from e
