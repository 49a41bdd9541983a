"""A sweep: the grid expanded, what is done dropped, the rest folded into jobs and handed to one of Hydra's
launchers.
"""

from __future__ import annotations

import _thread
import contextlib
import importlib
import itertools
import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from omegaconf import DictConfig
from tqdm import tqdm

import data
from experiments import config, grid, provenance, store, tracking
from experiments.config import BadInput
from experiments.grid import Compose, Point
from experiments.job import clock, data_options

Launch = Callable[
    [list[list[str]], int], Sequence[Any]
]  # jobs and the number of the first -> what each returned


@dataclass
class Outcome:
    """{run_id: what became of it} of everything the sweep was asked for, and what it could not take."""

    table: str
    profile: str
    metric: str  # what the table is about
    folder: Path  # the store
    report: bool  # whether the reports are wanted at the end
    runs: dict[str, str]
    unfit: list[str]
    example: dict[str, Any]  # the config of one of its runs, {} without any
    axes: list[str]  # keys whose value differs between its points, as typed or in the grid; not the seed
    rows: list[str]  # those that its points are in
    columns: list[str]
    on_grid: bool  # whether some run may fill a cell or a labelled row
    interrupted: bool = False
    tracking: dict[str, Any] | None = None  # what a W&B mirror is told

    @property
    def exit_status(self) -> int:
        if self.interrupted:
            return 130
        if "refused" in self.runs.values() or (not self.runs and self.unfit):
            return 2
        return 1 if {"failed", "lost", "interrupted"} & set(self.runs.values()) else 0


last_outcome: Outcome | None = None  # Hydra's multirun returns nothing, so the command line looks here


def run(overrides: list[str], compose: Compose, launch: Launch, at_once: int | None = None) -> Outcome:
    """Everything typed, done. `launch` gets all jobs in one call or, where its launcher would start them all
    together, `at_once` a call.
    """
    global last_outcome
    last_outcome = _run(overrides, compose, launch, at_once)
    return last_outcome


def _run(overrides: list[str], compose: Compose, launch: Launch, at_once: int | None) -> Outcome:
    points = grid.points(overrides, compose)
    cfg = settings(overrides, compose)
    folder = Path(cfg.runs) / cfg.table
    store.check_writable(Path(cfg.runs))
    points, absent = drop_absent(points, overrides, cfg, compose)
    points, unfit = drop_unfit(points, overrides, cfg, compose)
    unfit = absent + unfit
    ids = {run_id: p for p in points for run_id in [identify(p, cfg, compose)]}
    known = store.finished(folder)
    todo = {
        rid: p
        for rid, p in ids.items()
        if store.wanted(known.get(rid), provenance.code_hash(cfg.module, p.run.norm.name), cfg.rerun)
    }
    noted = leave_notes(list(todo.values()), cfg, compose, folder, points)
    before = {rid: "done before" for rid in ids if rid not in todo}
    outcome = Outcome(
        cfg.table, cfg.profile, cfg.metric, Path(cfg.runs).resolve(), cfg.report, before, unfit,
        example=config.plain(points[0].run) if points else {},
        axes=axes(points), rows=list(dict.fromkeys(p.row for p in points)),
        columns=list(dict.fromkeys(p.column for p in points)),
        on_grid=any(on_grid(config.plain(p.run), noted, cfg.profile) for p in points[:200]),
        tracking=tracking.settings(cfg),
    )  # fmt: skip
    for line in unfit:
        print(f"{line}; left out" if ids and line not in absent else line, file=sys.stderr)
    if not ids:
        return outcome
    print(
        f"{cfg.table} {cfg.profile}: {len(ids)} runs, {len(ids) - len(todo)} done before, {len(todo)} to do",
        flush=True,
    )
    if not todo:
        return outcome
    needs = getattr(grid.table_module(cfg), "needs", None)
    if needs is not None:
        print(needs([p.run for p in todo.values()]), flush=True)
    jobs = with_pending(todo, folder)
    words = [[*grid.job_overrides([todo[i] for i in job]), *common(cfg, folder)] for job in jobs]
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before a worker imports torch
    size, begun = at_once or len(jobs), time.time()
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given")  # joblib's, of long jobs
    with stopping(folder) as stop, Progress(folder, todo, sum(map(len, jobs))):
        for first in range(0, len(jobs), size):
            if stop.is_set():
                break
            try:
                for ret in launch(_Until(stop, words[first : first + size]), first):
                    outcome.runs |= ret
            except Exception as e:  # the launcher's own: what a job raises is one of its results
                if not stop.is_set():  # a worker that was still starting does not survive Ctrl-C
                    asked = [rid for job in jobs[first : first + size] for rid in job]
                    outcome.runs |= left_by(e, asked, folder, known, begun) | outcome.runs
    outcome.interrupted = stop.is_set()
    if outcome.interrupted:
        outcome.runs = dict.fromkeys(ids, "interrupted") | outcome.runs
    return outcome


