"""What goes wrong, as OpenAI's client tells it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from sdrt.serve.errors import ServeError
from sdrt.serve.routes.openai.answers import unless_blocked
from sdrt.serve.task import Made, MadeImage
from tests.serve.core.running import Running, serving, wait_for
from tests.serve.openai.conftest import client_of
from tests.serve.openai.test_streams import LONG, metric

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"n": 0}, "n", "greater than or equal to 1"),
    ({"n": 11}, "n", "less than or equal to 10"),
    ({"n": "2"}, "n", "valid integer"),
    ({"prompt": 7}, "prompt", "valid string"),
    ({"prompt": "a" * 20_001}, "prompt", "20000"),
    ({"size": "big"}, "size", "WIDTHxHEIGHT"),
    ({"size": "100x100"}, "size", "multiple of 8"),
    ({"size": "9000x9000"}, "size", "at most"),
    ({"size": "0x64"}, "size", "width is 0"),
    ({"quality": "max"}, "quality", "'hd'"),
    ({"background": "transparent"}, "background", "no model here can make"),
    ({"response_format": "file"}, "response_format", "'b64_json'"),
    ({"response_format": "url", "stream": True}, "response_format", "b64_json with stream"),
    ({"output_format": "gif"}, "output_format", "'webp'"),
    ({"output_compression": 101, "output_format": "jpeg"}, "output_compression", "100"),
    ({"output_compression": 50}, "output_compression", "jpeg or webp"),
    ({"partial_images": 4, "stream": True}, "partial_images", "3"),
    ({"partial_images": 1}, "partial_images", "stream"),
    ({"moderation": "none"}, "moderation", "'low'"),
    ({"style": "loud"}, "style", "'vivid'"),
    ({"complexity": "high"}, "complexity", "unknown field"),
    ({"svg": {"model": "a"}, "output_format": "png"}, "svg", "unknown field"),
    ({"input_fidelity": "high"}, "input_fidelity", "unknown field"),
    ({"nosuch": None}, "nosuch", "unknown field"),
    ({"num_inference_steps": 4}, "num_inference_steps", "unknown field"),
    ({"steps": 0}, "steps", "1"),
    ({"steps": 151}, "steps", "at most 150"),
    ({"seed": 2**64}, "seed", "seed"),
    ({"seed": "1"}, "seed", "integer"),
    ({"guidance_scale": 1e9}, "guidance_scale", "10000"),
    ({"scheduler": "nosuch"}, "scheduler", "euler"),
    ({"scheduler": "/etc/passwd"}, "scheduler", "unknown scheduler"),
    ({"spacing": "nosuch"}, "spacing", "karras"),
    ({"strength": 0.5}, "strength", "without image"),
    ({"clip_skip": 99}, "clip_skip", "0 to 2"),
    ({"negative_prompt": ["a"]}, "negative_prompt", "string"),
    ({"lora": [{"name": "nosuch"}]}, "lora", "nosuch"),
    ({"lora": [{"name": "../moon"}]}, "lora", "moon"),
    ({"lora": [{"weight": 1.0}]}, "lora.0.name", "required"),
    ({"lora": "moon"}, "lora", "list"),
    ({"metadata": 1}, "metadata", "boolean"),
]


@pytest.mark.parametrize(("wrong", "field", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_field_is_a_bad_request_that_names_it(
    client: OpenAI, wrong: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**{"prompt": "a"}, extra_body=wrong)
    assert caught.value.param == field
    assert caught.value.type == "invalid_request_error"
    assert message in str(caught.value)


def test_unknown_models_are_not_found(client: OpenAI) -> None:
    for call in (
        lambda: client.images.generate(prompt="a", model="gpt-image-2"),
        lambda: client.models.retrieve("org/model"),
    ):
        with pytest.raises(openai.NotFoundError, match="expected one of shapes") as caught:
            call()
        assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


def test_a_name_writes_no_line_of_the_log(server: Running) -> None:
    """Paths have what clients write, so the log has them with escapes."""
    assert httpx.get(f"{server.url}/v1/models/a%0A12:00:00%20GET%20/forged%20200").status_code == 404
    wait_for(lambda: "%0A12:00:00%20GET%20/forged" in server.log.read_text())
    assert "\n12:00:00 GET /forged" not in server.log.read_text()


BODIES = [
    (b'{"prompt": "a", "seed": NaN}', None, "NaN"),
    (b'{"prompt": "a", "prompt": "b"}', "prompt", "twice"),
    (b"[" * 100_000, None, "deep"),
    (b'{"prompt": "a', None, "not JSON"),
    (b"\xff", None, "UTF-8"),
    (b"[]", None, "the body"),
    (b"", None, "the body"),
]


@pytest.mark.parametrize(("body", "field", "message"), BODIES, ids=lambda value: str(value)[:30])
def test_a_body_that_is_no_json_is_a_400(
    server: Running, body: bytes, field: str | None, message: str
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/images/generations", content=body, headers=headers)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, field), error
    assert message in error["message"]


ROUTES = {
    "/v1/images/generations": "POST",
    "/v1/images/edits": "POST",
    "/v1/images/variations": "POST",
    "/v1/models": "GET",
    "/v1/models/shapes": "GET",
    "/v1/images/files/a/0": "GET",
}


@pytest.mark.parametrize(("path", "right"), ROUTES.items())
def test_a_wrong_method_is_said_in_openai_s_form(server: Running, path: str, right: str) -> None:
    with server.client() as client:
        for method in {"GET", "POST", "PUT", "DELETE", "PATCH"} - {right}:
            answer = client.request(method, path)
            # Below /v1/models every path is a name.
            assert answer.status_code == 405, answer.text
            assert answer.json()["error"]["message"] == "Method Not Allowed"
        assert client.get("/v1/nosuch").json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", [path for path, method in ROUTES.items() if method == "POST"])
@pytest.mark.parametrize("is_form", [True, False])
def test_too_large_a_body_is_a_413(server: Running, path: str, is_form: bool) -> None:
    def chunks() -> Iterator[bytes]:
        head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
        yield head if is_form else b'"'
        for _ in range(65):
            yield b"a" * 2**20

    kind = "multipart/form-data; boundary=b" if is_form else "application/json"
    answer = httpx.post(server.url + path, content=chunks(), headers={"Content-Type": kind}, timeout=60)
    assert answer.status_code in (413, 415), answer.text
    assert (answer.status_code == 413) or not is_form
    assert answer.json()["error"]["message"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server that needs a key, and lets one job wait."""
    with serving(tmp_path_factory.mktemp("guarded"), "--max-queue", "1", SDRT_API_KEY="k" * 24) as running:
        yield running


