"""Many runs of one architecture trained as one stacked model.

On a CPU a step of a small network is dominated by the cost of starting its operations, not by arithmetic.
Members that differ in seed, data order or a scalar held in a buffer (the alpha of diminishing BN) are
therefore stacked along a new leading axis K and stepped together: `torch.func.vmap` over `functional_call` in
the forward pass, ordinary autograd backward through it. The losses of the members do not mix, so the gradient
of their sum is each member's own gradient, and an element-wise optimizer (SGD, AdaGrad, Adam) on the stacked
tensors is the same optimizer on each member.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


class Population:
    """K models of one architecture: `population(x)` maps [K, B, ...] (or [B, ...] given to all) to [K, B,
    ...].

    One member is run as the plain module, without vmap: training alone costs nothing extra. Parameters and
    buffers have a leading K axis in `named_parameters` and `named_buffers` in either case, so that the code
    around a population does not care.
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        self.size = len(models)
        if self.size == 1:
            self.single = models[0]
            return
        params, buffers = stack_module_state(list(models))
        self.params = {k: v.detach().requires_grad_() for k, v in params.items()}
        self.buffers = dict(buffers)
        self.single = copy.deepcopy(models[0]).to("meta")  # only its code and its train/eval flag are used

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        return iter(self.params.items()) if self.size > 1 else self.single.named_parameters()

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        return iter(self.buffers.items()) if self.size > 1 else self.single.named_buffers()

    def train(self, mode: bool = True) -> None:
        self.single.train(mode)

    def eval(self) -> None:
        self.train(False)

    def state_dict(self) -> dict[str, Tensor]:
        return {k: v.detach() for k, v in [*self.named_parameters(), *self.named_buffers()]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for k, v in [*self.named_parameters(), *self.named_buffers()]:
            v.copy_(state[k])

    def parameter_count(self) -> int:
        """Of one member."""
        return sum(p.numel() for _, p in self.named_parameters()) // self.size

    def __call__(self, x: Tensor, shared: bool = False) -> Tensor:
        """Outputs [K, B, ...] for x [K, B, ...], or for [B, ...], the same batch for every member, with
        shared=True.
        """
        if self.size == 1:
            return self.single(x if shared else x.squeeze(0)).unsqueeze(0)

        def one(params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
            return functional_call(self.single, (params, buffers), (x,))

        # each member draws its own dropout mask
        return vmap(one, in_dims=(0, 0, None if shared else 0), randomness="different")(
            self.params, self.buffers, x
        )
