"""The networks of Table 2, as their papers' tables have them: the networks in network of Arpit et al. (arXiv
1603.01431) and Lin et al. (arXiv 1312.4400), the maxout network of Goodfellow et al. (arXiv 1302.4389).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from experiments.models.inception import scaled
from experiments.models.mlp import Normaliser, glorot_
from norms import NormPropConv2d


class C(NamedTuple):
    filters: int  # 0: one for each class
    size: int
    stride: int
    padding: int


class P(NamedTuple):
    size: int
    stride: int
    padding: int
    mode: str  # max | avg
    ceil: bool = False  # also a last window that sticks out of the map, as cuda-convnet has it


class M(NamedTuple):
    conv: C  # its filters: those of one piece
    pieces: int
    pool: P
    limit: float  # of a filter's L2 norm


Rows = Sequence[C | P]

# Arpit et al. The last row of both, P(8, 8, 0, avg), is the average over all positions, whatever the size.
BLOCKS = (
    C(192, 5, 1, 2), C(160, 1, 1, 0), P(3, 2, 1, "max"), C(96, 1, 1, 0),
    C(192, 5, 1, 2), C(192, 1, 1, 0), P(3, 2, 1, "avg"), C(192, 1, 1, 0),
)  # fmt: skip
PRINTED = (*BLOCKS, C(192, 5, 1, 0), C(192, 1, 1, 2), C(0, 1, 1, 0))
SWAPPED = (*BLOCKS, C(192, 5, 1, 2), C(192, 1, 1, 0), C(0, 1, 1, 0))


def block(size: int, *filters: int) -> list[C]:
    """Lin et al.'s mlpconv: a convolution and 1x1 ones behind it."""
    return [C(filters[0], size, 1, size // 2), *(C(f, 1, 1, 0) for f in filters[1:])]


# Lin et al., with the sizes and paddings of NIN/*_def in mavenlin/cuda-convnet.
HALF = P(3, 2, 0, "max", ceil=True)
LIN: dict[str, Rows] = {
    "cifar": (*block(5, 192, 160, 96), HALF, *block(5, 192, 192, 192), HALF, *block(3, 192, 192, 0)),
    "svhn": (*block(5, 128, 96, 64), HALF, *block(5, 320, 256, 128), HALF, *block(5, 384, 256, 0)),
    "mnist": (*block(5, 96, 64, 48), HALF, *block(5, 128, 96, 48), HALF, *block(5, 128, 96, 0)),
}

# Goodfellow et al., as pylearn2/scripts/papers/maxout/cifar10_no_aug_valid.yaml; then fully connected layers.
MAXOUT = (
    M(C(96, 8, 1, 4), 2, P(4, 2, 0, "max", ceil=True), 0.9),
    M(C(192, 8, 1, 3), 2, P(4, 2, 0, "max", ceil=True), 1.9365),
    M(C(192, 5, 1, 3), 2, P(2, 2, 0, "max", ceil=True), 1.9365),
)
UNITS, PIECES, LIMIT, LIMIT_OUT = 500, 5, 1.9, 1.9365


class Unit(nn.Sequential):
    """Convolution, normaliser, ReLU. With a normaliser that shifts, the convolution has no bias."""

    def __init__(self, inputs: int, row: C, norm: Normaliser) -> None:
        layer = norm(row.filters)
        shifts = any(name.endswith("bias") for name, _ in layer.named_parameters())
        super().__init__()
        self.conv = nn.Conv2d(inputs, *row, bias=not shifts)
        self.norm, self.activation = layer, nn.ReLU()


def stack(
    shape: Sequence[int], rows: Rows, unit: Callable[[int, C], nn.Module], dropout: float
) -> nn.Sequential:
    """The rows one after another, and dropout after each pooling."""
    channels, h, w = shape
    layers = nn.Sequential()
    for row in rows:
        h, w = positions(row, h, shape), positions(row, w, shape)
        if isinstance(row, C):
            layers.append(unit(channels, row))
            channels = row.filters
        else:
            layers.extend([pooling(row), nn.Dropout(dropout)])
    return layers


def pooling(row: P) -> nn.Module:
    kind = nn.MaxPool2d if row.mode == "max" else nn.AvgPool2d
    return kind(row.size, row.stride, row.padding, ceil_mode=row.ceil)


def positions(row: C | P, n: int, shape: Sequence[int]) -> int:
    """The length of a row's output for an input of length n; `shape` is for the error only."""
    steps = (n + 2 * row.padding - row.size) / row.stride
    length = (math.ceil(steps) if isinstance(row, P) and row.ceil else math.floor(steps)) + 1
    if length < 1:
        raise ValueError(f"images of {shape[1]}x{shape[2]} are too small: {n} positions reach {row}")
    return length


def sized(rows: Rows, classes: int, width: float) -> Rows:
    return [r._replace(filters=scaled(r.filters, width) or classes) if isinstance(r, C) else r for r in rows]


class NormPropNIN(nn.Module):
    """Images [B, C, H, W] -> logits [B, classes]. The network of Arpit et al.: nine convolutions, 1,555,392
    weights for CIFAR-10. Poolings stand inside the blocks, unlike Lin's.

    A convolution is followed by `norm` and ReLU or, given `propagation` (options of NormPropConv2d, such as
    {"gamma": 1}), is a NormPropConv2d with its own gamma, beta and ReLU. Average pooling counts padded zeros.
    As printed, layer 7 (5x5) has padding 0 and layer 8 (1x1) padding 2, a ring of zeros around its input;
    `swap_padding` exchanges them [inferred]. The last 1x1 gives plain logits, with a bias [inferred]; with
    `last` it is a layer as the others, ReLU included. `width` multiplies the hidden filters. `dropout` comes
    after both poolings (the paper has none). Weights Glorot uniform, biases 0.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        norm: Normaliser = nn.Identity,
        propagation: Mapping[str, Any] | None = None,
        width: float = 1,
        swap_padding: bool = False,
        last: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if propagation is not None and norm is not nn.Identity:
            raise ValueError("give norm or propagation: a NormProp convolution does without a normaliser")
        rows = sized(SWAPPED if swap_padding else PRINTED, classes, width)

        def unit(inputs: int, row: C) -> nn.Module:
            if row is rows[-1] and not last:
                return nn.Conv2d(inputs, *row)
            if propagation is not None:
                return NormPropConv2d(inputs, *row, **propagation)
            return Unit(inputs, row, norm)

        self.layers = stack(shape, rows, unit, dropout)
        self.apply(glorot_)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))


@torch.no_grad()
def unit_filters_(model: nn.Module, every: bool = False) -> None:
    """Rescales convolution filters to unit L2 norm, in place: Arpit et al. do so with "each filter" after
    every iteration. Here with those of NormProp convolutions and those in front of a normaliser, whose length
    does not change the output; `every`: also with others, such as the logits', whose scale that fixes.
    """
    chosen = {m.conv for m in model.modules() if isinstance(m, Unit) and not isinstance(m.norm, nn.Identity)}
    for m in model.modules():
        if isinstance(m, NormPropConv2d) or m in chosen or (every and isinstance(m, nn.Conv2d)):
            norm = torch.linalg.vector_norm(m.weight, dim=(1, 2, 3), keepdim=True)
            m.weight.div_(torch.where(norm > 0, norm, 1))  # a filter of zeros stays


class LinNIN(nn.Module):
    """Images [B, C, H, W] -> logits [B, classes]. The network of Lin et al.; `size`: cifar, svhn, mnist.
    Max pooling and `dropout` follow the first two blocks, the average over all positions the third. ReLU also
    behind the last 1x1: no logit is negative. `norm` (Lin et al. have none) comes between every convolution
    and its ReLU. `width` multiplies the hidden filters. Weights Gaussian; `start` lists the deviations of the
    convolutions, the last for all that follow (for CIFAR-100: 0.001, 0.01, 0.01, 0.05), behind the first
    divided by sqrt(width), so that signals are as strong as in the full network (ours); biases 0.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        norm: Normaliser = nn.Identity,
        size: str = "cifar",
        width: float = 1,
        dropout: float = 0.5,
        start: Sequence[float] = (0.05,),
    ) -> None:
        super().__init__()
        if size not in LIN:
            raise ValueError(f"size={size!r}: choose one of {', '.join(LIN)}")
        rows = sized(LIN[size], classes, width)
        self.layers = stack(shape, rows, lambda i, row: Unit(i, row, norm), dropout)
        self.apply(glorot_)  # for the biases
        for k, conv in enumerate(m for m in self.modules() if isinstance(m, nn.Conv2d)):
            nn.init.normal_(conv.weight, std=start_of(k, start, width))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last)).mean((2, 3))


