"""Filter response normalisation: Singh & Krishnan, arXiv 1911.09737."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from norms.checks import check_options
from norms.moments import column


class _FilterResponseNorm(nn.Module):
    ranks: tuple[int, ...] = ()

    weight: nn.Parameter | None
    bias: nn.Parameter | None
    threshold: nn.Parameter | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-6,
        affine: bool = True,
        tlu: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_options(eps=eps)
        self.num_features, self.eps, self.affine, self.tlu = num_features, eps, affine, tlu
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.ones(num_features, **factory)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, **factory)) if affine else None
        self.threshold = nn.Parameter(torch.zeros(num_features, **factory)) if tlu else None

    def reset_parameters(self) -> None:
        """As at the start: gamma = 1, beta = 0, tau = 0."""
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)
        if self.threshold is not None:
            nn.init.zeros_(self.threshold)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() not in self.ranks:
            raise ValueError(
                f"expected {self.ranks[0]}D input with positions"
                f" (got {x.dim()}D input of size {list(x.shape)})"
            )
        if x.shape[1] != self.num_features:
            raise ValueError(f"expected {self.num_features} channels, got input size {list(x.shape)}")
        if not x.is_floating_point():
            raise TypeError(f"expected a floating-point input (got {x.dtype})")
        wide = x if x.dtype == torch.float64 else x.float()
        scale = (wide.square().flatten(2).mean(2) + self.eps).rsqrt()  # [N, C]
        scale = scale if self.weight is None else scale * self.weight
        y = wide * scale.view(*x.shape[:2], *[1] * (x.dim() - 2))
        # max(y, tau) = relu(y - tau) + tau: the gradient of torch.maximum takes five times as long
        if self.threshold is None:
            y = y if self.bias is None else y + column(self.bias, x)
        else:
            shift = -self.threshold if self.bias is None else self.bias - self.threshold
            y = torch.relu(y + column(shift, x)) + column(self.threshold, x)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}, tlu={self.tlu}"


class FilterResponseNorm1d(_FilterResponseNorm):
    r"""Filter response normalisation with its thresholded linear unit (Singh & Krishnan, CVPR 2020,
    arXiv 1911.09737, eqs. 1-3) over [N, C, L].

    .. math::
        z = \max\Big( \gamma \, \frac{x}{\sqrt{\nu^2 + \epsilon}} + \beta, \; \tau \Big), \qquad
        \nu^2 = \mathrm{mean}(x^2)

    with the mean over the positions of one example and channel: no mean is subtracted, no batch is needed,
    training and evaluation are the same. It is normaliser and activation in one: in the paper's networks no
    ReLU follows. With a ReLU behind it, :math:`\tau` can only raise the threshold above 0.

    Args:
        num_features: C.
        eps: epsilon, above 0. (The paper learns it for maps of one position; here it is constant.)
        affine: learn gamma (``weight``, initially 1) and beta (``bias``, initially 0).
        tlu: learn tau (``threshold``, initially 0); without it the layer is the normaliser alone.
        device, dtype: of the parameters.

    Shape:
        [N, C, L] -> the same. (2d: [N, C, H, W]; 3d: [N, C, D, H, W].)

    Raises:
        ValueError: a bad option; an input without positions ([N, C]), of another rank or number of channels.
    """

    ranks = (3,)


class FilterResponseNorm2d(_FilterResponseNorm):
    """`FilterResponseNorm1d` for inputs [N, C, H, W]."""

    ranks = (4,)


class FilterResponseNorm3d(_FilterResponseNorm):
    """`FilterResponseNorm1d` for inputs [N, C, D, H, W]."""

    ranks = (5,)
