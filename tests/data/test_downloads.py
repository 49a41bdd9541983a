"""Downloads from a server on this machine: only when asked for, checked, from the next mirror if need be."""

import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import data
from data import downloads
from data.__main__ import main


@pytest.fixture
def server(kdd_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """Serves the KDD fixture under /good/, a wrong file under /bad/; the list holds the paths asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            _, place, name = self.path.split("/")
            body = (kdd_root / "kddcup99" / name).read_bytes() if place == "good" else b"<html>moved</html>"
            self.send_response(404 if place == "gone" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *a: object) -> None:
            pass

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{httpd.server_address[1]}", asked
    httpd.shutdown()
    httpd.server_close()


def remotes(kdd_root: Path, url: str, *places: str) -> tuple[downloads.Remote, ...]:
    return tuple(
        downloads.Remote(
            f"kddcup99/{name}",
            "sha256:" + hashlib.sha256((kdd_root / "kddcup99" / name).read_bytes()).hexdigest(),
            tuple(f"{url}/{place}/{name}" for place in places),
        )
        for name in ("kddcup.data_10_percent.gz", "corrected.gz")
    )


def test_download_then_load(kdd_root: Path, server, cache: Path, tmp_path: Path, monkeypatch) -> None:
    url, asked = server
    monkeypatch.setitem(downloads.REMOTES, "kddcup99", remotes(kdd_root, url, "gone", "bad", "good"))
    root = tmp_path / "new root"
    d = data.load("kddcup99", root=root, cache=cache, download=True)
    assert d.fingerprint == data.fingerprint("kddcup99", root=kdd_root, cache=cache / "other")
    assert sorted(p.name for p in (root / "kddcup99").iterdir()) == [
        "corrected.gz",
        "kddcup.data_10_percent.gz",
    ]
    assert len(asked) == 6  # three mirrors for each of two files
    data.load("kddcup99", root=root, cache=cache, download=True)
    assert len(asked) == 6


def test_a_wrong_checksum_keeps_nothing(
    kdd_root: Path, server, cache: Path, tmp_path: Path, monkeypatch
) -> None:
    url, _ = server
    monkeypatch.setitem(downloads.REMOTES, "kddcup99", remotes(kdd_root, url, "bad"))
    root = tmp_path / "new root"
    with pytest.raises(data.ChecksumMismatch) as e:
        data.load("kddcup99", root=root, cache=cache, download=True)
    assert "\n" not in str(e.value)
    assert f"{url}/bad/kddcup.data_10_percent.gz" in str(e.value)
    assert str(root / "kddcup99" / "kddcup.data_10_percent.gz") in str(e.value)
    assert list((root / "kddcup99").iterdir()) == []


def test_no_mirror_answers(kdd_root: Path, server, cache: Path, tmp_path: Path, monkeypatch) -> None:
    url, _ = server
    gone = (*remotes(kdd_root, url, "gone"), *remotes(kdd_root, "http://127.0.0.1:9", "good"))
    monkeypatch.setitem(downloads.REMOTES, "kddcup99", gone)
    with pytest.raises(data.DataSetMissing) as e:
        data.load("kddcup99", root=tmp_path / "new root", cache=cache, download=True)
    assert "HTTPError" in str(e.value)
    assert "\n" not in str(e.value)


def test_an_unwritable_root(kdd_root: Path, server, cache: Path, tmp_path: Path, monkeypatch) -> None:
    url, asked = server
    monkeypatch.setitem(downloads.REMOTES, "kddcup99", remotes(kdd_root, url, "good"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot write into the data root") as e:
        data.load("kddcup99", root=tmp_path / "file" / "root", cache=cache, download=True)
    assert "\n" not in str(e.value)
    assert asked == []


def test_the_command_downloads_only_when_told(
    kdd_root: Path, server, cache: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    url, asked = server
    monkeypatch.setitem(downloads.REMOTES, "kddcup99", remotes(kdd_root, url, "good"))
    where = [f"root={tmp_path / 'new root'}", f"cache={cache}"]
    assert main(["prepare", "kddcup99", *where]) == 2
    assert asked == []
    error = capsys.readouterr().err
    assert error.startswith("error: data set kddcup99 is missing")
    assert error.count("\n") == 1
    assert main(["prepare", "kddcup99", "download=true", *where]) == 0
    assert len(asked) == 2
    assert capsys.readouterr().out.endswith(f"{cache / 'kddcup99.npz'}\n")


def test_checksums_are_those_of_the_publishers() -> None:
    """Those of scikit-learn and torchvision, which were typed once more in ours."""
    from sklearn.datasets import _kddcup99
    from torchvision.datasets import CIFAR10, MNIST

    from data import cifar

    first = downloads.REMOTES["kddcup99"][0]
    assert first.checksum == f"sha256:{_kddcup99.ARCHIVE_10_PERCENT.checksum}"
    assert _kddcup99.ARCHIVE_10_PERCENT.url in first.urls
    ours = [(r.path.split("/")[-1], r.checksum) for r in downloads.REMOTES["mnist"]]
    assert ours == [(name, f"md5:{md5}") for name, md5 in MNIST.resources]
    assert downloads.REMOTES["cifar10"][0].checksum == f"md5:{CIFAR10.tgz_md5}"
    assert CIFAR10.url in downloads.REMOTES["cifar10"][0].urls
    listed = dict([*CIFAR10.train_list, *CIFAR10.test_list])
    assert {cifar.ARCHIVE: CIFAR10.tgz_md5, **listed} == cifar.MD5


def test_real_files_have_the_checksums(real_root: Path) -> None:
    for remote in downloads.REMOTES["kddcup99"]:
        path = real_root / remote.path
        if not path.is_file():
            pytest.skip(f"{path} is not there")
        assert remote.checksum == "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
