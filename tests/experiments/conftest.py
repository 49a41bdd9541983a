"""What the tests of experiments/ share: composing without Hydra's main, and the real command line."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from experiments import config, grid, store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def composed() -> Iterator[grid.Compose]:
    with initialize_config_dir(version_base="1.3", config_dir=str(config.CONF)):
        yield grid.cached(lambda words: compose("config", words))


class Cli:
    """python -m experiments with its own store."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.started: list[tuple[subprocess.Popen[str], bool]] = []  # and whether in a session of its own

    def words(self, *args: str) -> list[str]:
        quiet = [] if any(a.startswith("report=") for a in args) else ["report=false"]
        return [sys.executable, "-m", "experiments", *args, f"runs={self.runs}", *quiet]

    def __call__(self, *args: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
        kwargs = {"env": self.env, "cwd": ROOT, "timeout": 300, **kwargs}
        return subprocess.run(self.words(*args), capture_output=True, text=True, **kwargs)

    def start(self, *args: str, **kwargs: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.words(*args),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **{"env": self.env, "cwd": ROOT, **kwargs},
        )
        self.started.append((process, bool(kwargs.get("start_new_session"))))
        return process

    def stop(self) -> None:
        """What a failed test has left at work, the workers of a sweep included."""
        for process, alone in self.started:
            with contextlib.suppress(ProcessLookupError):
                if alone:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()

    def wait_for(self, pattern: str) -> list[Path]:
        """The files of the store that match, as soon as there is one; [] after two minutes without."""
        deadline = time.time() + 120
        while not (found := list(self.runs.glob(pattern))) and time.time() < deadline:
            time.sleep(0.02)
        return found

    def records(self, table: str = "T3") -> dict[str, dict[str, Any]]:
        """Whole records by run id."""
        out = {}
        for path in [
            *self.runs.glob(f"{table}/*/record.json"),
            *self.runs.glob(f"{table}/shards/*/records.jsonl"),
        ]:
            for line in path.read_bytes().splitlines():
                record = store.unseal(line)
                assert record is not None, path
                out[record["run_id"]] = record
        return out


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    made = Cli(tmp_path / "runs")
    yield made
    made.stop()


@pytest.fixture
def make_record() -> Callable[..., dict[str, Any]]:
    def make(**changes: Any) -> dict[str, Any]:
        record = {
            "schema": 1,
            "run_id": "00000000000000aa",
            "table": "T3",
            "profile": "smoke",
            "status": "finished",
            "config": {"seed": 0},
            "code": "c0de",
            "time": {"finished": "2026-01-01T00:00:00.000Z"},
            "metrics": {"test_error": 2.5},
        }
        return json.loads(json.dumps({**record, **changes}))

    return make
