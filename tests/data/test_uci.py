"""The UCI collection: three layouts of two small sets that give one data set; fold files that are wrong."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import data
from data import uci

N, D = 20, 3  # "plain", one part
A, B = 12, 8  # rows of the parts of "monks-1", one of the sets that have a test part


class Collection:
    """Two sets in memory, and writers of the three layouts."""

    def __init__(self) -> None:
        r = np.random.default_rng(5)
        self.x = r.normal(size=(N, D)).astype(np.float32)
        self.x[:, 1] = 0.5
        self.y = np.array([0, 1] * 9 + [2, 2])
        order = [r.permutation(N) for _ in range(4)]
        self.folds = [np.sort(rows) for o in order for rows in (o[:15], o[15:])]
        self.two_x = r.normal(size=(A + B, 2)).astype(np.float32)
        self.two_x[A:] = self.two_x[A:] * 1000 + 5000  # the test part is on another scale
        self.two_y = np.array([0, 1] * 10)

    def npz(self, root: Path) -> Path:
        fields = {"x": self.x, "y": self.y.astype(np.int16), "parts": np.array([N], np.int32)}
        two = {"x": self.two_x, "y": self.two_y.astype(np.int16), "parts": np.array([A, B], np.int32)}
        arrays = {f"plain/{k}": v for k, v in fields.items()} | {f"monks-1/{k}": v for k, v in two.items()}
        arrays |= {f"plain/kfold{i}": rows.astype(np.uint16) for i, rows in enumerate(self.folds)}
        (root / "uci121").mkdir(parents=True)
        np.savez(root / "uci121" / "uci121.npz", **arrays)
        return root

    def archive(self, root: Path) -> Path:
        home = root / "data" / "plain"
        home.mkdir(parents=True)
        facts = {"n_entradas": D, "n_clases": 3, "n_arquivos": 1, "fich1": "plain_R.dat", "n_patrons1": N}
        (home / "plain.txt").write_text("".join(f"{k}= {v}\n" for k, v in facts.items()))
        self._dat(home / "plain_R.dat", self.x, self.y)
        lines = [" ".join(map(str, rows)) for rows in self.folds]
        (home / "conxuntos_kfold.dat").write_text("\n".join(lines) + "\n")
        home = root / "data" / "monks-1"
        home.mkdir(parents=True)
        files = {
            "fich1": "monks-1_train_R.dat",
            "n_patrons1": A,
            "fich2": "monks-1_test_R.dat",
            "n_patrons2": B,
        }
        (home / "monks-1.txt").write_text("".join(f"{k}= {v}\n" for k, v in files.items()))
        self._dat(home / "monks-1_train_R.dat", self.two_x[:A], self.two_y[:A])
        self._dat(home / "monks-1_test_R.dat", self.two_x[A:], self.two_y[A:])
        return root

    @staticmethod
    def _dat(path: Path, x: np.ndarray, y: np.ndarray) -> None:
        header = "\t".join(["", *(f"f{i + 1}" for i in range(x.shape[1])), "clase"])
        rows = [
            "\t".join([str(i + 1), *map(repr, map(float, row)), str(label)])
            for i, (row, label) in enumerate(zip(x, y, strict=True))
        ]
        path.write_text("\n".join([header, *rows]) + "\n")

    def jku(self, root: Path, validation: bool = True) -> Path:
        for name, x, y in (("plain", self.x, self.y), ("monks-1", self.two_x, self.two_y)):
            home = root / "uci" / name
            home.mkdir(parents=True)
            test, val = np.zeros((len(x), 4)), np.zeros((len(x), 4))
            for k in range(4):
                rows = self.folds[2 * k + 1] if name == "plain" else np.arange(A, A + B)
                test[rows, k] = 1
                val[np.flatnonzero(test[:, k] == 0)[:4], k] = 1
            for file, table in ((f"{name}_py.dat", x), ("labels_py.dat", y[:, None]), ("folds_py.dat", test)):
                self._commas(home / file, table)
            if validation:
                self._commas(home / "validation_folds_py.dat", val)
        return root

    @staticmethod
    def _commas(path: Path, table: np.ndarray) -> None:
        path.write_text("".join(",".join(repr(float(v)) for v in row) + "\n" for row in table))


@pytest.fixture
def made() -> Collection:
    return Collection()


def pairs(x: torch.Tensor, y: torch.Tensor) -> list[tuple]:
    return sorted((*(round(v, 4) for v in row), int(c)) for row, c in zip(x.tolist(), y, strict=True))


@pytest.mark.parametrize("layout", ["npz", "archive", "jku"])
def test_one_part(made: Collection, layout: str, tmp_path: Path, cache: Path) -> None:
    """Each layout gives the rows of fold 2, scaled by its training rows; all have one fingerprint."""
    root = getattr(made, layout)(tmp_path / layout)
    d = data.load("uci", set="plain", fold=2, root=root, cache=cache, val_fraction=0)
    train, test = made.folds[4], made.folds[5]
    x = made.x.astype(np.float64)
    scale = x[train].std(0)
    scale[1] = np.inf  # the constant column
    wanted = torch.from_numpy((x - x[train].mean(0)) / scale)
    y = torch.from_numpy(made.y)
    assert pairs(d.x_train, d.y_train) == pairs(wanted[train], y[train])
    assert pairs(d.x_test, d.y_test) == pairs(wanted[test], y[test])
    assert (d.name, d.classes, d.error) == ("uci_plain", ("0", "1", "2"), "error")
    assert any("not a cross-validation" in note for note in d.notes)
    other = made.npz(tmp_path / "other")
    assert d.fingerprint == data.fingerprint("uci", set="plain", fold=2, root=other, cache=tmp_path / "c")


@pytest.mark.parametrize("layout", ["npz", "archive", "jku"])
def test_two_parts_come_to_one_scale(made: Collection, layout: str, tmp_path: Path, cache: Path) -> None:
    """Each part to its own mean and sd (ddof 1), as by scipy; then both by the training part's."""
    from scipy.stats import zscore

    root = getattr(made, layout)(tmp_path / layout)
    d = data.load("uci", set="monks-1", root=root, cache=cache, val_fraction=0)
    parts = [zscore(p.astype(np.float64), ddof=1) for p in (made.two_x[:A], made.two_x[A:])]
    sd = parts[0].std(0)
    y = torch.from_numpy(made.two_y)
    assert pairs(d.x_train, d.y_train) == pairs(torch.from_numpy(parts[0] / sd), y[:A])
    assert pairs(d.x_test, d.y_test) == pairs(torch.from_numpy(parts[1] / sd), y[A:])
    assert any("its own mean and standard deviation" in note for note in d.notes)
    with pytest.raises(ValueError, match=r"official test part.*only fold 0, not fold=1"):
        data.load("uci", set="monks-1", fold=1, root=root, cache=cache)


