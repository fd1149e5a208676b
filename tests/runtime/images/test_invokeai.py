"""Metadata of InvokeAI, of every version."""

from __future__ import annotations

import json
from typing import Any

import pytest

import sdrt
from tests.runtime.images.program_files import INVOKEAI, INVOKEAI_SETTINGS, assert_made, png


def test_invokeai() -> None:
    content = png(invokeai_metadata=json.dumps(INVOKEAI), invokeai_graph="{}")
    found = assert_made(content, "InvokeAI", "a red circle++", "blue", INVOKEAI_SETTINGS)
    assert json.loads(found.text) == INVOKEAI


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"model": {"model_name": "old", "base_model": "sd-1"}}, {"Model": "old"}),
        ({"clip_skip": 1}, {"Clip skip": "2"}),
        ({"cfg_rescale_multiplier": 0.7}, {"CFG rescale": "0.7"}),
        ({"seamless_x": True}, {"Seamless x": "True"}),
        ({"vae": {"name": "vae-ft-mse"}}, {"VAE": "vae-ft-mse"}),
        (
            {"loras": [{"model": {"name": "a"}, "weight": 0.75}, {"lora": {"model_name": "b"}, "weight": 1}]},
            {"LoRAs": "a (0.75), b (1)"},
        ),
        (
            {"controlnets": [{"control_model": {"name": "canny"}, "control_weight": 0.8}]},
            {"ControlNet": "canny (0.8)"},
        ),
        ({"generation_mode": "img2img", "strength": 0.6}, {"Denoising strength": "0.6"}),
        (
            {"generation_mode": "inpaint", "strength": 0.6},
            {"Denoising strength": "0.6", "Inpainting": "inpaint"},
        ),
        (
            {"scheduler": "er_sde"},
            {"Sampler": "er_sde", "Schedule type": None, "Fresh noise": "of another seed"},
        ),
        (
            {"scheduler": "euler_a"},
            {"Sampler": "Euler a", "Schedule type": None, "Fresh noise": "of another seed"},
        ),
        ({"rand_device": "cuda"}, {"RNG": "GPU"}),
        ({"positive_style_prompt": "flat"}, {"Second prompt": "flat"}),
        ({"a_later_setting": 3}, {"InvokeAI a_later_setting": "3"}),
    ],
)
def test_invokeai_says_what_it_did(change: dict[str, Any], settings: dict[str, str | None]) -> None:
    expected = {name: value for name, value in (INVOKEAI_SETTINGS | settings).items() if value is not None}
    found = sdrt.read_metadata(png(invokeai_metadata=json.dumps(INVOKEAI | change)))
    assert found.settings == expected


def test_invokeai_before_version_3() -> None:
    old = {
        "model": "stable diffusion",
        "model_weights": "stable-diffusion-1.5",
        "app_id": "invoke-ai/InvokeAI",
        "app_version": "2.3.5",
        "image": {
            "prompt": [{"prompt": "a red circle [blue, square] on white", "weight": 1}],
            "steps": 50,
            "cfg_scale": 7.5,
            "threshold": 0,
            "perlin": 0.1,
            "height": 512,
            "width": 512,
            "seed": 5,
            "type": "txt2img",
            "postprocessing": None,
            "sampler": "k_euler_a",
            "variations": [],
        },
    }
    settings = {
        "Steps": "50",
        "Sampler": "Euler a",
        "CFG scale": "7.5",
        "Seed": "5",
        "Size": "512x512",
        "Model": "stable-diffusion-1.5",
        "RNG": "GPU",
        "Perlin noise": "0.1",
        "Fresh noise": "of another seed",
        "Noise scale": "of InvokeAI",
        "Prompt syntax": "compel",
        "Version": "InvokeAI 2.3.5",
    }
    content = png(sd__metadata=json.dumps(old), Dream='"other" -s 3')
    assert_made(content, "InvokeAI", "a red circle  on white", "blue, square", settings)


@pytest.mark.parametrize(
    "options", ["-s50 -S123 -W512 -H768 -C7.5 -Ak_lms", "-s 50 -S 123 -W 512 -H 768 -C 7.5 -A k_lms"]
)
def test_invokeai_s_command(options: str) -> None:
    settings = {
        "Steps": "50",
        "Seed": "123",
        "CFG scale": "7.5",
        "Sampler": "LMS",
        "Size": "512x768",
        "RNG": "GPU",
        "Noise scale": "of InvokeAI",
        "Prompt syntax": "compel",
        "Version": "InvokeAI",
    }
    assert_made(
        png(Dream=f'"a "red" circle [blue]" {options}'), "InvokeAI", 'a "red" circle', "blue", settings
    )
