"""Records + published facts -> the site: index, a page a table, pages of runs and sweeps, downloads.

Pages hold no clock time and no machine's name of their own: the same records give the same bytes. A page is
made anew only when something that it is made from changed (reports/stamp.py).
"""

from __future__ import annotations

import gzip
import json
import math
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
from markupsafe import Markup

from reports import (
    analysis,
    audit,
    figures,
    ledger,
    methods,
    pages,
    selection,
    stamp,
    store,
    strips,
    sweep,
    tables,
    view,
)
from reports import published as facts
from reports.matching import stale

PROFILES = ["smoke", "quick", "cpu", "paper"]
GENERAL = [("claims.html", "Claims"), ("methods.html", "Methods"), ("audit.html", "Survey audit")]
RUNS_A_PAGE, RUN_PAGES = 200, 5  # a browser wants pages below a few MB; the CSV has every run
GZIP_FROM = 20_000  # rows
# Tables are made in processes of their own where at least two have records of more than this together: below,
# starting a process takes longer than it saves. Memory, not cores, sets the most.
MANY_BYTES, MOST_WORKERS = 30_000, 4
CACHE = ".cache"  # under the site's folder: parsed records, gone with it


@cache
def environment() -> jinja2.Environment:
    """The templates, compiled once a process."""
    env = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {"num": fixed, "short": figures.number, "slug": figures.slug, "pretty": figures.pretty}
    env.filters |= {"formula": methods.formula}
    env.globals |= {"verdicts": analysis.VERDICTS, "page_of": page_name, "remark": selection.remark}
    env.globals |= {"strip": strips.strip, "inf": math.inf, "source_of": ledger.source_of}
    env.globals |= {k: Markup(figures.css_variables(dark=k == "dark")) for k in ("light", "dark")}
    return env


def fixed(value: Any, digits: int = 2, sign: bool = False) -> str:
    """A number with fixed decimals, a dash for nothing; a value as the survey prints it keeps its digits."""
    if value == math.inf:
        return "∞"
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def page_name(table: str, suffix: str = "") -> str:
    return f"table_{int(table[1:]):02d}{suffix}.html"


def navigation(index: dict[str, Any]) -> list[tuple[str, str]]:
    made = [(page_name(t["id"]), t["id"]) for t in index["tables"] if t["built"]]
    return [("index.html", "All tables"), *made, *GENERAL]


def of_table(loaded: store.Store, table: str) -> pd.DataFrame:
    """A table's runs in the order of their ids: a page must not depend on which file holds which run."""
    frame = loaded.frame
    return frame[frame["table"] == table].sort_values("run_id", ignore_index=True)


def profiles_of(runs: pd.DataFrame) -> list[str]:
    """Profiles that have records, by budget; without any the default one, whose page then says "not run"."""
    have = set(runs["profile"].astype(str)) if len(runs) else set()
    return [p for p in PROFILES if p in have] + sorted(have - set(PROFILES)) or ["quick"]


def known_profiles(runs: pd.DataFrame, grid: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys([*PROFILES, *grid.get("profiles", {}), *profiles_of(runs)]))


def check_profile(profile: str | None, runs: pd.DataFrame, *grids: dict[str, Any]) -> None:
    """ValueError, one line, for a profile of which there is neither a grid nor a record."""
    known = list(dict.fromkeys(p for grid in grids or ({},) for p in known_profiles(runs, grid)))
    if profile is not None and profile not in known:
        raise ValueError(f"unknown profile {profile!r}: one of {', '.join(known)}")


def analyse(loaded: store.Store, table: str, profile: str) -> analysis.TableReport:
    grid, paper = loaded.grid.get(table, {}), loaded.paper.get(table, {})
    damaged, where = loaded.damaged.get(table, 0), loaded.unread.get(table, [])
    report = analysis.analyse(of_table(loaded, table), grid, paper, facts.load(table), profile, damaged)
    if where:
        more = f" and {len(where) - 3} more" if len(where) > 3 else ""
        report.notes.append(f"not read: {', '.join(where[:3])}{more}; the sweep that made it makes it again")
    return report


# --------------------------------------------------------------------------------------------- downloads


