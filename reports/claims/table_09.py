"""The claims of Table 9, maxout network in maxout network (inequalities: the published file, T9.C1-C10)."""

from __future__ import annotations

from itertools import combinations, pairwise
from typing import Any

from reports.claims import Claim, Part
from reports.statistics import largest, smallest

ROWS = ("maxout", "nin", "rcnn", "mim")
CIFAR, MNIST = SETS = ("cifar10", "mnist")
DEEP = MNIST  # the column whose networks of fewer blocks are compared
BY_DEPTH = {1: ("mim_b1", "mim_plain_b1"), 2: ("mim_b2", "mim_plain_b2"), 3: ("mim", "mim_plain")}
WORSE = 1.0  # points by which a deep network without BN is at least behind


def above(cells: Any, b: str, a: str, column: str) -> Any:
    """err(b) - err(a)."""
    return cells[b, column, "error"] - cells[a, column, "error"]


def below(cells: Any, a: str, b: str, column: str, strict: bool = True) -> Part:
    """err(a) < err(b)."""
    return Part(f"{column}: {a} below {b}", (column,), above(cells, b, a, column), strict=strict)


def c1(cells: Any) -> list[Part]:
    """MIM beats NIN and maxout on CIFAR-10."""
    return [below(cells, "mim", row, CIFAR) for row in ("nin", "maxout")]


def c2(cells: Any) -> list[Part]:
    """MIM is not worse than RCNN-160 on CIFAR-10."""
    return [below(cells, "mim", "rcnn", CIFAR, strict=False)]


def c3(cells: Any) -> list[Part]:
    """That lead is more than the standard deviation that the source prints beside MIM's error."""
    margin = above(cells, "rcnn", "mim", CIFAR) - cells["mim", CIFAR, "error_sd"]
    return [Part("lead above the standard deviation", (CIFAR,), margin, absolute=True)]


def c4(cells: Any) -> list[Part]:
    """MIM beats NIN and maxout on MNIST."""
    return [below(cells, "mim", row, MNIST) for row in ("nin", "maxout")]


def c5(cells: Any) -> list[Part]:
    """MIM beats the RCNN on MNIST."""
    return [below(cells, "mim", "rcnn", MNIST)]


def c6(cells: Any) -> list[Part]:
    """NIN beats maxout on MNIST."""
    return [below(cells, "nin", "maxout", MNIST)]


def c7(cells: Any) -> list[Part]:
    """Each pair of rows has the same order in both columns."""
    parts = []
    for a, b in combinations(ROWS, 2):
        gaps = [above(cells, b, a, column) for column in (CIFAR, MNIST)]
        either = largest([smallest(gaps), smallest([-gap for gap in gaps])])
        parts.append(Part(f"{a} and {b} in one order", (CIFAR, MNIST), either))
    return parts


def c8(cells: Any) -> list[Part]:
    """BN helps the maxout NIN, and with each block more."""
    gaps = {blocks: above(cells, without, bn, DEEP) for blocks, (bn, without) in BY_DEPTH.items()}
    deeper = [
        Part(f"{DEEP}: BN gains more with {b} blocks than with {a}", (DEEP,), gaps[b] - gaps[a])
        for a, b in pairwise(gaps)
    ]
    return [*(below(cells, "mim", "mim_plain", s) for s in SETS), *deeper]


def c9(cells: Any) -> list[Part]:
    """With BN the pieces' shares have more entropy, and fewer units are degenerate."""
    bn, without = "mim", "mim_plain"
    parts = []
    for s in SETS:
        more = cells[bn, s, "entropy"] - cells[without, s, "entropy"]
        fewer = cells[without, s, "degenerate"] - cells[bn, s, "degenerate"]
        parts += [
            Part(f"{s}: more entropy with BN", (s,), more),
            Part(f"{s}: fewer degenerate units with BN", (s,), fewer),
        ]
    return parts


def c10(cells: Any) -> list[Part]:
    """Of nine layers the network without BN is clearly worse; one that diverges counts as all wrong."""
    margin = above(cells, "mim_plain", "mim", CIFAR) - WORSE
    return [Part("without BN at least a point worse", (CIFAR,), margin, absolute=True, strict=False)]


CLAIMS: dict[str, Claim] = {
    f"T9.{claim.__name__.upper()}": claim for claim in (c1, c2, c3, c4, c5, c6, c7, c8, c9, c10)
}
