"""Optimizers on the Grassmann manifold for the weights that feed batch normalisation: Cho & Lee, arXiv
1709.09603. The formulas are those of the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# ---- geometry; y, h, tangent: [units, n] with rows y of length 1 and h, tangent orthogonal to them ---------


def _norm(x: Tensor) -> Tensor:
    return torch.linalg.vector_norm(x, dim=1, keepdim=True)


def _project(y: Tensor, g: Tensor) -> Tensor:
    """The part of g that is tangent at y."""
    return g - (y * g).sum(1, keepdim=True) * y


def _clip(h: Tensor, limit: float) -> Tensor:
    """Rows longer than `limit` shortened to it."""
    return h if limit == math.inf else h * (limit / _norm(h).clamp_min(limit))


def _move(y: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
    """exp_y(step), and the step transported along itself; where the step is 0, y and 0."""
    length = _norm(step)
    cos, sin = length.cos(), length.sin()
    return y * cos + step * torch.sinc(length / math.pi), step * cos - y * (length * sin)


# ---- the optimizers ---------------------------------------------------------------------------------------


class _Grassmann(Optimizer):
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group of parameters, which is checked as those of the constructor."""
        super().add_param_group(param_group)
        try:
            self._check(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    def _check(self, group: dict[str, Any]) -> None:
        if group["lr"] < 0.0:
            raise ValueError(f"Invalid learning rate: {group['lr']}")
        if not group["grad_clip"] > 0.0:
            raise ValueError(f"Invalid grad_clip value: {group['grad_clip']}")
        dim = group["dim"]
        for p in group["params"]:
            if not p.is_floating_point():
                raise ValueError(f"expected real floating-point parameters, got {p.dtype}")
            if p.dim() < 2:
                raise ValueError(
                    f"a parameter of size {list(p.shape)} has no rows for unit vectors: choose weights of two"
                    " dimensions or more (norms.grassmann_parameters), and another optimizer for the others"
                )
            if isinstance(dim, bool) or not isinstance(dim, int) or not 0 <= dim < p.dim():
                raise ValueError(f"Invalid dim value: {dim!r} for a parameter of size {list(p.shape)}")
            if p.device.type != "meta" and not _norm(_rows(p.detach(), dim)).all():
                raise ValueError(f"a unit of the parameter of size {list(p.shape)} is 0: it has no direction")

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch.optim's, but momenta stay as they were saved: in float32 where parameters are lower."""
        super().load_state_dict(state_dict)  # casts them to the precision of the parameters
        parameters = [p for group in self.param_groups for p in group["params"]]
        ids = [i for group in state_dict["param_groups"] for i in group["params"]]
        for i, p in zip(ids, parameters, strict=True):
            for key, value in state_dict["state"].get(i, {}).items():
                if isinstance(value, Tensor) and key != "step":
                    self.state[p][key] = value.to(p.device, copy=True)

    def _update(self, y: Tensor, h: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Perform a single optimization step.

        Args:
            closure: a callable that reevaluates the model and returns the loss; optional.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
                weight, g = _rows(p, group["dim"]), _rows(p.grad, group["dim"])
                # Units have length 1 but for rounding, and before the first step any. As the loss is the same
                # at any length, the gradient at the unit vector is `length` times as large.
                length = _norm(weight)
                y = weight / length
                h = _clip(_project(y, g * length), group["grad_clip"])
                y = self._update(y, h, self.state[p], group)
                like = p.movedim(group["dim"], 0)
                like.copy_(y.view(like.shape))
        return loss


def _rows(p: Tensor, dim: int) -> Tensor:
    """[units, n], in float32 at least."""
    rows = p.movedim(dim, 0).flatten(1)
    return rows if rows.dtype == torch.float64 else rows.float()


class GrassmannSGD(_Grassmann):
    r"""SGD-G (Cho & Lee, arXiv 1709.09603): gradient descent with momentum on unit vectors.

    The output of batch normalisation does not depend on the length of a weight vector that feeds it, so what
    there is to learn is a direction: a point of the Grassmann manifold G(1, n), represented by a unit vector
    y, one for each output unit. Forward and backward passes stay as they are. With g the gradient at y,

    .. math::
        h = g - (y \cdot g) \, y, \qquad
        h \leftarrow h \min(1, \nu / \lVert h \rVert), \qquad
        d = \gamma \tau - \eta h

    .. math::
        y \leftarrow y \cos \lVert d \rVert + u \sin \lVert d \rVert, \qquad
        \tau \leftarrow \lVert d \rVert (u \cos \lVert d \rVert - y \sin \lVert d \rVert), \qquad
        u = d / \lVert d \rVert

    both with the old y: the exponential map, and the transport of the momentum along the move. A move by
    :math:`2 \pi` would return to the start, hence the clipping by :math:`\nu`: with it a step is at most
    :math:`\eta \nu / (1 - \gamma)` long.

    Which parameters belong here is for you to say: those for which the loss depends on directions only (see
    `grassmann_parameters`). For the others (biases, gamma, beta, the last layer) use an optimizer of
    torch.optim beside this one; the paper uses ``SGD(lr=0.01, momentum=0.9, nesterov=True,
    weight_decay=5e-4)``, without decay of gamma and beta, and multiplies both learning rates by 0.2 three
    times in a training. Weight decay has no meaning on unit vectors; the paper has `orthogonality_penalty` in
    its place.

    The first step makes unit vectors of the parameters; from then on they are so up to rounding (they are
    normalised anew in each step). Half-precision parameters are updated in float32 arithmetic.

    Args:
        params: parameters of two dimensions or more, or groups of them.
        lr: eta. The paper: 0.2.
        momentum: gamma.
        grad_clip: nu; ``math.inf`` for no clipping.
        dim: the dimension over output units; the other dimensions make up a unit's vector. 0 for linear and
            convolutional layers; for transposed convolutions (of one group), in a group of their own, 1.

    State of a parameter:
        momentum_buffer: tau, [units, n].

    Raises:
        ValueError: an option out of its range; a parameter without the dimension `dim`, or with a unit that
            is 0.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.2,
        momentum: float = 0.9,
        grad_clip: float = 0.1,
        dim: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "grad_clip": grad_clip, "dim": dim})

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if not 0.0 <= group["momentum"] < 1.0:
            raise ValueError(f"Invalid momentum value: {group['momentum']}")

    def _update(self, y: Tensor, h: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        d = -group["lr"] * h
        if "momentum_buffer" in state:
            d += group["momentum"] * state["momentum_buffer"]
        y, state["momentum_buffer"] = _move(y, d)
        return y


class GrassmannAdam(_Grassmann):
    r"""Adam-G (Cho & Lee, arXiv 1709.09603): Adam on unit vectors, see `GrassmannSGD`.

    With h the gradient, projected and clipped, at a unit's vector y, and t the number of the step,

    .. math::
        m \leftarrow \beta_1 m + (1 - \beta_1) h, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) \, h \cdot h, \qquad
        d = -\eta \, \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \, \frac{m}{\sqrt{v + \epsilon}}

    and y moves by the exponential map of d, while m is transported along. Unlike in Adam, v is one number for
    each unit, so that the direction of the step is that of m, and :math:`\epsilon` is inside the root. With
    the default :math:`\epsilon`, steps shrink where gradients are shorter than about 1e-4.

    Args:
        params: as `GrassmannSGD`.
        lr: eta. The paper: 0.05.
        betas: beta_1 and beta_2.
        eps: epsilon.
        grad_clip: nu; ``math.inf`` for no clipping.
        dim: as `GrassmannSGD`.

    State of a parameter:
        step: t. exp_avg: m, [units, n]. exp_avg_sq: v, [units, 1].

    Raises:
        ValueError: as `GrassmannSGD`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        grad_clip: float = 0.1,
        dim: int = 0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "grad_clip": grad_clip, "dim": dim})

    def _check(self, group: dict[str, Any]) -> None:
        super()._check(group)
        if not group["eps"] > 0.0:  # without it, a unit whose gradient is 0 would become NaN
            raise ValueError(f"Invalid epsilon value: {group['eps']}")
        for i, beta in enumerate(group["betas"]):
            if not 0.0 <= beta < 1.0:
                raise ValueError(f"Invalid beta parameter at index {i}: {beta}")

    def _update(self, y: Tensor, h: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(h), torch.zeros_like(h[:, :1])
        beta1, beta2 = group["betas"]
        state["step"] += 1
        t = state["step"].item()
        m = beta1 * state["exp_avg"] + (1 - beta1) * h
        v = beta2 * state["exp_avg_sq"] + (1 - beta2) * h.square().sum(1, keepdim=True)
        scale = group["lr"] * math.sqrt(1 - beta2**t) / (1 - beta1**t) / (v + group["eps"]).sqrt()
        # m is parallel to the step, so that it is transported as the step itself: by a turn in the plane of y
        # and m.
        length = scale * _norm(m)
        moved, _ = _move(y, -scale * m)
        state["exp_avg"] = m * length.cos() + y * (_norm(m) * length.sin())
        state["exp_avg_sq"] = v
        return moved


# ---- around the optimizers --------------------------------------------------------------------------------


def orthogonality_penalty(weights: Tensor | Iterable[Tensor], alpha: float = 0.1, dim: int = 0) -> Tensor:
    r"""The term that takes the place of weight decay (Cho & Lee, arXiv 1709.09603), summed over layers:

    .. math:: L_O = \frac{\alpha}{2} \, \lVert Y^T Y - I \rVert_F^2

    where the columns of Y are the weight vectors of a layer's output units; it is 0 if they are orthonormal,
    which takes no more units than a vector has entries. Add it to the loss.

    Args:
        weights: a weight of two dimensions or more, or several (one for each layer).
        alpha: the paper's 0.1.
        dim: the dimension over output units.
    """
    total: Tensor | float = 0.0
    for weight in [weights] if isinstance(weights, Tensor) else weights:
        rows = weight.movedim(dim, 0).flatten(1)
        gram = rows @ rows.T
        total = (
            total
            + 0.5 * alpha * (gram - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)).square().sum()
        )
    if not isinstance(total, Tensor):
        raise ValueError("orthogonality_penalty got no weights")
    return total


