"""The fully connected networks of Tables 5 and 6 (Klambauer et al., arXiv 1706.02515): plain, highway and
residual, with one of the survey's normalisers or none.

K networks of one architecture are one stacked network: K members, a batch x [K, B, D] of each, logits
[K, B, C]. A layer of all members is one batched product, which for small layers on a CPU is the difference
between the cost of starting operations and that of arithmetic. With K = 1 it is the network alone, by the
same code. Normalisers are torch modules of one member, stacked by `experiments.population`.

Dropout masks come from outside (each member's own), as do the generators of the initial values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.population import Population

Normaliser = Callable[[int], nn.Module]
Masks = Sequence[Tensor] | None  # [K, B, H] of 0 and a number for each hidden layer; None: no dropout
SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
SELU_LIMIT = -SELU_ALPHA * SELU_SCALE  # alpha', where AlphaDropout puts a unit


def widths(layers: int, units: int, form: str, outputs: int) -> list[int]:
    """Units of the hidden layers. "rectangular": all alike; "conic": in geometric steps from `units` towards
    the number of outputs, which would be the next.
    """
    if form == "rectangular":
        return [units] * layers
    return [max(1, round(units * (outputs / units) ** (i / layers))) for i in range(layers)]


class _Selu(torch.autograd.Function):
    """SELU in float32 on a CPU: with exp(x) - 1 in the place of torch's expm1, which takes ten times as long
    (the two differ by 1e-7), and in place where it can.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        positive, negative = F.relu(x), x.clamp(max=0).exp_()
        y = torch.add(positive, negative, alpha=SELU_ALPHA).sub_(SELU_ALPHA).mul_(SELU_SCALE)
        # selu' = lambda alpha e^x for x <= 0, else lambda; sign and sum are faster than masked_fill or where
        slope = negative.mul_(SELU_SCALE * SELU_ALPHA)
        ctx.save_for_backward(slope.add_(positive.sign_(), alpha=SELU_SCALE * (1 - SELU_ALPHA)))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (slope,) = ctx.saved_tensors
        return dy * slope


def selu(x: Tensor) -> Tensor:
    """SELU, torch's or what is faster."""
    fast = x.is_cpu and x.dtype == torch.float32
    y: Tensor = _Selu.apply(x) if fast else F.selu(x)
    return y


