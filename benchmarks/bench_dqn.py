"""Table 4: steps of the whole training loop on Atari as a ratio to CleanRL's, sampling of the replay memory
as a ratio to Stable-Baselines3's, and updates a second on MinAtar.

    python benchmarks/bench_dqn.py [threads ...] [peer=FOLDER]

FOLDER is a checkout of github.com/vwxyzjn/cleanrl, of which dqn_atari.py runs as it is, with its own
network, memory and wrappers (and a logger that does nothing); nothing of it is here. Stable-Baselines3 is
used where it is installed. Loops take turns of 400 steps within each round: an action a step, an update of a
batch of 32 every fourth one, both with Adam.
"""

from __future__ import annotations

import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra import compose, initialize_config_dir
from turns import show, take_turns, threads

import data
from experiments import config
from experiments import table_04_dqn as t4
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
    """CleanRL's script in a thread of its own, which stops whenever it has done the steps of its turn."""

    def __init__(self, folder: Path) -> None:
        self.left, self.go, self.done = 0, threading.Semaphore(0), threading.Semaphore(0)
        sys.path.insert(0, str(folder))
        self.stand_ins()
        from cleanrl_utils import buffers  # type: ignore[import-not-found]

        add = buffers.ReplayBuffer.add

        def counted(memory: Any, *args: Any) -> None:
            add(memory, *args)
            self.left -= 1
            if self.left == 0:
                self.done.release()
                self.go.acquire()

        buffers.ReplayBuffer.add = counted
        text = (folder / "cleanrl" / "dqn_atari.py").read_text(encoding="utf-8")
        module = types.ModuleType("__main__")
        threading.Thread(target=self.play, args=(text, module), daemon=True).start()
        self.turn(WARM + 8)

    def play(self, text: str, module: types.ModuleType) -> None:
        self.go.acquire()
        sys.modules["peer_script"] = module
        module.__dict__.update(__name__="peer_script", __file__="dqn_atari.py")
        head, _, body = text.partition('if __name__ == "__main__":')
        exec(compile(head, "dqn_atari.py", "exec"), module.__dict__)
        exec(compile(f"if True:{body}", "dqn_atari.py", "exec"), module.__dict__)

    def turn(self, steps: int = TURN) -> None:
        self.left = steps
        self.go.release()
        self.done.acquire()

    @staticmethod
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
    named = [a for a in sys.argv[1:] if a.startswith("peer=")]
    sys.argv = [a for a in sys.argv if a not in named]
    peer = Path(named[0].removeprefix("peer=")) if named else None
    for count in threads():
        torch.set_num_threads(count)
        start = time.perf_counter()
        of_sampling(rounds=15)
        of_minatar(rounds=9)
        of_atari(peer, rounds=9)
        print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
