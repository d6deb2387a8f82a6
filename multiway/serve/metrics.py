"""What the server counts, for Prometheus: requests, latency, the queue, batches, and what was refused and why."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The counters of one app, in a registry of their own: several apps of a process do not meet.

    Args:
        queued: rows that wait for the model, asked when somebody looks.
    """

    def __init__(self, queued: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "multiway_requests", "Requests that were answered", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "multiway_request_seconds",
            "From a request's first byte to the end of its answer",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.active = Gauge("multiway_active_requests", "Requests that are worked on", registry=self.registry)
        self.held = Gauge("multiway_held_bytes", "Bytes of their bodies", registry=self.registry)
        self.refused = Counter(
            "multiway_refused", "Requests that were refused, by kind of problem", ("reason",), registry=self.registry
        )
        self.batch_rows = Histogram(
            "multiway_batch_rows", "Rows of a forward pass", ("operation",), buckets=_ROWS, registry=self.registry
        )
        self.batch_requests = Counter(
            "multiway_batched_requests", "Requests that went through the model", ("operation",), registry=self.registry
        )
        self.model_seconds = Histogram(
            "multiway_model_seconds", "Of a forward pass", ("operation",), buckets=_SECONDS, registry=self.registry
        )
        waiting = Gauge("multiway_queue_rows", "Rows that wait for the model", registry=self.registry)
        waiting.set_function(queued)
        ProcessCollector(registry=self.registry)

    def batch(self, operation: str, rows: int, requests: int, seconds: float) -> None:
        """Note one forward pass; what `Batcher` is told to call."""
        self.batch_rows.labels(operation).observe(rows)
        self.batch_requests.labels(operation).inc(requests)
        self.model_seconds.labels(operation).observe(seconds)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Note one answer."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def summary(self) -> str:
        """In words, for the log."""
        samples = [sample for family in self.requests.collect() for sample in family.samples]
        answered = int(sum(sample.value for sample in samples if sample.name.endswith("_total")))
        unfinished = int(sum(sample.value for family in self.active.collect() for sample in family.samples))
        return f"{answered:,} requests answered, {unfinished} left unfinished"

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)