def test_jkus_validation_rows(made: Collection, tmp_path: Path, cache: Path) -> None:
    root = made.jku(tmp_path / "jku")
    made.npz(root)  # where a set is in two layouts, these rows need JKU's
    d = data.load("uci", set="plain", fold=1, validation="source", root=root, cache=cache, val_fraction=0.5)
    assert [len(x) for x in (d.x_train, d.x_val, d.x_test)] == [11, 4, 5]
    rest = np.setdiff1d(np.arange(N), made.folds[3])
    assert sorted(d.y_val.tolist()) == sorted(made.y[rest[:4]].tolist())
    np.testing.assert_allclose(d.x_train.mean(0), 0, atol=1e-6)  # the validation rows are not in the moments
    with pytest.raises(ValueError, match="only JKU's copy has validation rows"):
        data.load("uci", set="plain", validation="source", root=made.archive(tmp_path / "a"), cache=cache)
    with pytest.raises(ValueError, match="validation must be split or source"):
        data.load("uci", set="plain", validation="jku", root=root, cache=cache)


def test_names_and_facts(made: Collection, tmp_path: Path) -> None:
    for layout in ("npz", "archive", "jku"):
        root = getattr(made, layout)(tmp_path / layout)
        assert uci.set_names(root) == ["monks-1", "plain"]
        assert uci.index(root) == [("monks-1", 20, 2, 2, 1), ("plain", 20, 3, 3, 4)]
    assert uci.set_names(tmp_path / "nowhere") == uci.index(tmp_path / "nowhere") == []


