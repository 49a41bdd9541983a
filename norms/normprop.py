"""Normalisation propagation: Arpit et al., arXiv 1603.01431 (Table 2 of the survey).

No statistics in hidden layers: if a layer's input has mean 0 and covariance I, each pre-activation of a
weight vector of length 1 has mean 0 and variance 1, and what the activation makes of N(0, 1) is known.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

GAMMA = 1 / 1.21  # as published: the inverse singular value sqrt(0.5) / c1 of a layer's expected Jacobian
EPS = 1e-8  # only so that a filter of zeros gives zeros, not NaN


# ---- the constants of an activation -----------------------------------------------------------------------


def _leaky(slope: Any) -> tuple[Any, Any]:
    """Mean and standard deviation of max(z, 0) + slope min(z, 0), z ~ N(0, 1)."""
    mean = (1 - slope) * (1 / math.sqrt(2 * math.pi))
    return mean, (0.5 * ((1 + slope**2) - (1 - slope) ** 2 / math.pi)) ** 0.5


@functools.cache
def _nodes() -> tuple[Tensor, Tensor]:
    """Nodes and weights of an integral over N(0, 1): Gauss-Legendre, 16 nodes on each panel of width 1/16
    over [-16, 16]. Gauss-Hermite would not do: many an activation has a kink, at 0 or at another edge here.
    """
    k = torch.arange(1, 16, dtype=torch.float64, device="cpu")
    off = k / (4 * k**2 - 1).sqrt()  # Golub & Welsch: the nodes are the eigenvalues of this matrix
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    left = torch.arange(-256, 256, dtype=torch.float64, device="cpu") / 16
    z = (left[:, None] + (nodes + 1) / 32).flatten()
    density = (-0.5 * z**2).exp() / math.sqrt(2 * math.pi)
    return z, (2 * vectors[0] ** 2 / 32).repeat(len(left)) * density


@torch.no_grad()
def _integrate(activation: Callable[[Tensor], Tensor]) -> tuple[float, float]:
    z, weight = _nodes()
    name = " ".join(repr(activation).split())
    try:
        f = activation(z.clone())  # a clone: it may work in place
        if f.shape != z.shape:
            raise ValueError(f"maps size {list(z.shape)} to {list(f.shape)}")
        # Softmax, cumsum, a normaliser, dropout give these another output among fewer, in another order.
        half = activation(z.flip(0)[::2].clone())
        if not torch.allclose(half, f.flip(0)[::2], rtol=1e-9, atol=1e-12, equal_nan=True):
            raise ValueError("is not elementwise, or depends on chance")
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        line = str(error).strip().partition("\n")[0]
        raise ValueError(f"activation={name}: {line}") from error
    mean = (weight * f).sum()
    std = (weight * (f - mean) ** 2).sum().sqrt()
    if not (std.isfinite() and std > 0):
        raise ValueError(f"activation={name}: has standard deviation {std.item()} on N(0, 1)")
    return mean.item(), std.item()


def activation_constants(activation: Callable[[Tensor], Tensor]) -> tuple[Any, Any]:
    r"""Mean :math:`c_2` and standard deviation :math:`c_1` of an activation of N(0, 1).

    Closed forms for ReLU, :math:`c_2 = 1 / \sqrt{2 \pi}` and :math:`c_1 = \sqrt{(1 - 1 / \pi) / 2}`; for
    nn.LeakyReLU and nn.PReLU with slope a,

    .. math::
        c_2 = (1 - a) / \sqrt{2 \pi}, \qquad c_1^2 = \tfrac12 [(1 + a^2) - (1 - a)^2 / \pi];

    and for nn.Identity, 0 and 1. Any other is integrated in float64: to some 1e-14 if it is smooth between
    multiples of 1/16 (as hardtanh, relu6, hardswish are), else to some 1e-6 with kinks and 1e-3 with steps
    elsewhere. (The paper simulates where there is no closed form.)

    Args:
        activation: an elementwise module or function, such as nn.PReLU() or torch.tanh.

    Returns:
        Mean and standard deviation: two floats; for nn.PReLU two tensors of its weight's size, through which
        the slope gets a gradient.

    Raises:
        ValueError: no module or function (a class or name is none); not elementwise, or random; constant;
            with parameters, but not nn.PReLU.
    """
    if isinstance(activation, type) or not callable(activation):
        raise ValueError(
            f"activation={activation!r}: give a module or function, such as nn.ReLU() or torch.tanh"
        )
    if isinstance(activation, nn.PReLU):
        return _leaky(activation.weight)
    if isinstance(activation, nn.LeakyReLU):
        return _leaky(activation.negative_slope)
    if _is_relu(activation):
        return _leaky(0.0)
    if isinstance(activation, nn.Identity):
        return 0.0, 1.0
    if isinstance(activation, nn.Module) and any(True for _ in activation.parameters()):
        raise ValueError(f"activation={activation!r}: of those with parameters only nn.PReLU is known")
    return _integrate(activation)


def _is_relu(activation: Any) -> bool:
    return isinstance(activation, nn.ReLU) or activation in (F.relu, torch.relu, torch.relu_)


def _check_sizes(**sizes: Any) -> None:
    for name, size in sizes.items():
        for number in size if isinstance(size, tuple | list) else (size,):
            if isinstance(number, bool) or not hasattr(number, "__index__") or number < 1:
                raise ValueError(f"{name}={size!r}: give ints from 1")


# ---- the layers -------------------------------------------------------------------------------------------


class _NormProp(nn.Module):
    """What the two layers share; the other parent is nn.Linear or nn.Conv2d."""

    weight: Tensor
    bias: Any
    gamma: nn.Parameter

    def _complete(self, activation: Callable[[Tensor], Tensor], gamma: float) -> None:
        if not (isinstance(gamma, float | int) and 0 < gamma < math.inf):
            raise ValueError(f"gamma={gamma!r}: give a number above 0")
        units = len(self.bias)
        if isinstance(activation, nn.PReLU) and activation.num_parameters not in (1, units):
            raise ValueError(f"activation={activation!r}: expected 1 slope or {units}, one per unit")
        self.activation, self.initial_gamma = activation, float(gamma)
        self._constants = None if isinstance(activation, nn.PReLU) else activation_constants(activation)
        self.gamma = nn.Parameter(torch.empty_like(self.bias))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Glorot & Bengio's "normalised" weights (uniform), beta = 0, and gamma; a PReLU is left alone."""
        if hasattr(self, "gamma"):  # nn.Linear and nn.Conv2d call this before there is one
            nn.init.xavier_uniform_(self.weight)
            nn.init.zeros_(self.bias)
            nn.init.constant_(self.gamma, self.initial_gamma)

    def constants(self) -> tuple[Any, Any]:
        """c2 and c1, as `activation_constants`."""
        return self._constants or activation_constants(self.activation)

    def _folded(self, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
        """Weight and bias of the plain layer that does this one's work up to the activation."""
        scale, bias, activation = self.gamma, self.bias, self.activation
        if _is_relu(activation):
            scale, bias = scale / std, bias / std - mean / std
        elif isinstance(activation, nn.LeakyReLU | nn.PReLU):  # positively homogeneous too
            scale, bias = scale / std, bias / std
        w = self.weight
        wide = torch.promote_types(w.dtype, torch.float32)  # EPS^2 is 0 in half precision
        norm = torch.linalg.vector_norm(w, dim=tuple(range(1, w.dim())), dtype=wide)
        norm = (norm.square() + EPS**2).sqrt()
        return (w * (scale / norm).view(-1, *[1] * (w.dim() - 1))).to(w.dtype), bias

    def _finish(self, y: Tensor, mean: Any, std: Any) -> Tensor:
        """From the plain layer's output y [N, C, ...] to (act(z) - c2) / c1."""
        activation = self.activation
        if _is_relu(activation):
            # max(z, 0) / c1 - c2 / c1 where y is z / c1 - c2 / c1: one pass instead of three.
            return F.threshold(y, -mean / std, -mean / std)
        if isinstance(activation, nn.Identity):
            return y
        y = activation(y)
        if isinstance(activation, nn.LeakyReLU):
            return y - mean / std
        if isinstance(activation, nn.PReLU):
            return y - (mean / std).view(-1, *[1] * (y.dim() - 2)).to(y.dtype)
        return (y - mean) / std

    def extra_repr(self) -> str:
        name = getattr(self.activation, "__name__", type(self.activation).__name__)
        return f"{super().extra_repr()}, activation={name}, gamma={self.initial_gamma:.6g}"


class NormPropLinear(_NormProp, nn.Linear):
    r"""A fully connected layer with normalisation propagation (Arpit et al., arXiv 1603.01431), activation
    included.

    .. math::
        o_i = \frac{1}{c_1} \Big[ \phi \Big( \gamma_i \frac{W_i \cdot x}{\lVert W_i \rVert} + \beta_i \Big)
        - c_2 \Big]

    with :math:`c_2` and :math:`c_1` the mean and standard deviation of :math:`\phi(N(0, 1))`: 0.3989 and
    0.5838 for ReLU (`activation_constants`). For x ~ N(0, I) and :math:`\gamma = 1, \beta = 0` the output has
    mean 0 and variance 1. The published start is :math:`\gamma = 1 / 1.21`, for a Jacobian of singular value
    about 1 under ReLU; it does *not* keep the distribution: o has mean -0.119 and standard deviation 0.826.

    The affine map stands before the activation, the normalisation behind it. There are no statistics, so
    training and evaluation are the same and batches of one are fine; the input of the first layer is to be
    normalised (`GlobalDataNormalization`, `BatchDataNormalization`). Pooling comes after this layer and is
    *not* normalised again, as in the paper (the units of a window are highly correlated); nor is dropout made
    up for. As an output layer without activation take ``activation=nn.Identity()``.

    The gradient passes through all norms. The authors also rescale each filter to length 1 after every step
    of the optimiser: `unit_norm_`. At first W is Glorot's; its length has no effect on o.

    Where :math:`\phi` is positively homogeneous (ReLU, nn.LeakyReLU, nn.PReLU), :math:`1 / c_1` and
    :math:`\gamma / \lVert W \rVert` go into the weight, and for ReLU :math:`c_2` into the bias: the work is
    that of a plain layer with its activation.

    An nn.PReLU learns its slopes (one, or one per unit); :math:`c_1` and :math:`c_2` follow them, and the
    gradient passes through that too, so that the output stays normalised whatever the slope. (The paper has
    the constants, but does not say whether they follow.)

    Args:
        in_features, out_features: as nn.Linear.
        activation: :math:`\phi`, an elementwise module or function. Its constants are taken at construction.
        gamma: initial value of :math:`\gamma`.
        device, dtype: of the parameters.

    Shape:
        [*, in_features] -> [*, out_features].

    Attributes:
        weight: W, as nn.Linear's; a row of zeros counts as a direction 0 (1e-8 under the root [inferred]).
        gamma: :math:`\gamma` [out_features], initially ``gamma``.
        bias: :math:`\beta` [out_features], initially 0.

    Raises:
        ValueError: a bad size or option, or an activation without constants (see `activation_constants`).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: Callable[[Tensor], Tensor] = F.relu,
        gamma: float = GAMMA,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_sizes(in_features=in_features, out_features=out_features)
        nn.Linear.__init__(self, in_features, out_features, True, device, dtype)
        self._complete(activation, gamma)

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.constants()
        y = F.linear(x, *self._folded(mean, std))
        if isinstance(self.activation, nn.PReLU) and y.dim() != 2:  # its units are dimension 1
            return self._finish(y.reshape(-1, y.shape[-1]), mean, std).view(y.shape)
        return self._finish(y, mean, std)


class NormPropConv2d(_NormProp, nn.Conv2d):
    r"""`NormPropLinear` as a convolution: :math:`W_i * x` for :math:`W_i \cdot x` and the norm of the filter
    over depth (the channels of its group), height and width; gamma, beta and the norm are one for all
    positions. Zero padding lowers the variance at the borders, as the paper leaves it.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode: as nn.Conv2d.
        activation, gamma, device, dtype: as `NormPropLinear`.

    Shape:
        [N, C_in, H, W] or [C_in, H, W] -> as nn.Conv2d.

    Raises:
        ValueError: as nn.Conv2d and `NormPropLinear`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        activation: Callable[[Tensor], Tensor] = F.relu,
        gamma: float = GAMMA,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        _check_sizes(in_channels=in_channels, out_channels=out_channels, kernel_size=kernel_size)
        mode: Any = padding_mode  # torch types it as the four literals
        window = (kernel_size, stride, padding, dilation, groups)
        nn.Conv2d.__init__(self, in_channels, out_channels, *window, True, mode, device, dtype)
        self._complete(activation, gamma)

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.constants()
        y = self._conv_forward(x, *self._folded(mean, std))
        return self._finish(y, mean, std) if y.dim() == 4 else self._finish(y[None], mean, std)[0]


@torch.no_grad()
def unit_norm_(module: nn.Module) -> None:
    """Rescales each filter of every NormProp layer in the module to length 1, in place: the authors do so
    after each step of the optimiser.

    The layers' output does not change (it does not depend on that length), but the size of the next steps
    relative to W does. The optimiser's momentum stays as it is, in the units of the step before: whether the
    authors rescaled it too is not known. A filter of zeros stays.
    """
    for layer in module.modules():
        if isinstance(layer, _NormProp):
            w = layer.weight
            norm = torch.linalg.vector_norm(w, dim=tuple(range(1, w.dim())), keepdim=True)
            w.div_(torch.where(norm > 0, norm, 1))


# ---- the input --------------------------------------------------------------------------------------------


class GlobalDataNormalization(nn.Module):
    r"""Global data normalisation (Arpit et al., arXiv 1603.01431): :math:`(x - \mu) / \sigma` per element of
    an example, with mean and population standard deviation over the training set, in training and evaluation.

    Build it with `GlobalDataNormalization.of(data)`. An element that never varies there is centred alone.

    Args:
        mean, std: of the shape of an example.

    Shape: [N, *mean.shape] -> the same, in the dtype of the buffers if x is of integers (bytes).

    Buffers: mean, std.

    Raises:
        ValueError: shapes that do not agree; a std that is not above 0; data, mean or std that are not
            finite; an input of another size.
        TypeError: data, mean or std that is no tensor.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        _check_tensors(mean=mean, std=std)
        if mean.shape != std.shape:
            raise ValueError(f"mean is of size {list(mean.shape)}, but std of size {list(std.shape)}")
        if not mean.isfinite().all():
            raise ValueError("mean: give finite numbers")
        if not ((std > 0) & (std < math.inf)).all():
            raise ValueError("std: give numbers above 0")
        self.register_buffer("mean", mean.detach().clone())
        self.register_buffer("std", std.detach().clone())

    @classmethod
    def of(cls, data: Tensor, dtype: torch.dtype | None = None) -> GlobalDataNormalization:
        """The layer for a training set [N, ...] of any dtype, bytes too; the sums are in float64."""
        _check_tensors(data=data)
        if data.dim() == 0 or len(data) == 0:
            raise ValueError(f"expected data of at least one example (got size {list(data.shape)})")
        parts = data.split(1024)  # a set of bytes would be eight times its size in float64
        zero = torch.zeros(data.shape[1:], dtype=torch.float64, device=data.device)
        mean = sum((part.double().sum(0) for part in parts), zero) / len(data)
        var = sum(((part.double() - mean).square().sum(0) for part in parts), zero) / len(data)
        if not (mean.isfinite() & var.isfinite()).all():
            raise ValueError("the data are not finite")
        moves = var.sqrt() > 1e-12 * mean.abs()  # the mean of equal numbers may be a rounding error off
        std = torch.where(moves, var.sqrt(), 1.0)
        dtype = dtype or torch.get_default_dtype()
        return cls(mean.to(dtype), std.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.mean.shape:
            size = ", ".join(map(str, self.mean.shape))
            raise ValueError(f"expected input [N, {size}] (got input size {list(x.shape)})")
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        return str(tuple(self.mean.shape))


def _check_tensors(**values: Any) -> None:
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: expected a tensor, got {type(value).__name__} (see torch.as_tensor)")


class BatchDataNormalization(nn.BatchNorm1d):
    """Batch data normalisation (Arpit et al., arXiv 1603.01431): each element of an example is normalised
    over the mini-batch, in evaluation with running averages. nn.BatchNorm1d over the flattened elements,
    without gamma and beta. It needs more than one example in training; the paper's results are with this one.

    Args:
        shape: of an example: a number of elements, or a tuple of sizes.
        eps, momentum, device, dtype: as nn.BatchNorm1d.

    Shape: [N, *shape] -> the same.

    Buffers: as nn.BatchNorm1d, over the flattened elements.

    Raises:
        ValueError: a bad shape; an input of another size; one example in training.
    """

    def __init__(
        self,
        shape: int | tuple[int, ...],
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        sizes = tuple(shape) if isinstance(shape, Iterable) else (shape,)
        if not sizes:
            raise ValueError(f"shape={shape!r}: give one size or more")
        _check_sizes(shape=sizes)
        self.shape = tuple(map(int, sizes))
        super().__init__(math.prod(self.shape), eps, momentum, False, True, device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[1:]) != self.shape:
            size = ", ".join(map(str, self.shape))
            raise ValueError(f"expected input [N, {size}] (got input size {list(x.shape)})")
        return super().forward(x.flatten(1)).view(x.shape)

    def extra_repr(self) -> str:
        return f"{self.shape}, eps={self.eps}, momentum={self.momentum}"
