"""SDXL against diffusers: token ids, embeddings, pooled embeddings and sizes; then images in every task.

Three odd configurations, the refiner, and models for inpainting and instructions, all with random weights.
"""

from __future__ import annotations

import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdrt import Request, StableDiffusionPipeline
from sdrt.run.conditioning import Conditioning
from tests.parity.image_prompts import given_image

diffusers = pytest.importorskip("diffusers")
torch = pytest.importorskip("torch")

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")

BASES = ["xl", "xl-uneven", "xl-short"]
PROMPT = "a photo of an astronaut riding a horse on mars"
LEVEL = 1 / 255
# Latents are sums of some thousand products in another order, and grow with the guidance.
LATENTS = 2e-3
SIZE = (72, 48)
IMAGE = {"height": 48, "width": 72}
STEPS = {"num_inference_steps": 7}
# What diffusers is told of sizes. Its order is (height, width).
SIZES: Mapping[str, Any] = {
    "original_size": (333, 1024),
    "crops_coords_top_left": (7, 120),
    "target_size": (1000, 999),
}
NEGATIVE: Mapping[str, Any] = {
    "negative_original_size": (512, 300),
    "negative_crops_coords_top_left": (3, 4),
    "negative_target_size": (640, 480),
}

Folders = Callable[[str], Path]
Pipelines = Callable[[str], Any]


@functools.cache
def load(folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", threads=1, notify=lambda message: None
    )


@functools.cache
def oracle(theirs: Any, task: str) -> Any:
    """diffusers' pipeline for a task, over the components of another."""
    kind = getattr(diffusers, f"StableDiffusionXL{task}Pipeline")
    wanted = {"requires_aesthetics_score"} if task in ("Img2Img", "Inpaint") else set()
    config = {name: theirs.config[name] for name in wanted if name in theirs.config}
    zeros = {"force_zeros_for_empty_prompt": theirs.config["force_zeros_for_empty_prompt"]}
    parts = dict(theirs.components)
    if task == "InstructPix2Pix":
        parts = {
            name: part for name, part in parts.items() if name not in ("image_encoder", "feature_extractor")
        }
    made = kind(**parts, **config, **zeros)
    made.set_progress_bar_config(disable=True)
    return made


def compare(
    folder: Path,
    theirs: Any,
    *,
    seeds: tuple[int, ...] = (3,),
    ours: Mapping[str, Any] | None = None,
    **given: Any,
) -> None:
    """Compare latents, then images. `ours` are arguments that only sdrt has."""
    for output, limit in (("latent", LATENTS), ("np", LEVEL)):
        options = {**STEPS, **given, "output_type": output}
        found = load(folder)(seed=seeds[0], **options, **(ours or {})).images
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        expected = theirs(generator=generators if len(seeds) > 1 else generators[0], **options).images
        expected = np.asarray(expected)
        assert found.shape == expected.shape
        assert np.ptp(expected) > 0.5
        assert float(np.abs(found - expected).max()) <= limit


def mask() -> Image.Image:
    drawn = Image.new("L", SIZE)
    ImageDraw.Draw(drawn).ellipse((20, 8, 60, 38), fill=255)
    return drawn


def told(folder: Path, **given: Any) -> Mapping[str, Any]:
    """What the U-Net gets in the first step."""
    pipeline = load(folder)
    request = pipeline.plan(Request(**{"seed": 0, **STEPS, **given})).request
    components = pipeline._cache.get()
    conditioning = Conditioning.of(request, pipeline.model.family, components.text_encoder, components.words)
    return conditioning.at(0)


class HeardError(Exception):
    """Ends a run of diffusers before its first step."""


def heard(theirs: Any, **given: Any) -> Mapping[str, Any]:
    """What diffusers' U-Net gets in the first step."""
    said: dict[str, Any] = {}

    def listen(*values: Any, encoder_hidden_states: Any, added_cond_kwargs: Any, **others: Any) -> None:
        said.update(added_cond_kwargs, encoder_hidden_states=encoder_hidden_states)
        raise HeardError

    unet = theirs.unet
    before = unet.forward
    try:
        unet.forward = listen
        with pytest.raises(HeardError):
            theirs(**{**STEPS, **given}, generator=torch.Generator("cpu").manual_seed(0))
    finally:
        unet.forward = before
    return {name: np.asarray(value) for name, value in said.items()}


