"""What the benchmarks of layers share: tasks that take turns, and a table of their ratios."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch

Task = Callable[[], object]
# of a process in which glibc's allocator keeps large blocks
KEEP = {"MALLOC_MMAP_THRESHOLD_": str(2**30), "MALLOC_TRIM_THRESHOLD_": str(2**32)}


def take_turns(tasks: Mapping[str, Task], rounds: int) -> dict[str, list[float]]:
    """Seconds of each task in each round. Within a round all take turns, so that whatever else the machine
    does falls on all of them; a short task is repeated and its mean taken.
    """
    for task in tasks.values():
        task(), task()
    start = time.perf_counter()
    next(iter(tasks.values()))()
    repeats = max(1, int(0.004 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {label: [] for label in tasks}
    for _ in range(rounds):
        for label, task in tasks.items():
            start = time.perf_counter()
            for _ in range(repeats):
                task()
            times[label].append((time.perf_counter() - start) / repeats)
    return times


def show(title: str, times: Mapping[str, list[float]], notes: Mapping[str, str] | None = None) -> None:
    """Median milliseconds, and the median over rounds of the ratio to the first task, with its quartiles."""
    base = next(iter(times.values()))
    print(f"\n{title}, {torch.get_num_threads()} thread(s)")
    for label, seconds in times.items():
        low, middle, high = statistics.quantiles((a / b for a, b in zip(seconds, base, strict=True)), n=4)
        note = (notes or {}).get(label, "")
        print(
            f"  {label:22} {1e3 * statistics.median(seconds):9.3f} ms"
            f"   {middle:5.2f}x  ({low:.2f}-{high:.2f}){'   ' * bool(note)}{note}",
            flush=True,
        )


def threads() -> list[int]:
    """The numbers of threads asked for on the command line: one and all, if none."""
    asked = sys.argv[1:] or dict.fromkeys(("1", str(os.cpu_count())))
    python, machine = platform.python_version(), platform.machine()
    print(f"{os.cpu_count()} cores ({machine}), Python {python}, torch {torch.__version__}")
    return list(map(int, asked))
