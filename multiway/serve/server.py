"""Running the app: a socket, uvicorn, and an end in which nothing that was accepted is lost.

At SIGTERM or SIGINT the socket is closed, so that nobody new is accepted; requests that are being worked on are answered; the model's
thread ends; the process exits with 0. A second Ctrl-C ends it at once.
"""

from __future__ import annotations

import math
import signal
import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from multiway.config import ConfigError
from multiway.serve.limits import Limits

__all__ = ["listen", "serve"]

_MARGIN_S = 5  # beyond the latency limit, for what was accepted last


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes any that is free.

    Raises:
        ConfigError: if the address cannot be had.
    """
    if not 0 <= port < 1 << 16:
        raise ConfigError(f"--port is {port}; expected 1 to 65535, or 0 for any that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise ConfigError(f"{host}, port {port}, cannot be listened at ({error}); choose another --port") from error
    return bound


class _Server(uvicorn.Server):
    """Says when it takes requests."""

    def __init__(self, config: uvicorn.Config, say: Callable[[], None]) -> None:
        super().__init__(config)
        self.say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.say()


def serve(
    app: FastAPI, bound: socket.socket, limits: Limits, proxies: str = "", say: Callable[[], None] = lambda: None
) -> None:
    """Serve until a signal comes, and until what was accepted is answered.

    Args:
        app: of `build_app`.
        bound: of `listen`.
        limits: of the app.
        proxies: addresses whose `X-Forwarded-For` is believed, separated by commas; none by default, since a client could write there
            what it likes and have a rate for each.
        say: called once requests are taken.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies or None,
        lifespan="on",
        timeout_graceful_shutdown=math.ceil(limits.latency_ms / 1000) + _MARGIN_S,
    )
    server = _Server(config, say)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        # uvicorn sends itself the signal again when it is done: with nothing to catch it, that would be the exit code.
        server.run(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        bound.close()
