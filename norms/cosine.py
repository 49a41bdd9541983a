"""Cosine normalisation: Luo et al., arXiv 1702.05870. The dot product of weights and input becomes their
cosine or, with both centred, Pearson's correlation coefficient.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _inverse_root(square: Tensor, floor: Tensor | float) -> Tensor:
    """1/sqrt(square); 0, and with gradient 0, up to the floor: what has no length has no direction."""
    long = square > floor
    return torch.where(long, torch.where(long, square, 1.0).rsqrt(), 0.0)


def _wide(x: Tensor) -> Tensor:
    """At least float32, for the sums of squares."""
    return x if x.dtype == torch.float64 else x.float()


class _Cosine(nn.Module):
    """What the two layers share; the other parent is nn.Linear or nn.Conv2d."""

    weight: Tensor
    scale: nn.Parameter | None

    def _complete(self, centred: bool, scale: float | None, eps: float) -> None:
        if scale is not None and not (isinstance(scale, float | int) and 0 < scale < math.inf):
            raise ValueError(f"scale={scale!r}: give None or a number above 0")
        if not (isinstance(eps, float | int) and 0 < eps < math.inf):
            raise ValueError(f"eps={eps!r}: give a number above 0")
        if centred and self.weight[0].numel() == 1:
            raise ValueError(f"centred=True: one weight a unit (weight size {list(self.weight.shape)})")
        self.centred, self.eps, self.initial_scale = centred, float(eps), scale
        self.scale = None if scale is None else nn.Parameter(self.weight.new_full((), scale))

    def reset_parameters(self) -> None:
        """The weight as nn.Linear and nn.Conv2d have it (its length has no effect), and the scale."""
        super().reset_parameters()  # type: ignore[misc]
        if getattr(self, "scale", None) is not None:  # the parents call this before there is one
            nn.init.constant_(self.scale, self.initial_scale)  # type: ignore[arg-type]

    def _directions(self) -> Tensor:
        """The weight, each unit of length 1 (times the scale) and, if centred, of sum 0."""
        w = self.weight
        dims = tuple(range(1, w.dim()))
        floor: Tensor | float = self.eps**2
        if self.centred:
            floor = self._floor(w.detach(), dims)
            w = w - w.mean(dims, keepdim=True)
        factor = _inverse_root(_wide(w).square().sum(dims, keepdim=True), floor)
        return (w * (factor if self.scale is None else factor * self.scale)).to(w.dtype)

    def _floor(self, x: Tensor, dims: int | tuple[int, ...]) -> Tensor:
        """Up to where the square of a centred x may be what rounding left of a constant one."""
        return _wide(x).mul(4 * torch.finfo(x.dtype).eps).square().sum(dims, keepdim=True) + self.eps**2

    def extra_repr(self) -> str:
        own = f"centred={self.centred}, scale={self.initial_scale}, eps={self.eps}"
        return f"{super().extra_repr()}, {own}"


class CosineLinear(_Cosine, nn.Linear):
    r"""A fully connected layer with the cosine for the dot product (Luo et al., arXiv 1702.05870).

    .. math:: y_i = s \, \frac{w_i \cdot x}{\lVert w_i \rVert \, \lVert x \rVert}

    or, with ``centred=True``, Pearson's correlation coefficient (the paper's PCC)

    .. math::
        y_i = s \, \frac{(w_i - \bar w_i) \cdot (x - \bar x)}
        {\lVert w_i - \bar w_i \rVert \, \lVert x - \bar x \rVert}

    with the means over the input dimension and s = 1 unless ``scale`` is given. No bias [memory], no state;
    training and evaluation are the same. What follows is up to you: the paper has o = f(y).

    An input without direction (of norm up to ``eps``, or, if centred, constant as far as its precision tells)
    has the output 0 and sends back the gradient 0, not infinity. Of an input that is merely short the
    gradient is large, as 1/||x||: this is the method.

    As the last layer: with y in [-1, 1], the softmax of K classes cannot bring the cross-entropy below
    ln(1 + (K - 1) e^-2), 0.80 for K = 10. Take a plain layer there, or give ``scale``.

    Args:
        in_features, out_features: as nn.Linear.
        centred: correlation for cosine.
        scale: initial value of a learned s, one for the layer (parameter ``scale``, 0-d); None for s = 1.
        eps: norms up to eps count as 0. (Value [inferred].)
        device, dtype: of the parameters.

    Shape:
        [*, in_features] -> [*, out_features].

    Raises:
        ValueError: a bad option; ``centred`` with one input feature.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        centred: bool = False,
        scale: float | None = None,
        eps: float = 1e-8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        nn.Linear.__init__(self, in_features, out_features, False, device, dtype)
        self._complete(centred, scale, eps)

    def forward(self, x: Tensor) -> Tensor:
        floor: Tensor | float = self.eps**2
        if self.centred:
            floor = self._floor(x.detach(), -1)
            x = x - x.mean(-1, keepdim=True)
        y = F.linear(x, self._directions())
        return y * _inverse_root(_wide(x).square().sum(-1, keepdim=True), floor).to(y.dtype)


