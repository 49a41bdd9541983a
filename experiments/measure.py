"""What tables measure: errors of a population, weight norms, and the order of the data."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from data import DataSet
from data.batches import take


def to_device(data: DataSet, device: torch.device) -> DataSet:
    parts = {
        f: getattr(data, f).to(device) for f in ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")
    }
    return dataclasses.replace(data, **parts)


def shuffle(n: int, seed: int, epoch: int) -> Tensor:
    """A permutation of n that depends on seed and epoch alone: an epoch can be begun again in the middle
    without a stored order.
    """
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def is_weight(name: str) -> bool:
    """Weights of linear and convolutional layers: what L2 applies to. Gains, shifts and biases are not
    regularised (as in Lasagne).
    """
    return name.endswith("weight") and "norm" not in name


def weight_norm(net: Any) -> list[float]:
    """Euclidean norm of all weights of each member, K values."""
    squares = [
        p.detach().double().reshape(net.size, -1).square().sum(1)
        for n, p in net.named_parameters()
        if is_weight(n)
    ]
    return torch.stack(squares).sum(0).sqrt().tolist()


@torch.no_grad()
def errors(
    net: Any, x: Tensor, y: Tensor, classes: int, kind: str, chunk: int = 2000
) -> tuple[list[float], Tensor]:
    """Error in per cent of each member on (x, y), and which examples it gets wrong, bool [K, N].

    kind "error": share of wrong predictions. "balanced_error": mean over the classes present of each class's
    share. A prediction with a value that is not finite is wrong.
    """
    wrong = []
    for i in range(0, len(y), chunk):
        index = torch.arange(i, min(i + chunk, len(y)), device=y.device)
        logits = net(take(x, index), shared=True)  # [K, b, C]
        wrong.append((logits.argmax(-1) != y[index]) | ~logits.isfinite().all(-1))
    w = torch.cat(wrong, 1)
    if kind == "error":
        return (100 * w.double().mean(1)).tolist(), w
    present = [c for c in range(classes) if (y == c).any()]
    return (100 * torch.stack([w[:, y == c].double().mean(1) for c in present]).mean(0)).tolist(), w
