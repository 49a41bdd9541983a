"""python -m experiments table=T3 ...: one run. python -m experiments -m table=T3 ...: a sweep. --help
explains the words.

Exit status: 0 all done, 1 some run failed, 2 what was typed cannot be run (one line says why), 130
interrupted.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import config, distributed, grid
from experiments.config import CONF, BadInput


def main(argv: list[str]) -> int:
    debug = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets exceptions through, and they become one line here
    try:
        return _main(argv)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    except PermissionError as e:
        if debug or not e.filename:
            raise
        print(f"{e.filename}: {e.strerror}; give yourself the right, or another folder", file=sys.stderr)
        return 2
    except (BadInput, HydraException, OmegaConfBaseException) as e:
        if debug:
            raise
        print(one_line(e), file=sys.stderr)
        if distributed.rank() > 0:
            time.sleep(10)  # torchrun ends all processes when one fails: the first is to have said why
        return 2


def _main(argv: list[str]) -> int:
    args = arguments(argv)
    if args.multirun and distributed.size() > 1:
        raise BadInput("several processes train one run: leave out -m, or leave out torchrun")
    asks = args.help or args.hydra_help or args.shell_completion or args.info
    for o in grid.parse([] if asks else args.overrides):
        group = CONF / str(o.key_or_group)
        if o.value() is None and group.is_dir() and not o.is_delete():  # Hydra would end in a traceback
            raise BadInput(
                f"{o.input_line}: choose one of {', '.join(sorted(f.stem for f in group.glob('*.yaml')))}"
            )
    if not asks and not args.multirun:
        argv = [
            *(a for a in argv if a not in args.overrides),
            *completed(args.overrides, args.config_dir, running=not args.cfg),
        ]
    sys.argv = ["python -m experiments", *argv]
    entry = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    if asks or args.cfg:
        try:
            entry(lambda cfg: None)()
            sys.stdout.flush()
        except BrokenPipeError:  # `--help | head` has seen enough
            sys.stdout = None
        return 0
    from experiments import job, sweep

    if args.multirun:
        sys.argv[1:] = [grid.as_axis(a) if a in args.overrides else a for a in argv]
        if not any(o.startswith("table=") for o in args.overrides):
            grid.table_module(OmegaConf.create())
        entry(job.run)()
        status = summary(sweep.last_outcome)
        show(args.overrides, sweep.last_outcome)
        return status
    results: dict[str, str] = {}
    folders: list[Path] = []
    raised: list[Exception] = []

    def run_one(cfg: DictConfig) -> None:
        folders.append(Path(cfg.runs) / cfg.table)
        try:
            results.update(job.run(cfg))
        except BadInput as e:  # Hydra would print the overrides before it
            raised.append(e)

    entry(run_one)()
    if raised:
        raise raised[0]
    for run_id, outcome in results.items():
        print(
            f"{run_id}: {outcome}"
            + (" (checkpoint written; the same command goes on)" if outcome == "interrupted" else "")
        )
        if outcome == "failed":
            print(failure(folders[0], run_id), file=sys.stderr)
        elif line := result(folders[0], run_id):
            print(line)
    words = set(results.values())
    return 130 if "interrupted" in words else 1 if words & {"failed"} else 0


def arguments(argv: list[str]) -> Any:
    """Hydra's own flags and the overrides; BadInput with argparse's last line, without its usage."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return get_args_parser().parse_args(argv)
    except SystemExit as e:
        if not e.code:
            raise
        raise BadInput(
            f"{said.getvalue().strip().splitlines()[-1].partition('error: ')[2]} (see --help)"
        ) from e


def completed(overrides: list[str], config_dir: str | None, running: bool) -> list[str]:
    """What was typed, plus what the point of the grid that agrees with it says: `column=ni` brings its data
    set and network.
    """
    if not running and not any(o.startswith("table=") for o in overrides):
        return overrides
    for o in grid.parse(overrides):
        if o.is_sweep_override():
            raise BadInput(f"{o.input_line}: several values need -m (python -m experiments -m ...)")
    extra = [f"hydra.searchpath=[file://{os.path.abspath(config_dir)}]"] if config_dir else []
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
        compose_here = grid.cached(lambda words: compose("config", [*words, *extra]))
        mine = [o for o in overrides if not o.startswith("hydra")]
        point = grid.points(mine, compose_here, grid.expand(mine, compose_here)[:1])[0]
        typed_keys = {grid.key_of(o) for o in grid.parse(mine)}
        words = [f"{k}={v}" for k, v in point.assignment.items() if k not in typed_keys]
        if running:
            from experiments import sweep

            cfg = sweep.settings([*words, *mine], compose_here)
            if unfit := sweep.drop_unfit([point], mine, cfg, compose_here)[1]:
                raise BadInput(unfit[0])
            sweep.store.check_writable(sweep.Path(cfg.runs))
            sweep.fingerprint(
                point, compose_here
            )  # a missing data set is known here, in one line, not in the job
            sweep.leave_notes([point], cfg, compose_here, sweep.Path(cfg.runs) / cfg.table)
            words.append(f"paper={point.member['paper'] or 'null'}")
    return [*words, *overrides]


