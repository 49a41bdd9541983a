"""One map from names to layers, and the exchange of the normalisation layers of an existing model."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from norms import swap
from norms.checks import check_options
from norms.diminishing import (
    AVERAGES,
    EPS_IN,
    INITIALS,
    READINGS,
    DiminishingBatchNorm1d,
    DiminishingBatchNorm2d,
    DiminishingBatchNorm3d,
)
from norms.domain import DomainSpecificBatchNorm1d, DomainSpecificBatchNorm2d, DomainSpecificBatchNorm3d
from norms.dyt import DynamicTanh
from norms.frn import FilterResponseNorm1d, FilterResponseNorm2d, FilterResponseNorm3d
from norms.l1 import L1BatchNorm1d, L1BatchNorm2d, L1BatchNorm3d
from norms.lstm import BatchNormLSTM, LayerNormLSTM, RecurrentBatchNormLSTM
from norms.mean_only import MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d, MeanOnlyBatchNorm3d
from norms.normprop import BatchDataNormalization
from norms.renorm import BatchRenorm1d, BatchRenorm2d, BatchRenorm3d
from norms.rms import ChannelRMSNorm

BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _none(num_features: int, device: Any = None, dtype: Any = None) -> nn.Module:
    return nn.Identity()


def _layer(
    num_features: int, eps: float = 1e-5, affine: bool = True, device: Any = None, dtype: Any = None
) -> nn.Module:
    # GroupNorm with one group is the layer normalisation of convolutional networks, and needs no spatial
    # size.
    return nn.GroupNorm(1, num_features, eps, affine, device=device, dtype=dtype)


def _group(
    num_features: int,
    num_groups: int | None = None,
    eps: float = 1e-5,
    affine: bool = True,
    device: Any = None,
    dtype: Any = None,
) -> nn.Module:
    if num_groups is None:
        # A group of one channel would be instance normalisation, and nothing but beta on [N, C].
        fits = (g for g in range(1, min(32, num_features // 2) + 1) if num_features % g == 0)
        num_groups = max(fits, default=1)
    elif isinstance(num_groups, bool) or not isinstance(num_groups, int):
        raise ValueError(f"num_groups={num_groups!r}: give an int or None")
    elif num_groups < 1 or num_features % num_groups:
        raise ValueError(f"num_groups={num_groups} does not divide {num_features} channels")
    return nn.GroupNorm(num_groups, num_features, eps, affine, device=device, dtype=dtype)


class InstanceNorm1d(nn.InstanceNorm1d):
    """nn.InstanceNorm1d, but refusing [N, C], which torch takes for a single example [C, L]."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != 3:
            raise ValueError(f"instance norm needs positions: expected 3D input (got {input.dim()}D input)")


