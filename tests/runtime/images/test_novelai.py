"""Metadata of NovelAI, from wherever it puts them."""

from __future__ import annotations

import json
from typing import Any

import pytest

import sdrt
from tests.runtime.images.program_files import NOVELAI, alpha, assert_made, in_exif, png

NOVELAI_TEXTS = {
    "Title": "AI generated image",
    "Description": "red circle, white",
    "Software": "NovelAI",
    "Source": "Stable Diffusion XL 7BCCAA2C",
    "Comment": json.dumps(NOVELAI),
}


NOVELAI_SETTINGS = {
    "Steps": "28",
    "Sampler": "Euler a",
    "Schedule type": "Karras",
    "CFG scale": "5",
    "Seed": "3816166865",
    "Size": "832x1216",
    "Model": "Stable Diffusion XL 7BCCAA2C",
    "Version": "NovelAI",
}


@pytest.mark.parametrize(
    "content",
    [
        png(**NOVELAI_TEXTS),
        alpha(json.dumps(NOVELAI_TEXTS)),
        alpha(json.dumps(NOVELAI_TEXTS | {"Comment": NOVELAI})),
        in_exif(json.dumps(NOVELAI_TEXTS)),
        in_exif(json.dumps(NOVELAI_TEXTS), "WEBP", b"ASCII\0\0\0", "utf-8"),
    ],
    ids=["chunks", "alpha", "alpha with an object", "exif", "webp"],
)
def test_novelai(content: bytes) -> None:
    assert_made(content, "NovelAI", "red circle, white", "blue", NOVELAI_SETTINGS)


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"prompt": "{red} circle"}, {"Weights of words": "of NovelAI"}),
        ({"prompt": "1.3::red:: circle"}, {"Weights of words": "of NovelAI"}),
        ({"cfg_rescale": 0.2}, {"CFG rescale": "0.2"}),
        ({"sm": True}, {"NovelAI sm": "True"}),
        ({"noise_schedule": "native"}, {"Schedule type": None}),
        ({"strength": 0.7, "noise": 0.1}, {"Denoising strength": "0.7", "Extra noise": "0.1"}),
        (
            {"v4_prompt": {"caption": {"base_caption": "x", "char_captions": [{"char_caption": "a girl"}]}}},
            {"Characters": "a girl"},
        ),
        ({"v4_prompt": {"caption": {"base_caption": "x", "char_captions": []}}}, {}),
        ({"sampler": "ddim_v3"}, {"Sampler": "DDIM"}),
    ],
)
def test_novelai_says_what_it_did(change: dict[str, Any], settings: dict[str, str | None]) -> None:
    texts = NOVELAI_TEXTS | {"Comment": json.dumps(NOVELAI | change)}
    expected = {name: value for name, value in (NOVELAI_SETTINGS | settings).items() if value is not None}
    assert sdrt.read_metadata(png(**texts)).settings == expected
