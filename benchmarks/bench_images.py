"""Training pictures a second of the small Inception of Table 1, against the recipe most people would write.

    python benchmarks/bench_images.py [width ...]

"plain": torchvision's transforms on PIL pictures in a DataLoader, the network in NCHW order, eager, with
nn.LocalResponseNorm; one process with all cores' threads, and as many loader workers as is best for it (0, 1
or 2). "ours": as a sweep runs it, a process a core with one thread each: whole-batch distortions, channels
last, blocks kept by the allocator. Same network, same batch of 32, the plain row of the table (with LRN,
dropout and all distortions) and BN-x5. Each figure is for all cores together, in turns, the best of ROUNDS.
The share of the machine's matrix product: operations of forward and backward (three times the forward's
multiply-adds, twice each) a second and core, over those of a product of two 1024x1024 matrices.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from typing import Any

ROUNDS, STEPS, BATCH, CORES = 3, 20, 32, os.cpu_count() or 1
ROWS = {"inception": ("none", "BASELINE", 1.0), "bn_x5": ("batch", "ACCELERATED", 5.0)}


def a_run(row: str, width: float) -> Any:
    from dataclasses import replace

    from experiments import table_01_inception as t1
    from experiments.config import Data, Norm, Optimizer

    norm, recipe, rate = ROWS[row]
    return t1.check(
        t1.Run("T1", Data("glyphs", 0.1, None, None, {}), t1.Network("inception", "small", width, "relu"),
               Norm(norm, {}), Optimizer("SGD", 0.01, 5e-5, {"momentum": 0.9}),
               replace(getattr(t1, recipe), rate=rate), True, 8.0, BATCH, 1, 1, 0)
    )  # fmt: skip


def ours(row: str, width: float, barrier: Any, results: Any) -> None:
    """A worker: pictures a second of its own training steps."""
    import torch

    import data
    from experiments import images, job
    from experiments import table_01_inception as t1

    torch.set_num_threads(1)
    job.keep_blocks()
    found = data.load("glyphs", limit_eval=10)
    state = t1.State([a_run(row, width)], found, torch.device("cpu"))
    steps = images.train(state)
    next(steps)  # 20 steps to warm up
    barrier.wait()
    start = time.perf_counter()
    next(steps)
    results.put(STEPS * BATCH / (time.perf_counter() - start))


def side_by_side(row: str, width: float) -> float:
    """Pictures a second of CORES processes together."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(CORES), context.Queue()
    workers = [context.Process(target=ours, args=(row, width, barrier, results)) for _ in range(CORES)]
    for worker in workers:
        worker.start()
    rates = [results.get(timeout=180) for _ in workers]
    for worker in workers:
        worker.join()
    return sum(rates)


class Pictures:
    """PIL pictures and labels, as torchvision's data sets hold them."""

    def __init__(self, x: Any, y: Any, transform: Any) -> None:
        from PIL import Image

        self.pictures = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in x]
        self.labels, self.transform = y.tolist(), transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        return self.transform(self.pictures[i]), self.labels[i]


def plain(row: str, width: float, workers: int) -> float:
    """Pictures a second of one process with all threads and so many loader workers."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms

    import data
    from experiments.models import inception

    torch.set_num_threads(CORES)
    run = a_run(row, width)
    found = data.load("glyphs", limit_eval=10)
    jitter = [transforms.ColorJitter(0.4, 0.4, 0.4)] if run.recipe.distortions == "full" else []
    transform = transforms.Compose(
        [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), *jitter,
         transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.25,) * 3)]
    )  # fmt: skip

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if run.norm.name == "batch" else nn.Identity()

    net = inception.Inception(
        (3, 32, 32), 10, norm, "small", width, nn.ReLU, run.recipe.lrn, run.recipe.dropout
    )
    for name, module in list(net.named_modules()):
        if isinstance(module, inception.LocalResponse):
            parent, _, last = name.rpartition(".")
            setattr(net.get_submodule(parent), last, nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0))
    net.to(memory_format=torch.contiguous_format)

    def forward(x: Any) -> Any:  # as it is, without turning the pictures into channels last
        return net.out(net.drop(net.body(net.stem(x)).mean((2, 3))))

    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    loader = DataLoader(
        Pictures(found.x_train, found.y_train, transform), BATCH, shuffle=True, num_workers=workers
    )  # type: ignore[arg-type]
    start = 0.0
    for step, (x, y) in enumerate(loader):
        if step == STEPS // 2:
            start = time.perf_counter()
        if step == STEPS // 2 + STEPS:
            break
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(x), y).backward()
        optimizer.step()
    return STEPS * BATCH / (time.perf_counter() - start)


def product_rate() -> float:
    """Operations a second of one thread's product of two 1024x1024 matrices."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.rand(2, 1024, 1024)
    times = []
    for _ in range(10):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(times)


def operations(row: str, width: float) -> float:
    """Of a training step, a picture: three times the forward pass."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    import data
    from experiments import table_01_inception as t1

    found = data.load("glyphs", limit_train=50, limit_eval=10)
    net = t1.build(a_run(row, width), found)
    with FlopCounterMode(display=False) as counter:
        net(torch.rand(2, 3, 32, 32))
    return 3 * counter.get_total_flops() / 2


def main(words: list[str]) -> None:
    import torch

    print(
        f"{CORES} cores, torch {torch.__version__}, batch {BATCH}; pictures a second of all cores together\n"
    )
    rate = product_rate()
    print("       row  width     ours    plain  workers   ratio   share of a matrix product")
    for width in map(float, words or ["0.25", "0.5"]):
        for row in ROWS:
            tried: dict[int, list[float]] = {}
            mine = []
            for _ in range(ROUNDS):
                mine.append(side_by_side(row, width))
                for workers in (0, 1, 2):
                    tried.setdefault(workers, []).append(plain(row, width, workers))
            best = max(tried, key=lambda w: max(tried[w]))
            got, theirs = max(mine), max(tried[best])
            share = got / CORES * operations(row, width) / rate
            print(
                f"{row:>10} {width:>6} {got:>8.0f} {theirs:>8.0f} {best:>8}"
                f" {got / theirs:>6.2f}x   {share:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