def show(overrides: list[str], outcome: Any) -> None:
    """The sweep's result table and the path of its page, from the reports (a process of its own: no room
    imports that one).

    Of the whole grid the comparison with the survey. Of axes typed here, and of runs off the grid, which
    that comparison leaves out, the page of the first two axes, for what was typed alone: with report=false
    the command that makes it.
    """
    if not any(word != "interrupted" for word in outcome.runs.values()):
        return
    typed_in = {
        grid.key_of(o).lstrip("+"): grid.values(o) for o in grid.parse(overrides) if not o.is_delete()
    }
    swept = [k for k, v in typed_in.items() if len(v) > 1 and k not in ("seed", "column", "rerun")]
    words = [f"table={outcome.table}", f"runs={outcome.folder}"]
    off = bool(swept) or not outcome.on_grid
    if off:
        xs = list(dict.fromkeys([*swept, *outcome.axes]))[: max(len(swept), 1)] or ["seed"]
        words = ["sweep", *words, f"x={xs[0]}", f"y={outcome.metric}", *(f"x2={k}" for k in xs[1:2])]
        keys = {"profile", "column", *outcome.example}  # typed keys that records have
        keys |= {"row"}
        # What is typed beside rows and columns may make others of them.
        named = {k: v for k, v in (("row", outcome.rows), ("column", outcome.columns)) if k in typed_in}
        if any("," in row for row in outcome.rows):  # no list of those can be typed
            keys.discard("row")
        unheard = ("table", "data.path", "data.root", "data.cache")  # in no record
        words += [
            f"{k}={','.join(v)}"
            for k, v in {"profile": [outcome.profile], **typed_in, **named}.items()
            if k.partition(".")[0] in keys and "custom" not in v and k not in unheard
        ]
    else:
        words += [f"profile={outcome.profile}"]
    if not outcome.report:
        if off:
            print(f"the table of these runs: python -m reports {shlex.join(words)}")
        return
    sys.stdout.flush()
    begun, root = time.time(), config.CONF.parent
    done = subprocess.run([sys.executable, "-m", "reports", *words], cwd=root, check=False)
    if outcome.tracking and done.returncode == 0:
        from experiments import tracking

        mine = f"table_{int(outcome.table[1:]):02d}.html"
        made = [p for p in (root / "reports" / "output").glob("sweep*.html") if p.stat().st_mtime >= begun]
        page = max(made, key=lambda p: p.stat().st_mtime) if off and made else root / "reports/output" / mine
        tracking.report(outcome.tracking, page)


def summary(outcome: Any) -> int:
    """What became of the sweep, on the terminal; returns the exit status."""
    by_word: dict[str, list[str]] = {}
    for run_id, word in outcome.runs.items():
        by_word.setdefault(word, []).append(run_id)
    if by_word:
        print(f"{outcome.table}: " + ", ".join(f"{len(ids)} {word}" for word, ids in sorted(by_word.items())))
    if "busy" in by_word:
        print("busy: another process is at work on them")
    for run_id in by_word.get("failed", []):
        print(failure(outcome.folder / outcome.table, run_id), file=sys.stderr)
    if outcome.interrupted or {"interrupted", "lost"} & by_word.keys():
        print("interrupted; run the same command again to go on from the checkpoints", file=sys.stderr)
    status: int = outcome.exit_status
    return status


def result(folder: Path, run_id: str) -> str:
    """The metrics of a run that has a record of its own, and where that is; "" for others."""
    from experiments import store

    path = folder / run_id / "record.json"
    record = store.unseal(path.read_bytes()) if path.exists() else None
    metrics = (record or {}).get("metrics")
    if not metrics:
        return ""
    return ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if v is not None) + f"\nrecord: {path}"


def failure(folder: Path, run_id: str) -> str:
    """One line: the run, the end of its traceback, and where the rest is."""
    from experiments import store

    path = folder / run_id / "record.json"
    record = store.unseal(path.read_bytes()) if path.exists() else None
    if record is None or not record.get("error"):  # a job that failed before its runs could leave records
        return f"  failed: {run_id} (the next sweep tries again)"
    last = record["error"].strip().splitlines()[-1]
    return f"  failed: {run_id}: {last} (traceback in {path}; the next sweep tries again)"


def one_line(e: Exception) -> str:
    """Hydra's and OmegaConf's errors in one line: what, and what there is."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    if not lines:
        return type(e).__name__
    first = lines[0]
    if isinstance(e, OverrideParseException):
        return f"{e.override}: cannot be read ({first})"
    missing = re.match(r"Could not override '([^']+)'", first)
    if missing and "is not in struct" in f"{first} {e.__cause__}":
        return f"{missing[1]}: no such setting (python -m experiments table=T3 --help lists those of a table)"
    if "Could not find" in first and len(lines) > 2 and lines[1].startswith("Available options"):
        options = [line for line in lines[2:] if "=" not in line and not line.startswith("Config search")]
        return f"{first} (available: {', '.join(options)})"
    if isinstance(e.__cause__, OmegaConfBaseException) and str(e.__cause__).splitlines()[0] not in first:
        first += f": {str(e.__cause__).splitlines()[0]}"
    return first


if __name__ == "__main__":
    with distributed.quiet_others():
        sys.exit(main(sys.argv[1:]))