def start_of(layer: int, start: Sequence[float], width: float) -> float:
    return start[min(layer, len(start) - 1)] / (math.sqrt(width) if layer else 1)


def rates(model: nn.Module) -> Iterator[tuple[Tensor, float]]:
    """(parameter, its share of the learning rate), where it is not 1. Lin et al.: a tenth in the last 1x1,
    biases twice their weights'; Goodfellow et al.: a twentieth in convolutions.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer in layers:
        bias = [] if layer.bias is None else [layer.bias]
        if isinstance(model, LinNIN):
            share = 0.1 if layer is layers[-1] else 1.0
            yield layer.weight, share
            yield from ((b, 2 * share) for b in bias)
        elif isinstance(model, Maxout) and isinstance(layer, nn.Conv2d):
            yield from ((p, 0.05) for p in (layer.weight, *bias))


def maxout(x: Tensor, pieces: int) -> Tensor:
    """[B, C * pieces, ...] -> [B, C, ...]: the largest of each unit's pieces, which are neighbours in x."""
    if pieces < 1 or x.shape[1] % pieces:
        raise ValueError(f"{x.shape[1]} channels are not a multiple of pieces={pieces}")
    x = x.movedim(1, -1)  # contiguous, if x is channels_last
    return x.unflatten(-1, (-1, pieces)).max(-1).values.movedim(-1, 1)


