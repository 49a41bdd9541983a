"""The network of Table 7: the acoustic model of hybrid recognisers with a convolution along frequency
(Abdel-Hamid et al., ICASSP 2012), and its first layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from experiments.models.inception import scaled
from experiments.models.mlp import glorot_

FILTERS, BANDS, POOL, UNITS, LAYERS = 128, 9, 3, 512, 3
# Of the largest band's deviation: what a band's counts for at least. A band may be the same everywhere, and
# border rows of pictures almost are: divided by a deviation so small, a few grey pixels were inputs of 77.
FLOOR = 0.1


class BandNorm(nn.Module):
    """(x - mean) / max(std, FLOOR times the largest band's std) of each frequency band (row), [B, 1, F, T];
    the training part's constants over examples and frames, kept with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(-1, 1))
        self.register_buffer("std", std.view(-1, 1))

    @staticmethod
    def of(x: Tensor) -> BandNorm:
        """For features [N, 1, F, T], float32 or uint8 pictures, which count as x / 255; some at a time."""
        total, square = (torch.zeros(x.shape[2], dtype=torch.float64, device=x.device) for _ in range(2))
        for some in x.split(1000):
            values = some.double() / (255 if x.dtype == torch.uint8 else 1)
            total += values.sum((0, 1, 3))
            square += values.square().sum((0, 1, 3))
        n = x.numel() / x.shape[2]
        mean = total / n
        std = (square / n - mean.square()).clamp(min=0).sqrt()
        least = FLOOR * std.max() or torch.ones_like(mean[0])  # nothing varies at all
        return BandNorm(mean.float(), std.clamp(min=least).float())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std


class SpeechCNN(nn.Module):
    """Features x [B, 1, F, T] of F bands and T frames -> logits [B, classes].

    conv(128, 9 bands x all T frames) - pool(3 bands) - FC 512 - FC 512 - FC 512 - FC classes, as the sheet
    of the table suggests (the source's own sizes are not known). A filter sees all frames and slides along
    frequency only; the hybrid models have 11 frames around the one to be classified, here it is the whole
    word. `norm` comes before each activation: norm(channels, dim), in the convolution per feature map over
    batch and frequency. A layer whose normaliser shifts has no bias. `width` multiplies 128 and 512. Weights
    Glorot uniform, those in front of an activation times `gain`, biases 0. With a gain of 4 a layer of
    sigmoids, whose slope at 0 is 1/4, passes signals on about as strong as they came; with 1 a plain network
    of four such layers stays near chance for a thousand steps at 0.08 (ours).
    """

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        norm: Callable[[int, int], nn.Module],
        width: float = 1,
        activation: Callable[[], nn.Module] = nn.ReLU,
        gain: float = 1,
    ) -> None:
        super().__init__()
        channels, bands, frames = shape
        if channels != 1 or bands < BANDS + POOL - 1:
            raise ValueError(
                f"inputs of {channels}x{bands}x{frames}: this network wants one channel and at least"
                f" {BANDS + POOL - 1} bands"
            )
        filters, units = scaled(FILTERS, width), scaled(UNITS, width)
        sizes = [filters * ((bands - BANDS + 1) // POOL), *[units] * LAYERS]
        of_conv = norm(filters, 2)
        self.conv = nn.Conv2d(1, filters, (BANDS, frames), bias=not shifts(of_conv))
        self.first = nn.Sequential(of_conv, activation(), nn.MaxPool2d((POOL, 1)), nn.Flatten())
        self.hidden = nn.Sequential()
        for inputs, outputs in pairwise(sizes):
            layer = norm(outputs, 1)
            self.hidden.extend([nn.Linear(inputs, outputs, bias=not shifts(layer)), layer, activation()])
        self.out = nn.Linear(units, classes)
        self.apply(glorot_)
        with torch.no_grad():
            for layer in (self.conv, *self.hidden):
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.weight.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(self.first(self.conv(x))))


def shifts(norm: nn.Module) -> bool:
    return any(name.endswith("bias") for name, _ in norm.named_parameters())
