"""A population whose networks take dropout masks, and whose hidden layers can be looked at."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.func import functional_call, vmap

from experiments.population import Population


class StackedNet(Population):
    """K networks of one architecture whose forward pass is (x [B, D], masks) -> [B, C]."""

    def __call__(self, x: Tensor, shared: bool = False, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Logits [K, B, C] for x [K, B, D], or [B, D] with shared=True; masks [K, B, H] a hidden layer."""
        if self.size == 1:
            alone = None if masks is None else [m[0] for m in masks]
            return self.single(x if shared else x.squeeze(0), alone).unsqueeze(0)
        if masks is None:
            return super().__call__(x, shared)

        def one(
            params: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor, masks: list[Tensor]
        ) -> Tensor:
            return functional_call(self.single, (params, buffers), (x, masks))

        return vmap(one, in_dims=(0, 0, None if shared else 0, 0))(self.params, self.buffers, x, list(masks))


def activations(net: StackedNet, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Logits [K, B, C] and the output of every hidden layer [K, B, H] for one batch x [B, D]."""

    def one(params: dict[str, Tensor], buffers: dict[str, Tensor]) -> tuple[Tensor, tuple[Tensor, ...]]:
        seen: list[Tensor] = []
        logits = functional_call(net.single, (params, buffers), (x, None, seen))
        return logits, tuple(seen)

    if net.size == 1:
        seen: list[Tensor] = []
        logits = net.single(x, None, seen)
        return logits.unsqueeze(0), tuple(h.unsqueeze(0) for h in seen)
    return vmap(one)(net.params, net.buffers)
