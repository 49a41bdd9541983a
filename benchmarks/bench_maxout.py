"""Time and memory of maxout, forward and backward, beside the ways to write it with torch's operations.

    python benchmarks/bench_maxout.py [threads ...]

The variants take turns within each round; what is printed is the time of the best round and its ratio to
ours: 2.00x is half as fast. Each form has the order of pieces that it likes best.

Then the memory of convolution, batch normalisation and maxout: what the forward pass keeps for the backward
pass, and what a step allocates at its peak beyond what was there before, as torch.profiler counts it. Aimed
for: no more at the peak than without maxout and its output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bench_lstm import peak
from torch import Tensor, nn
from torch.nn import functional as F
from turns import take_turns, threads

from experiments.job import keep_blocks
from experiments.models import nin
from experiments.models.maxout import MaxPieces, maxout

# of MIM's layers: in a quarter of the width and in full; then as with five pieces
SIZES = (
    ((50, 96, 32, 32), 2),
    ((50, 384, 16, 16), 2),
    ((50, 96, 8, 8), 2),
    ((50, 240, 32, 32), 5),
    ((50, 240, 8, 8), 5),
)
LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


def stacked(x: Tensor, k: int) -> Tensor:
    return torch.stack(x.chunk(k, 1)).max(0).values


def pool1d(x: Tensor, k: int) -> Tensor:
    last = x.movedim(1, -1)
    flat = F.max_pool1d(last.reshape(-1, 1, last.shape[-1]), k)
    return flat.view(*last.shape[:-1], -1).movedim(-1, 1)


def pool3d(x: Tensor, k: int) -> Tensor:
    return F.max_pool3d(x[:, None], (k, 1, 1))[:, 0]


FORMS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "ours": maxout,
    "torch.stack, max": stacked,
    "unflatten, max": nin.maxout,
    "max_pool1d": pool1d,
    "max_pool3d": pool3d,
}


def times(shape: tuple[int, ...], k: int, layout: str, rounds: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).contiguous(memory_format=LAYOUTS[layout]).requires_grad_()
    dy = torch.randn_like(maxout(x.detach(), k))

    def make(form: Callable[[Tensor, int], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(form(x, k), x, dy)

    found = take_turns({label: make(form) for label, form in FORMS.items()}, rounds)
    print(f"\n{list(shape)}, k = {k}, {layout}, both ways, {torch.get_num_threads()} thread(s)")
    for label, seconds in found.items():
        ratio = min(seconds) / min(found["ours"])
        print(f"  {label:18} {1e3 * min(seconds):9.3f} ms {ratio:7.2f}x", flush=True)


def kept(net: nn.Module, x: Tensor) -> int:
    """Bytes of what a forward pass keeps, but for x and parameters."""
    storages: dict[int, int] = {}

    def keep(t: Any) -> Any:
        storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        y = net(x)
    own = {t.untyped_storage().data_ptr() for t in (x, *net.parameters(), *net.buffers())}
    del y
    return sum(size for at, size in storages.items() if at not in own)


def memory(units: int, side: int, k: int) -> None:
    """Of a 1x1 convolution from as many channels to k filters a unit, batches of 50."""
    x = torch.randn(50, units, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    print(f"\n[50, {k} x {units}, {side}, {side}]; maxout's output: {4 * x.numel() / 1e6:.1f} MB")
    for label, behind in {
        "no maxout": (),
        "ours": (MaxPieces(k),),
        "unflatten, max": (nin.MaxPieces(k),),
    }.items():
        net = nn.Sequential(nn.Conv2d(units, k * units, 1, bias=False), nn.BatchNorm2d(k * units), *behind)
        net.to(memory_format=torch.channels_last)

        def step(net: nn.Module = net) -> None:
            y = net(x)
            y.backward(torch.ones_like(y))
            x.grad = None
            net.zero_grad()

        step()
        print(f"  {label:18} kept {kept(net, x) / 1e6:7.1f} MB   peak {peak(step) / 1e6:7.1f} MB", flush=True)


def main() -> None:
    keep_blocks()
    for count in threads():
        torch.set_num_threads(count)
        for shape, k in SIZES:
            for layout in LAYOUTS:
                times(shape, k, layout, rounds=20)
    for units, side, k in ((48, 32, 2), (192, 16, 2), (48, 32, 5)):
        memory(units, side, k)


if __name__ == "__main__":
    main()
