"""Imagenette, Tiny ImageNet, SVHN, CIFAR-100 and the letters of glyphs, from tiny files in each layout."""

import hashlib
import io
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

import data
from data import cifar, glyphs, pictures

Arrays = dict[str, np.ndarray]


def smooth(n: int, size: int, seed: int) -> np.ndarray:
    """[n, size, size, 3] pictures that JPEG keeps nearly as they are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 3, 3, 3), dtype=np.uint8)
    bicubic = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(c).resize((size, size), bicubic)) for c in coarse])


def jpeg(picture: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def write_encoded(folder: Path, name: str, size: int, classes: int) -> tuple[Arrays, list[Path]]:
    """The two encoded files, 2 training and 1 validation picture a class, and what they hold."""
    folder.mkdir(parents=True, exist_ok=True)
    kept, paths = {}, []
    for seed, (part, n) in enumerate((("train", 2 * classes), ("val", classes))):
        x, y = smooth(n, size, seed), np.arange(n, dtype=np.int64)[::-1] % classes
        blobs = [jpeg(p) for p in x]
        paths.append(folder / f"{name}_{part}_jpeg.npz")
        np.savez(
            paths[-1],
            jpeg=np.frombuffer(b"".join(blobs), np.uint8),
            offsets=np.cumsum([0] + [len(b) for b in blobs]),
            y=y,
            class_names=np.array([f"class {c}" for c in range(classes)]),
        )
        kept |= {f"x_{part}": x, f"y_{part}": y}
    return kept, paths


ENCODED = [("imagenette64", "imagenette64", 64, 10), ("tinyimagenet100", "tinyimagenet100_32", 32, 100)]


def one_line(error: BaseException, *parts: str) -> None:
    assert "\n" not in str(error)
    for part in parts:
        assert part in str(error)


# encoded files


@pytest.mark.parametrize(("name", "variant", "size", "classes"), ENCODED)
@pytest.mark.parametrize("in_root", [True, False])
def test_encoded_files(
    name: str, variant: str, size: int, classes: int, in_root: bool, tmp_path: Path, cache: Path
) -> None:
    kept, _ = write_encoded(tmp_path / "r" / ("." if in_root else variant), variant, size, classes)
    d = data.load(name, root=tmp_path / "r", cache=cache, val_fraction=0)
    assert d.name == variant
    assert d.classes == tuple(f"class {c}" for c in range(classes))
    assert d.x_train.shape == (2 * classes, 3, size, size) and d.x_train.dtype == torch.uint8
    assert d.y_train.dtype == torch.int64
    assert any("official validation set" in note for note in d.notes)
    assert any("examples; the official set has" in note for note in d.notes)
    # the val file is the test part, and each picture is near the one that was compressed, under its label
    for theirs, ours in (("train", "train"), ("val", "test")):
        originals = kept[f"x_{theirs}"].transpose(0, 3, 1, 2).astype(int)
        used = set()
        for x, y in zip(getattr(d, f"x_{ours}").numpy().astype(int), getattr(d, f"y_{ours}"), strict=True):
            distance = np.abs(originals - x).mean((1, 2, 3))
            assert distance.min() < 4
            assert kept[f"y_{theirs}"][distance.argmin()] == y
            used.add(int(distance.argmin()))
        assert len(used) == len(originals)


def spoil(path: Path, **new: np.ndarray) -> None:
    with np.load(path) as z:
        arrays = dict(z)
    np.savez(path, **{**arrays, **new})


def bad_encoded(harm: str, path: Path) -> None:
    with np.load(path) as z:
        blob, offsets, y, names = (z[k].copy() for k in ("jpeg", "offsets", "y", "class_names"))
    if harm == "truncated JPEG":
        offsets[3:] -= 40  # the pictures behind are shifted, too: the first bad one is named
        spoil(path, offsets=offsets, jpeg=np.delete(blob, np.arange(offsets[3], offsets[3] + 40)))
    elif harm == "other size":
        small = np.frombuffer(jpeg(smooth(1, 1, 5)[0]), np.uint8)  # numpy would spread this one pixel
        tail = offsets[4:] - offsets[4] + offsets[3] + len(small)
        spoil(
            path,
            jpeg=np.concatenate([blob[: offsets[3]], small, blob[offsets[4] :]]),
            offsets=np.concatenate([offsets[:4], tail]),
        )
    elif harm == "offsets":
        spoil(path, offsets=offsets[:-1])
    elif harm == "label":
        y[2] = 10
        spoil(path, y=y)
    elif harm == "negative label":
        y[2] = -1
        spoil(path, y=y)
    elif harm == "float labels":
        spoil(path, y=y.astype(np.float32))
    elif harm == "class names":
        spoil(path, class_names=names[:-1])
    elif harm == "cut":
        path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("truncated JPEG", "picture 2 cannot be decoded"),
        ("other size", "picture 3 cannot be decoded (it has 1x1 pixels, not 64x64)"),
        ("offsets", "20 labels need 21 offsets, not (20,)"),
        ("label", "the label 10 is not one of 0 to 9"),
        ("negative label", "the label -1 is not one of 0 to 9"),
        ("float labels", "labels must be whole numbers"),
        ("class names", "names 9 classes; 10 are expected"),
        ("cut", "is damaged or no npz file"),
    ],
)
def test_bad_encoded_files_are_named(harm: str, message: str, tmp_path: Path, cache: Path) -> None:
    _, (train, _) = write_encoded(tmp_path, "imagenette64", 64, 10)
    bad_encoded(harm, train)
    with pytest.raises(ValueError) as e:
        data.load("imagenette64", root=tmp_path, cache=cache)
    one_line(e.value, str(train), message)


def test_labels_of_another_set_do_not_pass(tmp_path: Path, cache: Path) -> None:
    """100 classes under the name of ten."""
    write_encoded(tmp_path, "imagenette64", 32, 100)
    with pytest.raises(ValueError, match="names 100 classes"):
        data.load("imagenette64", root=tmp_path, cache=cache)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("imagenette64", ["github.com/fastai/imagenette", "imagenette2-160", "research only"]),
        ("tinyimagenet100", ["cs231n.stanford.edu/tiny-imagenet-200.zip", "research only"]),
        ("svhn", ["ufldl.stanford.edu/housenumbers/", "svhn", "extra_32x32.mat", "non-commercial"]),
        ("cifar100", ["cs.toronto.edu/~kriz", "cifar-100-python.tar.gz", "research only"]),
    ],
)
def test_a_missing_set_says_what_to_get(name: str, parts: list[str], tmp_path: Path, cache: Path) -> None:
    with pytest.raises(data.DataSetMissing) as e:
        data.load(name, root=tmp_path, cache=cache)
    one_line(e.value, str(tmp_path), *parts)


@pytest.mark.parametrize(("name", "variant", "size", "classes"), ENCODED)
def test_a_prepared_set_needs_no_source(
    name: str, variant: str, size: int, classes: int, tmp_path: Path, cache: Path
) -> None:
    _, files = write_encoded(tmp_path, variant, size, classes)
    first = data.fingerprint(name, root=tmp_path, cache=cache)
    for f in files:
        f.unlink()
    d = data.load(name, root=tmp_path, cache=cache)
    assert (d.name, d.fingerprint) == (variant, first)


# official folders


def write_imagenette(root: Path) -> dict[tuple[str, int], np.ndarray]:
    """Two training pictures and one validation picture a class, of odd shapes, one of them grey."""
    kept = {}
    for number, wnid in enumerate(pictures.IMAGENETTE):
        for part, n in (("train", 2), ("val", 1)):
            folder = root / "imagenette2-160" / part / wnid
            folder.mkdir(parents=True)
            for k in range(n):
                x = smooth(1, 160, 100 * number + 10 * n + k)[0][:, : 120 + number]
                if (number, part) == (3, "val"):
                    x = x[:, :, 0]
                (folder / f"{part}_{wnid}_{k}.JPEG").write_bytes(jpeg(x))
                kept[part, number] = x
    (root / "imagenette2-160" / "noisy_imagenette.csv").write_text("path\n")
    return kept


def test_the_official_imagenette_folder(tmp_path: Path, cache: Path) -> None:
    write_imagenette(tmp_path)
    d = data.load("imagenette64", root=tmp_path, cache=cache, val_fraction=0.5)
    assert d.name == "imagenette64_folder"
    assert d.classes == tuple(pictures.IMAGENETTE.values())
    assert d.x_train.shape == d.x_val.shape == d.x_test.shape == (10, 3, 64, 64)
    for y in (d.y_train, d.y_val, d.y_test):
        assert sorted(y.tolist()) == list(range(10))
    for number, wnid in enumerate(pictures.IMAGENETTE):
        path = tmp_path / "imagenette2-160" / "val" / wnid / f"val_{wnid}_0.JPEG"
        with Image.open(path) as image:
            squashed = image.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)
        ours = d.x_test[d.y_test == number][0]
        assert np.array_equal(ours.numpy(), np.asarray(squashed).transpose(2, 0, 1))


def test_the_official_folder_is_preferred(tmp_path: Path, cache: Path) -> None:
    write_encoded(tmp_path, "imagenette64", 64, 10)
    assert data.load("imagenette64", root=tmp_path, cache=cache).name == "imagenette64"
    write_imagenette(tmp_path)
    assert data.load("imagenette64", root=tmp_path, cache=cache).name == "imagenette64_folder"


def test_half_an_imagenette_folder_is_named(tmp_path: Path, cache: Path) -> None:
    write_imagenette(tmp_path)
    folder = tmp_path / "imagenette2-160" / "val" / "n03888257"
    victim = next(folder.iterdir())
    victim.write_bytes(victim.read_bytes()[:400])
    with pytest.raises(ValueError) as e:
        data.load("imagenette64", root=tmp_path, cache=cache)
    one_line(e.value, str(victim), "cannot be read as a picture")
    victim.unlink()
    with pytest.raises(ValueError) as e:
        data.load("imagenette64", root=tmp_path, cache=cache)
    one_line(e.value, str(folder), "has no JPEG pictures")


@pytest.fixture
def tiny_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five classes of which three are read, 4 of 6 training pictures, two validation pictures each."""
    monkeypatch.setattr(pictures, "TINY_CLASSES", 3)
    monkeypatch.setattr(pictures, "TINY_ROWS", 4)
    base = tmp_path / "tiny" / "tiny-imagenet-200"
    lines, words = [], ["n00000001\tnot a class"]
    wnids = ["n05", "n02", "n03", "n01", "n04"]
    (base / "val" / "images").mkdir(parents=True)
    for number, wnid in enumerate(wnids):
        (base / "train" / wnid / "images").mkdir(parents=True)
        for k, x in enumerate(smooth(6, 64, number)):
            (base / "train" / wnid / "images" / f"{wnid}_{k}.JPEG").write_bytes(jpeg(x))
        words.append(f"{wnid}\tname of {wnid}, another")
    for k, x in enumerate(smooth(10, 64, 9)):
        (base / "val" / "images" / f"val_{k}.JPEG").write_bytes(jpeg(x))
        lines.append(f"val_{k}.JPEG\t{wnids[k % 5]}\t0\t32\t44\t62")
    (base / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    (base / "words.txt").write_text("\n".join(words) + "\n")
    return tmp_path / "tiny"


def test_the_official_tiny_imagenet_folder(tiny_root: Path, cache: Path, tmp_path: Path) -> None:
    d = data.load("tinyimagenet100", root=tiny_root, cache=cache, val_fraction=0.25)
    assert d.name == "tinyimagenet100_folder"
    assert d.classes == ("name of n01", "name of n02", "name of n03")
    assert d.x_train.shape == (9, 3, 32, 32)
    assert np.bincount(d.y_train).tolist() == [3, 3, 3]
    assert np.bincount(d.y_val).tolist() == [1, 1, 1]
    assert np.bincount(d.y_test).tolist() == [2, 2, 2]
    base = tiny_root / "tiny-imagenet-200"

    files = sorted(base.rglob("*.JPEG"))
    means = np.stack([np.asarray(Image.open(f)).reshape(32, 2, 32, 2, 3).mean((1, 3)) for f in files])

    def origin(x: torch.Tensor) -> Path:
        """The one file whose means over 2x2 pixels these are; Pillow rounds twice, after each direction."""
        far = np.abs(means.transpose(0, 3, 1, 2) - x.numpy()).max((1, 2, 3))
        (k,) = np.flatnonzero(far <= 1)
        return files[k]

    found = [origin(x) for x in (*d.x_train, *d.x_val)]
    labels = [*d.y_train.tolist(), *d.y_val.tolist()]
    assert len(set(found)) == 12
    assert all(f.name.startswith(f"n0{y + 1}_") for f, y in zip(found, labels, strict=True))
    wnid = {line.split("\t")[0]: line.split("\t")[1] for line in _lines(base / "val" / "val_annotations.txt")}
    for x, y in zip(d.x_test, d.y_test, strict=True):
        assert wnid[origin(x).name] == f"n0{int(y) + 1}"
    assert d.fingerprint == data.fingerprint("tinyimagenet100", root=tiny_root, cache=tmp_path / "again")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.parametrize("gone", ["words.txt", "val/val_annotations.txt", "val/images/val_1.JPEG"])
def test_half_a_tiny_imagenet_folder_is_named(tiny_root: Path, cache: Path, gone: str) -> None:
    path = tiny_root / "tiny-imagenet-200" / gone
    path.unlink()
    with pytest.raises(ValueError) as e:
        data.load("tinyimagenet100", root=tiny_root, cache=cache)
    one_line(e.value, str(path), "unpack")
    for name in ("n01", "n02", "n05"):
        shutil.rmtree(tiny_root / "tiny-imagenet-200" / "train" / name)
    with pytest.raises(ValueError, match="has 2 classes: unpack"):
        data.load("tinyimagenet100", root=tiny_root, cache=cache)


# SVHN


def write_svhn(folder: Path, parts: tuple[str, ...] = ("train", "test", "extra")) -> Arrays:
    """30 + 10 + 50 random pictures as the official X [32, 32, 3, N], y [N, 1] with 10 for the digit 0."""
    folder.mkdir(parents=True)
    kept: Arrays = {}
    for seed, (part, n) in enumerate((("train", 30), ("test", 10), ("extra", 50))):
        x = np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        y = np.random.default_rng(seed).permutation(np.arange(n)) % 10
        kept |= {f"x_{part}": x.transpose(0, 3, 1, 2), f"y_{part}": y}
        if part in parts:
            in_file = {"X": x.transpose(1, 2, 3, 0), "y": np.where(y == 0, 10, y).astype(np.uint8)[:, None]}
            savemat(folder / f"{part}_32x32.mat", in_file, do_compression=True)
    return kept


def pairs(x: np.ndarray | torch.Tensor, y: np.ndarray | torch.Tensor) -> set[tuple[bytes, int]]:
    return {(np.ascontiguousarray(a).tobytes(), int(b)) for a, b in zip(np.asarray(x), y, strict=True)}


@pytest.mark.parametrize("folder", ["svhn", "SVHN", "."])
def test_svhn(folder: str, tmp_path: Path, cache: Path) -> None:
    kept = write_svhn(tmp_path / "r" / folder, ("train", "test"))
    d = data.load("svhn", root=tmp_path / "r", cache=cache, val_fraction=0.2)
    assert pairs(d.x_train, d.y_train) | pairs(d.x_val, d.y_val) == pairs(kept["x_train"], kept["y_train"])
    assert pairs(d.x_test, d.y_test) == pairs(kept["x_test"], kept["y_test"])
    assert len(d.y_val) == 10 and d.name == "svhn" and d.classes == tuple("0123456789")
    assert any("30 + 10 examples; the official set has 73,257 + 26,032" in note for note in d.notes)


def test_svhn_is_what_torchvision_reads(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import SVHN

    write_svhn(tmp_path / "svhn")
    monkeypatch.setattr("torchvision.datasets.svhn.check_integrity", lambda path, md5: True)
    d = data.load("svhn", root=tmp_path, cache=cache, val_fraction=0, extra=True)
    theirs = [SVHN(str(tmp_path / "svhn"), split=split) for split in ("train", "extra", "test")]
    assert pairs(d.x_train, d.y_train) == set().union(*(pairs(t.data, t.labels) for t in theirs[:2]))
    assert pairs(d.x_test, d.y_test) == pairs(theirs[2].data, theirs[2].labels)


def test_svhn_with_extra(tmp_path: Path, cache: Path) -> None:
    kept = write_svhn(tmp_path / "svhn")
    d = data.load("svhn", root=tmp_path, cache=cache, val_fraction=0, extra=True)
    both = pairs(kept["x_train"], kept["y_train"]) | pairs(kept["x_extra"], kept["y_extra"])
    assert len(both) == 80 and pairs(d.x_train, d.y_train) == both
    assert any("easier" in note for note in d.notes)
    assert any("80 + 10 examples; the official set has 604,388 + 26,032" in note for note in d.notes)
    assert d.fingerprint != data.fingerprint("svhn", root=tmp_path, cache=cache)


def test_svhn_validation_of_the_source(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "SVHN_VALIDATION", {"train": 2, "extra": 1})
    kept = write_svhn(tmp_path / "svhn")
    options = {"extra": True, "validation": "source"}
    d = data.load("svhn", root=tmp_path, cache=cache, val_fraction=0.5, **options)
    train, extra = (pairs(kept[f"x_{part}"], kept[f"y_{part}"]) for part in ("train", "extra"))
    val = pairs(d.x_val, d.y_val)
    assert np.bincount(d.y_val).tolist() == [3] * 10  # val_fraction is not used
    assert np.bincount([y for _, y in val & train]).tolist() == [2] * 10
    assert np.bincount([y for _, y in val & extra]).tolist() == [1] * 10
    assert pairs(d.x_train, d.y_train) == (train | extra) - val
    assert any("val_fraction is not used" in note for note in d.notes)
    assert any("50 + 10 examples; the official set has 604,358" in note for note in d.notes)
    again = data.fingerprint("svhn", root=tmp_path, cache=tmp_path / "again", **options)
    assert d.fingerprint == again  # the draw is fixed
    monkeypatch.setattr(pictures, "SVHN_VALIDATION", {"train": 3, "extra": 1})
    with pytest.raises(ValueError) as e:
        data.load("svhn", root=tmp_path, cache=tmp_path / "third", **options)
    one_line(e.value, "train_32x32.mat has 3 pictures of the digit 0, not more than 3")


def test_svhn_options_and_a_missing_extra_file(tmp_path: Path, cache: Path) -> None:
    write_svhn(tmp_path / "svhn", ("train", "test"))
    data.load("svhn", root=tmp_path, cache=cache)
    with pytest.raises(data.DataSetMissing) as e:
        data.load("svhn", root=tmp_path, cache=cache, extra=True)
    one_line(e.value, "for extra=true extra_32x32.mat", str(tmp_path / "svhn"))
    for options, message in (
        ({"extra": "yes"}, "extra must be true or false"),
        ({"validation": "official"}, "validation must be null or source"),
        ({"validation": "source"}, "give extra=true"),
    ):
        with pytest.raises(ValueError) as wrong:
            data.load("svhn", root=tmp_path, cache=cache, **options)
        one_line(wrong.value, message)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        ("cut", "cannot be read"),
        ("html", "cannot be read"),
        ("empty", "cannot be read"),
        ("no y", "cannot be read (KeyError: 'y')"),
        ("axes", "pictures are uint8 (30, 32, 32, 3), labels (30,)"),
        ("float", "pictures are float64"),
        ("fewer labels", "labels (29,)"),
        ("label 11", "the label 11 is not one of"),
        ("label 0", "the label 0 is not one of 1 to 10"),
    ],
)
def test_bad_svhn_files_are_named(harm: str, message: str, tmp_path: Path, cache: Path) -> None:
    kept = write_svhn(tmp_path / "svhn")
    path = tmp_path / "svhn" / "train_32x32.mat"
    x = kept["x_train"].transpose(2, 3, 1, 0)
    y = np.where(kept["y_train"] == 0, 10, kept["y_train"]).astype(np.uint8)
    raw = path.read_bytes()
    if harm in ("cut", "html", "empty"):
        path.write_bytes({"cut": raw[: len(raw) // 2], "html": b"<html>not found</html>", "empty": b""}[harm])
    elif harm == "no y":
        savemat(path, {"X": x})
    else:
        wrong = np.where(np.arange(30) == 7, {"label 11": 11, "label 0": 0}.get(harm, 1), y)
        new = {
            "axes": (x.transpose(3, 0, 1, 2), y),
            "float": (x.astype(np.float64), y),
            "fewer labels": (x, y[:-1]),
        }.get(harm, (x, wrong))
        savemat(path, {"X": new[0], "y": new[1][:, None]})
    with pytest.raises(ValueError) as e:
        data.load("svhn", root=tmp_path, cache=cache)
    one_line(e.value, str(path), message)


# CIFAR-100


@pytest.fixture
def cifar100_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root in the layout of torchvision.datasets.CIFAR100; both readers get its checksums."""
    from torchvision.datasets import CIFAR100

    folder = tmp_path / "cifar100_root" / "cifar-100-python"
    folder.mkdir(parents=True)
    names = [f"kind {c:02}" for c in range(100)]
    content = {"meta": {"fine_label_names": names, "coarse_label_names": ["a"] * 20}}
    for seed, (part, n) in enumerate((("train", 200), ("test", 100))):
        x = np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)
        y = [int(v) % 100 for v in np.random.default_rng(seed).permutation(n)]
        content[part] = {"data": x, "fine_labels": y, "coarse_labels": [v // 5 for v in y]}
    md5 = {}
    for name, what in content.items():
        (folder / name).write_bytes(pickle.dumps(what, protocol=2))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    archive = tmp_path / cifar.ARCHIVE_100
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, "cifar-100-python")
    md5[archive.name] = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar, "MD5_100", md5)
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5["train"]]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5["test"]]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": md5["meta"]})
    return tmp_path / "cifar100_root"


def test_cifar100_is_what_torchvision_reads(cifar100_root: Path, cache: Path, tmp_path: Path) -> None:
    from torchvision.datasets import CIFAR100

    d = data.load("cifar100", root=cifar100_root, cache=cache, val_fraction=0)
    for train, part in ((True, "train"), (False, "test")):
        theirs = CIFAR100(str(cifar100_root), train=train)
        ours = pairs(getattr(d, f"x_{part}"), getattr(d, f"y_{part}"))
        assert ours == pairs(theirs.data.transpose(0, 3, 1, 2), np.array(theirs.targets))
        assert d.classes == tuple(theirs.classes)
    archived = tmp_path / "archived" / "cifar100"
    archived.mkdir(parents=True)
    (tmp_path / cifar.ARCHIVE_100).rename(archived / cifar.ARCHIVE_100)
    assert d.fingerprint == data.fingerprint("cifar100", root=archived.parent, cache=cache / "archive")


def test_cifar100_has_the_checksums_of_torchvision() -> None:
    from torchvision.datasets import CIFAR100

    listed = [[CIFAR100.filename, CIFAR100.tgz_md5], *CIFAR100.train_list, *CIFAR100.test_list]
    assert {**dict(listed), "meta": CIFAR100.meta["md5"]} == cifar.MD5_100


def test_changed_cifar100_files_are_refused(cifar100_root: Path, cache: Path) -> None:
    path = cifar100_root / "cifar-100-python" / "train"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(data.ChecksumMismatch) as e:
        data.load("cifar100", root=cifar100_root, cache=cache)
    one_line(e.value, str(path), "md5", "download it again")


@pytest.mark.parametrize("harm", ["label", "shape", "no fine labels"])
def test_bad_cifar100_batches(
    harm: str, cifar100_root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cifar100_root / "cifar-100-python" / "train"
    batch = pickle.loads(path.read_bytes())
    if harm == "label":
        batch["fine_labels"][3] = 100
    elif harm == "shape":
        batch["data"] = batch["data"][:-1]
    else:
        del batch["fine_labels"]
    path.write_bytes(pickle.dumps(batch, protocol=2))
    monkeypatch.setitem(cifar.MD5_100, "train", hashlib.md5(path.read_bytes()).hexdigest())
    message = {
        "label": "the label 100 is not one of 0 to 99",
        "shape": "does not hold CIFAR-100: train pictures are uint8 (199, 3, 32, 32), labels (200,)",
        "no fine labels": "'fine_labels'",
    }[harm]
    with pytest.raises(ValueError) as e:
        data.load("cifar100", root=cifar100_root, cache=cache)
    one_line(e.value, message)


# the letters of glyphs


def test_letters(cache: Path) -> None:
    options = {"alphabet": "letters", "n_train": 72, "n_test": 36}
    d = data.load("glyphs", cache=cache, val_fraction=0, **options)
    assert d.classes == tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert np.bincount(d.y_train).tolist() == [2] * 36
    assert np.bincount(d.y_test).tolist() == [1] * 36
    assert any("digits and letters" in note for note in d.notes)
    digits = data.load("glyphs", cache=cache, val_fraction=0, n_train=72, n_test=36)
    assert not pairs(d.x_train, d.y_train) & pairs(digits.x_train, digits.y_train)
    named = data.fingerprint("glyphs", cache=cache, alphabet="digits", n_train=72, n_test=36)
    assert digits.fingerprint == named


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alphabet": "greek"}, "no alphabet 'greek'; there are digits, letters"),
        ({"alphabet": "letters", "n_test": 35}, "n_test must be a whole number of at least 36"),
    ],
)
def test_bad_letters(options: dict, message: str, cache: Path) -> None:
    with pytest.raises(ValueError) as e:
        data.load("glyphs", cache=cache, **options)
    one_line(e.value, message)


def test_every_letter_fits_and_differs_from_the_others(cache: Path) -> None:
    _, files = glyphs.find_glyphs(Path(), {**glyphs.OPTIONS, "alphabet": "letters"})
    for f in files:
        masters = glyphs._masters(f, glyphs.ALPHABETS["letters"])
        assert np.array_equal(masters[:10], glyphs._masters(f, glyphs.ALPHABETS["digits"]))
        flat = masters.reshape(36, -1)
        assert flat.sum(1).min() > 5
        assert len({row.tobytes() for row in flat}) == 36


def test_letters_match_the_pictures(cache: Path) -> None:
    """Five nearest neighbours read most plain characters: chance is 1 in 36."""
    from sklearn.neighbors import KNeighborsClassifier

    path = data.prepare("glyphs", cache=cache, domain="plain", alphabet="letters", n_train=3600, n_test=360)
    s = dict(np.load(path))
    knn = KNeighborsClassifier(5).fit(s["x_train"][:, 0].reshape(3600, -1), s["y_train"])
    assert knn.score(s["x_test"][:, 0].reshape(360, -1), s["y_test"]) > 0.4


# the real files


@pytest.mark.parametrize(
    ("name", "rows", "mean"),
    [
        ("imagenette64", (9_469, 3_925), (0.4623, 0.4578, 0.4303)),
        ("tinyimagenet100", (20_000, 5_000), None),
    ],
)
def test_the_real_files(
    name: str, rows: tuple[int, int], mean: tuple[float, ...] | None, real_root: Path
) -> None:
    try:
        d = data.load(name, root=real_root, val_fraction=0)
    except data.DataSetMissing as e:
        pytest.skip(str(e))
    assert (len(d.y_train), len(d.y_test)) == rows
    assert not any("the official set has" in note for note in d.notes)
    if d.name == "imagenette64" and mean:
        assert d.x_train.float().mean((0, 2, 3)).div(255).numpy() == pytest.approx(mean, abs=2e-4)
    if d.name == "tinyimagenet100_32":
        assert np.bincount(d.y_train).tolist() == [200] * 100
        assert np.bincount(d.y_test).tolist() == [50] * 100
        assert d.classes[0] == "goldfish"


@pytest.mark.parametrize(("name", "rows"), [("svhn", (73_257, 26_032)), ("cifar100", (50_000, 10_000))])
def test_the_real_official_files(name: str, rows: tuple[int, int], real_root: Path) -> None:
    try:
        d = data.load(name, root=real_root, val_fraction=0)
    except data.DataSetMissing as e:
        pytest.skip(str(e))
    assert (len(d.y_train), len(d.y_test)) == rows
    assert d.notes == ()
