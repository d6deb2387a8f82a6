"""What stands between visitors and Gradio: the routes that the page needs, files of its own folder, and no address to be fetched.

Gradio serves more than a page. `/gradio_api/file=http://...` and an upload whose `path` is an address are fetched by the server;
`/gradio_api/proxy=`, `/call`, `/run`, `/info`, recordings and monitoring are for other uses. All that the page does not need is
answered with 404, a picture may only be one that was uploaded here, and the browser is told to load nothing from elsewhere.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from multiway.serve.limits import Limits, TokenBuckets

__all__ = ["PageGuard"]

_GET = (
    "/config", "/theme.css", "/assets/", "/static/", "/svelte/", "/favicon.ico", "/manifest.json", "/robots.txt",
    "/gradio_api/file=", "/gradio_api/heartbeat/", "/gradio_api/queue/data", "/gradio_api/startup-events",
    "/gradio_api/upload_progress", "/gradio_api/app_id", "/gradio_api/theme.css",
)  # fmt: skip
_POST = ("/gradio_api/upload", "/gradio_api/queue/join", "/gradio_api/reset", "/gradio_api/cancel", "/login")
_BEAT = "/gradio_api/heartbeat/"
_JOIN = "/gradio_api/queue/join"
_ASKED = 4 << 20  # bytes of a question: many labels, and names of files
_KEPT = 2 << 30  # bytes of all uploads that are kept at a time

_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)


class PageGuard:
    """An ASGI middleware before the page; other paths of the app pass.

    Args:
        app: what it stands before.
        path: where the page is.
        folder: that holds what may be served and read: uploads and samples.
        limits: of the server; the rate is that of the API, each counted for itself.
    """

    def __init__(self, app: ASGIApp, path: str, folder: Path, limits: Limits) -> None:
        self.app, self.path, self.folder = app, path.rstrip("/"), folder.resolve()
        self.buckets = TokenBuckets(limits.rate, limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == self.path or path.startswith(self.path + "/")):
            await self.app(scope, receive, send)
            return
        inner = path.removeprefix(self.path)
        status, why = self._refused(scope["method"], inner)
        if not status and scope["method"] == "POST" and self.buckets.take((scope.get("client") or ("?",))[0]):
            status, why = 429, "too many questions at once; wait a second"
        if not status and inner.startswith(_JOIN):
            receive, status, why = await self._asked(receive)
        if status:
            await PlainTextResponse(why, status)(scope, receive, send)
            return
        if inner.startswith(_BEAT):
            # A connection that only stays open, one for each visitor; a server that is to end would wait for them all.
            await Response(status_code=204)(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, guarded)

    def _refused(self, method: str, inner: str) -> tuple[int, str]:
        """Status and reason; 0 if it may pass."""
        if method in ("GET", "HEAD"):
            if inner in ("", "/"):
                return 0, ""
            if not inner.startswith(_GET):
                return 404, "not found"
            named = inner.partition("/gradio_api/file=")[2]
            if named and not self._own(named):
                return 403, "only pictures of this page are served"
            return 0, ""
        if method != "POST" or not inner.startswith(_POST):
            return 404, "not found"
        if inner.startswith("/gradio_api/upload") and self._held() > _KEPT:
            return 503, "too many uploads are kept at the moment; try again in an hour"
        return 0, ""

    def _own(self, named: str) -> bool:
        """Whether a path lies in the page's own folder; links and `..` are followed first."""
        try:
            return Path(named).is_absolute() and Path(named).resolve().is_relative_to(self.folder)
        except (OSError, ValueError):
            return False

    def _held(self) -> int:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())

    async def _asked(self, receive: Receive) -> tuple[Receive, int, str]:
        """A question, read whole: every file that it names has to be one of this page's."""
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return receive, 400, "the question did not arrive"
            body += message.get("body", b"")
            if len(body) > _ASKED:
                return receive, 413, f"a question has at most {_ASKED:,} bytes"
            if not message.get("more_body", False):
                break
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            return receive, 400, "the question is not JSON"
        if not self._files_are_own(asked):
            return receive, 403, "a picture has to be uploaded here: no address and no other path is opened"
        given = False

        async def again() -> Message:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": bytes(body), "more_body": False}

        return again, 0, ""

    def _files_are_own(self, asked: Any) -> bool:
        """Whether all that looks like a file in a question is in the folder; nested to any depth that JSON was read to."""
        todo = [asked]
        while todo:
            each = todo.pop()
            if isinstance(each, list):
                todo += each
            elif isinstance(each, dict):
                named, url = each.get("path"), each.get("url")
                if named is not None and not (isinstance(named, str) and self._own(named)):
                    return False
                if url is not None and (not isinstance(url, str) or url.startswith("data:")):
                    return False
                todo += each.values()
        return True
