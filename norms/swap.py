"""What `convert` does with methods that are no layer in the place of batch normalisation: those that act on
weights, on whole layers, or on recurrent ones. Each function changes a model in place and returns it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from norms import weight
from norms.cosine import CosineConv2d, CosineLinear
from norms.lstm import BatchNormLSTM, LayerNormLSTM, RecurrentBatchNormLSTM
from norms.moments import column
from norms.normprop import NormPropConv2d, NormPropLinear
from norms.snn import lecun_normal_


class ChannelBias(nn.Module):
    """x + beta per channel of [N, C, ...]: what stays of batch normalisation where weights are normalised."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        return x + column(self.bias, x)


BIAS = f"{__name__}.ChannelBias"


def _put(model: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """`new` in the place of submodule `name`; returns the model, which is `new` itself for the name ""."""
    parent, _, key = name.rpartition(".")
    if name:
        setattr(model.get_submodule(parent), key, new)
    return model if name else new


def _like(new: nn.Module, old: nn.Module) -> nn.Module:
    like = next(old.parameters())
    return new.to(like.device, like.dtype).train(old.training)


def weight_norm(model: nn.Module) -> nn.Module:
    """Weight normalisation on every Linear and Conv; g starts as the norm of the present weights."""
    return weight.weight_norm(model)


def centered_weight_norm(
    model: nn.Module, scale: float = 2**0.5, learnable: bool = True, eps: float = 1e-5
) -> nn.Module:
    """Centred weight normalisation on every Linear and Conv, with g learned unless told otherwise."""
    return weight.centered_weight_norm(model, scale, learnable, eps)


def cosine(
    model: nn.Module, centred: bool = False, scale: float | None = None, eps: float = 1e-8, last: bool = False
) -> nn.Module:
    """Cosine layers for every Linear and Conv2d, with the present weights and no bias.

    The last one in the model's order stays as it is unless `last`: logits within [-1, 1] limit a softmax.
    """
    found = [(name, m) for name, m in model.named_modules() if type(m) in (nn.Linear, nn.Conv2d)]
    for name, old in found if last else found[:-1]:
        new: Any
        if isinstance(old, nn.Linear):
            new = CosineLinear(old.in_features, old.out_features, centred, scale, eps)
        else:
            assert isinstance(old, nn.Conv2d)
            window: Any = old.kernel_size, old.stride, old.padding, old.dilation, old.groups, old.padding_mode
            options: Any = centred, scale, eps
            new = CosineConv2d(old.in_channels, old.out_channels, *window, *options)
        with torch.no_grad():
            new.weight.copy_(old.weight)
        model = _put(model, name, _like(new, old))
    return model


def normprop(model: nn.Module, gamma: float = 1 / 1.21) -> nn.Module:
    """NormProp layers for every Linear and Conv2d that an activation module follows in an nn.Sequential.

    The normaliser between the two, if there is one, goes. Weights are kept, gamma and beta start anew. A last
    layer without an activation stays plain.

    Raises:
        ValueError: a layer that no activation module follows, other than the last: its place in the network
            cannot be seen. The model is then unchanged.
    """
    chains = [m for m in model.modules() if isinstance(m, nn.Sequential)]
    layers = [m for m in model.modules() if type(m) in (nn.Linear, nn.Conv2d)]
    plan: list[tuple[nn.Sequential, int, int, nn.Module]] = []  # chain, place, places taken, activation
    for chain in chains:
        items = list(chain)
        for place, item in enumerate(items):
            after = [m for m in items[place + 1 :] if not _is_normaliser(m)][:1]
            if type(item) in (nn.Linear, nn.Conv2d) and after and _is_activation(after[0]):
                plan.append((chain, place, items.index(after[0], place) - place, after[0]))
    taken = {list(chain)[place] for chain, place, _, _ in plan}
    for name, layer in model.named_modules():
        if layer in layers[:-1] and layer not in taken:
            raise ValueError(
                f"norm 'normprop': no activation module follows {name} in an nn.Sequential;"
                " build the network from NormPropLinear, NormPropConv2d"
            )
    for chain, place, _, activation in plan:
        old: Any = chain[place]
        new: Any
        if isinstance(old, nn.Linear):
            new = NormPropLinear(old.in_features, old.out_features, activation, gamma)
        else:
            window = old.kernel_size, old.stride, old.padding, old.dilation, old.groups, old.padding_mode
            new = NormPropConv2d(old.in_channels, old.out_channels, *window, activation, gamma)
        with torch.no_grad():
            new.weight.copy_(old.weight)
        chain[place] = _like(new, old)
    for chain, place, length, _ in plan:
        for k in range(place + 1, place + length + 1):
            chain[k] = nn.Identity()
    return model


ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Sigmoid, nn.Tanh, nn.ELU, nn.SELU, nn.GELU, nn.SiLU)


def _is_activation(module: nn.Module) -> bool:
    return isinstance(module, ACTIVATIONS)


def _is_normaliser(module: nn.Module) -> bool:
    return "_norm_of" in module.__dict__ or isinstance(module, nn.modules.batchnorm._BatchNorm)


def snn(model: nn.Module) -> nn.Module:
    """SELU for every ReLU module, AlphaDropout for every Dropout, and initial values of variance 1/fan_in.

    Functional calls (torch.relu, F.dropout) cannot be seen and stay.
    """
    for name, old in list(model.named_modules()):
        if type(old) is nn.ReLU:
            model = _put(model, name, nn.SELU(old.inplace).train(old.training))
        elif type(old) is nn.Dropout:
            model = _put(model, name, nn.AlphaDropout(old.p, old.inplace).train(old.training))
    return model.apply(lecun_normal_)


def _lstm(kind: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def swap(model: nn.Module, **options: Any) -> nn.Module:
        for name, old in list(model.named_modules()):
            if type(old) is not nn.LSTM:
                continue
            if old.proj_size:
                raise ValueError(f"{name or 'LSTM'}: proj_size={old.proj_size} has no normalised counterpart")
            sizes = old.input_size, old.hidden_size, old.num_layers, old.bias, old.batch_first, old.dropout
            new = kind(*sizes, old.bidirectional, **options)
            own = new.state_dict()
            own.update({k: v for k, v in old.state_dict().items() if k.startswith("weight")})
            new.load_state_dict(own)
            model = _put(model, name, _like(new, old))
        return model

    return swap


lstm_batch = _lstm(BatchNormLSTM)
lstm_recurrent_batch = _lstm(RecurrentBatchNormLSTM)
lstm_layer = _lstm(LayerNormLSTM)