def grassmann_parameters(
    model: nn.Module, predicate: Callable[[str, nn.Module], bool] | None = None
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The parameters of `model` in two lists: weights for `GrassmannSGD` or `GrassmannAdam`, and all others.

    ::

        manifold, euclidean = grassmann_parameters(model)
        optimizers = GrassmannSGD(manifold), torch.optim.SGD(euclidean, lr=0.01, momentum=0.9, nesterov=True)

    A weight belongs on the manifold only if batch normalisation follows it directly. Modules do not tell what
    follows them, so this is for you to check: by default the first list has the weights of all
    "undercomplete" convolutions, those with fewer output channels than entries in a filter, as in the paper,
    whose convolutions feed batch normalisation. Where that is not so, and to take in linear layers, give a
    `predicate`.

    Args:
        model: the model.
        predicate: given a module's name and the module, whether its ``weight`` belongs on the manifold.

    Raises:
        ValueError: the predicate picks a module without a parameter ``weight`` of two dimensions or more, or
            a transposed convolution (its units are in dimension 1: make a group with ``dim=1``).
    """
    chosen: dict[int, nn.Parameter] = {}
    for name, module in model.named_modules():
        if not (_undercomplete(module) if predicate is None else predicate(name, module)):
            continue
        weight = module._parameters.get("weight")
        if weight is None or weight.dim() < 2:
            raise ValueError(f"module {name!r} has no parameter 'weight' of two dimensions or more")
        if getattr(module, "transposed", False):
            raise ValueError(f"module {name!r} is a transposed convolution: make a group with dim=1 for it")
        chosen[id(weight)] = weight
    return list(chosen.values()), [p for p in model.parameters() if id(p) not in chosen]


def _undercomplete(module: nn.Module) -> bool:
    if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return False
    weight = module._parameters.get("weight")  # None if it is parametrised, as by weight_norm
    return weight is not None and weight.shape[0] < weight[0].numel()
