"""Images of prompts, through OpenAI's client."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import numpy as np
import pytest
from openai import AsyncOpenAI, OpenAI
from PIL import Image

from sdrt import StableDiffusionPipeline, read_metadata
from tests.serve.core.running import Running
from tests.serve.openai.conftest import LORAS
from tests.serve.openai.pictures import opened, pixels

OWN = {"seed": 1, "steps": 4}


def test_the_image_is_the_pipeline_s(client: OpenAI, shapes: StableDiffusionPipeline) -> None:
    own = {"seed": 7, "steps": 5, "guidance_scale": 2.5, "negative_prompt": "blue", "scheduler": "euler"}
    answer = client.images.generate(
        model="shapes", prompt="a red circle", extra_body=own | {"spacing": "karras", "clip_skip": 1}
    )
    assert answer.data is not None
    expected = shapes(
        "a red circle",
        seed=7,
        num_inference_steps=5,
        guidance_scale=2.5,
        negative_prompt="blue",
        scheduler="euler",
        spacing="karras",
        clip_skip=1,
    )
    assert np.array_equal(pixels(answer.data[0].b64_json), pixels(expected.images[0]))
    assert answer.data[0].url is None


def test_a_red_circle_is_red(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a red circle", extra_body={"seed": 1})
    assert answer.data is not None
    red, green, blue = pixels(answer.data[0].b64_json)[64, 64]
    assert red > 150
    assert max(green, blue) < 90


def test_several_images_count_their_seeds_up(client: OpenAI) -> None:
    both = client.images.generate(prompt="a red circle", n=2, extra_body=OWN).data
    second = client.images.generate(prompt="a red circle", extra_body=OWN | {"seed": 2}).data
    assert both is not None
    assert second is not None
    assert [one.seed for one in both] == [1, 2]  # type: ignore[attr-defined]
    # A batch rounds in another way.
    assert np.abs(pixels(both[1].b64_json) - pixels(second[0].b64_json)).max() <= 1


def test_without_a_seed_images_differ_and_the_answer_tells_it(client: OpenAI) -> None:
    first, second = (
        client.images.generate(prompt="a red circle", extra_body={"steps": 1}).data for _ in range(2)
    )
    assert first is not None
    assert second is not None
    assert first[0].b64_json != second[0].b64_json
    again = client.images.generate(
        prompt="a red circle",
        extra_body={"steps": 1, "seed": first[0].seed},  # type: ignore[attr-defined]
    ).data
    assert again is not None
    assert again[0].b64_json == first[0].b64_json


def test_the_answer_says_what_was_made(client: OpenAI) -> None:
    answer = client.images.generate(
        prompt="a red circle",
        n=2,
        size="128x64",
        quality="medium",
        user="u1",
        background="opaque",
        extra_body=OWN,
    )
    assert (answer.size, answer.quality, answer.output_format, answer.background) == (
        *("128x64", "medium", "png"),
        "opaque",
    )
    assert answer.safety_identifier == "u1"
    assert answer.created > 1.7e9
    assert answer.data is not None
    assert opened(answer.data[0].b64_json).size == (128, 64)
    # Three words are three tokens; an image of 128x64 has 8x4 squares of 16 pixels.
    assert answer.usage is not None
    assert answer.usage.input_tokens == answer.usage.input_tokens_details.text_tokens == 3
    assert answer.usage.output_tokens == 2 * 8 * 4
    assert answer.usage.total_tokens == 67


@pytest.mark.parametrize(
    ("quality", "acceleration"), [("low", "fast"), ("medium", "balanced"), ("high", "off"), (None, "off")]
)
def test_quality_leaves_out_calls(
    client: OpenAI, shapes: StableDiffusionPipeline, quality: Any, acceleration: str
) -> None:
    asked = {} if quality is None else {"quality": quality}
    answer = client.images.generate(prompt="a red circle", **asked, extra_body={"steps": 15, "seed": 1})
    expected = shapes("a red circle", seed=1, num_inference_steps=15, accelerate=acceleration)
    assert (expected.skipped_calls > 0) == (acceleration != "off")
    assert answer.data is not None
    assert np.array_equal(pixels(answer.data[0].b64_json), pixels(expected.images[0]))
    assert answer.quality == (quality or "high")


@pytest.mark.parametrize("quality", ["auto", "hd", "standard"])
def test_other_names_of_full_quality(client: OpenAI, quality: Any) -> None:
    answer = client.images.generate(prompt="a", quality=quality, extra_body={"steps": 1})
    assert answer.data is not None
    made = base64.b64decode(answer.data[0].b64_json or "")
    assert "Acceleration" not in read_metadata(made).text
    assert answer.quality == "high"


def test_where_no_call_can_be_left_out_the_answer_says_so(client: OpenAI) -> None:
    answer = client.images.generate(prompt="a", quality="low", extra_body={"steps": 2})
    assert any("skips no calls" in notice for notice in answer.notices)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("name", "kind"), [("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_formats(client: OpenAI, name: str, kind: str) -> None:
    answer = client.images.generate(
        prompt="a red circle",
        output_format=name,  # type: ignore[arg-type]
        extra_body=OWN | {"metadata": False},
    )
    assert answer.data is not None
    assert opened(answer.data[0].b64_json).format == kind
    assert answer.output_format == name
    assert b"Steps:" not in base64.b64decode(answer.data[0].b64_json or "")


def test_compression_makes_files_smaller(client: OpenAI) -> None:
    sizes = []
    for compression in (100, 50, 0):
        answer = client.images.generate(
            prompt="a red circle", output_format="jpeg", output_compression=compression, extra_body=OWN
        )
        assert answer.data is not None
        sizes.append(len(answer.data[0].b64_json or ""))
    assert sizes[0] > sizes[1] > sizes[2]


def test_an_image_by_its_address(client: OpenAI, server: Running) -> None:
    by_url = client.images.generate(
        prompt="a red circle", n=2, response_format="url", output_format="webp", extra_body=OWN
    ).data
    inside = client.images.generate(
        prompt="a red circle", n=2, response_format="b64_json", output_format="webp", extra_body=OWN
    ).data
    assert by_url is not None
    assert inside is not None
    for one, other in zip(by_url, inside, strict=True):
        assert one.url is not None
        assert one.url.startswith(server.url)
        file = httpx.get(one.url)
        assert file.headers["content-type"] == "image/webp"
        assert file.content == base64.b64decode(other.b64_json or "")
    assert by_url[0].b64_json is None


def test_only_the_whole_address_leads_to_an_image(client: OpenAI) -> None:
    data = client.images.generate(prompt="a", response_format="url", extra_body=OWN).data
    assert data is not None
    url = data[0].url or ""
    path, _, signature = url.partition("?signature=")
    for wrong in (path, f"{url}0", url[:-1], f"{path}?signature=%FF", f"{path[:-1]}1?signature={signature}"):
        answer = httpx.get(wrong)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] == "image_not_found"


def test_loras_by_their_names(client: OpenAI, shapes: StableDiffusionPipeline) -> None:
    answer = client.images.generate(
        prompt="a red moon", extra_body=OWN | {"lora": [{"name": "moon", "weight": 0.75}]}
    )
    expected = shapes("a red moon", seed=1, num_inference_steps=4, lora=f"{LORAS / 'moon.safetensors'}:0.75")
    without = shapes("a red moon", seed=1, num_inference_steps=4)
    assert answer.data is not None
    assert np.array_equal(pixels(answer.data[0].b64_json), pixels(expected.images[0]))
    assert not np.array_equal(pixels(expected.images[0]), pixels(without.images[0]))


def test_what_has_no_effect_is_said(client: OpenAI) -> None:
    answer = client.images.generate(
        prompt="a red circle", style="vivid", moderation="low", extra_body={"seed": 1, "steps": 1}
    )
    assert any("style" in notice for notice in answer.notices)  # type: ignore[attr-defined]
    plain = client.images.generate(prompt="a red circle", extra_body={"seed": 1, "steps": 1})
    assert answer.data is not None
    assert plain.data is not None
    assert answer.data[0].b64_json == plain.data[0].b64_json


def test_the_asynchronous_client(server: Running) -> None:
    async def three() -> list[Image.Image]:
        async with AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            answers = await asyncio.gather(
                *(
                    client.images.generate(prompt="a red circle", extra_body=OWN | {"seed": seed})
                    for seed in range(3)
                )
            )
        return [opened((answer.data or [])[0].b64_json) for answer in answers]

    made = asyncio.run(three())
    assert len({image.tobytes() for image in made}) == 3


def test_models(client: OpenAI) -> None:
    listed = client.models.list().data
    assert [model.id for model in listed] == ["shapes"]
    assert client.models.retrieve("shapes") == listed[0]
    assert listed[0].object == "model"
