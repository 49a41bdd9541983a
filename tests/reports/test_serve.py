"""`python -m reports serve`: this machine only, one line when it cannot, a clean end."""

import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.__main__ import main
from reports.serve import make_server


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "index.html").write_text("<!doctype html><title>x</title>")
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "a.csv").write_text("a,b\n")
    (tmp_path.parent / "outside.txt").write_text("secret")
    return tmp_path


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    with make_server(site, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_serves_the_pages_of_its_folder_and_nothing_else(address: str) -> None:
    with urllib.request.urlopen(f"{address}/") as answer:
        assert b"<title>x</title>" in answer.read()
        assert answer.headers["Cache-Control"] == "no-cache"
    with urllib.request.urlopen(f"{address}/downloads/a.csv") as answer:
        assert answer.read() == b"a,b\n"
    for path in ("/../outside.txt", "/%2e%2e/outside.txt", "/missing.html"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(address + path)
        assert error.value.code == 404 and b"<a href='/index.html'>" in error.value.read()


def test_a_browser_that_goes_away_leaves_no_traceback(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with make_server(site, 0) as server:
        for error, told in (
            (BrokenPipeError(), False),
            (ConnectionResetError(), False),
            (OSError("x"), True),
        ):
            try:
                raise error
            except OSError:
                server.handle_error(None, ("127.0.0.1", 1))
            assert ("Traceback" in capsys.readouterr().err) is told


def test_listens_on_this_machine_only(site: Path) -> None:
    with make_server(site, 0) as server:
        assert server.server_address[0] == "127.0.0.1"


def test_port_in_use_is_one_line_and_status_2(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", f"port={port}", f"dir={site}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"port {port} is in use" in error and "port=" in error


@pytest.mark.parametrize("port", ["80800", "-1", "web", "8_0", "٣"])
def test_bad_port_is_one_line_and_status_2(port: str, site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", f"port={port}", f"dir={site}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and port in error


def test_no_site_yet_says_how_to_build_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", f"dir={tmp_path}"]) == 2
    assert "python -m reports" in capsys.readouterr().err


def test_ctrl_c_ends_with_status_0(site: Path) -> None:
    words = [sys.executable, "-m", "reports", "serve", "port=0", f"dir={site}"]

    def heed() -> None:  # in the background of a shell, children would ignore SIGINT
        signal.signal(signal.SIGINT, signal.default_int_handler)

    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, preexec_fn=heed) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("http://127.0.0.1:")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0 and "stopped" in out and "Traceback" not in err
