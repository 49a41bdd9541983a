"""CIFAR-10: the official python batches, plain arrays, or the variant whose pictures went through JPEG."""

import hashlib
import io
import pickle
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import store
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
        batches = list(_archive(files[0]) if files[0].name == ARCHIVE else _batch_files(files))
        arrays["x_train"] = np.concatenate([x for x, _ in batches[:-1]])
        arrays["y_train"] = np.concatenate([y for _, y in batches[:-1]])
        arrays["x_test"], arrays["y_test"] = batches[-1]
    else:
        for part, path in zip(("train", "test"), files, strict=True):
            jpeg = variant == "cifar10_jpeg"
            source = store.read(path, *(("jpeg", "offsets", "y") if jpeg else ("x", "y")))
            x = _decode(source, path) if jpeg else source["x"]
            arrays[f"x_{part}"] = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
            arrays[f"y_{part}"] = source["y"].astype(np.int64)
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or x.shape[1:] != (3, 32, 32) or x.shape[:1] != y.shape:
            raise ValueError(
                f"{files[0].parent} does not hold CIFAR-10: "
                f"{part} pictures are {x.dtype} {x.shape}, labels {y.shape}"
            )
    return arrays, facts


def _batch_files(files: list[Path]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    for path in files:
        raw = path.read_bytes()
        _check(raw, path.name, path)
        yield _batch(raw)


def _archive(path: Path) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The batches straight from the archive: nothing is unpacked to the disk."""
    _check(path.read_bytes(), ARCHIVE, path)
    with tarfile.open(path) as tar:
        found = {Path(m.name).name: m for m in tar.getmembers()}
        for name in BATCHES:
            member = tar.extractfile(found[name])
            assert member is not None
            yield _batch(member.read())


def _check(raw: bytes, name: str, path: Path) -> None:
    md5 = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if md5 != MD5[name]:
        raise ChecksumMismatch(
            f"{path} is not the official file: its md5 is {md5}, expected {MD5[name]}; "
            "delete it and download it again"
        )


class _Arrays(pickle.Unpickler):
    """Reads what a CIFAR-10 batch is made of (dicts, lists, numpy arrays) and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "_reconstruct":
            return np.zeros(0).__reduce__()[0]  # where numpy keeps it differs between numpy 1 and 2
        if (module, name) == ("_codecs", "encode"):  # how python 3 pickles bytes in old protocols
            import _codecs

            return _codecs.encode
        raise pickle.UnpicklingError(f"a CIFAR-10 batch has no business with {module}.{name}")


def _batch(raw: bytes) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        batch = _Arrays(io.BytesIO(raw), encoding="latin1").load()
        return batch["data"].reshape(-1, 3, 32, 32), np.asarray(batch["labels"], dtype=np.int64)
    except (pickle.UnpicklingError, EOFError, KeyError, AttributeError) as e:
        raise ValueError(f"a CIFAR-10 batch cannot be read ({e}); delete it and download it again") from e


def _decode(source: Mapping[str, NDArray[Any]], path: Path) -> NDArray[np.uint8]:
    """All pictures of an encoded file, [N, 32, 32, 3]. Decoders may differ by a grey level."""
    from PIL import Image

    blob, offsets = source["jpeg"].tobytes(), source["offsets"]
    x = np.empty((len(source["y"]), 32, 32, 3), np.uint8)
    for i in range(len(x)):
        try:
            x[i] = np.asarray(Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]])).convert("RGB"))
        except (OSError, ValueError) as e:
            raise ValueError(f"{path}: picture {i} cannot be decoded ({e}); get the file again") from e
    return x
