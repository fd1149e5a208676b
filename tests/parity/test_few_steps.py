"""Latent consistency models, pruned models and the kinds of Stable Diffusion 2, against diffusers' pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdrt import RequestError, StableDiffusionPipeline
from sdrt.errors import UnsupportedModelError
from tests.parity.image_prompts import HALF_LEVEL, given_image

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates, and warns of its own class's default.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*steps_offset:FutureWarning"),
]

Folders = Callable[[str], Path]
Pipelines = Callable[[str], Any]
LCMS = ("lcm", "lcm-class", "xl-lcm")
LCM_DEFAULTS = {"num_inference_steps": 4, "guidance_scale": 8.5}


def ours(folder: Path, notify: Any = lambda _: None) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder, provider="cpu", threads=1, notify=notify)


def images(pipeline: Any, seed: int, **options: Any) -> Any:
    generator = torch.Generator("cpu").manual_seed(seed)
    return pipeline(generator=generator, output_type="np", **options).images


def for_images(pipeline: Any) -> Any:
    """The pipeline that diffusers' AutoPipelineForImage2Image has for another's class."""
    name = type(pipeline).__name__.replace("Pipeline", "Img2ImgPipeline")
    extra = {} if "XL" in name else {"requires_safety_checker": False}
    found = getattr(diffusers, name)(**pipeline.components, **extra)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.mark.parametrize(
    "given", [{}, {"guidance_scale": 1.0}, {"guidance_scale": 3.3, "num_inference_steps": 7}], ids=str
)
@pytest.mark.parametrize("variant", LCMS)
def test_text_to_image(
    sdrt_folder: Folders, diffusers_pipeline: Pipelines, variant: str, given: dict[str, Any]
) -> None:
    expected = images(diffusers_pipeline(variant), 3, prompt="a lake", **LCM_DEFAULTS | given)
    made = ours(sdrt_folder(variant))("a lake", seed=3, output_type="np", **given)
    assert float(np.abs(made.images - expected).max()) <= HALF_LEVEL
    assert made.request.num_inference_steps == given.get("num_inference_steps", 4)


@pytest.mark.parametrize(
    "given", [{}, {"strength": 0.5}, {"strength": 0.3, "num_inference_steps": 8}], ids=str
)
@pytest.mark.parametrize("variant", LCMS)
def test_image_to_image(
    sdrt_folder: Folders, diffusers_pipeline: Pipelines, variant: str, given: dict[str, Any]
) -> None:
    """The pipeline for these models runs all steps below the strength; Stable Diffusion's runs a share of them."""
    given = {"strength": 0.8, "image": given_image()} | given
    theirs = for_images(diffusers_pipeline(variant))
    expected = images(theirs, 3, prompt="a lake", **LCM_DEFAULTS | given)
    steps: list[int] = []
    made = ours(sdrt_folder(variant))(
        "a lake",
        seed=3,
        output_type="np",
        callback_on_step_end=lambda _, index, *rest: steps.append(index),
        **given,
    )
    assert float(np.abs(made.images - expected).max()) <= HALF_LEVEL
    total = given.get("num_inference_steps", 4)
    assert len(steps) == (total if variant == "lcm-class" else int(total * given["strength"]))


def test_a_strength_that_leaves_too_few_distilled_steps_is_refused(sdrt_folder: Folders) -> None:
    pipeline = ours(sdrt_folder("lcm-class"))
    pipeline("a lake", image=given_image(), strength=0.08, seed=1)
    with pytest.raises(
        RequestError, match=r"distilled on 50 .* strength of 0.07 leaves 3: expected at most 3"
    ):
        pipeline("a lake", image=given_image(), strength=0.07, seed=1)


@pytest.mark.parametrize("variant", ["lcm", "lcm-class"])
def test_optimum_s_folders(optimum_folder: Folders, diffusers_pipeline: Pipelines, variant: str) -> None:
    expected = images(diffusers_pipeline(variant), 5, prompt="a lake", **LCM_DEFAULTS)
    made = ours(optimum_folder(variant))("a lake", seed=5, output_type="np").images
    assert float(np.abs(made - expected).max()) <= HALF_LEVEL


