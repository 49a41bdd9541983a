"""python -m experiments.status [table=T3] [runs=DIR]: what is done, running, begun, failed, missing, stale,
per table and profile. Begun: interrupted with a checkpoint, from which the same sweep goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from experiments import config, grid, provenance, store, sweep
from experiments.config import CONF, BadInput

HEADS = (
    "table",
    "profile",
    "points",
    "done",
    "diverged",
    "running",
    "begun",
    "failed",
    "missing",
    "stale",
    "other runs",
)


def main(argv: list[str]) -> int:
    known = {"table": "", "runs": "runs"}
    for word in argv:
        key, equals, value = word.partition("=")
        if not equals or key not in known:
            print(f"{word}: expected table=... or runs=...", file=sys.stderr)
            return 2
        known[key] = value
    tables = sorted(p.stem for p in (CONF / "table").glob("*.yaml"))
    if known["table"] and known["table"] not in tables:
        print(f"table={known['table']}: unknown table (available: {', '.join(tables)})", file=sys.stderr)
        return 2
    if Path(known["runs"]).exists() and not Path(known["runs"]).is_dir():
        print(f"runs={known['runs']}: is not a folder", file=sys.stderr)
        return 2
    rows: list[tuple[object, ...]] = [HEADS]
    chosen = [known["table"]] if known["table"] else tables
    try:
        for found in in_turn(chosen, [Path(known["runs"]) / table for table in chosen]):
            rows += found
    except BadInput as e:
        print(e, file=sys.stderr)
        return 2
    widths = [max(len(str(r[i])) for r in rows) for i in range(len(HEADS))]
    for r in rows:
        print(
            "  ".join(
                str(v).rjust(w) if i > 1 else str(v).ljust(w)
                for i, (v, w) in enumerate(zip(r, widths, strict=True))
            )
        )
    print(
        f"\nRuns of the store {known['runs']}; committed results are not among them."
        " Points of a search (Tables 5 and 6) are those of its rows; its variants are other runs."
    )
    return 0


def in_turn(tables: list[str], folders: list[Path]) -> list[list[tuple[object, ...]]]:
    """`of_table` of each, several at a time: every grid is composed, which takes seconds a table."""
    if len(tables) == 1:
        return [of_table(tables[0], folders[0])]
    workers = min(len(tables), os.cpu_count() or 1)
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(of_table, tables, folders))


def of_table(table: str, folder: Path) -> list[tuple[object, ...]]:
    """One row a profile. Runs are matched by their configs, so no data set is needed."""
    profiles = sorted(p.stem for p in (CONF / "settings" / table).glob("*.yaml"))
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        compose_here = grid.cached(lambda words: compose("config", words))
        noted = sweep.write_grid(table, compose_here, folder if folder.is_dir() else None)
        module = compose_here([f"table={table}"]).module
    found = store.finished(folder) if folder.is_dir() else {}
    by_config = {r["config"]: r for r in found.values()}
    every = store.beats(folder)
    beats = [b for b in every if b["status"] == "running" and time.time() - b["time"] < 120]
    held = {path.parent.name for path in folder.glob("*/checkpoint.*.pt")}
    held |= {rid for _, members in store.pending(folder) for rid in members}
    paused = {
        c: b["profile"]
        for b in every
        for rid, c in zip(b["runs"], b.get("configs", ()), strict=False)
        if rid in held
    }
    running = {
        c: b["profile"]
        for b in beats
        for rid, c in zip(b["runs"], b.get("configs", ()), strict=False)
        if store.is_locked(folder, rid)
    }
    rows: list[tuple[object, ...]] = []
    for profile in profiles:
        g = noted["profiles"][profile]
        code = {
            p["config"]["norm"]["name"]: provenance.code_hash(module, p["config"]["norm"]["name"])
            for p in g["points"]
        }
        if all("axes" in p for p in g["points"]) and not any(r["profile"] == profile for r in found.values()):
            # Of a search only records made under the profile count, and `paper` has a million points.
            total = sum(grid.Pattern(**p).size for p in g["points"]) * len(g["seeds"])
            rows.append((table, profile, total, 0, 0, 0, 0, 0, total, 0, 0))
            continue
        wanted = {
            config.digest({**c, "seed": s}): p
            for p in g["points"]
            for c in configs(p)
            for s in p.get("seeds", g["seeds"])
        }
        done = {c: by_config[c] for c in wanted.keys() & by_config.keys()}  # whichever profile it ran under
        alive = running.keys() & wanted.keys()
        begun = paused.keys() & wanted.keys() - done.keys() - alive
        others = {c for c, r in by_config.items() if r["profile"] == profile} - wanted.keys()
        others |= {c for c, name in {**paused, **running}.items() if name == profile} - wanted.keys()
        states = [r["status"] for r in done.values()]
        stale = sum(r["code"] != code[wanted[c]["config"]["norm"]["name"]] for c, r in done.items())
        rows.append(
            (
                table,
                profile,
                len(wanted),
                states.count("finished"),
                states.count("diverged"),
                len(alive),
                len(begun),
                states.count("failed"),
                len(wanted.keys() - done.keys() - alive - begun),
                stale,
                len(others),
            )
        )
    return rows


def configs(point: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Of a point of grid.json: its config, or those that a pattern stands for."""
    return grid.Pattern(**point).configs() if "axes" in point else iter([point["config"]])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
