"""The command as a process: it ends without losing a request, and stays small whatever it is sent. On 127.0.0.1 alone."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from hostile_pictures import HOSTILE
from PIL import Image
from served import b64, png

from multiway.config import ConfigError
from multiway.serve.server import listen

ROOT = Path(__file__).parents[2]


class Process:
    """A server, its address, and what it printed."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def post(self, path: str, body: bytes, kind: str = "application/json") -> tuple[int, bytes]:
        """Over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request("POST", path, body, {"Content-Type": kind, "Connection": "close"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def memory(self, name: str) -> float:
        """MiB, of VmRSS (now) or VmHWM (the most there was)."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB", text, re.M)
        assert found
        return int(found[1]) / 1024

    def stop(self) -> tuple[int, str]:
        """SIGTERM; exit code and the last line."""
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said.strip().splitlines()[-1]


@contextmanager
def serving(run: Path, *options: str) -> Iterator[Process]:
    command = [
        sys.executable,
        "-m",
        "multiway",
        "serve",
        str(run),
        "--port",
        "0",
        "--rate",
        "0",
        "--threads",
        "1",
        *options,
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=os.environ | {"PYTHONPATH": str(ROOT)})  # fmt: skip
    try:
        assert process.stdout
        first = process.stdout.readline()
        found = re.match(r"clip at http://127\.0\.0\.1:(\d+)$", first)
        assert found, first + process.communicate(timeout=60)[1]
        yield Process(process, int(found[1]))
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def test_the_end_loses_nothing(tiny_run: Path) -> None:
    """SIGTERM while requests wait for company: every one that was accepted is answered, and the process exits with 0."""
    with serving(tiny_run, "--wait-ms", "300", "--batch", "64", "--data", "own") as server:
        body = json.dumps({"images": [b64(0)]}).encode()
        answered, refused, stop = [], [], threading.Event()

        def client() -> None:
            while not stop.is_set():
                try:
                    status, said = server.post("/v1/embed/image", body)
                except (OSError, http.client.HTTPException) as error:
                    refused.append(error)
                    time.sleep(0.01)
                else:
                    answered.append((status, len(json.loads(said)["embeddings"])))

        threads = [threading.Thread(target=client) for _ in range(8)]
        for thread in threads:
            thread.start()
        while len(answered) < 16:
            time.sleep(0.02)
        time.sleep(0.15)  # in the middle of a wait
        code, said = server.stop()
        stop.set()
        for thread in threads:
            thread.join()
    assert code == 0
    assert set(answered) == {(200, 1)}
    assert said == f"stopped: {len(answered)} requests answered, 0 left unfinished"
    assert refused  # who came later was turned away, and knows it


def test_memory_is_bounded_whatever_comes(tiny_run: Path) -> None:
    """Bombs, damaged and oversized bodies, several at once: only 4xx, and far less memory than what they claim to be."""
    limits = ["--pixels", "4000000", "--body", "4000000", "--held", "16000000"]
    with serving(tiny_run, *limits) as server:
        largest = json.dumps({"images": [b64(png(Image.new("RGB", (2000, 2000), (9, 9, 9))))]}).encode()
        assert server.post("/v1/embed/image", largest)[0] == 200
        before = server.memory("VmRSS")
        bodies = [json.dumps({"images": [b64(data)]}).encode() for data, _ in HOSTILE.values()]
        bodies += [
            b'{"images": ["' + b"A" * 5_000_000,
            b"[" * 3_900_000,
            b"\x00" * 3_900_000,
            b'{"images": [' + b"[],[0]," * 500_000 + b"[]]}",
            b"{" + b",".join(b'"k%d":1' % number for number in range(300_000)) + b"}",
            b'{"images": ["http://127.0.0.1:1/"]}',
        ]

        def insisted(body: bytes) -> int:
            """The answer itself: 503 only says that others' bodies are held at the moment, and to come again."""
            while (status := server.post("/v1/embed/image", body)[0]) == 503:
                time.sleep(0.05)
            return status

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(insisted, bodies * 3))
            good = list(pool.map(lambda body: server.post("/v1/embed/image", body)[0], [largest] * 16))
        assert all(400 <= status < 500 for status in found), found
        assert set(good) <= {200, 503} and 200 in good
        # Two decoders with 4 megapixels in a few copies, and the bodies: far from the 300 MB of one bomb.
        assert server.memory("VmHWM") - before < 150
        code, said = server.stop()
        assert code == 0 and said.endswith("0 left unfinished")


def test_addresses_that_cannot_be_had() -> None:
    bound = listen("127.0.0.1", 0)
    port = bound.getsockname()[1]
    bound.listen()
    with pytest.raises(ConfigError, match="choose another --port"):
        listen("127.0.0.1", port)
    bound.close()
    with pytest.raises(ConfigError, match="--port is 99999"):
        listen("127.0.0.1", 99999)
    with pytest.raises(ConfigError, match="cannot be listened at"):
        listen("no.such.host.invalid", 0)
