"""How much one request, one client and all clients together may ask for. Whatever exceeds it is refused before it is worked on."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, fields

from multiway.config import ConfigError

__all__ = ["Limits", "TokenBuckets"]


@dataclass(frozen=True)
class Limits:
    """Of the HTTP API.

    Attributes:
        body: bytes of a request.
        held: bytes of all requests that are being received or worked on.
        pixels: of a picture, taken from its header before anything is decoded; it takes 8 to 20 bytes of memory a pixel while it is drawn.
        pictures: of a request.
        texts: of a request.
        characters: of a text.
        labels: of a request to classify.
        tokens: of a caption that is written.
        passes: of the picture through the model for one map; occlusion takes 49 and more, every other kind one or two.
        top: hits, labels or answers that are asked for.
        rate: requests a second of one client, in the long run; 0 for no limit.
        burst: requests that a client may send at once.
        concurrency: requests that are received or worked on at a time.
        upload_s: seconds within which a request has to arrive.
        batch: rows (pictures or texts) that share a forward pass.
        wait_ms: milliseconds that a request waits for others to share it.
        queue: rows that wait for the model.
        latency_ms: milliseconds from the moment a request is whole within which it is answered, or refused.
        decoders: pictures that are decoded at a time.
    """

    body: int = 16 << 20
    held: int = 256 << 20
    pixels: int = 25_000_000
    pictures: int = 16
    texts: int = 256
    characters: int = 2_000
    labels: int = 1_000
    tokens: int = 64
    passes: int = 128
    top: int = 100
    rate: float = 50.0
    burst: int = 100
    concurrency: int = 128
    upload_s: float = 30.0
    batch: int = 32
    wait_ms: float = 5.0
    queue: int = 1_024
    latency_ms: float = 10_000.0
    decoders: int = 2

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            least = 0 if each.name in ("rate", "wait_ms") else 1
            if not value >= least:
                raise ConfigError(f"--{each.name.replace('_', '-')} is {value}; expected {least} or more")
        if self.wait_ms >= self.latency_ms:
            raise ConfigError(
                f"--wait-ms {self.wait_ms:g} leaves nothing of --latency-ms {self.latency_ms:g}; expected far less"
            )


class TokenBuckets:
    """A bucket for each client that holds `burst` tokens and gains `rate` a second; a request takes one.

    Those who came longest ago are forgotten once there are `clients`: memory does not grow with the number of addresses.
    """

    def __init__(
        self, rate: float, burst: int, clients: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate, self.burst, self.clients, self.clock = rate, burst, clients, clock
        self._kept: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take a token; 0 if there was one, else the seconds until there is."""
        if self.rate <= 0:
            return 0.0
        now = self.clock()
        tokens, before = self._kept.pop(client, (float(self.burst), now))
        tokens = min(self.burst, tokens + (now - before) * self.rate)
        taken = tokens >= 1
        self._kept[client] = (tokens - 1 if taken else tokens, now)
        if len(self._kept) > self.clients:
            self._kept.popitem(last=False)
        return 0.0 if taken else (1 - tokens) / self.rate

    def __len__(self) -> int:
        """Clients that are remembered."""
        return len(self._kept)
