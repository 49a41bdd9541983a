"""Time of a training step with the layers of norms/, as a ratio to nn.BatchNorm.

    python benchmarks/bench_norms.py [threads ...]

First Table 3's network 784-300-300-10 at batch 100 (forward, backward, AdaGrad with L2), and ten of them
stacked under vmap. Then every layer alone, forward and backward, on [128, 300] and [128, 64, 16, 16], with
the most memory it takes for tensors; the latter also under torch.compile. The variants take turns within each
round, so that whatever else the machine does falls on all of them; what is printed is the median over rounds
of the ratio to nn.BatchNorm (not compiled) in the same round, with its quartiles.
"""

from __future__ import annotations

import copy
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from turns import show, take_turns, threads

import norms

Variant = tuple[str, dict[str, Any]]
OPEN = {"warmup_steps": 0, "r_steps": 0, "d_steps": 0}  # renorm with both corrections at work
BASE = "nn.BatchNorm"
DIMINISHING: dict[str, Variant] = {
    BASE: ("batch", {}),
    "diminishing A": ("diminishing", {"reading": "A"}),
    "diminishing B": ("diminishing", {"reading": "B"}),
    "diminishing C": ("diminishing", {"reading": "C"}),
}
READINGS: dict[str, Variant] = {
    **DIMINISHING,
    "C, eps in sigma": ("diminishing", {"reading": "C", "average": "sigma", "eps_in": "sigma"}),
    **{
        f"{reading}, first batch, 1/m": (
            "diminishing",
            {"reading": reading, "initial": "first_batch", "alpha": "inv_m"},
        )
        for reading in "ABC"
    },
}
EVERY: dict[str, Variant] = {
    **DIMINISHING,
    "renorm": ("renorm", OPEN),
    "l1": ("l1", {}),
    "mean_only": ("mean_only", {}),
    "frn": ("frn", {}),
    "dyt": ("dyt", {}),
    "layer": ("layer", {}),
    "group": ("group", {}),
    "rms": ("rms", {}),
}


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


def layer_step(
    shape: tuple[int, ...], compiled: bool = False
) -> Callable[[str, dict[str, Any]], Callable[[], None]]:
    def make(name: str, options: dict[str, Any]) -> Callable[[], None]:
        torch.manual_seed(0)
        layer = norms.build(name, shape[1], dim=max(1, len(shape) - 2), **options)
        x, dy = torch.randn(shape, requires_grad=True), torch.randn(shape)
        if compiled:
            layer = torch.compile(layer, fullgraph=True)  # type: ignore[assignment]

        def step() -> None:
            x.grad = None
            layer(x).backward(dy)

        return step

    return make


class Peak(TorchDispatchMode):
    """The most bytes that tensors made within hold at one time; not what a kernel takes for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in tree_leaves(out):
            if isinstance(t, Tensor):
                storage = t.untyped_storage()
                if storage.data_ptr() not in self.live and storage.nbytes():
                    self.live[storage.data_ptr()] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage.data_ptr(), None)
                    self.most = max(self.most, sum(self.live.values()))
        return out


def peak(step: Callable[[], None]) -> float:
    """MB of the tensors alive at one time in `step`."""
    with Peak() as mode:
        step()
    return mode.most / 2**20


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


def measure(
    title: str,
    variants: dict[str, Variant],
    make: Callable[[str, dict[str, Any]], Callable[[], None]],
    rounds: int,
    base: Callable[[], None] | None = None,
    memory: bool = False,
) -> None:
    """Prints a line a variant; `base` is a step to compare with that is not among them."""
    steps = {label: make(*variant) for label, variant in variants.items()}
    steps = ({} if base is None else {f"{BASE}, eager": base}) | steps
    times = take_turns(steps, rounds)
    show(title, times, {label: f"{peak(step):6.1f} MB" for label, step in steps.items()} if memory else None)


def main() -> None:
    flat, maps = (128, 300), (128, 64, 16, 16)
    on_flat = {label: variant for label, variant in EVERY.items() if label != "frn"}
    for count in threads():
        torch.set_num_threads(count)
        measure("training step of 784-300-300-10, batch 100", READINGS, mlp_step, rounds=200)
        measure("training step of ten stacked 784-300-300-10", READINGS, population_step, rounds=30)
        measure(f"layer alone, both ways, {list(flat)}", on_flat, layer_step(flat), 200, memory=True)
        measure(f"layer alone, both ways, {list(maps)}", EVERY, layer_step(maps), 50, memory=True)
        compiled = {label: variant for label, variant in EVERY.items() if label != BASE} | {
            BASE: ("batch", {})
        }
        title = f"layer alone under torch.compile, both ways, {list(maps)}"
        measure(title, compiled, layer_step(maps, compiled=True), 50, base=layer_step(maps)("batch", {}))


if __name__ == "__main__":
    main()
