"""What the sets of tables share: columns from text, standardising, names; and `table`, the user's own CSV."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data.errors import DataSetMissing
from data.splits import split

STEP = 16384  # rows at a time, to stay in the processor's cache
OPTIONS = {"path": None, "target": None, "test": None}
TEST_SHARE = 0.25  # of a user's table without a test file; the share of the collection's own folds
CATEGORIES = 1000  # a text column with more values is a name or a number of each row, not a category
Built = tuple[dict[str, Any], dict[str, Any]]


class SetFacts(NamedTuple):
    """One set of a collection: rows, columns as a network sees them, classes, and how many folds it has."""

    name: str
    n: int
    d: int
    classes: int
    folds: int


def check_set(name: Any, known: Iterable[str], collection: str) -> None:
    """Raises ValueError, one line with the nearest names, unless the collection has the set."""
    names = sorted(known)
    if name in names:
        return
    few = f"{len(names)} sets, `python -m data sets {collection}` lists them"
    if name is None:
        raise ValueError(f"data set {collection} needs the option set=NAME; there are {few}")
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    raise ValueError(f"{collection} has no set {name!r}{hint} There are {few}")


def check_fold(fold: Any, folds: int, what: str) -> None:
    """Raises ValueError unless fold is one of 0 .. folds - 1."""
    if isinstance(fold, bool) or not isinstance(fold, int) or not 0 <= fold < folds:
        only = "only fold 0" if folds == 1 else f"the folds 0 to {folds - 1}"
        raise ValueError(f"{what} has {only}, not fold={fold!r}")


def check_choice(value: Any, choices: Sequence[str], what: str) -> None:
    """Raises ValueError unless value is one of the words."""
    if value not in choices:
        raise ValueError(f"{what} must be {' or '.join(choices)}, not {value!r}")


def check_cells(x: NDArray[np.floating], where: str) -> None:
    """Raises ValueError that names the first cell of x [N, D] which is no finite number."""
    bad = np.argwhere(~np.isfinite(x))
    if len(bad):
        row, column = bad[0] + 1
        raise ValueError(
            f"{where}: {len(bad)} cells are empty or no finite number, the first in row {row}, "
            f"column {column} of the data; repair the file"
        )


def no_auc(part: str, tasks: Sequence[str], y: NDArray[Any]) -> list[str]:
    """A note on the tasks [N, T] of this part that have no area under the ROC curve, if there are any."""
    if y.ndim == 1:
        return []
    flat = [t for t, column in zip(tasks, y.T, strict=True) if len(np.unique(column[column >= 0])) < 2]
    return [f"{part}: no AUC for {', '.join(flat)} (fewer than two classes)"] if flat else []


def class_notes(y_train: NDArray[np.integer], y_test: NDArray[np.integer], n_classes: int) -> list[str]:
    """What a reader must know of the classes of these two parts."""
    notes = []
    if len(np.unique(y_train)) == 1:
        notes.append("the training part has one class only: a classifier can learn nothing but that class")
    if new := len(np.setdiff1d(y_test, y_train)):
        notes.append(f"{new} of {n_classes} classes occur in the test part only")
    return notes


def one_vs_rest(y: NDArray[np.integer], n_classes: int) -> NDArray[np.float32]:
    """[N, C] of 0 and 1: column c is the task "is it class c?"."""
    return np.eye(n_classes, dtype=np.float32)[y]


def class_names(labels: Iterable[str]) -> list[str]:
    """The different labels, in order of their value where all are numbers, else of their text."""
    names = set(labels)
    try:
        return sorted(names, key=lambda s: (float(s), s))
    except ValueError:
        return sorted(names)


# ---- columns ----------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """How a column of text becomes numbers: its mean (for empty cells), or its categories (one-hot)."""

    mean: float
    categories: list[str] | None


def fit_columns(table: Any) -> dict[str, Column]:
    """What each column of a DataFrame of text (empty cell: NaN) is. Numbers if every cell that is not empty
    is one.
    """
    import pandas as pd

    columns = {}
    for name in table.columns:
        filled = table[name].dropna()
        number = pd.to_numeric(filled, errors="coerce")
        if number.notna().all():
            columns[name] = Column(float(number.mean()) if len(number) else 0.0, None)
        else:
            columns[name] = Column(0.0, class_names(filled))
    return columns


def encode(table: Any, columns: Mapping[str, Column], where: str) -> NDArray[np.float32]:
    """The table as numbers [N, D]: number columns with their mean in empty cells, texts one-hot (all 0 for an
    empty or unknown one), in the order of the columns.

    Raises ValueError for text in a number column, and for infinity.
    """
    import pandas as pd

    parts = []
    for name, (mean, categories) in columns.items():
        text = table[name]
        if categories is not None:
            code = text.map({c: i for i, c in enumerate(categories)}).fillna(-1).to_numpy(np.int64)
            parts.append((code[:, None] == np.arange(len(categories))).astype(np.float32))
            continue
        number = pd.to_numeric(text, errors="coerce")
        with np.errstate(over="ignore"):  # beyond float32: infinity
            x = number.fillna(mean).to_numpy(np.float64).astype(np.float32)
        wrong = text[(number.isna() & text.notna()) | ~np.isfinite(x)]
        if len(wrong):
            raise ValueError(
                f"{where}: column {name!r} holds numbers, but row {wrong.index[0] + 1} of the data "
                f"has {wrong.iloc[0]!r}"
            )
        parts.append(x[:, None])
    return np.concatenate(parts, axis=1)


def moments(x: NDArray[Any], fit: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and population standard deviation (infinity for a constant column) over the rows `fit`.

    Float64, in pieces (a copy of all rows would need 0.15 GB), around the first row (against cancellation).
    """
    first = x[fit[0]].astype(np.float64)
    total, square = np.zeros_like(first), np.zeros_like(first)
    for begin in range(0, len(fit), STEP):
        d = x[fit[begin : begin + STEP]] - first
        total += d.sum(axis=0)
        square += np.einsum("ij,ij->j", d, d)
    mean = total / len(fit)
    variance = square / len(fit) - mean**2
    return first + mean, np.where(square == 0, np.inf, np.sqrt(np.maximum(variance, 0)))


