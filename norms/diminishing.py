"""Diminishing batch normalisation: Ma & Klabjan, arXiv 1705.08011 (Table 3 of the survey).

The paper keeps a pair lambda = (mu, sigma) per unit and moves it towards the statistics of each batch with a
weight alpha^(m) that may diminish with m. It leaves open how lambda takes part in training, what lambda^0 is,
and whether m counts steps or epochs. Each of these is an option here: see `DiminishingBatchNorm1d`.
"""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norms.moments import column, count, dims, exchange, inside_func, moments

READINGS = ("A", "B", "C")
INITIALS = ("zero_one", "zero_zero", "first_batch")
AVERAGES = {"sigma": "running_sigma", "variance": "running_var", "inv_std": "running_inv_std"}  # -> buffer
EPS_IN = ("sigma", "variance")
DEFAULTS = {"A": ("sigma", "sigma"), "B": ("sigma", "sigma"), "C": ("inv_std", "variance")}  # average, eps


def parse_alpha(alpha: float | str) -> tuple[float, float]:
    """`alpha` as (scale, power) of the schedule alpha_m = scale * m^-power.

    A number in [0, 1] is a constant. "inv_m" is 1/m, "inv_m2" is 1/m^2, "inv_m<p>" is m^-p for any p > 0.
    (The paper's theorem wants p > 1 for the statistics to converge and p > 2 for the gradient to vanish.)

    Raises:
        ValueError: for anything else, in one line.
    """
    if isinstance(alpha, str):
        match = re.fullmatch(r"inv_m(\d+(?:\.\d+)?)?", alpha)
        power = float(match[1] or 1) if match else 0.0
        if 0 < power < math.inf:
            return 1.0, power
    elif not isinstance(alpha, bool) and isinstance(alpha, float | int) and 0 <= alpha <= 1:
        return float(alpha), 0.0
    raise ValueError(f"alpha={alpha!r}: give a number in [0, 1], or inv_m, inv_m2, inv_m<p> (m^-p)")


# ---- from the variance to what is averaged, and from that to std^2; arguments are vectors over channels ----


def _root(v: Tensor) -> Tensor:
    """Square root with derivative 0, not infinity, at 0: a unit constant over the batch must not give NaN."""
    if not v.requires_grad:
        return v.sqrt()
    positive = v > 0
    return torch.where(positive, torch.where(positive, v, 1.0).sqrt(), 0.0)


def _inverse_root(v: Tensor) -> Tensor:
    """1/sqrt(v), and 0 at 0: it only ever multiplies deviations from the mean, which are 0 there."""
    if not v.requires_grad:
        return v.rsqrt().nan_to_num(nan=math.nan, posinf=0.0)
    positive = v > 0
    return torch.where(positive, torch.where(positive, v, 1.0).rsqrt(), 0.0)


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


def _pull(var: Tensor, used: Tensor, inv: Tensor, average: str, eps_in: str, eps: float) -> Tensor:
    """2 d log(std) / d var for std = 1 / `inv` of the statistic `used`, which comes from variance `var`."""
    if average == "inv_std":
        inv_batch = _square(var, "variance", eps_in, eps).rsqrt()
        return inv_batch**2 * (inv_batch if eps_in == "variance" else _inverse_root(var)) / inv
    if average == "sigma":
        return (inv if eps_in == "sigma" else used * inv.square()) * _inverse_root(var)
    return inv * _inverse_root(used) if eps_in == "sigma" else inv.square()


# ---- reading B, as plain torch wants it and as torch.func does --------------------------------------------


