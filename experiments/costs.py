"""What a method costs (Table 11): a training step beside the same step with batch normalisation, both
networks in one process and in turns, since times of two runs do not compare.

Beside the time, which measures the maturity of an implementation as well, stand figures that depend on no
machine: the operations of a step, the bytes that they read and write, those that are kept for the
backward pass, and the most that are held at a time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

STEPS = 10  # of a turn


def turn(step: Callable[[], object], device: Any) -> float:
    """Seconds of a step, the median over a turn."""
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


class Traffic(TorchDispatchMode):
    """Bytes that operations take in and give back; views cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.operations = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
            self.bytes += sum(t.numel() * t.element_size() for t in tensors)
            self.operations += 1
        return out


def traffic(step: Callable[[], object]) -> tuple[int, int]:
    """(bytes, operations) of a step."""
    with Traffic() as counted:
        step()
    return counted.bytes, counted.operations


class Peak(TorchDispatchMode):
    """The most memory that operations have given back and that is still held at a time, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, tuple[StorageWeakRef, int]] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        old = {storage_of(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for t in tree_leaves(out):
            if isinstance(t, Tensor) and storage_of(t) not in old:  # else a view, or in place
                ref = StorageWeakRef(t.untyped_storage())
                self.held[ref.cdata] = ref, t.untyped_storage().nbytes()
        self.held = {key: pair for key, pair in self.held.items() if not pair[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.held.values()))
        return out


def storage_of(t: Tensor) -> int:
    return int(t.untyped_storage()._cdata)


def peak(step: Callable[[], object]) -> int:
    """Bytes that a step takes beyond what was there before it, at most at a time."""
    with Peak() as counted:
        step()
    return counted.most


def saved(step: Callable[[], object]) -> int:
    """Bytes that a step's forward pass keeps for its backward pass, each piece of memory once."""
    pieces: dict[int, int] = {}

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        pieces[storage.data_ptr()] = storage.nbytes()
        return t

    with saved_tensors_hooks(pack, lambda t: t):
        step()
    return sum(pieces.values())
