"""Metadata of SwarmUI."""

from __future__ import annotations

import json
from typing import Any

import pytest

import sdrt
from tests.runtime.images.program_files import SWARMUI, alpha, assert_made, in_exif, png

SWARMUI_SETTINGS = {
    "Steps": "20",
    "Sampler": "DPM++ 2M",
    "Schedule type": "Karras",
    "CFG scale": "7",
    "Seed": "1",
    "Size": "512x512",
    "Model": "OfficialStableDiffusion/v1-5",
    "RNG": "CPU",
    "Noise scale": "of ComfyUI",
    "Version": "SwarmUI 0.9.3.1",
}


@pytest.mark.parametrize(
    "content",
    [
        png(parameters=json.dumps(SWARMUI, indent=2)),
        in_exif(json.dumps(SWARMUI), encoding="utf-16-le"),
        in_exif(json.dumps(SWARMUI), "WEBP", b"ASCII\0\0\0", "utf-8"),
        alpha(json.dumps(SWARMUI)),
        json.dumps(SWARMUI).encode(),
    ],
    ids=["chunk", "jpeg", "webp", "alpha", "a text file"],
)
def test_swarmui(content: bytes) -> None:
    assert_made(content, "SwarmUI", "a red circle", "blue", SWARMUI_SETTINGS)


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"sampler": None, "scheduler": None}, {"Sampler": "Euler", "Schedule type": "Normal"}),
        (
            {
                "sampler": None,
                "comfyuisampler": "euler_ancestral",
                "scheduler": None,
                "comfyuischeduler": "simple",
            },
            {"Sampler": "Euler a", "Schedule type": "Simple"},
        ),
        ({"seed": "1", "steps": "20", "cfgscale": "7.0"}, {"CFG scale": "7.0"}),
        ({"loras": ["a", "b"], "loraweights": ["0.5", "1"]}, {"LoRAs": "a (0.5), b (1)"}),
        ({"loras": "a,b", "loraweights": "0.5"}, {"LoRAs": "a (0.5), b (1)"}),
        ({"initimage": "in.png", "initimagecreativity": 0.4}, {"Denoising strength": "0.4"}),
        ({"clipstopatlayer": -2}, {"Clip skip": "2"}),
        ({"refinermethod": "PostApply"}, {"SwarmUI refinermethod": "PostApply"}),
        ({"variationseed": 5, "variationseedstrength": 0.1}, {"SwarmUI variationseedstrength": "0.1"}),
    ],
)
def test_swarmui_says_what_it_did(change: dict[str, Any], settings: dict[str, str]) -> None:
    params = {k: v for k, v in (SWARMUI["sui_image_params"] | change).items() if v is not None}
    found = sdrt.read_metadata(png(parameters=json.dumps({"sui_image_params": params})))
    assert found.settings == SWARMUI_SETTINGS | settings
