"""The claims of Table 5, self-normalizing networks on UCI sets (inequalities: the published file, T5.C1-C9).

Ranks and p-values: lower is better. On ours they are taken among our own rows.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from reports.claims import Claim, Part, known

PRINTED = ("snn", "svm", "forest", "layer")
NETWORKS = ("snn", "msra", "layer", "highway", "resnet", "weight", "batch")  # in the source's order
LEVEL = 0.05  # of significance


def ordered(cells: Any, rows: tuple[str, ...], column: str, metric: str) -> list[Part]:
    """Each row ranks before the next."""
    return [
        Part(f"{column}: {a} before {b}", (column,), cells[b, column, metric] - cells[a, column, metric])
        for a, b in pairwise(rows)
    ]


def significant(cells: Any, row: str) -> list[Part]:
    """p(SNN over the row) < 0.05 on the large sets."""
    return [Part(f"large: snn over {row}", ("large",), LEVEL - cells[row, "large", "p"])]


def c1(cells: Any) -> list[Part]:
    """Order of the four printed methods."""
    return ordered(cells, PRINTED, "large", "rank_diff")


def c2(cells: Any) -> list[Part]:
    """SNN over SVM."""
    return significant(cells, "svm")


def c3(cells: Any) -> list[Part]:
    """SNN over random forest."""
    return significant(cells, "forest")


def c4(cells: Any) -> list[Part]:
    """SNN over LN."""
    return significant(cells, "layer")


def c5(cells: Any) -> list[Part]:
    """LN is the best network after SNN; on printed figures as far as networks are printed."""
    s, layer = "large", cells["layer", "large", "rank_diff"]
    others = [row for row in NETWORKS if row not in ("snn", "layer")]
    return [
        *ordered(cells, ("snn", "layer"), s, "rank_diff"),
        *known(
            [
                Part(f"{s}: {row} not before layer", (s,), cells[row, s, "rank_diff"] - layer, strict=False)
                for row in others
            ],
            few=True,
        ),
    ]


def c6(cells: Any) -> list[Part]:
    """Order of the seven networks over all sets."""
    return ordered(cells, NETWORKS, "all", "fnn_rank_diff")


def c7(cells: Any) -> list[Part]:
    """MSRA before WN before BN."""
    return ordered(cells, ("msra", "weight", "batch"), "large", "rank")


def c8(cells: Any) -> list[Part]:
    """SVM no worse than SNN on small sets."""
    margin = cells["snn", "small", "rank"] - cells["svm", "small", "rank"]
    return [Part("small: svm not after snn", ("small",), margin, strict=False)]


def c9(cells: Any) -> list[Part]:
    """SNN selected deeper than every other network."""
    deepest = cells["snn", "all", "depth"]
    return [
        Part(f"all: snn deeper than {row}", ("all",), deepest - cells[row, "all", "depth"])
        for row in NETWORKS
        if row != "snn"
    ]


CLAIMS: dict[str, Claim] = {
    f"T5.{claim.__name__.upper()}": claim for claim in (c1, c2, c3, c4, c5, c6, c7, c8, c9)
}
