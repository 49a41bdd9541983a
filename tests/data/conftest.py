"""Tiny copies of every layout that `data` reads, so that its tests need no real data."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data import cifar

RNG = np.random.default_rng


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    raw = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


@pytest.fixture
def digits() -> dict[str, np.ndarray]:
    """60 + 20 random 28x28 pictures, unevenly spread over the ten classes."""
    r = RNG(1)
    return {
        "x_train": r.integers(0, 256, (60, 28, 28), dtype=np.uint8),
        "y_train": np.array([*range(10)] * 5 + [1] * 10, dtype=np.uint8),
        "x_test": r.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "y_test": np.array([*range(10)] * 2, dtype=np.uint8),
    }


IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


@pytest.fixture
def mnist_root(tmp_path: Path, digits: dict[str, np.ndarray]) -> Path:
    """A data root in the layout of torchvision.datasets.MNIST."""
    root = tmp_path / "mnist_root"
    for key, name in IDX.items():
        write_idx(root / "MNIST" / "raw" / name, digits[key])
    return root


@pytest.fixture
def colours() -> dict[str, np.ndarray]:
    """5 x 10 + 10 smooth 32x32 colour pictures (smooth: so that JPEG keeps them nearly as they are)."""
    r = RNG(2)
    small = Image.Resampling.BICUBIC

    def pictures(n: int) -> np.ndarray:
        coarse = r.integers(0, 256, (n, 3, 3, 3), dtype=np.uint8)
        return np.stack([np.asarray(Image.fromarray(c).resize((32, 32), small)) for c in coarse])

    return {
        "x_train": pictures(50),
        "y_train": np.array([*range(10)] * 5, dtype=np.int64),
        "x_test": pictures(10),
        "y_test": np.arange(10, dtype=np.int64),
    }


def python2_batch(x: np.ndarray, y: list[int]) -> bytes:
    """A CIFAR-10 batch, opcode by opcode as Python 2 and numpy 1 pickled it: byte strings and numpy.core."""

    def text(s: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(s)) + s

    def number(n: int) -> bytes:
        return b"J" + struct.pack("<i", n)

    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + number(0) + number(1) + b"tR("
    dtype += number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(" + number(0) + b"t" + text(b"b") + b"tR("
    )
    array += number(1) + b"(" + number(len(x)) + number(3072) + b"t" + dtype + b"\x89"
    array += text(np.ascontiguousarray(x.transpose(0, 3, 1, 2)).tobytes()) + b"tb"
    labels = b"](" + b"".join(number(n) for n in y) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


@pytest.fixture
def cifar_root(tmp_path: Path, colours: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root in the layout of torchvision.datasets.CIFAR10; both readers get its checksums."""
    from torchvision.datasets import CIFAR10

    root = tmp_path / "cifar_root"
    (root / "cifar-10-batches-py").mkdir(parents=True)
    md5 = {}
    for k, name in enumerate(cifar.BATCHES):
        part, rows = ("test", slice(None)) if name == "test_batch" else ("train", slice(10 * k, 10 * k + 10))
        raw = python2_batch(colours[f"x_{part}"][rows], colours[f"y_{part}"][rows].tolist())
        (root / "cifar-10-batches-py" / name).write_bytes(raw)
        md5[name] = hashlib.md5(raw).hexdigest()
    meta = pickle.dumps({"label_names": list(cifar.CLASSES)}, protocol=2)
    (root / "cifar-10-batches-py" / "batches.meta").write_bytes(meta)
    with tarfile.open(tmp_path / cifar.ARCHIVE, "w:gz") as tar:
        tar.add(root / "cifar-10-batches-py", "cifar-10-batches-py")
    md5[cifar.ARCHIVE] = hashlib.md5((tmp_path / cifar.ARCHIVE).read_bytes()).hexdigest()
    monkeypatch.setattr(cifar, "MD5", md5)
    monkeypatch.setattr(CIFAR10, "train_list", [[n, md5[n]] for n in cifar.BATCHES[:-1]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": hashlib.md5(meta).hexdigest()})
    return root


@pytest.fixture
def cifar_jpeg_root(tmp_path: Path, colours: dict[str, np.ndarray]) -> Path:
    """A data root with CIFAR-10 as JPEG files in two npz."""
    root = tmp_path / "jpeg_root"
    (root / "cifar10").mkdir(parents=True)
    for part in ("train", "test"):
        blobs = []
        for picture in colours[f"x_{part}"]:
            out = io.BytesIO()
            Image.fromarray(picture).save(out, "JPEG", quality=90)
            blobs.append(out.getvalue())
        np.savez(
            root / "cifar10" / f"cifar10_{part}_jpeg.npz",
            jpeg=np.frombuffer(b"".join(blobs), np.uint8),
            offsets=np.cumsum([0] + [len(b) for b in blobs]),
            y=colours[f"y_{part}"],
        )
    return root


def kdd_lines(n: int, seed: int, services: list[str], labels: list[str]) -> list[str]:
    """Random connections: 41 fields and a label with a dot. Fields 19 and 20 are constant."""
    r = RNG(seed)
    out = []
    for i in range(n):
        fields = [f"{v:.2f}" for v in r.gamma(1, 3, 41)]
        fields[1] = ["tcp", "udp", "icmp"][r.integers(3)]
        fields[2] = services[r.integers(len(services))]
        fields[3] = ["SF", "S0"][r.integers(2)]
        fields[4] = str(
            int(r.integers(0, 2)) * 693375640 + int(r.integers(0, 500))
        )  # beyond float32's whole numbers
        fields[19] = "0"
        fields[20] = "0"
        out.append(",".join([*fields, labels[i % len(labels)] + "."]))
    return out


@pytest.fixture
def kdd_root(tmp_path: Path) -> Path:
    """A data root in the layout of the UCI archive: 401 training rows, many repeated, 90 test rows."""
    labels = ["normal", "smurf", "neptune", "ipsweep", "guess_passwd", "rootkit"]
    rows = kdd_lines(200, 3, ["http", "smtp", "ftp"], labels)
    rows += [rows[1]] * 120 + [rows[4]] * 30 + rows[60:110]  # one row is 30 % of the file, as in the real one
    rows += [rows[0].replace("normal.", "smurf.")]  # equal features, two labels
    test = kdd_lines(89, 4, ["http", "smtp", "never_seen"], [*labels, "mailbomb"])
    test += [
        ",".join(["1"] * 19 + ["5"] + ["1"] * 21 + ["normal."])
    ]  # the constant column is not constant here
    root = tmp_path / "kdd_root"
    (root / "kddcup99").mkdir(parents=True)
    for name, lines in (("kddcup.data_10_percent.gz", rows), ("corrected.gz", test)):
        (root / "kddcup99" / name).write_bytes(gzip.compress("\n".join(lines).encode() + b"\n"))
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty cache."""
    return tmp_path / "cache"


@pytest.fixture
def real_root() -> Path:
    """The real data root, for tests that need one."""
    root = os.environ.get("BN_DATA_ROOT")
    if not root:
        pytest.skip("needs real data: set BN_DATA_ROOT to the data root")
    return Path(root)
