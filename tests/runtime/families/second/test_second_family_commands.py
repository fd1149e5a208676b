"""A second family, added by one row, in commands and benchmarks, and folders that do not fit it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sdrt import ComponentError, IntegrityError, StableDiffusionPipeline, UnsupportedModelError, read_metadata
from sdrt.benchmark.configurations import Configuration
from sdrt.benchmark.timed_generation import generator
from sdrt.cli import main
from sdrt.families import FAMILIES
from tests.runtime.families.second.duet import DUET
from tests.runtime.families.second.duet_calls import CALL, GUIDANCE, SIZE


def damage(folder: Path, file: str, **values: Any) -> None:
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("file", "values", "error", "words"),
    [
        ("painter/config.json", {"in_channels": 5}, UnsupportedModelError, "painter takes 5 channels"),
        ("painter/config.json", {"text_width": None}, IntegrityError, "painter/config.json: text_width"),
        ("codec_decoder/config.json", {"shift_factor": "x"}, IntegrityError, "shift_factor"),
        ("model_index.json", {"phrases": ["transformers", "T5"]}, UnsupportedModelError, "DuetPhrases"),
        ("model_index.json", {"unet": ["diffusers", "UNet"]}, UnsupportedModelError, "not part of Duet"),
        (
            "scheduler/scheduler_config.json",
            {"_class_name": "DDIMScheduler", "shift": 1},
            UnsupportedModelError,
            "'DDIMScheduler', which does not work with Duet",
        ),
    ],
)
def test_a_folder_that_does_not_fit_the_row(
    folder: Path, file: str, values: dict[str, Any], error: type[Exception], words: str
) -> None:
    damage(folder, file, **values)
    with pytest.raises(error, match=words):
        StableDiffusionPipeline.from_pretrained(folder, provider="cpu")("a", **CALL)


@pytest.mark.parametrize("name", ["words", "phrases", "painter", "codec_decoder"])
def test_a_component_that_is_missing_is_named(folder: Path, name: str) -> None:
    (folder / name / "model.onnx").unlink()
    with pytest.raises(IntegrityError, match=f"{name}.model.onnx is missing"):
        StableDiffusionPipeline.from_pretrained(folder, provider="cpu")


def test_a_graph_with_other_inputs_is_named(folder: Path) -> None:
    graph = folder / "words" / "model.onnx"
    graph.write_bytes((folder / "painter" / "model.onnx").read_bytes())
    with pytest.raises(
        ComponentError, match=r"words: .* takes text, phrase, noisy, size, when, expected input_ids"
    ):
        StableDiffusionPipeline.from_pretrained(folder, provider="cpu")("a", **CALL)


def test_commands(folder: Path, tmp_path: Path) -> None:
    """`generate` writes an image with metadata that `--from` reads. `info` describes the model."""
    run = CliRunner().invoke
    image = tmp_path / "cat.png"
    generate = [
        "generate",
        "a cat",
        "-m",
        str(folder),
        "-o",
        str(image),
        "--steps",
        "3",
        "--seed",
        "5",
        "--json",
    ]
    made = run(main, generate)
    assert made.exit_code == 0, made.output
    report = json.loads(made.stdout)
    assert report["timings"]["unet"] != []
    assert read_metadata(image).settings["Sampler"] == "Flow Euler"
    again = run(
        main, ["generate", "--from", str(image), "-m", str(folder), "-o", str(tmp_path / "again.png")]
    )
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.png").read_bytes() == image.read_bytes()
    assert "painter" in run(main, ["info", str(folder)]).stdout


def test_a_benchmark_measures_each_component(duet: StableDiffusionPipeline) -> None:
    """Measured in this process, because the command's own processes would not know the family."""
    configuration = Configuration(
        width=SIZE[1],
        height=SIZE[0],
        batch=1,
        steps=3,
        evaluations=3,
        guidance_scale=GUIDANCE,
        scheduler=None,
        spacing=None,
        scheduler_name="flow_euler",
        spacing_name="linspace",
        provider="cpu",
        threads=1,
        allow_fallback=False,
        vae_tiling=None,
        low_vram=False,
        provider_options={},
        provider_library=None,
        max_size=None,
    )
    measured = generator(duet, configuration)()
    assert [step.unet > 0 for step in measured.steps] == [True] * 3
    names = {name for name, _, _ in measured.spans}
    assert {"text_encoder", "text_encoder_2", "unet", "vae_decoder"} <= names


def test_without_its_row_the_family_is_unknown(folder: Path) -> None:
    FAMILIES.remove(DUET)
    try:
        with pytest.raises(UnsupportedModelError, match="DuetPipeline"):
            StableDiffusionPipeline.from_pretrained(folder, provider="cpu")
    finally:
        FAMILIES.append(DUET)