def test_without_the_key_nothing_is_made(guarded: Running) -> None:
    with client_of(guarded, "wrong") as client:
        for call in (
            lambda: client.images.generate(prompt="a"),
            lambda: client.images.edit(image=b"a", prompt="a"),
            lambda: client.models.list(),
            lambda: client.models.retrieve("shapes"),
        ):
            with pytest.raises(openai.AuthenticationError) as caught:
                call()
            assert caught.value.code == "invalid_api_key"
    for path, method in ROUTES.items():
        if "files" not in path:
            assert httpx.request(method, guarded.url + path).status_code == 401


def test_with_the_key_all_works_and_an_address_needs_none(guarded: Running) -> None:
    with client_of(guarded, "k" * 24) as client:
        data = client.images.generate(prompt="a", response_format="url", extra_body={"steps": 1}).data
        assert data is not None
        assert httpx.get(data[0].url or "").headers["content-type"] == "image/png"
        assert [model.id for model in client.models.list()] == ["shapes"]


def test_a_page_of_a_named_site_may_use_openai_s_client(tmp_path: Path) -> None:
    asked = "authorization,content-type,x-stainless-lang,x-stainless-retry-count"
    with serving(tmp_path, "--cors", "https://example.org", "--lazy") as running:
        for origin, allowed in (("https://example.org", 200), ("https://example.com", 400)):
            headers = {
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": asked,
            }
            answer = httpx.options(f"{running.url}/v1/images/generations", headers=headers)
            assert answer.status_code == allowed
            assert ("access-control-allow-origin" in answer.headers) == (allowed == 200)


def test_too_many_requests_are_told_when_to_come_again(guarded: Running) -> None:
    with client_of(guarded, "k" * 24) as client:

        def running() -> float:
            headers = {"Authorization": "Bearer " + "k" * 24}
            text = httpx.get(f"{guarded.url}/metrics", headers=headers).text
            return float("sdrt_jobs_running 1.0" in text) + float("sdrt_jobs_waiting 1.0" in text)

        with guarded.client("k" * 24) as raw:
            jobs = []
            for number in (1, 2):
                body = {"prompt": "a", "num_inference_steps": 150, "num_images_per_prompt": 4}
                jobs.append(raw.post("/jobs", json=body).json()["id"])
                wait_for(lambda number=number: running() == number)
            with pytest.raises(openai.RateLimitError) as caught:
                client.images.generate(prompt="a", extra_body=LONG)
            assert int(caught.value.response.headers["retry-after"]) >= 1
            assert (caught.value.type, caught.value.code) == ("rate_limit_error", "queue_full")
            for job in reversed(jobs):
                raw.delete(f"/jobs/{job}")


def test_images_that_are_all_flagged_are_blocked_as_openai_s_are() -> None:
    def made(*flagged: bool) -> Made:
        images = tuple(
            MadeImage(data=b"", seed=1, width=8, height=8, text="", flagged=one) for one in flagged
        )
        return Made(images=images, settings={}, seconds=0)

    with pytest.raises(ServeError) as caught:
        unless_blocked(made(True, True))
    assert (caught.value.status, caught.value.code) == (400, "moderation_blocked")
    assert len(unless_blocked(made(True, False)).images) == 2


def test_nothing_is_left(server: Running) -> None:
    assert metric(server, "sdrt_jobs_running") == metric(server, "sdrt_jobs_waiting") == 0


@pytest.mark.parametrize("charset", ["undefined", "utf-7"])
def test_a_form_in_another_charset_is_refused(server: Running, charset: str) -> None:
    """Python's codecs may fail, or make half of a surrogate pair, which no answer could repeat."""
    body = b'--x\r\nContent-Disposition: form-data; name="+2AA-"\r\n\r\na\r\n--x--\r\n'
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    with server.client() as client:
        answer = client.post("/v1/images/edits", content=body, headers=headers)
    assert answer.status_code == 415, answer.text
    assert "expected UTF-8" in answer.json()["error"]["message"]
