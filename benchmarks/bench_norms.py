"""Time of a training step with the layers of norms/, as a ratio to nn.BatchNorm.

    python benchmarks/bench_norms.py [threads ...]

The network is Table 3's 784-300-300-10 at batch 100 (forward, backward, AdaGrad with L2). The variants take
turns within each round, so that whatever else the machine does falls on all of them; what is printed is the
median over rounds of the ratio to nn.BatchNorm1d in the same round, with its quartiles. Below it, the layer
alone on [100, 300] and on convolution-sized input [20, 32, 32, 32], and a population of ten networks stacked
under vmap.
"""

from __future__ import annotations

import copy
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

import norms

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "nn.BatchNorm": ("batch", {}),
    "A": ("diminishing", {"reading": "A"}),
    "B": ("diminishing", {"reading": "B"}),
    "C (Lasagne)": ("diminishing", {"reading": "C"}),
    "C, eps in sigma": ("diminishing", {"reading": "C", "average": "sigma", "eps_in": "sigma"}),
    "A, first batch, 1/m": ("diminishing", {"reading": "A", "initial": "first_batch", "alpha": "inv_m"}),
    "B, first batch, 1/m": ("diminishing", {"reading": "B", "initial": "first_batch", "alpha": "inv_m"}),
    "C, first batch, 1/m": ("diminishing", {"reading": "C", "initial": "first_batch", "alpha": "inv_m"}),
}
BASE = "nn.BatchNorm"


def mlp(name: str, options: dict[str, Any]) -> nn.Module:
    widths, layers = (784, 300, 300), []
    for fan_in, fan_out in itertools.pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out, bias=False), norms.build(name, fan_out, **options), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


def mlp_step(name: str, options: dict[str, Any]) -> Callable[[], None]:
    torch.manual_seed(0)
    model, x, y = mlp(name, options), torch.randn(100, 784), torch.randint(10, (100,))
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.01, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def layer_step(shape: tuple[int, ...]) -> Callable[[str, dict[str, Any]], Callable[[], None]]:
    def make(name: str, options: dict[str, Any]) -> Callable[[], None]:
        torch.manual_seed(0)
        layer = norms.build(name, shape[1], dim=max(1, len(shape) - 2), **options)
        x, dy = torch.randn(shape, requires_grad=True), torch.randn(shape)
        return lambda: layer(x).backward(dy)

    return make


def population_step(name: str, options: dict[str, Any], members: int = 10) -> Callable[[], None]:
    torch.manual_seed(0)
    models = [mlp(name, options) for _ in range(members)]
    base = copy.deepcopy(models[0])
    parameters, buffers = stack_module_state(models)
    x, y = torch.randn(members, 100, 784), torch.randint(10, (100,))

    def loss(p: dict[str, Tensor], b: dict[str, Tensor], x: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(base, (p, b), (x,)), y)

    optimizer = torch.optim.Adagrad(list(parameters.values()), lr=0.01, weight_decay=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        vmap(loss)(parameters, buffers, x).sum().backward()
        optimizer.step()

    return step


def measure(title: str, make: Callable[[str, dict[str, Any]], Callable[[], None]], rounds: int) -> None:
    steps = {label: make(*variant) for label, variant in VARIANTS.items()}
    for step in steps.values():
        step(), step()
    start = time.perf_counter()
    steps[BASE]()
    repeats = max(1, int(0.004 / (time.perf_counter() - start)))
    times: dict[str, list[float]] = {label: [] for label in steps}
    for _ in range(rounds):
        for label, step in steps.items():
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            times[label].append((time.perf_counter() - start) / repeats)
    print(f"\n{title}, {torch.get_num_threads()} thread(s)")
    for label, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds, times[BASE], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        milliseconds = 1e3 * statistics.median(seconds)
        print(f"  {label:20} {milliseconds:8.3f} ms   {middle:5.2f}x  ({low:.2f}-{high:.2f})")


def main() -> None:
    for threads in map(int, sys.argv[1:] or dict.fromkeys(("1", str(os.cpu_count())))):
        torch.set_num_threads(threads)
        measure("training step of 784-300-300-10, batch 100", mlp_step, rounds=200)
        measure("layer alone, both ways, [100, 300]", layer_step((100, 300)), rounds=200)
        measure("layer alone, both ways, [20, 32, 32, 32]", layer_step((20, 32, 32, 32)), rounds=50)
        measure("training step of ten stacked 784-300-300-10", population_step, rounds=30)


if __name__ == "__main__":
    main()
