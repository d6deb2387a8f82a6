"""The HTTP API under load, beside the same model called directly: requests a second, how long they take, how full the batches are.

    python benchmarks/serve_load.py runs/demo
    python benchmarks/serve_load.py runs/demo --route embed/text --clients 64 --seconds 20 --latency-ms 500

`multiway serve` runs as a process of its own on 127.0.0.1. This process plays so many clients, each with a connection that it keeps
and one request under way at a time, and then, while the server is idle, calls the model itself in a loop with as many rows at a time
as `--batch` allows: once on what is decoded already (the model alone), and once from the bytes on, as the server has to. Load and loops
take turns within rounds, so that a machine that is busy with other things is busy for all; the ratio is the median of the rounds'.
On a machine with few cores the clients take their share of them: that is part of the figure.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch

from multiway.data.decode import decode
from multiway.data.open import open_source
from multiway.hub.load import load
from multiway.hub.model import Model


def pictures(count: int) -> list[bytes]:
    """PNG files of the bundled emoji."""
    source = open_source("emoji", "", "all")
    files = []
    for row in np.linspace(0, len(source) - 1, count).astype(int):
        file = io.BytesIO()
        source.image(int(row)).save(file, "PNG")
        files.append(file.getvalue())
    return files


async def client(port: int, path: str, bodies: list[bytes], until: float, times: list[float], told: Counter) -> None:
    """One after another over one connection, until the time is up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    number = id(writer)
    while time.perf_counter() < until:
        number += 1
        body = bodies[number % len(bodies)]
        head = f"POST /v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        began = time.perf_counter()
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"content-length: (\d+)", answer, re.I)
        assert length, answer
        await reader.readexactly(int(length[1]))
        status = int(answer.split(" ", 2)[1])
        told[status] += 1
        if status == 200:
            times.append(time.perf_counter() - began)
        else:
            await asyncio.sleep(0.05)  # refused: whoever asks again at once only adds to the load
    writer.close()


async def load_up(asked: argparse.Namespace, port: int, bodies: list[bytes]) -> tuple[float, list[float], Counter]:
    """All clients at once: seconds, time of each request, statuses."""
    times: list[float] = []
    told: Counter = Counter()
    began = time.perf_counter()
    until = began + asked.seconds
    await asyncio.gather(*(client(port, asked.route, bodies, until, times, told) for _ in range(asked.clients)))
    return time.perf_counter() - began, times, told


def in_a_loop(work: Callable[[], object], rows: int, seconds: float) -> float:
    """Rows a second."""
    work()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        work()
        done += rows
    return done / (time.perf_counter() - began)


def direct(
    model: Model, route: str, files: list[bytes], texts: list[str], batch: int
) -> dict[str, Callable[[], object]]:
    """What the model is asked in this process: what is decoded already, and what the server begins with."""
    if route == "embed/text":
        return {"model": lambda: model.encode_text(texts[:batch])}
    some = [files[row % len(files)] for row in range(batch)]
    pixels = model.processor.images([decode(data, "") for data in some])
    return {
        "model": lambda: model.encode_image(pixels),
        "decoding and model": lambda: model.encode_image([decode(data, "") for data in some]),
    }


def metric(text: str, name: str) -> float:
    """Sum over the labels of a metric."""
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}(\{{| )", line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="run folder or weights file of a model with embeddings")
    parser.add_argument("--route", default="embed/image", choices=("embed/image", "embed/text"))
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--rows", type=int, default=1, help="pictures or texts of a request")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each phase of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--wait-ms", type=float, default=5.0)
    parser.add_argument("--latency-ms", type=float, default=1000.0)
    parser.add_argument("--threads", type=int, default=1, help="of the model, here and there")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    files = pictures(64)
    texts = [f"a picture of {number} apples" for number in range(256)]
    field, items = ("images", [base64.b64encode(data).decode() for data in files])
    if asked.route == "embed/text":
        field, items = "texts", texts
    bodies = [
        json.dumps(
            {field: [items[(row + more) % len(items)] for more in range(asked.rows)], "encoding": "base64"}
        ).encode()
        for row in range(len(items))
    ]
    model = load(asked.model)
    alone = direct(model, asked.route, files, texts, asked.batch)
    options = {"--port": 0, "--rate": 0, "--batch": asked.batch, "--wait-ms": asked.wait_ms, "--threads": asked.threads,
               "--latency-ms": asked.latency_ms, "--concurrency": 4 * asked.clients}  # fmt: skip
    command = [sys.executable, "-m", "multiway", "serve", asked.model]
    command += [str(part) for pair in options.items() for part in pair]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    port = int(server.stdout.readline().rsplit(":", 1)[1])
    rates: list[float] = []
    times: list[float] = []
    told: Counter = Counter()
    loops: dict[str, list[float]] = {name: [] for name in alone}
    for _ in range(asked.rounds):
        took, each, statuses = asyncio.run(load_up(asked, port, bodies))
        rates.append(statuses[200] * asked.rows / took)
        times += each
        told += statuses
        for name, work in alone.items():
            loops[name].append(in_a_loop(work, asked.batch, asked.seconds / 2))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        counters = answer.read().decode()
    server.send_signal(signal.SIGTERM)
    last = server.communicate(timeout=60)[0].strip().splitlines()[-1]
    half, most = (1000 * float(np.percentile(times, share)) for share in (50, 99))
    found = {
        "route": asked.route,
        "clients": asked.clients,
        "rows/s": statistics.median(rates),
        "p50_ms": half,
        "p99_ms": most,
        "limit_ms": asked.latency_ms,
        "statuses": dict(told),
        "rows of a batch": metric(counters, "multiway_batch_rows_sum") / metric(counters, "multiway_batch_rows_count"),
        "direct": {name: statistics.median(each) for name, each in loops.items()},
        "ratio": {
            name: statistics.median(rate / loop for rate, loop in zip(rates, each, strict=True))
            for name, each in loops.items()
        },
        "end": last,
    }
    if asked.json:
        print(json.dumps(found))
        return
    print(
        f"{asked.route}, {asked.clients} clients with {asked.rows} rows a request, {sum(told.values()):,} requests: {dict(told)}"
    )
    print(f"API: {found['rows/s']:.0f} rows/s, p50 {half:.1f} ms, p99 {most:.1f} ms (limit {asked.latency_ms:g} ms), "
          f"{found['rows of a batch']:.1f} rows a batch")  # fmt: skip
    for name, each in loops.items():
        print(f"{name} in a loop, {asked.batch} rows at a time: {statistics.median(each):.0f} rows/s; the API has "
              f"{found['ratio'][name]:.2f} of it")  # fmt: skip
    print(last)


if __name__ == "__main__":
    main()
