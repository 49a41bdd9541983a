"""Normalisation of the data pixel by pixel, the first layer of Table 2's networks."""

from __future__ import annotations

import torch
from torch import Tensor, distributed, nn

from experiments.distributed import size

# Added to variances of pictures in [0, 1]; ours. A pixel that is dark in nearly all pictures would else be
# divided by next to nothing. Pixels of photographs have variances of some 0.06.
FLOOR = 1e-3


class PixelNorm(nn.Module):
    """(x - mean) / sqrt(var + FLOOR), each pixel of each channel by itself, [B, C, H, W]; mean and variance
    of the training part ("global data normalisation").
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    @staticmethod
    def of(x: Tensor) -> PixelNorm:
        """For uint8 pictures [N, C, H, W], a thousand at a time."""
        total, square = (torch.zeros(x.shape[1:], dtype=torch.float64, device=x.device) for _ in range(2))
        for some in x.split(1000):
            values = some.double() / 255
            total += values.sum(0)
            square += values.square().sum(0)
        mean = total / len(x)
        variance = square / len(x) - mean.square()
        return PixelNorm(mean.float(), (variance.clamp(min=0) + FLOOR).sqrt().float())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class BatchPixelNorm(nn.BatchNorm1d):
    """The same by the statistics of the mini-batch in training, of their moving average in tests ("batch data
    normalisation"). Under torchrun the mini-batch is that of all processes.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, picture: Tensor) -> None:
        super().__init__(picture.numel(), eps=FLOOR, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(1)
        if not self.training or size() == 1:
            return super().forward(pixels).view(x.shape)
        n = len(x) * size()
        mean = summed(pixels.sum(0)) / n
        centred = pixels - mean
        var = summed(centred.square().sum(0)) / n
        self.running_mean.lerp_(mean, 0.1)
        self.running_var.lerp_(var * (n / (n - 1)), 0.1)
        return (centred * (var + self.eps).rsqrt()).view(x.shape)


def summed(x: Tensor) -> Tensor:
    """The sum over all processes, in place; the pictures need no gradient."""
    distributed.all_reduce(x)
    return x
