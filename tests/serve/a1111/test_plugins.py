"""Requests of editors' plug-ins, with the fields that they send, and what they read of the answers.

Blender's AI Render (`sd_backends/automatic1111_api.py`) and Krita's Cyanic SD (`cyanic/sdapi_v1.py`).
"""

from __future__ import annotations

import base64
import io
import json
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.serve.a1111.conftest import SIDE, STEPS


def data_url(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def opened(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.fixture
def render() -> Image.Image:
    return Image.new("RGBA", (SIDE, SIDE), "gray")


def blender(render: Image.Image) -> dict[str, Any]:
    """What AI Render posts to img2img. It leaves its own `image_similarity` and `sampler` in."""
    return {
        "prompt": "a red circle",
        "negative_prompt": "",
        "width": SIDE,
        "height": SIDE,
        "image_similarity": 0.4,
        "seed": 7,
        "cfg_scale": 7.0,
        "steps": STEPS,
        "sampler": "LMS",
        "denoising_strength": 0.6,
        "sampler_index": "LMS",
        "init_images": [data_url(render)],
    }


def test_blenders_ai_render_makes_an_image(client: httpx.Client, render: Image.Image) -> None:
    upscalers = [one["name"] for one in client.get("/sdapi/v1/upscalers").json()]
    assert "None" in upscalers
    answer = client.post("/sdapi/v1/img2img", json=blender(render))
    assert answer.status_code == 200, answer.text
    assert opened(answer.json()["images"][0]).size == (SIDE, SIDE)
    assert json.loads(answer.json()["info"])["sampler_name"] == "LMS"


def test_blenders_ai_render_finds_and_uses_a_controlnet(client: httpx.Client, render: Image.Image) -> None:
    models = client.get("/controlnet/model_list").json()["model_list"]
    modules = client.get("/controlnet/module_list").json()["module_list"]
    assert (models, "canny" in modules) == (["edges"], True)
    # It sends no image: A1111's extension takes the one of img2img.
    unit = {"module": "none", "model": models[0]}
    body = blender(render) | {"alwayson_scripts": {"controlnet": {"args": [unit]}}}
    client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "edges"})
    try:
        guided = client.post("/sdapi/v1/img2img", json=body)
        alone = client.post("/sdapi/v1/img2img", json=blender(render))
    finally:
        client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "shapes"})
    assert guided.status_code == 200, guided.text
    assert guided.json()["images"] != alone.json()["images"]


def test_blenders_ai_render_knows_why_a_sampler_is_refused(client: httpx.Client, render: Image.Image) -> None:
    answer = client.post("/sdapi/v1/img2img", json=blender(render) | {"sampler_index": "DPM++ 9M"})
    assert answer.status_code == 400
    assert answer.json()["field"] == "sampler_index"
    assert "DPM++ 9M" in answer.json()["detail"]


def test_kritas_cyanic_sd_connects(client: httpx.Client) -> None:
    assert client.get("/queue/status").json()["queue_size"] == 0
    for name in (
        *("sd-models", "sd-vae", "samplers", "upscalers", "face-restorers", "prompt-styles"),
        *("scripts", "loras", "embeddings", "hypernetworks", "options", "progress"),
    ):
        assert client.get(f"/sdapi/v1/{name}").status_code == 200, name
    options = client.get("/sdapi/v1/options").json()
    titles = [one["title"] for one in client.get("/sdapi/v1/sd-models").json()]
    assert options["sd_model_checkpoint"] in titles


def krita(**fields: Any) -> dict[str, Any]:
    """What Cyanic SD posts after its `cleanup_data`."""
    return {
        "width": SIDE,
        "height": SIDE,
        "prompt": "a red circle",
        "negative_prompt": "",
        "seed": 7,
        "subseed": -1,
        "subseed_strength": 0,
        "sampler_name": "DPM++ 2M",
        "steps": STEPS,
        "cfg_scale": 7,
        "batch_size": 1,
        "n_iter": 2,
        "override_settings": {"sd_vae": "Automatic", "img2img_color_correction": False},
        "override_settings_restore_afterwards": False,
        **fields,
    }


def test_kritas_cyanic_sd_repaints(client: httpx.Client, render: Image.Image) -> None:
    mask = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    mask.paste((255, 255, 255, 255), (32, 32, 96, 96))
    body = krita(
        init_images=[data_url(render)],
        mask=data_url(mask),
        mask_blur=4,
        denoising_strength=0.75,
        inpainting_mask_invert=0,
        inpainting_fill=1,
        # A number, where A1111 has a truth value.
        inpaint_full_res=0,
        inpaint_full_res_padding=32,
    )
    answer = client.post("/sdapi/v1/img2img", json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert len(found["images"]) == found["parameters"]["batch_size"] * found["parameters"]["n_iter"]
    # The images come back only if they are asked for.
    assert (found["parameters"]["init_images"], found["parameters"]["mask"]) == (None, None)
    again = client.post("/sdapi/v1/img2img", json=body | {"include_init_images": True}).json()
    assert again["parameters"]["init_images"] == body["init_images"]


def test_overridden_settings_stay_if_they_are_not_to_be_restored(client: httpx.Client) -> None:
    chosen = {"CLIP_stop_at_last_layers": 2}
    try:
        client.post("/sdapi/v1/txt2img", json=krita(override_settings=chosen))
        assert client.get("/sdapi/v1/options").json()["CLIP_stop_at_last_layers"] == 2
    finally:
        client.post("/sdapi/v1/options", json={"CLIP_stop_at_last_layers": 1})
