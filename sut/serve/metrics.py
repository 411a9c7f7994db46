"""What the server tells of itself at /metrics, in Prometheus' form."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

disable_created_metrics()  # type: ignore[no-untyped-call]

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)

ANSWERED, REFUSED, FAILED = "answered", "refused", "failed"
"""What can become of a request."""


class Meters:
    """Counters of one server."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "sut_requests", "Requests by protocol and outcome.", ["protocol", "outcome"], registry=registry
        )
        self.samples = Counter("sut_samples", "Samples that lanes have answered.", registry=registry)
        self.padded = Counter("sut_padded_samples", "Rows that batches were padded by.", registry=registry)
        self.received = Counter("sut_received_bytes", "Bytes of tensors that came.", ["protocol"], registry=registry)
        self.sent = Counter("sut_sent_bytes", "Bytes of tensors that were sent.", ["protocol"], registry=registry)
        self.inflight = Gauge("sut_inflight_requests", "Requests that wait for their answer.", registry=registry)
        self.batches = Histogram("sut_batch_samples", "Samples in a batch.", buckets=_SIZES, registry=registry)
        self._seconds = Histogram(
            "sut_stage_seconds", "What a batch took in each stage.", ["stage"], buckets=_SECONDS, registry=registry
        )
        self._of_stages: list[Histogram] = []

    def know_stages(self, stages: Sequence[str]) -> None:
        """The stages of a batch, in order; batches before this are told without."""
        self._of_stages = [self._seconds.labels(stage) for stage in stages]

    def batch(self, samples: int, padded: int, stamps: Sequence[int]) -> None:
        """A batch was answered: begin and end of each stage in ns."""
        self.samples.inc(samples)
        self.padded.inc(padded)
        self.batches.observe(samples)
        for at, stage in enumerate(self._of_stages):
            stage.observe((stamps[2 * at + 1] - stamps[2 * at]) / 1e9)

    def text(self) -> bytes:
        """All of it."""
        return generate_latest(self._registry)