def axes(points: list[Point]) -> list[str]:
    values: dict[str, set[str]] = {}
    for p in points:
        for key, value in p.assignment.items():
            values.setdefault(key, set()).add(value)
    return [k for k, v in values.items() if len(v) > 1 and k not in ("seed", "column")]


def on_grid(run: dict[str, Any], noted: dict[str, Any], profile: str) -> bool:
    """Whether a run is a point of the grid but for seed, normaliser and variant, as the reports match it."""
    free = {"seed", "norm", *noted["primary"]}
    mine = {k: v for k, v in run.items() if k not in free and v is not None}
    points = noted["profiles"].get(profile, {}).get("points", [])
    return any(
        all(p["config"].get(k) == v for k, v in mine.items()) for p in points if "axes" not in p
    ) or any("axes" in p for p in points)


def left_by(
    error: Exception, asked: list[str], folder: Path, before: dict[str, dict[str, str]], begun: float
) -> dict[str, str]:
    """What became of the runs `asked` of a launcher that died under them (a worker out of memory, a cluster's
    time limit): the store knows. BadInput where no job ever began, as with a cluster that is not there.
    """
    what = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"
    if not any(b["time"] >= begun for b in store.beats(folder)):
        raise BadInput(f"the launcher could not start: {what}") from error
    print(f"the launcher gave up: {what}", file=sys.stderr)
    now = store.finished(folder)
    goes_on = {path.parent.name for path in folder.glob("*/checkpoint.*.pt")}
    goes_on |= {rid for _, ids in store.pending(folder) for rid in ids}
    unfinished = {rid: "interrupted" if rid in goes_on else "lost" for rid in asked}
    return unfinished | {rid: now[rid]["status"] for rid in asked if now.get(rid) != before.get(rid)}


def settings(overrides: list[str], compose: Compose) -> DictConfig:
    """The config of what is typed with one value only: paths, device, rerun; the same for every point."""
    cfg = compose([o.input_line or "" for o in grid.parse(overrides) if not o.is_sweep_override()])
    if str(cfg.device).split(":")[0] not in ("auto", "cpu", "cuda", "mps", "xpu"):
        raise BadInput(f"device={cfg.device}: choose auto, cpu, cuda, cuda:1 or mps")
    if cfg.rerun not in ("none", "failed", "stale", "all"):
        raise BadInput(f"rerun={cfg.rerun}: choose none, failed, stale or all")
    if not (isinstance(cfg.checkpoint_every, int | float) and cfg.checkpoint_every >= 0):
        raise BadInput(f"checkpoint_every={cfg.checkpoint_every}: give a number of seconds from 0")
    if cfg.threads != "auto" and not (isinstance(cfg.threads, int) and cfg.threads >= 1):
        raise BadInput(f"threads={cfg.threads}: choose auto or a number from 1")
    return cfg


def common(cfg: DictConfig, folder: Path) -> list[str]:
    words = [f"stop_file={_stop_file(folder)}"]
    return [*words, "threads=1"] if cfg.threads == "auto" else words


def identify(point: Point, cfg: DictConfig, compose: Compose) -> str:
    """The run's id. Needs the data's fingerprint, so a set that was never used before is prepared here, once,
    not in every job.
    """
    return config.run_id(point.run, fingerprint(point, compose))


def fingerprint(point: Point, compose: Compose) -> str:
    words = [w for w in point.shared if w.lstrip("+").startswith(("data", "table=", "profile="))]
    key = (*words, config.canonical(point.run.data.options))
    if key not in _fingerprints:
        options = data_options(compose(words), point.run)
        try:
            _fingerprints[key] = data.fingerprint(point.run.data.name, **options)
            if any(w.startswith("data.root=") for w in words):  # typed, perhaps misspelt
                place = data.locate(point.run.data.name, options.pop("root"), options.pop("cache"), options)
                if place.files is None:
                    told = f"data.root: nothing of {point.run.data.name} is there; used is {place.prepared}"
                    print(f"{told}, prepared earlier", file=sys.stderr)
        except (FileNotFoundError, ValueError, OSError) as e:
            raise BadInput(str(e)) from e
    return _fingerprints[key]


