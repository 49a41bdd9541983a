"""One map from names to layers, and the exchange of the normalisation layers of an existing model."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from norms.diminishing import DiminishingBatchNorm1d, DiminishingBatchNorm2d, DiminishingBatchNorm3d
from norms.dyt import DynamicTanh
from norms.frn import FilterResponseNorm1d, FilterResponseNorm2d, FilterResponseNorm3d
from norms.l1 import L1BatchNorm1d, L1BatchNorm2d, L1BatchNorm3d
from norms.mean_only import MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d, MeanOnlyBatchNorm3d
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
    elif num_groups < 1 or num_features % num_groups:
        raise ValueError(f"norm 'group': num_groups={num_groups} does not divide {num_features} channels")
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


class Method(NamedTuple):
    line: str
    paper: str
    make: tuple[Callable[..., nn.Module], ...]  # (num_features, **options) for dim = 1, 2, 3


METHODS = {
    "none": Method("no normalisation: nn.Identity", "-", (_none,) * 3),
    "batch": Method("batch normalisation: nn.BatchNorm", "Ioffe & Szegedy 2015, arXiv 1502.03167", BATCH),
    "layer": Method(
        "layer normalisation over channels and positions: nn.GroupNorm(1, C); on [N, C] it is nn.LayerNorm",
        "Ba, Kiros & Hinton 2016, arXiv 1607.06450",
        (_layer,) * 3,
    ),
    "group": Method(
        "group normalisation: nn.GroupNorm, by default with the most groups, up to 32, of 2 or more channels",
        "Wu & He 2018, arXiv 1803.08494",
        (_group,) * 3,
    ),
    "instance": Method(
        "instance normalisation: nn.InstanceNorm with gain and bias; needs positions, so not for [N, C]",
        "Ulyanov, Vedaldi & Lempitsky 2016, arXiv 1607.08022",
        INSTANCE,
    ),
    "rms": Method(
        "root-mean-square normalisation over channels and positions; on [N, C] it is nn.RMSNorm",
        "Zhang & Sennrich 2019, arXiv 1910.07467",
        (ChannelRMSNorm,) * 3,
    ),
    "diminishing": Method(
        "diminishing batch normalisation: statistics averaged with a weight alpha_m, in three readings",
        "Ma & Klabjan 2017, arXiv 1705.08011",
        (DiminishingBatchNorm1d, DiminishingBatchNorm2d, DiminishingBatchNorm3d),
    ),
    "renorm": Method(
        "batch renormalisation: a batch's statistics corrected towards their averages, in widening limits",
        "Ioffe 2017, arXiv 1702.03275",
        (BatchRenorm1d, BatchRenorm2d, BatchRenorm3d),
    ),
    "l1": Method(
        "L1 batch normalisation: the mean absolute deviation in place of the standard deviation",
        "Wu et al. 2018, arXiv 1802.09769",
        (L1BatchNorm1d, L1BatchNorm2d, L1BatchNorm3d),
    ),
    "mean_only": Method(
        "mean-only batch normalisation: centres, and leaves the scale to weight normalisation",
        "Salimans & Kingma 2016, arXiv 1602.07868",
        (MeanOnlyBatchNorm1d, MeanOnlyBatchNorm2d, MeanOnlyBatchNorm3d),
    ),
    "frn": Method(
        "filter response normalisation with its thresholded linear unit; needs positions, so not for [N, C]",
        "Singh & Krishnan 2020, arXiv 1911.09737",
        (FilterResponseNorm1d, FilterResponseNorm2d, FilterResponseNorm3d),
    ),
    "dyt": Method(
        "dynamic tanh: gamma tanh(alpha x) + beta, no statistics",
        "Zhu et al. 2025, arXiv 2503.10622",
        (DynamicTanh,) * 3,
    ),
}


def names() -> dict[str, str]:
    """Every method by name, with one line each."""
    return {name: method.line for name, method in METHODS.items()}


def options(name: str) -> dict[str, Any]:
    """The options of a method and their defaults, without device and dtype, which all take."""
    if name not in METHODS:
        raise ValueError(f"unknown norm {name!r}: choose one of {', '.join(METHODS)}")
    parameters = inspect.signature(METHODS[name].make[0]).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("num_features", "device", "dtype")}


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
    if dim not in (1, 2, 3):
        raise ValueError(f"norm {name!r}: dim={dim!r}, choose 1, 2 or 3")
    make = METHODS[name].make[dim - 1] if name in METHODS else _own(name)
    if name in METHODS:
        known = [key for key in inspect.signature(make).parameters if key != "num_features"]
        unknown = ", ".join(key for key in options if key not in known)
        if unknown:
            raise ValueError(f"norm {name!r} has no option {unknown}; it has {', '.join(known)}")
    try:
        layer = make(num_features, **options)
    except TypeError as error:
        raise ValueError(f"norm {name!r}: {error}") from error
    if not isinstance(layer, nn.Module):
        raise ValueError(f"norm {name!r} gives a {type(layer).__name__}, not a torch.nn.Module")
    layer.__dict__["_norm_of"] = (num_features, dim)  # by which convert() knows what to put in its place
    return layer


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
    """Put ``build(name, ...)`` in the place of every BatchNorm1d/2d/3d of `model` and of every layer `build`
    made.

    In place, and returns the model (the new layer, if the model is itself such a layer). Gamma and beta are
    kept where both layers have them, as are device, dtype, requires_grad and train/eval mode. Running
    statistics are not: the new layer starts with its own. A layer used in two places stays one layer. What a
    subclass of BatchNorm holds as children (timm's BatchNormAct2d: dropout, activation) follows the new layer
    in an nn.Sequential.

    Raises:
        ValueError: as `build`; the model is then unchanged.
    """
    replacements = {
        module: _replacement(module, *made, name, options, model)
        for module in model.modules()
        if (made := _made(module)) is not None
    }
    for parent in list(model.modules()):
        for key, child in parent._modules.items():
            if child in replacements and parent not in replacements:
                parent._modules[key] = replacements[child]
    return replacements.get(model, model)


def _made(module: nn.Module) -> tuple[int, int] | None:
    """(num_features, dim) of a layer to be exchanged."""
    made: tuple[int, int] | None = module.__dict__.get("_norm_of")
    if made is None:
        for dim, cls in enumerate(BATCH, start=1):
            if isinstance(module, cls):
                return module.num_features, dim
    return made


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
    extra = [] if "_norm_of" in old.__dict__ else list(old.children())
    return (nn.Sequential(new, *extra) if extra else new).train(old.training)