def _in_graph(x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    """Reading B: y = w (x - mu) / std + b with mu, std mixed from batch (weight alpha) and past (1 - alpha).

    Takes x, weight, bias, prev_mean, prev_stat, alpha (a number, 0-d or per channel), average, eps_in, eps.
    Returns y and, without gradient, the batch's mean and variance and the mixed mean and statistic. A
    Function, since plain operations take at least half as long again; its backward turns into plain
    operations when it is itself to be differentiated.
    """
    if torch.compiler.is_compiling():  # which fuses plain operations
        return _in_graph_plain(x, *others)
    return (_StackedInGraph if inside_func() else _InGraph).apply(x, *others)


def _in_graph_plain(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    prev_mean: Tensor,
    prev_stat: Tensor,
    alpha: Tensor | float,
    *how: Any,
) -> tuple[Tensor, ...]:
    wide = x.to(torch.promote_types(x.dtype, prev_mean.dtype))
    mean = wide.mean(dims(x))
    var = (wide - column(mean, x)).square().mean(dims(x))
    used_mean = torch.lerp(prev_mean, mean, alpha)
    used = torch.lerp(prev_stat, _statistic(var, *how), alpha)
    scale = _square(used, *how).rsqrt()
    y = (wide - column(used_mean, x)) * column(scale if weight is None else scale * weight, x)
    y = y if bias is None else y + column(bias, x)
    return y.to(x.dtype), *(s.detach() for s in (mean, var, used_mean, used))


def _in_graph_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    prev_mean: Tensor,
    prev_stat: Tensor,
    alpha: Tensor | float,
    *how: Any,
) -> tuple[Tensor, ...]:
    mean, var = (s.to(prev_mean.dtype) for s in moments(x))
    used_mean = torch.lerp(prev_mean, mean, alpha)
    used = torch.lerp(prev_stat, _statistic(var, *how), alpha)
    y = F.batch_norm(x, used_mean, _square(used, *how), weight, bias, False, 0.0, 0.0)
    return y, mean, var, used_mean, used


def _in_graph_save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, prev_mean, prev_stat, alpha, *ctx.how = inputs
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)
    ctx.alpha = None if isinstance(alpha, Tensor) else alpha
    ctx.save_for_backward(x, weight, prev_mean, prev_stat, alpha if ctx.alpha is None else None, *output[1:])
    ctx.has_bias = bias is not None


