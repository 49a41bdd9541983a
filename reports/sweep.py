"""A page for a sweep: any metric against one or two swept parameters, over any records, on or off the grid.

Runs are never pooled over anything but their seed: runs on different data, or with another config key that
differs, are different lines of the figure and different rows of the table.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from reports import figures, stamp, statistics, store
from reports.figures import slug

LINES, MAPS, ROWS = (
    8,
    6,
    500,
)  # drawn lines a data set, heat maps a page, rows of the HTML table; the CSV has everything
LONGEST = 120  # characters of a page's name, before its hash and ending
PER_EXAMPLE = {"metrics.test_error", "metrics.test_error_last", "metrics.test_error_best"}
NOT_KEYS = ("file", "offset", "config", "sha256")


def unit_of(column: str, runs: pd.DataFrame) -> str:
    """Axis label of a metric with its unit."""
    name = column.rsplit(".", 1)[-1]
    if name.endswith("variance"):
        return f"{name.replace('_', ' ')} (%²)"
    if name.endswith(("error", "error_last", "error_best")):
        balanced = (
            len(runs) and "data.error" in runs and set(runs["data.error"].dropna()) == {"balanced_error"}
        )
        return f"{'balanced ' if balanced else ''}{name.replace('_', ' ')} (%)"
    for ending, unit in {"_s": "s", "_per_s": "1/s", "_bytes": "bytes"}.items():
        if name.endswith(ending):
            unit = "1/s" if name.endswith("_per_s") else unit
            return f"{name} ({unit})"
    if "accuracy" in name:
        return f"{name.replace('_', ' ')} (%)"
    return f"{name.replace('_', ' ')} (epoch)" if name.startswith("epoch_") else name.replace("_", " ")


def text_of(value: Any) -> str:
    """A config value as the command line spells it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str) and value.startswith("["):  # a list, kept as JSON
        with contextlib.suppress(json.JSONDecodeError):
            return f"[{','.join(text_of(v) for v in json.loads(value))}]"
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return str(value)
    return f"{value:.10g}"


def order(values: list[str]) -> tuple[list[str], bool]:
    """Values in a natural order (numbers rising, then words) and whether all are numbers."""

    def key(text: str) -> tuple[int, float, str]:
        try:
            return 0, float(text), ""
        except ValueError:
            return 1, 0.0, text

    ordered = sorted(set(values), key=key)
    return ordered, bool(ordered) and all(key(v)[0] == 0 for v in ordered)


def find(frame: pd.DataFrame, name: str) -> str:
    """The column that `name` means. Errors: ValueError, one line with the keys there are."""
    shown = [c for c in frame.columns if c not in NOT_KEYS and frame[c].notna().any()]
    try:
        return store.resolve(frame[shown], name)
    except ValueError as error:
        keys = sorted(c.split(".", 1)[1] for c in shown if c.startswith(("config.", "metrics.")))
        raise ValueError(
            str(error) if "there are" in str(error) else f"{error}; keys: {', '.join(keys)}"
        ) from None


def select(frame: pd.DataFrame, table: str, where: Mapping[str, str]) -> pd.DataFrame:
    """Runs of the table whose keys have one of the given values, `a` or `a,b`; numbers compare as numbers
    (0.010 is 0.01).
    """
    mine = frame[frame["table"] == table] if len(frame) else frame
    if mine.empty:
        raise ValueError(f"no records of {table} yet: run `python -m experiments -m table={table}` first")
    for name, value in where.items():
        column = find(mine, name)
        have = mine[column].map(text_of)
        want = set()
        for one in [value] if value.startswith("[") else value.split(","):
            want.add(text_of(one))
            with contextlib.suppress(ValueError):
                want.add(text_of(float(one)))
        hit = mine[have.isin(want)]
        if hit.empty:
            raise ValueError(
                f"no record of {table} has {name}={value}; there are: {', '.join(order(list(have))[0][:20])}"
            )
        mine = hit
    return mine


