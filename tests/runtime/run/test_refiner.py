"""A second model that takes over in the middle of a run; on the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sdrt import (
    Request,
    StableDiffusionPipeline,
    StableDiffusionPipelineOutput,
    read_metadata,
)
from sdrt.cli import main
from sdrt.request.two_model_settings import TwoModelSettings
from sdrt.schedulers import SAMPLERS
from tests.runtime.run.refining import FAST, opened

SCHEDULERS = [row.name for row in SAMPLERS.values() if not row.is_for_flow and not row.is_for_edm]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("switch", [0.3, 0.5])
def test_a_model_that_refines_itself_makes_the_same_image(
    pipeline: StableDiffusionPipeline, tiny_model: Path, scheduler: str, switch: float
) -> None:
    """One sampler makes the run, so its past estimates and its noise go on: bit for bit, with every scheduler."""
    call = {"scheduler": scheduler, **FAST}
    expected = pipeline("a cat", **call).images
    # By name it is the pipeline's own model; as a pipeline it has sessions of its own.
    for refiner in (str(tiny_model), opened(tiny_model)):
        made = pipeline("a cat", refiner=refiner, refiner_switch=switch, **call).images
        np.testing.assert_array_equal(made, expected)


def models_of_steps(first: StableDiffusionPipeline, second: StableDiffusionPipeline, **settings: Any) -> str:
    """For each step, a or b: the model whose output it is. The first one must have been freed before the second."""
    found = ""
    for event in first.stream(Request(prompt="a cat", refiner=second, **settings), scheduler="euler"):
        if isinstance(event, StableDiffusionPipelineOutput):
            break
        running = [
            letter
            for letter, one in (("a", first), ("b", second))
            if "unet" in [graph.name for graph in one.graphs]
        ]
        assert len(running) == 1
        found += running[0]
    return found


@pytest.mark.parametrize(
    ("settings", "models"),
    [
        ({"refiner_switch": 0.5}, "aaabbb"),
        ({"refiner_switch": 0.8}, "aaaabb"),
        ({"refiner_switch": 0.0}, "bbbbbb"),
        # The timesteps are 999, 799.2, 599.4, 399.6, 199.8 and 0: a share of the steps is another one.
        ({"refiner_switch": 0.67}, "aaaabb"),
        ({"refiner_switch": 0.67, "refiner_switch_by_steps": True}, "aaaaab"),
        ({"refiner_switch": 0.5, "denoising_end": 0.8}, "aaab"),
        ({"refiner_switch": 0.5, "hires_scale": 1.5, "hires_strength": 0.9}, "aaaaaaaabbb"),
        ({"refiner_switch": 0.5, "hires_scale": 1.5, "hires_refiner": "first"}, "aaabbbaaaa"),
        ({"refiner_switch": 0.5, "hires_scale": 1.5, "hires_refiner": "both"}, "aaabbbabbb"),
        # The noise of the second pass begins below the switch.
        ({"refiner_switch": 0.2, "hires_scale": 1.5, "hires_strength": 0.5}, "aaaaaabbb"),
    ],
    ids=str,
)
def test_which_model_makes_each_step_and_low_vram_keeps_one(
    tiny_model: Path, other_folder: Path, settings: dict[str, Any], models: str
) -> None:
    first, second = opened(tiny_model, low_vram=True), opened(other_folder, low_vram=True)
    request = {"num_inference_steps": 6, "seed": 3} | settings
    assert models_of_steps(first, second, **request) == models
    planned = first.plan(Request(prompt="a cat", refiner=second, **request), scheduler="euler")
    assert planned.num_evaluations == len(models)
    # Again: the refiner's sessions, which are still open, make room for the first model.
    assert models_of_steps(first, second, **request) == models


def test_steps_from_an_image_begin_with_the_refiner_if_the_noise_is_low_enough(
    tiny_model: Path, other_folder: Path, image: np.ndarray
) -> None:
    first, second = opened(tiny_model, low_vram=True), opened(other_folder, low_vram=True)
    call = {"num_inference_steps": 6, "seed": 3, "image": image}
    assert models_of_steps(first, second, strength=0.5, refiner_switch=0.7, **call) == "abb"
    assert models_of_steps(first, second, strength=0.5, refiner_switch=0.4, **call) == "bbb"


def test_low_vram_and_names_make_the_same_image(
    pipeline: StableDiffusionPipeline, other: StableDiffusionPipeline, tiny_model: Path, other_folder: Path
) -> None:
    call = {"refiner_switch": 0.5, "num_images_per_prompt": 2, **FAST}
    expected = pipeline(["a cat", "a dog"], refiner=other, **call).images
    named = opened(tiny_model)
    np.testing.assert_array_equal(
        named(["a cat", "a dog"], refiner=str(other_folder), **call).images, expected
    )
    thrifty = opened(tiny_model, low_vram=True)
    # Single rows sum floats in another order.
    made = thrifty(["a cat", "a dog"], refiner=other_folder, **call).images
    np.testing.assert_allclose(made, expected, atol=1e-5)
    alone = pipeline("a dog", refiner=other, **call | {"seed": 5}).images
    np.testing.assert_allclose(alone, expected[2:], atol=1e-5)


def test_the_prompt_goes_on_where_it_is(
    pipeline: StableDiffusionPipeline, other: StableDiffusionPipeline
) -> None:
    """[a:b:0.75] changes in the second half of the run, and a callback's embeddings last until then."""
    call = {"refiner": other, "refiner_switch": 0.5, "scheduler": "euler", **FAST}
    edited = pipeline("a [cat:dog:0.75]", **call).images
    latents = pipeline(
        "a cat", denoising_end=0.5, scheduler="euler", **FAST | {"output_type": "latent"}
    ).images
    rest = other("a [cat:dog:0.75]", image=latents, denoising_start=0.5, scheduler="euler", **FAST).images
    np.testing.assert_array_equal(edited, rest)

    def replace(_: Any, index: int, __: float, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == 4:
            tensors["prompt_embeds"] = tensors["prompt_embeds"] * 0.5
        return tensors

    changed = pipeline(
        "a cat",
        callback_on_step_end=replace,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
        **call,
    )
    assert not np.array_equal(changed.images, pipeline("a cat", **call).images)


def test_image_to_image_and_inpainting_with_itself(
    pipeline: StableDiffusionPipeline, tiny_model: Path, image: np.ndarray, mask: np.ndarray
) -> None:
    itself = opened(tiny_model)
    for extra in ({"strength": 0.9}, {"mask_image": mask}, {"mask_image": mask, "composite": False}):
        call = {"image": image, "scheduler": "dpmpp_2m", **FAST, **extra}
        expected = pipeline("a cat", **call).images
        made = pipeline("a cat", refiner=itself, refiner_switch=0.6, **call).images
        np.testing.assert_array_equal(made, expected)


def test_inpainting_and_outpainting_keep_what_is_known(
    pipeline: StableDiffusionPipeline, other: StableDiffusionPipeline, image: np.ndarray, mask: np.ndarray
) -> None:
    call = {"refiner": other, "refiner_switch": 0.5, **FAST}
    made = pipeline("a cat", image=image, mask_image=mask, mask_blur=0, **call).images[0]
    outside = mask == 0
    np.testing.assert_array_equal(made[outside], image[outside].astype(np.float32) / np.float32(255))
    alone = pipeline("a cat", image=image, mask_image=mask, mask_blur=0, **FAST).images[0]
    assert np.abs(made - alone)[~outside].max() > 1e-3
    grown = pipeline("a cat", image=image, outpaint="left=16", mask_blur=0, **call).images[0]
    np.testing.assert_array_equal(grown[:, 16:], image.astype(np.float32) / np.float32(255))


def test_metadata_and_back(
    tiny_model: Path, other_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runner, first, again = CliRunner(), tmp_path / "a.png", tmp_path / "b.png"
    settings = ["--refiner-switch", "0.5", "--hires", "1.5", "--hires-refiner", "both", "--steps", "4"]
    common = ["-m", str(tiny_model), "--provider", "cpu", "-q"]
    refiner = ["--refiner", str(other_folder)]
    made = runner.invoke(
        main, ["generate", "a cat", *common, *refiner, *settings, "-s", "1", "-o", str(first)]
    )
    assert made.exit_code == 0, made.output
    said = read_metadata(first).settings
    assert said["Refiner"] == "other"
    assert (said["Refiner switch at"], said["Hires refiner"]) == ("0.5", "both passes")
    assert "Refiner switch by sampling steps" not in said
    # A name in a file is never opened.
    refused = runner.invoke(main, ["generate", "--from", str(first), *common, "-o", str(again)])
    assert refused.exit_code == 2
    assert "was made with the refiner 'other'; give it with --refiner" in refused.stderr
    done = runner.invoke(main, ["generate", "--from", str(first), *common, *refiner, "-o", str(again)])
    assert done.exit_code == 0, done.output
    assert first.read_bytes() == again.read_bytes()
    close = runner.invoke(
        main,
        ["generate", "--from", str(first), "--approximate", *common[:-1], "-f", "-o", str(again)],
    )
    assert close.exit_code == 0, close.output
    assert "these differ: 'Refiner' ('other')" in close.stderr
    assert "Refiner" not in read_metadata(again).settings


def test_the_rows_are_in_the_table_of_settings() -> None:
    assert {"refiner", "refiner_switch", "denoising_end"} <= TwoModelSettings.__dataclass_fields__.keys()


def test_a_prompt_that_changes_before_the_second_part(pipeline: StableDiffusionPipeline) -> None:
    """The second part begins with the text of its own first step."""
    call = {"scheduler": "euler", **FAST}
    half = pipeline("a [cat:dog:0.4]", denoising_end=0.5, **call | {"output_type": "latent"}).images
    rest = pipeline("a [cat:dog:0.4]", image=half, denoising_start=0.5, **call).images
    np.testing.assert_array_equal(rest, pipeline("a [cat:dog:0.4]", **call).images)