def runs_csv(runs: pd.DataFrame) -> tuple[str, bytes]:
    """(file ending, content) of all runs of a table; pyarrow writes 200,000 rows in a second or two."""
    plain = runs.drop(columns=["config", "file", "offset"], errors="ignore").dropna(axis=1, how="all")
    mixed = [c for c in plain.columns if pd.api.types.is_object_dtype(plain[c])]  # numbers and words: alpha
    arrow = pa.Table.from_pandas(plain.assign(**{c: as_text(plain[c]) for c in mixed}), preserve_index=False)
    for i, column in enumerate(arrow.schema):
        if pa.types.is_dictionary(column.type):
            arrow = arrow.set_column(i, column.name, arrow.column(i).cast(pa.string()))
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(arrow, sink)
    if len(runs) < GZIP_FROM:
        return "csv", sink.getvalue().to_pybytes()
    return "csv.gz", gzip.compress(sink.getvalue(), compresslevel=1, mtime=0)


def as_text(column: pd.Series) -> pd.api.extensions.ExtensionArray:
    """A column of numbers and words as words, each value spelt once."""
    codes, values = pd.factorize(column)
    texts = [sweep.text_of(value) for value in values]
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    merged = np.asarray([places[text] for text in texts] + [-1])[codes]  # code -1, a missing value, stays -1
    return pd.Categorical.from_codes(merged, categories=pd.Index(list(places)))


