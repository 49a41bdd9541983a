"""Batch renormalisation: Ioffe, arXiv 1702.03275."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norms.checks import check_input, check_options, single
from norms.moments import average, count, inside_func, moments


class _BatchRenorm(nn.Module):
    ranks: tuple[int, ...] = ()

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    running_std: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-3,
        momentum: float = 0.01,
        affine: bool = True,
        r_max: float = 3.0,
        d_max: float = 5.0,
        warmup_steps: int = 5_000,
        r_steps: int = 40_000,
        d_steps: int = 25_000,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_options(eps=eps, momentum=momentum)
        if not (_number(r_max) and r_max >= 1):
            raise ValueError(f"r_max={r_max!r}: give a number from 1 (1: no correction of the scale)")
        if not (_number(d_max) and d_max >= 0):
            raise ValueError(f"d_max={d_max!r}: give a number from 0 (0: no correction of the mean)")
        if not 0 <= warmup_steps <= min(r_steps, d_steps):
            raise ValueError(
                f"warmup_steps={warmup_steps}, r_steps={r_steps}, d_steps={d_steps}: give steps from 0, with"
                " warmup_steps the least"
            )
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.r_max, self.d_max = float(r_max), float(d_max)
        self.warmup_steps, self.r_steps, self.d_steps = warmup_steps, r_steps, d_steps
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.ones(num_features, **factory)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, **factory)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features, **factory))
        self.register_buffer("running_std", torch.ones(num_features, **factory))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long, device=device))

    def reset_running_stats(self) -> None:
        """Averages back to mean 0 and standard deviation 1, the schedule back to its start."""
        self.running_mean.zero_()
        self.running_std.fill_(1.0)
        self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """As `reset_running_stats`, and gamma = 1, beta = 0."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def limits(self) -> tuple[Any, Any]:
        """(r_max, d_max) of the next training step; tensors (0-d) where the count of steps is not at hand."""
        step: Any = self.num_batches_tracked
        if step.is_cpu and not (inside_func() or torch.compiler.is_compiling()):
            step = step.item()
        r, d = (self._opened(step, end) for end in (self.r_steps, self.d_steps))
        return 1 + (self.r_max - 1) * r, self.d_max * d

    def _opened(self, step: Any, end: int) -> Any:
        """How far a limit is open, from 0 to 1."""
        if end == 0:
            return 1.0
        if end == self.warmup_steps:
            return (step >= end) * 1.0
        share = (step - self.warmup_steps) / (end - self.warmup_steps)
        return share.clamp(0.0, 1.0) if isinstance(share, Tensor) else min(max(share, 0.0), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        check_input(x, self.num_features, self.ranks, self.training)
        if not self.training or x.numel() == 0:
            mean, square = single(self.running_mean), single(self.running_std).square()
            return F.batch_norm(x, mean, square, single(self.weight), single(self.bias), False, 0.0, 0.0)
        # On a CPU the kernel's own variance of float16 would be in float16.
        statistics = moments(single(x) if x.is_cpu else x)
        mean, var = (s.to(single(self.running_mean).dtype) for s in statistics)
        std = (var + self.eps).sqrt_()
        weight, bias = self._renormalised(mean, std)
        y = F.batch_norm(x, None, None, weight, bias, True, 0.0, self.eps)
        average(self, self.momentum, running_mean=mean, running_std=std)
        count(self)
        return y

    def _renormalised(self, mean: Tensor, std: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gamma r and gamma d + beta.

        gamma (xh r + d) + beta, where r and d have no gradient, is the native batch_norm with these.
        """
        r_max, d_max = self.limits()
        if isinstance(r_max, float) and r_max == 1 and d_max == 0:
            return self.weight, self.bias
        running_mean, running_std = single(self.running_mean), single(self.running_std)
        r = torch.clamp(std / running_std, 1 / r_max, r_max)
        d = torch.clamp((mean - running_mean).div_(running_std), -d_max, d_max)
        weight, bias = single(self.weight), single(self.bias)
        if weight is None or bias is None:
            return r, d
        return weight * r, torch.addcmul(bias, weight, d)

    def extra_repr(self) -> str:
        keys = "eps", "momentum", "affine", "r_max", "d_max", "warmup_steps", "r_steps", "d_steps"
        return ", ".join([str(self.num_features), *(f"{key}={getattr(self, key)}" for key in keys)])


def _number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)


class BatchRenorm1d(_BatchRenorm):
    r"""Batch renormalisation (Ioffe, arXiv 1702.03275, algorithm 1) over [N, C] or [N, C, L].

    .. math::
        y = \gamma \Big( \frac{x - \mu_B}{\sigma_B} \, r + d \Big) + \beta, \qquad
        r = \mathrm{clip}_{[1 / r_{max}, r_{max}]} \frac{\sigma_B}{\sigma}, \qquad
        d = \mathrm{clip}_{[-d_{max}, d_{max}]} \frac{\mu_B - \mu}{\sigma}

    with mean :math:`\mu_B` and :math:`\sigma_B = \sqrt{\epsilon + \mathrm{var}_B}` (variance over n) of the
    batch, per channel, and their moving averages :math:`\mu, \sigma` of before this batch. No gradient passes
    through r and d. Then :math:`\mu` += a (:math:`\mu_B - \mu`), and :math:`\sigma` likewise; evaluation is
    :math:`\gamma (x - \mu) / \sigma + \beta`. While r and d are not clipped, training output and evaluation
    with the old averages are the same; with r = 1 and d = 0 it is batch normalisation.

    The schedule of the paper is in the layer: :math:`r_{max} = 1, d_{max} = 0` (batch normalisation) for
    `warmup_steps` training steps, from there in a straight line to `r_max` at step `r_steps` and `d_max` at
    step `d_steps`. (That the paper's relaxation is linear is inferred from later code.) It suits some 160,000
    steps: scale the three with the length of your training, or set all three to 0 for constant limits.

    Not for activation checkpointing (torch.utils.checkpoint): the second forward pass would see averages that
    the first has moved, and the gradient be of another function. torch.fx cannot trace the layer unless it is
    declared a leaf.

    Unlike nn.BatchNorm, what is averaged is the standard deviation, over n and with eps in it, and momentum
    cannot be None. The paper trains with gamma fixed at 1; here gamma is learned if `affine`.

    Args:
        num_features: C.
        eps: epsilon, in the batch's variance. Default 1e-3, TensorFlow's; the paper's value is not
            known to us.
        momentum: a, the weight of a batch in the averages. The paper: 0.01.
        affine: learn gamma (``weight``, initially 1) and beta (``bias``, initially 0).
        r_max, d_max: the final limits, from 1 and from 0.
        warmup_steps, r_steps, d_steps: training steps at which the limits begin to open, and at which each
            is fully open.
        device, dtype: of parameters and buffers.

    Shape:
        [N, C] or [N, C, L] -> the same. (2d: [N, C, H, W]; 3d: [N, C, D, H, W].)

    Buffers:
        running_mean, running_std [C], initially 0 and 1; num_batches_tracked (0-d, int64), which drives the
        schedule.

    Raises:
        ValueError: a bad option; an input of another rank or number of channels; one value per channel in
            training, as nn.BatchNorm.
    """

    ranks = (2, 3)


class BatchRenorm2d(_BatchRenorm):
    """`BatchRenorm1d` for inputs [N, C, H, W]."""

    ranks = (4,)


class BatchRenorm3d(_BatchRenorm):
    """`BatchRenorm1d` for inputs [N, C, D, H, W]."""

    ranks = (5,)
