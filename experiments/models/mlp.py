"""The fully connected network of Table 3: 784-300-300-10, ReLU, normalisation on the hidden layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

Normaliser = Callable[[int], nn.Module]


class MLP(nn.Module):
    """x [B, ...] -> logits [B, classes].

    placement "before": linear, norm, ReLU (as Lasagne's batch_norm() does); "after": linear, ReLU, norm (as
    the paper's analysis). Weights Glorot uniform, biases 0, the Lasagne defaults.
    """

    def __init__(
        self, inputs: int, hidden: Sequence[int], classes: int, norm: Normaliser, placement: str = "before"
    ) -> None:
        super().__init__()
        sizes = [inputs, *hidden]
        self.linears = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes, hidden, strict=False))
        self.norms = nn.ModuleList(norm(o) for o in hidden)
        self.out = nn.Linear(sizes[-1], classes)
        self.before = placement == "before"
        self.apply(glorot_)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = F.relu(norm(linear(x))) if self.before else norm(F.relu(linear(x)))
        return self.out(x)


def glorot_(module: nn.Module) -> None:
    """Glorot uniform weights and zero biases for one linear or convolutional layer; leaves other modules
    alone.
    """
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