_fingerprints: dict[tuple[str, ...], str] = {}


def drop_absent(
    points: list[Point], overrides: list[str], cfg: DictConfig, compose: Compose
) -> tuple[list[Point], list[str]]:
    """Columns that the table calls optional, left out with one line why where their data are missing and
    nobody typed them.
    """
    if {"column", "data"} & {grid.key_of(o) for o in grid.parse(overrides)}:
        return points, []
    why: dict[str, str] = {}
    for p in points:
        if p.column in cfg.optional and p.column not in why:
            try:
                fingerprint(p, compose)
                why[p.column] = ""
            except BadInput as e:
                why[p.column] = str(e)
    lines = [f"column={column} is left out: {text}" for column, text in why.items() if text]
    return [p for p in points if not why.get(p.column)], lines


def drop_unfit(
    points: list[Point], overrides: list[str], cfg: DictConfig, compose: Compose
) -> tuple[list[Point], list[str]]:
    """Points that cannot be built, left out with one line why. Tried are other normalisers than the table's
    own, and whatever was typed of the parts of a network or its training: a forward and backward pass of two
    examples through the real network (of a table that has its own, `trial(state)` on `trial_rows(run)` rows).
    """
    own = grid.own_norms(compose([f"table={cfg.table}", f"profile={cfg.profile}"]))
    words = {grid.key_of(o): grid.values(o) for o in grid.parse(overrides) if not o.is_delete()}
    plain = ("optimizer.lr", "optimizer.l2")  # checked by their values
    parts = [
        f"{key}={','.join(values)}"
        for key, values in words.items()
        if f"{key.lstrip('+')}.".startswith(("norm.", "model.", "optimizer.")) and key not in plain
    ]
    tried: dict[str, str | None] = {}
    kept, lines = [], []
    for p in points:
        run = p.run
        if run.norm.name in own and not parts:
            kept.append(p)
            continue
        built = [config.identity(part) for part in (run.norm, run.model, run.optimizer)]
        # where the layers stand and what is done with the network, in tables that vary it
        more = [getattr(run, name, None) for name in ("placement", "method")]
        key = config.canonical([built, more, run.data.name, run.data.options])
        if key not in tried:
            why = why_unfit(p, compose)
            if why:  # what is said before the reason once is enough
                why = why.removeprefix(f"model={run.model.name}, norm={run.norm.name}: ")
            tried[key] = why
            if why and run.norm.name not in own:
                lines.append(
                    f"norm={run.norm.name} does not fit model={run.model.name} on {run.data.name}: {why}"
                )
            elif why:
                lines.append(f"{' '.join(parts)}: cannot be built for {run.data.name}: {why}")
        if tried[key] is None:
            kept.append(p)
    return kept, list(dict.fromkeys(lines))


def why_unfit(point: Point, compose: Compose) -> str | None:
    import torch

    table, run = grid.table_module(compose(point.shared)), point.run
    if hasattr(run, "replay"):  # a network is tried, not a memory, which may be of many GB
        run = replace(run, replay=replace(run.replay, size=run.replay.history + 2))
    options = data_options(compose(point.shared), run)
    rows = table.trial_rows(run) if hasattr(table, "trial_rows") else 200
    try:
        dataset = data.load(run.data.name, **options, limit_train=rows, limit_eval=rows)
    except (FileNotFoundError, ValueError, OSError) as e:  # not the network's fault
        raise BadInput(str(e)) from e
    try:
        with alone():
            state = table.State([run], dataset, torch.device("cpu"))
        if hasattr(table, "trial"):
            table.trial(state)
        else:
            state.net(torch.rand(1, 2, *dataset.x_train.shape[1:])).sum().backward()
    except (ValueError, RuntimeError) as e:
        return str(e).splitlines()[0]
    except Exception as e:  # anything may go wrong in a user's layer: their file may not even parse
        return f"{type(e).__name__}: {(str(e).splitlines() or [''])[0]}"
    return None


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """As if torchrun had started no others: a trial network gathers nothing."""
    before = os.environ.pop("WORLD_SIZE", None)
    try:
        yield
    finally:
        if before is not None:
            os.environ["WORLD_SIZE"] = before


