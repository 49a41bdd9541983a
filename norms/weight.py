"""Methods on weights: weight normalisation with its data-dependent start (Salimans & Kingma, arXiv
1602.07868) and centred weight normalisation (Huang et al., ICCV 2017).

Weight normalisation itself is torch's: torch.nn.utils.parametrizations.weight_norm. What torch leaves out is
the start from a batch (it sets g = ||v||, so that the wrapped layer computes what it did before).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.utils.data import DataLoader, Dataset

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)

Model = TypeVar("Model", bound=nn.Module)


def _plain(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Those of LAYERS in the module, which may be one itself. Derived classes are left alone, as they may use
    their weight in another way; so are parametrised layers, whose classes are derived too.
    """
    found = [(name or type(m).__name__, m) for name, m in module.named_modules() if type(m) in LAYERS]
    if not found:
        raise ValueError(
            f"{type(module).__name__} holds no Linear, Conv or ConvTranspose layer to normalise (derived"
            " classes and layers with a parametrization are left alone)"
        )
    yield from found


def _unit_dim(name: str, layer: Any) -> int:
    """The dimension of the weight that counts output units."""
    if not isinstance(layer, TRANSPOSED):
        return 0
    if layer.groups != 1:
        raise ValueError(f"{name}: no dimension of its weight counts the output units of a transposed"
                         f" convolution with groups={layer.groups}")  # fmt: skip
    return 1


def _register(module: Model, register: Callable[[nn.Module, int], Any]) -> Model:
    layers = [(layer, _unit_dim(name, layer)) for name, layer in _plain(module)]  # refuse before any change
    for layer, dim in layers:
        register(layer, dim)
    return module


def weight_norm(module: Model) -> Model:
    r"""Weight normalisation (Salimans & Kingma, arXiv 1602.07868, eq. 2) as torch has it, on the weight of
    every Linear, Conv1d-3d and ConvTranspose1d-3d in the module, in place, with one g per output unit.

    .. math:: w = g \, v / \lVert v \rVert

    For transposed convolutions that is ``dim=1``. The layers compute what they did before; for the start of
    the paper call `data_dependent_init_` afterwards. Left alone: layers of derived classes, and layers that
    have a parametrization already. Weights shared between layers are so no longer.

    A torch parametrization, hence (as torch has it) not pickled whole: save the state_dict. In torch 2.14 the
    second derivative of the native kernel is wrong where ``dim=0`` (its gradcheck holds, its gradgradcheck
    does not): do not use it under a gradient penalty.

    Returns:
        The module.

    Raises:
        ValueError: nothing to normalise, as in a layer that has a parametrization already; a transposed
            convolution with groups.
    """

    def register(layer: nn.Module, dim: int) -> None:
        parametrizations.weight_norm(layer, dim=dim)

    return _register(module, register)


# ---- the start from a batch -------------------------------------------------------------------------------


def _weight_normed(model: nn.Module) -> dict[nn.Module, str]:
    """The layers that carry torch's weight_norm, with their names."""
    found: dict[nn.Module, str] = {}
    for name, layer in model.named_modules():
        if not (isinstance(layer, LAYERS) and parametrize.is_parametrized(layer, "weight")):
            continue
        norms: Any = layer.parametrizations["weight"]  # type: ignore[index]
        if not any(isinstance(norm, parametrizations._WeightNorm) for norm in norms):
            continue
        name = name or type(layer).__name__
        dim = _unit_dim(name, layer)
        if len(norms) != 1 or norms[0].dim != dim:
            raise ValueError(f"{name}: expected weight_norm(dim={dim}) alone, one g per output unit")
        found[layer] = name
    if not found:
        raise ValueError(f"{type(model).__name__} holds no Linear or Conv layer with weight_norm")
    return found