@pytest.mark.parametrize(
    ("variant", "options", "said"),
    [
        ("lcm", {"negative_prompt": "fog"}, ["takes the guidance scale as an input"]),
        ("lcm", {}, []),
        # Each part of the prompt is compared with the negative one.
        ("lcm", {"prompt": "a lake AND snow", "negative_prompt": "fog"}, []),
        (
            "sd1",
            {"negative_prompt": "fog", "guidance_scale": 1},
            ["guidance_scale is 1; give a scale above 1"],
        ),
        (
            "sd1",
            {"negative_prompt": "fog", "guidance_scale": 0},
            ["guidance_scale is 0; give a scale above 1"],
        ),
        ("sd1", {"negative_prompt": "fog"}, []),
        ("sd1", {"guidance_scale": 0}, []),
    ],
)
def test_a_negative_prompt_without_effect_is_said(
    sdrt_folder: Folders, variant: str, options: dict[str, Any], said: list[str]
) -> None:
    heard: list[str] = []
    pipeline = ours(sdrt_folder(variant), heard.append)
    pipeline(**{"prompt": "a lake", "num_inference_steps": 2, "seed": 0} | options)
    found = [message for message in heard if "negative prompt" in message]
    assert len(found) == len(said)
    assert all(words in message for words, message in zip(said, found, strict=True))


def test_guidance_of_0_and_1_run_the_same_single_pass(sdrt_folder: Folders) -> None:
    pipeline = ours(sdrt_folder("sd1"))
    made = [
        pipeline("a lake", guidance_scale=scale, num_inference_steps=2, seed=0, output_type="np").images
        for scale in (0, 1)
    ]
    np.testing.assert_array_equal(*made)


@pytest.mark.parametrize("variant", ["sd2-epsilon", "pruned"])
@pytest.mark.parametrize("guidance_scale", [0.0, 5.0])
def test_kinds_for_text_to_image(
    sdrt_folder: Folders, diffusers_pipeline: Pipelines, variant: str, guidance_scale: float
) -> None:
    options = {"prompt": "a lake", "num_inference_steps": 5, "guidance_scale": guidance_scale}
    expected = images(diffusers_pipeline(variant), 7, **options)
    made = ours(sdrt_folder(variant))(seed=7, output_type="np", **options).images
    assert float(np.abs(made - expected).max()) <= HALF_LEVEL


def test_stable_diffusion_2_for_inpainting(sdrt_folder: Folders, diffusers_pipeline: Pipelines) -> None:
    mask = Image.new("L", (72, 48))
    ImageDraw.Draw(mask).ellipse((20, 8, 60, 38), fill=255)
    options = {"prompt": "a lake", "image": given_image(), "mask_image": mask, "num_inference_steps": 5}
    components = diffusers_pipeline("sd2-inpaint").components
    theirs = diffusers.StableDiffusionInpaintPipeline(**components, requires_safety_checker=False)
    theirs.set_progress_bar_config(disable=True)
    expected = images(theirs, 7, height=48, width=72, **options)
    made = ours(sdrt_folder("sd2-inpaint"))(seed=7, output_type="np", composite=False, **options).images
    assert float(np.abs(made - expected).max()) <= HALF_LEVEL


def test_a_model_for_depth_is_refused_by_name(checkpoint: Folders, tmp_path: Path) -> None:
    from sdrt_export import export_model

    folder = tmp_path / "depth"
    folder.mkdir()
    index = json.loads((checkpoint("sd2") / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionDepth2ImgPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedModelError, match="StableDiffusionDepth2ImgPipeline"):
        export_model(folder, tmp_path / "model")


def test_a_scheduler_that_does_not_fit_the_name_is_said(optimum_folder: Folders, tmp_path: Path) -> None:
    folder = tmp_path / "sdxl_lightning_4step"
    folder.symlink_to(optimum_folder("sd1"))
    heard: list[str] = []
    pipeline = ours(folder, heard.append)
    assert any("use --spacing trailing" in message for message in heard)
    assert pipeline("a lake", seed=0).request.num_inference_steps == 4
    assert pipeline("a lake", seed=0, num_inference_steps=2).request.num_inference_steps == 2
