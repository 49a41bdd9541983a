"""One job: train one run, or many of one architecture as a population; log, checkpoint, time; leave a record
for each.

The table's `train` is a generator that yields (step, metrics) and knows none of this.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import os
import signal
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

import data
from data import stream
from experiments import config, distributed, grid, provenance, store, tracking

PARTS = ("train", "val", "test")
BEAT = 30.0  # seconds between heartbeats while the training says nothing


class Interrupted(Exception):
    """Asked to stop; the checkpoint is written."""


def run(cfg: DictConfig) -> dict[str, str]:
    """Train what `cfg` names. Returns {run_id: finished | diverged | failed | done before | busy |
    interrupted | refused}.
    """
    # In a sweep the parent turns Ctrl-C into the stop file; with one worker that is this very process.
    if cfg.stop_file is not None and not str(cfg.stop_file).endswith(f"-{os.getpid()}"):
        with contextlib.suppress(ValueError):  # not in the main thread
            signal.signal(signal.SIGINT, signal.SIG_IGN)
    members = grid.members(cfg)
    runs = [r for r, _ in members]
    table = grid.table_module(cfg)
    folder = Path(cfg.runs) / runs[0].table
    try:
        prints = [data.fingerprint(r.data.name, **data_options(cfg, r)) for r in distinct_data(runs)]
    except (FileNotFoundError, ValueError) as e:
        raise config.BadInput(str(e)) from e
    fingerprint = dict(zip(map(data_key, distinct_data(runs)), prints, strict=True))
    code = provenance.code_hash(cfg.module, runs[0].norm.name)
    if distributed.size() > 1:
        distributed.start(pick_device(cfg.device))
    ids = {config.run_id(r, fingerprint[data_key(r)]): (r, paper) for r, paper in members}
    outcome: dict[str, str] = {}
    if cfg.stop_file is not None and os.path.exists(cfg.stop_file):
        return dict.fromkeys(ids, "interrupted")
    try:
        with contextlib.ExitStack() as held:

            def claim() -> dict[str, str]:
                found = {}
                for rid in ids:
                    try:
                        held.enter_context(store.lock(folder, rid))
                    except store.Busy:
                        found[rid] = "busy"
                known = store.finished(folder)  # under the locks: nobody else can finish one of ours now
                for rid in ids:
                    if rid not in found and not store.wanted(known.get(rid), code, cfg.rerun):
                        found[rid] = "done before"
                return found

            outcome |= distributed.from_first(claim)
            todo = {rid: r for rid, r in ids.items() if rid not in outcome}
            for part in alike(cfg, todo) if todo else ():
                outcome |= _train(cfg, table, folder, part, code)
    except config.BadInput as e:
        if cfg.stop_file is None:
            raise
        print(e, file=sys.stderr)
        outcome |= {rid: "refused" for rid in ids if rid not in outcome}
    finally:
        distributed.stop()
    return outcome


def data_options(cfg: DictConfig, run: Any) -> dict[str, Any]:
    """The keyword arguments of data.load and data.fingerprint that say which set: where it is and its own
    options.
    """
    options = dict(run.data.options)
    if cfg.data.path is not None:
        options["path"] = cfg.data.path
    return {"root": cfg.data.root, "cache": cfg.data.cache, **options}


def data_key(run: Any) -> str:
    return config.digest(config.plain(run.data))


def distinct_data(runs: list[Any]) -> list[Any]:
    """A run of each data set, or fold of one, that these runs have."""
    return list({data_key(r): r for r in reversed(runs)}.values())[::-1]


def load(cfg: DictConfig, runs: list[Any]) -> list[data.DataSet]:
    """The data of each run; one object for those that share it."""
    found: dict[str, data.DataSet] = {}
    if cfg.data.get("cache"):  # tables keep what they fit to the data there, too
        os.environ["BN_DATA_CACHE"] = str(cfg.data.cache)
    if cfg.data.get("root"):  # networks look there for weights that were trained elsewhere
        os.environ["BN_WEIGHTS_ROOT"] = str(cfg.data.root)
    for run in distinct_data(runs):
        limits = {k: getattr(run.data, k) for k in ("val_fraction", "limit_train", "limit_eval", "share")}
        dataset = data.load(run.data.name, **data_options(cfg, run), **limits)
        found[data_key(run)] = sharing(dataset, found.values())
    return [found[data_key(run)] for run in runs]


def sharing(dataset: data.DataSet, others: Iterable[data.DataSet]) -> data.DataSet:
    """`dataset` with the tensors of `others` in place of its own where they are equal: one source's rows are
    in memory once, however many targets it is adapted to.
    """
    import torch

    def equal(a: Any, b: Any) -> bool:
        both = isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) and a.dtype == b.dtype
        return both and torch.equal(a, b)

    same = {
        f.name: getattr(other, f.name)
        for other in others
        for f in fields(dataset)
        if equal(getattr(dataset, f.name), getattr(other, f.name))
    }
    return replace(dataset, **same)


def alike(cfg: DictConfig, todo: dict[str, Any]) -> list[dict[str, Any]]:
    """The runs in groups that can be one population: folds may be of different sizes."""
    runs = [r for r, _ in todo.values()]
    if len(distinct_data(runs)) == 1 or getattr(grid.table_module(cfg), "ONE_JOB", False):
        return [todo]
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (rid, member), dataset in zip(todo.items(), load(cfg, runs), strict=True):
        shapes = tuple(tuple(getattr(dataset, f"{v}_{p}").shape) for p in PARTS for v in "xy")
        groups.setdefault((*shapes, dataset.classes), {})[rid] = member
    return list(groups.values())


def _train(cfg: DictConfig, table: Any, folder: Path, todo: dict[str, Any], code: str) -> dict[str, str]:
    ids = list(todo)
    name = ids[0] if len(ids) == 1 else config.digest(ids)
    home = folder / name if len(ids) == 1 else folder / "shards" / name
    job = Job(cfg, table, folder, home, name, todo, code)
    try:
        job.train()
        return job.save()
    except Interrupted:
        return dict.fromkeys(ids, "interrupted")
    except config.BadInput:
        refused = [rid for rid, r in todo.items() if len(ids) > 1 and not begins(cfg, table, r)]
        if not refused or job.step:
            raise
        rest = {rid: r for rid, r in todo.items() if rid not in refused}
        return dict.fromkeys(refused, "refused") | (_train(cfg, table, folder, rest, code) if rest else {})
    except (
        stream.Unreadable
    ) as e:  # no failure of the run's: with the file mended it goes on from its checkpoint
        raise config.BadInput(str(e)) from e
    except Exception as e:
        if type(e).__name__ == "UncompletedJobError":  # submitit raises it in the job at a time limit
            return dict.fromkeys(ids, "interrupted")  # up to its last checkpoint
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise store.unwritable(e.filename or folder, e) from e  # no failure of the run's: it may go on
        trace = traceback.format_exc()
        if len(ids) > 1:  # one member fails, not all: each alone, and the one that fails is recorded
            print(f"population {name} failed, its members go on one by one:\n{trace}", file=sys.stderr)
            store.drop_checkpoints(home)
            outcome: dict[str, str] = {}
            for rid, r in todo.items():
                outcome |= _train(cfg, table, folder, {rid: r}, code)
            return outcome
        return job.save_failure(trace)


def begins(cfg: DictConfig, table: Any, member: tuple[Any, Any]) -> bool:
    """Whether a member of a job can be built alone; if not, the line that says why is told here."""
    run = member[0]
    try:
        table.State([run], load(cfg, [run])[0], pick_device(cfg.device))
        return True
    except config.BadInput as e:
        print(e, file=sys.stderr)
        return False


def keep_blocks() -> None:
    """Let glibc keep freed memory. As it comes, it maps every block above 32 MB anew and gives it back when
    freed, and the page faults of large activations take as long as the arithmetic on them (measured in
    benchmarks/results.md). Elsewhere nothing happens.
    """
    import ctypes

    m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


class Job:
    """What surrounds the training of one job: curves, clock, heartbeat, checkpoints, records."""

    def __init__(
        self,
        cfg: DictConfig,
        table: Any,
        folder: Path,
        home: Path,
        name: str,
        todo: dict[str, Any],
        code: str,
    ) -> None:
        self.cfg, self.table, self.folder, self.home, self.name, self.code = (
            cfg,
            table,
            folder,
            home,
            name,
            code,
        )
        self.ids, self.runs = list(todo), [r for r, _ in todo.values()]
        self.papers = [paper for _, paper in todo.values()]
        K = len(self.ids)
        self.curves: list[dict[str, list[Any]]] = [{} for _ in range(K)]
        self.diverged: list[float | None] = [None] * K  # the epoch whose training loss was not finite
        self.wrong: list[Any] = [None] * K  # wrong test predictions at the epoch chosen so far, packed
        self.scores: list[Any] = [None] * K  # what each test example adds to the score, at that epoch
        self.step, self.steps, self.examples, self.resumed = 0, 0, 0, 0
        self.rounds = self.runs[0].epochs
        self.seconds, self.cpu, self.last_beat, self.last_owner = 0.0, 0.0, 0.0, 0.0
        self.beat_lock = threading.Lock()
        self.started = now()
        self.facts: dict[str, Any] = {}
        self.weights: list[str | None] = []
        self.first = distributed.rank() == 0  # the one of several processes that writes
        self.track = tracking.start(cfg, self.runs, self.ids)

    def train(self) -> None:
        import torch

        cfg, run = self.cfg, self.runs[0]
        if cfg.threads != "auto":
            torch.set_num_threads(int(cfg.threads))
        elif "OMP_NUM_THREADS" not in os.environ:  # which torch has minded
            torch.set_num_threads(os.cpu_count() or 1)
        threads = torch.get_num_threads()
        keep_blocks()
        device = distributed.start(pick_device(cfg.device))
        datasets = load(cfg, self.runs)
        self.facts["data"] = [
            {
                "name": dataset.name,
                "fingerprint": dataset.fingerprint,
                **{f"n_{part}": len(getattr(dataset, f"y_{part}")) for part in PARTS},
                "error": dataset.error,
                "notes": list(dataset.notes),
            }
            for dataset in datasets
        ]
        self.facts["device"] = str(device)
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
        self.facts["host"] = provenance.host(threads, gpu)
        one = len(distinct_data(self.runs)) == 1
        state = self.table.State(self.runs, datasets[0] if one else datasets, device)
        self.facts["parameters"] = state.net.parameter_count()
        self.rounds = getattr(state, "rounds", run.epochs)  # evaluations, of which an epoch may have several
        self.steps = run.epochs * state.steps_per_epoch
        self.examples = state.steps_per_epoch * getattr(state, "batch_rows", run.batch_size)
        self.home.mkdir(parents=True, exist_ok=True)
        if len(self.ids) > 1:
            store.write(self.home / "members.json", config.canonical(self.ids).encode())
        self.resume(state)
        if self.resumed:
            self.tell(f"goes on from step {self.step:,} of {self.steps:,}")
        with stop_requests(self.cfg.stop_file is None) as stop, self.beating():
            wall, cpu, saved = time.monotonic(), time.process_time(), time.monotonic()
            before = self.seconds, self.cpu
            # A checkpoint after the last epoch leaves nothing to train.
            for step, metrics in self.table.train(state) if state.epoch < run.epochs else ():
                self.step = step
                if metrics is not None:
                    self.take_down(metrics)
                self.seconds, self.cpu = (
                    before[0] + time.monotonic() - wall,
                    before[1] + time.process_time() - cpu,
                )
                over = all(d is not None for d in self.diverged)
                ending = distributed.any_says(bool(stop) or self.asked_to_stop())
                if distributed.any_says(time.monotonic() - saved > float(cfg.checkpoint_every)) or ending:
                    self.checkpoint(state)
                    saved = time.monotonic()
                self.heartbeat()
                if ending:
                    raise Interrupted
                if over:
                    break
        self.weights = [weights_hash(state.net, k) for k in range(len(self.ids))]
        for name, values in getattr(state, "extras", {}).items():  # figures by layer, not by epoch
            for k, curves in enumerate(self.curves):
                if self.diverged[k] is None or not name.endswith("_end"):
                    curves[name] = values[k]

    def take_down(self, metrics: dict[str, Any]) -> None:
        """One epoch's metrics into each member's curves, up to its divergence."""
        wrong, scores = metrics.pop("wrong", None), metrics.pop("scores", None)
        select = self.table.SELECT
        for k, curves in enumerate(self.curves):
            if self.diverged[k] is not None:
                continue
            epoch = (len(curves.get("epoch", [])) + 1) * self.runs[0].epochs / self.rounds
            epoch = int(epoch) if epoch.is_integer() else epoch
            if not np.isfinite(metrics["train_loss"][k]):
                self.diverged[k] = epoch
            if metrics[select][k] < min(curves.get(select, [np.inf])):
                if wrong is not None:
                    self.wrong[k] = np.packbits(wrong[k].cpu().numpy())
                if scores is not None:
                    self.scores[k] = scores[k].cpu().numpy().astype("<f4")
            curves.setdefault("epoch", []).append(epoch)
            for key, values in metrics.items():
                curves.setdefault(key, []).append(float(values[k]))
        self.track.log(self.curves)

    # ---- stopping and going on ----

    def asked_to_stop(self) -> bool:
        return self.cfg.stop_file is not None and os.path.exists(self.cfg.stop_file)

    @contextlib.contextmanager
    def beating(self) -> Iterator[None]:
        """Beats at once and every now and then, for what goes on for minutes without a word: an evaluation of
        a game, an epoch of a large network.
        """
        over = threading.Event()

        def beat() -> None:
            while not over.wait(BEAT):
                with contextlib.suppress(config.BadInput):  # a full disk: the training's own beat says so
                    self.heartbeat()
                left = self.seconds * (self.steps / self.step - 1) if self.step else None
                self.tell(f"step {self.step:,} of {self.steps:,}, time left {clock(left)}")

        self.heartbeat()
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def tell(self, line: str) -> None:
        """On the terminal, of a run that is typed alone; of a sweep its parent tells."""
        if self.first and self.cfg.stop_file is None:
            print(f"{self.name}: {line}", file=sys.stderr, flush=True)

    def heartbeat(self) -> None:
        if not self.first:
            return
        with self.beat_lock:
            now = time.monotonic()
            if now - self.last_beat > 1:
                self.last_beat = now
                self.beat("running")
            if now - self.last_owner > 60:
                self.last_owner = now
                store.beat_owner(self.folder, self.ids)

    def beat(self, status: str) -> None:
        store.beat(
            self.folder,
            self.name,
            {
                "runs": self.ids,
                "configs": [config.digest(config.plain(r)) for r in self.runs],
                "profile": self.cfg.profile,
                "status": status,
                "step": self.step,
                "steps": self.steps,
                "seconds": self.seconds,
            },
        )

    def checkpoint(self, state: Any) -> None:
        import torch

        if not self.first:
            return
        gpu = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        if hasattr(state, "save_beside"):  # what is too large for a checkpoint, before the one that needs it
            state.save_beside(self.home / store.BESIDE)
        store.save_checkpoint(
            self.home,
            {
                "ids": self.ids,
                "state": state.state_dict(),
                "curves": self.curves,
                "diverged": self.diverged,
                "step": self.step,
                "wrong": [None if w is None else torch.from_numpy(w) for w in self.wrong],
                "scores": [None if s is None else torch.from_numpy(s) for s in self.scores],
                "seconds": self.seconds,
                "cpu": self.cpu,
                "resumed": self.resumed,
                "started": self.started,
                "code": self.code,
                "rng": torch.get_rng_state(),
                "rng_gpu": gpu,
            },
        )

    def resume(self, state: Any) -> None:
        """Go on from a checkpoint of this very job; one written by other code is set aside, since the record
        could not say that both made it.
        """
        import torch

        saved = store.load_checkpoint(self.home)
        fits = saved is not None and saved["ids"] == self.ids and saved["code"] == self.code
        if not distributed.from_first(lambda: fits) or saved is None:
            if self.first:
                store.drop_beside(self.home)  # of a training that is not gone on with
                for path in store.set_aside(self.home):
                    print(
                        f"{self.name}: the code has changed since its checkpoint, which is kept as {path};"
                        " training starts anew",
                        file=sys.stderr,
                    )
            return
        state.load_state_dict(saved["state"])
        if hasattr(state, "load_beside"):
            try:
                state.load_beside(self.home / store.BESIDE)
            except ValueError as e:
                raise config.BadInput(f"{e}; remove {self.home} to begin anew") from e
        self.curves, self.diverged, self.step = saved["curves"], saved["diverged"], saved["step"]
        self.wrong = [None if w is None else w.numpy() for w in saved["wrong"]]
        self.scores = [None if s is None else s.numpy() for s in saved.get("scores", self.scores)]
        self.seconds, self.cpu, self.started = saved["seconds"], saved["cpu"], saved["started"]
        self.resumed = saved["resumed"] + 1
        torch.set_rng_state(saved["rng"])
        if saved["rng_gpu"] and len(saved["rng_gpu"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(saved["rng_gpu"])

    # ---- records ----

    def save(self) -> dict[str, str]:
        records = [self.record(k) for k in range(len(self.ids))]
        if not self.first:
            return {r["run_id"]: r["status"] for r in records}
        if len(records) == 1:
            store.save_single(self.folder, records[0])
        else:
            store.save_population(self.folder, self.name, records)
        store.drop_checkpoints(self.home)
        self.beat("finished")
        self.track.finish(records)
        return {r["run_id"]: r["status"] for r in records}

    def save_failure(self, trace: str) -> dict[str, str]:
        record = {
            **self.record(0),
            "status": "failed",
            "error": trace,
            "metrics": {},
            "curves": {},
            "wrong": None,
        }
        if not self.first:
            return {self.ids[0]: "failed"}
        store.save_single(self.folder, record)
        store.drop_checkpoints(self.home)
        self.beat("failed")
        self.track.finish([record])
        return {self.ids[0]: "failed"}

    def record(self, k: int) -> dict[str, Any]:
        run, curves, K = self.runs[k], self.curves[k], len(self.ids)
        row, column = self.table.cell(run)
        epochs = curves.get("epoch", [0])[-1]
        wrong = self.wrong[k]
        facts = self.facts["data"][k] if "data" in self.facts else None  # it failed before
        if facts is None or facts["error"] != "error":
            wrong = None  # a balanced error is not the mean of the mask
        return {
            "schema": store.SCHEMA,
            "run_id": self.ids[k],
            "table": run.table,
            "profile": self.cfg.profile,
            "role": "trial" if self.cfg.trials else "cell",
            "status": "finished" if self.diverged[k] is None else "diverged",
            "cell": {"row": row, "column": column},
            "config": config.plain(run),
            "paper": self.papers[k],
            "data": facts,
            "metrics": finite(self.table.summarise(curves)) if epochs else {},
            "wrong": None if wrong is None else packed(wrong),
            **({} if self.scores[k] is None else {"scores": packed(self.scores[k])}),
            "curves": {key: finite(v) for key, v in curves.items()},
            "epochs": epochs,
            "steps": round(epochs * (self.steps // run.epochs)) if epochs else self.step,
            "parameters": self.facts.get("parameters"),
            "weights": self.weights[k] if self.weights else None,
            "time": {
                "wall_s": round(self.seconds / K, 4),
                "cpu_s": round(self.cpu / K, 4),
                "examples_per_s": round(self.examples * epochs * K / self.seconds, 1)
                if epochs and self.seconds
                else None,
                "peak_memory_bytes": peak_memory(),
                "started": self.started,
                "finished": now(),
                "resumed": self.resumed,
            },
            "population": {"id": self.name, "members": K} if K > 1 else None,
            "code": self.code,
            "git": provenance.git(),
            "host": self.facts.get("host"),
            "packages": provenance.packages(),
            "device": self.facts.get("device"),
            "diverged_epoch": self.diverged[k],
            "error": None,
        }


def packed(values: Any) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 9)).decode()


def weights_hash(net: Any, k: int) -> str | None:
    """Hash of member k's parameters and buffers: two trainings with the same hash ended bit for bit alike.
    None of what has no tensors.
    """
    h, state = hashlib.sha256(), net.state_dict()
    if not state:
        return None
    for name, tensor in sorted(state.items()):
        own = tensor[k] if net.size > 1 else tensor
        h.update(name.encode() + own.cpu().contiguous().numpy().tobytes())
    return h.hexdigest()[:16]


def finite(value: Any) -> Any:
    """JSON has no NaN: what is not finite becomes null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def clock(seconds: float | None) -> str:
    if seconds is None:
        return "?"
    s = int(seconds)
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def peak_memory() -> int | None:
    """Peak resident memory of this process in bytes (of the whole worker, so an upper bound for the run)."""
    try:
        import resource
    except ImportError:  # not on Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def pick_device(name: str) -> Any:
    import torch

    if name != "auto":
        try:
            device = torch.device(name)
            torch.zeros(1, device=device)
            return device
        except (RuntimeError, AssertionError) as e:
            raise config.BadInput(
                f"device={name}: {str(e).splitlines()[0]} (choose auto, cpu, cuda or mps)"
            ) from e
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


@contextlib.contextmanager
def stop_requests(alone: bool) -> Iterator[list[int]]:
    """A list that is no longer empty once SIGINT or SIGTERM (pre-emption) came; the loop then finishes its
    checkpoint.

    A worker of a sweep only minds SIGTERM.
    """
    came: list[int] = []
    before = {}

    def note(number: int, frame: Any) -> None:
        if came and number == signal.SIGINT:
            raise KeyboardInterrupt  # a second Ctrl-C means now
        came.append(number)

    for number in (signal.SIGINT, signal.SIGTERM) if alone else (signal.SIGTERM,):
        with contextlib.suppress(ValueError):  # not in the main thread: the parent's stop file does it
            before[number] = signal.signal(number, note)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
