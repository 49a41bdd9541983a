"""A step of a small network on several processes, in float64: what test_table_01.py starts with torchrun.

python -m torch.distributed.run --nproc-per-node 2 two_processes.py FILE
"""

import sys

import torch
from torch import nn

from experiments import distributed
from experiments.models.global_batch import spread


def net() -> nn.Sequential:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3),
                         nn.Linear(64, 5), nn.BatchNorm1d(5))  # fmt: skip
    return made.double()


def step(model: nn.Sequential) -> dict[str, torch.Tensor]:
    """Gradients, buffers and loss of a batch of 12."""
    torch.manual_seed(1)
    x, y = torch.randn(12, 2, 6, 6, dtype=torch.float64), torch.arange(12) % 5
    forward = spread(model, 12)
    torch.manual_seed(2)
    loss = nn.functional.cross_entropy(forward(distributed.own(x)), distributed.own(y))
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters()} | dict(model.named_buffers())
    return found | {"loss": distributed.mean(loss.detach())}


if __name__ == "__main__":
    distributed.start(torch.device("cpu"))
    found = step(net())
    if distributed.rank() == 0:
        torch.save(found, sys.argv[1])
    distributed.stop()
