"""Batch statistics per channel and their averages: what the layers that normalise with a batch share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


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


def channel_mean(x: Tensor) -> Tensor:
    """Mean per channel of x [N, C, ...], in float32 for a lower precision of x."""
    dtype = x.dtype if x.dtype == torch.float64 else torch.float32
    if x.dim() > 2 and x.is_contiguous():  # positions first: on a CPU three times as fast as both at once
        return x.flatten(2).sum(2, dtype=dtype).sum(0) / (x.numel() // x.shape[1])
    return x.mean(dims(x), dtype=dtype)


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance (1/n) per channel, without gradient, in float32 or float64."""
    if inside_func():
        return _StackedMoments.apply(x)
    x = x.detach()
    # On a CPU, batch_norm's own kernel is 20 times as fast as var_mean; but it goes through contiguous
    # positions one by one, and two passes of plain sums are three times as fast again.
    plain = x.is_cpu and x.dim() > 2 and x.is_contiguous()
    if x.device.type in ("cpu", "cuda") and not plain and not torch.compiler.is_compiling():
        mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
        return mean, var
    mean = channel_mean(x)
    return mean, channel_mean((x - column(mean, x)).square_())


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


def exchange(module: nn.Module, **values: Tensor) -> None:
    """New values for buffers of `module`, in place.

    But in a graph that torch.compile makes, new tensors take their place: what such a graph saves for its
    backward pass are the buffers themselves, not clones of them, and once they have changed its gradient is
    wrong (torch 2.14).
    """
    for name, value in values.items():
        if torch.compiler.is_compiling():
            setattr(module, name, value)
        else:
            getattr(module, name).copy_(value)


def average(module: nn.Module, weight: float, **new: Tensor) -> None:
    """Moving averages in buffers of `module`: buffer + weight (new - buffer)."""
    with torch.no_grad():
        for name, value in new.items():
            buffer = getattr(module, name)
            value = value.to(buffer.dtype)
            if torch.compiler.is_compiling() or inside_func():  # for the latter, lerp_ has no rule
                exchange(module, **{name: torch.lerp(buffer, value, weight)})
            else:
                buffer.lerp_(value, weight)


def count(module: nn.Module) -> None:
    """One more in num_batches_tracked."""
    steps: Any = module.num_batches_tracked
    if torch.compiler.is_compiling():
        exchange(module, num_batches_tracked=steps + 1)
    else:
        steps.add_(1)