@pytest.mark.parametrize("variant", BASES)
def test_token_ids(checkpoint: Folders, sdrt_folder: Folders, variant: str) -> None:
    from transformers import CLIPTokenizer

    encoders = load(sdrt_folder(variant))._cache.get()
    for number, name in enumerate(("tokenizer", "tokenizer_2")):
        theirs = CLIPTokenizer.from_pretrained(checkpoint(variant) / name)
        for prompt in ("", PROMPT, "castle! " * 100, "a cat! on! a! mat"):
            expected = theirs(prompt, padding="max_length", truncation=True, return_tensors="np").input_ids[0]
            np.testing.assert_array_equal(encoders.text_encoder(number).tokenizer(prompt).ids, expected)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"negative_prompt": ""},
        {"negative_prompt": "fog"},
        {"negative_prompt": "fog", "negative_prompt_2": "bad anatomy", "prompt_2": "a small red house"},
        {"prompt_2": ""},
        {"negative_prompt": "fog", "clip_skip": 1},
        {"guidance_scale": 1.0},
        SIZES,
        {**SIZES, **NEGATIVE},
        {**NEGATIVE, "negative_prompt": "fog"},
        {"height": 56, "width": 88},
    ],
    ids=str,
)
@pytest.mark.parametrize("variant", BASES)
def test_embeddings_pooled_ones_and_sizes(
    sdrt_folder: Folders, diffusers_pipeline: Pipelines, variant: str, given: dict[str, Any]
) -> None:
    given = {"prompt": PROMPT, **IMAGE, **given}
    found = told(sdrt_folder(variant), prompt_syntax="plain", **given)
    expected = heard(diffusers_pipeline(variant), **given)
    assert set(found) == set(expected)
    np.testing.assert_array_equal(found["time_ids"], expected["time_ids"])
    for name in ("encoder_hidden_states", "text_embeds"):
        # Hidden states are not normalised; both sides compute in float32.
        np.testing.assert_allclose(found[name], expected[name], atol=5e-5, err_msg=name)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"negative_prompt": "fog", "guidance_rescale": 0.7},
        {"guidance_scale": 1.0, "prompt_2": "a castle"},
        {**SIZES, **NEGATIVE, "negative_prompt": ""},
        {"clip_skip": 1, "negative_prompt": "fog"},
    ],
    ids=str,
)
@pytest.mark.parametrize("variant", BASES)
def test_text_to_image(
    sdrt_folder: Folders, diffusers_pipeline: Pipelines, variant: str, given: dict[str, Any]
) -> None:
    compare(sdrt_folder(variant), diffusers_pipeline(variant), prompt=PROMPT, **IMAGE, **given)


def test_default_size_and_guidance(sdrt_folder: Folders, diffusers_pipeline: Pipelines) -> None:
    for variant in BASES:
        compare(sdrt_folder(variant), diffusers_pipeline(variant), prompt="a castle")


def test_a_batch(sdrt_folder: Folders, diffusers_pipeline: Pipelines) -> None:
    compare(
        sdrt_folder("xl"),
        diffusers_pipeline("xl"),
        seeds=(3, 4, 5, 6),
        prompt=["a castle", "a cat"],
        prompt_2=["a forest", "a table"],
        negative_prompt=["", "fog"],
        num_images_per_prompt=2,
        **IMAGE,
        **SIZES,
    )


def test_given_embeddings(sdrt_folder: Folders, diffusers_pipeline: Pipelines) -> None:
    theirs = diffusers_pipeline("xl")
    with torch.no_grad():
        made = theirs.encode_prompt(PROMPT, negative_prompt="fog", device="cpu")
    names = (
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    )
    arrays = {name: value.numpy() for name, value in zip(names, made, strict=True)}
    found = load(sdrt_folder("xl"))(**arrays, **STEPS, **IMAGE, seed=3, output_type="np").images
    words = load(sdrt_folder("xl"))(
        PROMPT, negative_prompt="fog", **STEPS, **IMAGE, seed=3, output_type="np"
    ).images
    np.testing.assert_allclose(found, words, atol=LEVEL)


@pytest.mark.parametrize(
    "given",
    [{}, {"strength": 0.6, "negative_prompt": "fog"}, {**SIZES, "strength": 0.8}, {"strength": 1.0}],
    ids=str,
)
@pytest.mark.parametrize("variant", [*BASES, "xl-refiner"])
def test_image_to_image(
    sdrt_folder: Folders, diffusers_pipeline: Pipelines, variant: str, given: dict[str, Any]
) -> None:
    if variant == "xl-refiner":
        given = {name: value for name, value in given.items() if name != "target_size"}
    theirs = oracle(diffusers_pipeline(variant), "Img2Img")
    compare(sdrt_folder(variant), theirs, prompt=PROMPT, image=given_image(*SIZE), **given)


def test_latents_that_are_normalised_channel_by_channel(
    sdrt_folder: Folders, diffusers_pipeline: Pipelines
) -> None:
    """As in Playground 2.5, with EDM's scheduler."""
    folder, theirs = sdrt_folder("xl-normalised"), diffusers_pipeline("xl-normalised")
    compare(folder, theirs, prompt=PROMPT, negative_prompt="fog", **IMAGE)
    options = {"prompt": PROMPT, "image": given_image(*SIZE), "strength": 0.6}
    compare(folder, oracle(theirs, "Img2Img"), **options)


