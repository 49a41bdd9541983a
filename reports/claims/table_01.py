"""The claims of Table 1, Inception and its batch-normalized variants (inequalities: the published file)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from reports.claims import Claim, Part, known

ON = "imagenet"
NEAR, FAR = 2.0, 10.0  # points from chance: still chance, and well above it


def faster(cells: Any, row: str, times: float) -> list[Part]:
    """steps(row) < steps(Inception) / times."""
    margin = cells["inception", ON, "steps"] * (1 / times) - cells[row, ON, "steps"]
    return [Part(f"{row} {times:g} times as fast", (ON,), margin)]


def c1(cells: Any) -> list[Part]:
    """BN alone at least halves the steps."""
    return faster(cells, "bn_baseline", 2)


def c2(cells: Any) -> list[Part]:
    """BN and the recipe, learning rate x5: more than 10 times as fast."""
    return faster(cells, "bn_x5", 10)


def c3(cells: Any) -> list[Part]:
    """The same at x30."""
    return faster(cells, "bn_x30", 10)


def c4(cells: Any) -> list[Part]:
    """BN alone is more than 10 times as fast."""
    return faster(cells, "bn_baseline", 10)


def c5(cells: Any) -> list[Part]:
    """Order of the steps: x5, x30, BN alone, plain."""
    rows = ("bn_x5", "bn_x30", "bn_baseline", "inception")
    return [
        Part(f"{a} before {b}", (ON,), cells[b, ON, "steps"] - cells[a, ON, "steps"])
        for a, b in pairwise(rows)
    ]


def c6(cells: Any) -> list[Part]:
    """Order of the best accuracies: plain, BN alone, x5, x30."""
    rows = ("inception", "bn_baseline", "bn_x5", "bn_x30")
    return [
        Part(f"{a} below {b}", (ON,), cells[b, ON, "accuracy"] - cells[a, ON, "accuracy"])
        for a, b in pairwise(rows)
    ]


def c7(cells: Any) -> list[Part]:
    """The best BN network is at least 1 point better than the plain one."""
    margin = cells["bn_x30", ON, "accuracy"] - cells["inception", ON, "accuracy"] - 1
    return [Part("bn_x30 at least 1 point better", (ON,), margin, absolute=True, strict=False)]


def c8(cells: Any) -> list[Part]:
    """Without BN 5 times the learning rate diverges: in more than half of the runs."""
    return [Part("inception_x5 diverges", (ON,), cells["inception_x5", ON, "diverged"] - 50)]


def c9(cells: Any) -> list[Part]:
    """Without BN the sigmoid network stays at chance; with it, it trains, but not as well as with ReLU."""

    def over(row: str) -> Any:
        return cells[row, ON, "accuracy"] - cells[row, ON, "chance"]

    below = cells["bn_x5", ON, "accuracy"] - cells["bn_x5_sigmoid", ON, "accuracy"]
    return known(
        [
            Part("inception_sigmoid at chance", (ON,), NEAR - over("inception_sigmoid")),
            Part("bn_x5_sigmoid far above chance", (ON,), over("bn_x5_sigmoid") - FAR),
            Part("bn_x5_sigmoid below bn_x5", (ON,), below),
        ]
    )


def c10(cells: Any) -> list[Part]:
    """BN-x30 has its own maximum before a third of the plain network's steps to its own."""
    margin = cells["inception", ON, "steps"] * (1 / 3) - cells["bn_x30", ON, "step_best"]
    return [Part("maximum of bn_x30 in a third of the steps", (ON,), margin)]


def c11(cells: Any) -> list[Part]:
    """New batches in every epoch do not harm BN-x5."""
    margin = cells["bn_x5", ON, "accuracy"] - cells["bn_x5_without_reshuffle", ON, "accuracy"]
    return [Part("reshuffled batches at least as good", (ON,), margin, strict=False)]


def c12(cells: Any) -> list[Part]:
    """Section 4.1: with BN a higher accuracy at equal steps, and inputs that wander less."""
    plain, bn, on = "sigmoids", "sigmoids_bn", "mnist"
    higher = cells[bn, on, "mean_accuracy"] - cells[plain, on, "mean_accuracy"]
    calmer = cells[plain, on, "wander"] - cells[bn, on, "wander"]
    return [Part("higher on average over the steps", (on,), higher), Part("wanders less", (on,), calmer)]


CLAIMS: dict[str, Claim] = {
    f"T1.{claim.__name__.upper()}": claim for claim in (c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12)
}
