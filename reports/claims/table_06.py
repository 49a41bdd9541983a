"""The claims of Table 6, AUC against depth (inequalities: the published file, T6.C1-C12). Higher is better.

The survey and its source print different rows and depths: on printed figures each claim is about those that
are there.
"""

from __future__ import annotations

from itertools import pairwise, permutations, product
from typing import Any

from reports.claims import Claim, Part, known
from reports.statistics import largest, smallest

DEPTHS = (2, 3, 4, 6, 8, 16, 32)
ROWS = ("snn", "batch", "weight", "layer", "resnet", "highway", "msra")
RIVALS = ("batch", "weight", "layer")  # those the lead of SNN is taken over
EQUAL = 1.0  # points of AUC within which two methods are equal: ours, about the sd of one repeat


def auc(cells: Any, row: str, d: int) -> Any:
    return cells[row, f"d{d}", "auc"]


def above(cells: Any, a: str, b: str, d: int) -> Part:
    return Part(f"d{d}: {a} above {b}", (f"d{d}",), auc(cells, a, d) - auc(cells, b, d))


def c1(cells: Any) -> list[Part]:
    """SNN at least 82.5 everywhere, largest - smallest at most 2.0."""
    least = [
        Part(f"d{d}: at least 82.5", (f"d{d}",), auc(cells, "snn", d) - 82.5, absolute=True, strict=False)
        for d in DEPTHS
    ]
    spread = [
        Part(
            f"d{a} at most 2.0 above d{b}",
            (f"d{a}", f"d{b}"),
            2.0 - (auc(cells, "snn", a) - auc(cells, "snn", b)),
            absolute=True,
            strict=False,
        )
        for a, b in permutations(DEPTHS, 2)
    ]
    return known(least + spread)


def c2(cells: Any) -> list[Part]:
    """SNN above BN, WN, LN and ResNet from 6 layers on."""
    return known([above(cells, "snn", x, d) for d in (6, 8, 16, 32) for x in (*RIVALS, "resnet")])


def c3(cells: Any) -> list[Part]:
    """LN above SNN at 2."""
    return [above(cells, "layer", "snn", 2)]


def c4(cells: Any) -> list[Part]:
    """WN equal to SNN at 2."""
    pairs = (("weight", "snn"), ("snn", "weight"))
    return [
        Part(
            f"d2: {a} at most {EQUAL} above {b}",
            ("d2",),
            EQUAL - (auc(cells, a, 2) - auc(cells, b, 2)),
            strict=False,
        )
        for a, b in pairs
    ]


def falls(cells: Any, row: str, shallow: int, deep: int, by: float) -> list[Part]:
    """The row loses from one depth to another, and loses more than `by` points on the paper's data."""
    columns = (f"d{shallow}", f"d{deep}")
    loss = auc(cells, row, shallow) - auc(cells, row, deep)
    return [
        Part(f"{row}: d{deep} below d{shallow}", columns, loss),
        Part(f"{row}: d{deep} more than {by:g} below d{shallow}", columns, loss - by, absolute=True),
    ]


def c5(cells: Any) -> list[Part]:
    """BN loses more than 5 from 2 to 16."""
    return falls(cells, "batch", 2, 16, 5.0)


def c6(cells: Any) -> list[Part]:
    """BN is worst up to 16, WN at 32."""
    worst = {d: "weight" if d == 32 else "batch" for d in DEPTHS}
    return known([above(cells, x, worst[d], d) for d in DEPTHS for x in ROWS if x != worst[d]])


def c7(cells: Any) -> list[Part]:
    """WN loses more than 10 from 16 to 32."""
    return falls(cells, "weight", 16, 32, 10.0)


def lead_gain(cells: Any, a: int, b: int) -> Any:
    """Lead of SNN at depth b minus that at depth a, the lead being the least of SNN - X over the rivals X.

    min_X p_X - min_Y q_Y = min_X max_Y (p_X - q_Y): an order statistic of linear margins.
    """

    def lead(x: str, d: int) -> Any:
        return auc(cells, "snn", d) - auc(cells, x, d)

    return smallest([largest([lead(x, b) - lead(y, a) for y in RIVALS]) for x in RIVALS])


def c8(cells: Any) -> list[Part]:
    """The lead does not fall from each depth to the next (on printed figures: the next printed one)."""
    there = [d for d in DEPTHS if known([above(cells, "snn", x, d) for x in RIVALS], few=True)]
    steps = pairwise(there if len(there) > 1 else DEPTHS)
    return [
        Part(f"lead at d{b} not below that at d{a}", (f"d{a}", f"d{b}"), lead_gain(cells, a, b), strict=False)
        for a, b in steps
    ]


def c9(cells: Any) -> list[Part]:
    """The lead at 8, 16 and 32 exceeds that at every depth up to 6."""
    return known(
        [
            Part(f"lead at d{b} above that at d{a}", (f"d{a}", f"d{b}"), lead_gain(cells, a, b))
            for a, b in product((2, 3, 4, 6), (8, 16, 32))
        ]
    )


def c10(cells: Any) -> list[Part]:
    """BN below MSRA at every depth."""
    return known([above(cells, "msra", "batch", d) for d in DEPTHS])


def c11(cells: Any) -> list[Part]:
    """LN above BN at every depth."""
    return known([above(cells, "layer", "batch", d) for d in DEPTHS])


def c12(cells: Any) -> list[Part]:
    """ResNet second after SNN at 32."""
    return [above(cells, "snn", "resnet", 32), *(above(cells, "resnet", x, 32) for x in RIVALS)]


CLAIMS: dict[str, Claim] = {
    f"T6.{claim.__name__.upper()}": claim for claim in (c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12)
}
