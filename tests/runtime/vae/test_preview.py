"""Images of what a run is at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import ModelError, RequestError, StableDiffusionPipeline

FAST: dict[str, Any] = {"num_inference_steps": 3, "seed": 3}


def open_folder(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", verify=False, notify=lambda _: None
    )


def test_it_is_the_linear_map_of_the_manifest(pipeline: StableDiffusionPipeline) -> None:
    assert pipeline.model.manifest is not None
    matrix = np.array(pipeline.model.manifest.components["vae_decoder"]["preview"])
    latents = np.random.default_rng(0).standard_normal((2, 4, 5, 7)).astype(np.float32)
    images = pipeline.preview(latents)
    assert [image.size for image in images] == [(56, 40)] * 2
    colour = (latents[1, :, 4, 0] @ matrix[:4] + matrix[4]) / 2 + 0.5
    np.testing.assert_allclose(np.asarray(images[1])[-1, 0] / 255, colour.clip(0, 1), atol=0.01)


@pytest.mark.parametrize("latents", [5, None, [[1.0]]])
def test_what_is_no_array_is_refused(pipeline: StableDiffusionPipeline, latents: Any) -> None:
    with pytest.raises(RequestError, match=r"latents are .*: expected an array"):
        pipeline.preview(latents)


def test_latents_of_another_shape_are_refused(pipeline: StableDiffusionPipeline) -> None:
    for shape in ((4, 5, 7), (1, 3, 5, 7)):
        with pytest.raises(RequestError, match=r"expected \(images, 4, height, width\)"):
            pipeline.preview(np.zeros(shape, np.float32))


def test_a_callback_may_watch(pipeline: StableDiffusionPipeline) -> None:
    seen: list[Image.Image] = []

    def watch(
        pipeline: StableDiffusionPipeline, index: int, timestep: float, tensors: dict[str, Any]
    ) -> dict[str, Any]:
        seen.extend(pipeline.preview(tensors["denoised"]))
        return tensors

    made = pipeline(
        "a cat", callback_on_step_end=watch, callback_on_step_end_tensor_inputs=["denoised"], **FAST
    )
    assert [image.size for image in seen] == [made.images[0].size] * len(seen)
    assert len(seen) >= 3


def test_a_callback_may_not_change_it(pipeline: StableDiffusionPipeline) -> None:
    def change(*arguments: Any) -> dict[str, Any]:
        return {"denoised": arguments[3]["denoised"] + 1}

    with pytest.raises(
        RequestError, match="changed denoised, which has no effect: it follows from the latents"
    ):
        pipeline(
            "a cat", callback_on_step_end=change, callback_on_step_end_tensor_inputs=["denoised"], **FAST
        )


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "has no data for previews: export the checkpoint again"),
        ("nonsense", "the preview in sdrt.json is 'nonsense': expected 5 rows of 3 numbers"),
        ([[1, 2, 3]], "expected 5 rows of 3 numbers"),
        ([[1, 2, 3]] * 4 + [[1, 2, float("nan")]], "expected 5 rows of 3 numbers"),
    ],
    ids=["absent", "text", "short", "nan"],
)
def test_a_model_without_one_says_so(tiny_model: Path, tmp_path: Path, value: object, message: str) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    manifest = json.loads((folder / "sdrt.json").read_text())
    if value is None:
        del manifest["components"]["vae_decoder"]["preview"]
    else:
        manifest["components"]["vae_decoder"]["preview"] = value
    (folder / "sdrt.json").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=message):
        open_folder(folder).preview(np.zeros((1, 4, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, r"latents are int: expected an array \(images, 4, height, width\)"),
        (None, "latents are NoneType"),
        ("abc", "latents are str"),
        ([[1.0], [1.0, 2.0]], "latents are list"),
        (np.zeros((1, 4, 0, 2), np.float32), "latents have shape"),
        (np.zeros((1, 4, 2, 2), np.int64), "latents are an array of int64: expected floats"),
    ],
)
def test_what_is_no_latents_is_refused(
    pipeline: StableDiffusionPipeline, value: object, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        pipeline.preview(value)  # type: ignore[arg-type]