def test_missing_and_unknown_sets(made: Collection, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(data.DataSetMissing) as e:
        data.load("uci", set="plain", root=tmp_path / "nowhere", cache=cache)
    for word in ("data.tar.gz", "uci121", "licence"):
        assert word in str(e.value)
    root = made.npz(tmp_path / "npz")
    with pytest.raises(ValueError, match=r"uci has no set 'monks1'; did you mean monks-1\?"):
        data.load("uci", set="monks1", root=root, cache=cache)
    with pytest.raises(ValueError, match="needs the option set=NAME"):
        data.load("uci", root=root, cache=cache)


def test_a_prepared_set_outlives_its_source(made: Collection, tmp_path: Path, cache: Path) -> None:
    root = made.npz(tmp_path / "npz")
    first = data.load("uci", set="plain", fold=1, root=root, cache=cache)
    shutil.rmtree(root)
    again = data.load("uci", set="plain", fold=1, root=root, cache=cache)
    assert torch.equal(first.x_train, again.x_train) and first.fingerprint == again.fingerprint
    with pytest.raises(data.DataSetMissing):
        data.load("uci", set="plain", fold=2, root=root, cache=cache)


# ---- bad files --------------------------------------------------------------------------------------------


def refuse(root: Path, cache: Path, says: str, name: str = "plain", where: str = "") -> None:
    with pytest.raises(ValueError) as e:
        data.load("uci", set=name, fold=0, root=root, cache=cache)
    assert says in str(e.value), str(e.value)
    assert "\n" not in str(e.value)
    assert where in str(e.value) and str(root) in str(e.value)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda f: f.__setitem__(1, f[1][1:]), "the two parts cover 19 of 20 rows"),
        (
            lambda f: f.__setitem__(1, np.append(f[1][1:], f[0][0])),
            "1 rows are in the training and in the test",
        ),
        (
            lambda f: f.__setitem__(0, np.append(f[0], 20)),
            "row number 20 is out of range, the rows are 0 to 19",
        ),
        (lambda f: f.__setitem__(0, np.append(f[0], f[0][:2])), "2 row numbers occur twice"),
        (lambda f: f.__setitem__(1, f[1][:0]), "the test part is empty"),
    ],
)
def test_bad_folds(made: Collection, harm, says: str, tmp_path: Path, cache: Path) -> None:
    harm(made.folds)
    refuse(made.npz(tmp_path / "npz"), cache, says, where="plain, fold 0")
    if "empty" not in says:  # an empty line there is one line less
        refuse(made.archive(tmp_path / "archive"), cache, says)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("conxuntos_kfold.dat", lambda t: "-1 " + t, "row number -1 is out of range"),
        ("conxuntos_kfold.dat", lambda t: "x " + t, "more than row numbers"),
        ("conxuntos_kfold.dat", lambda t: t.split("\n", 1)[1], "7 lines of row numbers, not 8"),
        ("conxuntos_kfold.dat", None, "is missing"),
        ("plain.txt", lambda t: t.replace("fich1", "other"), "names no data file"),
        ("plain.txt", lambda t: t.replace("= 20", "= 21"), "has 20 rows, plain.txt says 21"),
        ("plain_R.dat", lambda t: t.replace("\t0\n", "\t0.5\n", 1), "a label is no whole number (0.5)"),
        ("plain_R.dat", lambda t: t.replace("\t0\n", "\tred\n", 1), "is not a table of numbers"),
        (
            "plain_R.dat",
            lambda t: t.replace("\t1\n", "\n", 1),
            "no finite number, the first in row 2, column 5",
        ),
        ("plain_R.dat", lambda t: "", "is not a table of numbers"),
    ],
)
def test_bad_archive_files(
    made: Collection, file: str, change, says: str, tmp_path: Path, cache: Path
) -> None:
    root = made.archive(tmp_path / "archive")
    path = root / "data" / "plain" / file
    if change:
        path.write_text(change(path.read_text()))
    else:
        path.unlink()
    refuse(root, cache, says, where=file)


