"""Images of images, through OpenAI's client."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI
from PIL import Image

from sdrt import StableDiffusionPipeline
from tests.serve.core.running import Running, serving
from tests.serve.openai.conftest import LORAS, client_of
from tests.serve.openai.pictures import circle, hole, opened, pixels, png

OWN = {"seed": 1, "steps": 6}


def test_a_mask_is_repainted_where_it_is_transparent(client: OpenAI, shapes: StableDiffusionPipeline) -> None:
    answer = client.images.edit(
        image=png(circle()), mask=hole((0, 0, 64, 128)), prompt="a blue square", extra_body=OWN
    )
    white = Image.new("L", (128, 128))
    white.paste(255, (0, 0, 64, 128))
    expected = shapes("a blue square", image=circle(), mask_image=white, seed=1, num_inference_steps=6)
    assert answer.data is not None
    made = pixels(answer.data[0].b64_json)
    assert np.array_equal(made, pixels(expected.images[0]))
    assert np.array_equal(made[:, 72:], pixels(circle())[:, 72:])
    assert not np.array_equal(made[:, :56], pixels(circle())[:, :56])


def test_a_mask_counts_as_half_transparent_on(client: OpenAI) -> None:
    levels = np.repeat(np.arange(128, dtype=np.uint8)[np.newaxis] * 2, 128, 0)
    soft = Image.merge("RGBA", [Image.new("L", (128, 128))] * 3 + [Image.fromarray(levels)])
    sharp = hole((0, 0, 64, 128))
    one, other = (
        client.images.edit(image=png(circle()), mask=mask, prompt="a blue square", extra_body=OWN).data
        for mask in (png(soft), sharp)
    )
    assert one is not None
    assert other is not None
    assert np.array_equal(pixels(one[0].b64_json), pixels(other[0].b64_json))


def test_without_a_mask_all_of_the_image_is_changed(client: OpenAI, shapes: StableDiffusionPipeline) -> None:
    for asked, strength in (
        ({"input_fidelity": "high"}, 0.5),
        ({"input_fidelity": "low"}, 0.8),
        ({"extra_body": OWN | {"strength": 0.35}}, 0.35),
    ):
        named: dict[str, Any] = {"extra_body": OWN, **asked}
        answer = client.images.edit(image=[png(circle())], prompt="a blue square", **named)
        expected = shapes("a blue square", image=circle(), strength=strength, seed=1, num_inference_steps=6)
        assert answer.data is not None
        assert np.array_equal(pixels(answer.data[0].b64_json), pixels(expected.images[0]))


def test_the_size_is_the_image_s_unless_it_is_given(client: OpenAI) -> None:
    image = png(circle().resize((96, 64)))
    for size, expected in (("auto", (96, 64)), ("64x128", (64, 128))):
        answer = client.images.edit(image=image, prompt="a blue square", size=size, extra_body=OWN)
        assert answer.data is not None
        assert opened(answer.data[0].b64_json).size == expected
        # Three words, and an image of 6x4 squares.
        assert answer.usage is not None
        assert answer.usage.input_tokens_details.image_tokens == 24
        assert answer.usage.input_tokens == 27


def test_every_kind_of_file_that_the_client_takes(client: OpenAI, tmp_path: Path) -> None:
    path = tmp_path / "circle.png"
    path.write_bytes(png(circle()))
    with path.open("rb") as file:
        given = (path, file, path.read_bytes(), ("c.png", path.read_bytes(), "image/png"))
        made = []
        for image in given:
            data = client.images.edit(image=image, prompt="a", extra_body=OWN).data
            assert data is not None
            made.append(data[0].b64_json)
    assert len(set(made)) == 1


def test_a_form_has_settings_of_all_types(client: OpenAI, shapes: StableDiffusionPipeline) -> None:
    own = {"seed": 1, "steps": 6, "metadata": False, "guidance_scale": 2, "strength": 0.9}
    answer = client.images.edit(
        image=png(circle()),
        prompt="ein Möbius-Band\r\n",
        n=1,
        extra_body=own | {"lora": [{"name": "moon", "weight": 0.5}]},
    )
    expected = shapes(
        "ein Möbius-Band\r\n",
        image=circle(),
        seed=1,
        num_inference_steps=6,
        guidance_scale=2,
        strength=0.9,
        lora=f"{LORAS / 'moon.safetensors'}:0.5",
    )
    assert answer.data is not None
    assert np.array_equal(pixels(answer.data[0].b64_json), pixels(expected.images[0]))
    assert "parameters" not in opened(answer.data[0].b64_json).info


def test_loras_of_a_form_must_tell_whose_a_weight_is(client: OpenAI) -> None:
    """The client sends the names and the weights apart, so a weight that is left out moves the others."""
    image = png(circle())
    unclear = [{"name": "moon"}, {"name": "moon", "weight": 0.5}]
    with pytest.raises(openai.BadRequestError, match="2 of name, 1 of weight") as caught:
        client.images.edit(image=image, prompt="a", extra_body=OWN | {"lora": unclear})
    assert caught.value.param == "lora"
    text = '[{"name": "moon"}, {"name": "moon", "weight": 0.5}]'
    assert client.images.edit(image=image, prompt="a", extra_body=OWN | {"lora": text}).data


def test_variations_are_like_the_image(client: OpenAI, shapes: StableDiffusionPipeline) -> None:
    with pytest.deprecated_call():
        answer = client.images.create_variation(image=png(circle()), n=2, extra_body=OWN)
    expected = shapes(
        "", image=circle(), strength=0.6, num_images_per_prompt=2, seed=1, num_inference_steps=6
    )
    assert answer.data is not None
    for one, image in zip(answer.data, expected.images, strict=True):
        assert np.array_equal(pixels(one.b64_json), pixels(image))
    assert answer.data[0].b64_json != answer.data[1].b64_json


@pytest.fixture(scope="module")
def prompted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose model has an IP-Adapter, so that it sees images as prompts."""
    folder = tmp_path_factory.mktemp("prompted")
    adapter = str(LORAS / "likeness.safetensors")
    for command in (
        ("sdrt_export.restore", "shapes", "checkpoint"),
        ("sdrt", "export", "checkpoint", "--dtype", "fp16", "--ip-adapter", adapter, "-o", "model"),
    ):
        subprocess.run([sys.executable, "-m", *command], cwd=folder, check=True, capture_output=True)
    with serving(folder, "-m", "model") as running:
        yield running


