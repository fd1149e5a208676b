"""The server's numbers, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from sdrt.serve.service import Service

__all__ = ["render"]


class _OfService(Collector):
    def __init__(self, service: Service) -> None:
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """The numbers as they are now."""
        service, counts = self._service, self._service.counts
        workers = service.dispatcher.open_models
        yield GaugeMetricFamily("sdrt_jobs_waiting", "Jobs that wait.", len(service.queue))
        yield GaugeMetricFamily("sdrt_jobs_running", "Jobs in work.", len(service.dispatcher.running))
        yield GaugeMetricFamily("sdrt_workers_ready", "Workers that take jobs.", len(workers))
        models = GaugeMetricFamily("sdrt_model_open", "Workers that have a model open.", labels=["model"])
        for name in service.model_names:
            models.add_metric([name], sum(name in open_models for open_models in workers))
        yield models
        yield CounterMetricFamily(
            "sdrt_worker_restarts",
            "Workers that ended and were replaced.",
            service.dispatcher.worker_restarts,
        )
        jobs = CounterMetricFamily("sdrt_jobs", "Jobs that are over.", labels=["status"])
        for status, number in counts.by_status.items():
            jobs.add_metric([status], number)
        yield jobs
        yield CounterMetricFamily("sdrt_jobs_refused", "Jobs that found the queue full.", counts.refused)
        yield CounterMetricFamily("sdrt_images", "Images made.", counts.images)
        yield CounterMetricFamily("sdrt_run_seconds", "Seconds that workers took for jobs.", counts.seconds)
        yield CounterMetricFamily("sdrt_wait_seconds", "Seconds that jobs waited.", counts.waited)


def render(service: Service) -> tuple[bytes, str]:
    """The numbers as text, and its media type."""
    registry = CollectorRegistry()
    registry.register(_OfService(service))
    return generate_latest(registry), CONTENT_TYPE_LATEST
