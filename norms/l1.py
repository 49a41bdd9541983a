"""L1-norm batch normalisation: Wu et al., arXiv 1802.09769."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norms.checks import check_input, check_options, single
from norms.moments import average, channel_mean, column, inside_func
from norms.twice import differentiable_gradients


def _plain(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Output, mean and mean absolute deviation, times `factor`, as operations that torch can transform."""
    mean = channel_mean(x)
    centred = x - column(mean, x)
    deviation = factor * channel_mean(centred.abs())
    scale = 1 / (deviation + eps)
    y = centred * column(scale if weight is None else scale * weight, x)
    if bias is not None:
        y = y + column(bias, x)
    return y.to(x.dtype), mean, deviation


class _L1Norm(torch.autograd.Function):
    """`_plain` in fewer passes over x, most of them batch_norm's own kernels."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, factor: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean = channel_mean(x)
        deviation = channel_mean(torch.sub(x, column(mean, x)).abs_()).mul_(factor)
        wide = single(weight)
        if wide is not None:  # the kernel wants them alike
            mean, deviation = mean.to(wide.dtype), deviation.to(wide.dtype)
        square = (deviation + eps).square_()
        y = F.batch_norm(x, mean, square, wide, single(bias), False, 0.0, 0.0)
        ctx.mark_non_differentiable(mean, deviation)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, bias, mean, square)
        ctx.eps, ctx.factor = eps, factor
        return y, mean, deviation

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 5
        x, weight, bias, mean, square = ctx.saved_tensors
        if torch.is_grad_enabled():  # to be differentiated itself: through the plain operations
            return (
                *differentiable_gradients(
                    lambda x, weight, bias: _plain(x, weight, bias, ctx.eps, ctx.factor)[0],
                    (x, weight, bias),
                    ctx.needs_input_grad[:3],
                    dy,
                ),
                None,
                None,
            )
        # dx = w inv (dy - mean(dy) - f (z - mean(z)) mean(dy xh)), z = sign(x - mean), inv = 1 / (f s + eps).
        # The first term and both sums come from the kernel of a batch_norm with constant statistics.
        weight = single(weight)
        dx, sum_dy_xh, sum_dy = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, mean, square, None, None, False, 0.0, [True, True, True]
        )
        inv = square.rsqrt() if weight is None else square.rsqrt().mul_(weight)
        sign = torch.sub(x, column(mean, x)).sign_()
        inv.div_(x.numel() // mean.numel())
        slope = (inv * sum_dy_xh).mul_(ctx.factor)
        shift = inv.mul_(sum_dy).addcmul_(slope, channel_mean(sign), value=-1)
        dx.addcmul_(sign, column(slope, x).to(dx.dtype), value=-1).sub_(column(shift, x))
        return dx, None if weight is None else sum_dy_xh, None if bias is None else sum_dy, None, None


class _L1BatchNorm(nn.Module):
    ranks: tuple[int, ...] = ()

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_deviation: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        gaussian: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_options(eps=eps, momentum=momentum)
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.gaussian = gaussian
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.ones(num_features, **factory)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, **factory)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features, **factory))
        self.register_buffer("running_deviation", torch.ones(num_features, **factory))

    def reset_running_stats(self) -> None:
        """Averages back to mean 0 and deviation 1."""
        self.running_mean.zero_()
        self.running_deviation.fill_(1.0)

    def reset_parameters(self) -> None:
        """As `reset_running_stats`, and gamma = 1, beta = 0."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.num_features, self.ranks, self.training)
        if not self.training or x.numel() == 0:
            mean, square = single(self.running_mean), (single(self.running_deviation) + self.eps).square()
            return F.batch_norm(x, mean, square, single(self.weight), single(self.bias), False, 0.0, 0.0)
        plain = inside_func() or torch.compiler.is_compiling()
        factor = math.sqrt(math.pi / 2) if self.gaussian else 1.0
        y, mean, deviation = (_plain if plain else _L1Norm.apply)(x, self.weight, self.bias, self.eps, factor)
        average(self, self.momentum, running_mean=mean, running_deviation=deviation)
        return y

    def extra_repr(self) -> str:
        keys = "eps", "momentum", "affine", "gaussian"
        return ", ".join([str(self.num_features), *(f"{key}={getattr(self, key)}" for key in keys)])


class L1BatchNorm1d(_L1BatchNorm):
    r"""Batch normalisation with the mean absolute deviation in place of the standard deviation (Wu et al.,
    arXiv 1802.09769) over [N, C] or [N, C, L].

    .. math::
        y = \gamma \, \frac{x - \mu}{s + \epsilon} + \beta, \qquad
        \mu = \frac{1}{n} \sum x, \qquad s = \frac{1}{n} \sum |x - \mu|

    per channel, over the n values of the other dimensions. In training these are statistics of the batch; in
    evaluation their moving averages (of s itself, not of a square). With
    :math:`g = \gamma \, \partial L / \partial y` and :math:`\hat x = (x - \mu) / (s + \epsilon)`, and sign(0)
    = 0,

    .. math::
        \frac{\partial L}{\partial x} = \frac{1}{s + \epsilon} \Big[ g - \mathrm{mean}(g) -
        \big(z - \mathrm{mean}(z)\big) \, \mathrm{mean}(g \hat x) \Big], \qquad z = \mathrm{sign}(x - \mu)

    (The paper's claim is that square and root are dear in hardware; a CPU or GPU has no gain from it. Where
    exactly its epsilon stands is from memory.)

    Args:
        num_features: C.
        eps: epsilon, above 0.
        momentum: the weight of a batch in the averages.
        affine: learn gamma (``weight``, initially 1) and beta (``bias``, initially 0).
        gaussian: multiply s by :math:`\sqrt{\pi / 2}`, which makes it the standard deviation of a Gaussian x:
            for a fixed gamma, or to take the place of nn.BatchNorm in a trained network.
        device, dtype: of parameters and buffers.

    Shape:
        [N, C] or [N, C, L] -> the same. (2d: [N, C, H, W]; 3d: [N, C, D, H, W].)

    Buffers:
        running_mean, running_deviation [C], initially 0 and 1.

    Raises:
        ValueError: a bad option; an input of another rank or number of channels; one value per channel in
            training, as nn.BatchNorm.
    """

    ranks = (2, 3)


class L1BatchNorm2d(_L1BatchNorm):
    """`L1BatchNorm1d` for inputs [N, C, H, W]."""

    ranks = (4,)


class L1BatchNorm3d(_L1BatchNorm):
    """`L1BatchNorm1d` for inputs [N, C, D, H, W]."""

    ranks = (5,)
