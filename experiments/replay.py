"""The replay memory of Table 4: the last n steps, each with its own frame alone; states of several frames are
put together when they are sampled.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

PIECE = 4096  # steps of one file at most, so that files drop out of use one by one
ARRAYS = ("frames", "actions", "rewards", "terminal", "first")


class Batch(NamedTuple):
    frames: NDArray[np.uint8]  # [B, h + 1, C, H, W]: the first h are the state, the last h the next one
    actions: NDArray[np.int64]
    rewards: NDArray[np.float32]
    terminal: NDArray[np.bool_]


def size_of(capacity: int, shape: Sequence[int]) -> int:
    """Bytes that a memory of so many steps takes."""
    return capacity * (int(np.prod(shape)) + 1 + 4 + 1 + 1)


class Replay:
    """A ring of `capacity` steps: the frame, the action taken on it, its reward, whether it was terminal (no
    value is expected after it), and whether the frame is the first of an episode.

    A state is a frame with the h - 1 before it, as the agent saw it: before the first of an episode there is
    nothing (0), while the loss of a life, which is terminal as well, does not cut the game's pictures. A step
    can be sampled once its successor is there.
    """

    def __init__(self, capacity: int, shape: Sequence[int], history: int) -> None:
        if capacity < history + 2:
            raise ValueError(
                f"a memory of {capacity} steps holds no state of {history} frames and its successor"
            )
        self.capacity, self.shape, self.history = capacity, tuple(shape), history
        self.frames = np.empty((capacity, *shape), np.uint8)
        self.frames.fill(0)  # so that all of it is there before the start, and not when it is too late
        self.actions = np.zeros(capacity, np.uint8)
        self.rewards = np.zeros(capacity, np.float32)
        self.terminal = np.zeros(capacity, np.bool_)
        self.first = np.zeros(capacity, np.bool_)
        self.added = 0  # steps ever; the newest is in place (added - 1) % capacity
        self.saved = 0  # of these, how many are in files
        self.back = np.arange(-history + 1, 2)
        self.gathered = np.empty((0, history + 1, *shape), np.uint8)

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, frame: NDArray[np.uint8], action: int, reward: float, terminal: bool, first: bool) -> None:
        """ValueError for a frame of another shape or type."""
        if frame.shape != self.shape or frame.dtype != np.uint8:
            raise ValueError(
                f"the game gave a frame {frame.dtype} {list(frame.shape)};"
                f" the memory is of uint8 {list(self.shape)}"
            )
        at = self.added % self.capacity
        self.frames[at], self.actions[at], self.rewards[at] = frame, action, reward
        self.terminal[at], self.first[at] = terminal, first
        self.added += 1

    def sample(self, n: int, rng: np.random.Generator) -> Batch:
        """N steps, uniformly and with replacement, of those with a successor and, once the ring is full, a
        whole history.
        """
        oldest = self.added - len(self)
        low = oldest + (self.history - 1 if oldest else 0)
        if low >= self.added - 1:
            raise ValueError(f"{self.added} steps in memory: none has a successor yet")
        return self.at(rng.integers(low, self.added - 1, n))

    def at(self, steps: NDArray[np.int64]) -> Batch:
        """The steps of these numbers, counted from the first ever; the frames are overwritten by the next
        call.

        Half of the time is the copy of the frames, and a new piece of memory for each would double it.
        """
        places = (steps[:, None] + self.back) % self.capacity
        if self.added <= self.capacity:
            places = np.where(
                steps[:, None] + self.back < 0, 0, places
            )  # cut off below: step 0 is a first one
        if len(self.gathered) != len(steps):
            self.gathered = np.empty((len(steps), *self.gathered.shape[1:]), np.uint8)
        frames = np.take(self.frames, places, axis=0, out=self.gathered, mode="clip")  # which needs no buffer
        if self.history > 1:
            begun = self.first[places[:, 1 : self.history]]  # a first frame ends the history of all after it
            cut = np.logical_or.accumulate(begun[:, ::-1], 1)[:, ::-1]
            if cut.any():
                frames[:, : self.history - 1][cut] = 0
        now = places[:, self.history - 1]
        return Batch(frames, self.actions[now].astype(np.int64), self.rewards[now], self.terminal[now])

    # ---- files: what was added since the last call, compressed --------------------------------------------

    def save(self, folder: Path) -> None:
        """Write what is new since the last call, and remove files that were of no use even to that call,
        whose checkpoint is still there.
        """
        from experiments import store

        before = self.saved
        start = max(self.saved, self.added - self.capacity)
        while start < self.added:
            stop = min(start + PIECE, self.added)
            places = np.arange(start, stop) % self.capacity
            held = io.BytesIO()
            np.savez(held, **{name: getattr(self, name)[places] for name in ARRAYS})
            store.write(folder / f"{start:012d}-{stop:012d}.z", zlib.compress(held.getvalue(), 1))
            start = stop
        self.saved = self.added
        for path, _, stop in files(folder):
            if stop <= before - self.capacity:
                path.unlink(missing_ok=True)

    def load(self, folder: Path, added: int) -> None:
        """As it was when `added` steps had been added and `save` was called. ValueError where a file is
        missing or damaged. Files of later steps, of a process that was killed before its checkpoint, are
        removed.
        """
        need = max(0, added - self.capacity)
        for path, start, stop in files(folder):
            if stop > added:
                path.unlink()
            elif start <= need < stop:
                try:
                    with np.load(io.BytesIO(zlib.decompress(path.read_bytes())), allow_pickle=False) as z:
                        kept = np.arange(need, stop)
                        for name in ARRAYS:
                            getattr(self, name)[kept % self.capacity] = z[name][need - start :]
                except (zlib.error, ValueError, KeyError, OSError) as e:
                    raise ValueError(f"{path} is damaged ({e})") from e
                need = stop
        if need != added:
            raise ValueError(f"{folder} has the steps to {need} of {added}")
        self.added = self.saved = added


def files(folder: Path) -> list[tuple[Path, int, int]]:
    """(file, its first step, the one after its last) in order."""
    found = sorted(folder.glob("*-*.z"))
    return [(path, *map(int, path.stem.split("-"))) for path in found]  # type: ignore[misc]


def state_of(frames: list[Any], history: int) -> Any:
    """What the agent sees: the last `history` frames [h, C, H, W] of an episode, nothing (0) before its
    start.
    """
    recent = frames[-history:]
    gap = history - len(recent)
    return np.stack([*[np.zeros_like(recent[0])] * gap, *recent])
