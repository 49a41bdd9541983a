"""Networks of Table 4: states in, a value for each action out.

`nature` is that of Mnih et al. (Nature 518, 2015), `minatar` that of Young & Tian (arXiv 1903.03176).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

import norms
from norms.weight import data_dependent_init_  # by module, so that the code hash sees it

# maps, kernel, stride of each convolution, and units of the hidden layer
SHAPES: dict[str, tuple[list[tuple[int, int, int]], int]] = {
    "nature": ([(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512),
    "minatar": ([(16, 3, 1)], 128),
}


class QNet(nn.Module):
    """uint8 states [B, h, C, H, W] -> values [B, actions]; `scale`: what the largest number in a frame is."""

    def __init__(self, layers: Sequence[nn.Module], scale: float) -> None:
        super().__init__()
        self.layers, self.scale = nn.Sequential(*layers), scale

    def forward(self, states: Tensor) -> Tensor:
        x = states.flatten(1, 2).float().contiguous(memory_format=torch.channels_last)
        values: Tensor = self.layers(x if self.scale == 1 else x / self.scale)
        return values


def q_net(
    name: str, shape: Sequence[int], actions: int, norm: Callable[[int, int], nn.Module | None], bias: float
) -> QNet:
    """Convolutions and a hidden layer, each followed by what `norm(features, dim)` gives and a ReLU, and the
    layer of values. Weights uniform in +- sqrt(3 / inputs), Lasagne's He start with gain 1 [memory], as
    deep_q_rl has them.

    Args:
        name: nature or minatar.
        shape: [h, C, H, W] of a state.
        actions: values.
        norm: (features, positional dimensions) -> the layer behind a linear one, or None.
        bias: of every layer at the start, but for those whose normaliser shifts, which have none.

    Raises:
        ValueError: a state too small for the convolutions.
    """
    (h, c, *size), (convolutions, hidden) = shape, SHAPES[name]
    layers: list[nn.Module] = []
    inputs = h * c
    for maps, kernel, stride in convolutions:
        if min(size) < kernel:
            raise ValueError(f"model {name}: a convolution {kernel}x{kernel} on {size[0]}x{size[1]}")
        layers += normed(partial(nn.Conv2d, inputs, maps, kernel, stride), norm(maps, 2))
        inputs, size = maps, [(n - kernel) // stride + 1 for n in size]
    layers.append(nn.Flatten())
    flat = inputs * math.prod(size)
    layers += normed(partial(nn.Linear, flat, hidden), norm(hidden, 1))
    layers.append(nn.Linear(hidden, actions))
    for layer in layers:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:
                nn.init.constant_(layer.bias, bias)
    net = QNet(layers, 255 if name == "nature" else 1)
    return net.to(memory_format=torch.channels_last)  # of a step on a CPU a quarter less


def normed(make: Callable[..., nn.Module], layer: nn.Module | None) -> list[nn.Module]:
    """The layer with its normaliser and a ReLU; without a bias of its own where the normaliser shifts."""
    shifts = layer is not None and any(n.endswith("bias") for n, _ in layer.named_parameters())
    return [make(bias=not shifts), *([] if layer is None else [layer]), nn.ReLU()]


def weight_normed(net: QNet, head: bool, name: str, options: dict[str, Any]) -> QNet:
    """Its layers changed by a method on weights; the layer of values only if `head`."""
    inner = net.layers if head else net.layers[:-1]
    norms.convert(inner, name, **options)
    return net


def start_(net: QNet, states: Tensor, head: bool, std: float, generator: torch.Generator) -> None:
    """The data-dependent start of Salimans & Kingma (arXiv 1602.07868, section 3) from one batch: every unit
    with mean 0 and variance 1 on it before its non-linearity; those of the layer of values only if `head`. A
    network without weight normalisation gets the same w = g v / |v| and biases, which is what the source
    compares with.
    """
    if any(nn.utils.parametrize.is_parametrized(m) for m in net.modules()):
        data_dependent_init_(net, states, std=std, generator=generator)
        return
    twin = weight_normed(copy.deepcopy(net), head, "weight_norm", {})
    data_dependent_init_(twin, states, std=std, generator=generator)
    with torch.no_grad():
        for name, p in net.named_parameters():
            p.copy_(attrgetter(name)(twin))


def follow(one: Any, other: Any) -> None:
    """`one`, a plain copy, computes what `other` does: all its tensors, and w from g and v."""
    with torch.no_grad():
        for name, tensor in [*one.named_parameters(), *one.named_buffers()]:
            tensor.copy_(attrgetter(name)(other))


def sharing(model: nn.Module) -> Any:
    """A twin for evaluation of the same tensors: with batch normalisation, the one that acts."""
    return copy.deepcopy(model, {id(t): t for t in [*model.parameters(), *model.buffers()]}).eval()


def flat(model: nn.Module) -> Any:
    """One vector of all parameters, and of their gradients, which the model's own become views of: an
    element-wise optimizer takes a few long operations in place of many short ones.
    """
    found = list(model.parameters())
    vector = torch.nn.Parameter(torch.cat([lying(p.detach()).flatten() for p in found]))
    vector.grad = torch.zeros_like(vector)
    parts = [p.numel() for p in found]
    for p, *both in zip(found, vector.detach().split(parts), vector.grad.split(parts), strict=True):
        p.data, p.grad = (part.view(lying(p).shape).permute(back(p)) for part in both)
    return vector


def lying(p: Tensor) -> Tensor:
    """A parameter in the order in which it lies in memory: channels last, of a convolution."""
    return p.permute(0, 2, 3, 1) if p.dim() == 4 else p


def back(p: Tensor) -> tuple[int, ...]:
    return (0, 3, 1, 2) if p.dim() == 4 else tuple(range(p.dim()))
