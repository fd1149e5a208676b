"""Server-sent events, through OpenAI's client, and clients that go away."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from tests.serve.core.running import Running, serving, wait_for
from tests.serve.core.test_jobs import TASK
from tests.serve.openai.conftest import client_of
from tests.serve.openai.pictures import circle, opened, pixels, png

OWN = {"seed": 1, "steps": 8}
LONG = {"seed": 1, "steps": 150}


def metric(server: Running, name: str) -> float:
    """A number of `/metrics`, or 0."""
    with server.client() as client:
        found = re.search(rf"^{re.escape(name)} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def cancelled(server: Running) -> float:
    return metric(server, 'sdrt_jobs_total{status="cancelled"}')


def is_idle(server: Running) -> bool:
    return metric(server, "sdrt_jobs_running") == metric(server, "sdrt_jobs_waiting") == 0


def test_previews_come_before_the_image(client: OpenAI) -> None:
    with client.images.generate(
        prompt="a red circle", stream=True, partial_images=3, size="128x128", quality="high", extra_body=OWN
    ) as stream:
        events = list(stream)
    kinds = [event.type for event in events]
    assert kinds == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert [event.partial_image_index for event in events if "partial" in event.type] == [0, 1, 2]  # type: ignore[union-attr]
    for event in events:
        assert (event.size, event.quality, event.output_format) == ("128x128", "high", "png")
        assert event.background == "opaque"
        assert event.created_at > 1.7e9
        assert opened(event.b64_json).format == "PNG"
    last = events[-1]
    assert last.type == "image_generation.completed"
    assert (last.usage.input_tokens, last.usage.output_tokens, last.usage.total_tokens) == (3, 64, 67)
    whole = client.images.generate(prompt="a red circle", extra_body=OWN).data
    assert whole is not None
    assert last.b64_json == whole[0].b64_json
    # Previews come ever nearer to the image.
    distances = [np.abs(pixels(one.b64_json) - pixels(last.b64_json)).mean() for one in events]
    assert distances == sorted(distances, reverse=True)


@pytest.mark.full
def test_a_stream_that_waits_long_has_comments_which_the_client_passes_over(
    server: Running, client: OpenAI
) -> None:
    named: dict[str, Any] = {"prompt": "a red circle", "stream": True}
    with server.client() as raw, ThreadPoolExecutor() as pool:
        long = TASK | {"num_inference_steps": 150, "width": 1024, "height": 1024}
        before = raw.post("/jobs", json=long).json()["id"]
        wait_for(lambda: raw.get(f"/jobs/{before}").json()["status"] == "running")

        def events() -> list[str]:
            with client.images.generate(**named, extra_body=OWN) as stream:
                return [event.type for event in stream]

        by_client = pool.submit(events)
        with raw.stream("POST", "/v1/images/generations", json={**named, **OWN}) as answer:
            lines = answer.iter_lines()
            assert [next(lines), next(lines)] == [": waiting", ""]
            assert raw.delete(f"/jobs/{before}").status_code == 200
            assert "event: image_generation.completed" in list(lines)
        assert by_client.result() == ["image_generation.completed"]


def test_without_previews_there_is_one_event(client: OpenAI) -> None:
    for asked in ({}, {"partial_images": 0}):
        named: dict[str, Any] = {"extra_body": {"seed": 1, "steps": 2}, **asked}
        with client.images.generate(prompt="a red circle", stream=True, **named) as stream:
            assert [event.type for event in stream] == ["image_generation.completed"]


def test_every_image_has_its_event(client: OpenAI) -> None:
    own = {"seed": 1, "steps": 2}
    with client.images.generate(prompt="a red circle", n=2, stream=True, extra_body=own) as stream:
        made = [event.b64_json for event in stream]
    whole = client.images.generate(prompt="a red circle", n=2, extra_body=own).data
    assert whole is not None
    assert made == [one.b64_json for one in whole]


def test_previews_have_the_format_of_the_image(client: OpenAI) -> None:
    with client.images.generate(
        prompt="a red circle", stream=True, partial_images=1, output_format="webp", extra_body=OWN
    ) as stream:
        assert [opened(event.b64_json).format for event in stream] == ["WEBP", "WEBP"]


def test_edits_have_events_of_their_own(client: OpenAI) -> None:
    with client.images.edit(
        image=png(circle()), prompt="a blue square", stream=True, partial_images=2, extra_body=OWN
    ) as stream:
        events = list(stream)
    assert [event.type for event in events] == ["image_edit.partial_image"] * 2 + ["image_edit.completed"]
    assert events[-1].type == "image_edit.completed"
    assert events[-1].usage.input_tokens_details.image_tokens == 64


def test_what_cannot_be_made_is_an_error_of_the_request(client: OpenAI) -> None:
    """The worker finds it, but the answer has its status, and no events."""
    with pytest.raises(openai.BadRequestError, match="clip_skip is 9") as caught:
        client.images.generate(prompt="a", stream=True, extra_body={"clip_skip": 9})
    assert caught.value.param == "clip_skip"


def test_a_client_that_closes_its_stream_cancels(client: OpenAI, server: Running) -> None:
    before = cancelled(server)
    own = {"seed": 1, "steps": 40}
    with client.images.generate(prompt="a", stream=True, partial_images=3, n=4, extra_body=own) as stream:
        assert next(iter(stream)).type == "image_generation.partial_image"
    wait_for(lambda: cancelled(server) == before + 1)
    assert is_idle(server)


def leave(server: Running, path: str, happens: Callable[[], bool], **named: Any) -> None:
    """Send a request, wait until something happens, and close the connection."""
    request = httpx.Request("POST", server.url + path, **named)
    connection = HTTPConnection(request.url.host, request.url.port)
    connection.request("POST", path, request.read(), dict(request.headers))
    wait_for(happens)
    connection.close()


REQUESTS: dict[str, Any] = {
    "/v1/images/generations": {"json": {"prompt": "a", "n": 4, **LONG}},
    "/v1/images/edits": {
        "data": {"prompt": "a", "n": "4", "steps": "150", "strength": "1"},
        "files": {"image": png(circle())},
    },
    "/v1/images/variations": {
        "data": {"n": "4", "steps": "150", "strength": "1"},
        "files": {"image": png(circle())},
    },
}


@pytest.mark.parametrize("path", REQUESTS)
def test_a_client_that_goes_away_cancels(server: Running, path: str) -> None:
    before = cancelled(server)
    leave(server, path, lambda: metric(server, "sdrt_jobs_running") == 1, **REQUESTS[path])
    wait_for(lambda: cancelled(server) == before + 1)
    assert is_idle(server)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_goes_away_while_it_waits_frees_its_place(
    client: OpenAI, server: Running, stream: bool
) -> None:
    before = cancelled(server)
    with client.images.generate(prompt="a", stream=True, n=4, extra_body=LONG) as first:
        asked = {"prompt": "a", "stream": stream}
        leave(
            server,
            "/v1/images/generations",
            lambda: metric(server, "sdrt_jobs_waiting") == 1,
            json=asked,
        )
        wait_for(lambda: metric(server, "sdrt_jobs_waiting") == 0)
        assert cancelled(server) == before + 1
        first.close()
    wait_for(lambda: is_idle(server))


def test_half_a_body_makes_no_job(server: Running) -> None:
    jobs = metric(server, 'sdrt_jobs_total{status="done"}')

    def half() -> Iterator[bytes]:
        yield b'{"prompt": "a'
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        httpx.post(
            f"{server.url}/v1/images/generations",
            content=half(),
            headers={"Content-Type": "application/json"},
        )
    assert is_idle(server)
    assert metric(server, 'sdrt_jobs_total{status="done"}') == jobs


def kill_workers(server: Running) -> None:
    """Kill the worker that runs a job, and wait for the next that does."""
    killed = set(server.workers())
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: server.workers() and killed.isdisjoint(server.workers()))


@pytest.mark.full
def test_previews_come_once_although_a_worker_dies(client: OpenAI, server: Running) -> None:
    with client.images.generate(
        prompt="a red circle", stream=True, partial_images=3, extra_body={"seed": 1, "steps": 40}
    ) as stream:
        events = [next(iter(stream))]
        kill_workers(server)
        events += list(stream)
    assert [getattr(event, "partial_image_index", None) for event in events] == [0, 1, 2, None]


@pytest.mark.full
def test_an_error_after_the_first_event_is_an_event(client: OpenAI, server: Running) -> None:
    with client.images.generate(prompt="a", stream=True, partial_images=3, extra_body=LONG) as stream:
        next(iter(stream))
        for _ in range(3):
            wait_for(lambda: metric(server, "sdrt_jobs_running") == 1)
            kill_workers(server)
        with pytest.raises(openai.APIError, match="3 times in a row") as caught:
            list(stream)
    assert caught.value.code == "WorkerError"


@pytest.mark.full
def test_previews_are_one_s_own_although_runs_are_shared(tmp_path: Path) -> None:
    def events(prompt: str) -> list[str]:
        with client.images.generate(prompt=prompt, stream=True, partial_images=1, extra_body=OWN) as stream:
            return [event.b64_json for event in stream]

    prompts = ["a red circle", "a blue square"]
    with (
        serving(tmp_path, "--max-batch", "4") as running,
        client_of(running) as client,
        running.client() as raw,
    ):
        # Both wait behind this one, and could share a run.
        raw.post("/jobs", json={"prompt": "a", "num_inference_steps": 30})
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(events, prompts))
        assert together == [events(prompt) for prompt in prompts]
    assert together[0][0] != together[1][0]


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that ends jobs after a second."""
    with serving(tmp_path_factory.mktemp("hasty"), "--timeout", "1") as running:
        yield running


def test_the_client_does_not_repeat_what_fails_again(hasty: Running) -> None:
    failed = metric(hasty, 'sdrt_jobs_total{status="failed"}')
    with client_of(hasty, retries=2) as client, pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt="a", n=8, extra_body=LONG)
    assert caught.value.status_code == 504
    assert metric(hasty, 'sdrt_jobs_total{status="failed"}') == failed + 1
