"""Metadata of Fooocus and RuinedFooocus."""

from __future__ import annotations

import io
import json

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