def estimate(values: list[float], examples: int | None) -> dict[str, float]:
    """n, mean, sd (ddof=1), 95 % interval over seeds and, for an error rate, over draws of the test set."""
    sample = statistics.Sample(dict(enumerate(values)), examples)
    low, high = statistics.contrast({0: 1.0}, {0: sample}).limits(0.025, 0.025)
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    ends = (low, high) if math.isfinite(low) else (math.nan, math.nan)
    return {"n": len(values), "mean": float(np.mean(values)), "sd": sd, "low": ends[0], "high": ends[1]}


def varying(runs: pd.DataFrame, used: set[str]) -> list[str]:
    """Config columns other than the swept ones that differ between these runs."""
    columns = [
        c
        for c in runs.columns
        if c.startswith("config.") and c not in used | {"config.seed", "config.data.name"}
    ]
    return [c for c in columns if runs[c].nunique(dropna=False) > 1]


def told_apart(runs: pd.DataFrame) -> pd.Series:
    """Names of the data sets; with the beginning of its fingerprint where one name stands for several sets of
    the user's, which differ in their content alone.
    """
    names, marks = runs["data.name"].astype(str), runs["data.fingerprint"].astype(str)
    keys = [c for c in runs.columns if c.startswith("config.data.")]
    options = runs[keys].map(text_of).agg(" ".join, axis=1) if keys else names
    several = marks.groupby([names, options]).transform("nunique") > 1
    return names.where(~several, names + " " + marks.str[:6])


def summarise(runs: pd.DataFrame, x: str, y: str, x2: str | None) -> pd.DataFrame:
    """One row a (data, setting of everything else, x, x2): n, mean, sd, low, high, failed, diverged."""
    swept = [x] + ([x2] if x2 else [])
    out = []
    for data, part in runs.groupby(runs["data.name"].astype(str), sort=True):
        rest = varying(part, set(swept))
        texts = pd.DataFrame({c: part[c].map(text_of) for c in swept + rest})
        # A setting is called by its row, where the row does not change along the axes.
        rows = part.groupby([texts[c] for c in rest])["cell.row"].nunique() if rest else pd.Series([0])
        named = rows.max() == 1 and part["cell.row"].nunique() > 1
        per_example = y in PER_EXAMPLE and set(part["data.error"].dropna()) == {"error"}
        for key, group in part.groupby([texts[c] for c in swept + rest], sort=False):
            rated = y in PER_EXAMPLE  # an error in %: 100 where the run diverged, as in the tables
            ends = zip(group[y], group["status"], strict=True)
            values = [
                100.0 if rated and status == "diverged" else float(v)
                for v, status in ends
                if v is not None and math.isfinite(v)
            ]
            settings = [
                f"{c.removeprefix('config.')}={v}" for c, v in zip(rest, key[len(swept) :], strict=True)
            ]
            if named:
                settings = [f"row={group['cell.row'].iloc[0]}", *settings]
            setting = ", ".join(settings)
            examples = int(group["data.n_test"].iloc[0]) if per_example else None
            numbers = (
                estimate(values, examples)
                if values
                else dict.fromkeys(("mean", "sd", "low", "high"), math.nan) | {"n": 0}
            )
            if unit_of(y, part).endswith("(%)"):  # as in the tables: it lies there, whatever the spread
                numbers["low"], numbers["high"] = max(numbers["low"], 0.0), min(numbers["high"], 100.0)
            failed, diverged = (int((group["status"] == s).sum()) for s in ("failed", "diverged"))
            out.append(
                {
                    "data": data,
                    "setting": setting,
                    "x": key[0],
                    "x2": key[1] if x2 else "",
                    **numbers,
                    "failed": failed,
                    "diverged": diverged,
                }
            )
    return pd.DataFrame(out)


