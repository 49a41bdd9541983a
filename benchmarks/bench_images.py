"""Training pictures a second of the small Inception of Table 1 and of Table 2's network in network, against
the recipe most people would write.

    python benchmarks/bench_images.py [width ...]
    python benchmarks/bench_images.py accuracy [width ...]    test error of both after the same epochs
    python benchmarks/bench_images.py compile [width ...]     one process: what torch.compile gives and costs

"plain": torchvision's transforms on PIL pictures in a DataLoader, the network in NCHW order, eager, with
nn.LocalResponseNorm and a NormProp convolution of plain operations; one process with all cores' threads, and
as many loader workers as is best for it (0, 1 or 2). "ours": as a sweep runs it, a process a core with one
thread each: whole-batch distortions, channels last, blocks kept by the allocator. Same network and batch; the
plain row of Table 1 (with LRN, dropout and all distortions) and BN-x5, NIN + NP and NIN + BN. Each figure is
for all cores together, in turns, the best of ROUNDS. The share of the machine's matrix product: operations of
forward and backward (three times the forward's multiply-adds, twice each) a second and core, over those of a
product of two 1024x1024 matrices.
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

ROUNDS, STEPS, CORES = 3, 20, os.cpu_count() or 1
EPOCHS, SEEDS, PICTURES = 4, (0, 1, 2), 2000  # of the comparison of accuracy
INCEPTIONS = {"inception": ("none", "BASELINE", 1.0), "bn_x5": ("batch", "ACCELERATED", 5.0)}
NINS = {
    "nin_np": ("nin", "normprop", "raw"),
    "nin_bn": ("nin", "batch", "raw"),
    "nin": ("lin_nin", "none", "gcn_zca"),  # these two for bench_memory.py
    "maxout": ("maxout", "none", "gcn_zca"),
}
ROWS = (*INCEPTIONS, "nin_np", "nin_bn")


def a_run(row: str, width: float, epochs: int = 1, seed: int = 0, bare: bool = False) -> Any:
    """bare: without what the tables add to a step and the plain recipe has not, which is another training:
    a falling learning rate, five times as high (Table 1: constant, it leaves seeds 13 to 17 points apart),
    and pixels normalised by the batch (Table 2).
    """
    from dataclasses import replace

    from experiments import table_01_inception as t1
    from experiments import table_02_normprop as t2
    from experiments.config import Data, Norm, Optimizer

    digits = Data("glyphs", 0.1, None, None, {})
    if row in NINS:
        model, layer, preprocessing = NINS[row]
        sgd = Optimizer("SGD", 0.05, 2.5e-4, {"momentum": 0.9})
        network = t2.Network(model, width, 0.0, False, False, "cifar", [0.01])
        plan = t2.Schedule(0.0, [], [], [])
        return t2.check(
            t2.Run("T2", digits, network, Norm(layer, {}), sgd, preprocessing, "channel" if bare else "batch",
                   True, False, plan, 50, epochs, 1, seed)
        )  # fmt: skip
    name, recipe, rate = INCEPTIONS[row]
    return t1.check(
        t1.Run("T1", digits, t1.Network("inception", "small", width, "relu"),
               Norm(name, {}), Optimizer("SGD", 0.01, 5e-5, {"momentum": 0.9}),
               replace(getattr(t1, recipe), **({"decay": 0.0, "rate": 1.0} if bare else {"rate": rate})),
               True, 8.0, 32, epochs, 1, seed)
    )  # fmt: skip


def state_of(run: Any, found: Any) -> Any:
    import torch

    from experiments import table_01_inception as t1
    from experiments import table_02_normprop as t2

    return (t1 if run.table == "T1" else t2).State([run], found, torch.device("cpu"))


def ours(row: str, width: float, barrier: Any, results: Any) -> None:
    """A worker: pictures a second of its own training steps."""
    import torch

    import data
    from experiments import images, job

    torch.set_num_threads(1)
    job.keep_blocks()
    run = a_run(row, width)
    steps = images.train(state_of(run, data.load("glyphs", limit_eval=10)))
    next(steps)  # 20 steps to warm up
    barrier.wait()
    start = time.perf_counter()
    next(steps)
    results.put(STEPS * run.batch_size / (time.perf_counter() - start))


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


def plain_network(run: Any) -> tuple[Any, Any, list[Any]]:
    """(network, forward, filters in front of normalisers) in NCHW order, of torch's layers."""
    import torch
    from torch import nn

    from experiments.models import inception, nin
    from norms import NormPropConv2d

    def norm(channels: int) -> nn.Module:
        return nn.BatchNorm2d(channels) if run.norm.name == "batch" else nn.Identity()

    def exchange(net: nn.Module, kind: type, new: Any) -> None:
        for name, module in list(net.named_modules()):
            if isinstance(module, kind):
                parent, _, last = name.rpartition(".")
                setattr(net.get_submodule(parent), last, new(module))

    class Propagation(nn.Module):
        """The formula, operation by operation."""

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.weight, self.gamma, self.bias = layer.weight, layer.gamma, layer.bias
            self.stride, self.padding = layer.stride, layer.padding

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            w = self.weight / self.weight.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            y = nn.functional.conv2d(x, w, None, self.stride, self.padding)
            a = self.gamma.view(-1, 1, 1) * y + self.bias.view(-1, 1, 1)
            return (torch.relu(a) - 0.398942) / 0.583819

    net: Any
    if run.table == "T2":
        options: dict[str, Any] = {"propagation": {}} if run.norm.name == "normprop" else {"norm": norm}
        net = nin.NormPropNIN((3, 32, 32), 10, width=run.model.width, **options)
        filters = [m.weight for m in net.modules() if isinstance(m, NormPropConv2d)]
        units = [m for m in net.modules() if isinstance(m, nin.Unit)]
        filters += [m.conv.weight for m in units if not isinstance(m.norm, nn.Identity)]
        exchange(net, NormPropConv2d, Propagation)
        net.to(memory_format=torch.contiguous_format)
        return net, lambda x: net.layers(x).mean((2, 3)), filters
    recipe = run.recipe
    net = inception.Inception(
        (3, 32, 32), 10, norm, "small", run.model.width, nn.ReLU, recipe.lrn, recipe.dropout
    )
    exchange(net, inception.LocalResponse, lambda _: nn.LocalResponseNorm(5, 1e-4, 0.75, 1.0))
    net.to(memory_format=torch.contiguous_format)
    return net, lambda x: net.out(net.drop(net.body(net.stem(x)).mean((2, 3)))), []


