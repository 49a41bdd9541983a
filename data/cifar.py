"""CIFAR-10: the official python batches, plain arrays, or the variant whose pictures went through JPEG.

CIFAR-100: the official python batches, with their fine labels.
"""

import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import store
from data.encoded import check_labels, decode
from data.errors import ChecksumMismatch

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FOLDERS = (".", "cifar10", "cifar-10")
ARCHIVE = "cifar-10-python.tar.gz"
# md5 as in torchvision.datasets.CIFAR10, which publishes no stronger hash
MD5 = {
    ARCHIVE: "c58f30108f718f92721af3b95e74349a",
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
BATCHES = tuple(name for name in MD5 if name != ARCHIVE)
PLAIN = ("cifar10_train.npz", "cifar10_test.npz")  # x uint8 [N, 32, 32, 3], y [N]
JPEG = ("cifar10_train_jpeg.npz", "cifar10_test_jpeg.npz")  # jpeg uint8 [bytes], offsets [N+1], y [N]

FOLDERS_100 = (".", "cifar100", "cifar-100")
ARCHIVE_100 = "cifar-100-python.tar.gz"
MD5_100 = {  # as in torchvision.datasets.CIFAR100
    ARCHIVE_100: "eb9058c3a382ffc7106e4002c42a8d85",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    "meta": "7973b15100ade9c7d40fb424638fde48",
}
BATCHES_100 = tuple(name for name in MD5_100 if name != ARCHIVE_100)


def find_cifar10(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """(variant, files), the official layouts before the JPEG variant."""
    for variant, names in (
        ("cifar10", [f"cifar-10-batches-py/{name}" for name in BATCHES]),
        ("cifar10", [ARCHIVE]),
        ("cifar10", PLAIN),
        ("cifar10_jpeg", JPEG),
    ):
        for folder in FOLDERS:
            files = [root / folder / name for name in names]
            if all(f.is_file() for f in files):
                return variant, files
    return None


def build_cifar10(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    facts: dict[str, Any] = {
        "classes": CLASSES,
        "source": "CIFAR-10, Krizhevsky 2009",
        "notes": [],
        "licence": "none stated; research only, cite Krizhevsky 2009",
    }
    if variant == "cifar10_jpeg":
        facts["source"] = "CIFAR-10 after JPEG compression"
        facts["notes"] = [
            "the pictures went through JPEG (quality about 75) and lost fine detail: compare methods with "
            "each other, and expect small shifts against published CIFAR-10 errors"
        ]
    arrays: dict[str, NDArray[Any]] = {}
    if files[0].name in MD5:
        batches = [_batch(raw) for raw in _official(files, BATCHES, MD5)]
        arrays["x_train"] = np.concatenate([x for x, _ in batches[:-1]])
        arrays["y_train"] = np.concatenate([y for _, y in batches[:-1]])
        arrays["x_test"], arrays["y_test"] = batches[-1]
    else:
        for part, path in zip(("train", "test"), files, strict=True):
            jpeg = variant == "cifar10_jpeg"
            source = store.read(path, *(("jpeg", "offsets", "y") if jpeg else ("x", "y")))
            x = decode(source, path, 32) if jpeg else source["x"]
            arrays[f"x_{part}"] = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
            arrays[f"y_{part}"] = check_labels(source["y"], len(CLASSES), path)
    _check_shapes(arrays, "CIFAR-10", files[0].parent)
    return arrays, facts


def find_cifar100(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """(variant, files): the unpacked batches train, test and meta, or the archive."""
    for names in ([f"cifar-100-python/{name}" for name in BATCHES_100], [ARCHIVE_100]):
        for folder in FOLDERS_100:
            files = [root / folder / name for name in names]
            if all(f.is_file() for f in files):
                return "cifar100", files
    return None


def build_cifar100(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    *batches, meta = _official(files, BATCHES_100, MD5_100)
    classes = tuple(_load(meta, "fine_label_names")[0])
    for part, raw in zip(("train", "test"), batches, strict=True):
        x, y = _batch(raw, "fine_labels")
        arrays |= {f"x_{part}": x, f"y_{part}": check_labels(y, len(classes), files[0].parent / part)}
    _check_shapes(arrays, "CIFAR-100", files[0].parent)
    return arrays, {
        "classes": classes,
        "source": "CIFAR-100 (fine labels), Krizhevsky 2009",
        "notes": [],
        "licence": "none stated; research only, cite Krizhevsky 2009",
    }


def _check_shapes(arrays: Mapping[str, NDArray[Any]], name: str, where: Path) -> None:
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or x.shape[1:] != (3, 32, 32) or x.shape[:1] != y.shape:
            raise ValueError(
                f"{where} does not hold {name}: {part} pictures are {x.dtype} {x.shape}, labels {y.shape}"
            )


def _official(files: list[Path], names: Sequence[str], md5: Mapping[str, str]) -> Iterator[bytes]:
    """What the files of these names hold, checked. files: themselves, or the one archive that has them.

    They are read straight from the archive: nothing is unpacked to the disk.
    """
    if len(files) > 1:
        for path in files:
            yield _checked(path, md5)
        return
    _checked(files[0], md5)
    with tarfile.open(files[0]) as tar:
        found = {Path(m.name).name: m for m in tar.getmembers()}
        for name in names:
            member = tar.extractfile(found[name])
            assert member is not None
            yield member.read()


def _checked(path: Path, md5: Mapping[str, str]) -> bytes:
    raw = path.read_bytes()
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != md5[path.name]:
        raise ChecksumMismatch(
            f"{path} is not the official file: its md5 is {found}, expected {md5[path.name]}; "
            "delete it and download it again"
        )
    return raw


class _Arrays(pickle.Unpickler):
    """Reads what a CIFAR batch is made of (dicts, lists, numpy arrays) and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]  # where numpy keeps it differs between numpy 1 and 2
        if (module, name) == ("_codecs", "encode"):  # how python 3 pickles bytes in old protocols
            import _codecs

            return _codecs.encode
        raise pickle.UnpicklingError(f"a CIFAR batch has no business with {module}.{name}")


def _batch(raw: bytes, labels: str = "labels") -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures uint8 [N, 3, 32, 32] and the labels of this name [N]."""
    x, y = _load(raw, "data", labels)
    return np.asarray(x).reshape(-1, 3, 32, 32), np.asarray(y, dtype=np.int64)


def _load(raw: bytes, *keys: str) -> list[Any]:
    try:
        batch = _Arrays(io.BytesIO(raw), encoding="latin1").load()
        return [batch[key] for key in keys]
    except (pickle.UnpicklingError, EOFError, KeyError, AttributeError) as e:
        raise ValueError(f"a CIFAR batch cannot be read ({e}); delete it and download it again") from e
