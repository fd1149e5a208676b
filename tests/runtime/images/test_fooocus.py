"""Metadata of Fooocus and RuinedFooocus."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image

import sdrt
from tests.runtime.images.program_files import FOOOCUS, assert_made, png

FOOOCUS_SETTINGS = {
    "Steps": "30",
    "Sampler": "DPM++ 2M SDE",
    "Schedule type": "Karras",
    "CFG scale": "4",
    "Seed": "123",
    "Size": "512x768",
    "Model": "juggernautXL_v8Rundiffusion",
    "Clip skip": "2",
    "Sharpness": "2",
    "ADM Guidance": "(1.5, 0.8, 0.3)",
    "LoRAs": "sd_xl_offset_example-lora_1.0 (0.1)",
    "Version": "Fooocus v2.5.5",
}


def fooocus_exif() -> bytes:
    exif = Image.Exif()
    exif[0x9286], exif[0x0131], exif[0x927C] = json.dumps(FOOOCUS), "Fooocus v2.5.5", "fooocus"
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [png(parameters=json.dumps(FOOOCUS), fooocus_scheme="fooocus"), fooocus_exif()]
)
def test_fooocus(content: bytes) -> None:
    assert_made(content, "Fooocus", "a red circle, flat drawing", "blue, ugly", FOOOCUS_SETTINGS)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        # Fooocus counts steps: half of 30, or the user's own number.
        ({}, {"Refiner switch at": "0.5", "Refiner switch by sampling steps": "True"}),
        (
            {"refiner_switch": 0.66},
            {"Refiner switch at": repr(20 / 30), "Refiner switch by sampling steps": "True"},
        ),
        ({"overwrite_switch": 6}, {"Refiner switch at": "0.2", "Refiner switch by sampling steps": "True"}),
        # The share is that of the performance's steps, though the user chose another number.
        (
            {"steps": 60},
            {"Refiner switch at": "0.25", "Refiner switch by sampling steps": "True", "Steps": "60"},
        ),
        (
            {"refiner_swap_method": "vae"},
            {"Refiner switch at": "0.5", "Refiner switch by sampling steps": "True"}
            | {"Fooocus refiner_swap_method": "vae"},
        ),
        ({"refiner_switch": "soon"}, {"Fooocus refiner_switch": "soon"}),
    ],
    ids=str,
)
def test_the_refiner_of_fooocus(more: dict[str, Any], said: dict[str, str]) -> None:
    values = FOOOCUS | {"refiner_model": "sd_xl_refiner", "refiner_model_hash": "7440042bbd"} | more
    found = sdrt.read_metadata(png(parameters=json.dumps(values)))
    assert found.settings == FOOOCUS_SETTINGS | {"Refiner": "sd_xl_refiner"} | said


def test_a_refiner_of_fooocus_that_never_takes_over() -> None:
    for more in ({"refiner_switch": 1.0}, {"overwrite_switch": 30, "refiner_swap_method": "vae"}):
        values = FOOOCUS | {"refiner_model": "sd_xl_refiner"} | more
        assert sdrt.read_metadata(png(parameters=json.dumps(values))).settings == FOOOCUS_SETTINGS


def test_fooocus_in_the_form_of_a1111() -> None:
    text = (
        "a red circle, flat drawing\nNegative prompt: blue\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 123, "
        'Size: 512x768, CFG scale: 4, Sharpness: 2, ADM Guidance: "(1.5, 0.8, 0.3)", Model: juggernaut, '
        "Performance: Speed, Scheduler: karras, Version: Fooocus v2.5.5"
    )
    found = sdrt.read_metadata(png(parameters=text, fooocus_scheme="a1111"))
    assert (found.program, found.prompt, found.settings["Sharpness"]) == (
        "Fooocus",
        "a red circle, flat drawing",
        "2",
    )


def test_ruined_fooocus() -> None:
    values = {
        "Prompt": "a red circle",
        "Negative": "blue",
        "steps": 30,
        "cfg": 7,
        "width": 512,
        "height": 768,
        "seed": 5,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
        "base_model_name": "some.safetensors",
        "loras": [{"name": "a", "weight": 0.5}],
        "denoise": None,
        "software": "RuinedFooocus",
    }
    settings = {
        "Steps": "30",
        "Sampler": "DPM++ 2M",
        "Schedule type": "Karras",
        "CFG scale": "7",
        "Seed": "5",
        "Size": "512x768",
        "Model": "some.safetensors",
        "LoRAs": "a (0.5)",
        "Version": "RuinedFooocus",
    }
    assert_made(png(parameters=json.dumps(values)), "RuinedFooocus", "a red circle", "blue", settings)
