"""Memory of a run of Tables 1 and 2 against what it must hold: model, activations, data.

    python benchmarks/bench_memory.py [row ...]

"needed": parameters, gradients, momentum; what a training step keeps for its backward pass, each storage
once; the pictures. "peak": the largest resident memory of a process that trains an epoch and evaluates,
less what it has after its imports and a first small step (torch itself, its kernels and threads).
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

from bench_images import ROWS, a_run, state_of

EPOCHS = 1
CASES = [(row, width) for row in (*ROWS, "nin", "maxout") for width in (0.25, 1.0)]


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def kept(state: Any) -> int:
    """Bytes that a training step keeps for its backward pass."""
    import torch

    storages: dict[int, int] = {}

    def keep(x: Any) -> Any:
        storages[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    parameters = {p.untyped_storage().data_ptr() for p in state.net.single.parameters()}
    x = torch.rand(state.run.batch_size, *state.data.x_train.shape[1:])
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        loss = state.forward(x).sum()
    found = sum(size for at, size in storages.items() if at not in parameters)
    del loss
    return found


def one(row: str, width: float) -> None:
    import torch

    import data
    from experiments import images, job

    torch.set_num_threads(1)
    job.keep_blocks()
    small = data.load("glyphs", limit_train=100, limit_eval=10)
    list(images.train(state_of(a_run(row, 0.0625), small)))
    del small
    before = resident()
    run, found = a_run(row, width, EPOCHS), data.load("glyphs")
    state = state_of(run, found)
    model = 3 * sum(p.numel() * 4 for p in state.net.single.parameters())
    held = [getattr(x, f"x_{part}") for x in (found, state.data) for part in ("train", "val", "test")]
    pictures = sum({x.data_ptr(): x.nbytes for x in held}.values())  # as they came, and whitened
    list(images.train(state))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    activations = kept(state)  # last: what it frees would not all be used again
    needed = model + activations + pictures
    words = " ".join(f"{v / 2**20:>8.0f}" for v in (model, activations, pictures, peak))
    print(f"{row:>10} {width:>6} {words} {peak / needed:>6.2f}x", flush=True)


def main(words: list[str]) -> None:
    if len(words) == 2 and words[0] == "one":
        row, _, factor = words[1].partition("=")
        return one(row, float(factor))
    print("       row  width    model   activ.     data     peak (MiB)  peak / (model + activations + data)")
    for row, width in CASES:
        if not words or row in words:
            subprocess.run([sys.executable, __file__, "one", f"{row}={width}"], check=True)
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