def standardise(
    arrays: Mapping[str, NDArray[Any]], fit: NDArray[np.int64], parts: Sequence[tuple[str, NDArray[np.int64]]]
) -> list[NDArray[np.float32]]:
    """Tables [n, D] of the rows wanted, ("train" | "val" | "test", row numbers), from `x_<part>`.

    Column j becomes (x_j - m_j) / s_j with mean and population standard deviation over the training rows
    `fit`. A column that is constant there becomes 0 in every part: a weight that never trains could only add
    noise elsewhere.
    """
    mean, scale = moments(arrays["x_train"], fit)
    out = []
    for part, rows in parts:
        x = np.empty((len(rows), len(mean)), np.float32)
        for begin in range(0, len(rows), STEP):
            x[begin : begin + STEP] = (arrays[f"x_{part}"][rows[begin : begin + STEP]] - mean) / scale
        out.append(x)
    return out


# ---- the user's own table ---------------------------------------------------------------------------------


def find_table(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]]:
    """The CSV file, and the test file if one is named. Paths are the user's, not below the data root; that of
    the test file is relative to the folder of the first.
    """
    if not options["path"] or not options["target"]:
        raise ValueError(
            "data set table needs the options path=FILE.csv and target=COLUMN (the column of the classes); "
            "test=FILE2.csv is optional"
        )
    files = [Path(options["path"])]
    if options["test"]:
        files.append(files[0].parent / Path(str(options["test"])).expanduser())
    for path in files:
        if not path.is_file():
            raise DataSetMissing(
                f"the file {path} does not exist; data set table reads a CSV file with a header"
            )
    return f"table_{re.sub(r'[^A-Za-z0-9]+', '_', files[0].name.split('.')[0])}", files