def with_pending(todo: dict[str, Point], folder: Path) -> list[list[str]]:
    """Jobs as lists of run ids. A population that was interrupted keeps its members, so that its checkpoint
    fits.
    """
    left, out = dict(todo), []
    for _, ids in store.pending(folder):
        if set(ids) <= left.keys():
            out.append(ids)
            for rid in ids:
                del left[rid]
    name = {id(p): rid for rid, p in left.items()}
    return out + [[name[id(p)] for p in job] for job in grid.jobs(list(left.values()))]


# ---- what the reports need beside the records -------------------------------------------------------------


def leave_notes(
    todo: list[Point], cfg: DictConfig, compose: Compose, folder: Path, points: list[Point] | None = None
) -> dict[str, Any]:
    """paper/<key>.json for every point to do, and its key into the point. Returns grid.json, brought up to
    date; `points`: all of the sweep, done ones included.
    """
    cache: dict[str, str | None] = {}
    trials = list(cfg.trials)
    for p in todo:
        same = config.canonical({k: v for k, v in p.assignment.items() if k != "seed" and k not in trials})
        if same not in cache:
            paper = grid.paper_config(p, compose)
            cache[same] = None if paper is None else config.digest(paper)
            path = folder / "paper" / f"{cache[same]}.json"
            if paper is not None and not path.exists():
                store.write(path, orjson.dumps({"config": paper}))
        p.member["paper"] = cache[same]
    own = {p.run.norm.name for p in points or todo if "." in p.run.norm.name}
    return write_grid(cfg.table, compose, folder, own, cfg.profile)


def write_grid(
    table: str,
    compose: Compose,
    folder: Path | None,
    own: Collection[str] = (),
    profile: str | None = None,
) -> dict[str, Any]:
    """What the reports need to know of a table's grid; kept in grid.json (nowhere with folder=None) until
    conf/ changes. `own`: the users' layers of this sweep, whose code is noted too. Noted are `profile` and
    those of earlier sweeps here, each of which takes half a second; all for None.
    """
    old: dict[str, Any] = {}
    with contextlib.suppress(OSError, orjson.JSONDecodeError, TypeError):
        old = orjson.loads((folder / "grid.json").read_bytes())  # type: ignore[operator]
    base = compose([f"table={table}"])
    layers = {p.stem for p in (config.CONF / "norm").glob("*.yaml")} | set(own)
    layers |= {name for name in old.get("codes", {}) if "." in name}  # of earlier sweeps
    note: dict[str, Any] = {
        "schema": 1,
        "table": table,
        "code": provenance.code_hash(base.module, base.norm.name),
        "codes": {name: provenance.code_hash(base.module, name) for name in sorted(layers)},
        "norm": base.norm.name,
        "primary": dict(base.get("primary", {})),
        "trials": list(base.trials),
        "conf": _conf_digest(),
        "defaults": config.defaults(importlib.import_module(base.module).Run),
        "profiles": {},
    }
    if old.get("conf") == note["conf"]:
        note["profiles"] = dict(old["profiles"])  # not the same one: it is compared with the old below
    there = sorted(p.stem for p in (config.CONF / "settings" / table).glob("*.yaml"))
    wanted = set(there) if profile is None else {profile, *old.get("profiles", {})} & set(there)
    for name in sorted(wanted - note["profiles"].keys()):
        words = [f"table={table}", f"profile={name}"]
        of_rows = {tuple(sorted(map(int, a.get("seed", ["0"])))) for a in grid.subgrids(words, compose)}
        seeds = sorted(set().union(*of_rows))
        if base.trials:
            points = [asdict(p) for p in grid.patterns(words, compose)]
        else:
            found: dict[str, dict[str, Any]] = {}
            uneven = len(of_rows) > 1  # then each point has its own seeds
            for p in grid.points(words if uneven else [*words, f"seed={seeds[0]}"], compose):
                c = config.plain(p.run)
                seed = c.pop("seed")
                point = {"row": p.row, "column": p.column, "config": c}
                point = found.setdefault(config.digest(c), point)
                if uneven:
                    point["seeds"] = sorted({*point.get("seeds", ()), seed})
            points = list(found.values())
        note["profiles"][name] = {"seeds": seeds, "points": points}
    if folder is not None and note != old:
        store.write(folder / "grid.json", orjson.dumps(note))
    return note


def _conf_digest() -> str:
    return config.digest(
        {str(p.relative_to(config.CONF)): p.read_text() for p in sorted(config.CONF.rglob("*.yaml"))}
    )


# ---- stopping and progress --------------------------------------------------------------------------------


