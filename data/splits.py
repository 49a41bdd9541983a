"""Fixed, stratified orders and splits.

Every function depends on nothing but its arguments. Random numbers come from numpy's RandomState, whose
stream numpy has frozen (NEP 19): the order of a split must not change with the numpy version, records refer
to it.
"""

import numpy as np
from numpy.typing import NDArray

Index = NDArray[np.int64]


def stratified_order(y: NDArray[np.integer], seed: int = 0) -> Index:
    """A permutation of range(len(y)) of which *every prefix* has nearly the class shares of y.

    The i-th of the n_c examples of class c, in random order, gets the key (i + u) / n_c with u uniform in [0,
    1); sorting by key puts n_c * f of them, give or take one, among those with key < f.
    """
    rng = np.random.RandomState(seed)
    key = np.empty(len(y))
    for c in np.unique(y):
        rows = np.flatnonzero(y == c)
        n = len(rows)
        key[rows[rng.permutation(n)]] = (np.arange(n) + rng.random_sample(n)) / n
    return np.argsort(key, kind="stable").astype(np.int64)


def split(
    y: NDArray[np.integer], fraction: float, groups: NDArray[np.integer] | None = None, seed: int = 0
) -> tuple[Index, Index]:
    """(rest, part): disjoint row numbers covering range(len(y)).

    Of the n_c rows of class c, part has round(fraction * n_c), but for fraction > 0 at least one and not all
    (all of one row is none).
    With groups (equal number = must stay together) whole groups are taken, see `_whole_groups`.
    Both results are in an order of which every prefix is stratified.
    """
    order = stratified_order(y, seed)
    if groups is not None:
        chosen = _whole_groups(y, groups, fraction, seed)
    else:
        chosen = np.zeros(len(y), dtype=bool)
        for c in np.unique(y):
            rows = order[y[order] == c]
            chosen[rows[: _share(fraction, len(rows))]] = True
    return order[~chosen[order]], order[chosen[order]]


def _share(fraction: float, n: int) -> int:
    return min(max(round(fraction * n), 1), n - 1) if fraction > 0 else 0


def _whole_groups(
    y: NDArray[np.integer], groups: NDArray[np.integer], fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Marks rows so that groups stay whole and every class gives its share of rows, or as near as fits.

    Groups of a class (that of the group's first row) are visited in random order and taken while they fit in
    what is still wanted. A group too large to fit stays behind: in KDD Cup 99 one row occurs 193,081 times
    (39 % of all rows) and must not become most of a validation set.
    """
    rng = np.random.RandomState(seed)
    _, first, member, size = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    taken = np.zeros(len(size), dtype=bool)
    for c in np.unique(y):
        mine = np.flatnonzero(y[first] == c)
        wanted = _share(fraction, int(size[mine].sum()))
        for g in mine[rng.permutation(len(mine))]:
            if wanted == 0:
                break
            if size[g] <= wanted:
                taken[g] = True
                wanted -= size[g]
    return taken[member]


def strata(y: NDArray[np.generic]) -> NDArray[np.integer]:
    """The class [N] by which to stratify: y itself, the 1 of each row of one-hot labels [N, C], or one class
    for all rows where y [N, T] holds the labels of many tasks (or is empty cells, NaN).
    """
    if y.ndim == 1:
        return y.astype(np.int64)
    if np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
        return y.argmax(axis=1)
    return np.zeros(len(y), np.int64)
