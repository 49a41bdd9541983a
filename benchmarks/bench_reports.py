"""`python -m reports` on 200,000 synthetic records in shards: seconds and peak memory, first and again.

    python benchmarks/bench_reports.py [records=200000] [keep=DIR]

The targets: first <= 30 s and < 2 GB, again with nothing new <= 3 s; with the committed records of all other
tables, the whole site <= 60 s and its front page < 1 MB. Making the records is not measured; keep=DIR keeps
them for the next time.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.reports import synthetic  # noqa: E402

SHARD = 100  # records of one population


def batches(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while part := list(islice(items, size)):
        yield part


def shard(job: tuple[Path, int, list[dict[str, Any]]]) -> None:
    runs, number, arguments = job
    synthetic.flush(runs / "T3", number, [synthetic.line(synthetic.record(**a)) for a in arguments])


def make(runs: Path, n: int) -> None:
    synthetic.write_grid(runs, epochs=40)
    jobs = ((runs, i, part) for i, part in enumerate(batches(synthetic.many(n), SHARD)))
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for _ in pool.imap_unordered(shard, jobs, chunksize=8):
            pass


def measure(runs: Path, out: Path, *words: str) -> tuple[float, float, str]:
    """(seconds, peak resident memory of one process in GB, last line printed) of one `python -m reports`."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "reports", f"runs={runs}", f"out={out}", *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"python -m reports ended with status {process.returncode}")
    scale = 1 if sys.platform == "darwin" else 1024  # ru_maxrss: bytes there, KiB here
    return time.perf_counter() - start, usage.ru_maxrss * scale / 1e9, printed.strip().splitlines()[-1]


def main(options: dict[str, str]) -> None:
    n = int(options.get("records", "200000"))
    with tempfile.TemporaryDirectory() as scratch:
        runs, out = Path(options.get("keep", scratch)) / "runs", Path(scratch) / "site"
        if not (runs / "T3" / "grid.json").exists():
            start = time.perf_counter()
            make(runs, n)
            print(f"made {n} records in {time.perf_counter() - start:.0f} s", flush=True)
        for name in ("first", "again, nothing new", "one new record"):
            if name == "one new record":
                synthetic.write(
                    runs, [synthetic.record("a1", "mnist", 10**6 + time.time_ns() % 10**6, epochs=40)], 0
                )
            seconds, memory, last = measure(runs, out, f"measured={runs / 'none'}")
            print(f"{name:20s} {seconds:6.1f} s  {memory:5.2f} GB   {last}", flush=True)
        seconds, memory, last = measure(runs, whole := Path(scratch) / "whole")
        print(f"{'with the snapshots':20s} {seconds:6.1f} s  {memory:5.2f} GB   {last}", flush=True)
        print(f"front page {(whole / 'index.html').stat().st_size / 1e6:.2f} MB")
        sizes = {p.name: p.stat().st_size / 1e6 for p in out.glob("*.html")}
        print("pages (MB): " + ", ".join(f"{name} {size:.2f}" for name, size in sorted(sizes.items())))


if __name__ == "__main__":
    main(dict(word.split("=", 1) for word in sys.argv[1:]))