@pytest.mark.full
def test_further_images_are_image_prompts(prompted: Running) -> None:
    white = png(Image.new("RGB", (128, 128), "white"))
    with client_of(prompted) as client:
        for color, channel in (("red", 0), ("blue", 2)):
            answer = client.images.edit(
                image=[white, png(circle(color))],
                prompt="",
                extra_body={"seed": 1, "steps": 12, "strength": 1.0, "guidance_scale": 3},
            )
            assert answer.data is not None
            made = pixels(answer.data[0].b64_json)
            # What is drawn on white has the colour of the second image.
            drawn = made[made.min(axis=2) < 100]
            assert len(drawn) > 200
            assert (drawn.argmax(axis=1) == channel).mean() > 0.9


def test_a_model_without_image_prompts_says_so(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no IP-Adapter: give one image") as caught:
        client.images.edit(image=[png(circle())] * 2, prompt="a", extra_body=OWN)
    assert caught.value.param == "image"


IMAGE = ("image", ("a.png", png(circle())))
BAD_FORMS: list[tuple[list[Any], str | None, str]] = [
    ([("prompt", (None, "a"))], "image", "missing"),
    ([IMAGE], "prompt", "Field required"),
    ([IMAGE, ("prompt", (None, "a")), ("prompt", (None, "b"))], "prompt", "2 times"),
    ([IMAGE, ("prompt", ("a.txt", b"a"))], "prompt", "is a file"),
    ([("image", (None, "http://127.0.0.1/a.png")), ("prompt", (None, "a"))], "image", "fetches nothing"),
    (
        [IMAGE, ("mask", ("m.png", hole((0, 0, 9, 9)))), ("mask", ("m.png", b"")), ("prompt", (None, "a"))],
        "mask",
        "2 times",
    ),
    ([IMAGE, ("prompt", (None, "a")), ("nosuch", (None, "1"))], "nosuch", "unknown field"),
    ([IMAGE, ("prompt", (None, "a")), ("seed", (None, "1.5"))], "seed", "integer"),
    ([IMAGE, ("prompt", (None, "a")), ("stream", (None, "perhaps"))], "stream", "boolean"),
    ([IMAGE, ("prompt", (None, "a")), ("guidance_scale", (None, "nan"))], "guidance_scale", "finite"),
    ([IMAGE, ("prompt", (None, "a")), ("lora", (None, "[1"))], "lora", "not JSON"),
    ([IMAGE, ("prompt", (None, "a")), ("lora", (None, "[{}]"))], "lora", "Field required"),
    ([IMAGE, ("prompt", (None, "a" * 20_001))], "prompt", "20000"),
    ([IMAGE, ("prompt", (None, "a" * 300_000))], None, "256KB"),
    ([IMAGE] * 18, None, "Too many files"),
    ([IMAGE, *[(f"f{number}", (None, "1")) for number in range(201)]], None, "Too many fields"),
]


@pytest.mark.parametrize(("parts", "field", "message"), BAD_FORMS)
def test_a_form_that_is_wrong_is_a_400_that_names_the_field(
    server: Running, parts: list[Any], field: str | None, message: str
) -> None:
    with server.client() as client:
        answer = client.post("/v1/images/edits", files=parts)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, field), error
    assert message in error["message"]
    assert error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"--b", b"--b\r\nx", b"--b\r\n\r\n\r\n--b--", b"\0" * 99])
@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=b", "multipart/form-data"])
def test_half_a_form_is_a_400(server: Running, body: bytes, kind: str) -> None:
    answer = httpx.post(f"{server.url}/v1/images/edits", content=body, headers={"Content-Type": kind})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"]


def test_what_is_no_form_is_a_415(server: Running) -> None:
    answer = httpx.post(f"{server.url}/v1/images/edits", json={"prompt": "a"})
    assert answer.status_code == 415
    assert "multipart/form-data" in answer.json()["error"]["message"]


WRONG_MASKS = [
    (b"no image", "not an image"),
    (png(circle()), "has no transparency"),
    (png(Image.new("RGBA", (128, 128))).replace(b"IDAT", b"IDxT"), "mask"),
    (hole((0, 0, 0, 0)), "transparent nowhere"),
    (png(Image.new("RGBA", (4100, 4100))), "at most 4194304"),
]


@pytest.mark.parametrize(("mask", "message"), WRONG_MASKS)
def test_a_mask_that_is_wrong_is_refused(client: OpenAI, mask: bytes, message: str) -> None:
    with pytest.raises(openai.BadRequestError, match=message) as caught:
        client.images.edit(image=png(circle()), mask=mask, prompt="a", extra_body=OWN)
    assert caught.value.param == "mask"


def test_an_image_that_is_wrong_is_refused(client: OpenAI) -> None:
    for image, message in ((b"<svg/>", "an SVG drawing"), (png(circle())[:100], "image"), (b"", "empty")):
        with pytest.raises(openai.BadRequestError, match=message) as caught:
            client.images.edit(image=image, prompt="a", extra_body=OWN)
        assert caught.value.param == "image"