def _in_graph_backward(ctx: Any, dy: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
    if dy is None:
        return (None,) * 9
    x, weight, prev_mean, prev_stat, alpha, mean, var, used_mean, used = ctx.saved_tensors
    alpha = ctx.alpha if alpha is None else alpha
    again = torch.is_grad_enabled()  # the result is to be differentiated: the statistics must depend on x
    if again:
        mean = x.mean(dims(x))
        var = (x - column(mean, x)).square().mean(dims(x))
        used_mean = torch.lerp(prev_mean, mean, alpha)
        used = torch.lerp(prev_stat, _statistic(var, *ctx.how), alpha)
    square = _square(used, *ctx.how)
    inv = square.rsqrt()
    if again:
        sum_dy = dy.sum(dims(x))
        sum_dy_xh = (dy * (x - column(used_mean, x))).sum(dims(x)) * inv
        dx = dy * column(inv if weight is None else inv * weight, x)
    else:
        dx, sum_dy_xh, sum_dy = torch.ops.aten.native_batch_norm_backward(
            dy, x, weight, used_mean, square, None, None, False, 0.0, [True, True, True]
        )
    # So far dx = w inv dy, the statistics held constant. Through them, with xh = (x - mu) inv:
    #     dx -= (alpha w / n) (inv sum(dy) + (x - mu_B) pull sum(dy xh)),  n values a channel;
    # where sigma is averaged and eps added to it, pull = inv / sigma_B.
    a = alpha / (x.numel() // mean.numel())
    if weight is not None:
        a = a * weight
    shift = column(a * inv * sum_dy, x)
    slope = column(a * _pull(var, used, inv, *ctx.how) * sum_dy_xh, x)
    centred = x - column(mean, x)
    if again or centred.dtype != dx.dtype:  # mixed precision: the sum in the statistics' precision
        dx = (dx - centred * slope - shift).to(dx.dtype)
    else:
        dx.addcmul_(centred, slope, value=-1).sub_(shift)
    return dx, None if weight is None else sum_dy_xh, sum_dy if ctx.has_bias else None, *[None] * 6


class _InGraph(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output = _in_graph_forward(*inputs)
        _in_graph_save(ctx, inputs, output)
        return output

    backward = staticmethod(_in_graph_backward)


class _StackedInGraph(torch.autograd.Function):
    """`_InGraph` under torch.func: the members of a vmap become channels, each with its own alpha."""

    forward = staticmethod(_in_graph_forward)
    setup_context = staticmethod(_in_graph_save)
    backward = staticmethod(_in_graph_backward)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        size = info.batch_size

        def stacked(t: Any, dim: int | None) -> Any:
            if not isinstance(t, Tensor):
                return t
            return t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)

        def folded(t: Any) -> Any:  # [members] or [members, C] to [members * C]
            if not isinstance(t, Tensor):
                return t
            return (t if t.dim() == 2 else t[:, None].expand(size, x.shape[2])).reshape(-1)

        x, *others = (stacked(t, dim) for t, dim in zip(inputs, in_dims, strict=True))
        x = x.movedim(0, 1)  # [N, members, C, ...]
        y, *stats = _in_graph(x.flatten(1, 2), *map(folded, others))
        return (y.view(x.shape), *(s.view(size, -1) for s in stats)), (1, 0, 0, 0, 0)


# ---- the layers -------------------------------------------------------------------------------------------


class _DiminishingBatchNorm(nn.Module):
    ranks: tuple[int, ...] = ()
    expected = ""

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    running_mean: Tensor
    num_batches_tracked: Tensor
    alpha_scale: Tensor
    alpha_power: Tensor

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
        _choose("correction", correction, (0, 1))
        average = DEFAULTS[reading][0] if average is None else _choose("average", average, AVERAGES)
        eps_in = DEFAULTS[reading][1] if eps_in is None else _choose("eps_in", eps_in, EPS_IN)
        if not (isinstance(eps, float | int) and 0 < eps < math.inf):
            raise ValueError(f"eps={eps!r}: give a number above 0")
        if isinstance(period, bool) or not isinstance(period, int) or period < 1:
            raise ValueError(f"period={period!r}: give the number of steps (1 or more) that share an m")
        self.num_features, self.eps, self.alpha, self.affine = num_features, float(eps), alpha, affine
        self.reading, self.initial, self.average, self.eps_in = reading, initial, average, eps_in
        self.period, self.correction = period, correction
        dtype = dtype or torch.get_default_dtype()

        def ones(*shape: int) -> Tensor:
            return torch.ones(shape, device=device, dtype=dtype)

        self.weight = nn.Parameter(ones(num_features)) if affine else None
        self.bias = nn.Parameter(ones(num_features)) if affine else None
        self.register_buffer("running_mean", ones(num_features))
        self.register_buffer(AVERAGES[average], ones(num_features))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long, device=device))
        # Buffers, so that the members of a stacked population may differ in alpha; not in the state_dict, as
        # little as the momentum of nn.BatchNorm is.
        self.register_buffer("alpha_scale", ones() * scale, persistent=False)
        self.register_buffer("alpha_power", ones() * power, persistent=False)
        self.reset_parameters()

    @property
    def running_statistic(self) -> Tensor:
        """The buffer running_sigma, running_var or running_inv_std, whichever `average` names."""
        statistic: Tensor = getattr(self, AVERAGES[self.average])
        return statistic

    def reset_running_stats(self) -> None:
        """Back to lambda^0 and m = 1."""
        self.running_mean.zero_()
        self.num_batches_tracked.zero_()
        statistic = self.running_statistic.fill_(1.0)
        if self.initial == "zero_zero":
            statistic.copy_(_statistic(torch.zeros_like(statistic), self.average, self.eps_in, self.eps))

    def reset_parameters(self) -> None:
        """As `reset_running_stats`, and gamma = 1, beta = 0."""
        self.reset_running_stats()
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def current_alpha(self) -> Tensor:
        """alpha_m of the next training step, 0-d; m = 1 + num_batches_tracked // period."""
        steps = self.num_batches_tracked
        m = 1 + (steps if self.period == 1 else torch.div(steps, self.period, rounding_mode="floor"))
        return self.alpha_scale * torch.pow(m, -self.alpha_power)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() not in self.ranks:
            raise ValueError(f"expected {self.expected} input (got {x.dim()}D input of size {list(x.shape)})")
        if x.shape[1] != self.num_features:
            raise ValueError(f"expected {self.num_features} channels, got input size {list(x.shape)}")
        if not self.training or x.numel() == 0:  # an empty batch, as for torch: averages stay as they are
            return self._apply_with(x, self.running_mean, self.running_statistic)
        n = x.numel() // self.num_features
        if n == 1 and not (self.reading == "A" and not self.correction):
            size = x.size()  # in torch's words
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {size}")
        how = self.average, self.eps_in, self.eps
        alpha = self._alpha()
        native = self.reading == "C" and self.eps_in == "variance"
        if self.reading == "A" or self.initial == "first_batch":
            mean, var = (s.to(self.running_mean.dtype) for s in moments(x))
        prev_mean, prev_stat = self.running_mean, self.running_statistic
        if self.initial == "first_batch":
            first = self.num_batches_tracked == 0  # no Python branch: under vmap this is one flag a member
            prev_mean = torch.where(first, mean, prev_mean)
            prev_stat = torch.where(first, _statistic(self._corrected(var, n), *how), prev_stat)
        elif not native:  # the buffers are overwritten below, while autograd may still need what was in them
            prev_mean, prev_stat = prev_mean.clone(), prev_stat.clone()
        next_mean = None
        if self.reading == "A":
            y = self._apply_with(x, prev_mean, prev_stat)
        elif native:
            # The native kernel; with momentum 1, its "running" statistics are those of this batch.
            mean, var = torch.zeros_like(prev_mean), torch.zeros_like(prev_mean)
            y = F.batch_norm(x, mean, var, self.weight, self.bias, True, 1.0, self.eps)
            var = var * ((n - 1) / n)
        else:  # in training, C is B with alpha = 1
            mix = alpha if self.reading == "B" else torch.ones_like(self.alpha_scale)
            weight, bias = self.weight, self.bias
            y, mean, var, next_mean, next_stat = _in_graph(x, weight, bias, prev_mean, prev_stat, mix, *how)
        with torch.no_grad():
            if next_mean is None or self.reading == "C" or self.correction:
                next_mean = torch.lerp(prev_mean, mean, alpha)
                next_stat = torch.lerp(prev_stat, _statistic(self._corrected(var, n), *how), alpha)
            exchange(self, running_mean=next_mean, **{AVERAGES[self.average]: next_stat})
            count(self)
        return y

    def _alpha(self) -> Any:
        """`current_alpha`; on a CPU a float, which saves a quarter of the operations."""
        if self.alpha_scale.is_cpu and not (inside_func() or torch.compiler.is_compiling()):
            m = 1 + int(self.num_batches_tracked) // self.period
            return float(self.alpha_scale) * m ** -float(self.alpha_power)
        return self.current_alpha()

    def _corrected(self, var: Tensor, n: int) -> Tensor:
        return var * (n / (n - 1)) if self.correction else var

    def _apply_with(self, x: Tensor, mean: Tensor, statistic: Tensor) -> Tensor:
        """Constant statistics: the native batch_norm in its evaluation form."""
        square = _square(statistic, self.average, self.eps_in, self.eps)
        return F.batch_norm(x, mean, square, self.weight, self.bias, False, 0.0, 0.0)

    def extra_repr(self) -> str:
        keys = "eps", "alpha", "affine", "reading", "initial", "average", "eps_in", "period", "correction"
        return ", ".join([str(self.num_features), *(f"{key}={getattr(self, key)}" for key in keys)])


