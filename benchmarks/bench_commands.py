"""How long the commands take that people wait for: help, a smoke sweep, a finished sweep again, the status.

    python benchmarks/bench_commands.py [repeats=3]

Each line is the minimum and median wall time of whole processes, with what was aimed for. Run on an idle
machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def seconds(command: list[str], before: Callable[[], object] | None = None, repeats: int = 3) -> list[float]:
    took = []
    for _ in range(repeats):
        if before is not None:
            before()
        begun = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        took.append(time.perf_counter() - begun)
    return took


def main() -> None:
    repeats = int(dict(word.split("=", 1) for word in sys.argv[1:]).get("repeats", 3))
    experiments = [sys.executable, "-m", "experiments"]
    with tempfile.TemporaryDirectory() as folder:
        runs = f"runs={folder}/runs"
        smoke = [*experiments, "-m", "table=T3", "profile=smoke", runs]
        alone = [*smoke[:-1], "report=false", runs]
        counter = iter(range(1000))

        def fresh() -> None:
            smoke[-1] = alone[-1] = f"runs={folder}/runs-{next(counter)}"

        rows = [
            ("--help", seconds([*experiments, "--help"], repeats=repeats), 3),
            ("smoke sweep of table 3 (data prepared)", seconds(alone, fresh, repeats), 10),
            ("the same and its pages", seconds(smoke, fresh, repeats), 20),
            ("the finished smoke sweep again", seconds(smoke, repeats=repeats), 5),
        ]
        quick = [
            *experiments,
            "-m",
            "table=T3",
            "profile=quick",
            "epochs=1",
            "data.limit_train=200",
            "data.limit_eval=100",
            "report=false",  # of points that are on no grid, it would be a page of its own
            runs,
        ]
        subprocess.run(quick, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        rows.append(("a finished sweep of 90 points again, no report", seconds(quick, repeats=repeats), 5))
        rows.append(
            ("status", seconds([sys.executable, "-m", "experiments.status", runs], repeats=repeats), 5)
        )
    print(f"{os.cpu_count()} cores; seconds, minimum and median of {repeats}")
    for name, took, aim in rows:
        print(f"{name:45} {min(took):6.2f} {statistics.median(took):6.2f}   aim <= {aim}")


if __name__ == "__main__":
    main()
