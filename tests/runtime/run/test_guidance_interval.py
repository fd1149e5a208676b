"""Guidance in a part of the run: which rows the U-Net computes, and what comes of them; on the tiny model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from sdrt import Request, RequestError, StableDiffusionPipeline, read_metadata
from sdrt.cli import main
from sdrt.common import rng
from sdrt.request.guidance_interval import GuidanceInterval
from tests.runtime.run.rows import counted_rows

Array = np.ndarray[Any, np.dtype[np.float32]]
CALL: dict[str, Any] = {"num_inference_steps": 10, "seed": 3, "output_type": "latent", "guidance_scale": 6.0}
GIVEN: dict[str, Any] = {"guidance_interval": (0.2, 0.7), **CALL}


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("euler", [1] * 2 + [2] * 5 + [1] * 3),
        ("dpmpp_2m", [1] * 2 + [2] * 5 + [1] * 3),
        # Both evaluations of a step have the same rows. The last step has one.
        ("heun", [1] * 4 + [2] * 10 + [1] * 5),
    ],
)
def test_rows_are_computed_only_inside(
    pipeline: StableDiffusionPipeline, scheduler: str, expected: list[int]
) -> None:
    with counted_rows() as rows:
        pipeline("a cat", negative_prompt="fog", scheduler=scheduler, **GIVEN)
    assert rows == expected


@pytest.mark.parametrize("scheduler", ["euler", "euler_a", "heun", "dpmpp_2m", "unipc", "pndm", "ddim_cfgpp"])
@pytest.mark.parametrize("interval", [(0.2, 0.7), (0, 0.4), (0.5, 1)])
def test_it_is_the_prompt_alone_outside(
    pipeline: StableDiffusionPipeline, scheduler: str, interval: tuple[float, float]
) -> None:
    """The same sampler over a denoiser in NumPy, which guides only within the interval."""
    found = pipeline(
        "a cat", negative_prompt="fog", scheduler=scheduler, **GIVEN | {"guidance_interval": interval}
    )
    expected = recomputed(pipeline, scheduler, interval)
    np.testing.assert_allclose(found.images, expected, rtol=0, atol=2e-4)
    without = pipeline("a cat", negative_prompt="fog", scheduler=scheduler, **CALL)
    assert np.abs(found.images - without.images).max() > 0.01


def recomputed(pipeline: StableDiffusionPipeline, scheduler: str, interval: tuple[float, float]) -> Array:
    planned = pipeline.plan(Request(prompt="a cat", negative_prompt="fog", **CALL), scheduler=scheduler)
    plan, sampler = planned.passes[0].plan, planned.scheduler.sampler
    unet, embeds = pipeline._cache.get().denoiser(), embeddings(pipeline)
    first, past = int(interval[0] * plan.num_steps), int(interval[1] * plan.num_steps)
    state: dict[str, Any] = {"evaluation": 0}

    def estimate(x: Array, sigma: float, text: Array) -> Array:
        c_skip, c_out, c_in = plan.noise_schedule.scalings(sigma)
        timestep = np.array([plan.timestep(sigma)])
        kind = unet.inputs["timestep"]
        feeds = {
            "sample": x * np.float32(c_in),
            "timestep": timestep.reshape(len(kind.shape) * (1,)).astype(kind.dtype),
            "encoder_hidden_states": text[np.newaxis],
        }
        return np.float32(c_skip) * x + np.float32(c_out) * unet.run(feeds, "out_sample")

    def denoise(x: Array, sigma: float) -> Array:
        step = plan.step_of(state["evaluation"])
        state["evaluation"] += 1
        with_prompt = estimate(x, sigma, embeds[1])
        state["unconditional"] = with_prompt
        if not first <= step < past:
            return with_prompt
        state["unconditional"] = without = estimate(x, sigma, embeds[0])
        return without + np.float32(CALL["guidance_scale"] * sampler.guidance_share) * (with_prompt - without)

    generator = rng.Generator(CALL["seed"])
    x = generator.randn((4, 8, 8))[np.newaxis] * np.float32(plan.init_scale)
    steps = list(
        planned.scheduler.sample(
            denoise,
            x,
            plan,
            noise=lambda: generator.randn((4, 8, 8))[np.newaxis],
            unconditional=lambda: state["unconditional"],
        )
    )
    return steps[-1].x * np.float32(plan.latents_scale(steps[-1].sigma))


def embeddings(pipeline: StableDiffusionPipeline) -> Array:
    seen: list[Array] = []

    def keep(_pipeline: Any, _index: int, _timestep: float, tensors: dict[str, Array]) -> None:
        seen.append(tensors["prompt_embeds"])

    pipeline(
        "a cat",
        negative_prompt="fog",
        callback_on_step_end=keep,
        callback_on_step_end_tensor_inputs=["prompt_embeds"],
        **CALL | {"num_inference_steps": 1},
    )
    return seen[0]


def test_a_share_counts_as_it_is_written() -> None:
    """0.29 · 100 is 28.999999999999996 in floating point."""
    assert GuidanceInterval(0.29, 1).guides(29, 100)
    assert not GuidanceInterval(0.29, 1).guides(28, 100)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Of 10 steps, 5 run. The shares are theirs.
        ({"strength": 0.5}, [1] + [2] * 2 + [1] * 2),
        ({"strength": 0.5, "mask_image": Image.new("L", (64, 64), 255)}, [1] + [2] * 2 + [1] * 2),
        ({"strength": 0.5, "num_images_per_prompt": 3}, [3] + [6] * 2 + [3] * 2),
    ],
)
def test_image_to_image(
    pipeline: StableDiffusionPipeline, options: dict[str, Any], expected: list[int]
) -> None:
    with counted_rows() as rows:
        pipeline("a cat", image=Image.new("RGB", (64, 64), "red"), scheduler="euler", **options, **GIVEN)
    assert rows == expected


@pytest.mark.parametrize("steps", [1, 4])
def test_without_a_guided_step_it_is_a_run_without_guidance(
    pipeline: StableDiffusionPipeline, steps: int
) -> None:
    call = CALL | {"num_inference_steps": steps, "num_images_per_prompt": 2}
    found = pipeline("a cat", guidance_interval=(0, 0.2), **call).images
    np.testing.assert_array_equal(found, pipeline("a cat", **call | {"guidance_scale": 1.0}).images)


def test_all_steps_are_as_without(pipeline: StableDiffusionPipeline) -> None:
    found = pipeline("a cat", guidance_interval=(0, 1), **CALL).images
    np.testing.assert_array_equal(found, pipeline("a cat", **CALL).images)


def test_and_keeps_its_unconditional_rows(pipeline: StableDiffusionPipeline) -> None:
    with counted_rows() as rows:
        found = pipeline("a cat AND fog :0.5", scheduler="euler", **GIVEN | {"guidance_interval": (0, 0.05)})
    assert rows == [3] * 10
    expected = pipeline("a cat AND fog :0.5", scheduler="euler", **CALL | {"guidance_scale": 1.0})
    np.testing.assert_array_equal(found.images, expected.images)


def test_low_vram_computes_fewer_rows_too(tiny_model: Path, pipeline: StableDiffusionPipeline) -> None:
    with (
        StableDiffusionPipeline.from_pretrained(
            tiny_model, provider="cpu", threads=1, low_vram=True, notify=lambda _: None
        ) as thrifty,
        counted_rows() as rows,
    ):
        found = thrifty("a cat", scheduler="euler", **GIVEN).images
    assert rows == [1] * (2 + 2 * 5 + 3)
    np.testing.assert_allclose(found, pipeline("a cat", scheduler="euler", **GIVEN).images, rtol=0, atol=1e-5)


def test_windows_and_editing(pipeline: StableDiffusionPipeline) -> None:
    """The prompt changes at a step where the rows change too, and at one where they do not."""
    options: dict[str, Any] = {"scheduler": "euler", "tile_size": 64, "width": 96}
    with counted_rows() as rows:
        found = pipeline("a [cat:dog:0.2] in [fog:sun:0.5]", **options, **GIVEN).images
    assert len(rows) % 10 == 0
    windows = len(rows) // 10
    assert windows > 1
    assert rows == [1] * 2 * windows + [2] * 5 * windows + [1] * 3 * windows
    other = pipeline("a cat in fog", **options, **GIVEN).images
    assert np.abs(found - other).max() > 1e-3


def test_a_callback_sees_every_row_and_its_changes_stay(pipeline: StableDiffusionPipeline) -> None:
    shapes: list[tuple[int, ...]] = []

    def change(_pipeline: Any, index: int, _timestep: float, tensors: dict[str, Array]) -> dict[str, Array]:
        shapes.append(tensors["prompt_embeds"].shape)
        # In a step without guidance. The next one has it.
        return {"prompt_embeds": tensors["prompt_embeds"] * np.float32(0.5)} if index == 1 else {}

    given = {"scheduler": "euler", "callback_on_step_end_tensor_inputs": ["prompt_embeds"], **GIVEN}
    changed = pipeline("a cat", callback_on_step_end=change, **given).images
    assert set(shapes) == {(2, 77, shapes[0][2])}
    whole = pipeline("a cat", **GIVEN | {"scheduler": "euler"}).images
    assert np.abs(changed - whole).max() > 1e-3

    def change_before(*args: Any) -> dict[str, Array]:
        return change(args[0], args[1] + 1, args[2], args[3])

    # A change one step earlier, which is of no effect until then only if it were lost.
    assert (
        np.abs(pipeline("a cat", callback_on_step_end=change_before, **given).images - changed).max() > 1e-4
    )


def test_a_refiner_goes_on_with_the_shares(pipeline: StableDiffusionPipeline, tiny_model: Path) -> None:
    """The refiner takes over after seven of ten steps. It is the same model, so it makes the same image."""
    given = {"scheduler": "dpmpp_2m", **GIVEN}
    with counted_rows() as rows:
        found = pipeline("a cat", refiner=str(tiny_model), refiner_switch=0.7, **given)
    assert rows == [1] * 2 + [2] * 5 + [1] * 3
    np.testing.assert_array_equal(found.images, pipeline("a cat", **given).images)


def test_parts_of_a_run_have_the_shares_of_the_whole(pipeline: StableDiffusionPipeline) -> None:
    given = {"scheduler": "euler", **GIVEN}
    with counted_rows() as rows:
        half = pipeline("a cat", denoising_end=0.5, **given).images
        found = pipeline("a cat", image=half, denoising_start=0.5, **given).images
    assert rows == [1] * 2 + [2] * 5 + [1] * 3
    np.testing.assert_array_equal(found, pipeline("a cat", **given).images)


def test_a_sampler_that_chooses_its_steps(pipeline: StableDiffusionPipeline) -> None:
    with counted_rows() as rows:
        pipeline("a cat", scheduler="dpm_adaptive", **GIVEN)
    assert {rows[0], rows[-1]} == {1}
    assert set(rows) == {1, 2}


@pytest.mark.parametrize("given", [(0.7, 0.2), (0.5, 0.5), (0.5,), (0.1, 0.5, 0.9), (-0.1, 0.5), (0.5, 1.1)])
def test_wrong_intervals(given: tuple[float, ...]) -> None:
    with pytest.raises(RequestError, match="guidance_interval") as raised:
        Request(prompt="a cat", guidance_interval=given)
    assert raised.value.argument == "guidance_interval"


def test_it_says_when_there_is_no_guidance_to_limit(tiny_model: Path) -> None:
    notices: list[str] = []
    with StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", notify=notices.append) as made:
        made("a cat", **GIVEN | {"guidance_scale": 1.0})
    assert [one for one in notices if "guidance_interval" in one] == [
        "guidance_interval has no effect: guidance_scale is 1; give a scale above 1"
    ]


Cli = Callable[..., Any]


def test_the_command_and_its_metadata(
    tiny_model: Path, tmp_path: Path, pipeline: StableDiffusionPipeline
) -> None:
    first, again = tmp_path / "a.png", tmp_path / "b.png"
    usual = ["generate", "-m", str(tiny_model), "--provider", "cpu", "--quiet"]
    options = [
        "a cat",
        "--steps",
        "10",
        "--seed",
        "3",
        "--guidance-scale",
        "6",
        "--guidance-interval",
        "0.2,0.7",
    ]
    for arguments in ([*options, "-o", str(first)], ["--from", str(first), "-o", str(again)]):
        result = CliRunner().invoke(main, [*usual, *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert read_metadata(first).settings["CFG interval"] == "0.2,0.7"
    made = [np.asarray(Image.open(one)) for one in (first, again)]
    np.testing.assert_array_equal(*made)
    expected = pipeline("a cat", **GIVEN | {"output_type": "pil"}).images[0]
    np.testing.assert_array_equal(made[0], np.asarray(expected))


def test_sdxl(tiny_model: Path) -> None:
    """Its sizes and pooled embeddings have a row for each row of the batch too."""
    call = {"num_inference_steps": 4, "seed": 3, "output_type": "np", "scheduler": "euler"}
    with (
        StableDiffusionPipeline.from_pretrained(
            tiny_model.parent / "tiny-xl", provider="cpu", threads=1, notify=lambda _: None
        ) as xl,
        counted_rows() as rows,
    ):
        half = xl("a cat", guidance_interval=(0.25, 0.75), **call).images
        assert rows == [1, 2, 2, 1]
        alone = xl("a cat", guidance_scale=1.0, **call).images
        np.testing.assert_array_equal(xl("a cat", guidance_interval=(0, 0.1), **call).images, alone)
    assert np.abs(half - alone).max() > 0.01


def test_a_refiner_has_the_same_interval(pipeline: StableDiffusionPipeline, tiny_model: Path) -> None:
    """Another model, opened in the middle of the interval, and one opened after its end."""
    for switch, expected in ((0.5, [1] * 2 + [2] * 5 + [1] * 3), (0.8, [1] * 2 + [2] * 5 + [1] * 3)):
        with (
            StableDiffusionPipeline.from_pretrained(
                tiny_model, provider="cpu", notify=lambda _: None
            ) as other,
            counted_rows() as rows,
        ):
            pipeline("a cat", refiner=other, refiner_switch=switch, scheduler="euler", **GIVEN)
        assert rows == expected
