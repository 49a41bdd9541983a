"""Every documented layout of MNIST and CIFAR-10 gives the same data set, and what torchvision reads."""

import gzip
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import data
from data import cifar

Arrays = dict[str, np.ndarray]


def pictures(d: data.DataSet, *parts: str) -> Counter[tuple[bytes, int]]:
    """The (picture, label) pairs of these parts, in no order."""
    pairs: Counter[tuple[bytes, int]] = Counter()
    for part in parts:
        for x, y in zip(getattr(d, f"x_{part}"), getattr(d, f"y_{part}"), strict=True):
            pairs[x.numpy().tobytes(), int(y)] += 1
    return pairs


def expected(x: np.ndarray, y: np.ndarray) -> Counter[tuple[bytes, int]]:
    return Counter((a.tobytes(), int(b)) for a, b in zip(x, y, strict=True))


def move(root: Path, layout: str, digits: Arrays) -> Path:
    """The MNIST fixture in another layout."""
    raw, out = root / "MNIST" / "raw", root.parent / f"root {layout}"
    if layout == "npz":
        (out / "mnist").mkdir(parents=True)
        for part in ("train", "test"):
            x, y = digits[f"x_{part}"], digits[f"y_{part}"].astype(np.int64)
            np.savez(out / "mnist" / f"mnist_{part}.npz", x=x, y=y)
    elif layout == "gz":
        (out / "mnist").mkdir(parents=True)
        for f in raw.iterdir():
            (out / "mnist" / f"{f.name}.gz").write_bytes(gzip.compress(f.read_bytes()))
    else:
        shutil.copytree(raw, out / layout)
    return out


@pytest.mark.parametrize("layout", ["MNIST/raw", "mnist/MNIST/raw", "gz", "npz"])
def test_mnist_layouts(mnist_root: Path, layout: str, digits: Arrays, cache: Path, tmp_path: Path) -> None:
    root = move(mnist_root, layout, digits)
    d = data.load("mnist", root=root, cache=cache, val_fraction=0.2)
    assert pictures(d, "train", "val") == expected(digits["x_train"], digits["y_train"])
    assert pictures(d, "test") == expected(digits["x_test"], digits["y_test"])
    assert d.x_train.shape == (48, 1, 28, 28)
    assert d.x_train.dtype == torch.uint8
    assert d.y_train.dtype == torch.int64
    assert d.name == "mnist"
    # one content, one fingerprint, wherever it came from
    assert d.fingerprint == data.fingerprint("mnist", root=mnist_root, cache=tmp_path / "other")


def test_mnist_is_what_torchvision_reads(mnist_root: Path, cache: Path) -> None:
    from torchvision.datasets import MNIST

    d = data.load("mnist", root=mnist_root, cache=cache)
    for train, parts in ((True, ("train", "val")), (False, ("test",))):
        theirs = MNIST(str(mnist_root), train=train)
        assert pictures(d, *parts) == expected(theirs.data.numpy(), theirs.targets.numpy())


def test_cifar10_batches_are_what_torchvision_reads(cifar_root: Path, cache: Path) -> None:
    from torchvision.datasets import CIFAR10

    d = data.load("cifar10", root=cifar_root, cache=cache)
    for train, parts in ((True, ("train", "val")), (False, ("test",))):
        theirs = CIFAR10(str(cifar_root), train=train)
        assert pictures(d, *parts) == expected(
            theirs.data.transpose(0, 3, 1, 2).copy(), np.array(theirs.targets)
        )
    assert d.name == "cifar10"
    assert d.classes == tuple(CIFAR10(str(cifar_root)).classes)


def test_cifar10_layouts(cifar_root: Path, colours: Arrays, cache: Path, tmp_path: Path) -> None:
    archive, plain = tmp_path / "archive", tmp_path / "plain"
    archive.mkdir()
    shutil.copy(tmp_path / cifar.ARCHIVE, archive)
    (plain / "cifar10").mkdir(parents=True)
    for part in ("train", "test"):
        np.savez(plain / "cifar10" / f"cifar10_{part}.npz", x=colours[f"x_{part}"], y=colours[f"y_{part}"])
    prints = {
        str(root): data.fingerprint("cifar10", root=root, cache=cache / root.name)
        for root in (cifar_root, archive, plain)
    }
    assert len(set(prints.values())) == 1
    d = data.load("cifar10", root=plain, cache=cache / "plain", val_fraction=0)
    planes = colours["x_train"].transpose(0, 3, 1, 2)
    assert pictures(d, "train") == expected(np.ascontiguousarray(planes), colours["y_train"])
    assert len(d.x_val) == 0


def test_python3_batches_too(colours: Arrays) -> None:
    """What Python 3 writes in protocol 2 goes through _codecs.encode and numpy._core."""
    import pickle

    x = np.ascontiguousarray(colours["x_test"].transpose(0, 3, 1, 2)).reshape(10, 3072)
    pixels, labels = cifar._batch(pickle.dumps({"data": x, "labels": [*range(10)]}, protocol=2))
    assert np.array_equal(pixels.reshape(10, 3072), x)
    assert labels.tolist() == [*range(10)]


