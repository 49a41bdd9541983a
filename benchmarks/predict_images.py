"""How long Tables 1, 2, 7 and 9 take by profile, predicted from arithmetic: what was run is in the records.

    python benchmarks/predict_images.py [teraflops]

Operations: three times those of the forward pass for a training picture (twice its multiply-adds each),
once for an evaluated one; pictures from the grids, sizes of the data as published. This machine: all cores at
SHARE of a matrix product's rate, from the middle of what bench_images.py measures (22 to 62 %). A GPU: so
many TFLOP/s reached in training (default 20, an assumption: none was at hand). Small networks and batches of
1, whose steps are more calls than arithmetic, take longer than this says.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from typing import Any

from bench_images import product_rate

SHARE, CORES = 0.45, os.cpu_count() or 1
# training part, test part, height and channels, classes; glyphs and mnist5k say their own
SETS: dict[str, tuple[int, int, tuple[int, int, int], int]] = {
    "folder": (1_281_167, 50_000, (3, 224, 224), 1000),  # ImageNet
    "imagenette64": (9_469, 3_925, (3, 64, 64), 10),
    "cifar10": (50_000, 10_000, (3, 32, 32), 10),
    "cifar100": (50_000, 10_000, (3, 32, 32), 100),
    "tinyimagenet100": (20_000, 5_000, (3, 32, 32), 100),
    "svhn": (604_388, 26_032, (3, 32, 32), 10),
    "mnist": (60_000, 10_000, (1, 28, 28), 10),
    "mnist5k": (4_000, 1_000, (1, 28, 28), 10),
    "fsdd": (1_500, 1_000, (1, 40, 100), 10),  # split=speakers
    "speech_commands": (84_843, 11_005, (1, 40, 100), 35),
}
VALIDATION = {"fsdd": 500, "speech_commands": 9_981}  # parts of their own


def size_of(data: Any) -> tuple[int, int, tuple[int, int, int], int]:
    if data.name == "svhn" and not data.options["extra"]:
        return 73_257, *SETS["svhn"][1:]
    if data.name != "glyphs":
        return SETS[data.name]
    o = {"n_train": 4000, "n_test": 2000, "size": 32, "alphabet": "digits", **data.options}
    return o["n_train"], o["n_test"], (3, o["size"], o["size"]), 36 if o["alphabet"] == "letters" else 10


def forward_operations(run: Any, shape: tuple[int, int, int], classes: int) -> float:
    """Of one picture."""
    from importlib import import_module
    from types import SimpleNamespace

    import torch
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(2, *shape)
    table = import_module(type(run).__module__)
    build = getattr(table, "build", None) or table.built
    net = build(run, SimpleNamespace(x_train=x, classes=range(classes)))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    return counter.get_total_flops() / 2


def operations(run: Any, known: dict[Any, float]) -> float:
    """Of a whole run."""
    train, test, shape, classes = size_of(run.data)
    key = (str(run.model), run.norm.name, str(getattr(run, "recipe", "")), shape, classes)
    if key not in known:
        known[key] = forward_operations(run, shape, classes)
    if run.data.name in VALIDATION:
        n, n_val = train, VALIDATION[run.data.name]
    else:
        n_val = round(train * run.data.val_fraction)
        if run.data.options.get("validation") == "source":
            n_val = 6000
        n = train - n_val
    n = run.data.share * (run.data.limit_train or n)
    most = run.data.limit_eval or max(n_val, test)
    evaluated = (min(n_val, most) + min(test, most)) * run.evaluations
    return known[key] * run.epochs * (3 * n + evaluated)


def main(words: list[str]) -> None:
    from hydra import compose, initialize_config_dir

    from experiments import config, grid

    gpu = float(words[0]) if words else 20.0
    here = product_rate() * CORES * SHARE
    print(f"this machine: {here / 1e9:.0f} GFLOP/s on {CORES} cores ({SHARE:.0%} of a matrix product's)")
    print(f"table  profile  runs   operations   this machine   GPU at {gpu:g} TFLOP/s")

    def composed(words: Any) -> Any:
        with initialize_config_dir(str(config.CONF), version_base="1.3"):
            return compose("config", overrides=list(words), return_hydra_config=False)

    for table in ("T1", "T2", "T7", "T9"):
        known: dict[Any, float] = {}
        for profile in ("quick", "cpu", "paper"):
            total: dict[str, float] = defaultdict(float)
            points = grid.points([f"table={table}", f"profile={profile}"], composed)
            for point in points:
                total[point.column] += operations(point.run, known)
            every = sum(total.values())
            print(
                f"{table:>5}  {profile:>7} {len(points):>5}   {every:10.2e} {every / here / 3600:>10,.1f} h"
                f" {every / gpu / 1e12 / 3600:>12,.1f} h",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