def plain_steps(
    run: Any, found: Any, workers: int, threads: int, unit_filters: bool = False
) -> Iterator[Any]:
    """Trains by the plain recipe; yields after every step a function from uint8 pictures to logits. With
    filters rescaled to length 1 after every step, as Table 2's are, only where accuracy is compared: without
    it NormProp stays at chance.
    """
    import torch
    from torch import nn
    from torch.utils.data import DataLoader
    from torchvision import transforms

    torch.set_num_threads(threads)
    torch.manual_seed(run.seed)
    pixels = found.x_train.float() / 255
    means, stds = (f(pixels, (0, 2, 3)).tolist() for f in (torch.mean, torch.std))
    scale = torch.tensor([means, stds]).view(2, 3, 1, 1)
    changes: list[Any] = []
    if run.table == "T1":
        changes = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip()]
        if run.recipe.distortions == "full":
            changes.append(transforms.ColorJitter(0.4, 0.4, 0.4))
    steps = [*changes, transforms.ToTensor(), transforms.Normalize(means, stds)]
    net, forward, filters = plain_network(run)
    filters = filters if unit_filters else []
    rate = run.optimizer.lr * (run.recipe.rate if run.table == "T1" else 1)
    l2 = run.optimizer.l2 / (run.recipe.l2 if run.table == "T1" else 1)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=2 * l2)
    loader: Any = DataLoader(
        Pictures(found.x_train, found.y_train, transforms.Compose(steps)),  # type: ignore[arg-type]
        run.batch_size, shuffle=True, num_workers=workers, drop_last=True,
    )  # fmt: skip

    def logits(pictures: Any) -> Any:
        net.eval()
        with torch.no_grad():
            found = torch.cat([forward((p.float() / 255 - scale[0]) / scale[1]) for p in pictures.split(500)])
        net.train()
        return found

    for _ in range(run.epochs):
        for x, y in loader:
            optimizer.zero_grad()
            nn.functional.cross_entropy(forward(x), y).backward()
            optimizer.step()
            for w in filters:
                w.data.div_(w.data.flatten(1).norm(dim=1).view(-1, 1, 1, 1))
            yield logits