def as_json(report: analysis.TableReport) -> str:
    """Cells, extra rows, claims and deviations; null for what is missing, never NaN."""
    frames = {
        k: json.loads(getattr(report, k).to_json(orient="records")) for k in ("cells", "extra", "deviations")
    }
    claims = plain_json([asdict(c) for c in report.claims])
    whole = {
        "table": report.table,
        "profile": report.profile,
        **frames,
        "claims": claims,
        "notes": report.notes,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def plain_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: plain_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(v) for v in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ------------------------------------------------------------------------------------------------- pages


def build_table(
    env: jinja2.Environment, out: Path, table: str, loaded: store.Store, index: Any
) -> dict[str, Any]:
    """Write the pages and downloads of one table; returns its part of the stamp."""
    pub, runs, grid = facts.load(table), of_table(loaded, table), loaded.grid.get(table, {})
    own = pages.of(table)
    reports = [analyse(loaded, table, profile) for profile in profiles_of(runs)]
    runs = view.ordered_runs(runs, reports)
    with ThreadPoolExecutor(1) as pool:  # writing 200,000 lines leaves the interpreter free to draw meanwhile
        csv_of_runs = pool.submit(runs_csv, runs)
        panes = [view.pane(report, runs, grid) for report in reports]
    files: dict[str, int] = {}

    def save(name: str, content: str | bytes) -> str:
        files[name] = stamp.write(out / name, content)
        return name

    all_runs = ""
    if len(runs):
        ending, content = csv_of_runs.result()
        all_runs = save(f"downloads/{table}_runs.{ending}", content)
    shared = {
        "nav": navigation(index),
        "published": pub,
        "printed": sum(figure.survey is not None for figure in pub.figures.values()),
        "table": table,
        "part": f"parts/{page_name(table)}",
        "score": own.RUN_METRIC.replace("_", " "),
        "total": len(runs),
        "all_runs": all_runs,
    }
    facts_of_table = next(t for t in index["tables"] if t["id"] == table)
    shared["sic"] = facts_of_table.get("sic", False)
    shared["bibtex"] = [b for b in (index["survey"]["bibtex"], facts_of_table.get("bibtex")) if b]
    lines = save_runs(env, save, table, runs, shared)
    for report, pane in zip(reports, panes, strict=True):
        stem = f"downloads/{table}_{figures.slug(report.profile)}"
        formats = {"csv": tables.csv, "tex": tables.latex, "md": tables.markdown, "json": as_json}
        pane["own_files"] = {
            name: save(f"{stem}_{name}", content) for name, content in own.files(report).items()
        }
        pane["downloads"] = [save(f"{stem}.{ending}", write(report)) for ending, write in formats.items()]
        used = set(report.runs["run_id"])
        pane["runs"] = [r for r in lines if r["profile"] == report.profile or r["id"] in used]
    opened = max(range(len(panes)), key=lambda i: (panes[i]["done"], i))
    page = env.get_template("table.html")
    save(page_name(table), page.render(**shared, panes=panes, opened=opened))
    keys = (
        "id",
        "records",
        "done",
        "planned",
        "counts",
        "verdicts",
        "seeds",
        "seconds",
        "median_s",
        "longest_s",
    )
    return {
        "files": files,
        "known": known_profiles(runs, grid),
        "text": {report.profile: tables.terminal(report) for report in reports},
        "summary": [{k: pane[k] for k in keys} for pane in panes],
        "claims": [
            {**ledger.entry(table, r.profile, c), "cells": [list(cell) for cell in c.cells]}
            for r in reports
            for c in r.claims
        ],
        "methods": methods.cells_of(grid),
        "standing": {r.profile: methods.standing(r) for r in reports},
    }


def save_runs(
    env: jinja2.Environment, save: Any, table: str, runs: pd.DataFrame, shared: Any
) -> list[dict[str, Any]]:
    """Write the pages of runs, capped; returns the lines of the runs that are on them, each with its page."""
    shown = runs.head(RUNS_A_PAGE * RUN_PAGES)
    starts = range(0, len(shown), RUNS_A_PAGE)
    names = [page_name(table, f"_runs_{i + 1}") for i in range(len(starts))]
    lines = []
    for number, (name, start) in enumerate(zip(names, starts, strict=True), 1):
        part = view.run_details(shown.iloc[start : start + RUNS_A_PAGE])
        save(name, env.get_template("runs.html").render(**shared, lines=part, number=number, pages=names))
        lines += [{**line, "page": name} for line in part]
    if lines:
        save(page_name(table, "_runs"), env.get_template("browse.html").render(**shared, lines=lines))
    return lines


def build_index(
    env: jinja2.Environment, out: Path, index: Any, stamps: Any, sweeps: list[Any]
) -> dict[str, int]:
    """Write the pages that are about all tables, from what the tables' builds left in their stamps."""
    files: dict[str, int] = {}

    def save(name: str, content: str) -> None:
        files[name] = stamp.write(out / name, content)

    def page(name: str, template: str = "", **values: Any) -> None:
        shared = {"nav": navigation(index), "here": name, "survey": index["survey"]}
        save(name, env.get_template(template or name).render(**shared, **values))

    rows = [{**t, "summary": stamps.get(t["id"], {}).get("summary", [])} for t in index["tables"]]
    order = [t["id"] for t in index["tables"] if t["id"] in stamps]
    lines = [line for table in order for line in stamps[table].get("claims", [])]
    claims = ledger.by_claim(lines)
    titles = {t["id"]: t for t in index["tables"]}
    page(
        "index.html",
        tables=rows,
        sweeps=sweeps,
        counts=ledger.counts(claims),
        surprises=ledger.surprises(claims),
        overturned=ledger.overturned(claims),
    )
    save("downloads/claims.csv", ledger.as_csv(lines))
    save("downloads/claims.json", ledger.as_json(lines))
    profiles = [p for p in PROFILES if any(p in claim["profiles"] for claim in claims)]
    page("claims.html", claims=claims, profiles=profiles, counts=ledger.counts(claims), titles=titles)
    entries = audit.entries()
    page("audit.html", entries=entries, kinds=audit.kinds(entries), cells=audit.cells(order), titles=titles)
    found = [of_method(method, order, stamps, claims, titles) for method in methods.known()]
    page("methods.html", methods=found)
    for one in found:
        page(f"method_{one['id']}.html", "method.html", method=one, titles=titles)
    return files


def of_method(
    method: methods.Method, order: list[str], stamps: Any, claims: list[Any], titles: Any
) -> dict[str, Any]:
    """What the page of a method shows: its rows in each table with what they reached, and their claims."""
    used = []
    for table in order:
        cells = stamps[table].get("methods", {}).get(method.id, [])
        standing = {
            profile: methods.narrowed(lines, cells)
            for profile, lines in stamps[table].get("standing", {}).items()
        }
        standing = {profile: lines for profile, lines in standing.items() if lines}
        about = [c for c in claims if c["table"] == table]
        mine = [c for c in about if any(methods.uses(cells, *cell) for cell in c["cells"])]
        ids = {c["claim"] for c in mine}
        words = [w for w in methods.said(facts.load(table), cells) if ids & set(w["claims"])]
        if standing or words:
            used.append({"table": table, "standing": standing, "claims": mine, "words": words})
    return {**vars(method), "used": used, "counts": ledger.counts([c for u in used for c in u["claims"]])}


def build(runs: Path, out: Path, measured: Path) -> dict[str, Any]:
    """Bring the site in `out` up to date with the records in `runs` and `measured`; returns the new stamp.

    Only tables whose inputs changed are made again, and with them the sweep pages of earlier commands; files
    of the last build that no longer belong are removed.

    Errors: ValueError with one line (folder that cannot be written, record of a newer schema).
    """
    stamp.prepare(out)
    old, index, env = stamp.read(out), facts.index(), environment()
    built = [t["id"] for t in index["tables"] if t["built"]]
    inputs = {table: stamp.inputs(runs, measured, table) for table in built}
    stamps = {
        name: old_stamp
        for name, old_stamp in old.get("tables", {}).items()
        if old_stamp["inputs"] == inputs.get(name) and stamp.intact(out, old_stamp["files"])
    }
    sweeps = [s for s in old.get("sweeps", []) if stamp.intact(out, s["files"])]
    todo = [table for table in built if table not in stamps]
    for table, found in zip(todo, made_again(runs, out, measured, todo), strict=True):
        stamps[table] = {"inputs": inputs[table], **found}
    if todo and sweeps:
        loaded = store.load(runs, measured, cache=out / CACHE)
        sweeps = sweep.again(env, out, judged(loaded), navigation(index), sweeps)
    keep = {name for s in [*stamps.values(), *sweeps] for name in s["files"]}
    for s in [*old.get("tables", {}).values(), *old.get("sweeps", [])]:
        for name in set(s["files"]) - keep:
            (out / name).unlink(missing_ok=True)
    return finish(env, out, index, stamps, sweeps)


def made_again(runs: Path, out: Path, measured: Path, todo: list[str]) -> list[dict[str, Any]]:
    """What build_table returns for each table, of several tables with many records in processes of their own,
    the largest first.
    """
    make = partial(build_alone, runs, out, measured)
    sizes = {table: stamp.size(runs, measured, table) for table in todo}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, MOST_WORKERS, sum(size > MANY_BYTES for size in sizes.values()))
    if workers < 2:
        return [make(table) for table in todo]
    largest_first = sorted(todo, key=lambda table: -sizes[table])
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = {table: pool.submit(make, table) for table in largest_first}
        try:
            return [jobs[table].result() for table in todo]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def build_alone(runs: Path, out: Path, measured: Path, table: str) -> dict[str, Any]:
    loaded = store.load(runs, measured, cache=out / CACHE, table=table)
    return build_table(environment(), out, table, loaded, facts.index())