def shared(settings: list[str]) -> str:
    """The key=value parts that all of the settings have."""
    parts = [s.split(", ") for s in settings]
    return ", ".join(p for p in parts[0] if all(p in other for other in parts)) if len(parts) > 1 else ""


def distinct(setting: str, settings: list[str]) -> str:
    """A setting without what all of the settings share."""
    common = shared(settings).split(", ")
    return ", ".join(p for p in setting.split(", ") if p not in common)


def draw(
    rows: pd.DataFrame, runs: pd.DataFrame, x: str, y: str, x2: str | None
) -> tuple[list[str], list[str]]:
    """(figures, remarks on what was left out)."""
    svgs: list[str] = []
    remarks: list[str] = []
    short = lambda column: column.removeprefix("config.")  # noqa: E731
    for data, part in rows[rows["n"] > 0].groupby("data", sort=True):
        label = unit_of(y, runs[runs["data.name"] == data])
        settings = (
            part.groupby("setting")["n"].sum().sort_values(ascending=False, kind="stable").index.tolist()
        )
        xs, numeric = order(part["x"].tolist())
        if x2:
            ys, _ = order(part["x2"].tolist())
            for setting in settings[:MAPS]:
                mine = part[part["setting"] == setting]
                grid, counts = np.full((len(ys), len(xs)), np.nan), np.zeros((len(ys), len(xs)))
                for r in mine.to_dict("records"):
                    grid[ys.index(r["x2"]), xs.index(r["x"])] = r["mean"]
                    counts[ys.index(r["x2"]), xs.index(r["x"])] = r["n"]
                title = f"{data}" + (f": {setting}" if setting else "")
                svgs.append(
                    figures.heat(
                        f"heat-{len(svgs)}",
                        title,
                        xs,
                        ys,
                        grid,
                        counts,
                        xlabel=short(x),
                        ylabel=short(x2),
                        zlabel=label,
                    )
                )
            left = len(settings) - MAPS
        else:
            lines = []
            for setting in settings[:LINES]:
                mine = part[part["setting"] == setting].set_index("x").reindex(xs).dropna(subset=["mean"])
                at = [float(v) if numeric else xs.index(v) for v in mine.index]
                ends = [mine[k].fillna(mine["mean"]).tolist() for k in ("low", "high")]
                lines.append(
                    figures.Series(
                        distinct(setting, settings[:LINES]) or "mean", at, mine["mean"].tolist(), *ends
                    )
                )
            positions = [float(v) for v in xs] if numeric else []
            log = numeric and min(positions) > 0 and max(positions) / min(positions) >= 30
            names = None if numeric else xs
            same = shared(settings[:LINES])
            title = str(data) + (f" ({same})" if same else "")
            svgs.append(
                figures.line(
                    f"line-{len(svgs)}", title, lines, xlabel=short(x), ylabel=label, labels=names, log_x=log
                )
            )
            left = len(settings) - LINES
        if left > 0:
            remarks.append(
                f"{data}: the settings with the most runs are drawn; {left} more are in the table and CSV. "
                "Narrow the sweep with key=value."
            )
    return svgs, remarks


