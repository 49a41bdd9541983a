"""Time of adapt_batch_statistics on a ResNet-18, as a ratio to one plain evaluation pass over the same data.

    python benchmarks/bench_adabn.py [threads ...]

The variants take turns within each round, so that whatever else the machine does falls on all of them; what
is printed is the median over rounds of the ratio to the evaluation pass of the same round, with its
quartiles.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torchvision

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
        "as one batch": adapt(),
        "layer by layer": adapt(max_bytes=0),
        "sequential=False": adapt(sequential=False),
    }


def measure(images: int, batch: int, rounds: int) -> None:
    calls = variants(images, batch)
    times: dict[str, list[float]] = {label: [] for label in calls}
    for _ in range(rounds + 1):  # the first to warm up
        for label, call in calls.items():
            start = time.perf_counter()
            call()
            times[label].append(time.perf_counter() - start)
    print(f"\nResNet-18, {images} images 64x64 in batches of {batch}, {torch.get_num_threads()} thread(s)")
    for label, seconds in times.items():
        ratios = [a / b for a, b in zip(seconds[1:], times[BASE][1:], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(
            f"  {label:20} {statistics.median(seconds[1:]):8.3f} s   {middle:5.2f}x  ({low:.2f}-{high:.2f})"
        )


def main() -> None:
    for threads in map(int, sys.argv[1:] or dict.fromkeys(("1", str(os.cpu_count())))):
        torch.set_num_threads(threads)
        measure(images=128, batch=32, rounds=5)


if __name__ == "__main__":
    main()
