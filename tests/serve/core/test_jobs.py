"""The API of jobs, against a real server with the embedded model."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from sdrt import StableDiffusionPipeline, read_metadata
from tests.serve.core.running import wait_for

TASK = {"prompt": "a red circle", "seed": 1, "num_inference_steps": 3}


def make(client: httpx.Client, **settings: Any) -> dict[str, Any]:
    """Accept a job, wait for its end, and return what is said of it."""
    accepted = client.post("/jobs", json=TASK | settings)
    assert accepted.status_code == 202, accepted.text
    return over(client, accepted.json()["id"])


def over(client: httpx.Client, job: str) -> dict[str, Any]:
    said: dict[str, Any] = {}

    def is_over() -> bool:
        nonlocal said
        said = client.get(f"/jobs/{job}").json()
        return said["status"] in ("done", "failed", "cancelled")

    wait_for(is_over)
    return said


def events(client: httpx.Client, job: str) -> Iterator[tuple[str, Any]]:
    """The events of a job, each with its name and data."""
    with client.stream("GET", f"/jobs/{job}/events") as answer:
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


def png(color: str, side: int = 128) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), color).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def test_the_image_is_the_pipeline_s(client: httpx.Client) -> None:
    job = make(client)
    image = client.get(job["images"][0]["url"])
    assert image.headers["content-type"] == "image/png"
    own = StableDiffusionPipeline.from_pretrained("shapes")(**TASK).images[0]
    assert np.array_equal(pixels(image.content), np.asarray(own))
    assert read_metadata(image.content).prompt == "a red circle"
    assert job["images"][0]["parameters"] == read_metadata(image.content).text


def test_the_answer_says_what_was_made(client: httpx.Client) -> None:
    job = make(client, num_images_per_prompt=2, scheduler="euler", output_format="webp", output_quality=80)
    assert [one["seed"] for one in job["images"]] == [1, 2]
    assert job["settings"]["scheduler"] == "euler"
    assert job["step"] == job["num_steps"] == 3
    result = client.get(f"/jobs/{job['id']}/result").json()
    first = base64.b64decode(result["images"][0]["b64_json"])
    assert Image.open(io.BytesIO(first)).format == "WEBP"
    assert first == client.get(job["images"][0]["url"]).content


def test_events_tell_every_step_and_the_previews(client: httpx.Client) -> None:
    # Behind another job, so that no event is missed.
    before = client.post("/jobs", json=TASK | {"num_inference_steps": 40}).json()["id"]
    job = client.post("/jobs", json=TASK | {"num_inference_steps": 6, "previews": 2}).json()["id"]
    told = list(events(client, job))
    assert over(client, before)["status"] == "done"
    assert told[0] == ("status", told[0][1])
    assert told[0][1]["status"] == "queued"
    steps = [data for name, data in told if name == "step"]
    assert [one["step"] for one in steps] == [1, 2, 3, 4, 5, 6]
    shown = [one for one in steps if "preview" in one]
    assert [(one["step"], one["preview_index"]) for one in shown] == [(2, 0), (4, 1)]
    assert pixels(base64.b64decode(shown[-1]["preview"])).shape[2] == 3
    assert told[-1][0] == "done"
    assert told[-1][1]["images"]


def test_a_cancelled_job_stops(client: httpx.Client) -> None:
    running = client.post(
        "/jobs", json=TASK | {"num_inference_steps": 150, "num_images_per_prompt": 8}
    ).json()["id"]
    waiting = client.post("/jobs", json=TASK).json()
    wait_for(lambda: client.get(f"/jobs/{running}").json()["step"] >= 1)
    assert client.delete(f"/jobs/{waiting['id']}").json()["status"] == "cancelled"
    assert client.delete(f"/jobs/{running}").json()["status"] in ("cancelling", "cancelled")
    assert over(client, running)["status"] == "cancelled"
    assert client.get(f"/jobs/{running}/result").status_code == 409
    # Once more, it is forgotten.
    client.delete(f"/jobs/{running}")
    assert client.get(f"/jobs/{running}").status_code == 404


def test_an_inpainting_keeps_what_is_outside_the_mask(client: httpx.Client) -> None:
    mask = Image.new("L", (128, 128))
    mask.paste(255, (0, 0, 64, 128))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    white = base64.b64encode(buffer.getvalue()).decode()
    job = make(client, image=png("blue"), mask_image=f"data:image/png;base64,{white}", mask_blur=0)
    made = pixels(client.get(job["images"][0]["url"]).content)
    assert (made[:, 64:] == (0, 0, 255)).all()
    assert (made[:, :64] != (0, 0, 255)).any()


REFUSED = [
    ({"prompt": None}, 422, "prompt"),
    ({"steps": 4}, 422, "steps"),
    ({"width": "128"}, 422, "width"),
    ({"width": -8}, 400, "width"),
    ({"num_inference_steps": 0}, 400, "num_inference_steps"),
    ({"num_inference_steps": 151}, 400, "num_inference_steps"),
    ({"num_images_per_prompt": 17}, 400, "num_images_per_prompt"),
    ({"guidance_scale": 1e9}, 400, "guidance_scale"),
    ({"scheduler": "nosuch"}, 400, "scheduler"),
    ({"scheduler": "/etc/passwd"}, 400, "scheduler"),
    ({"scheduler": "../scheduler_config.json"}, 400, "scheduler"),
    ({"image": "http://127.0.0.1/a.png"}, 400, "image"),
    ({"image": "file:///etc/passwd"}, 400, "image"),
    ({"image": "/etc/passwd"}, 400, "image"),
    ({"image": base64.b64encode(b"no image").decode()}, 400, "image"),
    ({"image": "%%%"}, 400, "image"),
    ({"image": "data:image/png,abc"}, 400, "image"),
    ({"strength": 0.5}, 400, "strength"),
    ({"lora": [{"name": "ink"}]}, 400, "lora"),
    ({"lora_dir": "/"}, 422, "lora_dir"),
    ({"refiner": "shapes"}, 422, "refiner"),
    ({"previews": 101}, 422, "previews"),
    ({"output_format": "tiff"}, 422, "output_format"),
    ({"accelerate": "warp"}, 422, "accelerate"),
    ({"model": "nosuch"}, 404, "model"),
    ({"model": "/etc"}, 404, "model"),
]


@pytest.mark.parametrize(("wrong", "status", "field"), REFUSED, ids=lambda value: str(value)[:40])
def test_a_wrong_field_is_named(client: httpx.Client, wrong: dict[str, Any], status: int, field: str) -> None:
    answer = client.post("/jobs", json=TASK | wrong)
    assert answer.status_code == status, answer.text
    said = answer.json()
    assert field in (said["field"] or ""), said
    assert "\n" not in said["detail"]
    assert "Traceback" not in said["detail"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"width": 130}, "multiple of 8"),
        ({"width": 2**20}, "at most"),
    ],
)
def test_what_only_the_model_knows_is_told_by_the_job(
    client: httpx.Client, wrong: dict[str, Any], says: str
) -> None:
    job = make(client, **wrong)
    assert job["status"] == "failed"
    assert job["error"]["field"] == "width"
    assert says in job["error"]["detail"]
    assert client.get(f"/jobs/{job['id']}/images/0").status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"prompt": "a", "prompt": "b"}',
        b'{"prompt": "a", "guidance_scale": NaN}',
        b'{"prompt": "a", "guidance_scale": Infinity}',
        b'{"prompt": "\xff"}',
        b'{"prompt": ' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"prompt": ' + b"[" * 100_000,
        b'{"prompt": "a", "seed": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)
def test_a_body_that_is_no_json_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"]
    assert make(client)["status"] == "done"


def test_the_type_of_a_body_that_is_not_there_does_not_matter(client: httpx.Client) -> None:
    typed = {"Content-Type": "application/json"}
    job = make(client)["id"]
    for path in (f"/jobs/{job}", "/jobs", "/v1/models", "/sdapi/v1/options", "/healthz"):
        assert client.get(path, headers=typed).status_code == 200
    assert client.delete(f"/jobs/{job}", headers=typed).status_code == 200
    assert client.post("/sdapi/v1/interrupt", headers=typed).status_code == 200
