"""The user's own table, and what all tables share: columns, standardising, splits of few rows."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import data
from data import tables
from data.splits import strata

CSV = """age, colour,weight,kind
1,red,10,a
2,blue,?,b
3,red,30,a
4,,40,b
5,green,50,a
6,red,60,b
7,blue,70,a
8,red,80,b
"""


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "my fruit.v2.csv"
    path.write_text(CSV)
    return path


def load(path: Path, cache: Path, **options: object) -> data.DataSet:
    return data.load("table", path=str(path), cache=cache, **{"target": "kind", **options})


def test_own_test_file_by_hand(csv: Path, cache: Path) -> None:
    (csv.parent / "test.csv").write_text("weight,kind,colour,age\n,a,purple,4.5\n10,b,red,1\n")
    d = load(csv, cache, test="test.csv", val_fraction=0)
    assert (d.name, d.classes, d.error) == ("table_my_fruit", ("a", "b"), "error")
    # age, blue, green, red, weight; a missing weight is the mean of the seven others, 340 / 7
    mean = 340 / 7
    rows = np.array(
        [
            [1, 0, 0, 1, 10],
            [2, 1, 0, 0, mean],
            [3, 0, 0, 1, 30],
            [4, 0, 0, 0, 40],
            [5, 0, 1, 0, 50],
            [6, 0, 0, 1, 60],
            [7, 1, 0, 0, 70],
            [8, 0, 0, 1, 80],
        ]
    )
    scaler = StandardScaler().fit(rows)
    order = d.x_train[:, 0].argsort()
    np.testing.assert_allclose(d.x_train[order], scaler.transform(rows), atol=1e-6)
    assert d.y_train[order].tolist() == [0, 1] * 4
    order = d.x_test[:, 0].argsort()
    np.testing.assert_allclose(
        d.x_test[order], scaler.transform([[1, 0, 0, 1, 10], [4.5, 0, 0, 0, mean]]), atol=1e-6
    )
    assert d.y_test[order].tolist() == [1, 0]
    assert any("3 empty cells" in note for note in d.notes)


def test_without_a_test_file_a_stratified_quarter(csv: Path, cache: Path) -> None:
    d = load(csv, cache, val_fraction=0)
    assert (len(d.x_train), len(d.x_test)) == (6, 2)
    assert sorted(d.y_test.tolist()) == [0, 1]
    assert any("no test file" in note for note in d.notes)
    again = load(csv, cache / "other", val_fraction=0)
    assert torch.equal(d.x_test, again.x_test)
    assert d.fingerprint == again.fingerprint


def test_encoding_is_sklearns(cache: Path, tmp_path: Path) -> None:
    r = np.random.default_rng(0)
    table = pd.DataFrame({"u": r.normal(size=60), "v": r.choice(list("xyz"), 60), "w": r.integers(0, 9, 60)})
    table["y"] = r.choice(["no", "yes"], 60)
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_csv(tmp_path / "u.csv", index=False)
    d = data.load(
        "table", path=str(tmp_path / "t.csv"), test="u.csv", target="y", cache=cache, val_fraction=0
    )
    hot = OneHotEncoder(sparse_output=False).fit_transform(table[["v"]])
    x = np.column_stack([table["u"], hot, table["w"]]).astype(np.float32)
    wanted = StandardScaler().fit_transform(x.astype(np.float64))
    for found in (d.x_train, d.x_test):
        np.testing.assert_allclose(found[found[:, 0].argsort()], wanted[wanted[:, 0].argsort()], atol=1e-5)


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (CSV, {"target": "kindd"}, "no column 'kindd' (target); it has kind"),
        (CSV, {"target": None}, "target=COLUMN"),
        (CSV.replace("3,red,30,a", "3,red,30,"), {}, "target 'kind' is empty in row 3"),
        (CSV.replace("5,green,50", "inf,green,50"), {}, "column 'age' holds numbers, but row 5"),
        (CSV.replace("5,green,50", "1e39,green,50"), {}, "'1e39'"),
        ("", {}, "not a CSV file"),
        ("a;b\n1;2\n", {}, "at least two columns with commas"),
        ("a,kind\n", {}, "0 rows"),
        ("a,kind\n1,x\n2,y\n", {}, "too few rows"),
        ('a,kind\n1,"x\n', {}, "not a CSV file"),
        ("a,kind\n" + "".join(f"{i},{i / 7}\n" for i in range(99)), {}, "it must be a class"),
        ("a,kind\n" + "".join(f"t{i},{i % 2}\n" for i in range(1500)), {}, "1,124 different texts"),
    ],
)
def test_bad_tables_are_one_line(tmp_path: Path, cache: Path, text: str, options: dict, says: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(ValueError) as e:
        load(path, cache, **options)
    assert says in str(e.value)
    assert "\n" not in str(e.value)
    assert str(path) in str(e.value) or "path=FILE.csv" in str(e.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("age,colour,weight,kind\n1,red,1,c\n", "the class 'c' is not in"),
        ("age,colour,kind\n1,red,a\n", "weight differ"),
        (
            "age,colour,weight,kind\nold,red,1,a\n",
            "column 'age' holds numbers, but row 1 of the data has 'old'",
        ),
    ],
)
def test_bad_test_files_are_one_line(csv: Path, cache: Path, text: str, says: str) -> None:
    (csv.parent / "test.csv").write_text(text)
    with pytest.raises(ValueError) as e:
        load(csv, cache, test="test.csv")
    assert says in str(e.value) and "test.csv" in str(e.value) and "\n" not in str(e.value)


def test_missing_files(csv: Path, cache: Path) -> None:
    with pytest.raises(data.DataSetMissing, match=r"none\.csv does not exist"):
        load(csv.parent / "none.csv", cache)
    with pytest.raises(data.DataSetMissing, match=r"none\.csv does not exist"):
        load(csv, cache, test="none.csv")


# ---- standardising ----------------------------------------------------------------------------------------


def write(path: Path, x: np.ndarray, y: object) -> Path:
    table = pd.DataFrame(x, columns=[f"c{i}" for i in range(x.shape[1])])
    table["kind"] = y
    table.to_csv(path, index=False)
    return path


def test_moments_are_those_of_the_training_rows_alone(tmp_path: Path, cache: Path) -> None:
    """Population standard deviation, without validation rows, before limit_train; constant columns are 0."""
    r = np.random.default_rng(3)
    x = r.normal(5, 3, (200, 4)).astype(np.float32)
    x[:, 2] = 7
    write(tmp_path / "t.csv", x, r.choice(["a", "b"], 200))
    test = x[:50].copy()
    test[:, 2] = 1000  # not constant here
    write(tmp_path / "u.csv", test, r.choice(["a", "b"], 50))
    options = {"test": "u.csv", "val_fraction": 0.3}
    d, few = (load(tmp_path / "t.csv", cache, **options, **limit) for limit in ({}, {"limit_train": 10}))
    assert len(d.x_train) + len(d.x_val) == 200 and 55 <= len(d.x_val) <= 65
    np.testing.assert_allclose(d.x_train[:, [0, 1, 3]].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(d.x_train[:, [0, 1, 3]].numpy().std(0), 1, atol=1e-5)
    assert float(d.x_val.mean(0).abs().max()) > 1e-3
    assert torch.equal(few.x_train, d.x_train[:10])
    for part in (d.x_train, d.x_val, d.x_test):
        assert not part[:, 2].any()


@pytest.mark.parametrize(
    ("labels", "train", "val"),
    [("ab", 2, 0), ("aab", 2, 1), ("a" * 7 + "b", 7, 1), ("aaaaabbbbb", 8, 2), ("aaaa", 3, 1)],
)
def test_a_handful_of_rows(tmp_path: Path, cache: Path, labels: str, train: int, val: int) -> None:
    x = np.arange(2.0 * len(labels)).reshape(-1, 2)
    write(tmp_path / "t.csv", x, list(labels))
    write(tmp_path / "u.csv", x, list(labels))
    d = load(tmp_path / "t.csv", cache, test="u.csv", val_fraction=0.15)
    assert (len(d.x_train), len(d.x_val), len(d.x_test)) == (train, val, len(labels))
    for part in (d.x_train, d.x_val, d.x_test):
        assert torch.isfinite(part).all()
    assert any("one class only" in note for note in d.notes) == (set(labels) == {"a"})
    assert set(d.y_train.tolist()) == set(range(len(set(labels))))  # a class of one row stays in training


# ---- helpers ----------------------------------------------------------------------------------------------


def test_strata() -> None:
    assert strata(np.array([2, 0, 1])).tolist() == [2, 0, 1]
    assert strata(np.array([[0, 1], [1, 0]], np.float32)).tolist() == [1, 0]  # one-hot
    assert strata(np.array([[1, 1], [1, 0]], np.float32)).tolist() == [0, 0]  # many tasks
    assert strata(np.array([[0, 1], [np.nan, 1]], np.float32)).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        (["10", "9", "1"], ["1", "9", "10"]),
        (["b", "10", "9"], ["10", "9", "b"]),
        (["1.0", "-1.0"], ["-1.0", "1.0"]),
    ],
)
def test_class_names_are_in_order_of_value(labels: list[str], wanted: list[str]) -> None:
    assert tables.class_names(labels) == wanted


def test_a_column_without_any_value_is_constant() -> None:
    table = pd.DataFrame({"a": [np.nan, np.nan], "b": ["1", "2"]}, dtype=object)
    assert tables.encode(table, tables.fit_columns(table), "here").tolist() == [[0, 1], [0, 2]]


def test_empty_cells_are_named() -> None:
    with pytest.raises(ValueError, match=r"there: 2 cells .* the first in row 2, column 1"):
        tables.check_cells(np.array([[1, 2], [np.nan, np.inf]]), "there")
