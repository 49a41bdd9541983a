"""Browse the built site on this machine: http.server, bound to 127.0.0.1 and nothing else."""

from __future__ import annotations

import errno
import functools
import http.server
import sys
from pathlib import Path
from typing import Any


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of one directory, no line a request; pages are asked for anew, since a build replaces them."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    error_message_format = (
        "<!doctype html><meta charset='utf-8'><title>%(code)d</title><body style='font:16px system-ui'>"
        "<h1>%(code)d %(message)s</h1><p><a href='/index.html'>All tables</a></p></body>"
    )

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of a page is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def make_server(directory: Path, port: int) -> http.server.ThreadingHTTPServer:
    """Bound server, not yet running; port 0 takes a free one.

    Errors: ValueError with one line when there is no site or the port cannot be had.
    """
    if not (directory / "index.html").is_file():
        raise ValueError(f"no site in {directory}: build it first with `python -m reports`")
    if not 0 <= port <= 65535:
        raise ValueError(f"port={port} is not a port: take one from 1024 to 65535")
    try:
        return Server(("127.0.0.1", port), functools.partial(Handler, directory=str(directory)))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(
                f"port {port} is in use: take another, as in port={port % 65535 + 1} (of make serve: PORT=)"
            ) from None
        raise ValueError(f"cannot listen on 127.0.0.1:{port}: {error.strerror or error}") from None


def serve(directory: Path, port: int) -> int:
    """Serve until Ctrl-C; returns the exit status 0."""
    with make_server(directory, port) as server:
        try:
            print(f"http://127.0.0.1:{server.server_address[1]}/   (Ctrl-C ends)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nstopped")
    return 0