class MaxPieces(nn.Module):
    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        return maxout(x, self.pieces)


class Maxout(nn.Module):
    """Images [B, C, H, W] -> logits [B, classes]. Goodfellow et al.'s network for CIFAR-10. `width`
    multiplies its units. `dropout`: of the images, of every later layer's input. (The source does not scale
    up the pixels that are left, input_scales 1; torch does.) Weights uniform in +-`start`, given layer by
    layer, the last for all that follow; behind the first layer in that over sqrt(width), so that signals are
    as strong as in the full network (ours); biases 0.
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
        for conv, pieces, pool, _ in MAXOUT:
            units = scaled(conv.filters, width)
            conv = conv._replace(filters=units * pieces)
            h, w = (positions(pool, positions(conv, n, shape), shape) for n in (h, w))
            layers.extend([nn.Conv2d(channels, *conv), MaxPieces(pieces), pooling(pool), nn.Dropout(hidden)])
            channels = units
        units = scaled(UNITS, width)
        layers.extend([nn.Flatten(), nn.Linear(channels * h * w, units * PIECES), MaxPieces(PIECES)])
        layers.extend([nn.Dropout(hidden), nn.Linear(units, classes)])
        self.limits = (*(row.limit for row in MAXOUT), LIMIT, LIMIT_OUT)
        for k, layer in enumerate(m for m in self.layers if isinstance(m, nn.Conv2d | nn.Linear)):
            bound = start_of(k, start, width)
            nn.init.uniform_(layer.weight, -bound, bound)
            nn.init.zeros_(cast(Tensor, layer.bias))
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.contiguous(memory_format=torch.channels_last))


@torch.no_grad()
def max_norm_(model: Maxout) -> None:
    """Shortens each filter and row longer than its layer's limit, in place: the source does after a step."""
    weighted = [m for m in model.layers if isinstance(m, nn.Conv2d | nn.Linear)]
    for layer, limit in zip(weighted, model.limits, strict=True):
        layer.weight.renorm_(2, 0, limit)
