"""What stands before the routes, at the level of ASGI: refused before a body is read, in the middle of it, or for its slowness."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send

from multiway.serve.guard import Guard
from multiway.serve.limits import Limits
from multiway.serve.metrics import Metrics


class Inner:
    """An app that reads the whole body and says how long it was; may wait at a gate, or fail."""

    def __init__(self) -> None:
        self.calls = 0
        self.gate: asyncio.Event | None = None
        self.fails = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        total, more = 0, True
        while more:
            message = await receive()
            total += len(message.get("body", b""))
            more = message.get("more_body", False)
        if self.gate:
            await self.gate.wait()
        if self.fails:
            raise ZeroDivisionError("secret path /root/x")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(total).encode()})


def scope_of(path: str = "/v1/x", headers: dict[str, str] | None = None, client: str = "10.0.0.1") -> Scope:
    pairs = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return {"type": "http", "method": "POST", "path": path, "headers": pairs, "client": (client, 1)}


class Call:
    """One request: its chunks, and what came back."""

    def __init__(self, *chunks: bytes, pause: float = 0.0) -> None:
        self.chunks, self.pause, self.read = list(chunks) or [b""], pause, 0
        self.status, self.headers, self.body = 0, {}, b""

    async def receive(self) -> Message:
        await asyncio.sleep(self.pause)
        if self.read == len(self.chunks):
            return {"type": "http.disconnect"}
        self.read += 1
        return {"type": "http.request", "body": self.chunks[self.read - 1], "more_body": self.read < len(self.chunks)}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], {k.decode(): v.decode() for k, v in message["headers"]}
        else:
            self.body += message.get("body", b"")

    async def through(self, guard: Guard, scope: Scope | None = None) -> Call:
        await guard(scope or scope_of(), self.receive, self.send)
        return self

    @property
    def kind(self) -> str:
        return str(json.loads(self.body)["type"]).rpartition(":")[2]


def guarded(limits: Limits, **options: Any) -> tuple[Guard, Inner]:
    inner = Inner()
    return Guard(inner, limits, Metrics(lambda: 0), routes=("/v1/x",), **options), inner


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_a_body_that_is_stated_too_large_is_not_read_at_all() -> None:
    async def test() -> None:
        guard, inner = guarded(Limits(body=100))
        call = await Call(b"x" * 500).through(guard, scope_of(headers={"content-length": "500"}))
        assert (call.status, call.kind, call.read, inner.calls) == (413, "too-large", 0, 0)
        assert call.headers["connection"] == "close"
        waits = await Call(b"x" * 200).through(
            guard, scope_of(headers={"content-length": "200", "expect": "100-continue"})
        )
        assert (waits.status, waits.read) == (413, 0)
        # A client that sends before it listens: what it sends is thrown away, so that it comes to read the answer.
        sends = await Call(b"x" * 80, b"x" * 120).through(guard, scope_of(headers={"content-length": "200"}))
        assert (sends.status, sends.read, inner.calls, guard.held) == (413, 2, 0, 0)
        huge = await Call().through(guard, scope_of(headers={"content-length": "9" * 5000}))
        assert huge.status == 413
        odd = await Call().through(guard, scope_of(headers={"content-length": "-5"}))
        assert (odd.status, odd.kind) == (400, "malformed")
        assert (await Call(b"x" * 100).through(guard)).body == b"100" and guard.held == 0

    run(test)


def test_a_body_that_grows_too_large_is_left_in_the_middle() -> None:
    async def test() -> None:
        guard, _ = guarded(Limits(body=100))
        for headers in ({}, {"content-length": "5"}):  # unstated, and a lie
            call = await Call(*[b"x" * 30] * 50).through(guard, scope_of(headers=headers))
            assert (call.status, call.kind, call.read) == (413, "too-large", 14)  # ten more are thrown away
        assert guard.held == 0

    run(test)


def test_a_slow_upload_is_cut() -> None:
    async def test() -> None:
        guard, _ = guarded(Limits(upload_s=1, body=1000))
        call = await asyncio.wait_for(Call(*[b"x"] * 100, pause=0.15).through(guard), 3)
        assert (call.status, call.kind) == (408, "upload-timeout") and call.read < 10

    run(test)


def test_requests_at_a_time_and_their_bytes_are_bounded() -> None:
    async def test() -> None:
        guard, inner = guarded(Limits(concurrency=2, held=150, body=100))
        inner.gate = asyncio.Event()
        sixty = scope_of(headers={"content-length": "60"})
        first, second = (asyncio.create_task(Call(b"x" * 60).through(guard, dict(sixty))) for _ in range(2))
        await asyncio.sleep(0.05)
        assert (guard.active, guard.held) == (2, 120)
        third = await Call(b"").through(guard)
        assert (third.status, third.kind) == (503, "overloaded") and int(third.headers["retry-after"]) >= 1
        # Beside the API nothing counts requests, but bytes are bytes.
        page = await Call(b"x" * 40).through(guard, scope_of("/page", {"content-length": "40"}))
        assert (page.status, page.kind) == (503, "overloaded")
        inner.gate.set()
        assert [(await each).status for each in (first, second)] == [200, 200]
        assert (guard.active, guard.held) == (0, 0)
        assert (await Call(b"").through(guard)).status == 200

    run(test)


def test_each_client_has_a_rate() -> None:
    async def test() -> None:
        guard, inner = guarded(Limits(rate=1, burst=3))
        answers = [(await Call().through(guard)).status for _ in range(5)]
        assert answers == [200, 200, 200, 429, 429] and inner.calls == 3
        refused = await Call().through(guard)
        assert refused.kind == "rate" and refused.headers["retry-after"] == "1"
        assert (await Call().through(guard, scope_of(client="10.0.0.2"))).status == 200
        # A forwarded address is what anybody can write, and health is asked often.
        assert (await Call().through(guard, scope_of(headers={"x-forwarded-for": "1.2.3.4"}))).status == 429
        assert (await Call().through(guard, scope_of("/healthz"))).status == 200

    run(test)


def test_keys() -> None:
    async def test() -> None:
        guard, _ = guarded(Limits(rate=1, burst=4), keys=("one", "two"))

        async def ask(headers: dict[str, str], path: str = "/v1/x", client: str = "10.0.0.1") -> Call:
            return await Call().through(guard, scope_of(path, headers, client))

        missing = await ask({})
        assert (missing.status, missing.kind, missing.headers["www-authenticate"]) == (401, "no-key", "Bearer")
        for wrong in ({"authorization": "Bearer on"}, {"authorization": "Basic one"}, {"x-api-key": ""}):
            assert (await ask(wrong)).status == 401
        assert (await ask({})).status == 429  # whoever guesses is slowed down,
        assert (await ask({"authorization": "bearer two"})).status == 200  # and whoever has a key is not
        assert (await ask({"x-api-key": "one"})).status == 200
        assert (await ask({}, "/metrics", "10.0.0.9")).status == 401
        assert (await ask({}, "/healthz")).status == 200
        # The rate is the key's, wherever it comes from.
        for number in range(4):
            last = await ask({"x-api-key": "one"}, client=f"10.0.1.{number}")
        assert last.status == 429

    run(test)


def test_a_failure_is_told_without_its_details(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        guard, inner = guarded(Limits())
        inner.fails = True
        call = await Call().through(guard)
        assert (call.status, call.kind) == (500, "internal") and b"secret" not in call.body
        assert "secret" in caplog.text and (guard.active, guard.held) == (0, 0)

    run(test)


def test_everything_is_counted_under_few_names() -> None:
    async def test() -> None:
        guard, _ = guarded(Limits(body=10))
        for path in ("/v1/x", "/v1/x", "/v1/unknown/a", "/v1/unknown/b"):
            await Call().through(guard, scope_of(path))
        await Call(b"x" * 11).through(guard)
        registry: CollectorRegistry = guard.metrics.registry
        count = registry.get_sample_value
        assert count("multiway_requests_total", {"route": "/v1/x", "status": "200"}) == 2
        assert count("multiway_requests_total", {"route": "/v1/x", "status": "413"}) == 1
        assert count("multiway_requests_total", {"route": "other", "status": "200"}) == 2
        assert count("multiway_refused_total", {"reason": "too-large"}) == 1
        assert count("multiway_request_seconds_count", {"route": "/v1/x"}) == 3
        assert guard.metrics.summary() == "5 requests answered, 0 left unfinished"
        assert b"multiway_queue_rows 0.0" in guard.metrics.text()

    run(test)
