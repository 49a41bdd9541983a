"""The networks of Table 11: a fully connected one, a convolutional one and an LSTM over the rows of a
picture, small enough that ten methods can be compared under many conditions. Each is built with batch
normalisation, in whose place `norms.convert` puts the method.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import norms
from norms import normprop, snn, swap, weight  # noqa: F401  (the code hash is to see what convert puts in)


def mlp(shape: Sequence[int], width: int, depth: int, classes: int, dropout: float) -> nn.Module:
    """Pictures [B, C, H, W] -> (linear, BN, ReLU, dropout) x depth -> logits [B, classes]."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in [math.prod(shape), *[width] * (depth - 1)]:
        layers += [nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), *dropped(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, classes))


def cnn(shape: Sequence[int], width: int, depth: int, classes: int, dropout: float) -> nn.Module:
    """Pictures -> (3x3 convolution, BN, ReLU, dropout) x depth, the second and third with stride 2 and twice
    the width -> logits. Every normaliser sees positions, so that a batch of one example has statistics.
    """
    layers: list[nn.Module] = []
    maps, height, breadth = [shape[0], width, *[2 * width] * (depth - 1)], *shape[1:]
    for k, (i, o) in enumerate(pairwise(maps)):
        stride = 2 if k in (1, 2) else 1
        height, breadth = -(-height // stride), -(-breadth // stride)
        layers += [nn.Conv2d(i, o, 3, stride, padding=1), nn.BatchNorm2d(o), nn.ReLU(), *dropped(dropout)]
    layers += [nn.Flatten(), nn.Linear(maps[-1] * height * breadth, classes)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


class Rows(nn.Module):
    """Pictures, read row by row by `depth` LSTMs -> logits from the last output."""

    def __init__(self, shape: Sequence[int], width: int, depth: int, classes: int, dropout: float) -> None:
        super().__init__()
        between = dropout if depth > 1 else 0.0
        self.lstm = nn.LSTM(shape[0] * shape[2], width, depth, batch_first=True, dropout=between)
        self.out = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.permute(0, 2, 1, 3).flatten(2)  # [B, H, C W]
        logits: Tensor = self.out(self.lstm(rows)[0][:, -1])
        return logits


def dropped(rate: float) -> list[nn.Module]:
    return [nn.Dropout(rate)] if rate else []


BUILT: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "cnn": cnn, "rnn": Rows}
BY_BATCH = ("batch", "renorm", "diminishing")  # subtract the batch's mean, and with it a bias in front
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "selu": nn.SELU}


def small_net(
    kind: str, shape: Sequence[int], width: int, depth: int, classes: int, norm: str, options: dict[str, Any],
    *, dropout: float = 0.0, plain_dropout: bool = False, activation: str | None = None, scale: float = 1.0,
) -> nn.Module:  # fmt: skip
    """The network with its method.

    Weights are He-normal (of an LSTM orthogonal, gate by gate), biases 0; a self-normalizing network has its
    own start, SELU and alpha dropout; NormProp's filters have length 1. Every unit has one bias: where the
    method subtracts the batch's mean its own, else the layer's.

    Args:
        kind: mlp, cnn or rnn.
        shape: [C, H, W] of a picture.
        width: units of a layer; of the convolutions the first one's maps.
        depth: layers before the last one.
        classes: logits.
        norm: one of norms.names(), or a dotted path.
        options: of the method.
        dropout: rate behind every activation, and between LSTMs.
        plain_dropout: dropout in the place of alpha dropout.
        activation: relu or selu, in the place of the method's own, with the weights as they are.
        scale: of the weights at the start, the last layer's apart, beside what they would be.

    Raises:
        ValueError: a method that does not fit the network.
    """
    net: Any = BUILT[kind](shape, width, depth, classes, dropout).apply(start_)
    if norm in BY_BATCH:  # drawn all the same, so that all methods start from the same weights
        for layer in [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)][:-1]:
            layer.register_parameter("bias", None)
    if kind == "rnn" and norm == "weight_norm":
        for name in [n for n, _ in net.lstm.named_parameters() if n.startswith("weight")]:
            weight_norm(net.lstm, name)
    elif not (kind == "rnn" and norm == "none"):
        net = norms.convert(net, norm, **options)
    exchanged(net, (swap.ChannelBias,), lambda _: nn.Identity())  # the layer in front of it has a bias
    if activation:
        exchanged(net, (nn.ReLU, nn.SELU), lambda _: ACTIVATIONS[activation]())
    if plain_dropout:
        exchanged(net, (nn.AlphaDropout,), lambda old: nn.Dropout(old.p))
    if scale != 1:
        scaled_(net, scale)
    normprop.unit_norm_(net)
    made: nn.Module = net
    return made


@torch.no_grad()
def start_(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear | nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    elif isinstance(layer, nn.LSTM):
        for name, p in layer.named_parameters():
            if name.startswith("weight"):
                for gate in p.chunk(4):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(p)


def exchanged(net: nn.Module, kinds: tuple[type[nn.Module], ...], new: Callable[[Any], nn.Module]) -> None:
    """Layers of these kinds in the place of which `new(layer)` goes."""
    for chain in [m for m in net.modules() if isinstance(m, nn.Sequential)]:
        for place, layer in enumerate(chain):
            if isinstance(layer, kinds):
                chain[place] = new(layer)


@torch.no_grad()
def scaled_(net: nn.Module, scale: float) -> None:
    """All weights of linear, convolutional and recurrent layers but the last one's times `scale`; of a
    weight-normalised layer its g, of which w is a multiple.
    """
    weights = [
        p for name, p in net.named_parameters()
        if "original0" in name or (p.dim() > 1 and "original1" not in name)
    ]  # fmt: skip
    for p in weights[:-1]:
        p.mul_(scale)
