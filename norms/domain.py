"""Batch normalisation with statistics for each of several domains: Chang et al., arXiv 1906.03950."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def _index(value: Any) -> int | None:
    """An int of any kind (numpy's, a tensor of one) as Python's; None for a bool or what is no int."""
    if isinstance(value, bool) or (isinstance(value, Tensor) and value.dtype == torch.bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


class _DomainSpecificBatchNorm(nn.Module):
    batch_norm: type[_BatchNorm] = _BatchNorm

    def __init__(
        self,
        num_features: int,
        num_domains: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        shared_affine: bool = False,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if isinstance(num_domains, bool) or not isinstance(num_domains, int) or num_domains < 1:
            raise ValueError(f"num_domains={num_domains!r}: give a number of domains from 1")
        self.num_features, self.num_domains, self.shared_affine = num_features, num_domains, shared_affine
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.domains = nn.ModuleList(
            self.batch_norm(num_features, eps, momentum, affine, track_running_stats, **factory)
            for _ in range(num_domains)
        )
        if affine and shared_affine:
            for layer in self.domains[1:]:
                layer.weight, layer.bias = self.domains[0].weight, self.domains[0].bias
        self._domain = 0

    @property
    def domain(self) -> int:
        """The active domain, initially 0. Like train/eval mode, it is not part of the state_dict."""
        return self._domain

    @domain.setter
    def domain(self, domain: int) -> None:
        number = _index(domain)
        if number is None or not 0 <= number < self.num_domains:
            raise ValueError(f"domain={domain!r}: give an int from 0 to {self.num_domains - 1}")
        self._domain = number

    def _layers(self) -> list[_BatchNorm]:
        return [layer for layer in self.domains if isinstance(layer, _BatchNorm)]

    def reset_running_stats(self) -> None:
        """Averages of every domain as at the start."""
        for layer in self._layers():
            layer.reset_running_stats()

    def reset_parameters(self) -> None:
        """As `reset_running_stats`, and gamma = 1, beta = 0."""
        for layer in self._layers():
            layer.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.domains[self._domain](x)
        return y

    def extra_repr(self) -> str:
        return f"shared_affine={self.shared_affine}, domain={self._domain}"


class DomainSpecificBatchNorm1d(_DomainSpecificBatchNorm):
    r"""Batch normalisation with statistics, and if you like gain and bias, for each of several domains (Chang
    et al., Domain-Specific Batch Normalization, CVPR 2019, arXiv 1906.03950), over [N, C] or [N, C, L].

    .. math:: y = \gamma_k \, \frac{x - \mu_k}{\sqrt{\sigma_k^2 + \epsilon}} + \beta_k

    for the active domain k, which is the same for the whole batch: set it with `use_domain` for all layers of
    a model, or by ``layer.domain = k`` for one. Training updates the averages of domain k only. It is a list
    of nn.BatchNorm1d, ``layer.domains[k]``, and shares their options, errors and limits.

    With ``shared_affine=True`` all domains have one gamma and one beta, as in AdaBN with several sources; in
    the paper each has its own. The state_dict names shared ones once for each domain.

    Args:
        num_features: C.
        num_domains: the number of domains.
        eps, momentum, affine, track_running_stats: of nn.BatchNorm1d.
        shared_affine: one gamma and beta for all domains.
        device, dtype: of parameters and buffers.

    Shape:
        [N, C] or [N, C, L] -> the same. (2d: [N, C, H, W]; 3d: [N, C, D, H, W].)

    Raises:
        ValueError: `num_domains` below 1; a domain that there is not.
    """

    batch_norm = nn.BatchNorm1d


class DomainSpecificBatchNorm2d(_DomainSpecificBatchNorm):
    """`DomainSpecificBatchNorm1d` for inputs [N, C, H, W]: a list of nn.BatchNorm2d."""

    batch_norm = nn.BatchNorm2d


class DomainSpecificBatchNorm3d(_DomainSpecificBatchNorm):
    """`DomainSpecificBatchNorm1d` for inputs [N, C, D, H, W]: a list of nn.BatchNorm3d."""

    batch_norm = nn.BatchNorm3d


@contextmanager
def use_domain(model: nn.Module, domain: int) -> Iterator[nn.Module]:
    """Makes `domain` the active one of every domain-specific layer of `model` inside the ``with`` block.

    ::

        for k, x in enumerate(batch_of_each_domain):
            with use_domain(model, k):
                loss = loss + criterion(model(x), ...)

    A domain is an int, numpy's or a 0-d tensor's too. Afterwards each layer has the domain it had before.
    Raises ValueError if the model has no such layer, or a layer no such domain.
    """
    before = [(m, m.domain) for m in model.modules() if isinstance(m, _DomainSpecificBatchNorm)]
    if not before:
        raise ValueError("the model has no domain-specific batch normalisation layer")
    try:
        for layer, _ in before:
            layer.domain = domain
        yield model
    finally:
        for layer, previous in before:
            layer.domain = previous
