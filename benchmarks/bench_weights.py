"""Time of the layers that act on weights, forward and backward, as a ratio to the plain layer.

    python benchmarks/bench_weights.py [threads ...]

The variants take turns within each round, so that whatever else the machine does falls on all of them; what
is printed is the median over rounds of the ratio to the plain layer in the same round, with its quartiles.
NormProp holds its ReLU and is to be read beside the plain layer with one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from turns import show, take_turns, threads

from norms.cosine import CosineConv2d, CosineLinear
from norms.normprop import NormPropConv2d, NormPropLinear
from norms.weight import centered_weight_norm, weight_norm

BASE = "plain"


def conv(channels: int) -> dict[str, nn.Module]:
    sizes: dict[str, Any] = {
        "in_channels": channels,
        "out_channels": channels,
        "kernel_size": 3,
        "padding": 1,
    }
    return {
        BASE: nn.Conv2d(**sizes),
        "plain, ReLU": nn.Sequential(nn.Conv2d(**sizes), nn.ReLU()),
        "weight norm": weight_norm(nn.Conv2d(**sizes)),
        "centred weight norm": centered_weight_norm(nn.Conv2d(**sizes)),
        "NormProp (ReLU)": NormPropConv2d(**sizes),
        "NormProp, PReLU": NormPropConv2d(**sizes, activation=nn.PReLU()),
        "NormProp, tanh": NormPropConv2d(**sizes, activation=F.tanh),
        "cosine": CosineConv2d(**sizes),
        "cosine, centred": CosineConv2d(**sizes, centred=True),
    }


def linear(features: int) -> dict[str, nn.Module]:
    sizes = features, features
    return {
        BASE: nn.Linear(*sizes),
        "plain, ReLU": nn.Sequential(nn.Linear(*sizes), nn.ReLU()),
        "weight norm": weight_norm(nn.Linear(*sizes)),
        "centred weight norm": centered_weight_norm(nn.Linear(*sizes)),
        "NormProp (ReLU)": NormPropLinear(*sizes),
        "cosine": CosineLinear(*sizes),
        "cosine, centred": CosineLinear(*sizes, centred=True),
    }


def measure(layers: dict[str, nn.Module], shape: tuple[int, ...], rounds: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    dy = torch.randn(shape)

    def make(layer: nn.Module) -> Callable[[], None]:
        def step() -> None:
            x.grad = None
            layer.zero_grad()
            layer(x).backward(dy)

        return step

    times = take_turns({label: make(layer) for label, layer in layers.items()}, rounds)
    show(f"{type(layers[BASE]).__name__} on {list(shape)}, both ways", times)


def main() -> None:
    for count in threads():
        torch.set_num_threads(count)
        for channels, side in ((64, 16), (64, 32), (128, 16), (128, 32)):
            measure(conv(channels), (32, channels, side, side), rounds=30)
        for batch in (32, 256):
            measure(linear(1024), (batch, 1024), rounds=60)


if __name__ == "__main__":
    main()