class _Until(list[list[str]]):
    """Jobs that end where a stop is asked for: launchers draw them one by one, and composing the config of
    each of thousands only to hear that it need not start would take minutes.
    """

    def __init__(self, stop: threading.Event, jobs: list[list[str]]) -> None:
        super().__init__(jobs)
        self.stop = stop

    def __iter__(self) -> Iterator[list[str]]:
        return itertools.takewhile(lambda _: not self.stop.is_set(), super().__iter__())


def _stop_file(folder: Path) -> Path:
    return (folder / f".stop-{os.getpid()}").resolve()


@contextlib.contextmanager
def stopping(folder: Path) -> Iterator[threading.Event]:
    """Ctrl-C asks every job, wherever its launcher put it, to finish its checkpoint; a second one stops at
    once.

    A terminal sends SIGINT to the workers too, and one that is idle or starting would die of it and take
    its pool along. So it is blocked while workers start, which they inherit, and a thread passes on what
    arrives here.
    """
    asked, over = threading.Event(), threading.Event()
    folder.mkdir(parents=True, exist_ok=True)

    def note(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        _stop_file(folder).touch()
        print(
            "\nstopping: jobs finish their checkpoints (Ctrl-C again stops at once)",
            file=sys.stderr,
            flush=True,
        )

    def pass_on() -> None:
        while not over.wait(0.1):
            if signal.SIGINT in signal.sigpending():
                signal.sigwait({signal.SIGINT})
                _thread.interrupt_main()

    before = [(n, signal.signal(n, note)) for n in (signal.SIGINT, signal.SIGTERM)]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    watcher = threading.Thread(target=pass_on, daemon=True)
    watcher.start()
    try:
        yield asked
    finally:
        over.set()
        watcher.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for n, handler in before:
            signal.signal(n, handler)
        _stop_file(folder).unlink(missing_ok=True)


class Progress:
    """Runs done, running and left, with the time left: a bar on a terminal, a line every half minute
    elsewhere.
    """

    def __init__(self, folder: Path, todo: dict[str, Point], total: int) -> None:
        self.folder, self.total, self.todo = folder, total, todo
        self.count = Counter(p.column for p in todo.values())
        self.begun, self.end = time.time(), threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> Progress:
        self.thread.start()
        return self

    def __exit__(self, *exc: Any) -> None:
        self.end.set()
        self.thread.join()

    def watch(self) -> None:
        terminal = sys.stderr.isatty()
        shape = "{desc} {percentage:3.0f}%|{bar}| {n:.1f}/{total} runs [{elapsed}{postfix}]"
        with tqdm(total=self.total, disable=not terminal, bar_format=shape) as bar:
            last = 0.0
            while not self.end.wait(1.0 if terminal else 0.5):
                if terminal:
                    done, failed, left = self.look()
                    bar.n = done
                    bar.set_postfix_str(f"left {clock(left)}, {failed} failed")
                elif time.time() - last > 30:
                    if last:
                        done, failed, left = self.look()
                        print(
                            f"  {done:.1f}/{self.total} runs, {failed} failed, time left {clock(left)}",
                            flush=True,
                        )
                    last = time.time()
            if terminal:
                bar.n = self.look()[0]
                bar.refresh()

    def look(self) -> tuple[float, int, float | None]:
        """(runs done, fractions counted; runs failed; seconds left). Runs of one column cost alike: each
        column's cost is estimated from its own runs, of columns not begun from the mean of the others.
        """
        done = dict.fromkeys(self.count, 0.0)
        spent, failed = dict.fromkeys(done, 0.0), 0
        for b in store.beats(self.folder):
            mine = [r for r in b["runs"] if r in self.todo]
            if not mine or b["time"] < self.begun or not b["steps"]:
                continue
            column = self.todo[mine[0]].column
            share = 1.0 if b["status"] in ("finished", "failed") else b["step"] / b["steps"]
            failed += b["status"] == "failed"
            done[column] += share * len(mine)
            spent[column] += b["seconds"]
        cost = {c: spent[c] / done[c] for c in done if done[c] > 0}
        if not cost:
            return 0.0, failed, None
        mean = sum(cost.values()) / len(cost)
        work = sum((self.count[c] - done[c]) * cost.get(c, mean) for c in done)
        rate = sum(spent.values()) / max(
            time.time() - self.begun, 1e-9
        )  # seconds of training a second: the workers in use
        return sum(done.values()), failed, work / rate if rate > 0 else None
