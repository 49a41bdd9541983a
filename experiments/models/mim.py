"""Two networks of Table 9: the maxout network in maxout network of Liao & Carneiro (arXiv 1508.00330), and
Goodfellow et al.'s convolutional maxout network for MNIST (arXiv 1302.4389).

MIM is a reconstruction [memory]: its paper was not read beyond its abstract, which puts maxout and batch
normalisation into the network in network of Lin et al. Its sizes are here those of `nin.LIN`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from experiments.models.maxout import MaxPieces
from experiments.models.mlp import Normaliser
from experiments.models.nin import LIN, C, M, P, Unit, pooling, positions, scaled, sized, stack, start_of

SIZES = "cifar", "mnist"
AVERAGE = P(3, 2, 0, "avg", ceil=True)

# Goodfellow et al., as pylearn2/scripts/papers/maxout/mnist.yaml; the logits' weights have the last limit.
MNIST = (
    M(C(48, 8, 1, 0), 2, P(4, 2, 0, "max", ceil=True), 0.9),
    M(C(48, 8, 1, 3), 2, P(4, 2, 0, "max", ceil=True), 1.9365),
    M(C(24, 5, 1, 3), 4, P(2, 2, 0, "max", ceil=True), 1.9365),
)
LIMIT_OUT = 1.9365


class Pieces(Unit):
    """Convolution with `pieces` filters a unit, normaliser, maxout: each piece has its own gamma and beta."""

    def __init__(self, inputs: int, row: C, norm: Normaliser, pieces: int) -> None:
        super().__init__(inputs, row._replace(filters=pieces * row.filters), norm)
        self.register_module("activation", MaxPieces(pieces))


class MIM(nn.Module):
    """Images [B, C, H, W] -> logits [B, classes]. For CIFAR-10, k = `pieces` filters to each of these units:

        5x5 192, 1x1 160, 1x1  96, max pooling 3/2, dropout,
        5x5 192, 1x1 192, 1x1 192, average pooling 3/2, dropout,
        3x3 192, 1x1 192, 1x1  10, average over all positions

    Every convolution is followed by `norm` and the activation, the last 1x1, too: maxout, or (`activation`
    relu) ReLU with one filter a unit whatever `pieces`, which is Lin et al.'s network but for the average
    pooling. A window that sticks out of the map averages what lies in it. `norm` acts on every piece; with
    one that shifts, convolutions have no bias.

    Ours: `size` mnist, Lin et al.'s 96-64-48, 128-96-48, 5x5 128-96-10; with fewer `blocks` the first 1 or 2
    alone, where the last 1x1 in use has the classes and the average over all positions takes the place of its
    block's pooling (3, 6 or 9 layers). `width` multiplies the hidden filters.

    Weights Gaussian of mean 0 and variance 1 / (inputs E[f(z)^2]), z the pieces as independent standard
    normal variables, so that the mean square of activations neither grows nor falls from layer to layer: He's
    argument, for ReLU (1/2) his very weights, for maxout of two pieces variance 1 / inputs (ours). Biases 0.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        norm: Normaliser = nn.Identity,
        size: str = "cifar",
        blocks: int = 3,
        pieces: int = 2,
        activation: str = "maxout",
        width: float = 1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if activation not in ("maxout", "relu"):
            raise ValueError(f"activation={activation!r}: choose maxout or relu")
        if pieces < 1:
            raise ValueError(f"pieces={pieces}: a maxout unit has one piece or more")
        rows = rows_of(size, blocks)
        least = min(row.filters for row in rows if isinstance(row, C) and row.filters)
        if not least * width >= 1.5:  # would be rounded up
            raise ValueError(f"width={width}: of {least} filters less than 2 are left")
        relu = activation == "relu"

        def unit(inputs: int, row: C) -> nn.Module:
            return Unit(inputs, row, norm) if relu else Pieces(inputs, row, norm, pieces)

        self.layers = stack(shape, sized(rows, classes, width), unit, dropout)
        square = 0.5 if relu else mean_square(pieces)
        for conv in (m for m in self.modules() if isinstance(m, nn.Conv2d)):
            nn.init.normal_(conv.weight, std=1 / math.sqrt(square * conv.weight[0].numel()))
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))


def rows_of(size: str, blocks: int) -> list[C | P]:
    if size not in SIZES:
        raise ValueError(f"size={size!r}: choose one of {', '.join(SIZES)}")
    if blocks not in (1, 2, 3):
        raise ValueError(f"blocks={blocks}: choose 1, 2 or 3")
    rows = list(LIN[size][: 4 * blocks - 1])  # a block: three convolutions and a pooling
    if blocks == 3:
        rows[7] = AVERAGE
    return [*rows[:-1], cast(C, rows[-1])._replace(filters=0)]


def mean_square(pieces: int) -> float:
    """E[(max_j z_j)^2] of that many independent standard normal z_j: 1, 1, 1.2757, 1.5513, 1.8000, ..."""
    z = torch.linspace(-12, 12, 24001, dtype=torch.float64)
    return torch.trapezoid(z.square(), torch.special.ndtr(z) ** pieces).item()


def equal_width(
    shape: Sequence[int],
    classes: int,
    size: str = "cifar",
    blocks: int = 3,
    pieces: int = 2,
    width: float = 1,
) -> float:
    """The width at which maxout has the weights of `activation` relu at `width`: with a weights between
    hidden layers and b others, v such that pieces (a v^2 + b v) = a width^2 + b width. But for rounding.
    """
    inputs, a, b = 0, 0, 0  # 0: not a hidden layer's
    for row in (r for r in rows_of(size, blocks) if isinstance(r, C)):
        weights = (inputs or shape[0]) * (row.filters or classes) * row.size**2
        a, b = (a + weights, b) if inputs and row.filters else (a, b + weights)
        inputs = row.filters
    wanted = (a * width**2 + b * width) / pieces
    return (math.sqrt(b * b + 4 * a * wanted) - b) / (2 * a)


class MaxoutMNIST(nn.Module):
    """Images [B, C, H, W] -> logits [B, classes]. Goodfellow et al.'s convolutional network for MNIST; their
    one for CIFAR-10 is `nin.Maxout`, whose options this one has. `nin.max_norm_` shortens its filters, too;
    its convolutions have the full learning rate. (There each position has a bias of its own; here a map has.)
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        width: float = 1,
        dropout: Sequence[float] = (0.2, 0.5),
        start: Sequence[float] = (0.005,),
    ) -> None:
        super().__init__()
        channels, h, w = shape
        pixels, hidden = dropout
        layers = self.layers = nn.Sequential(nn.Dropout(pixels))
        for conv, pieces, pool, _ in MNIST:
            units = scaled(conv.filters, width)
            conv = conv._replace(filters=units * pieces)
            h, w = (positions(pool, positions(conv, n, shape), shape) for n in (h, w))
            layers.extend([nn.Conv2d(channels, *conv), MaxPieces(pieces), pooling(pool), nn.Dropout(hidden)])
            channels = units
        layers.extend([nn.Flatten(), nn.Linear(channels * h * w, classes)])
        self.limits = (*(row.limit for row in MNIST), LIMIT_OUT)
        for k, layer in enumerate(m for m in layers if isinstance(m, nn.Conv2d | nn.Linear)):
            bound = start_of(k, start, width)
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(cast(Tensor, layer.bias))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last))