def test_the_jpeg_variant_has_its_own_name(cifar_jpeg_root: Path, colours: Arrays, cache: Path) -> None:
    d = data.load("cifar10", root=cifar_jpeg_root, cache=cache, val_fraction=0)
    assert d.name == "cifar10_jpeg"
    assert any("JPEG" in note for note in d.notes)
    # each picture, under its own label, is near the one that was compressed
    for part in ("train", "test"):
        originals = colours[f"x_{part}"].transpose(0, 3, 1, 2).astype(int)
        for x, y in zip(getattr(d, f"x_{part}").numpy().astype(int), getattr(d, f"y_{part}"), strict=True):
            nearest = int(np.abs(originals - x).mean((1, 2, 3)).argmin())
            assert np.abs(originals[nearest] - x).mean() < 8
            assert colours[f"y_{part}"][nearest] == y


def test_the_official_files_are_preferred(cifar_root: Path, cifar_jpeg_root: Path, cache: Path) -> None:
    shutil.copytree(cifar_jpeg_root / "cifar10", cifar_root / "cifar10")
    assert data.load("cifar10", root=cifar_root, cache=cache).name == "cifar10"
    assert data.load("cifar10", root=cifar_jpeg_root, cache=cache).name == "cifar10_jpeg"


def test_a_set_of_another_size_says_so(mnist_root: Path, cache: Path) -> None:
    d = data.load("mnist", root=mnist_root, cache=cache)
    assert any("60 + 20 examples; the official set has 60,000 + 10,000" in note for note in d.notes)


# bad files: one line that names the file


def check_one_line(error: Exception, *parts: str) -> None:
    message = str(error)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_a_changed_batch_is_refused(cifar_root: Path, cache: Path) -> None:
    path = cifar_root / "cifar-10-batches-py" / "data_batch_3"
    raw = bytearray(path.read_bytes())
    raw[-5] ^= 1
    path.write_bytes(raw)
    with pytest.raises(data.ChecksumMismatch) as e:
        data.load("cifar10", root=cifar_root, cache=cache)
    check_one_line(e.value, "data_batch_3", "md5", "download it again")


def test_a_batch_cannot_run_code(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "hacked",)

    with pytest.raises(ValueError, match="no business"):
        cifar._batch(pickle.dumps({"data": Evil(), "labels": [0]}, protocol=2))
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("harm", ["cut", "empty", "html", "gzip cut"])
def test_a_bad_idx_file_is_named(mnist_root: Path, cache: Path, harm: str) -> None:
    path = mnist_root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    raw = path.read_bytes()
    if harm == "gzip cut":
        path.unlink()
        path = path.with_name(path.name + ".gz")
        path.write_bytes(gzip.compress(raw)[:-9])
    else:
        path.write_bytes({"cut": raw[:-1], "empty": b"", "html": b"<html>not found</html>"}[harm])
    with pytest.raises(ValueError) as e:
        data.load("mnist", root=mnist_root, cache=cache)
    check_one_line(e.value, str(path), "download it again")


def test_a_bad_npz_file_is_named(mnist_root: Path, cache: Path, digits: Arrays) -> None:
    root = move(mnist_root, "npz", digits)
    path = root / "mnist" / "mnist_test.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError) as e:
        data.load("mnist", root=root, cache=cache)
    check_one_line(e.value, str(path))
    np.savez(path, pictures=digits["x_test"])
    with pytest.raises(ValueError) as e:
        data.load("mnist", root=root, cache=cache)
    check_one_line(e.value, str(path), "x is not a file")
    np.savez(path, x=digits["x_test"].astype(np.float32), y=digits["y_test"])
    with pytest.raises(ValueError, match="does not hold MNIST"):
        data.load("mnist", root=root, cache=cache)


def test_an_npz_with_pickles_is_refused(mnist_root: Path, cache: Path, digits: Arrays) -> None:
    root = move(mnist_root, "npz", digits)
    np.savez(root / "mnist" / "mnist_test.npz", x=np.array([{}], dtype=object), y=digits["y_test"])
    with pytest.raises(ValueError, match="allow_pickle=False"):
        data.load("mnist", root=root, cache=cache)


def test_a_bad_jpeg_is_named(cifar_jpeg_root: Path, cache: Path) -> None:
    path = cifar_jpeg_root / "cifar10" / "cifar10_train_jpeg.npz"
    z = dict(np.load(path))
    z["jpeg"] = z["jpeg"].copy()
    z["jpeg"][z["offsets"][7] : z["offsets"][7] + 20] = 0
    np.savez(path, **z)
    with pytest.raises(ValueError) as e:
        data.load("cifar10", root=cifar_jpeg_root, cache=cache)
    check_one_line(e.value, str(path), "picture 7")
