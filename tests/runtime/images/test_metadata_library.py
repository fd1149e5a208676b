"""Metadata for programs: the inverse pair of writer and reader, files that are saved and read, and the CLI's own."""

from __future__ import annotations

import re
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import sdrt
from sdrt import RequestError, SdrtError, StableDiffusionPipeline, StableDiffusionPipelineOutput
from sdrt.images.files import FORMATS, write_image
from sdrt.images.metadata import Parameters
from sdrt.request.control_modes import CONTROL_MODES
from sdrt.request.control_settings import PREPROCESSORS
from sdrt.request.labels import settings_text, settings_values
from sdrt.request.pairs import Corner, Pair, Size
from sdrt.request.table import labelled_settings

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

_FLOATS = st.floats(allow_nan=False, allow_infinity=False)
_WHOLE = st.integers(0, 2**63)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
_SIZES = st.tuples(st.integers(1, 999_999), st.integers(1, 999_999))


def _pairs(least: int, kind: type[Pair]) -> SearchStrategy[Pair]:
    side = st.integers(least, 2**16)
    return st.tuples(side, side).map(kind)


_OF_TYPE: dict[str, SearchStrategy[Any]] = {
    **dict.fromkeys(
        ["num_inference_steps", "seed", "noise_level", "padding_mask_crop", "hires_steps", "clip_skip"],
        _WHOLE,
    ),
    **dict.fromkeys(["batch_size", "tile_size", "tile_overlap"], _WHOLE),
    **dict.fromkeys(["guidance_scale", "strength", "hires_strength", "image_guidance_scale"], _FLOATS),
    **dict.fromkeys(["mask_blur", "hires_scale", "guidance_rescale", "eta"], _FLOATS),
    **dict.fromkeys(["refiner_switch", "denoising_start", "denoising_end"], _FLOATS),
    **dict.fromkeys(["composite", "vae_tiling", "refiner_switch_by_steps"], st.booleans()),
    **dict.fromkeys(["aesthetic_score", "negative_aesthetic_score"], _FLOATS),
    **dict.fromkeys(["empty_negative_prompt", "guess_mode", "ip_adapter_masked"], st.booleans()),
    **dict.fromkeys(["safety_checker", "nsfw_content_detected"], st.booleans()),
    "control_mode": st.lists(st.sampled_from(tuple(CONTROL_MODES)), min_size=1).map(tuple),
    "control_preprocessor": st.lists(st.sampled_from(PREPROCESSORS), min_size=1).map(tuple),
    **dict.fromkeys(["canny_low_threshold", "canny_high_threshold"], _FLOATS),
    **dict.fromkeys(
        [
            *("controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end"),
            "ip_adapter_scale",
        ],
        st.lists(_FLOATS, min_size=1).map(tuple),
    ),
    **dict.fromkeys(
        ["original_size", "target_size", "negative_original_size", "negative_target_size"], _pairs(1, Size)
    ),
    **dict.fromkeys(["crops_coords_top_left", "negative_crops_coords_top_left"], _pairs(0, Corner)),
    "hires_refiner": st.sampled_from(["first", "second", "both"]),
    "size": _SIZES,
    "hires_upscaler": st.sampled_from(["latent", "lanczos"]),
    "timesteps": st.lists(_WHOLE, min_size=1).map(tuple),
    **dict.fromkeys(["sigmas", "guidance_interval"], st.lists(_FLOATS, min_size=1).map(tuple)),
    "accelerate": st.sampled_from(["off", "balanced", "fast"]),
}
_FIRST = {"num_inference_steps": 1, "seed": 2, "size": (8, 8)}


def legal(values: dict[str, Any]) -> dict[str, Any]:
    """Of the two strengths, which have one label, the one that goes with the rest."""
    return {
        k: v for k, v in values.items() if k != ("strength" if "hires_scale" in values else "hires_strength")
    }


