"""The claims of Table 10, AdaBN (inequalities: the published file, T10.C1-C12)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from reports.claims import Claim, Part

SIX = ("aw", "dw", "wd", "ad", "da", "wa")
MULTI = ("ad_w", "aw_d", "dw_a")
BING = ("cb", "bc")
SEGMENTED = ("gf1", "tianhui")
ORDER = ("source", "coral", "adabn", "adabn_coral")
FROM_AMAZON = ("aw", "ad")
LAYERS = ("shallow", "deep")
NAMELESS = ("digit_domains",)  # which of its domains stands for Amazon is arbitrary


def average(cells: Any, row: str, columns: Sequence[str]) -> Any:
    """Mean accuracy of a row over columns."""
    total = cells[row, columns[0], "accuracy"]
    for column in columns[1:]:
        total = total + cells[row, column, "accuracy"]
    return total * (1 / len(columns))


def ahead(
    cells: Any,
    better: str,
    than: str,
    columns: Sequence[str],
    strict: bool = True,
    not_on: tuple[str, ...] = (),
) -> Part:
    """The first row's average is above the second's."""
    margin = average(cells, better, columns) - average(cells, than, columns)
    where = columns[0] if len(columns) == 1 else f"average of {len(columns)}"
    return Part(f"{where}: {better} above {than}", tuple(columns), margin, strict=strict, not_on=not_on)


def gain(cells: Any, column: str) -> Any:
    return cells["adabn", column, "accuracy"] - cells["source", column, "accuracy"]


def c1(cells: Any) -> list[Part]:
    """The averages rise from row to row of ORDER."""
    return [ahead(cells, b, a, SIX) for a, b in pairwise(ORDER)]


def c2(cells: Any) -> list[Part]:
    """Subspace methods are below the network as it is. LSSA is not run here and no part on ours."""
    parts = [ahead(cells, "source", row, SIX) for row in ("sa", "gfk")]
    lssa = ahead(cells, "source", "lssa", SIX)
    return [*parts, lssa] if isinstance(lssa.margin, float) else parts


def c3(cells: Any) -> list[Part]:
    """AdaBN is nowhere worse."""
    return [ahead(cells, "adabn", "source", (column,), strict=False) for column in SIX]


def c4(cells: Any) -> list[Part]:
    """AdaBN helps on three of the six, by name."""
    three = ("aw", "ad", "dw")
    return [ahead(cells, "adabn", "source", (column,), not_on=NAMELESS) for column in three]


def c5(cells: Any) -> list[Part]:
    """Its gain from Amazon is larger than each other one."""
    others = [column for column in SIX if column not in FROM_AMAZON]
    return [
        Part(f"larger gain on {a} than on {b}", (a, b), gain(cells, a) - gain(cells, b), not_on=NAMELESS)
        for a in FROM_AMAZON
        for b in others
    ]


def c6(cells: Any) -> list[Part]:
    """CORAL on top of AdaBN helps."""
    return [ahead(cells, "adabn_coral", "adabn", SIX)]


def c7(cells: Any) -> list[Part]:
    """The same on Caltech-Bing."""
    return [ahead(cells, "adabn_coral", "adabn", BING)]


def c8(cells: Any) -> list[Part]:
    """The order of C1 with two sources."""
    return [ahead(cells, b, a, MULTI) for a, b in pairwise(ORDER)]


def c9(cells: Any) -> list[Part]:
    """The domains are nearer to each other after adaptation."""
    return [
        Part(
            f"{column}, {layer}: nearer after",
            (column,),
            cells["adabn", column, f"{layer}_before"] - cells["adabn", column, f"{layer}_after"],
        )
        for column in FROM_AMAZON
        for layer in LAYERS
    ]


def c10(cells: Any) -> list[Part]:
    """64 target pictures are enough."""
    return [ahead(cells, "adabn_64", "source", ("aw",))]


def c11(cells: Any) -> list[Part]:
    """32 and 16 are."""
    return [ahead(cells, f"adabn_{n}", "source", ("aw",)) for n in (32, 16)]


def c12(cells: Any) -> list[Part]:
    """Segmentation gains."""
    return [ahead(cells, "adabn", "source", (column,)) for column in SEGMENTED]


CLAIMS: dict[str, Claim] = {
    f"T10.{claim.__name__.upper()}": claim for claim in (c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12)
}
