"""Server-sent events, through OpenAI's client, and clients that go away."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from tests.serve.core.running import Running, serving, wait_for
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
    with client.images.generate(prompt="a", stream=True, partial_images=3, n=4, extra_body=LONG) as stream:
        assert next(iter(stream)).type == "image_generation.partial_image"
    wait_for(lambda: cancelled(server) == before + 1)
    assert is_idle(server)


def test_a_client_that_gives_up_cancels(client: OpenAI, server: Running) -> None:
    before, image = cancelled(server), png(circle())
    impatient = client.with_options(timeout=1)
    calls = (
        lambda: impatient.images.generate(prompt="a", n=4, extra_body=LONG),
        lambda: impatient.images.edit(image=image, prompt="a", n=4, extra_body=LONG | {"strength": 1.0}),
    )
    for number, call in enumerate(calls, start=1):
        with pytest.raises(openai.APITimeoutError):
            call()
        wait_for(lambda number=number: cancelled(server) == before + number)
        assert is_idle(server)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_gives_up_while_it_waits_frees_its_place(
    client: OpenAI, server: Running, stream: bool
) -> None:
    before = cancelled(server)
    with client.images.generate(prompt="a", stream=True, partial_images=1, n=4, extra_body=LONG) as first:
        wait_for(lambda: metric(server, "sdrt_jobs_running") == 1)
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=1).images.generate(prompt="a", stream=stream, extra_body=OWN)
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


def test_previews_come_once_although_a_worker_dies(client: OpenAI, server: Running) -> None:
    with client.images.generate(
        prompt="a red circle", stream=True, partial_images=3, extra_body={"seed": 1, "steps": 40}
    ) as stream:
        events = [next(iter(stream))]
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        events += list(stream)
    assert [getattr(event, "partial_image_index", None) for event in events] == [0, 1, 2, None]


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
    """A server that ends jobs after a second, and lets one wait."""
    with serving(tmp_path_factory.mktemp("hasty"), "--timeout", "1", "--max-queue", "1") as running:
        yield running


def test_an_error_after_the_first_event_is_an_event(hasty: Running) -> None:
    with (
        client_of(hasty) as client,
        client.images.generate(prompt="a", stream=True, partial_images=3, n=8, extra_body=LONG) as stream,
        pytest.raises(openai.APIError, match="longer than the 1 seconds") as caught,
    ):
        list(stream)
    assert caught.value.code == "TimeoutError"


def test_the_client_does_not_repeat_what_fails_again(hasty: Running) -> None:
    failed = metric(hasty, 'sdrt_jobs_total{status="failed"}')
    with client_of(hasty, retries=2) as client, pytest.raises(openai.InternalServerError) as caught:
        client.images.generate(prompt="a", n=8, extra_body=LONG)
    assert caught.value.status_code == 504
    assert metric(hasty, 'sdrt_jobs_total{status="failed"}') == failed + 1
