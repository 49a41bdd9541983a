"""The recurrent convolutional network of Liang & Hu (CVPR 2015), a row of Table 9."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.models.inception import LocalResponse, he_, scaled
from experiments.models.mlp import glorot_
from experiments.models.nin import HALF, C, pooling, positions

FILTERS = {"cifar": 160, "mnist": 96}


class RCL(nn.Module):
    """Recurrent convolution layer, [B, inputs, H, W] -> [B, filters, H, W]: with filters W_f and W_r of 3x3
    and a bias b, the same for all t,

        h_0 = LRN(ReLU(W_f * x + b)),  h_t = LRN(ReLU(W_f * x + W_r * h_(t-1) + b)),  t = 1..T = `iterations`

    and the output is h_T. LRN divides by (1 + alpha / N sum h^2)^(3/4), the sum over N neighbouring maps,
    with alpha = 0.001 and N = filters / 8 + 1 [memory; public re-implementations have these, too],
    rounded down; with an even N there are N + 1 such maps.

    Weights Gaussian with half of He's variance in each of W_f and W_r, so that their sum is as strong as one
    convolution of his, whatever T (ours: the paper's are not known); b = 0.
    """

    def __init__(self, inputs: int, filters: int, iterations: int = 3) -> None:
        super().__init__()
        if iterations < 0:
            raise ValueError(f"iterations={iterations}: must be 0 or more")
        self.iterations = iterations
        self.conv = nn.Conv2d(inputs, filters, 3, padding=1)
        self.recurrent = nn.Conv2d(filters, filters, 3, padding=1, bias=False) if iterations else None
        self.activation = nn.ReLU()
        self.norm = LocalResponse(filters // 8 + 1, alpha=0.001)
        self.apply(he_)
        with torch.no_grad():
            for conv in (m for m in self.children() if isinstance(m, nn.Conv2d)):
                conv.weight.mul_(math.sqrt(0.5))

    def forward(self, x: Tensor) -> Tensor:
        fed = self.conv(x)
        h = self.norm(self.activation(fed))
        if self.recurrent is not None:
            for _ in range(self.iterations):
                h = self.norm(self.activation(fed + self.recurrent(h)))
        return h


class RCNN(nn.Module):
    """Images [B, C, H, W] -> logits [B, classes], with K filters in every layer:

        5x5 convolution, ReLU, max pooling 3/2, RCL, dropout, RCL, max pooling 3/2, dropout,
        RCL, dropout, RCL, maximum over all positions, linear

    K = 160 (`size` cifar; 1.86 million parameters, as published), 96 (mnist), times `width`; T = 3. Dropout
    follows every RCL but the last, behind its pooling if there is one [memory]. Ours: no LRN in the first
    layer; poolings and paddings such that 32x32 becomes 16 and 8; dropout 0.5; initial weights (He's in the
    5x5, Glorot's of the logits).
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        size: str = "cifar",
        width: float = 1,
        iterations: int = 3,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if size not in FILTERS:
            raise ValueError(f"size={size!r}: choose one of {', '.join(FILTERS)}")
        if not FILTERS[size] * width >= 1.5:  # would be rounded up
            raise ValueError(f"width={width}: of {FILTERS[size]} filters less than 2 are left")
        k = scaled(FILTERS[size], width)
        for n in shape[1:]:
            positions(HALF, positions(HALF, n, shape), shape)
        first = nn.Conv2d(shape[0], *C(k, 5, 1, 2))
        he_(first)
        self.layers = nn.Sequential(
            first, nn.ReLU(), pooling(HALF),
            RCL(k, k, iterations), nn.Dropout(dropout),
            RCL(k, k, iterations), pooling(HALF), nn.Dropout(dropout),
            RCL(k, k, iterations), nn.Dropout(dropout),
            RCL(k, k, iterations),
        )  # fmt: skip
        self.out = nn.Linear(k, classes)
        glorot_(self.out)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(x.contiguous(memory_format=torch.channels_last))
        return self.out(F.adaptive_max_pool2d(x, 1).flatten(1))