def judged(loaded: store.Store) -> pd.DataFrame:
    """All records, with a column `stale`."""
    frame = loaded.frame.assign(stale=False)
    for table, grid in loaded.grid.items():
        mine = frame["table"] == table
        frame.loc[mine, "stale"] = stale(frame[mine], grid)
    return frame


def build_sweep(runs: Path, out: Path, measured: Path, query: dict[str, str]) -> dict[str, Any]:
    """Make the page of a sweep and enter it in the site's index; returns what `sweep.page` does."""
    stamp.prepare(out)
    index, env, old = facts.index(), environment(), stamp.read(out)
    loaded = store.load(runs, measured, cache=out / CACHE)
    found = sweep.page(env, out, judged(loaded), navigation(index), query)
    sweeps = [s for s in old.get("sweeps", []) if s["file"] != found["file"]] + [found]
    finish(env, out, index, old.get("tables", {}), sweeps)
    return found


def finish(env: jinja2.Environment, out: Path, index: Any, stamps: Any, sweeps: list[Any]) -> dict[str, Any]:
    files = build_index(env, out, index, stamps, sweeps)
    new = {"version": stamp.VERSION, "tables": stamps, "sweeps": sweeps, "index": files}
    stamp.write(out / stamp.FILE, json.dumps(new))
    return new


def terminal(runs: Path, measured: Path, table: str, profile: str | None) -> str:
    """The comparison of one table for the terminal, without building anything."""
    facts.load(table)  # says which tables there are before anything is read
    loaded = store.load(runs, measured, table=table)
    mine = of_table(loaded, table)
    check_profile(profile, mine, loaded.grid.get(table, {}))
    wanted = [profile] if profile else profiles_of(mine)
    return "\n\n".join(tables.terminal(analyse(loaded, table, p)) for p in wanted)