class CosineConv2d(_Cosine, nn.Conv2d):
    r"""`CosineLinear` as a convolution: x is the patch under the window, over the channels of its group, and
    :math:`\lVert x \rVert` and :math:`\bar x` are sums over that patch. Padding is part of it: zeros lower
    the norm, and shift the mean.

    The norms of all patches come from the squares summed over channels, by a box filter. If centred, so do
    the means; for that, each example is first shifted by its own mean, which changes no correlation and much
    of the rounding. A patch whose deviation from its mean is less than about 1e-3 (in float32) of its root
    mean square after that shift counts as constant.

    Args:
        in_channels, out_channels, kernel_size, stride, padding, dilation, groups, padding_mode: as nn.Conv2d.
        centred, scale, eps, device, dtype: as `CosineLinear`.

    Shape:
        [N, C_in, H, W] or [C_in, H, W] -> as nn.Conv2d.

    Raises:
        ValueError: as nn.Conv2d and `CosineLinear`.
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
        centred: bool = False,
        scale: float | None = None,
        eps: float = 1e-8,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        mode: Any = padding_mode  # torch types it as the four literals
        window = (kernel_size, stride, padding, dilation, groups)
        nn.Conv2d.__init__(self, in_channels, out_channels, *window, False, mode, device, dtype)
        self._complete(centred, scale, eps)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            if x.dim() == 3 and x.shape[0] == self.in_channels:
                return self(x[None])[0]
            return self._conv_forward(x, self.weight, None)  # refuses, in torch's words
        padding: Any = self.padding
        edges: list[int] | None = self._reversed_padding_repeated_twice
        if self.centred or self.padding_mode != "zeros":
            mode: Any = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x, padding, edges = F.pad(x, self._reversed_padding_repeated_twice, mode), 0, None
        if self.centred:
            x = x - x.detach().mean((1, 2, 3), keepdim=True)
        y = F.conv2d(x, self._directions(), None, self.stride, padding, self.dilation, self.groups)
        parts = _wide(x).unflatten(1, (self.groups, -1))
        square = self._box(parts.square().sum(2), edges)
        floor: Tensor | float = self.eps**2
        if self.centred:
            floor = 16 * torch.finfo(square.dtype).eps * square.detach() + floor
            square = square - self._box(parts.sum(2), None).square() / self.weight[0].numel()
        factor = _inverse_root(square, floor).to(y.dtype)  # [N, groups, H, W]
        if self.groups == 1:
            return y * factor
        return (y.unflatten(1, (self.groups, -1)) * factor[:, :, None]).flatten(1, 2)

    def _box(self, s: Tensor, edges: list[int] | None) -> Tensor:
        """Sums over the window at each position. Of numbers >= 0 they are exactly 0 only where all are, which
        a convolution by way of Winograd or Fourier would not give.
        """
        if edges is not None:
            s = F.pad(s, edges)
        for dim, size, step, gap in zip((2, 3), self.kernel_size, self.stride, self.dilation, strict=True):
            s = s.unfold(dim, (size - 1) * gap + 1, step)[..., ::gap].sum(-1)
        return s
