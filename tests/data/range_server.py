"""A web server on 127.0.0.1 that gives parts of files, as object stores do, and misbehaves on demand."""

from __future__ import annotations

import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class RangeServer(ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        asked: how often each path was asked for, with `GET` or `HEAD` before it.
        sent: bytes of bodies.
        failures: this many answers from now on are 503.
        short: this many answers from now on break off in the middle.
        ranges: whether parts are given; else whoever asks for one gets the whole.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: Counter[str] = Counter()
        self.sent = self.failures = self.short = 0
        self.ranges = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: RangeServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        server, path = self.server, self.path.partition("?")[0]
        server.asked[f"{self.command} {path}"] += 1
        file = server.folder / path.lstrip("/")
        if server.failures > 0:
            server.failures -= 1
            return self._say(503, b"", {}, body)
        if not file.is_file():
            return self._say(404, b"", {}, body)
        data, state = file.read_bytes(), file.stat()
        about = {"ETag": f'"{state.st_mtime_ns:x}-{state.st_size:x}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted and server.ranges:
            first, last = int(wanted[1]), int(wanted[2] or len(data) - 1)
            if first >= len(data):
                return self._say(416, b"", about, body)
            part = data[first : last + 1]
            return self._say(
                206, part, about | {"Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(data)}"}, body
            )
        return self._say(200, data, about, body)

    def _say(self, status: int, data: bytes, about: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in {**about, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body and self.server.short > 0 and status in (200, 206):
            self.server.short -= 1
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
        elif body:
            self.wfile.write(data)
            self.server.sent += len(data)

    def log_message(self, *_: object) -> None:
        """Silent."""


@contextmanager
def serving(folder: Path) -> Iterator[RangeServer]:
    """A server of a folder, while the block lasts."""
    with RangeServer(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
