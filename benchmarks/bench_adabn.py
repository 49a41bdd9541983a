"""Time of adapt_batch_statistics on a ResNet-18 and on Table 10's network as its runs call it, as a ratio to
one plain evaluation pass over the same data.

    python benchmarks/bench_adabn.py [threads ...]

The variants take turns within each round, so that whatever else the machine does falls on all of them; what
is printed is the median over rounds of the ratio to the evaluation pass of the same round, with its
quartiles. Then the same in a process whose allocator (glibc's) keeps blocks of more than 32 MB, which it maps
anew for each tensor else: so the activations of the whole set cost more than those of small batches.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import torch
import torchvision
from turns import KEEP, show, take_turns, threads

from experiments import adapting
from experiments.models.domain_net import domain_net
from norms.adabn import adapt_batch_statistics

BASE = "evaluation pass"


def variants(images: int, batch: int) -> dict[str, Callable[[], None]]:
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=10).eval()
    batches = list(torch.randn(images, 3, 64, 64).split(batch))

    def evaluate() -> None:
        with torch.no_grad():
            for x in batches:
                model(x)

    def adapt(**options: int) -> Callable[[], None]:
        return lambda: adapt_batch_statistics(model, batches, **options)

    return {
        BASE: evaluate,
        "exact, as one batch": adapt(),
        "exact, layer by layer": adapt(max_bytes=0),
        "sequential=False": adapt(sequential=False),
    }


def measure(images: int, batch: int, rounds: int) -> None:
    show(
        f"ResNet-18, {images} images 64x64 in batches of {batch}", take_turns(variants(images, batch), rounds)
    )


def of_table_10(size: int, images: int, width: float, channels_last: bool, rounds: int) -> None:
    """What a run of Table 10 does: pieces of uint8 pictures, weights channels last; contiguous ones, with
    which both take longer, for comparison.
    """
    torch.manual_seed(0)
    net = domain_net((3, size, size), 10, lambda maps, dim: torch.nn.BatchNorm2d(maps), width).eval()
    net = net.to(memory_format=torch.channels_last) if channels_last else net
    x = torch.randint(256, (images, 3, size, size), dtype=torch.uint8)

    def adapt() -> None:
        with adapting.target_statistics(net, x):
            pass

    times = take_turns({BASE: lambda: adapting.of_all(net, x), "exact, as a run adapts": adapt}, rounds)
    layout = "channels last" if channels_last else "contiguous"
    show(f"Table 10's network, width {width:g}, {images} pictures {size}x{size}, {layout}", times)


def main() -> None:
    kept = KEEP.items() <= os.environ.items()
    print("large blocks are " + ("kept by the allocator" if kept else "mapped anew"), flush=True)
    for count in threads():
        torch.set_num_threads(count)
        measure(images=128, batch=32, rounds=9)
        for size, pictures in ((16, 1000), (96, 958)):
            for channels_last in (True, False):
                of_table_10(size, pictures, 0.25, channels_last, rounds=15)
    if not kept and sys.platform == "linux":
        subprocess.run([sys.executable, *sys.argv], env=os.environ | KEEP, check=True)


if __name__ == "__main__":
    main()
