"""The Inception network of Table 1, as the table of Ioffe & Szegedy (arXiv 1502.03167, its Figure 5) has it,
and a small one of the same modules.

A module puts side by side, over channels,

    1x1  |  1x1 -> 3x3  |  1x1 -> 3x3 -> 3x3  |  pool -> 1x1

and every convolution is followed by a normaliser (or by none) and the activation. Modules of stride 2 have no
1x1 branch and pass the pooled input through.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from experiments.models.mlp import Normaliser

Activation = Callable[[], nn.Module]


class Row(NamedTuple):
    """A module's line of the table; 0: no such branch. `reduce` are the 1x1 in front of the 3x3."""

    name: str
    one: int
    reduce3: int
    three: int
    reduce33: int
    double: int
    pool: str  # avg | max
    project: int  # 0: the pooled input is passed through
    stride: int = 1


# 224x224. The table prints 576 channels for 4c and 4d, whose branches add up to 608 with the printed
# projections of 128; public code (TensorFlow's slim) has 96 there, which gives 576, as here.
FULL = (
    Row("3a", 64, 64, 64, 64, 96, "avg", 32),
    Row("3b", 64, 64, 96, 64, 96, "avg", 64),
    Row("3c", 0, 128, 160, 64, 96, "max", 0, stride=2),
    Row("4a", 224, 64, 96, 96, 128, "avg", 128),
    Row("4b", 192, 96, 128, 96, 128, "avg", 128),
    Row("4c", 160, 128, 160, 128, 160, "avg", 96),
    Row("4d", 96, 128, 192, 160, 192, "avg", 96),
    Row("4e", 0, 128, 192, 192, 256, "max", 0, stride=2),
    Row("5a", 352, 192, 320, 160, 224, "avg", 128),
    Row("5b", 352, 192, 320, 192, 224, "max", 128),
)
# 32x32, the network that the CNTK examples train on CIFAR-10 (bn_inception_cifar_model).
SMALL = (
    Row("3a", 32, 32, 32, 32, 48, "avg", 16),
    Row("3b", 0, 64, 80, 32, 48, "max", 0, stride=2),
    Row("4a", 96, 48, 64, 48, 64, "avg", 64),
    Row("4b", 48, 64, 96, 80, 96, "avg", 64),
    Row("4c", 0, 128, 192, 192, 256, "max", 0, stride=2),
    Row("5a", 176, 96, 160, 96, 112, "max", 64),
)


