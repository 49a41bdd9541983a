"""Dynamic Tanh: Zhu, Chen, He, LeCun & Liu, arXiv 2503.10622."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from norms.moments import column


class DynamicTanh(nn.Module):
    r"""Dynamic Tanh (Zhu et al., CVPR 2025, arXiv 2503.10622), which takes the place of a normaliser without
    any statistic: for inputs [N, C, ...]

    .. math:: y = \gamma_c \tanh(\alpha x) + \beta_c

    with one learned scalar :math:`\alpha` for the layer. Training and evaluation are the same. The paper puts
    it in the place of LayerNorm in transformers, where the channels are the last dimension; here they are the
    second, as in every layer of this package.

    Args:
        num_features: C.
        alpha: initial value of :math:`\alpha`. The paper: 0.5 but for the largest language models.
        affine: learn gamma (``weight``, initially 1) and beta (``bias``, initially 0).
        device, dtype: of the parameters.

    Shape: [N, C, ...] -> the same.

    Raises:
        ValueError: alpha is not finite; input of another size.
    """

    def __init__(
        self,
        num_features: int,
        alpha: float = 0.5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not (isinstance(alpha, float | int) and math.isfinite(alpha)):
            raise ValueError(f"alpha={alpha!r}: give a finite number")
        self.num_features, self.initial_alpha, self.affine = num_features, float(alpha), affine
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.alpha = nn.Parameter(torch.full((), self.initial_alpha, **factory))
        self.weight = nn.Parameter(torch.ones(num_features, **factory)) if affine else None
        self.bias = nn.Parameter(torch.zeros(num_features, **factory)) if affine else None

    def reset_parameters(self) -> None:
        """As at the start: the initial alpha, gamma = 1, beta = 0."""
        nn.init.constant_(self.alpha, self.initial_alpha)
        if self.weight is not None and self.bias is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[1] != self.num_features:
            raise ValueError(f"expected input [N, {self.num_features}, ...] (got input size {list(x.shape)})")
        y = torch.tanh(self.alpha * x)
        if self.weight is not None and self.bias is not None:
            y = torch.addcmul(column(self.bias, x), y, column(self.weight, x))
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}, alpha={self.initial_alpha}, affine={self.affine}"
