"""What `convert` does with methods that are no layer in the place of batch normalisation: those that act on
weights, on whole layers, or on recurrent ones. Each function changes a model in place and returns it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from norms import weight
from norms.cosine import CosineConv2d, CosineLinear
from norms.lstm import BatchNormLSTM, LayerNormLSTM, RecurrentBatchNormLSTM
from norms.moments import column
from norms.normprop import BatchDataNormalization, NormPropConv2d, NormPropLinear
from norms.snn import lecun_normal_


class ChannelBias(nn.Module):
    """x + beta per channel of [N, C, ...]: what stays of batch normalisation where weights are normalised."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(num_features))

    def forward(self, x: Tensor) -> Tensor:
        return x + column(self.bias, x)


BIAS = f"{__name__}.ChannelBias"


def replace(model: nn.Module, new: dict[nn.Module, nn.Module]) -> nn.Module:
    """Puts new modules in the place of old ones, wherever in the model these stand; returns the model, which
    may be one of them itself. What is inside an old module is left alone.
    """
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child in new and parent not in new:
                parent._modules[key] = new[child]
    return new.get(model, model)


def _some(new: dict[nn.Module, nn.Module], name: str, what: str) -> dict[nn.Module, nn.Module]:
    if not new:
        raise ValueError(f"norm {name!r}: the model has no {what}")
    return new


def _take_over(new: Any, old: Any) -> Any:
    """Weight, mode and requires_grad of the old layer."""
    with torch.no_grad():
        new.weight.copy_(old.weight)
    for parameter in new.parameters():
        parameter.requires_grad_(old.weight.requires_grad)
    return new.train(old.training)


def _factory(old: nn.Module) -> dict[str, Any]:
    like = next(old.parameters())
    return {"device": like.device, "dtype": like.dtype}


def _plain(model: nn.Module) -> list[Any]:
    """Its Linear and Conv2d, not those of derived classes."""
    return [m for m in model.modules() if type(m) in (nn.Linear, nn.Conv2d)]


def _weighted(model: nn.Module) -> list[nn.Module]:
    """Its Linear and convolutions of any kind and class."""
    return [m for m in model.modules() if isinstance(m, weight.LAYERS)]


def refuse_left_plain(model: nn.Module, name: str, normalisers: Iterable[nn.Module], last: bool) -> None:
    """ValueError for a layer that the method cannot change: one that loses its batch normalisation would be
    left with none. The last layer, which stays as it is unless `last`, is fine if no normaliser follows it.
    """
    order = list(model.modules())
    weighted = _weighted(model)
    for path, layer in model.named_modules():
        if layer not in weighted or type(layer) in (nn.Linear, nn.Conv2d, *OWN[name]):
            continue
        behind = order[order.index(layer) :]
        if not normalisers or (layer is weighted[-1] and not last and not set(normalisers) & set(behind)):
            continue
        raise ValueError(
            f"norm {name!r}: {path or 'the model'} is {type(layer).__name__}, not nn.Linear or nn.Conv2d"
            " itself, and would be left without a normaliser"
        )


def _window(conv: nn.Conv2d) -> tuple[Any, ...]:
    return conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.groups, conv.padding_mode


def weight_norm(model: nn.Module) -> nn.Module:
    """Weight normalisation on every Linear and Conv; g starts as the norm of the present weights."""
    return weight.weight_norm(model)


def centered_weight_norm(
    model: nn.Module, scale: float = 2**0.5, learnable: bool = False, eps: float = 1e-5
) -> nn.Module:
    """Centred weight normalisation on every Linear and Conv. With batch normalisation goes its gamma:
    `learnable` gives each unit a g that is learned; by default it stays the authors' sqrt 2.
    """
    return weight.centered_weight_norm(model, scale, learnable, eps)


def cosine(
    model: nn.Module, centred: bool = False, scale: float | None = None, eps: float = 1e-8, last: bool = False
) -> nn.Module:
    """Cosine layers for every Linear and Conv2d, with the present weights and no bias.

    The last layer with weights in the model's order stays as it is unless `last`: logits within [-1, 1] limit
    a softmax.
    """
    spared = [] if last else _weighted(model)[-1:]
    new: dict[nn.Module, nn.Module] = {}
    for old in (m for m in _plain(model) if m not in spared):
        options: Any = centred, scale, eps
        made: nn.Module
        if isinstance(old, nn.Linear):
            made = CosineLinear(old.in_features, old.out_features, *options, **_factory(old))
        else:
            sizes = old.in_channels, old.out_channels, *_window(old)
            made = CosineConv2d(*sizes, *options, **_factory(old))
        new[old] = _take_over(made, old)
    return replace(model, _some(new, "cosine", "Linear or Conv2d to change (the last one is left alone)"))


