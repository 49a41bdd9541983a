"""The claims of Table 4, DQN with weight normalisation (inequalities: the published file, T4.C1-C7, M1-M7).

Two blocks, kept apart: C is judged on the Atari games alone, M asks the same of MinAtar, where nothing is
printed, with Freeway in the place of Enduro. They are claims of their own and not parts of one: a claim has
its worst part's margin and its fewest seeds, so that one seed of Atari would leave the verdict on five seeds
of MinAtar open. Asterix is in no claim. There is no M5: the best rate belongs to an agent, not to a game.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reports.claims import Claim, Part, Printed

BREAKOUT, SPACE_INVADERS = "breakout", "space_invaders"
ATARI = (BREAKOUT, "enduro", "seaquest", SPACE_INVADERS)
MINATAR = (
    "breakout_minatar", "freeway_minatar", "seaquest_minatar", "space_invaders_minatar",
)  # fmt: skip
PLAIN, WN, BN = "dqn", "dqn_wn", "dqn_bn"
KEPT = 0.95  # share of the plain network's score: less would be a loss (ours)


def margin(cells: Any, better: str, than: str, game: str, metric: str = "best") -> Any:
    return cells[better, game, metric] - cells[than, game, metric]


def ahead(cells: Any, games: Sequence[str]) -> list[Part]:
    """WN scores more, game by game."""
    return [Part(f"{game}: WN above plain", (game,), margin(cells, WN, PLAIN, game)) for game in games]


def behind(cells: Any, row: str, name: str, games: Sequence[str]) -> list[Part]:
    """A row scores less than the plain network, game by game."""
    return [Part(f"{game}: {name} below plain", (game,), margin(cells, PLAIN, row, game)) for game in games]


def no_loss(cells: Any, game: str) -> list[Part]:
    """WN keeps nearly all of the plain network's score."""
    kept = cells[WN, game, "best"] - cells[PLAIN, game, "best"] * KEPT
    return [Part(f"{game}: WN at least {KEPT:g} of plain", (game,), kept, strict=False)]


def on_average(cells: Any, games: Sequence[str]) -> list[Part]:
    """Mean relative gain; of ours from shares of the plain network's mean score, which is 1 there."""

    def gain(game: str) -> Any:
        if isinstance(cells, Printed):
            return margin(cells, WN, PLAIN, game) / cells[PLAIN, game, "best"]
        return margin(cells, WN, PLAIN, game, "relative")

    first, *others = games
    total = gain(first)
    for game in others:
        total = total + gain(game)
    return [Part(f"mean gain over {len(games)} games", tuple(games), total * (1 / len(games)))]


def faster(cells: Any, game: str) -> list[Part]:
    """WN has more area under its test curve."""
    return [Part(f"{game}: WN above plain", (game,), margin(cells, WN, PLAIN, game, "mean"))]


def c1(cells: Any) -> list[Part]:
    """WN is ahead on all but Breakout."""
    return ahead(cells, ATARI[1:])


def c2(cells: Any) -> list[Part]:
    """On Breakout it is behind."""
    return behind(cells, WN, "WN", [BREAKOUT])


def c3(cells: Any) -> list[Part]:
    """By next to nothing."""
    return no_loss(cells, BREAKOUT)


def c4(cells: Any) -> list[Part]:
    """WN is ahead on average."""
    return on_average(cells, ATARI)


def c5(cells: Any) -> list[Part]:
    """WN's best learning rate is not lower. A search of rates, which no run here is part of."""
    rates = cells[WN, "rate", "rate"] - cells[PLAIN, "rate", "rate"]
    return [Part("best rate: WN not below plain", ("rate",), rates, strict=False)]


def c6(cells: Any) -> list[Part]:
    """WN learns faster."""
    return faster(cells, SPACE_INVADERS)


def c7(cells: Any) -> list[Part]:
    """BN is behind on every game."""
    return behind(cells, BN, "BN", ATARI)


def m1(cells: Any) -> list[Part]:
    return ahead(cells, MINATAR[1:])


def m2(cells: Any) -> list[Part]:
    return behind(cells, WN, "WN", MINATAR[:1])


def m3(cells: Any) -> list[Part]:
    return no_loss(cells, MINATAR[0])


def m4(cells: Any) -> list[Part]:
    return on_average(cells, MINATAR)


def m6(cells: Any) -> list[Part]:
    return faster(cells, MINATAR[-1])


def m7(cells: Any) -> list[Part]:
    return behind(cells, BN, "BN", MINATAR)


CLAIMS: dict[str, Claim] = {
    f"T4.{claim.__name__.upper()}": claim for claim in (c1, c2, c3, c4, c5, c6, c7, m1, m2, m3, m4, m6, m7)
}
