"""The files that `sdrt generate` writes, what their metadata say, and when it leaves none."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import sdrt
from sdrt.cli.generate.jobs import plan
from sdrt.images.metadata import Parameters, read_parameters
from tests.cli.commands import generate, pixels, run

pytestmark = pytest.mark.usefixtures("folder")


def test_the_file_is_the_image_that_the_python_api_gives(model: str) -> None:
    result = generate(model, "-s", "3", "-o", "a.png", "-n", "blue")
    assert (result.exit_code, result.stdout) == (0, "a.png\n")
    pipeline = sdrt.StableDiffusionPipeline.from_pretrained(model, notify=lambda text: None)
    output = pipeline("a red circle", negative_prompt="blue", seed=3, num_inference_steps=2)
    assert pixels("a.png") == output.images[0].tobytes()


def test_metadata_is_complete_and_printed_back(model: str) -> None:
    generate(
        model, "-s", "3", "-o", "a.png", "-n", "blue", "--scheduler", "DPM++ 2M Karras", "--cfg_scale", "7"
    )
    text = run("info", "a.png").stdout
    with Image.open("a.png") as image:
        size = f"{image.width}x{image.height}"
    name = sdrt.StableDiffusionPipeline.from_pretrained(model, notify=lambda text: None).model.name
    if "," in name:
        name = json.dumps(name)
    assert text == (
        "a red circle\nNegative prompt: blue\n"
        f"Steps: 2, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 3, Size: {size}, Model: {name}, "
        f"RNG: CPU, Version: sdrt {sdrt.__version__}\n"
    )
    about = json.loads(run("info", "a.png", "--json").stdout)
    assert about["prompt"] == "a red circle"
    assert about["negative_prompt"] == "blue"
    assert about["settings"]["Seed"] == "3"


def test_clip_skip_and_eta_are_recorded_as_others_count_them(model: str) -> None:
    assert (
        generate(model, "-o", "a.png", "--clip-skip", "1", "--scheduler", "ddim", "--eta", "0.5").exit_code
        == 0
    )
    settings = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    assert (settings["Clip skip"], settings["Eta"]) == ("2", "0.5")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--scheduler", "euler", "--spacing", "Uniform", "--eta", "0.5"], {"Schedule type": "Uniform"}),
        (["--scheduler", "ddim", "--eta", "0.5"], {"Eta": "0.5"}),
        # A1111 has nothing equal to these, and without a type it would take a default of the sampler.
        (
            ["--scheduler", "dpmpp_2m", "--spacing", "leading"],
            {"Schedule type": "DDIM", "Spacing": "leading"},
        ),
        (
            ["--scheduler", "dpmpp_2m", "--spacing", "linspace"],
            {"Schedule type": "SGM Uniform", "Spacing": "linspace"},
        ),
        (["--scheduler", "dpmpp_2m", "--spacing", "Automatic"], {"Schedule type": "Karras"}),
        (["--spacing", "trailing"], {"Spacing": "trailing"}),
        (["--spacing", "leading"], {}),
        (["--scheduler", "dpmpp_2m", "--spacing", "karras"], {"Schedule type": "Karras"}),
    ],
)
def test_only_what_made_the_image_is_recorded(model: str, arguments: list[str], said: dict[str, str]) -> None:
    assert generate(model, "-o", "a.png", "--steps", "2", *arguments).exit_code == 0
    settings = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    assert {
        key: value for key, value in settings.items() if key in ("Eta", "Schedule type", "Spacing")
    } == said


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_other_formats_carry_the_text_too(model: str, suffix: str) -> None:
    assert generate(model, "-s", "1", "-o", f"a.{suffix}", prompt="Grüße").exit_code == 0
    assert run("info", f"a.{suffix}").stdout.startswith("Grüße\nSteps: 2, ")


def test_no_metadata_leaves_it_out(model: str) -> None:
    generate(model, "-o", "a.png", "--no-metadata")
    result = run("info", "a.png")
    assert result.exit_code == 2
    assert "does not say how it was made" in result.stderr


@pytest.mark.parametrize(
    ("prompts", "labels"),
    [
        (("a cat", "a dog"), ("a cat", "a dog")),
        (("a", "a", "b"), ("1: a", "2: a", "b")),
        (("東京", " "), ("1: 東京", "2:  ")),
    ],
)
def test_labels_tell_images_apart(prompts: tuple[str, ...], labels: tuple[str, ...]) -> None:
    options = SimpleNamespace(
        prompts=prompts, count=None, batch_size=1, output=None, force=False, no_metadata=True
    )
    settings = {"prompt_syntax": "a1111", "negative_prompt": "", "width": None, "height": None, "seed": 1}
    settings |= {"prompt_comments": False, "prompt_2": None, "negative_prompt_2": None}
    vars(options).update(prompts_file=None, settings=settings, with_settings=lambda _: options)
    vars(options).update(wildcard_files=lambda: None, literal=frozenset())
    assert tuple(image.label for image in plan(options)) == labels  # type: ignore[arg-type]


def test_force_is_needed_to_overwrite(model: str) -> None:
    Path("a.png").write_bytes(b"mine")
    assert generate(model, "-o", "a.png").exit_code == 2
    assert Path("a.png").read_bytes() == b"mine"
    assert generate(model, "-o", "a.png", "--force").exit_code == 0
    assert pixels("a.png")


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt()])
def test_a_failure_in_the_middle_leaves_no_file(
    model: str, error: BaseException, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("PIL.Image.Image.save", fail)
    result = generate(model, "-o", "a.png")
    assert result.exit_code == {MemoryError: 5, KeyboardInterrupt: 130}[type(error)]
    assert not list(folder.iterdir())
