"""Runs that end early or begin late, and two calls in place of one; on the tiny model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sdrt import (
    RequestError,
    StableDiffusionPipeline,
    read_metadata,
)
from sdrt.cli import main
from tests.runtime.run.refining import FAST, opened


@pytest.mark.parametrize(
    ("scheduler", "equal"),
    [
        ("euler", True),
        ("heun", False),
        ("ddim", True),
        ("dpmpp_2m", False),
        ("pndm", False),
        ("euler_a", False),
    ],
)
def test_two_calls_are_the_same_where_a_run_has_no_memory(
    pipeline: StableDiffusionPipeline,
    other: StableDiffusionPipeline,
    scheduler: str,
    equal: bool,
) -> None:
    """diffusers' two pipelines begin anew in the middle: without past estimates, in another stream of noise, and with
    two evaluations a step one of them twice.
    """
    call = {"scheduler": scheduler, **FAST}
    made = pipeline("a cat", refiner=other, refiner_switch=0.5, **call).images
    half = pipeline("a cat", denoising_end=0.5, **call | {"output_type": "latent"})
    rest = other("a cat", image=half.images, denoising_start=0.5, **call)
    assert len(half.timings["unet"]) + len(rest.timings["unet"]) >= FAST["num_inference_steps"]
    # DDIM's latents are scaled between the calls, which rounds them.
    assert (float(np.abs(made - rest.images).max()) <= 1e-5) is equal
    alone = pipeline("a cat", **call).images
    assert np.abs(made - alone).max() > 1e-3


def test_two_calls_with_euler_are_the_same_bit_for_bit(
    pipeline: StableDiffusionPipeline, other: StableDiffusionPipeline
) -> None:
    call = {"scheduler": "euler", **FAST}
    half = pipeline("a cat", denoising_end=0.5, **call | {"output_type": "latent"}).images
    rest = other("a cat", image=half, denoising_start=0.5, **call).images
    np.testing.assert_array_equal(pipeline("a cat", refiner=other, refiner_switch=0.5, **call).images, rest)


def test_parts_of_runs_and_metadata(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    half = pipeline("a cat", denoising_end=0.5, **FAST | {"output_type": "pil"})
    half.save(tmp_path / "half.png")
    said = read_metadata(tmp_path / "half.png").settings
    assert said["Denoising end"] == "0.5"
    runner, again = CliRunner(), tmp_path / "again.png"
    common = ["-m", str(pipeline.model.path), "--provider", "cpu", "--threads", "1", "-q"]
    done = runner.invoke(main, ["generate", "--from", str(tmp_path / "half.png"), *common, "-o", str(again)])
    assert done.exit_code == 0, done.output
    assert again.read_bytes() == (tmp_path / "half.png").read_bytes()
    rest = pipeline("a cat", image=half.images[0], denoising_start=0.5, **FAST)
    assert rest.metadata(0).settings["Denoising start"] == "0.5"
    # The strength has no effect, so the metadata leave it out.
    assert "Denoising strength" not in rest.metadata(0).settings


def test_a_strength_beside_denoising_start_has_no_effect_and_is_told(
    tiny_model: Path, image: np.ndarray
) -> None:
    told: list[str] = []
    loud = opened(tiny_model, notify=told.append, verify=False)
    call = {"image": image, "denoising_start": 0.5, **FAST}
    plain = loud("a cat", **call).images
    assert told == []
    np.testing.assert_array_equal(loud("a cat", strength=0.1, **call).images, plain)
    assert told == ["strength has no effect with denoising_start, which decides where the run begins"]


def test_latents_of_several_images_of_one_prompt(pipeline: StableDiffusionPipeline) -> None:
    call = {"scheduler": "euler", "num_images_per_prompt": 2, **FAST}
    half = pipeline("a cat", denoising_end=0.5, **call | {"output_type": "latent"}).images
    rest = pipeline("a cat", image=half, denoising_start=0.5, **call).images
    np.testing.assert_array_equal(rest, pipeline("a cat", **call).images)


def test_a_whole_run_ends_at_one(pipeline: StableDiffusionPipeline) -> None:
    np.testing.assert_array_equal(
        pipeline("a cat", denoising_end=1, **FAST).images, pipeline("a cat", **FAST).images
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"denoising_start": 0.0}, "denoising_start is 0: expected a number between 0 and 1"),
        ({"denoising_start": 1}, "denoising_start is 1"),
        ({"denoising_start": 0.5, "denoising_end": 0.5}, "denoising_start is 0.5: expected a smaller share"),
        ({"denoising_start": 0.9999}, "denoising_start is 0.9999, so none of the 6 steps would run"),
        ({"refiner_switch": 1}, "refiner_switch is 1, so the refiner would run none of the steps"),
        (
            {"denoising_end": 0.5},
            "denoising_end is 0.5, so the refiner would run none of the steps: expected a larger share, or a "
            "refiner_switch smaller than 0.8",
        ),
        (
            {"refiner_switch": 0.9, "denoising_end": 0.5},
            "denoising_end is 0.5, so the refiner would run none of the steps: expected a larger share, or a "
            "refiner_switch smaller than 0.9",
        ),
    ],
    ids=str,
)
def test_shares_that_leave_nothing_to_do(
    pipeline: StableDiffusionPipeline,
    tiny_model: Path,
    image: np.ndarray,
    settings: dict[str, Any],
    message: str,
) -> None:
    extra = {"refiner": str(tiny_model)} if "refiner_switch" in message else {"image": image}
    with pytest.raises(RequestError, match=message):
        pipeline("a cat", scheduler="euler", **FAST | settings | extra)
