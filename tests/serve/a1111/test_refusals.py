"""What this server cannot do is refused by A1111's names, before anything is made."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.serve.a1111.conftest import SIDE, STEPS

BODY = {"prompt": "a red circle", "seed": 7, "steps": STEPS, "width": SIDE, "height": SIDE}


def image(width: int = SIDE, height: int = SIDE) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "gray").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def refused(client: httpx.Client, route: str, body: dict[str, Any], status: int = 400) -> dict[str, Any]:
    answer = client.post(f"/sdapi/v1/{route}", json=body)
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    assert found["detail"] == found["errors"]
    return found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("subseed_strength", 0.1),
        ("styles", ["cinematic"]),
        ("restore_faces", True),
        ("tiling", True),
        ("save_images", True),
        ("disable_extra_networks", True),
        ("s_churn", 1),
        ("s_noise", 1.1),
        ("s_min_uncond", 0.5),
        ("refiner_checkpoint", "xl-refiner"),
        ("script_name", "x/y/z plot"),
        ("firstphase_width", 64),
        ("hr_checkpoint_name", "other"),
        ("sampler_name", "Euler b"),
        ("scheduler", "Carras"),
        ("eta", 0.5),
        ("steps", 151),
        ("batch_size", 17),
        ("n_iter", 17),
        ("width", 127),
        ("width", 1 << 20),
    ],
)
def test_a_field_with_an_effect_that_it_does_not_have_is_named(
    client: httpx.Client, field: str, value: object
) -> None:
    asked = {**BODY, "sampler_name": "Euler a", field: value}
    found = refused(client, "txt2img", asked)
    assert found["field"] == field
    assert field in found["detail"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("hr_upscaler", "R-ESRGAN 4x+"),
        ("hr_sampler_name", "Euler b"),
        ("hr_prompt", "another"),
        ("hr_scale", 32),
        ("hr_resize_x", 99),
    ],
)
def test_so_are_those_of_a_second_pass_if_there_is_one(
    client: httpx.Client, field: str, value: object
) -> None:
    asked = {**BODY, field: value}
    assert client.post("/sdapi/v1/txt2img", json=asked).status_code == 200
    sizes = {"hr_resize_y": SIDE} if field == "hr_resize_x" else {}
    found = refused(client, "txt2img", {**asked, **sizes, "enable_hr": True})
    assert found["field"] == field


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"init_images": []}, "init_images"),
        ({"init_images": [image(), image()]}, "init_images"),
        ({"init_images": ["http://127.0.0.1/x.png"]}, "init_images"),
        ({"init_images": ["/etc/passwd"]}, "init_images"),
        ({"init_images": ["????"]}, "init_images"),
        ({"init_images": [image(4096, 2048)]}, "init_images"),
        ({"init_images": [image(4096, 2048)], "resize_mode": 1}, "init_images"),
        ({"mask": "data:image/png,x"}, "mask"),
        ({"mask": base64.b64encode(b"GIF89a").decode()}, "mask"),
        ({"resize_mode": 3}, "resize_mode"),
        ({"mask": image(), "inpainting_fill": 2}, "inpainting_fill"),
        ({"mask": image(), "mask_blur_x": 1}, "mask_blur_x"),
        ({"initial_noise_multiplier": 1.1}, "initial_noise_multiplier"),
        ({"resize_mode": 2, "width": 1 << 20}, "width"),
    ],
)
def test_wrong_images_are_named(client: httpx.Client, fields: dict[str, Any], named: str) -> None:
    answer = client.post("/sdapi/v1/img2img", json={**BODY, "init_images": [image()], **fields})
    assert answer.status_code in (400, 404), answer.text
    assert answer.json()["field"] == named
    assert named in answer.json()["detail"]


def test_unknown_fields_and_types_are_named(client: httpx.Client) -> None:
    assert "'stepz'" in refused(client, "txt2img", {**BODY, "stepz": 3}, 422)["detail"]
    assert refused(client, "txt2img", {**BODY, "steps": "many"}, 422)["field"] == "steps"
    assert refused(client, "txt2img", {**BODY, "init_images": [image()]})["field"] == "init_images"
    assert (
        refused(client, "img2img", {**BODY, "init_images": [image()], "enable_hr": True})["field"]
        == "enable_hr"
    )


def test_missing_and_null_fields_have_a1111s_defaults(client: httpx.Client) -> None:
    answer = client.post("/sdapi/v1/txt2img", json={**BODY, "cfg_scale": None, "sampler_name": None}).json()
    parameters = answer["parameters"]
    assert (parameters["cfg_scale"], parameters["sampler_index"], parameters["n_iter"]) == (7.0, "Euler", 1)
    assert "Sampler: Euler, Schedule type: Uniform, CFG scale: 7.0" in answer["info"]


def test_options_are_named(client: httpx.Client) -> None:
    for options, field in (
        ({"sd_vae": "vae-ft-mse"}, "sd_vae"),
        ({"eta_noise_seed_delta": 31337}, "eta_noise_seed_delta"),
        ({"CLIP_stop_at_last_layers": 0}, "CLIP_stop_at_last_layers"),
        ({"CLIP_stop_at_last_layers": "2"}, "CLIP_stop_at_last_layers"),
        ({"quicksettings": []}, "quicksettings"),
    ):
        assert refused(client, "options", options)["field"] == field
        overridden = refused(client, "txt2img", {**BODY, "override_settings": options})
        assert overridden["field"] == f"override_settings.{field}"
    model = {"sd_model_checkpoint": "nothing.safetensors"}
    assert refused(client, "options", model, 404)["field"] == "sd_model_checkpoint"


def scripts(**unit: Any) -> dict[str, Any]:
    given = {"model": "edges", "image": image(), **unit}
    return {
        **BODY,
        "override_settings": {"sd_model_checkpoint": "edges"},
        "alwayson_scripts": {"ControlNet": {"args": [given]}},
    }


@pytest.mark.parametrize(
    ("unit", "named"),
    [
        ({"model": "depth"}, "model"),
        ({"module": "openpose"}, "module"),
        ({"control_mode": "Loud"}, "control_mode"),
        ({"resize_mode": 7}, "resize_mode"),
        ({"module": "canny", "processor_res": 512}, "processor_res"),
        ({"mask": image()}, "mask"),
        ({"image": "http://127.0.0.1/x.png"}, "image"),
        ({"image": None}, "image"),
    ],
)
def test_units_of_controlnet_are_checked(client: httpx.Client, unit: dict[str, Any], named: str) -> None:
    found = refused(client, "txt2img", scripts(**unit))
    assert found["field"] == f"alwayson_scripts.controlnet.{named}"


def test_scripts_are_named(client: httpx.Client) -> None:
    other = {**BODY, "alwayson_scripts": {"ADetailer": {"args": [True]}}}
    assert refused(client, "txt2img", other, 422)["field"] == "alwayson_scripts.ADetailer"
    unknown = refused(client, "txt2img", scripts(colour="red"), 422)
    assert unknown["field"] == "alwayson_scripts.controlnet.0.colour"
    on_shapes = {**scripts(), "override_settings": {}}
    assert "no ControlNet" in refused(client, "txt2img", on_shapes)["detail"]
    off = {**on_shapes, "alwayson_scripts": {"controlnet": {"args": [{"enabled": False, "model": "depth"}]}}}
    assert client.post("/sdapi/v1/txt2img", json=off).status_code == 200


def test_an_infotext_gives_what_the_request_leaves_out(client: httpx.Client) -> None:
    text = "a blue square\nNegative prompt: red\nSteps: 3, Sampler: Heun, CFG scale: 5, Seed: 9, Size: 64x64"
    body = {"infotext": text, "width": SIDE, "height": SIDE}
    made = client.post("/sdapi/v1/txt2img", json=body).json()["info"]
    assert "a blue square\\nNegative prompt: red\\nSteps: 3, Sampler: Heun" in made
    assert "CFG scale: 5.0, Seed: 9, Size: 128x128" in made
    lacks = {**BODY, "infotext": f"{text}, Tiling: True"}
    assert refused(client, "txt2img", lacks)["field"] == "infotext"


def test_enlarging_is_bounded_and_named(client: httpx.Client) -> None:
    for fields, named in (
        ({"gfpgan_visibility": 0.5}, "gfpgan_visibility"),
        ({"codeformer_visibility": 1}, "codeformer_visibility"),
        ({"upscaler_1": "R-ESRGAN 4x+"}, "upscaler_1"),
        ({"upscaling_resize": 32}, "upscaling_resize"),
        ({"resize_mode": 1, "upscaling_resize_w": 1 << 20}, "upscaling_resize_w"),
        ({"image": "/etc/passwd"}, "image"),
    ):
        asked = {"image": image(), "upscaler_1": "Lanczos", **fields}
        assert refused(client, "extra-single-image", asked)["field"] == named
    many = {"imageList": [{"data": image(8, 8), "name": "x"}] * 17}
    assert refused(client, "extra-batch-images", many)["field"] == "imageList"
    assert refused(client, "png-info", {"image": "bm90IGFuIGltYWdl"})["field"] == "image"


def test_routes_that_it_does_not_have_are_not_found(client: httpx.Client) -> None:
    answer = client.post("/sdapi/v1/interrogate", json={"image": image()})
    assert (answer.status_code, answer.json()["detail"]) == (404, "Not Found")
    assert client.get("/sdapi/v1/txt2img").status_code == 405


def test_no_path_of_the_server_is_told(client: httpx.Client) -> None:
    for name in ("loras", "sd-models", "options", "cmd-flags", "upscalers"):
        assert "/tmp" not in client.get(f"/sdapi/v1/{name}").text
    lora = {**BODY, "prompt": "a circle <lora:nothing:1>"}
    found = refused(client, "txt2img", lora)
    assert found["field"] == "prompt"
    assert "nothing" in found["detail"]
    assert "loras/" not in found["detail"]


def test_networks_that_would_not_be_used_are_named(client: httpx.Client) -> None:
    found = refused(client, "txt2img", {**BODY, "prompt": "a circle <hypernet:old:1>"})
    assert found["field"] == "prompt"
    assert "<hypernet:old:1>" in found["detail"]


def test_the_documentation_has_every_field() -> None:
    from sdrt.serve.routes.a1111.fields import Img2Img, Txt2Img

    page = (Path(__file__).parents[3] / "docs" / "serve-a1111.md").read_text("utf-8")
    for name in {*Txt2Img.model_fields, *Img2Img.model_fields}:
        assert f"`{name}`" in page, name


@pytest.mark.parametrize(
    "text",
    [
        # No answer could repeat these.
        '{"prompt": "a", "comments": {"a": 1e999}}',
        '{"prompt": "\\ud800"}',
        '{"prompt": "a", "cfg_scale": NaN}',
        '{"prompt": "a", "steps": 1, "width": 128, "height": 128, "image_similarity": "nan"}',
        '{"prompt": "a", "steps": 1, "width": 128, "height": 128, "refiner_switch_at": "inf"}',
        '{"infotext": "' + "Steps: 1\\n" * 20_000 + '"}',
        '{"prompt": "a", "prompt": "b"}',
        '{"alwayson_scripts": {"ControlNet": {"args": [{"image": {"image": 3}}]}}}',
        '{"alwayson_scripts": {"ControlNet": {"args": ["canny"]}}}',
        '{"alwayson_scripts": {"ControlNet": []}}',
        '{"override_settings": {"sd_model_checkpoint": ["shapes"]}}',
        '{"infotext": "a\\nSteps: x, Sampler: y, CFG scale: z"}',
        "[]",
    ],
)
def test_no_body_is_an_error_of_the_server(client: httpx.Client, text: str) -> None:
    for route in ("txt2img", "img2img"):
        answer = client.post(f"/sdapi/v1/{route}", content=text, headers={"Content-Type": "application/json"})
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()["detail"]


def test_the_pixels_of_an_image_whose_text_is_asked_for_are_bounded(client: httpx.Client) -> None:
    assert refused(client, "png-info", {"image": image(4096, 2048)})["field"] == "image"