VALUES = st.fixed_dictionaries(
    {},
    # The schedule type becomes a part of the scheduler's name: tests/runtime/schedulers/test_other_programs.py.
    optional={
        row.name: _OF_TYPE.get(row.name, _TEXTS) for row in labelled_settings() if row.name != "schedule_type"
    },
).map(legal)
# A1111's grammar has no escape for a line of the prompt that begins so.
PROMPTS = _TEXTS.filter(lambda text: not re.search(r"^Negative prompt:", text, re.MULTILINE))


@settings(deadline=None)
@given(values=VALUES)
def test_settings_come_back_from_their_texts(values: dict[str, Any]) -> None:
    assert settings_values(settings_text(values)) == values


@settings(deadline=None)
@given(prompt=PROMPTS, negative=_TEXTS, values=VALUES)
def test_parameters_come_back_from_one_text(prompt: str, negative: str, values: dict[str, Any]) -> None:
    # Fewer than three settings are taken for a part of the prompt.
    parameters = Parameters(prompt=prompt, negative_prompt=negative, settings=settings_text(_FIRST | values))
    read = Parameters.parse(str(parameters))
    assert read == parameters
    assert settings_values(read.settings) == _FIRST | values


@settings(deadline=None, max_examples=30)
@given(prompt=PROMPTS, negative=_TEXTS, values=VALUES, suffix=st.sampled_from(sorted(FORMATS)))
def test_parameters_come_back_from_files(
    tmp_path_factory: pytest.TempPathFactory, prompt: str, negative: str, values: dict[str, Any], suffix: str
) -> None:
    said = settings_text(_FIRST | values | {"version": "sdrt"})
    parameters = Parameters(prompt=prompt, negative_prompt=negative, settings=said)
    path = tmp_path_factory.mktemp("files") / f"a{suffix}"
    write_image(path, Image.new("RGB", (16, 8)), str(parameters), force=False)
    found = sdrt.read_metadata(path)
    assert (found.format, found.size) == (FORMATS[suffix].name, (16, 8))
    assert (found.text, found.parameters) == (str(parameters), parameters)


@pytest.mark.parametrize("suffix", sorted(FORMATS))
@pytest.mark.parametrize("prompt", [" ", "  red"])
def test_spaces_before_a_prompt_stay(tmp_path: Path, suffix: str, prompt: str) -> None:
    path = tmp_path / f"a{suffix}"
    text = f"{prompt}\nSteps: 1, Seed: 2, Size: 8x8, Version: sdrt"
    write_image(path, Image.new("RGB", (16, 8)), text, force=False)
    found = sdrt.read_metadata(path)
    assert (found.text, found.prompt) == (text, prompt)


def test_settings_that_a_jpeg_cannot_hold_are_one_clear_error(tmp_path: Path) -> None:
    text = str(Parameters(prompt="p", settings={"Sigmas": "1" * 40_000}))
    with pytest.raises(SdrtError, match=r"a\.jpg cannot be written: EXIF"):
        write_image(tmp_path / "a.jpg", Image.new("RGB", (8, 8)), text, force=False)
    assert not list(tmp_path.iterdir())


def test_fields_and_labels_of_the_table_are_told_apart() -> None:
    assert len({row.name for row in labelled_settings()}) == len(labelled_settings())
    labels = [row.label.name for row in labelled_settings() if row.label and row.name != "hires_strength"]
    assert len(set(labels)) == len(labels)


def test_an_image_without_text_is_empty(tmp_path: Path) -> None:
    Image.new("RGB", (16, 8)).save(tmp_path / "a.png")
    found = sdrt.read_metadata(str(tmp_path / "a.png"))
    assert (found.text, found.prompt, found.negative_prompt, found.settings) == ("", "", "", {})
    assert (found.format, found.size) == ("PNG", (16, 8))
    with pytest.raises(FrozenInstanceError):
        found.format = "JPEG"  # type: ignore[misc]


