"""Methods ranked over data sets: average ranks, paired tests and the critical-difference diagram's numbers.

On each set the most accurate method has rank 1; ties share the mean of their places, a missing accuracy is
worst. Accuracies are rounded to 4 decimals before they are compared, and so are their differences:
floating-point noise must not break a tie.

    rank difference of a method = its mean rank over the sets - (K + 1) / 2      (K methods; lower is better)

The paired test is Wilcoxon's signed-rank test, one-sided: exact where there are neither ties nor zeros, else
the normal approximation with continuity correction and the variance corrected for ties (zeros are dropped).
Friedman's test and Nemenyi's critical difference follow Demsar, JMLR 7, 2006, 1-30.
"""

from __future__ import annotations

import csv
import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
from scipy import special, stats

DIGITS = 4  # decimals of an accuracy in [0, 1]
LARGE = 1000  # a set with at least this many rows is large
EXACT_UP_TO = 400  # pairs: beyond, the exact distribution takes long and the normal one is as good
MISSING = ("", "na", "nan", "n/a", "-")
NOT_METHODS = ("N", "M")  # columns of a table that hold a set's rows and columns


@dataclass(frozen=True)
class Table:
    """Accuracies [S sets, K methods], NaN where missing; sizes [S], the rows of each set, where known."""

    sets: tuple[str, ...]
    methods: tuple[str, ...]
    values: np.ndarray
    sizes: np.ndarray | None = None

    def only(self, mask: np.ndarray) -> Table:
        """The sets where mask [S] is True."""
        kept = tuple(name for name, keep in zip(self.sets, mask, strict=True) if keep)
        sizes = None if self.sizes is None else self.sizes[mask]
        return replace(self, sets=kept, values=self.values[mask], sizes=sizes)


# ---------------------------------------------------------------------------------------------------- ranks


def ranks(values: np.ndarray, digits: int = DIGITS) -> np.ndarray:
    """Ranks [..., K] of accuracies [..., K] along the last axis: 1 = highest, ties averaged, NaN worst."""
    rounded = np.round(np.asarray(values, float), digits)
    return np.asarray(stats.rankdata(np.where(np.isnan(rounded), np.inf, -rounded), axis=-1))


def differences(values: np.ndarray) -> np.ndarray:
    """Rank differences [K] of accuracies [S, K]; they sum to 0."""
    return np.asarray(ranks(values).mean(0) - (values.shape[1] + 1) / 2)


def win_tie_loss(a: np.ndarray, b: np.ndarray) -> tuple[int, int, int]:
    """On how many sets accuracies a [S] are above, equal to and below b [S]; sets that lack one left out."""
    d = _differences(a, b)
    return int((d > 0).sum()), int((d == 0).sum()), int((d < 0).sum())