def normprop(model: nn.Module, gamma: float = 1 / 1.21) -> nn.Module:
    """NormProp layers for every Linear and Conv2d that an activation module follows in an nn.Sequential.

    The normaliser between the two, if there is one, goes. Weights are kept, gamma and beta start anew. A last
    layer without an activation stays plain.

    Raises:
        ValueError: a layer that no activation module follows, other than the last: its place in the network
            cannot be seen. The model is then unchanged.
    """
    layers = _plain(model)
    acts: dict[Any, nn.Module] = {}  # layer -> its activation
    inner: list[tuple[nn.Sequential, int]] = []  # places of what the layers take in
    for chain in (m for m in model.modules() if isinstance(m, nn.Sequential)):
        items = list(chain)
        for place, layer in enumerate(items):
            rest = items[place + 1 :]
            after = next((m for m in rest if not _is_normaliser(m)), None)
            if layer in layers and after is not None and _is_activation(after):
                if acts.setdefault(layer, after) is not after:
                    raise ValueError("norm 'normprop': a layer that is used twice, before two activations")
                inner += [(chain, place + 1 + k) for k in range(rest.index(after) + 1)]
    for name, layer in model.named_modules():
        if layer in layers[:-1] and layer not in acts:
            raise ValueError(
                f"norm 'normprop': no activation module that it knows follows {name} in an nn.Sequential;"
                " build the network from NormPropLinear, NormPropConv2d"
            )
    new: dict[nn.Module, nn.Module] = {}
    for old, activation in acts.items():
        made: nn.Module
        if isinstance(old, nn.Linear):
            made = NormPropLinear(old.in_features, old.out_features, activation, gamma, **_factory(old))
        else:
            sizes: tuple[Any, ...] = (old.in_channels, old.out_channels, *_window(old))
            options: dict[str, Any] = {"activation": activation, "gamma": gamma, **_factory(old)}
            made = NormPropConv2d(*sizes, **options)
        new[old] = _take_over(made, old)
    model = replace(model, _some(new, "normprop", "Linear or Conv2d before an activation"))
    for chain, place in inner:
        chain[place] = nn.Identity()
    return model


OWN: dict[str, tuple[type[nn.Module], ...]] = {  # what a second conversion leaves as it is
    "cosine": (CosineLinear, CosineConv2d),
    "normprop": (NormPropLinear, NormPropConv2d),
}
ACTIVATIONS: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Sigmoid, nn.Tanh, nn.Hardtanh, nn.Hardswish),
    *(nn.ELU, nn.SELU, nn.GELU, nn.SiLU),
)


def _is_activation(module: nn.Module) -> bool:
    return isinstance(module, ACTIVATIONS)


def _is_normaliser(module: nn.Module) -> bool:
    is_one = "_norm_of" in module.__dict__ or isinstance(module, nn.modules.batchnorm._BatchNorm)
    return is_one and not isinstance(module, BatchDataNormalization)


# Not Sigmoid, Tanh and the like: they may be gates, or the output.
RELU_FAMILY: tuple[type[nn.Module], ...] = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.PReLU, nn.ELU, nn.CELU, nn.SELU),
    *(nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
)


def snn(model: nn.Module) -> nn.Module:
    """SELU for every activation module of the ReLU family, AlphaDropout for every Dropout, and initial values
    of variance 1/fan_in for all weights.

    Functional calls (torch.relu, F.dropout) cannot be seen and stay.

    Raises:
        ValueError: no activation module of the family: the activations are out of sight.
    """
    new: dict[nn.Module, nn.Module] = {}
    for old in model.modules():
        if isinstance(old, RELU_FAMILY):
            new[old] = nn.SELU(bool(getattr(old, "inplace", False))).train(old.training)
    _some(new, "snn", "activation module of the ReLU family (functional calls cannot be seen)")
    for old in model.modules():
        if type(old) is nn.Dropout:
            new[old] = nn.AlphaDropout(old.p, old.inplace).train(old.training)
    return replace(model, new).apply(lecun_normal_)


OURS = BatchNormLSTM, RecurrentBatchNormLSTM, LayerNormLSTM


def _lstm(name: str, kind: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def swap(model: nn.Module, **options: Any) -> nn.Module:
        new: dict[nn.Module, nn.Module] = {}
        for old in model.modules():
            if not (type(old) is nn.LSTM or isinstance(old, OURS)):
                continue
            if old.proj_size:
                raise ValueError(f"norm {name!r}: no LSTM with projections (proj_size={old.proj_size})")
            sizes: Any = old.input_size, old.hidden_size, old.num_layers, old.bias, old.batch_first
            made = kind(*sizes, old.dropout, old.bidirectional, **options, **_factory(old))
            # The weights, and where both have nn.LSTM's biases those; gamma and beta start anew.
            kept = "weight", "bias_ih", "bias_hh"
            same = {k: v for k, v in old.state_dict().items() if k.startswith(kept)}
            made.load_state_dict(same, strict=False)
            for key, parameter in made.named_parameters():
                parameter.requires_grad_(getattr(old, key, next(old.parameters())).requires_grad)
            new[old] = made.train(old.training)
        return replace(model, _some(new, name, "nn.LSTM"))

    return swap


lstm_batch = _lstm("lstm_batch", BatchNormLSTM)
lstm_recurrent_batch = _lstm("lstm_recurrent_batch", RecurrentBatchNormLSTM)
lstm_layer = _lstm("lstm_layer", LayerNormLSTM)