@torch.no_grad()
def data_dependent_init_(
    model: Model, *inputs: Any, std: float | None = 0.05, generator: torch.Generator | None = None
) -> Model:
    r"""Starts the weight-normalised layers of a model from one batch (Salimans & Kingma, arXiv 1602.07868,
    section 3).

    For every Linear, Conv1d-3d and ConvTranspose1d-3d with torch's ``weight_norm`` (one g per output unit, as
    `weight_norm` registers it), in the order of the forward pass:

    .. math::
        v \sim N(0, 0.05^2), \qquad t = v \cdot x / \lVert v \rVert, \qquad g = 1 / \sigma[t], \qquad
        b = -\mu[t] / \sigma[t]

    with mean and population standard deviation over the batch and, in convolutions, the positions. So each
    unit's pre-activation has mean 0 and variance 1 on this batch; later layers see the output of earlier ones
    as already started. Without a bias there is only g, and the mean stays :math:`\mu[t] / \sigma[t]`: right
    where a mean-only batch normalisation follows.

    This takes one call ``model(*inputs)`` without gradients, in the mode (training or evaluation) that the
    model is in, so with dropout and batch statistics in training. Nothing but v, g and b of these layers is
    different afterwards: buffers (running statistics) and the state of torch's random numbers are put back,
    the draws of v apart. A layer called more than once starts from its first call. For models on one device,
    before they are copied to several processes.

    Nothing is added to the standard deviation (nor is it in the authors' Lasagne code; 1e-8 in their
    TensorFlow code): a unit that is constant over the batch is refused. With a random v that means a constant
    input of the layer: a batch of equal examples, or a single one.

    Args:
        model: any module.
        *inputs: what it is called with: one batch, best drawn at random from the training set; no loader.
        std: standard deviation of the draws of v, above 0; None leaves v as it is. The scale of v has no
            effect on the output, but sets how fast its direction learns.
        generator: source of the draws of v; None takes torch's global one.

    Returns:
        The model.

    Raises:
        ValueError: no layer with weight_norm, or one not per output unit; a layer that the call does not
            reach; a unit that is constant or not finite over the batch; an empty batch; a bad std. The model
            is then as it was.
        TypeError: a DataLoader, Dataset or iterator for a batch.
    """
    _check_batch(inputs, std)
    layers = _weight_normed(model)
    device = next(model.parameters()).device
    parts = {layer: _parts(layer) for layer in layers}
    old = [(p, p.clone()) for three in parts.values() for p in three if p is not None]
    buffers = [(m, name, b, b.clone()) for m in model.modules() for name, b in m._buffers.items()
               if b is not None]  # fmt: skip
    waiting = dict(layers)

    def hook(layer: nn.Module, args: Any, t: Tensor) -> Tensor | None:
        if waiting.pop(layer, None) is None:
            return None
        g, v, bias = parts[layer]
        column = [-1, *[1] * (v.dim() - 2)]  # units are dimension 1 - v.dim() of t, with a batch or without
        wide = t if t.dtype == torch.float64 else t.float()
        dims = [d for d in range(t.dim()) if d != t.dim() + 1 - v.dim()]
        var, mean = torch.var_mean(wide, dims, correction=0)
        sigma = var.sqrt()
        # Equal inputs may differ in rounding by the time they are here.
        moves = (sigma > 4 * torch.finfo(t.dtype).eps * mean.abs().max()) & sigma.isfinite()
        if not moves.all():
            units = (~moves).nonzero().flatten().tolist()
            some = ", ".join(map(str, units[:5])) + (", ..." if len(units) > 5 else "")
            raise ValueError(f"layer {layers[layer]}: units {some} are constant or not finite over the batch")
        g.copy_((1 / sigma).view_as(g))
        if bias is not None:
            bias.copy_(-mean / sigma)
            wide = wide - mean.view(column)
        return (wide / sigma.view(column)).to(t.dtype)

    # First among the layer's hooks, so that the others see the output of the started layer.
    handles = [layer.register_forward_hook(hook, prepend=True) for layer in layers]
    try:
        for g, v, bias in parts.values():
            if std is not None:
                v.normal_(0, std, generator=generator)
            g.fill_(1)
            if bias is not None:
                bias.zero_()
        devices, kind = ([], "cuda") if device.type == "cpu" else ([device], device.type)
        with torch.random.fork_rng(devices, device_type=kind):
            model(*inputs)
        if waiting:
            raise ValueError(f"not reached by the forward pass: {', '.join(waiting.values())}")
    except BaseException:
        for p, value in old:
            p.copy_(value)
        raise
    finally:
        for handle in handles:
            handle.remove()
        for m, name, buffer, value in buffers:
            m._buffers[name] = buffer.copy_(value)
    return model


def _check_batch(inputs: tuple[Any, ...], std: Any) -> None:
    for x in inputs:
        if isinstance(x, DataLoader | Dataset | Iterator):
            kind = type(x).__name__
            raise TypeError(
                f"data_dependent_init_: give one batch, not a {kind} (next(iter(loader)) has one)"
            )
    if inputs and isinstance(inputs[0], Tensor) and inputs[0].dim() and len(inputs[0]) == 0:
        raise ValueError(f"data_dependent_init_: the batch is empty (size {list(inputs[0].shape)})")
    number = isinstance(std, float | int) and not isinstance(std, bool)
    if std is not None and not (number and 0 < std < math.inf):
        raise ValueError(f"std={std!r}: give None or a number above 0")