def _differences(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    d = np.round(np.asarray(a, float) - np.asarray(b, float), DIGITS)
    return d[~np.isnan(d)]


# ---------------------------------------------------------------------------------------------------- tests


def wilcoxon(a: np.ndarray, b: np.ndarray) -> float:
    """One-sided p-value of the paired signed-rank test that a [S] is larger than b [S]; 1 where all tie."""
    d = _differences(a, b)
    moved = d[d != 0]
    n = len(moved)
    if n == 0:
        return 1.0
    places = stats.rankdata(np.abs(moved))
    plus = float(places[moved > 0].sum())
    _, counts = np.unique(np.abs(moved), return_counts=True)
    if n == len(d) and len(counts) == n and n <= EXACT_UP_TO:
        return float(_null(n)[round(plus) :].sum())
    variance = n * (n + 1) * (2 * n + 1) / 24 - float((counts**3 - counts).sum()) / 48
    z = (plus - n * (n + 1) / 4 - 0.5) / math.sqrt(variance)
    return float(special.ndtr(-z))


@cache
def _null(n: int) -> np.ndarray:
    """Probability of each sum of positive ranks, 0..n(n+1)/2, when every sign is a fair coin."""
    found = np.zeros(n * (n + 1) // 2 + 1)
    found[0] = 1.0
    for rank in range(1, n + 1):
        shifted = np.concatenate([np.zeros(rank), found[:-rank]])
        found = (found + shifted) / 2
    return found


@dataclass(frozen=True)
class Friedman:
    """Do the methods differ at all? chi2 (corrected for ties) with K - 1 degrees of freedom, and Iman and
    Davenport's less conservative F with K - 1 and (K - 1)(S - 1).
    """

    chi2: float
    p: float
    f: float
    p_f: float


def friedman(values: np.ndarray) -> Friedman:
    """Friedman's test on accuracies [S, K]."""
    r = ranks(values)
    s, k = r.shape
    spread = float(np.square(r - (k + 1) / 2).sum())  # ties make it smaller than S K (K^2 - 1) / 12
    if spread == 0:
        return Friedman(0.0, 1.0, 0.0, 1.0)
    chi2 = (k - 1) * s**2 * float(np.square(r.mean(0) - (k + 1) / 2).sum()) / spread
    rest = s * (k - 1) - chi2
    f = (s - 1) * chi2 / rest if rest > 1e-12 else math.inf
    p_f = float(special.fdtrc(k - 1, (k - 1) * (s - 1), f)) if s > 1 and math.isfinite(f) else float(s == 1)
    return Friedman(chi2, float(special.chdtrc(k - 1, chi2)), f, p_f)


@cache
def critical_difference(k: int, s: int, alpha: float = 0.05) -> float:
    """Nemenyi's: two of k methods whose mean ranks over s sets differ by this much differ at level alpha."""
    q = float(stats.studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    return q * math.sqrt(k * (k + 1) / (6 * s))


def groups(mean_ranks: Sequence[float], cd: float) -> list[tuple[int, ...]]:
    """The bars of the diagram: largest groups of methods (indices, best first) that lie closer than cd."""
    order = sorted(range(len(mean_ranks)), key=lambda i: mean_ranks[i])
    found: list[tuple[int, ...]] = []
    for start, first in enumerate(order):
        near = [i for i in order[start:] if mean_ranks[i] - mean_ranks[first] < cd]
        if len(near) > 1 and not (found and set(near) <= set(found[-1])):
            found.append(tuple(near))
    return found


# ------------------------------------------------------------------------------------------- a whole ranking


@dataclass(frozen=True)
class Line:
    method: str
    rank: float
    difference: float
    wins: tuple[int, int, int]  # of the baseline over this method: win, tie, loss
    p: float  # one-sided: the baseline is the more accurate; NaN for itself


@dataclass(frozen=True)
class Ranking:
    lines: tuple[Line, ...]  # best first
    sets: int
    baseline: str
    test: Friedman
    cd: float
    missing: int = 0  # accuracies

    def groups(self) -> list[tuple[str, ...]]:
        found = groups([line.rank for line in self.lines], self.cd)
        return [tuple(self.lines[i].method for i in group) for group in found]


def ranking(table: Table, baseline: str | None = None) -> Ranking:
    """The table's methods in order, each against the baseline (the best method where none is named)."""
    mean = ranks(table.values).mean(0)
    middle = (len(table.methods) + 1) / 2
    order = sorted(range(len(mean)), key=lambda i: (mean[i], table.methods[i]))
    base = table.methods.index(baseline) if baseline else order[0]
    own = table.values[:, base]
    lines = tuple(
        Line(
            table.methods[i],
            float(mean[i]),
            float(mean[i]) - middle,
            win_tie_loss(own, table.values[:, i]),
            math.nan if i == base else wilcoxon(own, table.values[:, i]),
        )
        for i in order
    )
    cd = critical_difference(len(mean), len(table.sets))
    test, missing = friedman(table.values), int(np.isnan(table.values).sum())
    return Ranking(lines, len(table.sets), table.methods[base], test, cd, missing)


def selections(table: Table) -> dict[str, Table]:
    """All sets and, where sizes are known, the large and the small ones; none of them empty."""
    found = {"all": table}
    if table.sizes is not None:
        found |= {"large": table.only(table.sizes >= LARGE), "small": table.only(table.sizes < LARGE)}
    return {name: part for name, part in found.items() if part.sets}


TITLES = {"all": "all sets", "large": f"sets with N >= {LARGE}", "small": f"sets with N < {LARGE}"}


def text(found: Ranking, title: str) -> str:
    """The ranking for the terminal."""
    width = max(len("method"), *(len(line.method) for line in found.lines))
    head = f"{'method':<{width}}  mean rank  difference  {'win/tie/loss':>12}  p (one-sided)"
    sets = f"{found.sets} set{'s' if found.sets != 1 else ''}"
    rows = [f"{title}: {sets}, {len(found.lines)} methods, against {found.baseline}", head]
    for line in found.lines:
        own = math.isnan(line.p)
        wins = "" if own else "/".join(map(str, line.wins))
        p = "baseline" if own else f"{line.p:.2g}"
        cells = f"{line.rank:>9.3f}  {line.difference:>+10.3f}  {wins:>12}  {p:>13}"
        rows.append(f"{line.method:<{width}}  {cells}")
    test = found.test
    iman = "" if found.sets == 1 else f"; F = {test.f:.2f}, p = {test.p_f:.2g}"  # undefined for one set
    rows.append(f"Friedman: chi2 = {test.chi2:.2f}, p = {test.p:.2g}{iman}")
    rows.append(f"critical difference (Nemenyi, 0.05): {found.cd:.3f}")
    rows += [f"not different: {', '.join(group)}" for group in found.groups()]
    if found.missing:
        rows.append(
            f"note: {found.missing} of {found.sets * len(found.lines)} accuracies are missing: ranked last"
            " in their set, left out of the paired tests"
        )
    return "\n".join(rows)


# ------------------------------------------------------------------------------------------------ CSV files


def read(file: Path | str, sizes: Path | str | None = None) -> Table:
    """A CSV of accuracies: a line a data set, its name first, then a column a method.

    A column N holds the rows of each set and M its columns; `sizes` is another CSV (name, N). Accuracies are
    shares in [0, 1] or per cent; NA or nothing where one is missing. Raises ValueError with one line for
    anything else.
    """
    head, lines = _csv(Path(file))
    methods = [name for name in head[1:] if name not in NOT_METHODS]
    if len(methods) < 2:
        raise ValueError(f"{file}: needs a column of names and at least two methods, has {', '.join(head)}")
    values = np.array(
        [[_number(file, at, name, row[name], missing=True) for name in methods] for at, row in lines]
    )
    sets = tuple(row[head[0]] for _, row in lines)
    empty = np.isnan(values).all(1)
    if empty.any():
        at = int(np.flatnonzero(empty)[0])
        raise ValueError(f"{file}, line {lines[at][0]}: {sets[at]} has no accuracy of any method")
    if (values < 0).any() or (values > 100).any():
        raise ValueError(f"{file}: accuracies must lie in [0, 1], or in [0, 100] if all are per cent")
    if (values > 1).any():
        values = values / 100
    known: np.ndarray | None = None
    if sizes is not None:
        known = _sizes(Path(sizes), sets)
    elif "N" in head:
        known = np.array([_number(file, at, "N", row["N"]) for at, row in lines])
    return Table(sets, tuple(methods), values, known)


def _sizes(file: Path, sets: tuple[str, ...]) -> np.ndarray:
    head, lines = _csv(file)
    column = "N" if "N" in head else head[1] if len(head) > 1 else ""
    if not column:
        raise ValueError(f"{file}: needs two columns, the name of a set and its number of rows")
    found = {row[head[0]]: _number(file, at, column, row[column]) for at, row in lines}
    lacking = [name for name in sets if name not in found]
    if lacking:
        raise ValueError(f"{file} has no size of {', '.join(lacking[:3])}{' ...' if lacking[3:] else ''}")
    return np.array([found[name] for name in sets])


def _csv(file: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Heading and (line number, row) of a CSV file, names stripped and each only once."""
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8-sig").splitlines()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is not a CSV file in UTF-8: {error}") from error
    filled = [
        (at, [cell.strip() for cell in row]) for at, row in enumerate(rows, 1) if any(map(str.strip, row))
    ]
    if len(filled) < 2:
        raise ValueError(f"{file}: needs a heading and at least one data set")
    head = filled[0][1]
    for what, names in (("column", head), ("data set", [row[0] for _, row in filled[1:]])):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(f"{file}: {what} {twice[0]!r} occurs twice")
    for at, row in filled[1:]:
        if len(row) != len(head):
            raise ValueError(f"{file}, line {at}: {len(row)} cells, the heading has {len(head)}")
    return head, [(at, dict(zip(head, row, strict=True))) for at, row in filled[1:]]


def _number(file: Path | str, at: int, column: str, cell: str, missing: bool = False) -> float:
    if missing and cell.lower() in MISSING:
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise ValueError(f"{file}, line {at}, column {column}: {cell!r} is not a number")
    return value


def check_baseline(table: Table, baseline: str) -> None:
    """Raises ValueError with one line where no method has that name."""
    if baseline not in table.methods:
        near = difflib.get_close_matches(baseline, table.methods, n=1, cutoff=0.4)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"baseline={baseline}{hint}: no such method; there are {', '.join(table.methods)}")
