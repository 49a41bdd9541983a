"""Claims, one file a table: short pure functions of cells, on the survey's, the source's or our figures.

`cells[row, column, metric]` is a number (NaN where nothing is printed) or, on ours, an expression in the
cell's mean; a claim does ordinary arithmetic on it and returns its parts. It is met when every part is.
The metric `error_sd` is the standard deviation that the source prints beside an error, a threshold for ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from reports.published import Published
from reports.statistics import Linear, Margin, smallest


@dataclass(frozen=True)
class Part:
    """One condition of a claim: met when its signed margin is positive."""

    name: str
    columns: tuple[str, ...]
    margin: Margin
    absolute: bool = False  # holds a threshold that means something on the paper's data and epochs only
    strict: bool = True  # False: a margin of 0 meets it, as in <=
    not_on: tuple[str, ...] = ()  # data that stand in for the column, but can say nothing of this condition


Claim = Callable[[Any], list[Part]]
SPREAD = "_sd"


class Printed:
    """The survey's or the source's figures as `cells`."""

    def __init__(self, published: Published, whose: str):
        self.published, self.whose = published, whose

    def __getitem__(self, cell: tuple[str, str, str]) -> float:
        row, column, metric = cell
        figure = self.published.figure(row, column, metric.removesuffix(SPREAD))
        name = self.whose + (SPREAD if metric.endswith(SPREAD) else "")
        value = getattr(figure, name, None)  # the survey prints no standard deviation
        return math.nan if value is None else float(value)


class Measured:
    """Our figures as `cells`: expressions in the cells' means, whose intervals the statistics find."""

    def __init__(self, published: Published | None = None):
        self.printed = Printed(published, "source") if published else None

    def __getitem__(self, cell: tuple[str, str, str]) -> Linear | float:
        if self.printed and cell[2].endswith(SPREAD):
            return self.printed[cell]
        return Linear({cell: 1.0})


def known(parts: list[Part], few: bool = False) -> list[Part]:
    """The parts whose cells are printed, for a claim about whatever is printed; ours are all known.

    Where none is, all of them (the claim is then n/a), or, with `few`, an empty list.
    """
    found = [p for p in parts if not (isinstance(p.margin, float) and math.isnan(p.margin))]
    return found if found or few else parts


def of(table: str) -> dict[str, Claim]:
    """The claims of a table ("T3"): id -> function."""
    found: dict[str, Claim] = import_module(f"reports.claims.table_{int(table[1:]):02d}").CLAIMS
    return found


def on_printed(claim: Claim, published: Published, whose: str) -> tuple[float | None, str]:
    """Margin of the worst part and holds | fails | n/a, on the survey's or the source's figures."""
    parts = claim(Printed(published, whose))
    margin: float = smallest([part.margin for part in parts])
    if math.isnan(margin):
        return None, "n/a"
    met = all(_number(part) > 0 or (not part.strict and _number(part) == 0) for part in parts)
    return margin, "holds" if met else "fails"


def _number(part: Part) -> float:
    assert isinstance(part.margin, float)
    return part.margin
