"""The first layer of a network for pictures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

SAMPLE = 2000


class Standardise(nn.Module):
    """(x - mean) / std by channel, [B, C, H, W] with values in [0, 1]; the training part's constants, which
    are kept with the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))

    @staticmethod
    def of(x: Any) -> Standardise:
        """For uint8 pictures [N, C, H, W], from how often each channel has each of the 256 levels; of a set
        that stays on the disk from its first SAMPLE pictures.
        """
        if hasattr(x, "batches"):
            (x,) = x.batches([range(min(len(x), SAMPLE))])
        channels = x.transpose(0, 1).flatten(1)
        counts = torch.stack([torch.bincount(levels, minlength=256) for levels in channels]).double()
        share, value = counts / counts.sum(1, keepdim=True), torch.arange(256).double() / 255
        mean = share @ value
        variance = share @ value.square() - mean.square()
        return Standardise(mean.float(), variance.clamp(min=1e-12).sqrt().float())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std
