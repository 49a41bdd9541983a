"""Batch statistics per channel: what the layers that normalise with a batch share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def inside_func() -> bool:
    """Whether a torch.func transform is running, as torch.autograd.Function asks itself."""
    # A Function that torch.func can transform has some 80 us more of overhead a call, a quarter of
    # nn.BatchNorm1d on [100, 300]: so only where it is needed.
    return bool(torch._C._are_functorch_transforms_active())


def dims(x: Tensor) -> list[int]:
    """All dimensions of x [N, C, ...] but C."""
    return [0, *range(2, x.dim())]


def column(v: Tensor, x: Tensor) -> Tensor:
    """A vector over channels, shaped to go with x [N, C, ...]."""
    return v if x.dim() == 2 else v.view(-1, *[1] * (x.dim() - 2))


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance (1/n) per channel, without gradient."""
    if inside_func():
        return _StackedMoments.apply(x)
    x = x.detach()
    if x.device.type in ("cpu", "cuda"):  # batch_norm's own kernel: on a CPU 20 times as fast as var_mean
        mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
    else:
        var, mean = torch.var_mean(x, dims(x), correction=0)
    return mean, var


class _StackedMoments(torch.autograd.Function):
    """`moments` under torch.func: the members of a vmap become channels."""

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return moments(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor) -> tuple[Any, Any]:
        mean, var = moments(x.movedim(in_dims[0], 1).flatten(1, 2))
        return (mean.view(info.batch_size, -1), var.view(info.batch_size, -1)), (0, 0)
