"""The network of section 4.1 of Ioffe & Szegedy (arXiv 1502.03167): three layers of 100 sigmoids on binary
pictures.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from experiments.models.mlp import Normaliser

SPREAD = 0.1  # standard deviation of the initial weights; the paper says "small random Gaussian values"


class Binarise(nn.Module):
    """x in [0, 1] -> 1 where x >= 1/2, else 0."""

    def forward(self, x: Tensor) -> Tensor:
        return (x >= 0.5).to(x.dtype)


class SigmoidNet(nn.Module):
    """x [B, ...] -> logits [B, classes]; linear, normaliser, sigmoid, three times, then a linear layer.

    Weights normal with standard deviation SPREAD, biases 0; no bias before a normaliser, which has its own.
    """

    def __init__(
        self,
        inputs: int,
        classes: int,
        norm: Normaliser,
        units: int = 100,
        activation: Callable[[], nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.hidden = nn.Sequential()
        for i in range(3):
            layer = norm(units)
            bias = isinstance(layer, nn.Identity)
            self.hidden.add_module(f"linear{i + 1}", nn.Linear(units if i else inputs, units, bias=bias))
            self.hidden.add_module(f"norm{i + 1}", layer)
            self.hidden.add_module(f"activation{i + 1}", activation())
        self.out = nn.Linear(units, classes)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=SPREAD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.hidden(x.flatten(1)))

    @torch.no_grad()
    def last_inputs(self, x: Tensor) -> Tensor:
        """[B, units]: what the sigmoids of the last hidden layer get."""
        return self.hidden[:-1](x.flatten(1))
