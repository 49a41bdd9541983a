"""Distortions of a whole batch of pictures at once: no loop over pictures, no worker processes.

Random numbers come from the generator that is given, so that a batch can be drawn again: after an
interruption, or in every process of a distributed run.
"""

import torch
from torch import Tensor

JITTER = 0.4  # brightness, contrast and saturation, each by a factor of 1 - JITTER to 1 + JITTER
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601 luma of red, green, blue


def pictures(
    x: Tensor,
    generator: torch.Generator,
    flip: bool = False,
    pad: int = 0,
    photometric: bool = False,
    share: tuple[int, int] = (0, 1),
) -> Tensor:
    """uint8 [N, C, H, W] -> float32 in [0, 1] of the same size, in channels-last order.

    flip: mirrored left to right with probability 1/2. pad: a crop of the picture with so many zeros around
    it. share: (k, m) where x is every m-th picture of a batch, from the k-th on; numbers are drawn for the
    whole batch. photometric: brightness, contrast and saturation, in this order, each by a factor of its own.
    """
    n, channels, height, width = x.shape
    device = x.device

    def draw(high: int, size: int) -> Tensor:
        return torch.randint(high, (size * share[1],), generator=generator)[share[0] :: share[1]].to(device)

    rows = torch.arange(height, device=device).expand(n, height)
    columns = torch.arange(width, device=device).expand(n, width)
    if flip:
        mirrored = draw(2, n).bool()
        columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    if pad:
        x = torch.nn.functional.pad(x, (pad,) * 4)
        rows = rows + draw(2 * pad + 1, n)[:, None]
        columns = columns + draw(2 * pad + 1, n)[:, None]
    if flip or pad:
        # One gather does both; its result is [N, H, W, C], which as [N, C, H, W] is channels-last.
        each = torch.arange(n, device=device)[:, None, None]
        x = x.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    out = x.to(torch.float32, memory_format=torch.channels_last).div_(255)
    if photometric:
        factors = 1 + JITTER * (2 * torch.rand(3, n * share[1], 1, 1, 1, generator=generator) - 1)
        brightness, contrast, saturation = factors[:, share[0] :: share[1]].to(device)
        out = (out * brightness).clamp_(0, 1)
        mean = grey(out).mean((1, 2, 3), keepdim=True)
        out = torch.lerp(mean.expand_as(out), out, contrast).clamp_(0, 1)
        if channels == 3:
            out = torch.lerp(grey(out).expand_as(out), out, saturation).clamp_(0, 1)
    return out


def grey(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, 1, H, W], the luma of three channels, else the mean."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    return torch.einsum("nchw,c->nhw", x, x.new_tensor(GREY))[:, None]