def _instance(cls: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def make(
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,  # torch's default is False; every other layer here has gain and bias
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> nn.Module:
        return cls(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)

    return make


INSTANCE = (_instance(InstanceNorm1d), _instance(nn.InstanceNorm2d), _instance(nn.InstanceNorm3d))


def _domain(cls: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def make(
        num_features: int,
        num_domains: int = 2,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        shared_affine: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> nn.Module:
        return cls(
            num_features, num_domains, eps, momentum, affine, shared_affine, device=device, dtype=dtype
        )

    return make


BY_DOMAIN = (DomainSpecificBatchNorm1d, DomainSpecificBatchNorm2d, DomainSpecificBatchNorm3d)
DOMAIN = tuple(map(_domain, BY_DOMAIN))


class Method(NamedTuple):
    """A method is a layer in the place of batch normalisation, or changes other parts of a model."""

    line: str
    paper: str
    equation: str
    make: tuple[Callable[..., nn.Module], ...] = ()  # the layer: (num_features, **options) for dim = 1, 2, 3
    swap: Callable[..., nn.Module] | None = None  # the change: (model, **options), see swap.py
    instead: str | None = None  # with a change: what batch normalisation gives way to; None leaves it
    options_of: Callable[..., nn.Module] | None = None  # whose options a change takes, if not its own
    classes: tuple[str, ...] = ()  # with a change: what it puts in, or the function of norms it is


METHODS = {
    "none": Method("no normalisation: nn.Identity", "-", "y = x", (_none,) * 3),
    "batch": Method(
        "batch normalisation: nn.BatchNorm",
        "Ioffe & Szegedy 2015, arXiv 1502.03167",
        "y = gamma (x - mean_B) / sqrt(var_B + eps) + beta",
        BATCH,
    ),
    "layer": Method(
        "layer normalisation over channels and positions: nn.GroupNorm(1, C); on [N, C] it is nn.LayerNorm",
        "Ba, Kiros & Hinton 2016, arXiv 1607.06450",
        "y = gamma (x - mean) / sqrt(var + eps) + beta, over the channels and positions of an example",
        (_layer,) * 3,
    ),
    "group": Method(
        "group normalisation: nn.GroupNorm, by default with the most groups, up to 32, of 2 or more channels",
        "Wu & He 2018, arXiv 1803.08494",
        "y = gamma (x - mean) / sqrt(var + eps) + beta, over the group and positions of an example",
        (_group,) * 3,
    ),
    "instance": Method(
        "instance normalisation: nn.InstanceNorm with gain and bias; needs positions, so not for [N, C]",
        "Ulyanov, Vedaldi & Lempitsky 2016, arXiv 1607.08022",
        "y = gamma (x - mean) / sqrt(var + eps) + beta, over the positions of an example and channel",
        INSTANCE,
    ),
    "rms": Method(
        "root-mean-square normalisation over channels and positions; on [N, C] it is nn.RMSNorm",
        "Zhang & Sennrich 2019, arXiv 1910.07467",
        "y = gamma x / sqrt(mean(x^2) + eps)",
        (ChannelRMSNorm,) * 3,
    ),
    "diminishing": Method(
        "diminishing batch normalisation: statistics averaged with a weight alpha_m, in three readings",
        "Ma & Klabjan 2017, arXiv 1705.08011",
        "(mu, sigma)' = alpha_m (mu_B, sigma_B) + (1 - alpha_m) (mu, sigma);"
        " y = gamma (x - mu) / (sigma + eps) + beta",
        (DiminishingBatchNorm1d, DiminishingBatchNorm2d, DiminishingBatchNorm3d),
    ),
    "renorm": Method(
        "batch renormalisation: a batch's statistics corrected towards their averages, in widening limits",
        "Ioffe 2017, arXiv 1702.03275",
        "y = gamma ((x - mu_B) / sigma_B r + d) + beta; r = clip(sigma_B / sigma),"
        " d = clip((mu_B - mu) / sigma)",
        (BatchRenorm1d, BatchRenorm2d, BatchRenorm3d),
    ),
    "l1": Method(
        "L1 batch normalisation: the mean absolute deviation in place of the standard deviation",
        "Wu et al. 2018, arXiv 1802.09769",
        "y = gamma (x - mu_B) / (mean|x - mu_B| + eps) + beta",
        (L1BatchNorm1d, L1BatchNorm2d, L1BatchNorm3d),
    ),
    "mean_only": Method(
        "mean-only batch normalisation: centres, and leaves the scale to weight normalisation",
        "Salimans & Kingma 2016, arXiv 1602.07868",
        "y = x - mu_B + beta",
        (MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d, MeanOnlyBatchNorm3d),
    ),
    "frn": Method(
        "filter response normalisation with its thresholded linear unit; needs positions, so not for [N, C]",
        "Singh & Krishnan 2020, arXiv 1911.09737",
        "y = max(gamma x / sqrt(mean(x^2) + eps) + beta, tau)",
        (FilterResponseNorm1d, FilterResponseNorm2d, FilterResponseNorm3d),
    ),
    "dyt": Method(
        "dynamic tanh: gamma tanh(alpha x) + beta, no statistics",
        "Zhu et al. 2025, arXiv 2503.10622",
        "y = gamma tanh(alpha x) + beta",
        (DynamicTanh,) * 3,
    ),
    "domain": Method(
        "batch normalisation with statistics for each of several domains: norms.use_domain chooses one",
        "Chang et al. 2019, arXiv 1906.03950",
        "y = gamma_k (x - mu_k) / sqrt(var_k + eps) + beta_k in domain k",
        DOMAIN,
    ),
    "weight_norm": Method(
        "weight normalisation of Linear and Conv, torch's; of batch normalisation the bias stays",
        "Salimans & Kingma 2016, arXiv 1602.07868",
        "w = g v / |v|",
        swap=swap.weight_norm,
        classes=("weight_norm",),
        instead=swap.BIAS,
    ),
    "centered_weight_norm": Method(
        "centred weight normalisation of Linear and Conv; of batch normalisation the bias stays",
        "Huang et al. 2017, ICCV 2017 (no arXiv number)",
        "w = g (v - mean(v)) / |v - mean(v)|",
        swap=swap.centered_weight_norm,
        classes=("centered_weight_norm", "CenteredWeightNorm"),
        instead=swap.BIAS,
    ),
    "cosine": Method(
        "cosine (or, centred, correlation) in the place of the dot product in Linear and Conv2d",
        "Luo et al. 2017, arXiv 1702.05870",
        "y = w . x / (|w| |x|)",
        swap=swap.cosine,
        classes=("CosineLinear", "CosineConv2d"),
        instead="none",
    ),
    "normprop": Method(
        "normalisation propagation: Linear and Conv2d, each with its activation, in closed form",
        "Arpit et al. 2016, arXiv 1603.01431",
        "y = (act(gamma w . x / |w| + beta) - c2) / c1, c2 and c1 the mean and deviation of act(N(0, 1))",
        swap=swap.normprop,
        classes=("NormPropLinear", "NormPropConv2d"),
        instead="none",
    ),
    "snn": Method(
        "self-normalizing network: SELU, AlphaDropout and their initial values",
        "Klambauer et al. 2017, arXiv 1706.02515",
        "selu(x) = 1.0507 x for x > 0, else 1.7581 (exp(x) - 1); weights from N(0, 1/fan_in)",
        swap=swap.snn,
        classes=("torch.nn.SELU", "torch.nn.AlphaDropout"),
        instead="none",
    ),
    "lstm_batch": Method(
        "batch normalisation of the input part of an LSTM, for each nn.LSTM",
        "Laurent et al. 2016, arXiv 1510.01378",
        "(i, f, g, o) = W_h h + BN(W_x x)",
        swap=swap.lstm_batch,
        options_of=BatchNormLSTM,
        classes=("BatchNormLSTM",),
    ),
    "lstm_recurrent_batch": Method(
        "recurrent batch normalisation, of the input, the hidden part and the cell, for each nn.LSTM",
        "Cooijmans et al. 2016, arXiv 1603.09025",
        "(i, f, g, o) = BN(W_h h) + BN(W_x x) + b, h = s(o) tanh(BN(c))",
        swap=swap.lstm_recurrent_batch,
        options_of=RecurrentBatchNormLSTM,
        classes=("RecurrentBatchNormLSTM",),
    ),
    "lstm_layer": Method(
        "layer normalisation in an LSTM, for each nn.LSTM",
        "Ba, Kiros & Hinton 2016, arXiv 1607.06450",
        "(i, f, g, o) = LN(W_h h) + LN(W_x x) + b, h = s(o) tanh(LN(c))",
        swap=swap.lstm_layer,
        options_of=LayerNormLSTM,
        classes=("LayerNormLSTM",),
    ),
}

# What is neither: (name, line, paper).
PROCEDURES = (
    (
        "adapt_batch_statistics(model, loader), with adapted(model, loader)",
        "AdaBN: batch normalisation with the statistics of the target domain",
        "Li et al. 2016, arXiv 1603.04779",
    ),
    (
        "Coral().fit(source, target), coral_loss",
        "correlation alignment of features, and as a loss",
        "Sun, Feng & Saenko 2016, arXiv 1511.05547; Sun & Saenko 2016, arXiv 1607.01719",
    ),
    (
        "data_dependent_init_(model, batch)",
        "start of weight-normalised layers: pre-activations of mean 0, variance 1",
        "Salimans & Kingma 2016, arXiv 1602.07868",
    ),
    (
        "GrassmannSGD, GrassmannAdam, grassmann_parameters, orthogonality_penalty",
        "optimisers for the weights in front of batch normalisation, on the unit sphere",
        "Cho & Lee 2017, arXiv 1709.09603",
    ),
    (
        "with norms.use_domain(model, k)",
        "the domain k of every domain-specific layer of the model, inside the block",
        "Chang et al. 2019, arXiv 1906.03950",
    ),
    (
        "parse_alpha(alpha)",
        "scale and power of diminishing batch normalisation's alpha",
        "Ma & Klabjan 2017, arXiv 1705.08011",
    ),
    (
        "GlobalDataNormalization.of(data), BatchDataNormalization(shape)",
        "the input of a network of NormProp layers, normalised over the training set or the batch",
        "Arpit et al. 2016, arXiv 1603.01431",
    ),
    (
        "unit_norm_(model), activation_constants(activation)",
        "NormProp's filters back to length 1 after a step; mean and deviation of an activation of N(0, 1)",
        "Arpit et al. 2016, arXiv 1603.01431",
    ),
    (
        "self_normalizing, lecun_normal_",
        "a self-normalizing network, and its initial values",
        "Klambauer et al. 2017, arXiv 1706.02515",
    ),
    (
        "selu_moments, selu_jacobian",
        "the map of mean and variance through a self-normalizing layer",
        "Klambauer et al. 2017, arXiv 1706.02515",
    ),
)
# The values of options that are words, as the layers' errors list them.
CHOICES = {
    "alpha": ("a number in [0, 1]", "inv_m", "inv_m2", "inv_m<p>"),
    "reading": READINGS,
    "initial": INITIALS,
    "average": tuple(AVERAGES),
    "eps_in": EPS_IN,
    "statistics": ("frame", "sequence"),
    "evaluation": ("running", "mixture"),
}
# Layers that `convert` knows by their class, whoever built them, of each `dim`.
OF_DIM: dict[int, tuple[type[nn.Module], ...]] = {dim: (BY_DOMAIN[dim - 1],) for dim in (1, 2, 3)}
for _method in METHODS.values():
    if len(set(_method.make)) == 3:  # not one class for all
        for _dim, _cls in enumerate(_method.make, start=1):
            if isinstance(_cls, type):
                OF_DIM[_dim] += (_cls,)
NOT_OPTIONS = {"num_features", "model", "device", "dtype", *inspect.signature(nn.LSTM.__init__).parameters}
NOT_OPTIONS |= {"input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"}


def names() -> dict[str, str]:
    """Every method by name, with one line each."""
    return {name: method.line for name, method in METHODS.items()}


def classes(name: str) -> tuple[str, ...]:
    """What a method is made of: names in norms, or with torch.nn in front. For a layer of 1d, 2d and 3d."""
    method = METHODS[name]
    if not method.make:
        return method.classes
    kinds = dict.fromkeys(type(build(name, 2, dim)) for dim in (1, 2, 3))
    return tuple(f"torch.nn.{k.__name__}" if hasattr(nn, k.__name__) else k.__name__ for k in kinds)


def options(name: str) -> dict[str, Any]:
    """The options of a method and their defaults, without device and dtype, which all take."""
    _check_name(name)
    if name not in METHODS:
        raise ValueError(f"unknown norm {name!r}: choose one of {', '.join(METHODS)}")
    method = METHODS[name]
    source: Any = method.make[0] if method.make else method.options_of or method.swap
    parameters = inspect.signature(source).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in NOT_OPTIONS}


def build(name: str, num_features: int, dim: int = 1, **options: Any) -> nn.Module:
    """A normalisation layer for inputs [N, C, ...] with C = `num_features`.

    Args:
        name: one of `names()`, or the dotted path "package.module.Class" of a layer of your own, which is
            called as ``Class(num_features, **options)``.
        num_features: C.
        dim: the number of positional dimensions: 1 for [N, C] and [N, C, L], 2 for [N, C, H, W], 3 for
            [N, C, D, H, W]. A layer of your own is not told.
        options: of the method (`python -m norms` lists them), and device and dtype.

    Raises:
        ValueError: an unknown name, a class that cannot be imported, an option or value that the layer does
            not take; one line.
    """
    _check_name(name)
    if dim not in (1, 2, 3):
        raise ValueError(f"norm {name!r}: dim={dim!r}, choose 1, 2 or 3")
    if isinstance(num_features, bool) or not isinstance(num_features, int) or num_features < 1:
        raise ValueError(f"norm {name!r}: num_features={num_features!r}, give a number of channels from 1")
    if name in METHODS and not METHODS[name].make:
        raise ValueError(
            f"norm {name!r} is no layer after another ({METHODS[name].line}): norms.convert(model, {name!r})"
        )
    make = METHODS[name].make[dim - 1] if name in METHODS else _own(name)
    if name in METHODS:
        _check_options(name, options, "device", "dtype")
    layer = _call(name, make, num_features, **options)
    if not isinstance(layer, nn.Module):
        raise ValueError(f"norm {name!r} gives a {type(layer).__name__}, not a torch.nn.Module")
    layer.__dict__["_norm_of"] = (num_features, dim)  # by which convert() knows what to put in its place
    return layer


def _check_options(name: str, given: dict[str, Any], *others: str) -> None:
    known = [*options(name), *others]
    unknown = ", ".join(key for key in given if key not in known)
    if unknown:
        raise ValueError(f"norm {name!r} has no option {unknown}; it has {', '.join(known) or 'none'}")
    _check_values(name, given)


def _check_values(name: str, given: dict[str, Any]) -> None:
    """What torch's own layers would take without a word, and fail on or compute nonsense with later."""
    defaults = options(name)
    for key, value in given.items():
        if isinstance(defaults.get(key), bool) and not isinstance(value, bool):
            raise ValueError(f"norm {name!r}: {key}={value!r}: give True or False")
    # Whether momentum may be None a layer says itself, and what an eps on weights may be.
    own_eps = METHODS[name].swap is not None or (given.get("eps") is None and defaults.get("eps", 0) is None)
    eps = 1.0 if own_eps else given.get("eps", 1.0)
    momentum = 0.1 if given.get("momentum") is None else given["momentum"]
    _call(name, check_options, eps, momentum)


def _call(name: str, function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """What the function returns; what it raises over its arguments as a ValueError of one line."""
    try:
        return function(*args, **options)
    except (ValueError, TypeError, RuntimeError) as error:
        line = str(error).strip().partition("\n")[0] or type(error).__name__
        prefix = f"norm {name!r}: "
        raise ValueError(prefix + line.removeprefix(prefix)) from error


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise ValueError(f"norm {name!r}: give a name or dotted path (package.module.Class), as a str")


def _own(path: str) -> Callable[..., nn.Module]:
    module, _, attribute = str(path).rpartition(".")
    if not module:
        has = ", ".join(METHODS)
        raise ValueError(f"unknown norm {path!r}: choose one of {has}, or give package.module.Class")
    try:
        own: Callable[..., nn.Module] = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"norm {path!r} cannot be imported: {error}") from error
    return own


def convert(model: nn.Module, name: str, **options: Any) -> nn.Module:
    """Put ``build(name, ...)`` in the place of every BatchNorm1d/2d/3d of `model`, of every layer of this
    package whose name ends in 1d, 2d or 3d, and of every layer `build` made; or, for a method that is no such
    layer (weight normalisation, an LSTM), change what it changes. Torch's other normalisers stay.

    In place, and returns the model (the new layer, if the model is itself such a layer). Gamma and beta are
    kept where both layers have them, as are device, dtype, requires_grad and train/eval mode. Running
    statistics are not: the new layer starts with its own. A layer used in two places stays one layer. What a
    subclass of BatchNorm holds as children (timm's BatchNormAct2d: dropout, activation) follows the new layer
    in an nn.Sequential.

    The new layer has its own defaults of eps, momentum and the like, not those of the old one: give them as
    options.

    The methods that change other parts of the model:

    - weight_norm, centered_weight_norm: every Linear and Conv; of batch normalisation the bias stays. Put
      `weight_norm` behind a conversion to "mean_only" for the two together:
      ``norms.weight_norm(norms.convert(model, "mean_only"))``.
    - cosine: every Linear and Conv2d but the last layer, which changes only with ``last=True``. The changed
      layers lose their biases, and batch normalisation goes.
    - normprop: every Linear and Conv2d that an activation module follows in an nn.Sequential, together with
      that activation; only the last may have none. Batch normalisation goes; gamma and beta start anew.
    - snn: SELU for the activation modules of the ReLU family, AlphaDropout for Dropout; batch normalisation
      goes, and all weights are drawn anew. Functional calls such as F.relu cannot be seen.
    - lstm_...: every nn.LSTM. Weights are kept; biases start at 0 if they are not those of nn.LSTM.

    A `BatchDataNormalization` normalises the input and is left alone.

    Args:
        model: any module.
        name: one of `names()`, or a dotted path, as in `build`.
        options: of the method; not num_features and dim, which are those of each old layer.

    Raises:
        ValueError: as `build`; a model without what the method acts on (for a layer, batch normalisation; for
            another, weights, activations or LSTMs); for cosine and normprop, a layer that they cannot change
            and that would lose its normaliser; a model with nn.SyncBatchNorm, which does not say of how many
            dimensions its input is, or with lazy layers of batch normalisation. The model is then unchanged.
        TypeError: a model that is no nn.Module.
    """
    _check_convertible(model, name, options)
    method = METHODS.get(name)
    if method is None or method.swap is None:
        if not _normalisers(model):
            raise ValueError(
                f"norm {name!r}: the model has no batch normalisation layer to put it in the place of"
            )
        return _exchange(model, name, options)
    if name in swap.OWN:
        swap.refuse_left_plain(model, name, _normalisers(model), options.get("last", False))
    changed: nn.Module = _call(name, method.swap, model, **options)
    return changed if method.instead is None else _exchange(changed, method.instead, {})


def _exchange(model: nn.Module, name: str, options: dict[str, Any]) -> nn.Module:
    replacements = {
        module: _replacement(module, num_features, dim, name, options, model)
        for module, (num_features, dim) in _normalisers(model).items()
    }
    return swap.replace(model, replacements)


def _check_convertible(model: nn.Module, name: str, options: dict[str, Any]) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: expected a torch.nn.Module as the model, got {type(model).__name__}")
    _check_name(name)
    for key in ("num_features", "dim"):
        if key in options:
            raise ValueError(f"norm {name!r}: {key} is no option here: a new layer has that of the old one")
    if name in METHODS:
        _check_options(name, options, *(("device", "dtype") if METHODS[name].make else ()))
    else:
        _own(name)
    for path, module in model.named_modules():
        if isinstance(module, nn.SyncBatchNorm):
            raise ValueError(
                f"norm {name!r}: {path or 'the model'} is nn.SyncBatchNorm, whose input could be of any"
                " dimensions: convert first, then nn.SyncBatchNorm.convert_sync_batchnorm"
            )
        if isinstance(module, nn.modules.batchnorm._LazyNormBase):
            raise ValueError(
                f"norm {name!r}: {path or 'the model'} is a lazy layer: call the model once before"
            )


def _normalisers(model: nn.Module) -> dict[nn.Module, tuple[int, int]]:
    """Its layers to be exchanged, with `_made` of each."""
    return {module: made for module in model.modules() if (made := _made(module)) is not None}


def _made(module: nn.Module) -> tuple[int, int] | None:
    """(num_features, dim) of a layer to be exchanged."""
    made: tuple[int, int] | None = module.__dict__.get("_norm_of")
    if made is not None or isinstance(module, BatchDataNormalization):  # which normalises the input
        return made
    for dim, classes in OF_DIM.items():
        if isinstance(module, classes):
            features: Any = module.num_features
            return int(features), dim
    return None


def _replacement(
    old: nn.Module, num_features: int, dim: int, name: str, options: dict[str, Any], model: nn.Module
) -> nn.Module:
    tensors = [*old.parameters(), *old.buffers(), *model.parameters(), *model.buffers(), torch.empty(0)]
    like = next(t for t in tensors if t.is_floating_point())
    if name in METHODS:
        new = build(name, num_features, dim, **{"device": like.device, "dtype": like.dtype, **options})
    else:
        new = build(name, num_features, dim, **options).to(like.device, like.dtype)
    with torch.no_grad():
        for key in ("weight", "bias"):
            source, target = getattr(old, key, None), getattr(new, key, None)
            if isinstance(source, Tensor) and isinstance(target, Tensor) and source.shape == target.shape:
                target.copy_(source).requires_grad_(source.requires_grad)
    # Of torch's layers only: what our own hold is of their making.
    extra = list(old.children()) if isinstance(old, BATCH) and "_norm_of" not in old.__dict__ else []
    return (nn.Sequential(new, *extra) if extra else new).train(old.training)
