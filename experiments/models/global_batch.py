"""Layers that see the global batch where a run is spread over several processes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from experiments.config import BadInput
from experiments.distributed import own, size


def spread(net: nn.Module, batch: int) -> Callable[[Tensor], Tensor]:
    """The network as a function of this process's slice of a batch of `batch`: batch normalisation and
    dropout are exchanged, in place, for those of the global batch, and gradients are averaged.

    Raises BadInput, one line, where the batch cannot be divided or a layer has other statistics of the batch.
    """
    if size() == 1:
        return net
    if batch % size():
        raise BadInput(
            f"batch_size={batch} cannot be divided among {size()} processes: choose a multiple of it"
        )
    for name, module in list(net.named_modules()):
        new: nn.Module | None = None
        if type(module) in (nn.BatchNorm1d, nn.BatchNorm2d):
            new = GlobalBatchNorm(module)
        elif type(module) is nn.Dropout:
            new = GlobalDropout(module.p)
        elif type(module).__module__.startswith("norms.") and hasattr(module, "running_mean"):
            raise BadInput(
                f"norm: {type(module).__name__} takes statistics of its process's slice of the batch; several"
                " processes have norm=batch and those without statistics of a batch"
            )
        if new is not None:
            parent, _, last = name.rpartition(".")
            setattr(net.get_submodule(parent), last, new)
    return nn.parallel.DistributedDataParallel(net, broadcast_buffers=False)


class GlobalBatchNorm(nn.Module):
    """nn.BatchNorm over the batches of all processes together (nn.SyncBatchNorm is for GPUs alone):

        mean = sum of x / n,  var = sum of (x - mean)^2 / n,  sums over all processes, n values a channel

    in training; parameters, buffers and their names are those of the layer it replaces.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, layer: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.momentum = layer.weight, layer.bias, layer.eps, layer.momentum
        for name, buffer in layer.named_buffers():
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        running = self.running_mean, self.running_var
        if not self.training:
            return nn.functional.batch_norm(x, *running, self.weight, self.bias, False, 0.0, self.eps)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        n = x.numel() // x.shape[1] * size()
        mean = all_reduce(x.sum(axes)) / n
        centred = x - mean.view(shape)
        var = all_reduce(centred.square().sum(axes)) / n
        with torch.no_grad():
            self.num_batches_tracked += 1
            step = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
            self.running_mean.lerp_(mean, step)
            self.running_var.lerp_(var * (n / (n - 1)), step)
        scale = (var + self.eps).rsqrt() * self.weight
        return centred * scale.view(shape) + self.bias.view(shape)


class GlobalDropout(nn.Module):
    """nn.Dropout whose mask is drawn for the global batch, by all processes alike."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        whole = torch.empty(len(x) * size(), *x.shape[1:], dtype=x.dtype, device=x.device)
        return x * own(whole.bernoulli_(1 - self.p)) / (1 - self.p)
