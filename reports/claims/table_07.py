"""The claims of Table 7, BN in a CNN for speech (inequalities: the published file, T7.C1-C8)."""

from __future__ import annotations

from typing import Any

from reports.claims import Claim, Part

SETS = ("wm50", "wm100")
ACTIVATIONS = ("relu", "sigmoid")
LOW, HIGH = "0.008", "0.08"  # the learning rates without and with BN
NEAR = 0.5  # points within which two errors count as level
LEAST, MOST = 0.08, 0.13  # relative gains, from the abstract of the presumed source
SHARE = 0.6  # of the plain network's iterations, from the same abstract


def plain(activation: str, rate: str = LOW) -> str:
    return f"{activation}_plain_{rate}"


def bn(activation: str, rate: str = HIGH) -> str:
    return f"{activation}_bn_{rate}"


def gain(cells: Any, activation: str, column: str) -> Any:
    """Points that BN at its rate saves against the plain network at its own."""
    return cells[plain(activation), column, "error"] - cells[bn(activation), column, "error"]


def c1(cells: Any) -> list[Part]:
    """BN lowers the error in all four pairs."""
    return [Part(f"{s}, {a}: BN below plain", (s,), gain(cells, a, s)) for s in SETS for a in ACTIVATIONS]


def c2(cells: Any) -> list[Part]:
    """The gain is larger with the sigmoid than with ReLU."""
    return [
        Part(f"{s}: sigmoid gains more", (s,), gain(cells, "sigmoid", s) - gain(cells, "relu", s))
        for s in SETS
    ]


def c3(cells: Any) -> list[Part]:
    """The gain shrinks with more data."""
    half, whole = SETS
    return [
        Part(f"{a}: less gain on {whole}", SETS, gain(cells, a, half) - gain(cells, a, whole))
        for a in ACTIVATIONS
    ]


def level(cells: Any, column: str) -> list[Part]:
    """abs(err(sigmoid, BN) - err(ReLU, plain)) <= NEAR."""
    gap = cells[bn("sigmoid"), column, "error"] - cells[plain("relu"), column, "error"]
    return [
        Part("sigmoid with BN not worse", (column,), NEAR - gap, absolute=True, strict=False),
        Part("sigmoid with BN not better", (column,), NEAR + gap, absolute=True, strict=False),
    ]


def c4(cells: Any) -> list[Part]:
    """With BN the sigmoid network is level with the plain ReLU network, on the smaller set."""
    return level(cells, "wm50")


def c5(cells: Any) -> list[Part]:
    """The same on the larger set."""
    return level(cells, "wm100")


def c6(cells: Any) -> list[Part]:
    """Each gain is a share of the plain network's error between LEAST and MOST; margins in points."""
    parts = []
    for s in SETS:
        for a in ACTIVATIONS:
            error, gained = cells[plain(a), s, "error"], gain(cells, a, s)
            parts += [
                Part(f"{s}, {a}: at least {100 * LEAST:g} %", (s,), gained - error * LEAST, strict=False),
                Part(f"{s}, {a}: at most {100 * MOST:g} %", (s,), error * MOST - gained, strict=False),
            ]
    return parts


def c7(cells: Any) -> list[Part]:
    """Without BN 10 times the learning rate is worse; a run that diverges counts as all wrong."""
    return [
        Part(
            f"{s}, {a}: plain worse at {HIGH}",
            (s,),
            cells[plain(a, HIGH), s, "error"] - cells[plain(a), s, "error"],
        )
        for s in SETS
        for a in ACTIVATIONS
    ]


def c8(cells: Any) -> list[Part]:
    """BN is at the plain network's best error after at most SHARE of that network's steps to it."""
    return [
        Part(
            f"{s}, {a}: in {100 * SHARE:g} % of the steps",
            (s,),
            cells[plain(a), s, "steps"] * SHARE - cells[bn(a), s, "steps"],
            strict=False,
        )
        for s in SETS
        for a in ACTIVATIONS
    ]


CLAIMS: dict[str, Claim] = {
    f"T7.{claim.__name__.upper()}": claim for claim in (c1, c2, c3, c4, c5, c6, c7, c8)
}