class ConvUnit(nn.Sequential):
    """Convolution, normaliser, activation. With a normaliser that shifts, the convolution has no bias."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        norm: Normaliser,
        activation: Activation,
        stride: int = 1,
    ) -> None:
        layer = norm(outputs)
        bias = isinstance(layer, nn.Identity)
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=bias)
        super().__init__()
        self.conv, self.norm, self.activation = conv, layer, activation()


class Module(nn.Module):
    """One line of the table: [B, inputs, H, W] -> [B, self.outputs, H / stride, W / stride]."""

    def __init__(
        self, inputs: int, row: Row, norm: Normaliser, activation: Activation, width: float = 1
    ) -> None:
        super().__init__()

        def unit(i: int, o: int, size: int, stride: int = 1) -> ConvUnit:
            return ConvUnit(i, o, size, norm, activation, stride)

        one, reduce3, three, reduce33, double, project = (
            scaled(n, width) for n in (row.one, row.reduce3, row.three, row.reduce33, row.double, row.project)
        )
        pool = nn.AvgPool2d if row.pool == "avg" else nn.MaxPool2d
        self.branch1 = unit(inputs, one, 1) if one else None
        self.branch3 = nn.Sequential(unit(inputs, reduce3, 1), unit(reduce3, three, 3, row.stride))
        self.branch33 = nn.Sequential(
            unit(inputs, reduce33, 1), unit(reduce33, double, 3), unit(double, double, 3, row.stride)
        )
        self.branch_pool = nn.Sequential(pool(3, row.stride, 1))
        if project:
            self.branch_pool.append(unit(inputs, project, 1))
        self.outputs = one + three + double + (project or inputs)

    def forward(self, x: Tensor) -> Tensor:
        found = [] if self.branch1 is None else [self.branch1(x)]
        return torch.cat([*found, self.branch3(x), self.branch33(x), self.branch_pool(x)], 1)


def scaled(channels: int, width: float) -> int:
    return max(2, round(channels * width)) if channels else 0


class Inception(nn.Module):
    """Images [B, C, H, W] -> logits [B, classes].

    size "full": the paper's table, for 224x224 and 1,000 classes. It has 11.2 million parameters, not the
    13.6 million of the paper's text; other public versions have 11.2 to 11.3 too. "small": the CIFAR-10
    network, for 32x32 and 64x64. `width` multiplies all
    channels. `lrn` puts local response normalisation before the second max pooling and behind the first, as
    GoogLeNet has it (in the small network at the corresponding places of its stem); the paper removed it
    from the accelerated networks without saying where it had been. `dropout` stands before the classifier.

    Weights He normal [the paper says nothing], biases 0.
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        norm: Normaliser,
        size: str = "small",
        width: float = 1,
        activation: Activation = nn.ReLU,
        lrn: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()

        def unit(i: int, o: int, k: int) -> ConvUnit:
            return ConvUnit(i, o, k, norm, activation)

        def response() -> list[nn.Module]:
            return [LocalResponse()] if lrn else []

        channels = shape[0]
        w = [scaled(n, width) for n in ((64, 64, 192) if size == "full" else (32, 32, 64))]
        if size == "full":
            first = Separable(channels, w[0], norm, activation)
            stem = [first, nn.MaxPool2d(3, 2, 1), *response(), unit(w[0], w[1], 1), unit(w[1], w[2], 3),
                    *response(), nn.MaxPool2d(3, 2, 1)]  # fmt: skip
        else:
            stem = [unit(channels, w[0], 3), unit(w[0], w[0], 3), unit(w[0], w[0], 3), *response(),
                    unit(w[0], w[1], 1), unit(w[1], w[2], 3), *response()]  # fmt: skip
        self.stem = nn.Sequential(*stem)
        modules, inputs = nn.Sequential(), w[2]
        for row in FULL if size == "full" else SMALL:
            module = Module(inputs, row, norm, activation, width)
            modules.add_module(row.name, module)
            inputs = module.outputs
        self.body = modules
        self.drop = nn.Dropout(dropout)
        self.out = nn.Linear(inputs, classes)
        self.apply(he_)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.body(self.stem(x)).mean((2, 3))
        return self.out(self.drop(x))


class LocalResponse(nn.Module):
    """Local response normalisation (Krizhevsky et al. 2012, section 3.3) over `size` neighbouring channels c:

        y_c = x_c / (1 + alpha / size sum_{|j - c| <= size // 2} x_j^2)^(3/4)

    nn.LocalResponseNorm with beta = 0.75 and k = 1. That one slides a three-dimensional average pooling over
    the channels, which took a fifth of a training step here; this is a 1x1 convolution with a band of ones.
    """

    def __init__(self, size: int = 5, alpha: float = 1e-4) -> None:
        super().__init__()
        self.size, self.alpha = size, alpha

    def forward(self, x: Tensor) -> Tensor:
        channels = torch.arange(x.shape[1], device=x.device)
        near = (channels[:, None] - channels[None, :]).abs() <= self.size // 2
        band = near.to(x.dtype)[:, :, None, None] * (self.alpha / self.size)
        root = (1 + nn.functional.conv2d(x.square(), band)).rsqrt()  # d^(-1/2)
        return x * root * root.sqrt()


class Separable(nn.Module):
    """The first layer, 7x7 with stride 2: each input channel by itself with depth multiplier 8, then 1x1."""

    def __init__(self, inputs: int, outputs: int, norm: Normaliser, activation: Activation) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, 8 * inputs, 7, 2, 3, groups=inputs, bias=False)
        self.pointwise = ConvUnit(8 * inputs, outputs, 1, norm, activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def he_(module: nn.Module) -> None:
    """He normal weights and zero biases for one linear or convolutional layer; leaves other modules alone."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
