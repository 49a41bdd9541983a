"""Mean-only batch normalisation: Salimans & Kingma, arXiv 1602.07868."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from norms.checks import check_input, check_options
from norms.moments import average, channel_mean, column, dims, inside_func


class _Centre(torch.autograd.Function):
    """x less its mean per channel, plus the bias; and that mean.

    The first is a projection, so its backward pass is itself; the gradient of the bias is the mean it takes
    out there, times n.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        mean = channel_mean(x)
        ctx.mark_non_differentiable(mean)
        return _shifted(x, -mean if bias is None else bias - mean), mean

    @staticmethod
    def backward(ctx: Any, dy: Tensor, _: None) -> tuple[Tensor, Tensor | None]:
        if torch.is_grad_enabled():
            return _centre(dy, None)[0], dy.sum(dims(dy)) if ctx.needs_input_grad[1] else None
        dx, mean = _Centre.apply(dy, None)
        return dx, mean * (dy.numel() // dy.shape[1]) if ctx.needs_input_grad[1] else None


def _centre(x: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """As operations that torch can transform."""
    mean = channel_mean(x)
    return _shifted(x, -mean if bias is None else bias - mean), mean


def _shifted(x: Tensor, shift: Tensor) -> Tensor:
    return (x + column(shift, x)).to(x.dtype)


class _MeanOnlyBatchNorm(nn.Module):
    ranks: tuple[int, ...] = ()

    bias: nn.Parameter | None
    running_mean: Tensor

    def __init__(
        self,
        num_features: int,
        momentum: float = 0.1,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_options(eps=1.0, momentum=momentum)
        self.num_features, self.momentum, self.affine = num_features, momentum, affine
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.bias = nn.Parameter(torch.zeros(num_features, **factory)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features, **factory))

    def reset_running_stats(self) -> None:
        """The average back to 0."""
        self.running_mean.zero_()

    def reset_parameters(self) -> None:
        """As `reset_running_stats`, and beta = 0."""
        self.reset_running_stats()
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.num_features, self.ranks, self.training)
        if not self.training or x.numel() == 0:
            return _shifted(x, -self.running_mean if self.bias is None else self.bias - self.running_mean)
        plain = inside_func() or torch.compiler.is_compiling()
        y, mean = (_centre if plain else _Centre.apply)(x, self.bias)
        average(self, self.momentum, running_mean=mean)
        return y

    def extra_repr(self) -> str:
        return f"{self.num_features}, momentum={self.momentum}, affine={self.affine}"


class MeanOnlyBatchNorm1d(_MeanOnlyBatchNorm):
    r"""Mean-only batch normalisation (Salimans & Kingma, arXiv 1602.07868, section 2.3) over [N, C] or
    [N, C, L].

    .. math:: y = x - \mu_B + \beta

    with the mean of the batch per channel in training and its moving average in evaluation. The gradient is
    centred as the activations are: :math:`\partial L / \partial x = g - \mathrm{mean}(g)`. It does not
    normalise the scale: the paper puts it behind layers with weight normalisation, which does; a bias of that
    layer has no effect.

    Args:
        num_features: C.
        momentum: the weight of a batch in the average.
        affine: learn beta (``bias``, initially 0). There is no gamma.
        device, dtype: of parameters and buffers.

    Shape:
        [N, C] or [N, C, L] -> the same. (2d: [N, C, H, W]; 3d: [N, C, D, H, W].)

    Buffers:
        running_mean [C], initially 0.

    Raises:
        ValueError: a bad option; an input of another rank or number of channels; one value per channel in
            training (the output would be beta whatever the input), as nn.BatchNorm.
    """

    ranks = (2, 3)


class MeanOnlyBatchNorm2d(_MeanOnlyBatchNorm):
    """`MeanOnlyBatchNorm1d` for inputs [N, C, H, W]."""

    ranks = (4,)


class MeanOnlyBatchNorm3d(_MeanOnlyBatchNorm):
    """`MeanOnlyBatchNorm1d` for inputs [N, C, D, H, W]."""

    ranks = (5,)
