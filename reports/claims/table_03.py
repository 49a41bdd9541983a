"""The claims of Table 3, diminishing batch normalization (inequalities: the published file, T3.C1-C9)."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from reports.claims import Claim, Part
from reports.statistics import kth_largest, kth_smallest, largest, smallest

SETS = ("mnist", "ni", "cifar10")
MIDDLE = ("a0_75", "a0_5", "a0_25", "a0_1", "a0_01", "a0_001", "a1_over_j", "a1_over_j2")  # 0 < alpha < 1
MOVING = ("a1", *MIDDLE)  # alpha > 0
ALL = (*MOVING, "a0")
SPREAD = {"mnist": 0.3, "ni": 0.4, "cifar10": 1.1}  # points of error, from the sheet


def c1(cells: Any) -> list[Part]:
    """Every 0 < alpha < 1 beats alpha = 1: err(alpha) < err(1)."""
    return [
        Part(f"{s}: {row} below a1", (s,), cells["a1", s, "error"] - cells[row, s, "error"])
        for s in SETS
        for row in MIDDLE
    ]


def c2(cells: Any) -> list[Part]:
    """Useless at alpha = 0: err(0) > 3 err(alpha) for every alpha > 0."""
    return [
        Part(f"{s}: a0 above 3 x {row}", (s,), cells["a0", s, "error"] - 3 * cells[row, s, "error"])
        for s in SETS
        for row in MOVING
    ]


def c3(cells: Any) -> list[Part]:
    """Insensitive to alpha: largest - smallest error of the middle rows <= the set's threshold."""

    def slack(s: str) -> Any:
        pairs = permutations(MIDDLE, 2)
        return smallest([SPREAD[s] - (cells[a, s, "error"] - cells[b, s, "error"]) for a, b in pairs])

    return [
        Part(f"{s}: spread at most {SPREAD[s]}", (s,), slack(s), absolute=True, strict=False) for s in SETS
    ]


def c4(cells: Any) -> list[Part]:
    """0.25 alone is in the top three on all sets (ties counted).

    An alpha is in the top three of a set unless three others are strictly better there; its lead over the
    third best of the others, third smallest of err(other) - err(alpha), is then >= 0. The claim is about all
    sets at once, so no part of it is left when one set is not comparable.
    """

    def lead(row: str, s: str) -> Any:
        others = [other for other in ALL if other != row]
        return kth_smallest(3, [cells[other, s, "error"] - cells[row, s, "error"] for other in others])

    def lag(row: str, s: str) -> Any:
        others = [other for other in ALL if other != row]
        return kth_largest(3, [cells[row, s, "error"] - cells[other, s, "error"] for other in others])

    inside = [Part(f"{s}: a0_25 in the top three", SETS, lead("a0_25", s), strict=False) for s in SETS]
    outside = [
        Part(f"{row} outside the top three somewhere", SETS, largest([lag(row, s) for s in SETS]))
        for row in ALL
        if row != "a0_25"
    ]
    return inside + outside


def c5(cells: Any) -> list[Part]:
    """On NI the best value is 0.25."""
    return [
        Part(f"ni: a0_25 below {row}", ("ni",), cells[row, "ni", "error"] - cells["a0_25", "ni", "error"])
        for row in ALL
        if row != "a0_25"
    ]


def c6(cells: Any) -> list[Part]:
    """On CIFAR-10 smaller constants are better: err(0.001) < err(0.01) < err(0.25)."""
    s = "cifar10"
    return [
        Part(f"{s}: {a} below {b}", (s,), cells[b, s, "error"] - cells[a, s, "error"])
        for a, b in (("a0_001", "a0_01"), ("a0_01", "a0_25"))
    ]


def c7(cells: Any) -> list[Part]:
    """Epochs to the best result are similar for all alpha > 0: 37 <= epochs <= 98, max/min per set <= 3."""

    def parts(s: str) -> list[Part]:
        epochs = {row: cells[row, s, "epochs"] for row in MOVING}
        early = smallest([e - 37 for e in epochs.values()])
        late = smallest([98 - e for e in epochs.values()])
        ratio = smallest([3 * epochs[a] - epochs[b] for a, b in permutations(MOVING, 2)])
        return [
            Part(f"{s}: at least 37", (s,), early, absolute=True, strict=False),
            Part(f"{s}: at most 98", (s,), late, absolute=True, strict=False),
            Part(f"{s}: largest at most 3 x smallest", (s,), ratio, strict=False),
        ]

    return [part for s in SETS for part in parts(s)]


def c8(cells: Any) -> list[Part]:
    """0.25 is the quickest on MNIST and NI among alpha > 0."""
    return [
        Part(f"{s}: a0_25 before {row}", (s,), cells[row, s, "epochs"] - cells["a0_25", s, "epochs"])
        for s in ("mnist", "ni")
        for row in MOVING
        if row != "a0_25"
    ]


def c9(cells: Any) -> list[Part]:
    """Steadier than BN: epoch-to-epoch variance of test error below alpha = 1's, middle rows as in C1."""
    return [
        Part(f"{s}: {row} steadier than a1", (s,), cells["a1", s, "variance"] - cells[row, s, "variance"])
        for s in SETS
        for row in MIDDLE
    ]


CLAIMS: dict[str, Claim] = {
    f"T3.{claim.__name__.upper()}": claim for claim in (c1, c2, c3, c4, c5, c6, c7, c8, c9)
}
