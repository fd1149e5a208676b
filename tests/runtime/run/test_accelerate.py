"""Calls of the U-Net that `accelerate` leaves out, on the tiny model: which, in which tasks, and what a caller sees."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sdrt import Request, StableDiffusionPipeline, StableDiffusionPipelineOutput, read_metadata
from sdrt.cli import main
from tests.runtime.run.rows import counted_rows

Array = np.ndarray[Any, np.dtype[np.float32]]
CALL: dict[str, Any] = {"num_inference_steps": 20, "seed": 3, "output_type": "np"}
GIVEN: dict[str, Any] = {"accelerate": "balanced", **CALL}


def drawn(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).convert(mode)


@pytest.mark.parametrize(
    "scheduler", ["euler", "euler_a", "dpmpp_2m", "dpmpp_2m_sde", "heun", "pndm", "ddim_cfgpp"]
)
@pytest.mark.parametrize("speed", ["balanced", "fast"])
def test_fewer_calls_and_nearly_the_same_image(
    pipeline: StableDiffusionPipeline, scheduler: str, speed: str
) -> None:
    expected = pipeline("a cat", scheduler=scheduler, **CALL)
    with counted_rows() as rows:
        found = pipeline("a cat", scheduler=scheduler, **GIVEN | {"accelerate": speed})
    whole = len(expected.timings["unet"])
    assert len(found.timings["unet"]) == len(rows) == whole - found.skipped_calls
    assert found.skipped_calls >= (0.4 if speed == "balanced" else 0.6) * whole
    assert expected.skipped_calls == 0
    difference = np.abs(found.images - expected.images).max()
    other = np.abs(
        pipeline("a cat", scheduler=scheduler, **CALL | {"seed": 4}).images - expected.images
    ).max()
    assert 0 < difference < 0.5 * other


def test_off_is_the_usual_image(pipeline: StableDiffusionPipeline) -> None:
    found = pipeline("a cat", accelerate="off", **CALL).images
    np.testing.assert_array_equal(found, pipeline("a cat", **CALL).images)


@pytest.mark.parametrize("scheduler", ["dpmpp_2m", "euler_a"])
@pytest.mark.parametrize("speed", ["balanced", "fast"])
def test_an_image_of_a_batch_is_the_same_alone(
    pipeline: StableDiffusionPipeline, scheduler: str, speed: str
) -> None:
    """Which calls are left out does not depend on what is in an image."""
    given = {"scheduler": scheduler, **GIVEN, "accelerate": speed}
    many = pipeline(["a cat", "fog"], **given, num_images_per_prompt=2)
    alone = pipeline("fog", **given | {"seed": many.seeds[3]})
    assert many.skipped_calls == alone.skipped_calls
    np.testing.assert_allclose(many.images[3], alone.images[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("steps", [4, 8])
def test_short_runs_are_as_without_and_it_says_so(tiny_model: Path, steps: int) -> None:
    notices: list[str] = []
    call = CALL | {"num_inference_steps": steps}
    with StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", notify=notices.append) as made:
        found = made("a cat", accelerate="fast", **call)
        np.testing.assert_array_equal(found.images, made("a cat", **call).images)
    assert found.skipped_calls == 0
    assert [one for one in notices if "accelerate" in one] == [
        f"accelerate skips no calls: {steps} steps run, and it needs 15"
    ]


def test_a_scheduler_for_few_steps_says_why(tiny_model: Path) -> None:
    notices: list[str] = []
    with StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", notify=notices.append) as made:
        assert made("a cat", scheduler="lcm", **GIVEN).skipped_calls == 0
    assert "accelerate skips no calls: scheduler 'lcm' is for few steps" in notices


@pytest.mark.parametrize("options", [{}, {"mask_image": drawn("L")}], ids=["image", "mask"])
@pytest.mark.parametrize(("strength", "skips"), [(0.8, True), (0.5, False)])
def test_image_to_image_counts_the_steps_that_run(
    pipeline: StableDiffusionPipeline, options: dict[str, Any], strength: float, skips: bool
) -> None:
    with counted_rows() as rows:
        found = pipeline("a cat", image=drawn(), strength=strength, scheduler="euler", **options, **GIVEN)
    assert len(rows) + found.skipped_calls == 20 * strength
    assert (found.skipped_calls > 0) is skips
    whole = pipeline("a cat", image=drawn(), strength=strength, scheduler="euler", **options, **CALL)
    assert np.abs(found.images - whole.images).max() < 0.1


def test_every_step_is_reported(pipeline: StableDiffusionPipeline) -> None:
    request = Request(prompt="a cat", **GIVEN)
    *steps, result = pipeline.stream(request, scheduler="euler")
    assert isinstance(result, StableDiffusionPipelineOutput)
    assert len(steps) == pipeline.num_evaluations(request, scheduler="euler") == 20
    assert [step.index for step in steps] == list(range(20))  # type: ignore[union-attr]
    assert all(np.isfinite(step.denoised).all() for step in steps)  # type: ignore[union-attr]
    assert result.skipped_calls >= 8


def skipped_after(pipeline: StableDiffusionPipeline, prompt: str = "a cat", **options: Any) -> list[int]:
    """The evaluations that made no call."""
    given = {"scheduler": "euler", **GIVEN, **options}
    change = given.pop("change", None)
    stream = pipeline.stream(
        Request(prompt=prompt, **{k: v for k, v in given.items() if k != "scheduler"}),
        scheduler=given["scheduler"],
    )
    skipped, calls = [], 0
    with counted_rows() as rows:
        for step in stream:
            if isinstance(step, StableDiffusionPipelineOutput):
                break
            if len(rows) == calls:
                skipped.append(step.index)
            calls = len(rows)
            if change is not None:
                change(step)
    return skipped


def test_a_change_is_followed_by_calls(pipeline: StableDiffusionPipeline) -> None:
    usual = skipped_after(pipeline)
    assert usual == [5, 7, 9, 10, 12, 13, 15, 16, 18]

    def change(step: Any) -> None:
        if step.index == 7:
            step.update({"latents": step.latents * np.float32(0.9)})

    def look(step: Any) -> None:
        step.update({"latents": step.latents})

    assert skipped_after(pipeline, change=look) == usual
    # After a callback's change, a new text and the edge of guidance, five calls are made.
    after = set(range(8, 13))
    assert not after & set(skipped_after(pipeline, change=change))
    assert not after & set(skipped_after(pipeline, "a [cat:dog:0.4]"))
    assert not after & set(skipped_after(pipeline, guidance_interval=(0.4, 1)))
    assert skipped_after(pipeline, "a [cat|dog]") == []


def test_a_refiner_begins_with_calls(pipeline: StableDiffusionPipeline, tiny_model: Path) -> None:
    found = skipped_after(pipeline, refiner=str(tiny_model), refiner_switch=0.4, refiner_switch_by_steps=True)
    assert found[:2] == [5, 7]
    assert not {8, 9, 10, 11, 12} & set(found)


def test_both_passes_are_counted(pipeline: StableDiffusionPipeline) -> None:
    with counted_rows() as rows:
        found = pipeline("a cat", hires_scale=1.5, hires_strength=0.8, scheduler="euler", **GIVEN)
    assert len(rows) + found.skipped_calls == 20 + 16
    alone = pipeline("a cat", scheduler="euler", **GIVEN)
    assert found.skipped_calls > alone.skipped_calls


def test_low_vram_and_windows(tiny_model: Path, pipeline: StableDiffusionPipeline) -> None:
    given = {"scheduler": "euler", "tile_size": 64, "width": 96, **GIVEN}
    found = pipeline("a cat", **given)
    with StableDiffusionPipeline.from_pretrained(
        tiny_model, provider="cpu", low_vram=True, notify=lambda _: None
    ) as thrifty:
        slow = thrifty("a cat", **given)
    assert found.skipped_calls == slow.skipped_calls > 0
    np.testing.assert_allclose(found.images, slow.images, rtol=0, atol=1e-4)


def test_sdxl(tiny_model: Path) -> None:
    with StableDiffusionPipeline.from_pretrained(
        tiny_model.parent / "tiny-xl", provider="cpu", threads=1, notify=lambda _: None
    ) as xl:
        found, whole = xl("a cat", **GIVEN), xl("a cat", **CALL)
    assert found.skipped_calls > 0
    assert 0 < np.abs(found.images - whole.images).max() < 0.1


def test_the_command_and_its_metadata(tiny_model: Path, tmp_path: Path) -> None:
    usual = ["generate", "-m", str(tiny_model), "--provider", "cpu", "--json"]
    options = ["a cat", "--steps", "20", "--seed", "3", "--accelerate", "fast", "--scheduler", "dpmpp_2m"]
    reports = []
    for number, arguments in enumerate([options, ["--from", str(tmp_path / "0.png")]]):
        name = tmp_path / f"{number}.png"
        result = CliRunner().invoke(main, [*usual, *arguments, "-o", str(name)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        reports.append(json.loads(result.stdout))
        assert read_metadata(name).settings["Acceleration"] == "fast"
    assert reports[0]["settings"]["accelerate"] == reports[1]["settings"]["accelerate"] == "fast"
    calls = [(len(report["timings"]["unet"]), report["skipped_calls"]) for report in reports]
    assert calls[0] == calls[1]
    assert sum(calls[0]) == 20
    made = [np.asarray(Image.open(tmp_path / f"{number}.png")) for number in (0, 1)]
    np.testing.assert_array_equal(*made)


def test_without_it_metadata_do_not_name_it(pipeline: StableDiffusionPipeline) -> None:
    assert "Acceleration" not in pipeline("a cat", **CALL | {"num_inference_steps": 1}).metadata(0).settings