@pytest.mark.parametrize(
    ("variant", "given"),
    [
        ("xl", {}),
        ("xl", SIZES),
        ("xl", {"negative_original_size": (300, 200)}),
        ("xl", {**SIZES, "negative_target_size": (64, 32)}),
        ("xl-refiner", {}),
        ("xl-refiner", {"aesthetic_score": 7.5, "negative_aesthetic_score": 1.0, "negative_prompt": "fog"}),
        ("xl-refiner", {"original_size": (300, 200), "crops_coords_top_left": (5, 6)}),
        ("xl-refiner", {"negative_original_size": (300, 200), "negative_crops_coords_top_left": (5, 6)}),
    ],
    ids=str,
)
@pytest.mark.parametrize("masked", [False, True])
def test_what_a_model_is_told_with_an_image(
    sdrt_folder: Folders, diffusers_pipeline: Pipelines, masked: bool, variant: str, given: dict[str, Any]
) -> None:
    given = {"prompt": PROMPT, "image": given_image(*SIZE), "strength": 0.9, **given}
    size: dict[str, int] = {}
    if masked:
        given, size = {**given, "mask_image": mask()}, {"height": SIZE[1], "width": SIZE[0]}
    theirs = oracle(diffusers_pipeline(variant), "Inpaint" if masked else "Img2Img")
    found, expected = told(sdrt_folder(variant), **given), heard(theirs, **given, **size)
    assert found["time_ids"].shape == (2, 5 if variant == "xl-refiner" else 6)
    np.testing.assert_array_equal(found["time_ids"], expected["time_ids"])


@pytest.mark.parametrize(
    "given", [{}, {"strength": 0.6, "negative_prompt": "fog"}, {"strength": 1.0}], ids=str
)
@pytest.mark.parametrize("variant", ["xl", "xl-uneven", "xl-short", "xl-inpaint", "xl-refiner"])
def test_inpainting(
    sdrt_folder: Folders, diffusers_pipeline: Pipelines, variant: str, given: dict[str, Any]
) -> None:
    theirs = oracle(diffusers_pipeline(variant), "Inpaint")
    options = {"prompt": PROMPT, "image": given_image(*SIZE), "mask_image": mask(), **IMAGE, **given}
    compare(sdrt_folder(variant), theirs, ours={"composite": False}, **options)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"image_guidance_scale": 2.5, "guidance_scale": 4.0, "negative_prompt": "fog"},
        {"image_guidance_scale": 1.0},
        {"image_guidance_scale": 0.5},
        {"guidance_scale": 1.0},
        {"guidance_rescale": 0.7, "negative_prompt": "fog"},
        SIZES,
    ],
    ids=str,
)
def test_instructions(sdrt_folder: Folders, diffusers_pipeline: Pipelines, given: dict[str, Any]) -> None:
    theirs = oracle(diffusers_pipeline("xl-pix2pix"), "InstructPix2Pix")
    options = {"prompt": "make it a castle", "image": given_image(*SIZE), **IMAGE, **given}
    compare(sdrt_folder("xl-pix2pix"), theirs, **options)


@pytest.mark.full
@pytest.mark.parametrize("variant", ["xl", "xl-refiner"])
def test_optimum_s_folder(optimum_folder: Folders, diffusers_pipeline: Pipelines, variant: str) -> None:
    """A folder that optimum wrote, without `sdrt.json`."""
    theirs = diffusers_pipeline(variant)
    if variant == "xl":
        compare(optimum_folder(variant), theirs, prompt=PROMPT, height=64, width=96, negative_prompt="fog")
        return
    options = {"prompt": PROMPT, "image": given_image(64, 64), "strength": 0.6}
    compare(optimum_folder(variant), theirs, **options)


def test_cosxl_s_image_is_scaled(
    checkpoint: Folders, sdrt_folder: Folders, diffusers_pipeline: Pipelines, tmp_path: Path
) -> None:
    """Its U-Net takes the image's latents with the scale of its own, as `model_index.json` says."""
    folder = tmp_path / "cosxl"
    shutil.copytree(sdrt_folder("xl-pix2pix"), folder, ignore=shutil.ignore_patterns("sdrt.json"))
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"is_cosxl_edit": True}))
    theirs = diffusers.StableDiffusionXLInstructPix2PixPipeline.from_pretrained(
        checkpoint("xl-pix2pix"), is_cosxl_edit=True
    )
    theirs.set_progress_bar_config(disable=True)
    image = given_image(96, 64)
    compare(folder, theirs, prompt="make it a castle", image=image, height=64, width=96)