def _parts(layer: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    """g, v and the bias."""
    weight = layer.parametrizations["weight"]
    return weight.original0, weight.original1, layer.bias


# ---- centred weight normalisation -------------------------------------------------------------------------


class CenteredWeightNorm(nn.Module):
    r"""Centred weight normalisation (Huang et al., ICCV 2017) as a parametrization for
    ``torch.nn.utils.parametrize.register_parametrization``; `centered_weight_norm` does that.

    .. math::
        w = g \, \frac{v - \mathrm{mean}(v)}{\lVert v - \mathrm{mean}(v) \rVert + \epsilon}

    per output unit, with mean and norm over all that a unit has (in convolutions, input channels of its group
    and window). So the entries of a unit's w sum to 0 and its norm is g (but for :math:`\epsilon`): for an
    input of equal means the pre-activation has mean 0, and for one of covariance :math:`s^2 I` variance
    :math:`g^2 s^2`. The gradient with respect to v sums to 0 and, but for :math:`\epsilon`, is orthogonal to
    w. :math:`\epsilon` and the fixed :math:`g = \sqrt 2` (which makes up for a ReLU) are those of the
    authors' PyTorch code; in their Lua code g is 1. A unit whose v is constant has w = 0.

    Assigning to the parametrised weight sets v: it keeps g, and of what is assigned only the direction, less
    its mean.

    Args:
        num_units: output units, needed only if g is learned; may be None otherwise.
        scale: g, or its initial value.
        learnable: learn one g per unit (the parameter ``scale``).
        dim: dimension of the weight that counts output units: 1 in transposed convolutions, else 0.
        eps: epsilon, 0 or more.
        device, dtype: of the parameter.

    Raises:
        ValueError: a bad option; a weight with one entry a unit, which centring would leave at 0.
    """

    def __init__(
        self,
        num_units: int | None = None,
        scale: float = math.sqrt(2),
        learnable: bool = False,
        dim: int = 0,
        eps: float = 1e-5,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if not 0 < scale < math.inf:
            raise ValueError(f"scale={scale!r}: give a number above 0")
        if not 0 <= eps < math.inf:
            raise ValueError(f"eps={eps!r}: give a number, 0 or more")
        self.dim, self.eps = dim, eps
        self.scale: Tensor | float = scale
        if learnable:
            if num_units is None:
                raise ValueError("learnable=True: give num_units")
            self.scale = nn.Parameter(torch.full((num_units,), scale, device=device, dtype=dtype))

    def forward(self, v: Tensor) -> Tensor:
        others = [d for d in range(v.dim()) if d != self.dim]
        if v.numel() == v.shape[self.dim]:
            raise ValueError(f"centring needs more than one entry a unit, got weight size {list(v.shape)}")
        centred = v - v.mean(others, keepdim=True)
        scale = self.scale
        if isinstance(scale, Tensor):
            scale = scale.view([-1 if d == self.dim else 1 for d in range(v.dim())])
        return centred * (scale / (torch.linalg.vector_norm(centred, dim=others, keepdim=True) + self.eps))

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    def extra_repr(self) -> str:
        scale = "learned" if isinstance(self.scale, Tensor) else f"{self.scale:.6g}"
        return f"scale={scale}, dim={self.dim}, eps={self.eps}"


def centered_weight_norm(
    module: Model, scale: float = math.sqrt(2), learnable: bool = False, eps: float = 1e-5
) -> Model:
    r"""`CenteredWeightNorm` on the weight of every Linear, Conv1d-3d and ConvTranspose1d-3d in the module, in
    place, as `weight_norm` does. The present weights become v, so the output changes. Biases stay.

    Args:
        module: a layer or a model.
        scale: g, or its initial value. The authors' PyTorch code has :math:`\sqrt 2`.
        learnable: learn one g per output unit. By default g stays :math:`\sqrt 2`, as in the authors' code:
            it is there to make up for a ReLU, not to be learned.
        eps: added to the norm, 0 or more.

    Returns:
        The module.

    Raises:
        ValueError: a bad option; nothing to normalise; a transposed convolution with groups; a layer whose
            units have one weight each.
    """
    for name, layer in _plain(module):
        if layer.weight.numel() == layer.weight.shape[_unit_dim(name, layer)]:
            raise ValueError(f"{name}: centring needs more than one weight a unit")

    def register(layer: Any, dim: int) -> None:
        w = layer.weight
        norm = CenteredWeightNorm(w.shape[dim], scale, learnable, dim, eps, w.device, w.dtype)
        parametrize.register_parametrization(layer, "weight", norm)

    return _register(module, register)
