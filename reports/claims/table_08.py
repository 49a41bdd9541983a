"""The claims of Table 8, BN in LSTM language models (inequalities: the published file, T8.C1-C10)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from reports.claims import Claim, Part, Printed

PTB, CHAR, PMNIST = "ptb", "char", "pmnist"
SIZES = ("small", "medium", "large")


def bn(size: str) -> str:
    return f"{size}_bn"


def below(cells: Any, size: str, metric: str) -> Part:
    """metric(BN) < metric(plain)."""
    margin = cells[size, PTB, metric] - cells[bn(size), PTB, metric]
    return Part(f"{size}: BN below plain", (PTB,), margin)


def loss(cells: Any, size: str) -> Any:
    """What BN loses on validation: val(BN) - val(plain)."""
    return cells[bn(size), PTB, "val"] - cells[size, PTB, "val"]


def log_ratio(cells: Any, size: str) -> Any:
    """ln(train(BN) / train(plain)); of printed figures from these, of ours from the runs' logarithms."""
    if isinstance(cells, Printed):
        told = [cells[row, PTB, "train"] for row in (bn(size), size)]
        return math.log(told[0] / told[1]) if all(v > 0 for v in told) else math.nan
    return cells[bn(size), PTB, "train_log"] - cells[size, PTB, "train_log"]


def c1(cells: Any) -> list[Part]:
    """BN lowers the training perplexity."""
    return [below(cells, size, "train") for size in SIZES]


def c2(cells: Any) -> list[Part]:
    """BN lowers the validation perplexity."""
    return [below(cells, size, "val") for size in SIZES]


def c3(cells: Any) -> list[Part]:
    """BN raises the validation perplexity."""
    return [Part(f"{size}: BN above plain", (PTB,), loss(cells, size)) for size in SIZES]


def c4(cells: Any) -> list[Part]:
    """What BN loses grows from size to size."""
    return [
        Part(f"BN loses more: {large} than {small}", (PTB,), loss(cells, large) - loss(cells, small))
        for small, large in pairwise(SIZES)
    ]


def c5(cells: Any) -> list[Part]:
    """It is largest for the large network."""
    *others, large = SIZES
    return [
        Part(f"BN loses more: {large} than {size}", (PTB,), loss(cells, large) - loss(cells, size))
        for size in others
    ]


def c6(cells: Any) -> list[Part]:
    """The gap between validation and training is wider with BN."""

    def gap(row: str) -> Any:
        return cells[row, PTB, "val"] - cells[row, PTB, "train"]

    return [Part(f"{size}: wider gap with BN", (PTB,), gap(bn(size)) - gap(size)) for size in SIZES]


def c7(cells: Any) -> list[Part]:
    """The ratio of training perplexities is smallest for the large network; margins in logarithms."""
    *others, large = SIZES
    return [
        Part(f"larger gain: {large} than {size}", (PTB,), log_ratio(cells, size) - log_ratio(cells, large))
        for size in others
    ]


def c8(cells: Any) -> list[Part]:
    """BN is ahead in training early on."""
    return [below(cells, size, "early") for size in SIZES]


def c9(cells: Any) -> list[Part]:
    """Recurrent BN from gamma = 1 does not lower the training perplexity; margin in logarithms."""
    margin = cells["small_recurrent_bn_1", PTB, "train_log"] - cells["small", PTB, "train_log"]
    return [Part("small: not below plain", (PTB,), margin, strict=False)]


def c10(cells: Any) -> list[Part]:
    """Recurrent BN from gamma = 0.1 is not worse, on characters and on permuted MNIST."""
    bits = cells["char", CHAR, "bits"] - cells["char_recurrent_bn", CHAR, "bits"]
    accuracy = cells["pmnist_recurrent_bn", PMNIST, "accuracy"] - cells["pmnist", PMNIST, "accuracy"]
    return [
        Part("characters: not more bits", (CHAR,), bits, strict=False),
        Part("permuted MNIST: not less accurate", (PMNIST,), accuracy, strict=False),
    ]


CLAIMS: dict[str, Claim] = {
    f"T8.{claim.__name__.upper()}": claim for claim in (c1, c2, c3, c4, c5, c6, c7, c8, c9, c10)
}
