"""One map from names to layers, and the exchange of the layers of an existing model."""
from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from norms.diminishing import DiminishingBatchNorm1d, DiminishingBatchNorm2d, DiminishingBatchNorm3d
from norms.rms import ChannelRMSNorm

BATCH = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
DIMINISHING = (DiminishingBatchNorm1d, DiminishingBatchNorm2d, DiminishingBatchNorm3d)


class InstanceNorm1d(nn.InstanceNorm1d):
    """nn.InstanceNorm1d that refuses [N, C], which torch would take for one example [C, L]."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != 3:
            raise ValueError(f"instance normalisation needs positions: expected [N, C, L] (got {input.dim()}D input)")


INSTANCE = (InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)


def _none(num_features: int, dim: int, *, device: Any = None, dtype: Any = None) -> nn.Module:
    return nn.Identity()


def _batch(
    num_features: int, dim: int, *, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
    track_running_stats: bool = True, device: Any = None, dtype: Any = None,
) -> nn.Module:
    return BATCH[dim - 1](num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)


def _layer(
    num_features: int, dim: int, *, eps: float = 1e-5, affine: bool = True, device: Any = None, dtype: Any = None
) -> nn.Module:
    return nn.GroupNorm(1, num_features, eps, affine, device=device, dtype=dtype)


def _group(
    num_features: int, dim: int, *, num_groups: int | None = None, eps: float = 1e-5, affine: bool = True,
    device: Any = None, dtype: Any = None,
) -> nn.Module:
    if num_groups is None:
        num_groups = max(g for g in range(1, 33) if num_features % g == 0 and (2 * g <= num_features or g == 1))
    elif num_groups < 1 or num_features % num_groups:
        raise ValueError(f"norm 'group': num_groups={num_groups} does not divide the {num_features} channels")
    return nn.GroupNorm(num_groups, num_features, eps, affine, device=device, dtype=dtype)


def _instance(
    num_features: int, dim: int, *, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
    track_running_stats: bool = False, device: Any = None, dtype: Any = None,
) -> nn.Module:
    return INSTANCE[dim - 1](num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)


def _rms(
    num_features: int, dim: int, *, eps: float | None = None, affine: bool = True, device: Any = None, dtype: Any = None
) -> nn.Module:
    return ChannelRMSNorm(num_features, eps, affine, device=device, dtype=dtype)


def _diminishing(
    num_features: int, dim: int, *, eps: float = 1e-4, alpha: float | str = 0.1, affine: bool = True,
    reading: str = "C", initial: str = "zero_one", average: str | None = None, eps_in: str | None = None,
    period: int = 1, correction: int = 0, device: Any = None, dtype: Any = None,
) -> nn.Module:
    return DIMINISHING[dim - 1](
        num_features, eps, alpha, affine, reading, initial, average, eps_in, period, correction, device, dtype
    )


class Method(NamedTuple):
    make: Callable[..., nn.Module]
    line: str
    paper: str


METHODS = {
    "none": Method(_none, "no normalisation (nn.Identity)", "-"),
    "batch": Method(_batch, "batch normalisation (nn.BatchNorm)", "Ioffe & Szegedy 2015, arXiv 1502.03167"),
    "layer": Method(_layer, "layer normalisation over channels and positions of an example (nn.GroupNorm with one group; on [N, C] "
                    "the same as nn.LayerNorm)", "Ba, Kiros & Hinton 2016, arXiv 1607.06450"),
    "group": Method(_group, "group normalisation (nn.GroupNorm; by default the most groups, at most 32, of two or more channels)",
                    "Wu & He 2018, arXiv 1803.08494"),
    "instance": Method(_instance, "instance normalisation (nn.InstanceNorm with gain and bias; needs positions)",
                       "Ulyanov, Vedaldi & Lempitsky 2016, arXiv 1607.08022"),
    "rms": Method(_rms, "root-mean-square normalisation over channels and positions of an example, gain per channel",
                  "Zhang & Sennrich 2019, arXiv 1910.07467"),
    "diminishing": Method(_diminishing, "diminishing batch normalisation: statistics averaged with weight alpha_m",
                          "Ma & Klabjan 2017, arXiv 1705.08011"),
}


def names() -> dict[str, str]:
    """Every method by name, with one line each."""
    return {name: method.line for name, method in METHODS.items()}


def options(name: str) -> dict[str, Any]:
    """The options of a method with their defaults (without device and dtype)."""
    parameters = inspect.signature(METHODS[name].make).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in ("device", "dtype")}


def build(name: str, num_features: int, dim: int = 1, **options: Any) -> nn.Module:
    """A normalisation layer for inputs [N, C, ...] with C = `num_features`.

    Args:
        name: one of `names()`, or the dotted path "package.module.Class" of a layer of your own, which is then
            called as ``Class(num_features, **options)``.
        num_features: C.
        dim: the number of positional dimensions: 1 for [N, C] or [N, C, L], 2 for [N, C, H, W], 3 for [N, C, D, H, W].
        options: of the method (`python -m norms` lists them), plus device and dtype.

    Raises:
        ValueError: unknown name, option or value; one line.
    """
    if dim not in (1, 2, 3):
        raise ValueError(f"norm {name!r}: dim={dim!r}, choose 1, 2 or 3")
    if name in METHODS:
        known = inspect.signature(METHODS[name].make).parameters
        unknown = [key for key in options if key not in known or key in ("num_features", "dim")]
        if unknown:
            has = ", ".join(key for key in known if key not in ("num_features", "dim"))
            raise ValueError(f"norm {name!r} has no option {', '.join(unknown)} (it has: {has})")
        layer = METHODS[name].make(num_features, dim, **options)
    else:
        layer = _own(name)(num_features, **options)
    layer._norm_of = (num_features, dim)  # type: ignore[assignment]  # what convert() needs to exchange it again
    return layer


def _own(path: str) -> Callable[..., nn.Module]:
    module, dot, attribute = str(path).rpartition(".")
    if not dot:
        raise ValueError(f"unknown norm {path!r}: choose one of {', '.join(METHODS)}, or give a dotted path to a class")
    try:
        return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"norm {path!r} cannot be imported: {error}") from error


def convert(model: nn.Module, name: str, **options: Any) -> nn.Module:
    """Exchange every BatchNorm1d/2d/3d of `model`, and every layer made by `build`, for ``build(name, ...)``.

    In place; returns the model (a new layer if the model is itself one). Gamma and beta are kept where both layers have
    them, as are device, dtype and train/eval mode. Running statistics are not: the new layer starts from its own.
    A layer used in several places stays one layer. What a subclass of BatchNorm adds as children (timm's
    BatchNormAct2d: dropout and activation) follows the new layer in an nn.Sequential.
    """
    fallback = next((t for t in [*model.parameters(), *model.buffers()] if t.is_floating_point()), torch.empty(0))
    done: dict[int, nn.Module] = {}

    def exchange(module: nn.Module) -> nn.Module:
        if id(module) not in done:
            made = _features(module)
            done[id(module)] = module if made is None else _replacement(module, made, name, options, fallback)
            if made is None:
                for key, child in list(module._modules.items()):
                    if child is not None:
                        module._modules[key] = exchange(child)
        return done[id(module)]

    return exchange(model)


def _features(module: nn.Module) -> tuple[int, int] | None:
    """(num_features, dim) of a layer that convert() exchanges."""
    made = module.__dict__.get("_norm_of")
    if made is not None:
        return made  # type: ignore[no-any-return]
    for dim, cls in enumerate(BATCH, start=1):
        if isinstance(module, cls):
            return module.num_features, dim
    return None


def _replacement(
    old: nn.Module, made: tuple[int, int], name: str, options: dict[str, Any], fallback: Tensor
) -> nn.Module:
    like = next((t for t in [*old.parameters(), *old.buffers()] if t.is_floating_point()), fallback)
    if name in METHODS:
        new = build(name, *made, **{"device": like.device, "dtype": like.dtype, **options})
    else:
        new = build(name, *made, **options).to(like.device, like.dtype)
    new.train(old.training)
    with torch.no_grad():
        for key in ("weight", "bias"):
            source, target = getattr(old, key, None), getattr(new, key, None)
            if source is not None and target is not None and source.shape == target.shape:
                target.copy_(source)
                target.requires_grad_(source.requires_grad)
    children = [] if "_norm_of" in old.__dict__ else list(old.children())
    return nn.Sequential(new, *children).train(old.training) if children else new
