"""Correlation alignment of two domains: CORAL (Sun, Feng & Saenko, arXiv 1511.05547) and Deep CORAL (Sun &
Saenko, arXiv 1607.01719).
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch
from torch import Tensor


class Coral:
    r"""The linear map that gives source features the covariance of target features (CORAL; Sun, Feng &
    Saenko, AAAI 2016, arXiv 1511.05547, algorithm 1).

    .. math::
        X_S^* = X_S \, C_S^{-1/2} \, C_T^{1/2}, \qquad
        C_S = \mathrm{cov}(X_S) + \lambda I, \quad C_T = \mathrm{cov}(X_T) + \lambda I

    with covariances over n - 1 and symmetric roots. Train a classifier on :math:`X_S^*` and test it on
    :math:`X_T`, which stays as it is. Labels take no part. Means are not aligned, and :math:`X_S` is
    multiplied as it is, not centred: standardise the features of each domain beforehand, as the paper does.
    (That, and the n - 1, are from memory of the paper.)

    ::

        coral = Coral().fit(source, target)
        classifier.fit(coral.transform(source), labels)
        classifier.score(target, ...)

    Args:
        regularization: lambda, the paper's 1. With 0 the mapped features have the covariance of the target
            exactly if cov(X_S) has full rank; if it has not, the pseudo-inverse root takes the place of
            :math:`C_S^{-1/2}`, and the covariance is :math:`C_T^{1/2} P C_T^{1/2}` with P the projection on
            the directions in which the source varies.

    Attributes:
        matrix: after `fit`, :math:`C_S^{-1/2} C_T^{1/2}` [d, d] in float64 (for MPS, which has none, on the
            CPU).

    Raises:
        ValueError: `regularization` below 0; inputs that are not [n, d] of equal d, have fewer than two rows,
            or are not finite.
        TypeError: features that are no tensors.
        RuntimeError: `transform` before `fit`.
    """

    matrix: Tensor | None

    def __init__(self, regularization: float = 1.0) -> None:
        value: Any = regularization
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not (number and 0 <= regularization < math.inf):
            raise ValueError(f"regularization={regularization!r}: give a number from 0")
        self.regularization = float(regularization)
        self.matrix = None

    @torch.no_grad()
    def fit(self, source: Tensor, target: Tensor) -> Coral:
        """Computes `matrix` from features [n, d] of the source and [m, d] of the target. Returns self."""
        _check(source, target)
        for name, x in (("source", source), ("target", target)):
            if not x.isfinite().all():
                raise ValueError(f"the {name} features are not finite")
        whiten = self._power(source, -0.5)
        self.matrix = whiten @ self._power(target, 0.5).to(whiten.device)
        return self

    def _power(self, x: Tensor, power: float) -> Tensor:
        """The power of cov(x) + lambda I; an eigenvalue that is 0 but for rounding becomes 0."""
        covariance = _covariance(_double(x))
        values, vectors = torch.linalg.eigh(covariance)
        floor = values[-1].clamp_min(0) * len(values) * torch.finfo(values.dtype).eps
        # A covariance is never negative, and without lambda what is below the floor is a missing direction.
        values = torch.where(values > floor, values, 0.0) + self.regularization
        return (
            vectors * torch.where(values > 0, values, torch.inf if power < 0 else 0.0) ** power
        ) @ vectors.T

    def transform(self, source: Tensor) -> Tensor:
        """Source features [n, d] under the map, in their own dtype and on their device; differentiable."""
        if self.matrix is None:
            raise RuntimeError("Coral is not fitted: call fit(source, target) first")
        _check_tensor("source", source)
        if source.dim() != 2 or source.shape[1] != len(self.matrix):
            size = list(source.shape)
            raise ValueError(f"expected features [n, {len(self.matrix)}] (got input size {size})")
        wide = _double(source)
        return (wide @ self.matrix.to(wide.device)).to(source.device, source.dtype)

    def __repr__(self) -> str:
        return f"Coral(regularization={self.regularization})"


def coral_loss(source: Tensor, target: Tensor) -> Tensor:
    r"""The distance of the covariances of two batches of features (Deep CORAL; Sun & Saenko, ECCV 2016
    workshops, arXiv 1607.01719; formula from memory).

    .. math:: \ell = \frac{1}{4 d^2} \, \lVert C_S - C_T \rVert_F^2

    with covariances over n - 1. Add it, weighted, to the loss of the task. It is symmetric, 0 for equal
    covariances, and has no part in the means. Computed in float32 at least, also under autocast.

    Args:
        source: features [n, d].
        target: features [m, d].

    Raises:
        ValueError: inputs that are not [n, d] of equal d, or have fewer than two rows.
        TypeError: features that are no tensors.
    """
    _check(source, target)
    with torch.autocast(source.device.type, enabled=False):
        difference = _covariance(_wide(source)) - _covariance(_wide(target))
        return difference.square().sum() / (4 * source.shape[1] ** 2)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _double(x: Tensor) -> Tensor:
    return (x.cpu() if x.device.type == "mps" else x).double()


def _covariance(x: Tensor) -> Tensor:
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def _check_tensor(name: str, x: Any) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(
            f"{name}: expected a tensor, got {type(x).__name__} (torch.from_numpy makes one of an array)"
        )


def _check(source: Tensor, target: Tensor) -> None:
    for name, x in (("source", source), ("target", target)):
        _check_tensor(name, x)
        if x.dim() != 2:
            raise ValueError(f"expected 2D {name} (got {x.dim()}D input of size {list(x.shape)})")
        if len(x) < 2:
            raise ValueError(f"expected more than 1 row of {name}, got input size {list(x.shape)}")
    if source.shape[1] != target.shape[1]:
        sizes = f"{source.shape[1]} and {target.shape[1]}"
        raise ValueError(f"expected as many features of the source as of the target, got {sizes}")
