"""Tox21: the challenge's split, DeepTox's clusters, fingerprints from a file or SMILES, JKU's archive."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import data
from data import tox21
from data.tox21 import TASKS

SMILES = [
    "CCO",
    "c1ccccc1",
    "CC(=O)O",
    "CCN",
    "CCCl",
    "c1ccncc1",
    "CC=O",
    "CCCC",
    "OCCO",
    "CC(C)O",
    "CCBr",
    "COC",
]
SETS = ["training"] * 8 + ["validation"] * 2 + ["test"] * 2
FOLDS = [0, 0, 1, 1, 2, None, None, 0, 5, 5, 3, None]


def table() -> pd.DataFrame:
    """12 samples. Row 5 (trains only) is of the compound of row 0, row 10 (test) of that of row 2."""
    r = np.random.default_rng(7)
    y = r.choice([0.0, 1.0, np.nan], (12, 12), p=[0.5, 0.3, 0.2])
    keys = [f"KEY{i}" for i in range(12)]
    keys[5], keys[10] = keys[0], keys[2]
    frame = pd.DataFrame(
        {"ID": [f"id{i}" for i in range(12)], "inchikey": keys, "set": SETS, "CVfold": FOLDS}
    )
    frame[list(TASKS)] = y
    frame["smiles"] = SMILES
    return frame


def bits() -> np.ndarray:
    b = np.zeros((12, 2048), np.uint8)
    b[:, 7] = [1, 0] * 6  # half of all rows
    b[0, 100] = 1  # row 0 alone
    b[:, 200] = 1
    return b


def write(root: Path, frame: pd.DataFrame, b: np.ndarray) -> Path:
    (root / "tox21").mkdir(parents=True)
    frame.to_csv(root / "tox21" / tox21.SPLITS, index=False)
    np.savez(
        root / "tox21" / tox21.FINGERPRINTS,
        fp_packed=np.packbits(b, axis=1),
        n_bits=np.int64(2048),
        parsed=np.array([True] * 11 + [False]),
    )
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "root", table(), bits())


def rows_of(y: torch.Tensor) -> set[int]:
    """Which samples these are, by their labels."""
    known = {
        np.nan_to_num(row, nan=9).tobytes(): i
        for i, row in enumerate(table()[list(TASKS)].to_numpy(np.float32))
    }
    assert len(known) == 12
    return {known[np.nan_to_num(row, nan=9).tobytes()] for row in y.numpy()}


@pytest.mark.parametrize(
    ("validation", "train", "val"),
    [
        ("cv0", {2, 3, 4, 6, 8, 9}, {0, 1, 7}),  # without row 5, the compound of row 0
        ("cv1", {0, 1, 4, 5, 6, 7, 8, 9}, {2, 3}),
        ("cv2", {0, 1, 2, 3, 5, 6, 7, 8, 9}, {4}),
        ("official", {0, 1, 2, 3, 4, 5, 6, 7}, {8, 9}),
    ],
)
def test_parts(validation: str, train: set[int], val: set[int], root: Path, cache: Path) -> None:
    d = data.load("tox21", validation=validation, root=root, cache=cache)
    assert (rows_of(d.y_train), rows_of(d.y_val), rows_of(d.y_test)) == (train, val, {10, 11})
    assert (len(d.y_train), len(d.y_val)) == (len(train), len(val))
    assert d.y_train.dtype == torch.float32 and d.y_train.isnan().any()
    assert (d.name, d.error, d.classes) == ("tox21", "auc", TASKS)
    assert any("1 training samples of the same compounds" in note for note in d.notes) == (
        validation == "cv0"
    )
    assert any("not comparable" in note for note in d.notes)
    assert any("1 SMILES that RDKit rejects" in note for note in d.notes)


def test_rare_columns_are_dropped_by_the_training_rows(root: Path, cache: Path) -> None:
    """Bit 100 is set in row 0 alone: 1 of 8 training rows of the official split, none of cv0."""
    for share, validation, kept in ((0.1, "official", 3), (0.125, "official", 3), (0.13, "official", 2)):
        d = data.load("tox21", min_share=share, validation=validation, root=root, cache=cache)
        assert d.x_train.shape[1] == kept
    assert data.load("tox21", root=root, cache=cache).x_train.shape[1] == 2
    d = data.load("tox21", min_share=0.0, validation="official", root=root, cache=cache)
    assert d.x_train.shape == (8, 2048)
    assert not d.x_train[:, 200].any() and not d.x_test[:, 200].any()  # constant
    assert sorted(set(d.x_train[:, 7].tolist())) == [-1, 1]  # half of the rows: mean 1/2, sd 1/2
    np.testing.assert_allclose(d.x_train[:, 100].max(), (1 - 1 / 8) / np.sqrt(1 / 8 * 7 / 8), rtol=1e-6)


def test_order_does_not_follow_the_file(tmp_path: Path, cache: Path) -> None:
    frame = pd.concat([table()] * 20, ignore_index=True)
    frame["inchikey"] = [f"K{i}" for i in range(len(frame))]
    frame[TASKS[0]] = np.arange(len(frame)) % 2
    b = np.tile(bits(), (20, 1))
    root = tmp_path / "many"
    (root / "tox21").mkdir(parents=True)
    frame.to_csv(root / "tox21" / tox21.SPLITS, index=False)
    parsed = np.ones(len(frame), bool)
    np.savez(root / "tox21" / tox21.FINGERPRINTS, fp_packed=np.packbits(b, axis=1), parsed=parsed)
    d = data.load("tox21", validation="official", root=root, cache=cache, limit_train=80, limit_eval=10)
    assert [len(y) for y in (d.y_train, d.y_val, d.y_test)] == [80, 10, 10]
    assert 20 < int(d.y_train[:, 0].sum()) < 60


def test_tasks_without_two_classes_are_named(tmp_path: Path, cache: Path) -> None:
    frame = table()
    frame.loc[frame["set"] == "test", "SR.p53"] = 0
    d = data.load("tox21", root=write(tmp_path / "r", frame, bits()), cache=cache)
    assert any(note.startswith("test: no AUC for") and "SR.p53" in note for note in d.notes)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"validation": "cv5"}, "validation must be cv0 or"),
        ({"min_share": 1}, "min_share must be a number in [0, 1)"),
        ({"min_share": "few"}, "min_share must be"),
        ({"features": "all"}, "features must be ecfp4 or"),
        ({"features": "deeptox", "path": "x.csv"}, "do not go with path="),
        ({"validation": "cv4"}, "no row is in the val part (validation=cv4)"),
    ],
)
def test_bad_options_are_one_line(options: dict, says: str, root: Path, cache: Path) -> None:
    with pytest.raises(ValueError) as e:
        data.load("tox21", root=root, cache=cache, **options)
    assert says in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: f.assign(**{"SR.MMP": 0.5}), "SR.MMP must be 0 to 1 or empty, not '0.5' (row 1"),
        (lambda f: f.assign(CVfold=7), "CVfold must be 0 to 5 or empty"),
        (lambda f: f.assign(set="train"), "must say training, validation, test, not 'train'"),
        (lambda f: f.drop(columns=["SR.p53", "set"]), "lacks the columns set, SR.p53"),
        (lambda f: f.iloc[:-1], "has fingerprints (12, 256)"),
    ],
)
def test_bad_files_are_one_line(change, says: str, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(ValueError) as e:
        data.load("tox21", root=write(tmp_path / "r", change(table()), bits()), cache=cache)
    assert says in str(e.value) and "\n" not in str(e.value)


def test_missing(tmp_path: Path, cache: Path) -> None:
    for features in tox21.FEATURES:
        with pytest.raises(data.DataSetMissing, match=r"tox21\.zip"):
            data.load("tox21", features=features, root=tmp_path, cache=cache)
    with pytest.raises(data.DataSetMissing, match="does not exist"):
        data.load("tox21", path=str(tmp_path / "mine.csv"), cache=cache)


# ---- from SMILES ------------------------------------------------------------------------------------------


def test_without_rdkit_one_line(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "rdkit", None)
    table().to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(ValueError, match=r"need the package RDKit.*pip install"):
        data.load("tox21", path=str(tmp_path / "mine.csv"), cache=cache)


def test_own_copy(tmp_path: Path, cache: Path) -> None:
    Chem = pytest.importorskip("rdkit.Chem", reason="needs the extra chem (RDKit)")
    from rdkit.Chem import AllChem, Descriptors

    frame = table().drop(columns=["inchikey"]).rename(columns={"smiles": "SMILES", "NR.AR": "nr-ar"})
    frame.loc[11, "SMILES"] = "not a molecule"
    frame.to_csv(tmp_path / "mine.csv", index=False)
    options = {"path": str(tmp_path / "mine.csv"), "validation": "cv2", "min_share": 0.3, "cache": cache}
    d = data.load("tox21", **options)
    assert d.name == "tox21_own" and rows_of(d.y_train) == {0, 1, 2, 3, 5, 6, 7, 8, 9}
    train = [i for i in range(10) if i != 4]
    # RDKit's older interface to the same fingerprints
    old = [AllChem.GetMorganFingerprintAsBitVect(Chem.MolFromSmiles(SMILES[i]), 2, nBits=2048) for i in train]
    share = np.array([list(bv) for bv in old]).mean(0)
    assert d.x_train.shape[1] == int((share >= 0.3).sum()) > 0
    assert any("1 SMILES that RDKit rejects" in note for note in d.notes)
    more = data.load("tox21", features="ecfp4+descriptors", **options)
    assert more.name == "tox21_own_descriptors"
    assert more.x_train.shape[1] == d.x_train.shape[1] + len(Descriptors.descList) - 1  # without Ipc
    assert torch.isfinite(torch.cat([more.x_train, more.x_val, more.x_test])).all()


def test_same_compound_by_inchikey(tmp_path: Path, cache: Path) -> None:
    """Ethanol written in two ways is one compound: the second goes when the first is held out."""
    pytest.importorskip("rdkit.Chem", reason="needs the extra chem (RDKit)")
    frame = table().drop(columns=["inchikey"])
    frame.loc[5, "smiles"] = "OCC"
    frame.to_csv(tmp_path / "mine.csv", index=False)
    d = data.load("tox21", path=str(tmp_path / "mine.csv"), cache=cache)
    assert rows_of(d.y_train) == {2, 3, 4, 6, 8, 9}


# ---- JKU's archive ----------------------------------------------------------------------------------------


def jku(root: Path) -> Path:
    from scipy import io, sparse

    home = root / "tox21"
    home.mkdir(parents=True)
    frame = table()
    frame[["ID", "inchikey", "set", "CVfold"]].to_csv(home / tox21.COMPOUNDS, index=False)
    dense = pd.DataFrame({"a": np.arange(12.0), "b": [1.5] * 12}, index=frame["ID"])
    dense.iloc[3, 0] = np.nan
    labels = frame.set_index("ID")[list(TASKS)]
    b = bits()[:, [7, 100, 200]]
    for part, rows in (("train", slice(0, 10)), ("test", slice(10, 12))):
        labels.iloc[rows].to_csv(home / f"tox21_labels_{part}.csv.gz")
        dense.iloc[rows].to_csv(home / f"tox21_dense_{part}.csv.gz")
        with gzip.open(home / f"tox21_sparse_{part}.mtx.gz", "wb") as f:
            io.mmwrite(f, sparse.coo_matrix(b[rows].astype(float)))
    return root


def test_deeptox_features(tmp_path: Path, cache: Path) -> None:
    """Columns a (its gap is the mean of the other training rows), b (constant), and the two frequent bits."""
    root = jku(tmp_path / "jku")
    d = data.load("tox21", features="deeptox", validation="official", min_share=0.2, root=root, cache=cache)
    assert d.name == "tox21_deeptox" and rows_of(d.y_train) == set(range(8))
    assert not any("circular" in note for note in d.notes)
    a = np.array([0, 1, 2, 25 / 7, 4, 5, 6, 7])
    wanted = np.stack([(a - a.mean()) / a.std(), 0 * a, [1, -1] * 4, 0 * a])
    np.testing.assert_allclose(d.x_train[d.x_train[:, 0].argsort()].T, wanted, atol=1e-6)


def test_deeptox_files_that_do_not_fit(tmp_path: Path, cache: Path) -> None:
    root = jku(tmp_path / "jku")
    path = root / "tox21" / "tox21_dense_test.csv.gz"
    frame = pd.read_csv(path, index_col=0)
    frame.iloc[::-1].to_csv(path)
    with pytest.raises(ValueError, match="not of the same samples"):
        data.load("tox21", features="deeptox", root=root, cache=cache)
    frame.to_csv(path)
    (root / "tox21" / tox21.COMPOUNDS).write_text("ID,inchikey,set,CVfold\nid0,K,training,0\n")
    with pytest.raises(ValueError, match="does not name every sample"):
        data.load("tox21", features="deeptox", root=root, cache=cache)


# ---- the real file ----------------------------------------------------------------------------------------


def test_real_tox21(real_root: Path, cache: Path) -> None:
    """Counts of the challenge and of DeepTox's clusters, by the csv module alone."""
    import csv

    with gzip.open(real_root / "tox21" / tox21.SPLITS, "rt") as f:
        rows = list(csv.DictReader(f))
    held = [r for r in rows if r["set"] == "training" and r["CVfold"] in ("3", "3.0")]
    keys = {r["inchikey"] for r in held}
    rest = [r for r in rows if r["set"] != "test" and r not in held and r["inchikey"] not in keys]
    d = data.load("tox21", validation="cv3", root=real_root, cache=cache)
    assert (
        (len(d.y_train), len(d.y_val), len(d.y_test)) == (len(rest), len(held), 647) == (10_701, 1_353, 647)
    )
    official = data.load("tox21", validation="official", root=real_root, cache=cache)
    assert (len(official.y_train), len(official.y_val)) == (11_764, 296)
    positive = sum(r["NR.AhR"] in ("1", "1.0") for r in rows if r["set"] == "test")
    assert int(official.y_test[:, 0].nansum()) == positive
    assert [official.fingerprint, d.fingerprint] == GOLDEN


GOLDEN = ["b1b06bb842d6a7fa", "466642d94d410550"]