def read_csv(path: Path) -> Any:
    """A CSV file with a header as a DataFrame of text; empty cells and `?` are NaN."""
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, na_values=["?"], skipinitialspace=True)
    except (ValueError, EOFError, OSError, pd.errors.ParserError) as e:
        why = re.sub(r"\s+", " ", str(e))[:200]
        raise ValueError(f"{path} is not a CSV file with a header ({why})") from e
    if table.shape[1] < 2 or table.empty:
        raise ValueError(
            f"{path} has {len(table)} rows and {table.shape[1]} columns; a table needs rows, and at least "
            "two columns with commas between them"
        )
    return table


def build_table(variant: str, files: list[Path], options: Mapping[str, Any]) -> Built:
    tables, target = [read_csv(f) for f in files], str(options["target"])
    labels = [_take_target(table, target, path) for table, path in zip(tables, files, strict=True)]
    classes = class_names(labels[0])
    if len(classes) > max(20, len(labels[0]) // 2):
        raise ValueError(
            f"{files[0]}: the target {target!r} has {len(classes)} different values in {len(labels[0])} "
            "rows; it must be a class"
        )
    if new := sorted(set(labels[-1]) - set(classes)):
        raise ValueError(f"{files[-1]}: the class {new[0]!r} is not in {files[0]}")
    if odd := sorted(set(tables[-1].columns) ^ set(tables[0].columns)):
        raise ValueError(f"{files[-1]} does not have the columns of {files[0]}: {', '.join(odd[:5])} differ")
    y = [label.map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64) for label in labels]
    notes = []
    if len(files) == 1:
        train, test = (np.sort(part) for part in split(y[0], TEST_SHARE))
        if not len(test):
            raise ValueError(
                f"{files[0]} has too few rows to hold out a test part; name one with test=FILE2.csv"
            )
        tables, y = [tables[0].iloc[train], tables[0].iloc[test]], [y[0][train], y[0][test]]
        notes.append(f"no test file: a fixed, stratified {TEST_SHARE:.0%} of the rows is the test part")
    columns = fit_columns(tables[0])
    for name, column in columns.items():
        if column.categories and len(column.categories) > CATEGORIES:
            raise ValueError(
                f"{files[0]}: column {name!r} has {len(column.categories):,} different texts, more than "
                f"{CATEGORIES:,}; leave it out"
            )
    x = [encode(table, columns, str(path)) for table, path in zip(tables, (files[0], files[-1]), strict=True)]
    texts = sum(column.categories is not None for column in columns.values())
    notes.append(f"{len(columns)} columns, {texts} of them texts (one-hot), make {x[0].shape[1]}")
    if empty := int(sum(table.isna().sum().sum() for table in tables)):
        notes.append(
            f"{empty} empty cells: a number is its column's mean in the training part (validation rows "
            "included), a text is all 0"
        )
    notes += class_notes(y[0], y[1], len(classes))
    arrays = {"x_train": x[0], "y_train": y[0], "x_test": x[1], "y_test": y[1]}
    return arrays, {
        "classes": classes,
        "licence": "the user's own data",
        "source": " and ".join(f.name for f in files),
        "notes": notes,
    }


def _take_target(table: Any, target: str, path: Path) -> Any:
    """Removes the column of the classes from the table and returns it, without blanks around the texts."""
    if target not in table.columns:
        near = difflib.get_close_matches(target, table.columns, n=3) or list(table.columns[:5])
        raise ValueError(f"{path} has no column {target!r} (target); it has {', '.join(near)}, ...")
    labels = table.pop(target)
    if labels.isna().any():
        row = int(np.flatnonzero(labels.isna())[0]) + 1
        raise ValueError(f"{path}: the target {target!r} is empty in row {row} of the data")
    return labels.str.strip()
