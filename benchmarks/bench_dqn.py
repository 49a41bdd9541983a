"""Table 4: steps of the whole training loop on Atari as a ratio to CleanRL's, sampling of the replay memory
as a ratio to Stable-Baselines3's, and updates a second on MinAtar.

    python benchmarks/bench_dqn.py [threads ...] [peer=FOLDER]

FOLDER is a checkout of github.com/vwxyzjn/cleanrl, of which dqn_atari.py runs as it is, with its own
network, memory and wrappers (and a logger that does nothing), in a process of its own; nothing of it is here.
Ours lets the allocator keep large blocks, as every run does (experiments/job.py), and CleanRL's is measured
without and with that. Stable-Baselines3 is used where it is installed. Loops take turns of 400 steps within
each round: an action a step, an update of a batch of 32 every fourth one, both with Adam.
"""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from turns import KEEP, show, take_turns, threads

import data
from experiments import config
from experiments import table_04_dqn as t4
from experiments.job import keep_blocks
from experiments.models.q_net import follow
from experiments.replay import Replay, size_of

TURN, WARM = 400, 1200  # steps; before training begins in both loops
NEVER = 10**9


def ours(*words: str) -> t4.State:
    """Table 4's own loop, with the settings of the paper profile but for `words`."""
    short = [f"replay.first={WARM}", "replay.size=50000", f"evaluation.every={NEVER}", "epochs=1"]
    with initialize_config_dir(version_base="1.3", config_dir=str(config.CONF)):
        run = t4.check(config.typed(t4.Run, compose("config", ["table=T4", "profile=paper", *short, *words])))
    found = data.load(run.data.name, **run.data.options)
    state = t4.State([run], found, torch.device("cpu"))
    while state.step < WARM:
        t4.play(state)
    t4.begin(state)
    return state


def turn(state: t4.State, steps: int = TURN) -> None:
    run = state.run
    for _ in range(steps):
        t4.play(state)
        if state.step % run.update_every == 0:
            t4.update(state)
            if state.updates % run.target_every == 0:
                follow(state.target, state.model)


class Peer:
    """CleanRL's script in a process of its own, which stops whenever it has done the steps of its turn."""

    def __init__(self, folder: Path, **environment: str) -> None:
        here = [sys.executable, __file__, f"serve={folder}", str(torch.get_num_threads())]
        self.process = subprocess.Popen(
            here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | environment
        )
        self.turn(WARM + 8)

    def turn(self, steps: int = TURN) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        if self.process.stdout.readline() != "done\n":
            raise RuntimeError("CleanRL's script has ended; what it said stands above")


def serve(folder: Path, threads: int) -> None:
    """What runs in that process: the script as it is; stdin has the lengths of turns, stdout their ends."""
    lengths, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # where the script prints the returns of episodes
    torch.set_num_threads(threads)
    sys.path.insert(0, str(folder))
    sys.argv = ["dqn_atari.py"]
    stand_ins()
    from cleanrl_utils import buffers  # type: ignore[import-not-found]

    add, left = buffers.ReplayBuffer.add, int(lengths.readline())

    def counted(memory: Any, *args: Any) -> None:
        nonlocal left
        add(memory, *args)
        left -= 1
        if left == 0:
            print("done", file=answers, flush=True)
            line = lengths.readline()
            if not line:
                os._exit(0)  # who asked is gone
            left = int(line)

    buffers.ReplayBuffer.add = counted
    runpy.run_path(str(folder / "cleanrl" / "dqn_atari.py"), run_name="__main__")


def stand_ins() -> None:
    """For its command line and its logger, and the names that gymnasium has changed since."""
    import ale_py
    import gymnasium
    from gymnasium import wrappers

    gymnasium.register_envs(ale_py)
    wrappers.GrayScaleObservation = wrappers.GrayscaleObservation  # type: ignore[attr-defined]
    wrappers.FrameStack = lambda env, n: wrappers.FrameStackObservation(env, n)  # type: ignore[attr-defined]

    def cli(args: Any) -> Any:
        return args(learning_starts=WARM, buffer_size=50_000, cuda=False, start_e=0.1, end_e=0.1)

    writer = type("SummaryWriter", (), {"__getattr__": lambda s, name: lambda *a, **k: None,
                                        "__init__": lambda s, *a: None})  # fmt: skip
    for name, attributes in (
        ("tyro", {"cli": cli}),
        ("torch.utils.tensorboard", {"SummaryWriter": writer}),
    ):
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        sys.modules[name] = module


