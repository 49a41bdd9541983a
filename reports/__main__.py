"""The command line of the reports: `python -m reports help`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from reports import published, stamp

USAGE = """\
python -m reports [runs=DIR] [out=DIR] [table=T3] [profile=quick]
    Build the site from all records there are, print the comparison, name the page.
python -m reports sweep table=T3 x=alpha y=test_error [x2=optimizer.lr] [KEY=VALUE ...]
    A page for any metric against one or two swept parameters; KEY=VALUE keeps the runs with that value.
python -m reports print table=T3 [profile=quick]
    The comparison alone, in the terminal.
python -m reports snapshot table=T3
    Put a compact copy of the records under reports/measured/, for committing.
python -m reports readme [table=T3] [file=README.md]
    Write the README's results section and its pictures from that copy; without a table the overview of all.
python -m reports rank FILE.csv [baseline=METHOD] [n=SIZES.csv] [out=DIR]
    Rank any methods over any data sets (a line a set, a column a method): mean ranks, paired tests, diagram.
python -m reports serve [port=8000] [dir=reports/output]
    Browse the site on this machine (127.0.0.1 only).

runs=runs          where the records are         out=reports/output   where the site goes
measured=DIR       the committed records (reports/measured)
Status: 0 done, 2 bad input (one line says what)."""

DEFAULTS = {"runs": "runs", "out": "reports/output", "measured": str(Path(__file__).parent / "measured")}
KEYS: dict[str, list[str | None]] = {  # command -> keys it knows; None = any further key selects runs
    "build": ["runs", "out", "measured", "table", "profile"],
    "sweep": ["runs", "out", "measured", "table", "x", "y", "x2", None],
    "print": ["runs", "measured", "table", "profile"],
    "snapshot": ["runs", "measured", "table"],
    "readme": ["measured", "table", "file"],
    "rank": ["file", "baseline", "n", "out"],
    "serve": ["port", "dir"],
}
NEEDED = {
    "sweep": ["table", "x", "y"],
    "print": ["table"],
    "snapshot": ["table"],
    "rank": ["file"],
}


def parse(words: list[str]) -> tuple[str, dict[str, str]]:
    """(command, options) of the command line. Errors: ValueError with one line."""
    command, rest = "build", list(words)
    if rest and "=" not in rest[0]:
        command = rest.pop(0)
    if command not in KEYS:
        raise ValueError(f"unknown command {command!r}: one of {', '.join(KEYS)}, or help")
    known = KEYS[command]
    options: dict[str, str] = {}
    if command == "rank" and rest and not rest[0].startswith("file="):
        rest[0] = f"file={rest[0]}"
    for word in rest:
        key, equals, value = word.partition("=")
        if not equals or not key or not value:
            raise ValueError(f"{word!r} is not of the form key=value (see `python -m reports help`)")
        if key not in known and None not in known:
            raise ValueError(f"unknown key {key!r} for {command}: one of {', '.join(k for k in known if k)}")
        if key in options:
            raise ValueError(f"{key} is given twice")
        options[key] = value
    for key in NEEDED.get(command, []):
        if key not in options:
            raise ValueError(f"{command} needs {key}=...: {example(command)}")
    if "runs" in options and not Path(options["runs"]).is_dir():
        raise ValueError(f"runs={options['runs']} is not a folder")
    return command, options


def example(command: str) -> str:
    return next(line for line in USAGE.splitlines() if line.startswith(f"python -m reports {command}"))


def where(options: dict[str, str], key: str) -> Path:
    return Path(options.get(key, DEFAULTS[key]))


def build(options: dict[str, str]) -> int:
    runs, out, measured = (where(options, key) for key in ("runs", "out", "measured"))
    built = [t["id"] for t in published.index()["tables"] if t["built"]]
    if "table" in options:
        published.load(options["table"])
    old = stamp.read(out)
    new = old if unchanged(old, built, runs, out, measured) else None
    if new is None:
        from reports import site, store  # pandas, scipy and matplotlib: a second and a half

        profile, table = options.get("profile"), options.get("table")
        if profile is not None and profile not in site.PROFILES:  # before minutes go into a whole site
            loaded = store.load(runs, measured, table=table)
            site.check_profile(profile, loaded.frame, *loaded.grid.values())
        new = site.build(runs, out, measured)
    for table in [options["table"]] if "table" in options else built:
        made = new["tables"][table]
        wanted = chosen(options.get("profile"), made["text"], made["known"])
        if "table" not in options:
            print(line_of(table, made["summary"], options.get("profile")))
            continue
        text = made["text"]
        for profile in wanted:
            print(
                text.get(profile, f"{table}, profile {profile}: no records yet."),
                end="\n\n",
            )
        page = out / f"table_{int(table[1:]):02d}.html"
        print(f"{table}: {page.resolve().as_uri()}" + (f"#{wanted[0]}" if len(wanted) == 1 else ""))
    print(
        f"All tables: {(out / 'index.html').resolve().as_uri()}"
        + ("  (nothing new since the last build)" if new is old else "")
    )
    return 0


def line_of(table: str, summary: list[dict[str, Any]], profile: str | None) -> str:
    """A table in one line: records and verdicts of each profile. `python -m reports table=...` prints it."""
    told = []
    for pane in summary:
        if profile in (None, pane["id"]):
            counts = ", ".join(f"{n} {verdict}" for verdict, n in pane["verdicts"].items() if n)
            told.append(
                f"{pane['id']} ({pane['records']} runs) {counts}" if pane["records"] else "no records"
            )
    return f"{table:4s} " + ("; ".join(told) or f"no records of profile {profile}")


def chosen(profile: str | None, text: dict[str, Any], known: list[str]) -> list[str]:
    if profile is None:
        return list(text)
    if profile not in known:
        raise ValueError(f"unknown profile {profile!r}: one of {', '.join(known)}")
    return [profile]


def unchanged(old: dict[str, Any], built: list[str], runs: Path, out: Path, measured: Path) -> bool:
    """Whether the last build saw the same records, facts and code, and its files are all still there."""
    tables = old.get("tables", {})
    if not old or "index" not in old or set(tables) != set(built) or not stamp.intact(out, old["index"]):
        return False
    if not all(stamp.intact(out, s["files"]) for s in old["sweeps"]):
        return False
    return all(
        t["inputs"] == stamp.inputs(runs, measured, name) and stamp.intact(out, t["files"])
        for name, t in tables.items()
    )


def sweep(options: dict[str, str]) -> int:
    from reports import site

    published.load(options["table"])
    out = where(options, "out")
    query = {k: v for k, v in options.items() if k not in ("runs", "out", "measured")}
    found = site.build_sweep(where(options, "runs"), out, where(options, "measured"), query)
    print(found["text"])
    print(f"\nPage: {(out / found['file']).resolve().as_uri()}")
    return 0


def print_table(options: dict[str, str]) -> int:
    from reports import site

    print(
        site.terminal(
            where(options, "runs"), where(options, "measured"), options["table"], options.get("profile")
        )
    )
    return 0


def snapshot(options: dict[str, str]) -> int:
    from reports import snapshot as room

    print(room.snapshot(where(options, "runs"), where(options, "measured"), options["table"]))
    return 0


def readme(options: dict[str, str]) -> int:
    from reports import readme as room

    table, measured = options.get("table", ""), where(options, "measured")
    if table:
        published.load(table)
    file = Path(options["file"]) if "file" in options else room.home_of(table, measured)
    print(room.update(file, measured, table) if table else room.overview(file, measured))
    return 0


def rank(options: dict[str, str]) -> int:
    from reports import figures, ranking

    file = Path(options["file"])
    table = ranking.read(file, options.get("n"))
    if "baseline" in options:
        ranking.check_baseline(table, options["baseline"])
    out = where(options, "out")
    out.mkdir(parents=True, exist_ok=True)
    for name, part in ranking.selections(table).items():
        found, title = ranking.ranking(part, options.get("baseline")), ranking.TITLES[name]
        methods, means = [line.method for line in found.lines], [line.rank for line in found.lines]
        heading = f"{file.stem}, {title} ({found.sets})"
        stem = f"rank_{figures.slug(file.stem)}_{name}"
        svg = figures.critical_difference(stem, heading, methods, means, found.groups(), found.cd)
        stamp.write(out / f"{stem}.svg", figures.on_white(svg))
        print(f"{ranking.text(found, title)}\nDiagram: {(out / f'{stem}.svg').resolve().as_uri()}\n")
    return 0


def serve(options: dict[str, str]) -> int:
    from reports.serve import serve as run

    port = options.get("port", "8000")
    if not port.isascii() or not port.isdigit():
        raise ValueError(f"port={port} is not a number")
    return run(Path(options.get("dir", DEFAULTS["out"])), int(port))


COMMANDS = {
    "build": build,
    "sweep": sweep,
    "print": print_table,
    "snapshot": snapshot,
    "readme": readme,
    "rank": rank,
    "serve": serve,
}


def main(words: list[str]) -> int:
    with contextlib.suppress(
        AttributeError, ValueError
    ):  # a terminal that cannot show "±" gets "?" rather than a traceback
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    if (words and words[0] == "help") or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    try:
        command, options = parse(words)
        return COMMANDS[command](options)
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = None
        return 0
    except FileNotFoundError as error:
        named = f"{error.filename} does not exist" if error.filename else " ".join(str(error).split())
        print(f"error: {named}", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print("error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; pages already written are whole, run again to finish", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
