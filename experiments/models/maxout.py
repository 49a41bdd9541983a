"""Maxout (Goodfellow et al., arXiv 1302.4389), and how evenly units use their pieces:

    h_i = max_j z_ij,  j = 1..k

of a layer's k C outputs z (w_ij . x + b_ij, normalised or not). The gradient goes to the winning piece alone,
in a tie to the first.

Channel j C + i of z is piece j of unit i: all first pieces, then all second ones. `nin.maxout` has a unit's
pieces side by side; where every channel is treated alike, as by batch normalisation, that is the same model
with its channels in another order. Blocks are faster: the operations run along unbroken rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from experiments.models import nin
from norms.moments import inside_func

CACHED = 2**18  # values


def maxout(x: Tensor, pieces: int) -> Tensor:
    """[B, pieces * C, ...] -> [B, C, ...].

    For its backward pass it keeps one byte a unit. Second derivatives are those of plain operations, and
    torch.func and torch.compile see such. No forward-mode derivatives outside torch.func.
    """
    if pieces < 1:
        raise ValueError(f"pieces={pieces}: a maxout unit has one piece or more")
    if x.shape[1] % pieces:
        raise ValueError(f"{x.shape[1]} channels are not a multiple of pieces={pieces}")
    if pieces == 1:
        return x
    if pieces > 255 or inside_func() or torch.compiler.is_compiling():
        return x.unflatten(1, (pieces, -1)).max(1).values
    if torch.is_grad_enabled() and x.requires_grad:
        return _Maxout.apply(x, pieces)
    y, *others = x.chunk(pieces, 1)
    for piece in others:
        y = torch.maximum(y, piece)
    return y


def largest(x: Tensor, pieces: int) -> tuple[Tensor, Tensor]:
    """The largest piece of each unit, and which one it is: the first of equal ones, 0.., as uint8."""
    size = x.shape[0], x.shape[1] // pieces, *x.shape[2:]
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=layout(x))
    at = torch.empty_like(y, dtype=torch.bool)
    for part, high, first in zip(*split(y, pieces, x, y, at), strict=True):
        one, two, *others = part.chunk(pieces, 1)
        torch.gt(two, one, out=first)
        torch.maximum(one, two, out=high)
        for j, piece in enumerate(others, 2):
            later = (piece > high).view(torch.uint8).mul_(j)
            torch.maximum(first.view(torch.uint8), later, out=first.view(torch.uint8))
            torch.maximum(high, piece, out=high)
    return y, at.view(torch.uint8)


def split(y: Tensor, pieces: int, *tensors: Tensor) -> list[Sequence[Tensor]]:
    """The tensors, split into so few images that what several operations read stays in a core's cache."""
    number = max(1, CACHED // max(1, pieces * math.prod(y.shape[1:])))
    return [t.split(number) if number < len(t) else (t,) for t in tensors]


def layout(x: Tensor) -> torch.memory_format:
    last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if last else torch.contiguous_format


class _Maxout(torch.autograd.Function):
    """In operations that torch has vectorised for every layout: unlike max over a dimension and its scatter,
    unlike where and masked_fill.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, pieces: int) -> Tensor:
        y, at = largest(x, pieces)
        ctx.save_for_backward(at)
        ctx.pieces, ctx.layout = pieces, layout(x)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:
        (at,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated itself
            return torch.cat([torch.where(at == j, dy, 0) for j in range(ctx.pieces)], 1), None
        size = dy.shape[0], ctx.pieces * dy.shape[1], *dy.shape[2:]
        dx = torch.empty(size, dtype=dy.dtype, device=dy.device, memory_format=ctx.layout)
        for part, slope, first in zip(*split(dy, ctx.pieces, dx, dy, at), strict=True):
            first = first.to(dy.dtype)
            for j, piece in enumerate(part.chunk(ctx.pieces, 1)):  # dy where j - 1 < at < j + 1, else 0
                torch.ops.aten.hardtanh_backward.grad_input(slope, first, j - 1, j + 1, grad_input=piece)
        return dx, None


class MaxPieces(nn.Module):
    """`maxout` as a layer: [B, pieces * C, ...] -> [B, C, ...]."""

    def __init__(self, pieces: int) -> None:
        super().__init__()
        if pieces < 1:
            raise ValueError(f"pieces={pieces}: a maxout unit has one piece or more")
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return maxout(x, self.pieces)

    def extra_repr(self) -> str:
        return f"pieces={self.pieces}"


class Balance(NamedTuple):
    """Of one layer of maxout units or ReLUs."""

    name: str  # of the module in its network
    pieces: int
    entropy: float  # mean over units of -sum_j p_ij ln p_ij / ln k: 1 where all pieces have equal shares
    degenerate: float  # share of units with max_j p_ij > 0.95: linear ones, almost


@torch.no_grad()
def balance(model: nn.Module, batches: Iterable[Tensor]) -> list[Balance]:
    """How evenly the units of a network use their pieces, layer by layer, in the order of `model.modules()`.

    p_ij is the share of images and positions at which piece j of unit i wins, the first of equal ones; the
    pieces of a ReLU are x > 0 and x <= 0. A layer that is called several times, such as a recurrent one,
    counts all of them. The network runs in evaluation mode; memory is that of its forward pass and of counts.
    (The shares, their entropy and the 0.95 are ours; Liao & Carneiro, arXiv 1508.00330, speak of balance.)
    """
    kinds = (MaxPieces, nin.MaxPieces, nn.ReLU)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, kinds)}
    counts: dict[str, Tensor] = {}

    def count(name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor]) -> None:
            found = wins(layer, inputs[0])
            counts[name] = found + counts[name] if name in counts else found

        return hook

    handles = [layer.register_forward_pre_hook(count(name)) for name, layer in layers.items()]
    modes = {m: m.training for m in model.modules()}
    model.eval()
    try:
        for x in batches:
            model(x)
    finally:
        for handle in handles:
            handle.remove()
        for m, mode in modes.items():
            m.training = mode
    if layers and not counts:
        raise ValueError("no images: the shares of pieces are not known")
    return [measured(name, counts[name]) for name in layers if name in counts]


def wins(layer: nn.Module, x: Tensor) -> Tensor:
    """How often each piece of each unit wins, [k, C]; NaN where the layer was given a NaN: nothing wins."""
    if x.isnan().any():
        k = 2 if isinstance(layer, nn.ReLU) else int(layer.pieces)  # type: ignore[arg-type]
        return x.new_full((k, x.shape[1] // (1 if isinstance(layer, nn.ReLU) else k)), math.nan)
    over = [0, *range(2, x.dim())]
    if isinstance(layer, nn.ReLU):
        active = (x > 0).sum(over)
        return torch.stack([active, x.numel() // x.shape[1] - active])
    k = int(layer.pieces)  # type: ignore[arg-type]
    if isinstance(layer, nin.MaxPieces):  # neighbours there
        x = x.unflatten(1, (-1, k)).transpose(1, 2).flatten(1, 2)
    at = largest(x, k)[1] if k > 1 else torch.zeros_like(x, dtype=torch.uint8)
    return torch.stack([(at == j).sum(over) for j in range(k)])


def measured(name: str, counts: Tensor) -> Balance:
    p = counts.double() / counts.sum(0)
    if p.isnan().any():
        return Balance(name, len(p), math.nan, math.nan)
    entropy = -torch.special.xlogy(p, p).sum(0).mean() / (math.log(len(p)) or 1.0)
    return Balance(name, len(p), entropy.item(), (p.max(0).values > 0.95).double().mean().item())