def plain(row: str, width: float, workers: int) -> float:
    """Pictures a second of one process with all threads and so many loader workers."""
    import data

    run = a_run(row, width)
    steps = plain_steps(run, data.load("glyphs", limit_eval=10), workers, CORES)
    for _ in range(STEPS // 2):
        next(steps)
    start = time.perf_counter()
    for _ in range(STEPS):
        next(steps)
    return STEPS * run.batch_size / (time.perf_counter() - start)


def accuracy(width: float) -> None:
    """Test errors (%) after EPOCHS epochs at one constant rate, a seed a process, of both ways; of the rows
    with a norm: after so few epochs the plain Inception is at chance in both, which compares nothing.
    """
    print(f"test error (%) after {EPOCHS} epochs, mean and sd of {len(SEEDS)} seeds, width {width}")
    for row in ROWS[1:]:
        jobs = list(itertools.product(("ours", "plain"), [row], [width], SEEDS))
        with multiprocessing.get_context("spawn").Pool(CORES) as pool:
            got = dict(zip(jobs, pool.starmap(error_of, jobs), strict=True))
        for way in ("ours", "plain"):
            some = [v for (w, *_), v in got.items() if w == way]
            print(
                f"{row:>10} {way:>6} {statistics.mean(some):6.2f} {statistics.stdev(some):6.2f}", flush=True
            )


def error_of(way: str, row: str, width: float, seed: int) -> float:
    import torch

    import data
    from experiments import images, job

    torch.set_num_threads(1)
    job.keep_blocks()
    torch.manual_seed(seed)
    run, found = a_run(row, width, EPOCHS, seed, bare=True), data.load("glyphs", limit_eval=PICTURES)
    if way == "ours":
        last: dict[str, list[float]] = {}
        for _, metrics in images.train(state_of(run, found)):
            last = metrics or last
        return last["test_error"][0]
    logits = None
    for logits in plain_steps(run, found, 0, 1, unit_filters=True):  # noqa: B007 - the last one is wanted
        pass
    assert logits is not None
    return 100 * (logits(found.x_test).argmax(1) != found.y_test).float().mean().item()


def step_times(row: str, width: float, compiled: bool) -> tuple[float, float]:
    """(seconds of the first STEPS steps, of a step after them) of one process with one thread."""
    import torch

    import data
    from experiments import images, job

    torch.set_num_threads(1)
    job.keep_blocks()
    state = state_of(a_run(row, width), data.load("glyphs", limit_eval=10))
    if compiled:
        # Hooks of Table 2's evaluation (means of layer inputs) are not seen by a compiled graph otherwise.
        torch._dynamo.config.skip_nnmodule_hook_guards = False
        state.net.single[1].compile()
    steps = images.train(state)
    start = time.perf_counter()
    next(steps)
    first = time.perf_counter() - start
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        next(steps)
        times.append((time.perf_counter() - start) / STEPS)
    return first, min(times)


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
    from experiments import table_02_normprop as t2

    found, run = data.load("glyphs", limit_train=50, limit_eval=10), a_run(row, width)
    net = (t1 if run.table == "T1" else t2).build(run, found)
    with FlopCounterMode(display=False) as counter:
        net(torch.rand(2, 3, 32, 32))
    return 3 * counter.get_total_flops() / 2


def main(words: list[str]) -> None:
    import torch

    if words[:1] == ["accuracy"]:
        for width in map(float, words[1:] or ["0.25"]):
            accuracy(width)
        return
    if words[:1] == ["compile"]:
        print("       row  width  eager (ms a step)  compiled   ratio   start-up (s)")
        for width, row in itertools.product(map(float, words[1:] or ["0.25"]), ROWS):
            (_, eager), (first, fast) = (step_times(row, width, compiled) for compiled in (False, True))
            start_up = first - STEPS * fast
            print(f"{row:>10} {width:>6} {1000 * eager:>18.1f} {1000 * fast:>9.1f} {eager / fast:>6.2f}x"
                  f" {start_up:>10.0f}", flush=True)  # fmt: skip
        return
    print(f"{CORES} cores, torch {torch.__version__}; pictures a second of all cores together\n")
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
