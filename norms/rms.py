"""Root-mean-square normalisation over the channels and positions of each example."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from norms.checks import check_options


class ChannelRMSNorm(nn.Module):
    r"""RMS normalisation (Zhang & Sennrich, arXiv 1910.07467, eq. 4) of inputs [N, C, ...] with a gain per
    channel.

    .. math:: y = \gamma_c \, x / \sqrt{\mathrm{mean}(x^2) + \epsilon}

    with the mean over everything but N, as ``nn.GroupNorm(1, C)`` takes it. On [N, C] this is
    ``nn.RMSNorm(C)``, which it calls; ``nn.RMSNorm`` itself would need the spatial size in advance and would
    learn a gain per position.

    Args:
        num_features: C.
        eps: added to the mean square; None takes the machine epsilon of the dtype, as torch does.
        affine: learn gamma (initially 1).

    Shape: [N, C, ...] -> the same.

    Raises:
        ValueError: eps not above 0; input of another size.
    """

    def __init__(
        self,
        num_features: int,
        eps: float | None = None,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if eps is not None:
            check_options(eps)
        self.num_features, self.eps, self.affine = num_features, eps, affine
        self.weight = nn.Parameter(torch.ones(num_features, device=device, dtype=dtype)) if affine else None

    def reset_parameters(self) -> None:
        """As at the start: gamma = 1."""
        if self.weight is not None:
            nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[1] != self.num_features:
            raise ValueError(f"expected input [N, {self.num_features}, ...] (got input size {list(x.shape)})")
        y = F.rms_norm(x, x.shape[1:], None, self.eps)
        return y if self.weight is None else (y * self.weight.view(-1, *[1] * (x.dim() - 2))).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, affine={self.affine}"
