"""Diminishing batch normalisation: Ma & Klabjan, arXiv 1705.08011 (survey, Table 3).

The paper keeps per unit a pair lambda = (mu, sigma) and moves it by alpha^(m) towards the statistics of the current
batch, y = gamma (z - mu) / (sigma + eps) + beta. It leaves open how lambda enters training, what lambda^0 is, and whether
m counts steps or epochs; each of these is an option here. See `DiminishingBatchNorm1d`.
"""
from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

READINGS = ("A", "B", "C")
INITIALS = ("zero_one", "zero_zero", "first_batch")
AVERAGES = {"sigma": "running_sigma", "variance": "running_var", "inv_std": "running_inv_std"}  # -> buffer
EPS_IN = ("sigma", "variance")
DEFAULTS = {"A": ("sigma", "sigma"), "B": ("sigma", "sigma"), "C": ("inv_std", "variance")}  # -> average, eps_in


def parse_alpha(alpha: float | str) -> tuple[float, float]:
    """`alpha` as (scale, power) of alpha_m = scale * m^-power.

    A number in [0, 1] is a constant; "inv_m" is 1/m, "inv_m2" is 1/m^2, "inv_m<p>" is m^-p for any p > 0.

    Raises:
        ValueError: for anything else, in one line.
    """
    if isinstance(alpha, str):
        match = re.fullmatch(r"inv_m(\d+(?:\.\d+)?)?", alpha)
        power = float(match[1] or 1) if match else 0.0
        if power > 0:
            return 1.0, power
    elif isinstance(alpha, (int, float)) and not isinstance(alpha, bool) and 0 <= alpha <= 1:
        return float(alpha), 0.0
    raise ValueError(f"alpha={alpha!r}: give a number in [0, 1], or inv_m, inv_m2, inv_m<p> with p > 0 (1/m, 1/m^2, m^-p)")


# ---- from the variance to what is averaged, and from that to std^2; every argument is a vector over channels -------


def _root(v: Tensor) -> Tensor:
    """sqrt with derivative 0 (not infinity) at 0: a unit that is constant over the batch must not give NaN."""
    if not v.requires_grad:
        return v.sqrt()
    positive = v > 0
    return torch.where(positive, torch.where(positive, v, 1.0).sqrt(), 0.0)


def _half_inverse_root(v: Tensor) -> Tensor:
    """d sqrt(v) / dv, with the same convention at 0."""
    if not v.requires_grad:
        return v.rsqrt().nan_to_num(nan=math.nan, posinf=0.0) * 0.5
    positive = v > 0
    return torch.where(positive, 0.5 * torch.where(positive, v, 1.0).rsqrt(), 0.0)


def _square(stat: Tensor, average: str, eps_in: str, eps: float) -> Tensor:
    """std^2 of a statistic: (sigma + eps)^2 for eps_in="sigma", sigma^2 + eps for "variance"."""
    if average == "inv_std":
        return stat**-2
    if eps_in == "sigma":
        return ((stat if average == "sigma" else _root(stat)) + eps).square()
    return (stat.square() if average == "sigma" else stat) + eps


def _statistic(var: Tensor, average: str, eps_in: str, eps: float) -> Tensor:
    """What is averaged, from the variance."""
    if average == "variance":
        return var
    return _root(var) if average == "sigma" else _square(var, "variance", eps_in, eps).rsqrt()


def _slope(var: Tensor, used: Tensor, inv: Tensor, average: str, eps_in: str, eps: float) -> Tensor:
    """d(1/std)/d(statistic) where it is `used` (there 1/std = `inv`) times d(statistic)/d(variance) at `var`."""
    if average == "inv_std":
        inv, used = _square(var, "variance", eps_in, eps).rsqrt(), var
    if average == "sigma":
        return -(inv.square() if eps_in == "sigma" else used * inv**3) * _half_inverse_root(var)
    return inv**3 * -0.5 if eps_in == "variance" else -inv.square() * _half_inverse_root(used)


# ---- batch statistics, and reading B, each in a plain form and one for torch.func -----------------------------------


