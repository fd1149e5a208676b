"""The numbers at /metrics, as Prometheus reads them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sdrt.serve.counts import Histogram, RequestCounts
from sdrt.serve.request_log import RequestLog
from tests.serve.core.test_jobs import make
from tests.serve.core.test_side_work import application, asking


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each number by its name and labels."""
    return {
        (one.name, frozenset(one.labels.items())): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def number(text: str, name: str, **labels: str) -> float:
    return samples(text).get((name, frozenset(labels.items())), 0)


def test_requests_are_counted_by_the_template_of_their_route() -> None:
    asked: list[tuple[str, str, dict[str, Any]]] = [
        *(("GET", f"/jobs/{number}", {}) for number in range(100)),
        ("POST", "/sdapi/v1/txt2img", {"json": {"wrong": 1}}),
        ("POST", "/v1/images/edits", {}),
        ("PATCH", "/jobs", {}),
        *((f"METHOD{number}", "/", {}) for number in range(20)),
        *(("GET", f"/nosuch/{number}", {}) for number in range(20)),
        ("GET", "/", {}),
        ("GET", "/page/main.js", {}),
    ]

    async def test(client: httpx.AsyncClient) -> None:
        for method, path, options in asked:
            await client.request(method, path, **options)
        text = (await client.get("/metrics")).text
        counted = {
            tuple(dict(labels)[name] for name in ("route", "method", "status")): value
            for (name, labels), value in samples(text).items()
            if name == "sdrt_http_requests_total"
        }
        assert counted == {
            ("/jobs/{job_id}", "GET", "404"): 100,
            ("/sdapi/v1/txt2img", "POST", "422"): 1,
            ("/v1/images/edits", "POST", "415"): 1,
            ("/jobs", "PATCH", "405"): 1,
            ("/", "other", "405"): 20,
            ("other", "GET", "404"): 20,
            ("/", "GET", "200"): 1,
            ("/page/{name}", "GET", "200"): 1,
        }
        assert number(text, "sdrt_http_request_seconds_count", route="/jobs/{job_id}") == 100
        assert number(text, "sdrt_http_request_seconds_bucket", route="/jobs/{job_id}", le="+Inf") == 100

    asking(application(), test)


def test_what_is_refused_before_it_has_a_route_is_counted_too() -> None:
    async def test(client: httpx.AsyncClient) -> None:
        await client.get("/jobs", headers={"Host": "attacker.example"})
        await client.post("/jobs", content=bytes(501))
        text = (await client.get("/metrics")).text
        for method, status in (("GET", "403"), ("POST", "413")):
            assert number(text, "sdrt_http_requests_total", route="other", method=method, status=status) == 1

    asking(application(uploads=1000), test)


def test_a_time_is_in_every_bucket_that_is_long_enough() -> None:
    times = Histogram()
    for seconds in (0.001, 0.1, 0.2, 10_000):
        times.add(seconds)
    buckets = dict(times.buckets)
    assert [buckets[bound] for bound in ("0.005", "0.05", "0.1", "0.25", "600.0", "+Inf")] == [
        1,
        1,
        2,
        3,
        3,
        4,
    ]
    assert times.total == 10_000.301


def test_the_times_of_jobs_are_told(client: httpx.Client) -> None:
    def now(name: str, **labels: str) -> float:
        return number(client.get("/metrics").text, name, **labels)

    before = now("sdrt_run_seconds_count"), now("sdrt_run_seconds_sum")
    job = make(client)
    assert now("sdrt_run_seconds_count") == before[0] + 1
    assert now("sdrt_run_seconds_sum") - before[1] > job["seconds"] / 2
    assert now("sdrt_wait_seconds_bucket", le="+Inf") == now("sdrt_wait_seconds_count") == before[0] + 1
    assert now("sdrt_upload_bytes") == now("sdrt_side_work") == 0


def test_an_error_of_the_server_counts_as_one() -> None:
    async def fails(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("wrong")

    async def asked() -> None:
        counts = RequestCounts()
        scope = {"type": "http", "method": "GET", "path": "/jobs", "headers": []}
        with pytest.raises(RuntimeError):
            await RequestLog(fails, counts)(scope, None, None)  # type: ignore[arg-type]
        assert [status for _, _, status in counts.answers] == [500]

    asyncio.run(asked())