class Linear:
    """y = x W + b of K members: weight [K, inputs, outputs] (so that its gradient comes contiguous), bias
    [K, outputs]. `gain` [K, 1, outputs] makes it weight normalisation: W = gain v / |v|, |v| at the start.

    Initial values: N(0, c / inputs) by each member's generator; biases `bias`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        generators: Sequence[torch.Generator],
        c: float = 2.0,
        bias: float = 0.0,
        weight_norm: bool = False,
    ) -> None:
        draw = [torch.randn(inputs, outputs, generator=g) for g in generators]
        self.weight = torch.stack(draw).mul_((c / inputs) ** 0.5)
        self.bias = torch.full((len(generators), outputs), bias)
        self.gain = torch.linalg.vector_norm(self.weight, dim=1, keepdim=True) if weight_norm else None

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        yield from (("weight", self.weight), ("bias", self.bias))
        if self.gain is not None:
            yield "gain", self.gain

    def __call__(self, x: Tensor) -> Tensor:
        weight = self.weight
        if self.gain is not None:
            weight = weight * (self.gain / torch.linalg.vector_norm(weight, dim=1, keepdim=True))
        return torch.baddbmm(self.bias[:, None], x, weight)


class Stacked(Population):
    """K networks as one, for a caller a `Population`. Layers are stacked here, norms are populations."""

    forward: Callable[..., Tensor]  # (x, masks, seen) -> logits
    hidden: list[int]  # outputs of the hidden layers that have dropout behind them
    alpha_dropout = False

    def __init__(self, seeds: Sequence[int], rates: Sequence[float]) -> None:
        self.size = len(seeds)
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self.keep = [1 - rate for rate in rates]  # q
        self.shift: Tensor | None = None
        self.layers: dict[str, Linear] = {}
        self.norms: dict[str, Population] = {}
        self.training = True

    def linear(self, name: str, inputs: int, outputs: int, **options: Any) -> Linear:
        self.layers[name] = Linear(inputs, outputs, self.generators, **options)
        return self.layers[name]

    def norm(self, name: str, make: Normaliser | None, width: int) -> Callable[[Tensor], Tensor]:
        if make is None:
            return lambda x: x
        self.norms[name] = Population([make(width) for _ in range(self.size)])
        return self.norms[name]

    def to(self, device: torch.device, dtype: torch.dtype = torch.float32) -> None:
        """Once, after the layers are there; parameters need gradients from then on."""
        for layer in self.layers.values():
            for key, p in layer.parameters():
                setattr(layer, key, p.to(device, dtype).requires_grad_())
        for norm in self.norms.values():
            norm.single.to(device if norm.size == 1 else "meta", dtype)
            if norm.size > 1:
                norm.params = {
                    k: p.detach().to(device, dtype).requires_grad_() for k, p in norm.params.items()
                }
                norm.buffers = {
                    k: b.to(device, dtype if b.is_floating_point() else None) for k, b in norm.buffers.items()
                }
        if self.alpha_dropout:
            shift = [a * q * SELU_LIMIT for a, q in zip(self.mask_values(), self.keep, strict=True)]
            self.shift = torch.tensor(shift, device=device, dtype=dtype)[:, None, None]

    def mask_values(self) -> list[float]:
        """What a mask has, of each member, where a unit is kept: 1 / q, or the a of AlphaDropout."""
        if self.alpha_dropout:
            return [(q + SELU_LIMIT**2 * q * (1 - q)) ** -0.5 for q in self.keep]
        return [1 / q for q in self.keep]

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """All with a leading K, but those of a single normaliser."""
        for name, layer in self.layers.items():
            yield from ((f"{name}.{key}", p) for key, p in layer.parameters())
        for name, norm in self.norms.items():
            yield from ((f"{name}.{key}", p) for key, p in norm.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        for name, norm in self.norms.items():
            yield from ((f"{name}.{key}", b) for key, b in norm.named_buffers())

    def train(self, mode: bool = True) -> None:
        self.training = mode
        for norm in self.norms.values():
            norm.train(mode)

    def __call__(
        self, x: Tensor, shared: bool = False, masks: Masks = None, seen: list[Tensor] | None = None
    ) -> Tensor:
        """Logits [K, B, C] for x [K, B, D], or with shared=True for one batch [B, D] given to all. `seen`
        takes the output of every hidden layer [K, B, H], before dropout.
        """
        return self.forward(
            x.expand(self.size, *x.shape) if shared else x, masks, [] if seen is None else seen
        )

    def drop(self, x: Tensor, masks: Masks, layer: int) -> Tensor:
        """Dropout x m / q, or AlphaDropout, which leaves mean 0 and variance 1 (q = 1 - rate, alpha' = selu's
        lower limit): a (x m + alpha' (1 - m)) + b, a = (q + alpha'^2 q (1 - q))^-1/2, b = -a (1 - q) alpha'.

        Here it is a m (x - alpha') + a q alpha'. What comes as a mask is m / q, or a m.
        """
        if masks is None:
            return x
        scale, shift = masks[layer], self.shift
        return x * scale if shift is None else torch.addcmul(shift, x - SELU_LIMIT, scale)


class FNN(Stacked):
    """Hidden layers of kind "relu": linear, ReLU, norm with placement "after" (the authors' public script),
    linear, norm, ReLU with "before"; "snn": linear, SELU, AlphaDropout (or, to compare, Dropout); "weight":
    weight-normalised linear, ReLU. Weights N(0, c / fan_in), c = 1 for SELU, 2 for ReLU, biases 0.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        rates: Sequence[float],
        inputs: int,
        hidden: Sequence[int],
        outputs: int,
        kind: str,
        norm: Normaliser | None,
        placement: str | None,
        alpha_dropout: bool = True,
    ) -> None:
        super().__init__(seeds, rates)
        self.hidden, self.snn, self.before = list(hidden), kind == "snn", placement == "before"
        self.alpha_dropout = self.snn and alpha_dropout
        options: dict[str, Any] = {"c": 1.0 if kind == "snn" else 2.0, "weight_norm": kind == "weight"}
        sizes = [inputs, *hidden]
        self.linears = [
            self.linear(f"linears.{i}", sizes[i], width, **options) for i, width in enumerate(hidden)
        ]
        self.norms_of = [self.norm(f"norms.{i}", norm, width) for i, width in enumerate(hidden)]
        self.out = self.linear("out", sizes[-1], outputs, **options)

    def forward(self, x: Tensor, masks: Masks, seen: list[Tensor]) -> Tensor:
        for i, (linear, norm) in enumerate(zip(self.linears, self.norms_of, strict=True)):
            x = linear(x)
            if self.snn:
                x = selu(x)
            else:
                x = F.relu(norm(x)) if self.before else norm(F.relu(x))
            seen.append(x)
            x = self.drop(x, masks, i)
        return self.out(x)


class HighwayNet(Stacked):
    """Highway network (Srivastava et al., arXiv 1505.00387): y = T(x) H(x) + (1 - T(x)) x, with a linear
    layer and ReLU in front that makes `units` of the inputs; H has a ReLU, T is a sigmoid whose bias starts
    at -2.
    """

    def __init__(
        self, seeds: Sequence[int], rates: Sequence[float], inputs: int, layers: int, units: int, outputs: int
    ) -> None:
        super().__init__(seeds, rates)
        self.hidden = [units] * layers
        self.first = self.linear("first", inputs, units)
        self.linears = [self.linear(f"linears.{i}", units, units) for i in range(layers)]
        self.gates = [self.linear(f"gates.{i}", units, units, c=1.0, bias=-2.0) for i in range(layers)]
        self.out = self.linear("out", units, outputs)

    def forward(self, x: Tensor, masks: Masks, seen: list[Tensor]) -> Tensor:
        x = F.relu(self.first(x))
        for i, (linear, gate) in enumerate(zip(self.linears, self.gates, strict=True)):
            x = torch.lerp(x, F.relu(linear(x)), torch.sigmoid(gate(x)))
            seen.append(x)
            x = self.drop(x, masks, i)
        return self.out(x)


class ResidualNet(Stacked):
    """Residual blocks y = ReLU(x + norm(W2 ReLU(norm(W1 x)))) of two layers behind a linear layer with ReLU
    (He et al., arXiv 1512.03385, made fully connected; their norm is batch normalisation); W1 maps to `inner`
    units.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        rates: Sequence[float],
        inputs: int,
        blocks: int,
        units: int,
        outputs: int,
        norm: Normaliser | None,
        inner: int,
    ) -> None:
        super().__init__(seeds, rates)
        self.hidden = [units] * blocks
        self.first = self.linear("first", inputs, units)
        self.blocks = [
            (
                self.linear(f"linears.{i}", units, inner),
                self.norm(f"norms.{i}", norm, inner),
                self.linear(f"backs.{i}", inner, units),
                self.norm(f"back_norms.{i}", norm, units),
            )
            for i in range(blocks)
        ]
        self.out = self.linear("out", units, outputs)

    def forward(self, x: Tensor, masks: Masks, seen: list[Tensor]) -> Tensor:
        x = F.relu(self.first(x))
        for i, (linear, norm, back, back_norm) in enumerate(self.blocks):
            x = F.relu(x + back_norm(back(F.relu(norm(linear(x))))))
            seen.append(x)
            x = self.drop(x, masks, i)
        return self.out(x)