def test_what_is_no_image_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"hello")
    for path in (tmp_path / "a.png", tmp_path / "missing.png", tmp_path, None, 3, "a\0b"):
        with pytest.raises(RequestError):
            sdrt.read_metadata(path)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pipeline(tiny_model: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu", threads=1)


@pytest.fixture(scope="module")
def output(pipeline: StableDiffusionPipeline) -> StableDiffusionPipelineOutput:
    return pipeline(
        ["a cat", "a dog"], negative_prompt=["wet", "dry"], num_inference_steps=2, height=64, width=72, seed=5
    )


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_what_is_saved_is_read(output: StableDiffusionPipelineOutput, tmp_path: Path, suffix: str) -> None:
    paths = output.save(tmp_path / f"a-{{seed}}.{suffix}")
    assert paths == [tmp_path / f"a-5.{suffix}", tmp_path / f"a-6.{suffix}"]
    assert sorted(tmp_path.glob("*.*")) == paths
    for index, path in enumerate(paths):
        found = sdrt.read_metadata(path)
        assert found.parameters == output.metadata(index)
        assert found.size == (72, 64)
    assert (found.prompt, found.negative_prompt, found.settings["Seed"]) == ("a dog", "dry", "6")
    if suffix == "png":
        with Image.open(paths[0]) as image:
            np.testing.assert_array_equal(image, output.images[0])


def test_names_that_coincide_are_numbered_and_kept(
    output: StableDiffusionPipelineOutput, tmp_path: Path
) -> None:
    paths = output.save(str(tmp_path / "a.png"))
    assert [path.name for path in paths] == ["a-0.png", "a-1.png"]
    paths[0].unlink()
    with pytest.raises(RequestError, match=r"a-1\.png exists already"):
        output.save(tmp_path / "a.png")
    assert not paths[0].exists()
    assert output.save(tmp_path / "a.png", overwrite=True, metadata=False) == paths
    assert sdrt.read_metadata(paths[1]).text == ""
    assert [path.name for path in output.save(tmp_path)] == ["sdrt-5.png", "sdrt-6.png"]


@pytest.mark.parametrize("name", ["a.gif", "a", "{prompt}.png", "missing/a.png", "n" * 300 + ".png", 3, None])
def test_names_that_are_wrong_write_nothing(
    output: StableDiffusionPipelineOutput, tmp_path: Path, name: Any
) -> None:
    with pytest.raises(SdrtError):
        output.save(tmp_path / name if isinstance(name, str) else name)
    assert not list(tmp_path.glob("*.*"))


def test_arrays_are_saved_and_latents_are_not(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    options: dict[str, Any] = {"num_inference_steps": 1, "height": 64, "width": 64, "seed": 1}
    arrays = pipeline("a cat", output_type="np", **options)
    pil = pipeline("a cat", **options)
    assert arrays.metadata(0) == pil.metadata(0)
    (first,), (second,) = arrays.save(tmp_path / "a.png"), pil.save(tmp_path / "b.png")
    assert first.read_bytes() == second.read_bytes()
    latents = pipeline("a cat", output_type="latent", **options)
    assert latents.metadata(0) == pil.metadata(0)
    with pytest.raises(RequestError, match="latents"):
        latents.save(tmp_path / "c.png")


@pytest.mark.parametrize("index", [2, -1, 0.5, None])
def test_an_image_that_there_is_not_has_no_metadata(
    output: StableDiffusionPipelineOutput, index: Any
) -> None:
    with pytest.raises(RequestError, match="index"):
        output.metadata(index)


@pytest.mark.parametrize("batch_size", ["x", 2.5, True, 0, -5])
def test_metadata_of_no_batch(output: StableDiffusionPipelineOutput, batch_size: Any) -> None:
    with pytest.raises(RequestError, match="batch_size"):
        output.metadata(0, batch_size=batch_size)


def test_a_name_that_no_file_can_have(output: StableDiffusionPipelineOutput) -> None:
    with pytest.raises(RequestError, match="path is"):
        output.save("a\0.png")


def test_an_output_of_no_pipeline_has_no_metadata(output: StableDiffusionPipelineOutput) -> None:
    own = StableDiffusionPipelineOutput(images=output.images, seeds=output.seeds, request=output.request)
    with pytest.raises(RequestError, match="what made it"):
        own.metadata(0)


def test_noise_that_was_given_is_not_said_to_be_drawn(pipeline: StableDiffusionPipeline) -> None:
    made = pipeline("a cat", num_inference_steps=1, latents=np.zeros((1, 4, 8, 8), np.float32))
    assert "RNG" not in made.metadata(0).settings


def test_a_config_of_one_s_own_is_named(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    config = tmp_path / "own.json"
    config.write_text('{"_class_name": "EulerDiscreteScheduler", "beta_end": 0.02}')
    for scheduler, named in ((str(config), str(config)), (config, str(config)), ("euler", None)):
        made = pipeline("a cat", num_inference_steps=1, height=64, width=64, scheduler=scheduler)
        assert made.metadata(0).settings.get("Scheduler config") == named
    given_config = {"_class_name": "EulerDiscreteScheduler"}
    made = pipeline("a cat", num_inference_steps=1, height=64, width=64, scheduler=given_config)
    assert made.metadata(0).settings["Scheduler config"] == "a config in memory"


OF_BOTH: list[tuple[list[str], dict[str, Any]]] = [
    ([], {}),
    (["--negative-prompt", "wet", "--clip-skip", "1", "--guidance-scale", "3"],
     {"negative_prompt": "wet", "clip_skip": 1, "guidance_scale": 3}),
    (["--scheduler", "euler_a", "-b", "2"], {"scheduler": "euler_a", "num_images_per_prompt": 2}),
    (["--scheduler", "ddim", "--eta", "0.5", "--spacing", "trailing"],
     {"scheduler": "ddim", "eta": 0.5, "spacing": "trailing"}),
    (["--scheduler", "DPM++ 2M Karras", "--guidance-rescale", "0.7"],
     {"scheduler": "DPM++ 2M Karras", "guidance_rescale": 0.7}),
    (["--scheduler", "euler", "--sigmas", "10,2,0"], {"scheduler": "euler", "sigmas": [10.0, 2.0, 0.0]}),
    (["-i", "in.png", "--strength", "0.6"], {"image": "in.png", "strength": 0.6}),
    (["-i", "in.png", "--mask", "mask.png", "--no-composite", "--mask-blur", "2"],
     {"image": "in.png", "mask_image": "mask.png", "composite": False, "mask_blur": 2.0}),
    (["-i", "in.png", "--mask", "mask.png", "--padding-mask-crop", "8"],
     {"image": "in.png", "mask_image": "mask.png", "padding_mask_crop": 8}),
    (["-i", "in.png", "--outpaint", "80x64@left"], {"image": "in.png", "outpaint": "80x64@left"}),
    (["-i", "in.png", "--outpaint", "left=16"], {"image": "in.png", "outpaint": {"left": 16}}),
    (["--hires", "2", "--hires-upscaler", "lanczos"], {"hires_scale": 2, "hires_upscaler": "lanczos"}),
    (["--tile-size", "32", "--prompt-syntax", "plain"], {"tile_size": 32, "prompt_syntax": "plain"}),
]  # fmt: skip


@pytest.mark.parametrize(("options", "arguments"), OF_BOTH)
def test_a_program_writes_the_files_of_the_command(
    pipeline: StableDiffusionPipeline,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    arguments: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "red").save("in.png")
    mask = Image.new("L", (64, 64))
    mask.paste(255, (16, 16, 40, 40))
    mask.save("mask.png")
    sized = [] if "-i" in options else ["-W", "64", "-H", "64"]
    command = ["generate", "a cat", "-m", str(tiny_model), "-o", "cli-{seed}.png", "--provider", "cpu"]
    fixed = ["--steps", "2", "--seed", "3", "--threads", "1", "--quiet"]
    from sdrt.cli import main

    result = CliRunner().invoke(main, [*command, *fixed, *sized, *options])
    assert result.exit_code == 0, result.output
    size = {} if "-i" in options else {"width": 64, "height": 64}
    made = pipeline("a cat", num_inference_steps=2, seed=3, **size, **arguments)
    for index, path in enumerate(made.save("own-{seed}.png")):
        theirs = path.with_name(path.name.replace("own", "cli"))
        assert sdrt.read_metadata(theirs).parameters == made.metadata(index)
        assert theirs.read_bytes() == path.read_bytes()
