"""What stands before every route: key, rate, number of requests at a time, and bytes and seconds of a request's body.

An ASGI middleware, since it has to act before a body is read. The rate and the number of requests concern the API alone; the size
of a body concerns whatever else is mounted on the app too.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from multiway.serve.limits import Limits, TokenBuckets
from multiway.serve.metrics import Metrics
from multiway.serve.problems import Problem

__all__ = ["Guard"]

log = logging.getLogger("multiway.serve")

_API = "/v1/"
_PRIVATE = (_API, "/metrics")
_DISCARDED = 4  # times the largest body that are read, and thrown away, of one that is too large
_DISCARDING_S = 2.0


class Guard:
    """See above.

    Args:
        app: what it stands before.
        limits: that hold.
        metrics: where is counted.
        keys: of which a client has to send one; none for no keys.
        routes: by which requests are counted; all others are `other`.
    """

    def __init__(
        self, app: ASGIApp, limits: Limits, metrics: Metrics, keys: Sequence[str] = (), routes: Sequence[str] = ()
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.keys = tuple(key.encode() for key in keys)
        self.routes = frozenset(routes)
        self.buckets = TokenBuckets(limits.rate, limits.burst)
        self.active = 0
        self.held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        path = scope["path"]
        counts = path.startswith(_API)
        body = _Body(self, receive, began, scope)
        scope.setdefault("state", {})["arrived"] = began
        try:
            self._admit(scope, path)
            body.announced(scope)
            if counts:
                self.active += 1
                self.metrics.active.set(self.active)
            try:
                await self.app(scope, body.receive, noting)
            finally:
                if counts:
                    self.active -= 1
                    self.metrics.active.set(self.active)
        except Problem as problem:
            if status:
                raise
            self.refuse(problem)
            if problem.kind == "too-large":
                await body.discard(scope)
            await problem.response()(scope, receive, noting)
        except Exception:
            log.exception("%s %s failed", scope["method"], path)
            if status:
                raise
            failure = Problem("internal", "the server failed; its log says how", "try again, or tell whoever runs it")
            self.refuse(failure)
            await failure.response()(scope, receive, noting)
        finally:
            body.release()
            self.metrics.request(path if path in self.routes else "other", status, time.monotonic() - began)

    def refuse(self, problem: Problem) -> None:
        """Count a refusal."""
        self.metrics.refused.labels(problem.kind).inc()

    def _admit(self, scope: Scope, path: str) -> None:
        headers = {name: value for name, value in scope["headers"] if name in (b"authorization", b"x-api-key")}
        client = (scope.get("client") or ("?",))[0]
        if self.keys and path.startswith(_PRIVATE):
            bearer = headers.get(b"authorization", b"")
            given = bearer[7:] if bearer[:7].lower() == b"bearer " else headers.get(b"x-api-key", b"")
            # Every key is compared in full, so that the time taken tells nothing.
            if not sum(hmac.compare_digest(given, key) for key in self.keys):
                self._take(client)  # guessing has its rate too
                raise Problem(
                    "no-key",
                    "this server asks for a key, and none that it knows was sent",
                    "send `Authorization: Bearer KEY`",
                    headers={"WWW-Authenticate": "Bearer"},
                )
            client = given.decode("latin-1")
        if not path.startswith(_API):
            return
        self._take(client)
        if self.active >= self.limits.concurrency:
            raise Problem(
                "overloaded", f"{self.active} requests are worked on already", "try again in a second", retry_after=1
            )

    def _take(self, client: str) -> None:
        wait = self.buckets.take(client)
        if wait:
            raise Problem(
                "rate",
                f"more than {self.limits.burst} requests at once or {self.limits.rate:g} a second",
                f"wait {wait:.1f} s, or send several pictures or texts in a request",
                retry_after=wait,
            )


class _Body:
    """The body of one request as it arrives: counted, timed, and refused in the middle if need be."""

    def __init__(self, guard: Guard, receive: Receive, began: float, scope: Scope) -> None:
        self.guard, self._receive, self.scope = guard, receive, scope
        self.until = began + guard.limits.upload_s
        self.reserved = 0  # bytes that are held for it
        self.arrived = 0
        self.whole = False

    def announced(self, scope: Scope) -> None:
        """Refuse by the length that the head of the request states, before anything is read."""
        stated = next((value for name, value in scope["headers"] if name == b"content-length"), None)
        if stated is None:
            return
        if not stated.isdigit():
            raise Problem("malformed", "Content-Length is no number", "send the number of bytes, or leave it out")
        self._hold(int(stated[:20]))

    async def receive(self) -> Message:
        """As ASGI's `receive`."""
        if self.whole:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(self.until - time.monotonic(), 0.001))
        except TimeoutError:
            raise Problem(
                "upload-timeout",
                f"the request did not arrive within {self.guard.limits.upload_s:g} s",
                "send it faster, or in parts: fewer pictures in a request",
            ) from None
        if message["type"] == "http.request":
            self.arrived += len(message.get("body", b""))
            self._hold(self.arrived)
            self.whole = not message.get("more_body", False)
            self.scope["state"]["arrived"] = time.monotonic()  # what latency is counted from
        return message

    async def discard(self, scope: Scope) -> None:
        """Let what is on its way arrive, a little and for a moment: many clients read no answer before they have sent everything.

        Not if they ask before they send (`Expect: 100-continue`), or if far more is announced.
        """
        headers = dict(scope["headers"])
        stated = headers.get(b"content-length", b"0")
        if b"expect" in headers or not stated.isdigit() or int(stated[:20]) > _DISCARDED * self.guard.limits.body:
            return
        until = time.monotonic() + _DISCARDING_S
        while self.arrived <= _DISCARDED * self.guard.limits.body and time.monotonic() < until:
            try:
                message = await asyncio.wait_for(self._receive(), max(until - time.monotonic(), 0.001))
            except TimeoutError:
                return
            self.arrived += len(message.get("body", b""))
            if message["type"] != "http.request" or not message.get("more_body", False):
                return

    def _hold(self, total: int) -> None:
        limits = self.guard.limits
        if total > limits.body:
            raise Problem(
                "too-large",
                f"the request has {total:,} bytes or more; at most {limits.body:,} are read",
                "send fewer or smaller pictures",
            )
        more = max(0, total - self.reserved)
        if self.guard.held + more > limits.held:
            raise Problem(
                "overloaded",
                f"{self.guard.held:,} bytes of other requests are being worked on",
                "try again in a second",
                retry_after=1,
            )
        self.reserved += more
        self.guard.held += more
        self.guard.metrics.held.set(self.guard.held)

    def release(self) -> None:
        """The request is done with."""
        self.guard.held -= self.reserved
        self.guard.metrics.held.set(self.guard.held)
        self.reserved = 0