@pytest.mark.parametrize(
    ("file", "change", "says"),
    [
        ("folds_py.dat", lambda t: t.replace("0.0", "2.0", 1), "column 0 holds more than 0 and 1"),
        ("folds_py.dat", lambda t: t.split("\n", 1)[1], "has 19 rows and 4 columns; plain has 20 rows"),
        ("folds_py.dat", lambda t: t.replace("1.0", "0.0"), "the test part is empty"),
        ("labels_py.dat", lambda t: t.replace("0.0", "nan", 1), "empty or no finite number"),
        ("plain_py.dat", lambda t: t.replace("0.5", "inf", 1), "first in row 1, column 2"),
        (
            "validation_folds_py.dat",
            lambda t: t.replace("0.0", "1.0"),
            "5 rows of fold 0 are in the test part as well",
        ),
    ],
)
def test_bad_jku_files(made: Collection, file: str, change, says: str, tmp_path: Path, cache: Path) -> None:
    root = made.jku(tmp_path / "jku")
    path = root / "uci" / "plain" / file
    path.write_text(change(path.read_text()))
    refuse(root, cache, says)


def test_a_bad_npz(made: Collection, tmp_path: Path, cache: Path) -> None:
    made.x[3, 2] = np.nan
    refuse(
        made.npz(tmp_path / "nan"),
        cache,
        "1 cells are empty or no finite number, the first in row 4, column 3",
    )
    root = made.npz(tmp_path / "cut")
    path = root / "uci121" / "uci121.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    refuse(root, cache, "damaged or no npz file")
    made.y = made.y[1:]
    refuse(made.npz(tmp_path / "short"), cache, "plain has 20 rows, 19 labels")


# ---- the real collection ----------------------------------------------------------------------------------

TEST_ROWS = {  # official test parts, as the UCI archive's files have them
    "annealing": 100, "audiology-std": 25, "conn-bench-vowel-deterding": 462, "hayes-roth": 28,
    "hill-valley": 606, "horse-colic": 68, "image-segmentation": 2100, "monks-1": 432, "monks-2": 432,
    "monks-3": 432, "optical": 1797, "pendigits": 3498, "soybean": 376, "spect": 186, "spectf": 187,
    "statlog-landsat": 2000, "thyroid": 3428, "adult": 16281, "statlog-shuttle": 14500,
}  # fmt: skip


def test_real_facts(real_root: Path) -> None:
    """Against the index that lies beside the file: read by csv alone."""
    with (real_root / "uci121" / "index.csv").open() as f:
        rows = list(csv.DictReader(f))
    wanted = [
        (r["name"], int(r["n"]), int(r["d"]), int(r["classes"]), 1 if "+" in r["parts"] else 4) for r in rows
    ]
    assert uci.index(real_root) == sorted(wanted)
    assert {name for name, *_, folds in wanted if folds == 1} == set(TEST_ROWS) == set(uci.TWO_PARTS)


@pytest.mark.parametrize("name", TEST_ROWS)
def test_real_test_parts(name: str, real_root: Path, cache: Path) -> None:
    d = data.load("uci", set=name, root=real_root, cache=cache, val_fraction=0.15)
    assert len(d.x_test) == TEST_ROWS[name]
    both = torch.cat([d.x_train, d.x_val])
    assert float(d.x_test.mean().abs()) < 0.1 and float(d.x_test.std()) < 1.3  # one scale
    assert float(both.mean().abs()) < 0.1


def test_real_trains_and_balloons(real_root: Path, cache: Path) -> None:
    for name, sizes in (("trains", [6, 2, 2]), ("balloons", [10, 2, 4])):
        d = data.load("uci", set=name, fold=3, root=real_root, cache=cache, val_fraction=0.15)
        assert [len(x) for x in (d.x_train, d.x_val, d.x_test)] == sizes
        assert torch.isfinite(torch.cat([d.x_train, d.x_val, d.x_test])).all()


def test_real_golden_fingerprints(real_root: Path, cache: Path) -> None:
    """Run ids hold them."""
    found = [
        data.fingerprint("uci", set=s, fold=f, root=real_root, cache=cache)
        for s, f in (("iris", 0), ("iris", 3), ("spect", 0))
    ]
    assert found == GOLDEN


GOLDEN = ["c464b94048048202", "956019046ce347e8", "0cac769686dbb22c"]
