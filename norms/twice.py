"""Second derivatives of operations whose first one is written out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def differentiable_gradients(
    plain: Callable[..., Any], inputs: Sequence[Any], needed: Sequence[bool], grads: Any
) -> list[Tensor | None]:
    """For the backward pass of an autograd.Function, where that pass is to be differentiated itself: the
    gradients of ``plain(*inputs)``, the same operation in terms that torch can differentiate twice.

    Args:
        plain: the operation; its outputs are a tensor or a tuple of tensors.
        inputs: of the operation, as saved; tensors or others.
        needed: which of them need a gradient.
        grads: gradients of the outputs.

    Returns:
        A gradient or None for each input.
    """
    # Aliases, so that a path from one input to another (a carried state was made with the same weights) stays
    # outside: autograd follows it itself, and it would count twice.
    aliases = [x.view_as(x) if need else x for x, need in zip(inputs, needed, strict=True)]
    wanted = [x for x, need in zip(aliases, needed, strict=True) if need]
    outputs = plain(*aliases)
    found = iter(torch.autograd.grad(outputs, wanted, grads, create_graph=True, allow_unused=True))
    return [next(found) if need else None for need in needed]
