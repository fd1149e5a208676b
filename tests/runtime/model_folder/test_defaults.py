"""The defaults in a model's manifest, which calls use if they give no value."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import ModelError, StableDiffusionPipeline

FAST: dict[str, Any] = {"num_inference_steps": 2, "seed": 3, "output_type": "np"}


def with_defaults(tiny_model: Path, folder: Path, defaults: object) -> Path:
    shutil.copytree(tiny_model, folder)
    manifest = json.loads((folder / "sdrt.json").read_text())
    (folder / "sdrt.json").write_text(json.dumps(manifest | {"defaults": defaults}))
    return folder


def open_folder(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, provider="cpu", notify=lambda _: None)


def test_a_call_without_guidance_scale_uses_the_model_s(tiny_model: Path, tmp_path: Path) -> None:
    own = open_folder(with_defaults(tiny_model, tmp_path / "own", {"guidance_scale": 2.5}))
    made = own("a cat", **FAST)
    assert made.request.guidance_scale == 2.5
    np.testing.assert_array_equal(made.images, own("a cat", guidance_scale=2.5, **FAST).images)
    assert own("a cat", guidance_scale=4, **FAST).request.guidance_scale == 4


def test_a_model_without_defaults_uses_diffusers_default(pipeline: StableDiffusionPipeline) -> None:
    made = pipeline("a cat", **FAST)
    assert made.request.guidance_scale == 7.5


@pytest.mark.parametrize(
    "defaults", [{"guidance_scale": "7"}, {"guidance_scale": True}, {"steps": 4}, [7.5]], ids=str
)
def test_invalid_defaults_are_refused(tiny_model: Path, tmp_path: Path, defaults: object) -> None:
    with pytest.raises(ModelError, match="defaults"):
        open_folder(with_defaults(tiny_model, tmp_path / "own", defaults))