def _inside_func() -> bool:
    # torch.autograd.Function asks the same. A Function that torch.func can transform costs 50 us more a call than one
    # it cannot, so the former is taken only where it is needed.
    return torch._C._are_functorch_transforms_active()


def _dims(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _column(v: Tensor, x: Tensor) -> Tensor:
    """A vector over channels, shaped and typed to go with x [N, C, ...]."""
    return v.to(x.dtype).view(-1, *[1] * (x.dim() - 2))


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population variance per channel, without gradient."""
    if _inside_func():
        return _StackedMoments.apply(x)  # type: ignore[no-any-return]
    x = x.detach()
    if x.device.type in ("cpu", "cuda"):  # the kernel inside batch_norm: on a CPU 20 times as fast as var_mean
        mean, var = torch.batch_norm_update_stats(x, None, None, 0.0)
    else:
        var, mean = torch.var_mean(x, _dims(x), correction=0)
    return mean, var


class _StackedMoments(torch.autograd.Function):
    """`_moments` under torch.func: the members of a vmap become channels."""

    @staticmethod
    def forward(x: Tensor) -> tuple[Tensor, Tensor]:
        return _moments(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        return None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor) -> tuple[Any, Any]:
        mean, var = _moments(x.movedim(in_dims[0], 1).flatten(1, 2))
        return (mean.view(info.batch_size, -1), var.view(info.batch_size, -1)), (0, 0)


def _in_graph(x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """Reading B: y = w (x - mu) / std + b, with mu and std mixed from batch (weight alpha) and past (1 - alpha).

    Takes x, weight, bias, prev_mean, prev_stat, alpha (0-d or per channel), average, eps_in, eps. Returns y and, without
    gradient, the batch's mean and variance and the mixed mean and statistic.
    """
    return (_StackedInGraph if _inside_func() else _InGraph).apply(x, *others)  # type: ignore[no-any-return]


def _in_graph_forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, prev_mean: Tensor, prev_stat: Tensor, alpha: Tensor,
    *how: Any,
) -> tuple[Tensor, ...]:
    mean, var = (s.to(prev_mean.dtype) for s in _moments(x))
    used_mean = torch.lerp(prev_mean, mean, alpha)
    used = torch.lerp(prev_stat, _statistic(var, *how), alpha)
    y = F.batch_norm(x, used_mean, _square(used, *how), weight, bias, False, 0.0, 0.0)
    return y, mean, var, used_mean, used


def _in_graph_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, prev_mean, prev_stat, alpha, *ctx.how = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, weight, prev_mean, prev_stat, alpha, *output[1:])
    ctx.has_bias = bias is not None


def _in_graph_backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 9
    x, weight, prev_mean, prev_stat, alpha, mean, var, used_mean, used = ctx.saved_tensors
    again = torch.is_grad_enabled()  # the result will itself be differentiated: the statistics must depend on x
    if again:
        mean = x.mean(_dims(x))
        var = (x - _column(mean, x)).square().mean(_dims(x))
        used_mean = torch.lerp(prev_mean, mean, alpha)
        used = torch.lerp(prev_stat, _statistic(var, *ctx.how), alpha)
    square = _square(used, *ctx.how)
    inv = square.rsqrt()
    if again:
        sum_dy = dy.sum(_dims(x))
        sum_dy_xh = (dy * (x - _column(used_mean, x))).sum(_dims(x)) * inv
        dx = dy * _column(inv if weight is None else inv * weight, x)
    else:
        dx, sum_dy_xh, sum_dy = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, used_mean, square, None, None, False, 0.0, [True, True, True]
        )
    # So far dx = w inv dy: the statistics held constant. Through them, with n values a channel and xh = (x - mu) inv:
    # dx -= alpha w inv sum(dy) / n,  dx += (x - mu_B) 2 alpha slope w sum(dy xh) / (n inv)
    a = alpha / (x.numel() // mean.numel())
    if weight is not None:
        a = a * weight
    shift = a * inv * sum_dy
    slope = a * 2 * _slope(var, used, inv, *ctx.how) * sum_dy_xh / inv
    centred, slope, shift = x - _column(mean, x), _column(slope, x), _column(shift, x)
    dx = dx + centred * slope - shift if again else dx.addcmul_(centred, slope).sub_(shift)
    return dx, None if weight is None else sum_dy_xh, sum_dy if ctx.has_bias else None, *[None] * 6


class _InGraph(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:  # type: ignore[override]
        output = _in_graph_forward(*inputs)
        _in_graph_save(ctx, inputs, output)
        return output

    backward = staticmethod(_in_graph_backward)  # type: ignore[assignment]


class _StackedInGraph(torch.autograd.Function):
    """`_InGraph` under torch.func: the members of a vmap become channels, each with its own alpha."""

    forward = staticmethod(_in_graph_forward)  # type: ignore[assignment]
    setup_context = staticmethod(_in_graph_save)  # type: ignore[assignment]
    backward = staticmethod(_in_graph_backward)  # type: ignore[assignment]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        size = info.batch_size
        first = [
            t if not isinstance(t, Tensor) else t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(inputs, in_dims, strict=True)
        ]
        x = first[0].movedim(0, 1)  # [N, members, C, ...]
        vectors = [
            (t if t.dim() == 2 else t[:, None].expand(size, x.shape[2])).reshape(-1) if isinstance(t, Tensor) else t
            for t in first[1:]
        ]
        y, *stats = _in_graph(x.flatten(1, 2), *vectors)
        return (y.view(x.shape), *(s.view(size, -1) for s in stats)), (1, 0, 0, 0, 0)


# ---- the layer ------------------------------------------------------------------------------------------------------


class _DiminishingBatchNorm(nn.Module):
    ranks: tuple[int, ...] = ()
    expected = ""

    alpha_scale: Tensor
    alpha_power: Tensor
    running_mean: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-4,
        alpha: float | str = 0.1,
        affine: bool = True,
        reading: str = "C",
        initial: str = "zero_one",
        average: str | None = None,
        eps_in: str | None = None,
        period: int = 1,
        correction: int = 0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        scale, power = parse_alpha(alpha)
        _choose("reading", reading, READINGS)
        _choose("initial", initial, INITIALS)
        average = DEFAULTS[reading][0] if average is None else _choose("average", average, AVERAGES)
        eps_in = DEFAULTS[reading][1] if eps_in is None else _choose("eps_in", eps_in, EPS_IN)
        if not (isinstance(eps, (int, float)) and 0 < eps < math.inf):
            raise ValueError(f"eps={eps!r}: give a number above 0")
        if isinstance(period, bool) or not isinstance(period, int) or period < 1:
            raise ValueError(f"period={period!r}: give the number of steps over which m stays the same, 1 or more")
        _choose("correction", correction, (0, 1))
        self.num_features, self.eps, self.alpha, self.affine = num_features, float(eps), alpha, affine
        self.reading, self.initial, self.average, self.eps_in = reading, initial, average, eps_in
        self.period, self.correction = period, correction

        def vector(value: float) -> Tensor:
            return torch.full((num_features,), value, device=device, dtype=dtype or torch.get_default_dtype())

        def number(value: float) -> Tensor:
            return torch.full((), value, device=device, dtype=dtype or torch.get_default_dtype())

        self.weight = nn.Parameter(vector(1.0)) if affine else None
        self.bias = nn.Parameter(vector(0.0)) if affine else None
        self.register_buffer("running_mean", vector(0.0))
        self.register_buffer(AVERAGES[average], vector(1.0))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long, device=device))
        # Buffers, so that the members of a stacked population may differ in alpha; not in the state_dict, as little as
        # the momentum of nn.BatchNorm is.
        self.register_buffer("alpha_scale", number(scale), persistent=False)
        self.register_buffer("alpha_power", number(power), persistent=False)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Back to lambda^0 and m = 1."""
        self.running_mean.zero_()
        self.num_batches_tracked.zero_()
        stat = self.running_statistic.fill_(1.0)
        if self.initial == "zero_zero":  # sigma = 0; as an inverse std that is the largest there is
            stat.copy_(_statistic(torch.zeros_like(stat), self.average, self.eps_in, self.eps))

    def reset_parameters(self) -> None:
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    @property
    def running_statistic(self) -> Tensor:
        """The buffer `running_sigma`, `running_var` or `running_inv_std`, whichever is averaged."""
        return getattr(self, AVERAGES[self.average])

    def current_alpha(self) -> Tensor:
        """alpha_m of the next training step, 0-d; m = 1 + num_batches_tracked // period."""
        tracked = self.num_batches_tracked
        m = 1 + (tracked if self.period == 1 else torch.div(tracked, self.period, rounding_mode="floor"))
        return self.alpha_scale * torch.pow(m, -self.alpha_power)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() not in self.ranks:
            raise ValueError(f"expected {self.expected} input (got {x.dim()}D input)")
        if x.shape[1] != self.num_features:
            raise ValueError(f"expected {self.num_features} channels in dimension 1 (got input size {list(x.shape)})")
        if not self.training:
            return self._apply_with(x, self.running_mean, self.running_statistic)
        n = x.numel() // self.num_features
        if n <= (0 if self.reading == "A" and not self.correction else 1):
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.size()}")
        how = self.average, self.eps_in, self.eps
        alpha = self.current_alpha()
        # Clones: the buffers are overwritten below, while autograd may still need what was in them.
        prev_mean, prev_stat = self.running_mean.clone(), self.running_statistic.clone()
        if self.initial == "first_batch" or self.reading == "A":
            mean, var = (s.to(prev_mean.dtype) for s in _moments(x))
        if self.initial == "first_batch":
            first = self.num_batches_tracked == 0  # no Python branch: under vmap this is one flag a member
            prev_mean = torch.where(first, mean, prev_mean)
            prev_stat = torch.where(first, _statistic(self._corrected(var, n), *how), prev_stat)
        next_mean = None
        if self.reading == "A":
            y = self._apply_with(x, prev_mean, prev_stat)
        elif self.reading == "C" and self.eps_in == "variance":
            # The native kernel; with momentum 1 what it writes as running statistics are those of this batch.
            mean, var = torch.zeros_like(prev_mean), torch.zeros_like(prev_mean)
            y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
            var = var * ((n - 1) / n)
        else:  # C is B with alpha = 1 in training
            mix = alpha if self.reading == "B" else torch.ones_like(alpha)
            y, mean, var, next_mean, next_stat = _in_graph(
                x, self.weight, self.bias, prev_mean, prev_stat, mix, *how
            )
        with torch.no_grad():
            if next_mean is None or self.reading == "C" or self.correction:
                next_mean = torch.lerp(prev_mean, mean, alpha)
                next_stat = torch.lerp(prev_stat, _statistic(self._corrected(var, n), *how), alpha)
            self.running_mean.copy_(next_mean)
            self.running_statistic.copy_(next_stat)
            self.num_batches_tracked.add_(1)
        return y

    def _corrected(self, var: Tensor, n: int) -> Tensor:
        return var * (n / (n - 1)) if self.correction else var

    def _apply_with(self, x: Tensor, mean: Tensor, stat: Tensor) -> Tensor:
        """gamma (x - mean) / std + beta with constant statistics: native batch_norm in evaluation form, var = std^2."""
        square = _square(stat, self.average, self.eps_in, self.eps)
        return F.batch_norm(x, mean, square, self.weight, self.bias, False, 0.0, 0.0)

    def extra_repr(self) -> str:
        options = f"alpha={self.alpha}, affine={self.affine}, reading={self.reading}, initial={self.initial}"
        return f"{self.num_features}, eps={self.eps}, {options}, average={self.average}, eps_in={self.eps_in}"


def _choose(name: str, value: Any, among: Any) -> Any:
    if value not in among:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(str, among))}")
    return value


class DiminishingBatchNorm1d(_DiminishingBatchNorm):
    ranks, expected = (2, 3), "2D or 3D"


class DiminishingBatchNorm2d(_DiminishingBatchNorm):
    ranks, expected = (4,), "4D"


class DiminishingBatchNorm3d(_DiminishingBatchNorm):
    ranks, expected = (5,), "5D"
