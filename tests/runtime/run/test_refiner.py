"""A second model that takes over in the middle of a run, and runs that end early or begin late; on the tiny model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sdrt import (
    OutOfMemoryError,
    Request,
    RequestError,
    RunCancelledError,
    StableDiffusionPipeline,
    StableDiffusionPipelineOutput,
    read_metadata,
)
from sdrt.cli import main
from sdrt.model_folder.graph_kind import MoreInputs
from sdrt.request.two_model_settings import TwoModelSettings
from sdrt.run.components import LoadedComponents
from sdrt.schedulers import SAMPLERS

FAST: dict[str, Any] = {"num_inference_steps": 6, "seed": 3, "output_type": "np"}
SCHEDULERS = [row.name for row in SAMPLERS.values() if not row.is_for_flow and not row.is_for_edm]


def opened(folder: Path, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", threads=1, notify=options.pop("notify", lambda _: None), **options
    )


@pytest.fixture(scope="module")
def other_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, said to predict v: another model with the same latents."""
    folder = tmp_path_factory.mktemp("models") / "other"
    shutil.copytree(tiny_model, folder)
    (folder / "sdrt.json").unlink()
    config = folder / "scheduler" / "scheduler_config.json"
    values = json.loads(config.read_text()) | {"prediction_type": "v_prediction"}
    config.write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def other(other_folder: Path) -> Iterator[StableDiffusionPipeline]:
    with opened(other_folder) as made:
        yield made


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    drawn = np.zeros((64, 64), np.uint8)
    drawn[16:48, 8:40] = 255
    return drawn


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
        ({"denoising_end": 0}, "denoising_end is 0, so no step would run"),
        ({"denoising_end": 1.2}, "denoising_end is 1.2: expected a number from 0 to 1"),
        ({"denoising_end": 0.05, "num_inference_steps": 2}, "denoising_end is 0.05, so none of the steps"),
        ({"denoising_end": 0.5, "scheduler": "restart"}, "scheduler 'restart' has noise levels of its own"),
        ({"denoising_end": 0.5, "hires_scale": 2}, "at most one of denoising_end and hires_scale"),
        ({"denoising_start": 0.5}, "denoising_start has no effect without image"),
        ({"refiner_switch": 0.5}, "refiner_switch has no effect without refiner"),
        ({"refiner": 3}, "refiner is 3: expected a model's folder"),
        ({"refiner": ""}, "refiner is ''"),
        (
            {"refiner": "shapes"},
            "refiner shapes has latents of another kind than tiny-random-0: the scaling factor",
        ),
        ({"refiner": ".", "hires_refiner": "both"}, "hires_refiner has no effect without hires_scale"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(
    pipeline: StableDiffusionPipeline, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        pipeline("a cat", **FAST | settings)
    assert "\n" not in str(caught.value)
    assert caught.value.fits


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


def test_a_pipeline_of_another_library_is_no_refiner(pipeline: StableDiffusionPipeline) -> None:
    class Foreign:
        model = "x"

        def plan(self, request: Any) -> None: ...

    with pytest.raises(
        RequestError, match=r"refiner is .*: expected a model's name, or a StableDiffusionPipeline"
    ):
        pipeline("a cat", refiner=Foreign(), **FAST)


def test_cancelling_stops_the_refiner_too(
    pipeline: StableDiffusionPipeline, other: StableDiffusionPipeline
) -> None:
    seen: list[int] = []

    def count(_: Any, index: int, *__: Any) -> None:
        seen.append(index)

    with pytest.raises(RunCancelledError) as caught:
        pipeline(
            "a cat",
            refiner=other,
            refiner_switch=0.5,
            callback_on_step_end=count,
            cancel=lambda: len(seen) == 5,
            **FAST,
        )
    assert (caught.value.steps, caught.value.num_steps) == (5, 7)


def test_out_of_memory_at_the_switch_frees_the_first_model(
    tiny_model: Path, other_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    first, second = opened(tiny_model, notify=told.append), opened(other_folder, notify=told.append)
    call = {"refiner": second, "refiner_switch": 0.5, **FAST}
    expected = first("a cat", **call).images
    second.close()
    load, failed = LoadedComponents._make_denoiser, list[str]()

    def fail_beside_the_first(self: LoadedComponents, more: MoreInputs) -> Any:
        if self._model is second.model and "unet" in [graph.name for graph in first.graphs]:
            failed.append(self._model.name)
            raise OutOfMemoryError("unet: out of memory", component="unet", provider="cpu")
        return load(self, more)

    monkeypatch.setattr(LoadedComponents, "_make_denoiser", fail_beside_the_first)
    made = first("a cat", **call).images
    assert failed == ["other"]
    assert "Trying again with low_vram" in told[-1]
    np.testing.assert_allclose(made, expected, atol=1e-5)


def test_a_word_that_the_refiner_does_not_know_is_told(tiny_model: Path, other_folder: Path) -> None:
    told: list[str] = []
    first = opened(tiny_model, notify=told.append)
    from sdrt.text.textual_inversion import Inversion

    width = json.loads((tiny_model / "text_encoder" / "config.json").read_text())["hidden_size"]
    first._cache.add_words([Inversion(token="blob", vectors=np.zeros((1, width), np.float32), file="blob")])
    first("a blob", refiner=str(other_folder), **FAST)
    assert [one for one in told if "blob" in one] == [
        "refiner other reads 'blob' as text: load the textual inversion into a pipeline of that model too, and give "
        "the pipeline as refiner"
    ]
    told.clear()
    first("a cat", refiner=str(other_folder), **FAST)
    assert told == []


def test_only_the_last_named_refiner_stays_in_memory(
    tiny_model: Path, other_folder: Path, tmp_path: Path
) -> None:
    third = tmp_path / "third"
    shutil.copytree(other_folder, third)
    first = opened(tiny_model)
    call = {"refiner_switch": 0.5, **FAST}
    first("a cat", refiner=str(other_folder), **call)
    first("a cat", refiner=str(third), **call)
    caches = {name: one.cache for (name, _), one in first._refiners._named.items()}
    assert caches[str(other_folder)].current is None
    assert caches[str(third)].current is not None
    first.close()
    assert caches[str(third)].current is None


def test_the_rows_are_in_the_table_of_settings() -> None:
    assert {"refiner", "refiner_switch", "denoising_end"} <= TwoModelSettings.__dataclass_fields__.keys()


def test_a_prompt_that_changes_before_the_second_part(pipeline: StableDiffusionPipeline) -> None:
    """The second part begins with the text of its own first step."""
    call = {"scheduler": "euler", **FAST}
    half = pipeline("a [cat:dog:0.4]", denoising_end=0.5, **call | {"output_type": "latent"}).images
    rest = pipeline("a [cat:dog:0.4]", image=half, denoising_start=0.5, **call).images
    np.testing.assert_array_equal(rest, pipeline("a [cat:dog:0.4]", **call).images)