def page(
    env: jinja2.Environment,
    out: Path,
    frame: pd.DataFrame,
    nav: list[tuple[str, str]],
    query: Mapping[str, str],
) -> dict[str, Any]:
    """Write the page and the CSV of a sweep; `query`: table, x, y, perhaps x2, any key=value to select by.

    Returns {"file", "files", "title", "query", "text"}. Errors: ValueError with one line.
    """
    where = {k: v for k, v in query.items() if k not in ("table", "x", "y", "x2")}
    runs = select(frame, query["table"], where)
    x, y = find(runs, query["x"]), find(runs, query["y"])
    x2 = find(runs, query["x2"]) if query.get("x2") else None
    if x2 == x or y in (x, x2):
        raise ValueError("x, x2 and y must be three different keys")
    values = pd.to_numeric(runs[y], errors="coerce")
    if values.isna().all() or runs[y].dtype == bool:
        raise ValueError(f"y={query['y']} holds no numbers; take a metric such as test_error")
    without = int(runs[x].isna().sum())
    runs = runs.assign(**{y: values})[runs[x].notna()]
    runs = runs.assign(**{"data.name": told_apart(runs)})
    rows = summarise(runs, x, y, x2)
    for column in ("x2", "x"):
        place = {v: i for i, v in enumerate(order(rows[column].tolist())[0])}
        rows = rows.sort_values(column, key=lambda s, place=place: s.map(place), kind="stable")
    rows = rows.sort_values(["data", "setting"], kind="stable")
    keys = [query[k] for k in ("x", "x2", "y") if query.get(k)] + [f"{k}-{v}" for k, v in where.items()]
    name = "_".join(["sweep", query["table"], *map(slug, keys)])
    if len(name) > LONGEST:
        name = f"{name[:LONGEST]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    title = f"{query['y']} against {query['x']}" + (f" and {query['x2']}" if x2 else "")
    svgs, remarks = draw(rows, runs, x, y, x2)
    if "stale" in runs and (stale := int(runs["stale"].sum())):
        remarks.insert(0, f"{stale} of {len(runs)} runs are stale: made by other code than the last sweep's.")
    if without:
        remarks.insert(
            0, f"{without} runs have no {query['x']} (it does not apply to them) and are left out."
        )
    table = rows.rename(columns={"x": query["x"], "x2": query.get("x2") or "_"}).drop(
        columns="_", errors="ignore"
    )
    command = "python -m reports sweep " + " ".join(f"{k}={v}" for k, v in query.items())
    files = {
        f"downloads/{name}.csv": stamp.write(out / "downloads" / f"{name}.csv", table.to_csv(index=False))
    }
    text = env.get_template("sweep.html").render(
        nav=nav, title=title, table=query["table"], where=where, command=command, remarks=remarks,
        svgs=[Markup(s) for s in svgs],
        rows=rows.head(ROWS).to_dict("records"), total=len(rows), runs=len(runs), csv=f"downloads/{name}.csv",
        x=query["x"], x2=query.get("x2", ""), y=unit_of(y, runs),
        settings=bool((rows["setting"] != "").any()),
    )  # fmt: skip
    files[f"{name}.html"] = stamp.write(out / f"{name}.html", text)
    return {
        "file": f"{name}.html",
        "files": files,
        "title": f"{query['table']}: {title}",
        "query": dict(query),
        "text": terminal(rows, query),
    }


def clipped(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def terminal(rows: pd.DataFrame, query: Mapping[str, str], most: int = 40) -> str:
    """The sweep as lines for the terminal."""
    head = [
        "data",
        *(["setting"] if (rows["setting"] != "").any() else []),
        query["x"],
        *([query["x2"]] if query.get("x2") else []),
        query["y"],
        "95 % interval",
        "n",
    ]
    lines = [head]
    for r in rows.head(most).to_dict("records"):
        ends = f"{figures.number(r['low'])} .. {figures.number(r['high'])}"
        middle = [clipped(r["setting"])] if "setting" in head else []
        lines.append(
            [
                str(r["data"]),
                *middle,
                r["x"],
                *([r["x2"]] if query.get("x2") else []),
                figures.number(r["mean"]),
                ends,
                str(r["n"]),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    return text + (f"\n... {len(rows) - most} more rows in the page and the CSV" if len(rows) > most else "")


def again(
    env: jinja2.Environment,
    out: Path,
    frame: pd.DataFrame,
    nav: list[tuple[str, str]],
    sweeps: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """The sweep pages of earlier commands with today's records; one whose keys are gone is dropped."""
    found = []
    for old in sweeps:
        try:
            found.append(page(env, out, frame, nav, old["query"]))
        except ValueError:
            for file in old["files"]:
                (out / file).unlink(missing_ok=True)
    return found