def of_atari(peer: Path | None, rounds: int) -> None:
    kinds = [
        "batch_size=32",
        "optimizer=adam",
        "optimizer.lr=0.0001",
        "target_every=250",
        "explore.first=0.1",
        "explore.last=0.1",
    ]
    tasks: dict[str, Callable[[], object]] = {}
    if peer is not None:
        tasks["CleanRL"] = Peer(peer).turn
        tasks["CleanRL, blocks kept"] = Peer(peer, **KEEP).turn
    for label, norm in (("ours", "none"), ("ours, weight norm", "weight_norm"), ("ours, BN", "batch")):
        state = ours("data=atari", f"norm={norm}", *kinds)
        tasks[label] = lambda state=state: turn(state)
    times = take_turns(tasks, rounds)
    notes = {label: f"{TURN / float(np.median(t)):.0f} steps/s" for label, t in times.items()}
    show(f"Breakout, batches of 32 every 4 steps, {TURN} steps", times, notes)
    of_products(ours("data=atari", "norm=none", *kinds))


def of_products(state: t4.State, updates: int = 20) -> None:
    """The part of an update that any loop with this network has: convolutions and matrix products."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        for _ in range(updates):
            t4.update(state)
    times = {event.key: event.self_cpu_time_total for event in seen.key_averages()}
    names = ("aten::mkldnn_convolution", "aten::convolution_backward", "aten::mm", "aten::addmm")
    share = sum(times[name] for name in names) / sum(times.values())
    print(f"  convolutions and matrix products of an update: {100 * share:.0f} %")


def of_minatar(rounds: int) -> None:
    tasks: dict[str, Callable[[], object]] = {}
    for norm in ("none", "weight_norm", "batch"):
        for batch in (32, 64):
            words = ["data=minatar", "model=minatar", "replay.history=1", f"norm={norm}", "update_every=1"]
            state = ours(*words, f"batch_size={batch}")
            tasks[f"{norm}, batch {batch}"] = lambda state=state: turn(state, 100)
    times = take_turns(tasks, rounds)
    notes = {label: f"{100 / float(np.median(t)):.0f} updates/s" for label, t in times.items()}
    show("MinAtar's Breakout, an update every step, 100 steps", times, notes)


def of_sampling(rounds: int) -> None:
    try:
        from gymnasium import spaces
        from stable_baselines3.common.buffers import ReplayBuffer  # type: ignore[import-not-found]
    except ImportError as e:
        print(f"\nsampling: not measured, {e}")
        return
    n, rng = 20_000, np.random.default_rng(0)
    box = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    theirs = ReplayBuffer(n, box, spaces.Discrete(4), device="cpu")
    theirs.pos, theirs.full = 0, True
    theirs.observations[:] = rng.integers(0, 255, theirs.observations.shape[1:], np.uint8)
    theirs.next_observations[:] = theirs.observations[0]
    mine = Replay(n, (1, 84, 84), 4)
    mine.frames[:] = rng.integers(0, 255, (1, 84, 84), np.uint8)
    mine.added = 2 * n
    for batch in (32, 64):
        tasks: dict[str, Callable[[], object]] = {
            "Stable-Baselines3": lambda b=batch: theirs.sample(b),
            "ours": lambda b=batch: [torch.from_numpy(x) for x in mine.sample(b, rng)],
        }
        show(f"{batch} of {n:,} steps of 4 frames", take_turns(tasks, rounds))
    held = theirs.observations.nbytes + theirs.next_observations.nbytes
    print(f"  frames in memory: {held / 1e6:.0f} MB and {size_of(n, (1, 84, 84)) / 1e6:.0f} MB")


def main() -> None:
    named = [a for a in sys.argv[1:] if a.startswith(("peer=", "serve="))]
    sys.argv = [a for a in sys.argv if a not in named]
    what, _, folder = named[0].partition("=") if named else ("peer", "", "")
    if what == "serve":
        serve(Path(folder), int(sys.argv[1]))
        return
    peer = Path(folder) if folder else None
    keep_blocks()  # as every run does
    for count in threads():
        torch.set_num_threads(count)
        start = time.perf_counter()
        of_sampling(rounds=15)
        of_minatar(rounds=9)
        of_atari(peer, rounds=9)
        print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
