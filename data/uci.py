"""The UCI collection of Fernandez-Delgado et al. (2014), in three layouts: one npz of all sets, the authors'
archive, and the copy that JKU made for the SNN paper.

A set has one part, of which the collection draws four pairs of training and test rows (fold 0 to 3), or two
parts, training and official test (fold 0 only).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from data import store, tables

OPTIONS = {"set": None, "fold": 0, "validation": "split"}
FOLDS = 4
NPZ = ("uci121/uci121.npz", "uci121.npz")
FOLDERS = ("uci121", "uci", "data", "data_py", "uci121/data", "uci/data", ".")
SOURCE = "UCI collection of Fernandez-Delgado et al., JMLR 15, 2014"
LICENCE = "UCI archive, terms differ by set (mostly CC BY 4.0); cite Fernandez-Delgado et al. 2014"
TWO_PARTS = (  # with an official test part; JKU's files do not say it
    *("adult", "annealing", "audiology-std", "conn-bench-vowel-deterding", "hayes-roth", "hill-valley"),
    *("horse-colic", "image-segmentation", "monks-1", "monks-2", "monks-3", "optical", "pendigits"),
    *("soybean", "spect", "spectf", "statlog-landsat", "statlog-shuttle", "thyroid"),
)
Index = NDArray[np.integer]


class Raw(NamedTuple):
    """One set as its layout has it: x float32 [N, D], y [N], and the rows of the fold."""

    x: NDArray[np.float32]
    y: NDArray[np.integer]
    train: Index
    test: Index
    val: Index | None  # JKU's own validation rows
    parts: int
    folds: Path  # the file that says so


# ---- where the sets are -----------------------------------------------------------------------------------


def _sets(root: Path, jku_first: bool = False) -> dict[str, list[Path]]:
    """Set name -> its files. A set in several layouts is read from the npz, else from the archive."""
    npz: dict[str, list[Path]] = {}
    archive: dict[str, list[Path]] = {}
    jku: dict[str, list[Path]] = {}
    for path in (root / name for name in NPZ):
        if path.is_file():
            npz = {key[:-2]: [path] for key in store.array_names(path) if key.endswith("/x")}
            break
    for folder in FOLDERS:
        for home in (root / folder).iterdir() if (root / folder).is_dir() else ():
            header, folds = home / f"{home.name}.txt", home / "conxuntos_kfold.dat"
            if header.is_file() and (files := sorted(home.glob("*_R.dat"))):
                archive[home.name] = [header, *files, *([folds] if folds.is_file() else [])]
            files = [home / f for f in (f"{home.name}_py.dat", "labels_py.dat", "folds_py.dat")]
            if all(p.is_file() for p in files):
                own = home / "validation_folds_py.dat"
                jku[home.name] = files + [own] * own.is_file()
    return archive | npz | jku if jku_first else jku | archive | npz


def set_names(root: store.PathLike | None = None) -> list[str]:
    """The sets that are in the data root, sorted; none where the collection is missing."""
    return sorted(_sets(store.root_folder(root)))


def index(root: store.PathLike | None = None) -> list[tables.SetFacts]:
    """Rows (of all parts), columns, classes and folds of every set in the data root. Takes a second."""
    facts = []
    for name, files in sorted(_sets(store.root_folder(root)).items()):
        if files[0].suffix == ".npz":
            x, y, parts = store.pick(files[0], *(f"{name}/{field}" for field in ("x", "y", "parts")))
            n_parts = len(parts)
        else:
            raw = _read(name, files, 0)
            x, y, n_parts = raw.x, raw.y, raw.parts
        folds = FOLDS if n_parts == 1 else 1
        facts.append(tables.SetFacts(name, len(x), x.shape[1], len(np.unique(y)), folds))
    return facts


def find_uci(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    tables.check_choice(options["validation"], ("split", "source"), "uci: validation")
    sets = _sets(root, jku_first=options["validation"] == "source")
    if not sets:
        return None
    tables.check_set(options["set"], sets, "uci")
    return f"uci_{options['set']}", sets[options["set"]]


# ---- the three layouts ------------------------------------------------------------------------------------


def _read(name: str, files: list[Path], fold: int) -> Raw:
    if files[0].suffix == ".npz":
        return _read_npz(name, files[0], fold)
    if files[0].suffix == ".txt":
        return _read_archive(name, files[0].parent, fold)
    return _read_jku(name, files[0].parent, fold)


def _read_npz(name: str, path: Path, fold: int) -> Raw:
    x, y, parts = store.pick(path, *(f"{name}/{field}" for field in ("x", "y", "parts")))
    if x.ndim != 2 or len(x) != len(y) or len(x) != parts.sum():
        raise ValueError(f"{path}: {name} has {len(x)} rows, {len(y)} labels and parts of {parts.sum()} rows")
    if len(parts) == 2:
        tables.check_fold(fold, 1, f"uci set {name} (it has an official test part)")
        return Raw(x, y, np.arange(parts[0]), np.arange(parts[0], len(x)), None, 2, path)
    tables.check_fold(fold, FOLDS, f"uci set {name}")
    train, test = store.pick(path, f"{name}/kfold{2 * fold}", f"{name}/kfold{2 * fold + 1}")
    return Raw(x, y, train, test, None, 1, path)


def _read_archive(name: str, home: Path, fold: int) -> Raw:
    """The authors' archive: a header of `key= value` lines that names one or two data files, and a file of
    row numbers from 0, a line of training rows and a line of test rows for each fold.
    """
    header = home / f"{name}.txt"
    pairs = [line.split("=", 1) for line in header.read_text().splitlines() if "=" in line]
    facts = {key.strip(): value.strip() for key, value in pairs}
    files = [home / Path(facts[key]).name for key in ("fich1", "fich2") if facts.get(key)]
    if not files:
        raise ValueError(f"{header} names no data file (fich1=); get the collection again")
    parts = [_read_dat(path) for path in files]
    for number, (part, path) in enumerate(zip(parts, files, strict=True), start=1):
        wanted = facts.get(f"n_patrons{number}", str(len(part)))
        if wanted != str(len(part)):
            raise ValueError(f"{path} has {len(part)} rows, {header.name} says {wanted}; get it again")
    table = np.concatenate(parts)
    x, y = table[:, :-1].astype(np.float32), _whole_labels(table[:, -1], files[0])
    if len(parts) == 2:
        tables.check_fold(fold, 1, f"uci set {name} (it has an official test part)")
        n = len(parts[0])
        return Raw(x, y, np.arange(n), np.arange(n, len(x)), None, 2, header)
    tables.check_fold(fold, FOLDS, f"uci set {name}")
    path = home / "conxuntos_kfold.dat"
    if not path.is_file():
        raise ValueError(f"{path} (the row numbers of the folds) is missing; get the collection again")
    lines = [line.split() for line in path.read_text().splitlines() if line.strip()]
    if len(lines) != 2 * FOLDS:
        raise ValueError(f"{path} has {len(lines)} lines of row numbers, not {2 * FOLDS}; get it again")
    try:
        train, test = (np.array(line, dtype=np.int64) for line in lines[2 * fold : 2 * fold + 2])
    except ValueError as e:
        raise ValueError(f"{path} holds more than row numbers ({e}); get it again") from e
    return Raw(x, y, train, test, None, 1, path)


def _read_dat(path: Path) -> NDArray[np.float64]:
    """The columns and the label of an `_R.dat` file: a header line, then a row number first in each line."""
    return _numbers(path, sep=r"\s+", skiprows=1)[:, 1:]


def _read_jku(name: str, home: Path, fold: int) -> Raw:
    """JKU's copy: commas, no header; columns of 0 and 1 mark the test rows of each fold, in another file its
    validation rows.
    """
    x = _numbers(home / f"{name}_py.dat", sep=",").astype(np.float32)
    y, marks = _numbers(home / "labels_py.dat", sep=","), _numbers(home / "folds_py.dat", sep=",")
    n_parts = 2 if name in TWO_PARTS else 1
    note = " (it has an official test part)" if n_parts == 2 else ""
    tables.check_fold(fold, 1 if n_parts == 2 else marks.shape[1], f"uci set {name}{note}")
    own = home / "validation_folds_py.dat"
    val_marks = _numbers(own, sep=",") if own.is_file() else None
    for path, part in ((home / "labels_py.dat", y), (home / "folds_py.dat", marks), (own, val_marks)):
        if part is not None and (len(part) != len(x) or part.shape[1] <= (fold if part is not y else 0)):
            raise ValueError(
                f"{path} has {len(part)} rows and {part.shape[1]} columns; {name} has {len(x)} rows, "
                f"and fold {fold} is wanted"
            )
        if part is not None and part is not y and not np.isin(part[:, fold], (0, 1)).all():
            raise ValueError(f"{path}: column {fold} holds more than 0 and 1; get it again")
    test = marks[:, fold] == 1
    val = None if val_marks is None else val_marks[:, fold] == 1
    if val is not None and (val & test).any():
        raise ValueError(f"{own}: {(val & test).sum()} rows of fold {fold} are in the test part as well")
    rows = np.arange(len(x))
    labels = _whole_labels(y[:, 0], home / "labels_py.dat")
    val_rows = None if val is None else rows[val]
    return Raw(x, labels, rows[~test], rows[test], val_rows, n_parts, home / "folds_py.dat")


def _numbers(path: Path, **how: Any) -> NDArray[np.float64]:
    """A file of numbers [rows, columns]. Raises ValueError when it is not one."""
    import pandas as pd

    try:
        table = pd.read_csv(path, header=None, **how).to_numpy(np.float64)
    except (ValueError, OSError, pd.errors.ParserError) as e:
        raise ValueError(f"{path} is not a table of numbers ({' '.join(str(e).split())[:150]})") from e
    tables.check_cells(table, str(path))
    return table


def _whole_labels(y: NDArray[np.float64], path: Path) -> NDArray[np.int64]:
    if (y != np.floor(y)).any():
        raise ValueError(f"{path}: a label is no whole number ({y[y != np.floor(y)][0]}); get it again")
    return y.astype(np.int64)


# ---- one fold of one set ----------------------------------------------------------------------------------


def build_uci(variant: str, files: list[Path], options: Mapping[str, Any]) -> tables.Built:
    name, fold = options["set"], options["fold"]
    raw = _read(name, files, fold)
    check_rows(raw, f"{raw.folds}: {name}, fold {fold}")
    tables.check_cells(raw.x, f"{files[0]}: {name}")
    labels, y = np.unique(raw.y, return_inverse=True)
    x, notes = raw.x.copy(), []
    if raw.parts == 2:
        for rows in (raw.train, raw.test):
            x[rows] = own_scale(x[rows])
        notes.append(
            "the official test part; each part is standardised with its own mean and standard deviation, the "
            "test part too: the collection's rule, which its files keep in 8 of the 19 sets with a test part"
        )
    else:
        notes.append(
            f"fold {fold}: one of {FOLDS} independent random draws of 75 % training and 25 % test rows, not "
            "a cross-validation; the collection standardised the columns over all rows, test rows included"
        )
    notes.append("the collection coded categories as numbers and filled empty cells")
    notes += tables.class_notes(y[raw.train], y[raw.test], len(labels))
    fit: Index = raw.train
    arrays: dict[str, Any] = {}
    if options["validation"] == "source":
        if raw.val is None or not len(raw.val):
            raise ValueError(
                f"uci set {name}: only JKU's copy has validation rows (validation_folds_py.dat), and what "
                f"was found is {files[0]}; take validation=split"
            )
        fit = np.setdiff1d(raw.train, raw.val)
        arrays |= {"x_val": x[raw.val], "y_val": y[raw.val]}
        notes.append("JKU's own validation rows in place of a share of the training rows")
    arrays |= {"x_train": x[fit], "y_train": y[fit], "x_test": x[raw.test], "y_test": y[raw.test]}
    return arrays, {
        "classes": [str(label) for label in labels],
        "licence": LICENCE,
        "source": SOURCE,
        "notes": notes,
    }


def check_rows(raw: Raw, where: str) -> None:
    """Raises ValueError unless training and test rows are different rows and together all of them."""
    n, again = len(raw.x), "get the collection again"
    both = np.concatenate([raw.train, raw.test]).astype(np.int64)
    if not len(raw.train) or not len(raw.test):
        raise ValueError(f"{where}: the {'test' if len(raw.train) else 'training'} part is empty; {again}")
    if both.min() < 0 or both.max() >= n:
        odd = both[(both < 0) | (both >= n)][0]
        raise ValueError(f"{where}: row number {odd} is out of range, the rows are 0 to {n - 1}; {again}")
    if len(common := np.intersect1d(raw.train, raw.test)):
        raise ValueError(f"{where}: {len(common)} rows are in the training and in the test part; {again}")
    if len(np.unique(both)) != len(both):
        raise ValueError(f"{where}: {len(both) - len(np.unique(both))} row numbers occur twice; {again}")
    if len(both) != n:
        raise ValueError(f"{where}: the two parts cover {len(both)} of {n} rows; {again}")


def own_scale(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gives x [N, D] mean 0 and sample standard deviation (ddof 1) 1 in each column, or 0 if constant."""
    x = x.astype(np.float64)
    s = x.std(axis=0, ddof=1) if len(x) > 1 else np.zeros(x.shape[1])
    return ((x - x.mean(axis=0)) / np.where(s > 1e-6, s, 1)).astype(np.float32)
