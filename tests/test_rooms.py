"""The shape of the house: which room may import which, and what may lie at the top of the repository."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# room -> rooms it may import. Nothing may import reports; tests and benchmarks may import everything.
ARROWS: dict[str, set[str]] = {
    "norms": set(),
    "data": set(),
    "experiments": {"norms", "data"},
    "hydra_plugins": {"experiments"},
    "reports": set(),
    "conf": set(),
}
# Packages a room may not import, over and above other rooms.
FORBIDDEN = {"reports": {"torch", "torchvision"}}

FILES = {".gitignore", "LICENSE", "Makefile", "README.md", "constraints.txt", "pyproject.toml"}
TOP_LEVEL = {*ARROWS, "tests", "benchmarks", ".ci", *FILES}


def imported(source: str) -> Iterator[str]:
    """Top-level names of the modules a source imports, at any depth, import_module("...") included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").split(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.args[0].value.split(".")[0]


def wrong_imports(root: Path) -> list[str]:
    """The imports under root that go against the arrows, as 'file imports name'."""
    wrong = []
    for room, allowed in ARROWS.items():
        not_allowed = (ARROWS.keys() - allowed - {room}) | FORBIDDEN.get(room, set())
        for file in sorted((root / room).rglob("*.py")):
            found = set(imported(file.read_text(encoding="utf-8"))) & not_allowed
            wrong += [f"{file.relative_to(root)} imports {name}" for name in sorted(found)]
    return wrong


def tracked() -> list[str]:
    """The files under version control, those about to be added too."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [name for name in listing.split("\0") if name and (ROOT / name).is_file()]


def in_fresh_python(code: str) -> str:
    """What a new interpreter prints, started at the root."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_rooms_import_only_along_the_arrows() -> None:
    assert wrong_imports(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line", "name"),
    [
        ("norms/a.py", "import data.mnist", "data"),
        ("data/a.py", "from experiments.store import open", "experiments"),
        ("experiments/models/a.py", "def f():\n    from reports import store", "reports"),
        ("hydra_plugins/p/a.py", "import importlib\nimportlib.import_module('norms.diminishing')", "norms"),
        ("reports/a.py", "from torch import nn", "torch"),
    ],
)
def test_an_import_against_the_arrows_is_found(tmp_path: Path, file: str, line: str, name: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(line)
    assert wrong_imports(tmp_path) == [f"{file} imports {name}"]


def test_the_arrows_themselves_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments/a.py").write_text("import norms, data, experiments.store\nfrom . import reports")
    assert wrong_imports(tmp_path) == []


def test_hydra_plugins_stays_a_namespace_package() -> None:
    """With an __init__.py it would hide the launchers that are installed as hydra_plugins.* beside it."""
    assert (ROOT / "hydra_plugins").is_dir()
    assert not (ROOT / "hydra_plugins/__init__.py").exists()


def test_reports_needs_neither_torch_nor_another_room() -> None:
    code = (
        "import pkgutil, importlib, sys, reports\n"
        "for m in pkgutil.walk_packages(reports.__path__, 'reports.'):\n"
        "    m.name.endswith('__main__') or importlib.import_module(m.name)\n"
        "print(*sorted({'torch', 'norms', 'data', 'experiments'} & sys.modules.keys()))"
    )
    assert in_fresh_python(code) == ""


@pytest.mark.parametrize("room", ["norms", "data"])
def test_a_lower_room_can_be_imported_alone(room: str) -> None:
    rooms = sorted(ARROWS.keys() - {room})
    assert in_fresh_python(f"import sys, {room}; print(*({set(rooms)} & sys.modules.keys()))") == ""


def test_top_level_entries_are_the_agreed_ones() -> None:
    assert {name.split("/")[0] for name in tracked()} <= TOP_LEVEL


def machine_names() -> list[str]:
    """What would tie a file to one machine: the checkout's folder, the user's, the package hosts."""
    from pip._internal.models.index import PyPI  # asked, not written down here

    command = [sys.executable, "-m", "pip", "config", "list"]
    config = subprocess.run(command, capture_output=True, text=True).stdout
    hosts = re.findall(r"\w+://([\w.-]+\.\w+)", config)
    names = {PyPI.netloc, PyPI.file_storage_domain, *hosts, f"{ROOT}/", f"{Path.home()}/"}
    return sorted(name for name in names if len(name) > 2)


ABSOLUTE = re.compile(r"(?<![\w.~$}>*-])/(?:home|root|Users|work|mnt|media|scratch)/\w[\w./-]*")


def test_no_file_names_a_machine_path_or_a_package_host() -> None:
    names = machine_names()
    found = []
    for file in tracked():
        try:
            text = (ROOT / file).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # Parquet and pictures
        found += [f"{file}: {name}" for name in names if name in text]
        found += [f"{file}: {path}" for path in ABSOLUTE.findall(text)]
    assert found == []


def test_the_path_pattern_finds_what_it_should() -> None:
    slash = "/"  # so that this file does not find itself
    for bad in ("home/ann/data", "work/main", "Users/ann"):
        assert ABSOLUTE.search(f'root = "{slash}{bad}"')
    for good in ("~/work/x", "runs/work/x", "https://example.org/home/x", "$HOME/work/x", "{tmp}/work/x"):
        assert not ABSOLUTE.search(good)


def test_constraints_are_plain_pins() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) > 40
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.!+]+", line)] == []
    names = [re.sub(r"[-_.]+", "-", line.split("==")[0]).lower() for line in pins]
    assert len(names) == len(set(names))


def test_every_direct_dependency_is_pinned_within_its_range() -> None:
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    for text in [*project["dependencies"], *extras]:
        wanted = Requirement(text)
        if wanted.name != project["name"]:
            assert wanted.specifier.contains(pins[canonicalize_name(wanted.name)]), text
