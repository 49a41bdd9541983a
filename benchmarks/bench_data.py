"""A training epoch with whole-batch indexing (data.batches.take), as a ratio to the usual torchvision loop.

    python benchmarks/bench_data.py [root=DIR] [model=NAME,...] [batches=N|all] [threads=1] [workers=0]

The usual loop is a torchvision-style Dataset (PIL picture, ToTensor) behind a DataLoader. Both loops get the
same order of the same CIFAR-10 pictures (glyphs if the data root has no CIFAR-10), each trains its own copy
of the network, and both must see the same batches and end with the same weights, to 1e-6. model is one or
more of none (batches alone), small (a network of one convolution), table3 (the network of Table 3), or a
dotted path of a function without arguments that makes a network for 3x32x32 pictures and ten classes.

Without workers the loops take turns of ten batches, so that whatever else the machine does falls on both; CPU
seconds are this process's alone. Where the network's own arithmetic takes most of an epoch, as the table's
does on a CPU, no way of fetching data can make the epoch much shorter: "batches alone" is what data can gain.
"""

from __future__ import annotations

import copy
import importlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ToTensor

import data
from data.batches import take

BATCH, TURN = 100, 10
DEFAULTS = {"root": "", "model": "none,small,table3", "batches": "", "threads": "1", "workers": "0"}
# a batch of the table's network takes some 0.1 s, so that an epoch of both loops would take minutes
BATCHES = {"none": "all", "small": "all", "table3": "40"}

Batches = Iterator[tuple[Tensor, Tensor]]


class Pictures(Dataset[tuple[Tensor, int]]):
    """What torchvision.datasets.CIFAR10 does for one example, with transform=ToTensor()."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.data = np.ascontiguousarray(x.permute(0, 2, 3, 1).numpy())
        self.targets = y.tolist()
        self.transform = ToTensor()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def usual(x: Tensor, y: Tensor, order: Tensor, workers: int) -> Batches:
    batches = [index.tolist() for index in order.split(BATCH)]
    yield from DataLoader(Pictures(x, y), batch_sampler=batches, num_workers=workers)


def ours(x: Tensor, y: Tensor, order: Tensor) -> Batches:
    for index in order.split(BATCH):
        yield take(x, index), y[index]


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 3, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 8 * 8, 10))


def table3() -> nn.Module:
    """As in the `paper` profile, with nn.BatchNorm2d and 1d."""
    from experiments.models.cnn import CNN

    return CNN((3, 32, 32), (32, 32, 64, 64), 512, 10, (0.25, 0.25, 0.5), nn.BatchNorm2d, nn.BatchNorm1d)


def make(name: str) -> nn.Module | None:
    if name == "none":
        return None
    torch.manual_seed(0)
    if "." in name:
        module, function = name.rsplit(".", 1)
        return getattr(importlib.import_module(module), function)()
    return {"small": small, "table3": table3}[name]()


def now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


class Loop:
    """One of the two loops: its batches, its network, its seconds."""

    def __init__(self, batches: Batches, net: nn.Module | None) -> None:
        self.batches, self.net = batches, net
        self.seconds = np.zeros(2)  # on the clock, of this process
        self.optimizer = torch.optim.Adagrad(net.parameters(), 0.01, weight_decay=1e-4) if net else None
        self.step = 0

    def run(self, n: int) -> list[tuple[Tensor, Tensor]]:
        """Trains on the next n batches (fewer at the end of the epoch) and returns them."""
        seen = []
        start = now()
        for _, (x, y) in zip(range(n), self.batches, strict=False):
            if self.net is not None and self.optimizer is not None:
                torch.manual_seed(self.step)  # dropout: both loops draw the same masks
                self.optimizer.zero_grad()
                F.cross_entropy(self.net(x), y).backward()
                self.optimizer.step()
            self.step += 1
            seen.append((x, y))
        self.seconds += now() - start
        return seen


def compare(d: data.DataSet, model: str, batches: str, workers: int) -> None:
    net = make(model)
    order = torch.randperm(len(d.y_train), generator=torch.Generator().manual_seed(0))
    if batches != "all":
        order = order[: BATCH * int(batches)]
    a = Loop(ours(d.x_train, d.y_train, order), net)
    b = Loop(usual(d.x_train, d.y_train, order, workers), copy.deepcopy(net))
    total = len(order.split(BATCH))
    turn = total if workers else TURN
    while a.step < total:
        for (x, y), (u, v) in zip(a.run(turn), b.run(turn), strict=True):
            assert x.shape == u.shape
            assert (x - u).abs().max() <= 1e-6
            assert torch.equal(y, v)
    if a.net is not None and b.net is not None:
        for p, q in zip(a.net.parameters(), b.net.parameters(), strict=True):
            assert (p - q).abs().max() <= 1e-6
    wall, cpu = b.seconds / a.seconds
    print(
        f"  {model:8}{total:4} batches: usual {b.seconds[0]:7.2f} s, ours {a.seconds[0]:6.2f} s, {wall:6.2f}x"
        f"  (CPU {b.seconds[1]:.2f} s, {a.seconds[1]:.2f} s, {cpu:.2f}x)",
        flush=True,
    )


def options(arguments: list[str]) -> dict[str, str]:
    given = dict(a.partition("=")[::2] for a in arguments)
    if unknown := set(given) - set(DEFAULTS):
        raise SystemExit(
            f"error: unknown option {', '.join(sorted(unknown))}; there are {', '.join(DEFAULTS)}"
        )
    return {**DEFAULTS, **given}


def cifar10_or_glyphs(root: str) -> data.DataSet:
    where: dict[str, Any] = {"root": root} if root else {}
    try:
        return data.load("cifar10", val_fraction=0, **where)
    except data.DataSetMissing as e:
        print(f"{e}\nusing generated glyphs instead")
        return data.load("glyphs", val_fraction=0)


def main() -> None:
    o = options(sys.argv[1:])
    torch.set_num_threads(int(o["threads"]))
    d = cifar10_or_glyphs(o["root"])
    setting = f"batch {BATCH}, threads={o['threads']} workers={o['workers']}"
    print(f"{d.name}, {len(d.y_train):,} pictures, {setting}")
    for model in o["model"].split(","):
        compare(d, model, o["batches"] or BATCHES.get(model, "all"), int(o["workers"]))


if __name__ == "__main__":
    main()
