"""The fully connected networks of Tables 5 and 6 (Klambauer et al., arXiv 1706.02515): plain, highway and
residual, with one of the survey's normalisers or none.

Dropout masks come from outside: a stacked population draws each member's own, and a network that is trained
alone has the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Normaliser = Callable[[int], nn.Module]
SELU_LIMIT = -1.7580993408473766  # alpha' = -lambda alpha, to which AlphaDropout sets a unit


def widths(layers: int, units: int, form: str, outputs: int) -> list[int]:
    """Units of the hidden layers. "rectangular": all alike; "conic": in geometric steps from `units` towards
    the number of outputs, which would be the next.
    """
    if form == "rectangular":
        return [units] * layers
    return [max(1, round(units * (outputs / units) ** (i / layers))) for i in range(layers)]


class WeightNormLinear(nn.Linear):
    """y = g v x / |v| + b, torch's weight_norm(nn.Linear) in operations that vmap can batch; g = |v| at the
    start.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.gain = nn.Parameter(torch.empty(outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(self.weight, dim=1, keepdim=True)
        return F.linear(x, self.weight * (self.gain / length), self.bias)


class Dropout(nn.Module):
    """Dropout by a given mask [B, H] of 0 and 1, at a rate that is a buffer, so that members of a population
    may differ in it. alpha: AlphaDropout, which leaves mean 0 and variance 1 (the paper's section on it).
    """

    rate: Tensor

    def __init__(self, rate: float, alpha: bool) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("rate", torch.tensor(rate))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return x
        keep = 1 - self.rate
        if not self.alpha:
            return x * (mask / keep)
        # y = a (x m + alpha' (1 - m)) + b, a = (q + alpha'^2 q (1 - q))^-1/2, b = -a (1 - q) alpha'
        a = (keep + SELU_LIMIT**2 * keep * self.rate).rsqrt()
        return torch.addcmul(a * SELU_LIMIT * keep, x - SELU_LIMIT, a * mask)


class FNN(nn.Module):
    """x [B, D], masks [B, H] of each hidden layer or None -> logits [B, outputs].

    Hidden layers: linear, ReLU, norm with placement "after" (the authors' public script), linear, norm, ReLU
    with "before"; kind "snn": linear, SELU, AlphaDropout; "weight": weight-normalised linear, ReLU.
    Weights N(0, c / fan_in), c = 1 for SELU, 2 for ReLU, biases 0.
    """

    def __init__(
        self,
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        kind: str,
        norm: Normaliser,
        placement: str | None,
        dropout: float,
    ) -> None:
        super().__init__()
        self.hidden, self.snn, self.before = list(hidden), kind == "snn", placement == "before"
        linear = WeightNormLinear if kind == "weight" else nn.Linear
        sizes = [inputs, *hidden]
        self.linears = nn.ModuleList(linear(i, o) for i, o in zip(sizes, hidden, strict=False))
        self.norms = nn.ModuleList(norm(o) for o in hidden)
        self.drop = Dropout(dropout, self.snn)
        self.out = linear(sizes[-1], outputs)
        initial_(self, 1.0 if self.snn else 2.0)

    def forward(
        self, x: Tensor, masks: Sequence[Tensor] | None = None, seen: list[Tensor] | None = None
    ) -> Tensor:
        """`seen`: takes the output of every hidden layer, before dropout."""
        for i, (linear, norm) in enumerate(zip(self.linears, self.norms, strict=True)):
            x = linear(x)
            if self.snn:
                x = F.selu(x)
            else:
                x = F.relu(norm(x)) if self.before else norm(F.relu(x))
            if seen is not None:
                seen.append(x)
            x = self.drop(x, masks[i] if masks is not None else None)
        return self.out(x)


class HighwayNet(nn.Module):
    """Highway network (Srivastava et al., arXiv 1505.00387): y = T(x) H(x) + (1 - T(x)) x, with a linear
    layer and ReLU in front that makes `units` of the inputs; H has a ReLU, T is a sigmoid whose bias starts
    at -2.
    """

    def __init__(self, inputs: int, layers: int, units: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.hidden = [units] * layers
        self.first = nn.Linear(inputs, units)
        self.linears = nn.ModuleList(nn.Linear(units, units) for _ in range(layers))
        self.gates = nn.ModuleList(nn.Linear(units, units) for _ in range(layers))
        self.drop = Dropout(dropout, alpha=False)
        self.out = nn.Linear(units, outputs)
        initial_(self, 2.0)
        for gate in self.gates:
            nn.init.normal_(gate.weight, std=units**-0.5)
            nn.init.constant_(gate.bias, -2.0)

    def forward(
        self, x: Tensor, masks: Sequence[Tensor] | None = None, seen: list[Tensor] | None = None
    ) -> Tensor:
        x = F.relu(self.first(x))
        for i, (linear, gate) in enumerate(zip(self.linears, self.gates, strict=True)):
            x = torch.lerp(x, F.relu(linear(x)), torch.sigmoid(gate(x)))
            if seen is not None:
                seen.append(x)
            x = self.drop(x, masks[i] if masks is not None else None)
        return self.out(x)


class ResidualNet(nn.Module):
    """Residual blocks y = ReLU(x + norm(W2 ReLU(norm(W1 x)))) of two layers behind a linear layer with ReLU
    (He et al., arXiv 1512.03385, made fully connected). form "diavolo": W1 maps to `bottleneck` times as many
    units; "rectangular": to as many.
    """

    def __init__(
        self,
        inputs: int,
        blocks: int,
        units: int,
        outputs: int,
        norm: Normaliser,
        form: str,
        bottleneck: float | None,
        dropout: float,
    ) -> None:
        super().__init__()
        inner = units if form == "rectangular" else max(1, round(units * (bottleneck or 1.0)))
        self.hidden = [units] * blocks
        self.first = nn.Linear(inputs, units)
        self.linears = nn.ModuleList(nn.Linear(units, inner) for _ in range(blocks))
        self.backs = nn.ModuleList(nn.Linear(inner, units) for _ in range(blocks))
        self.norms = nn.ModuleList(norm(inner) for _ in range(blocks))
        self.back_norms = nn.ModuleList(norm(units) for _ in range(blocks))
        self.drop = Dropout(dropout, alpha=False)
        self.out = nn.Linear(units, outputs)
        initial_(self, 2.0)

    def forward(
        self, x: Tensor, masks: Sequence[Tensor] | None = None, seen: list[Tensor] | None = None
    ) -> Tensor:
        x = F.relu(self.first(x))
        blocks = zip(self.linears, self.norms, self.backs, self.back_norms, strict=True)
        for i, (linear, norm, back, back_norm) in enumerate(blocks):
            x = F.relu(x + back_norm(back(F.relu(norm(linear(x))))))
            if seen is not None:
                seen.append(x)
            x = self.drop(x, masks[i] if masks is not None else None)
        return self.out(x)


@torch.no_grad()
def initial_(model: nn.Module, c: float) -> None:
    """Weights N(0, c / fan_in), biases 0, gains of weight normalisation |v|."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=(c / module.in_features) ** 0.5)
            nn.init.zeros_(module.bias)
        if isinstance(module, WeightNormLinear):
            module.gain.copy_(torch.linalg.vector_norm(module.weight, dim=1, keepdim=True))
