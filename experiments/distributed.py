"""One run on several processes, started by torchrun: PyTorch's DistributedDataParallel, the same losses as
one process with the same global batch.

    torchrun --nproc-per-node 4 -m experiments table=T1 profile=paper row=bn_x30 ...

Every process draws the same global batch, the same distortions and the same dropout masks, and takes its own
slice of them. Statistics of batch normalisation are those of the global batch. The first process holds the
locks and writes checkpoints and the record; nothing in a record says how many took part but `host`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from experiments.config import BadInput

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Value = TypeVar("Value")


def size() -> int:
    """How many processes; 1 where torchrun did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    return int(os.environ.get("RANK", "0"))


def start(device: torch.device) -> torch.device:
    """Join the others (gloo on CPUs, nccl on GPUs, one for each process); the device to use."""
    import torch
    from torch import distributed

    if size() == 1 or distributed.is_initialized():
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def from_first(make: Callable[[], Value]) -> Value:
    """What the first process makes of `make`; the others get its value, or its BadInput."""
    if size() == 1:
        return make()
    from torch import distributed

    told: list[Any] = [None, None]
    if rank() == 0:
        try:
            told = [make(), None]
        except BadInput as e:
            told = [None, str(e)]
    distributed.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise BadInput(told[1])
    return told[0]


def any_says(yes: bool) -> bool:
    """Whether some process says yes."""
    if size() == 1:
        return yes
    import torch
    from torch import distributed

    flag = torch.tensor(int(yes))
    if distributed.get_backend() == "nccl":
        flag = flag.cuda()
    distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
    return bool(flag)


def mean(value: Tensor) -> Tensor:
    """The mean over the processes, without a gradient."""
    from torch import distributed

    if size() > 1:
        value = value.clone()
        distributed.all_reduce(value)
        value = value / size()
    return value


def own(x: Tensor) -> Tensor:
    """This process's slice of a global batch."""
    return x if size() == 1 else x[rank() :: size()]


def gathered(x: Tensor, rows: int) -> Tensor:
    """The rows of which each process has its `own` slice, in their order again."""
    if size() == 1:
        return x
    import torch
    from torch import distributed

    most = -(-rows // size())
    padded = torch.zeros(most, *x.shape[1:], dtype=x.dtype, device=x.device)
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in range(size())]
    distributed.all_gather(parts, padded)
    return torch.stack(parts, 1).flatten(0, 1)[:rows]


def stop() -> None:
    """Leave the others."""
    if size() > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()


@contextlib.contextmanager
def quiet_others() -> Iterator[None]:
    """Only the first process prints."""
    with open(os.devnull, "w") as nowhere, contextlib.ExitStack() as held:
        if rank() > 0:
            held.enter_context(contextlib.redirect_stdout(nowhere))
            held.enter_context(contextlib.redirect_stderr(nowhere))
        yield
