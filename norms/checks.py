"""What the constructors and forward passes of the layers refuse, in torch's words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor


def check_options(eps: Any, momentum: Any = 0.1) -> None:
    """ValueError unless eps is above 0 and momentum in [0, 1]."""
    if not (_is_number(eps) and 0 < eps < math.inf):
        raise ValueError(f"eps={eps!r}: give a number above 0")
    if not (_is_number(momentum) and 0 <= momentum <= 1):
        raise ValueError(f"momentum={momentum!r}: give a number in [0, 1]")


def _is_number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool)


def check_input(x: Tensor, num_features: int, ranks: Sequence[int], training: bool) -> None:
    """ValueError unless x is [N, C, ...] of one of these ranks, and not one value a channel to train on.

    As for torch, none at all (an empty batch) is fine: it has an empty output and leaves averages alone.
    """
    if x.dim() not in ranks:
        expected = " or ".join(f"{rank}D" for rank in ranks)
        raise ValueError(f"expected {expected} input (got {x.dim()}D input of size {list(x.shape)})")
    if x.shape[1] != num_features:
        raise ValueError(f"expected {num_features} channels, got input size {list(x.shape)}")
    if not x.is_floating_point():
        raise TypeError(f"expected a floating-point input (got {x.dtype})")
    if training and x.numel() == num_features:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.size()}")


@overload
def single(x: Tensor) -> Tensor: ...
@overload
def single(x: None) -> None: ...
def single(x: Tensor | None) -> Tensor | None:
    """A float16 tensor in float32, in which the square of a small or large deviation still has a value."""
    return x.float() if x is not None and x.dtype == torch.float16 else x