def _choose(name: str, value: Any, among: Any) -> Any:
    if value not in among:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(str, among))}")
    return value


class DiminishingBatchNorm1d(_DiminishingBatchNorm):
    r"""Diminishing batch normalisation (Ma & Klabjan, arXiv 1705.08011) over [N, C] or [N, C, L].

    .. math::
        y = \gamma \, \frac{x - \mu}{\sigma + \epsilon} + \beta, \qquad
        \lambda^{(m+1)} = \alpha_m \, (\mu_B, \sigma_B) + (1 - \alpha_m) \, \lambda^{(m)}, \qquad
        \lambda = (\mu, \sigma)

    where :math:`\mu_B, \sigma_B` are mean and population standard deviation (1/n) of the batch, per channel,
    over the n values of the other dimensions. Evaluation normalises with :math:`\lambda`. What the paper
    leaves open:

    ``reading`` (how :math:`\lambda` takes part in training; the three are ours, the paper's code is unknown)
        * "A", literal: normalise with :math:`\lambda^{(m)}`, which lags a step and has no gradient; update
          afterwards, with this same batch under the current weights (the paper: under the weights *after* the
          step, which would cost a second forward pass). Nothing in the gradient then opposes a growth of the
          weights: watch their norm.
        * "B", in the graph: normalise with :math:`\lambda^{(m+1)}`; the gradient passes through its
          :math:`\alpha_m` part. With :math:`\hat x = (x - \mu) / (\sigma + \epsilon)` and
          :math:`g = \gamma \, \partial L / \partial y`,

          .. math::
              \frac{\partial L}{\partial x} = \frac{1}{\sigma + \epsilon} \Big[ g - \alpha_m \,
              \mathrm{mean}(g) - \alpha_m \, \frac{x - \mu_B}{\sigma_B} \, \mathrm{mean}(g \hat x) \Big]

          (the last term is 0 where :math:`\sigma_B = 0`).
        * "C" (default), test time only: train on batch statistics as nn.BatchNorm does; :math:`\alpha_m`
          drives only the averages that evaluation uses. The layer of Lasagne, in which the paper's
          experiments were written.

    ``average`` and ``eps_in`` (of which quantity the average is taken, and where :math:`\epsilon` stands)
        The average is of "sigma", "variance" or "inv_std" = 1/std; std is :math:`\sigma + \epsilon` for
        ``eps_in="sigma"`` and :math:`\sqrt{\sigma^2 + \epsilon}` for "variance". Default: sigma and sigma, as
        in the paper, for A and B; inv_std and variance, as in Lasagne, for C.

    ``initial`` (:math:`\lambda^{(0)}`)
        * "zero_one" (default): mean 0 and 1 for whatever is averaged (Lasagne: inv_std 1).
        * "zero_zero": mean 0 and sigma 0. For inv_std, that is the largest there is: :math:`1/\epsilon` for
          ``eps_in="sigma"``, :math:`1/\sqrt{\epsilon}` for "variance".
        * "first_batch": the statistics of the first batch seen in training, without gradient; before that, as
          "zero_one". In A, the first batch is thus normalised with its own statistics.

    ``alpha`` and ``period``
        A constant, or "inv_m", "inv_m2", "inv_m<p>" for 1/m, 1/m^2, m^-p, where
        m = 1 + num_batches_tracked // period counts from 1: steps for ``period=1``, epochs for ``period`` =
        steps an epoch. At m = 1 all schedules are 1 and :math:`\lambda^{(0)}` is forgotten.

    Relation to nn.BatchNorm: with ``average="variance", eps_in="variance"`` and an equal eps, reading B at
    ``alpha=1`` is ``nn.BatchNorm1d(momentum=1)`` and reading C at any constant alpha is
    ``nn.BatchNorm1d(momentum=alpha)``: same output, same gradients and, with ``correction=1``, same running
    statistics (nn.BatchNorm normalises with the variance over n but stores that over n - 1; with the default
    ``correction=0``, running_var is smaller by (n - 1) / n). With ``eps_in="variance"``, output and gradients
    of B at ``alpha=1`` are nn.BatchNorm's whichever quantity is averaged; with ``eps_in="sigma"`` they differ
    from it by where eps stands.

    Where nothing needs a gradient through statistics (A, and any evaluation), and in C with
    ``eps_in="variance"``, the work is that of the native batch_norm kernel. All readings run under
    ``torch.func.vmap(functional_call)`` with stacked parameters and buffers, and are twice differentiable.

    Where parameters are float16 (``.half()``), so are the averages of A and B, whose squares are out of range
    for deviations above 250 or below 0.001: use autocast or bfloat16.

    Readings A and B are not for activation checkpointing (torch.utils.checkpoint): the second forward pass
    would see averages that the first has moved, and the gradient be of another function.

    All compile with ``torch.compile(fullgraph=True)``; a compiled training step exchanges the buffers for new
    tensors, where otherwise they are changed in place.

    Args:
        num_features: C.
        eps: epsilon, above 0. Default: Lasagne's 1e-4; the paper gives none.
        alpha: weight of the batch in the averages (nn.BatchNorm's momentum), in [0, 1], or a schedule.
        affine: learn gamma (``weight``, initially 1) and beta (``bias``, initially 0).
        reading: "A", "B" or "C".
        initial: "zero_one", "zero_zero" or "first_batch".
        average: "sigma", "variance" or "inv_std"; None takes the default of the reading.
        eps_in: "sigma" or "variance"; None takes the default of the reading.
        period: steps for which m stays the same.
        correction: 0 averages statistics over n, as the paper; 1 over n - 1, as nn.BatchNorm stores them. The
            batch's own part in the output of B and C is over n always.
        device, dtype: of parameters and buffers.

    Shape:
        [N, C] or [N, C, L] -> the same. (2d: [N, C, H, W]; 3d: [N, C, D, H, W].)

    Buffers:
        running_mean [C]; running_sigma, running_var or running_inv_std [C], after `average`;
        num_batches_tracked (0-d, int64); and, not in the state_dict, alpha_scale and alpha_power (0-d) of
        alpha_m = alpha_scale * m^-alpha_power, which may differ between the members of a stacked population.

    Raises:
        ValueError: a bad option; an input of another rank or number of channels; one value per channel in
            training (readings B and C), as nn.BatchNorm.
    """

    ranks, expected = (2, 3), "2D or 3D"


class DiminishingBatchNorm2d(_DiminishingBatchNorm):
    """`DiminishingBatchNorm1d` for inputs [N, C, H, W]."""

    ranks, expected = (4,), "4D"


class DiminishingBatchNorm3d(_DiminishingBatchNorm):
    """`DiminishingBatchNorm1d` for inputs [N, C, D, H, W]."""

    ranks, expected = (5,), "5D"
