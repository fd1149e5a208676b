"""Images that are made again from their own metadata."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from sdrt import RequestError
from sdrt.cli.generate.from_metadata import options_of
from sdrt.images.metadata import Parameters, save_options
from sdrt.schedulers import SAMPLERS, SPACINGS
from tests.cli.commands import run, told

pytestmark = pytest.mark.usefixtures("folder")


def repeated(model: str, *arguments: str, again: tuple[str, ...] = ()) -> tuple[bytes, bytes]:
    made = run("generate", "a cat", "-m", model, "--steps", "3", "-o", "a.png", *arguments)
    assert made.exit_code == 0, made.output
    result = run("generate", "--from", "a.png", "-m", model, "-o", "b.png", *again)
    assert result.exit_code == 0, result.output
    return Path("a.png").read_bytes(), Path("b.png").read_bytes()


USUAL = [name for name, row in SAMPLERS.items() if not (row.is_for_edm or row.is_for_flow)]


@pytest.mark.parametrize("scheduler", USUAL)
def test_an_image_is_made_again_bit_for_bit(model: str, scheduler: str) -> None:
    first, second = repeated(model, "--scheduler", scheduler, "-s", "5")
    assert first == second


@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_spacing_is_repeated(model: str, spacing: str) -> None:
    first, second = repeated(model, "--scheduler", "euler", "--spacing", spacing)
    assert first == second


@pytest.mark.parametrize(
    "options",
    [
        ("-n", "a dog, [blue]:", "--guidance-scale", "3.3", "--clip-skip", "1"),
        ("--scheduler", "ddim", "--eta", "0.123456789"),
        ("-W", "80", "-H", "48"),
        ("--prompt-syntax", "plain"),
        ("--prompt-syntax", "compel", "-n", '("a \\"b\\"", "c-, d").blend(1, 0.5)'),
        ("--timesteps", "999,700,5", "--scheduler", "dpmpp_2m", "--guidance-rescale", "0.7"),
        ("--sigmas", "14.6,3.3,0.5,0", "--scheduler", "euler"),
        ("-W", "160", "-H", "64", "--tile-size", "96", "--tile-overlap", "40"),
        ("--hires", "1.7", "--hires-strength", "0.61", "--hires-steps", "5", "--hires-upscaler", "lanczos"),
    ],
    ids=str,
)
def test_settings_are_repeated(model: str, options: tuple[str, ...]) -> None:
    first, second = repeated(model, *options)
    assert first == second


@pytest.mark.parametrize(
    "options",
    [
        ("--strength", "0.7"),
        ("--mask", "mask.png", "--mask-blur", "2.7182818"),
        ("--mask", "mask.png", "--padding-mask-crop", "8", "--no-composite"),
        ("--outpaint", "left=24,top=8"),
    ],
    ids=str,
)
def test_an_image_from_an_image_needs_it_again(model: str, options: tuple[str, ...]) -> None:
    Image.effect_noise((64, 48), 60).convert("RGB").save("in.png")
    mask = Image.new("L", (64, 48))
    mask.paste(255, (20, 20, 40, 40))
    mask.save("mask.png")
    given = ("-i", "in.png", *(("--mask", "mask.png") if "--mask" in options else ()))
    first, second = repeated(model, "-i", "in.png", *options, again=given)
    assert first == second
    refused = run("generate", "--from", "a.png", "-m", model, "-o", "c.png")
    assert "was made from another image; give that one with -i" in refused.stderr


def test_what_is_given_beside_it_goes_before(model: str) -> None:
    repeated(model, "-s", "5", "-n", "blue", again=("-s", "6", "-n", "green"))
    assert (told("b.png").settings["Seed"], told("b.png").negative_prompt) == ("6", "green")
    assert run("generate", "--from", "a.png", "a dog", "-m", model, "-o", "c.png").exit_code == 0
    assert told("c.png").prompt == "a dog"


def test_sizes_given_beside_it_have_the_usual_limit(model: str) -> None:
    repeated(model, again=("-W", "256", "--hires", "1.5", "--hires-strength", "0.5"))
    with Image.open("b.png") as image:
        assert image.size == (384, 96)


def test_a_masked_image_of_any_size_is_repeated(model: str) -> None:
    Image.effect_noise((70, 50), 60).convert("RGB").save("in.png")
    Image.new("L", (70, 50), 255).save("mask.png")
    given = ("-i", "in.png", "--mask", "mask.png")
    for size in ((), ("-W", "96", "-H", "64")):
        first, second = repeated(model, *given, *size, "-f", again=(*given, "-f"))
        assert first == second


def test_a_spacing_given_beside_it_replaces_the_one_in_the_name(model: str) -> None:
    repeated(model, "--scheduler", "Euler Karras", again=("--spacing", "exponential"))
    assert told("b.png").settings["Sampler"] == "Euler"
    assert told("b.png").settings["Schedule type"] == "Exponential"


def test_steps_given_beside_it_replace_its_timesteps(model: str) -> None:
    repeated(model, "--scheduler", "euler", "--timesteps", "900,500,100", again=("--steps", "2"))
    assert (told("b.png").settings["Steps"], "Timesteps" in told("b.png").settings) == ("2", False)


def test_a_scheduler_from_a_file_is_asked_for_again(model: str) -> None:
    Path("own.json").write_text('{"_class_name": "EulerDiscreteScheduler", "beta_end": 0.02}')
    first, second = repeated(model, "--scheduler", "own.json", again=("--scheduler", "own.json"))
    assert first == second
    refused = run("generate", "--from", "a.png", "-m", model, "-o", "c.png")
    assert "was made with 'own.json'; give the file with --scheduler" in refused.stderr


def test_the_embedded_model_is_found_by_its_name() -> None:
    pytest.importorskip("sdrt_models")
    assert run("generate", "a red circle", "--steps", "2", "-o", "a.png", "-s", "1").exit_code == 0
    assert run("generate", "--from", "a.png", "-o", "b.png").exit_code == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


OURS = {"Steps": "2", "Sampler": "Euler", "CFG scale": "7", "Seed": "1", "Size": "64x64", "RNG": "CPU"}


def image_that_says(settings: dict[str, str]) -> str:
    text = str(Parameters(prompt="a cat", settings=settings))
    Image.new("RGB", (8, 8)).save("said.png", **save_options("PNG", text))
    return "said.png"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Steps": "many"}, "its Steps is 'many': expected a whole number"),
        ({"Size": "large"}, "its Size is 'large'"),
        ({"Model": "another"}, "was made by the model 'another'; give the model with -m"),
        ({"RNG": "GPU"}, "noise that sdrt cannot draw"),
        ({"Lora hashes": "a"}, "was made with the LoRAs 'a'; give the folder of its LoRAs with --lora-dir"),
        ({"Mask blur": "4"}, "was made with a mask"),
        ({"Noise level": "4"}, "was made from another image"),
    ],
)
def test_metadata_that_cannot_be_repeated(changes: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        options_of(image_that_says(OURS | changes), set())


def test_what_others_write_is_read() -> None:
    found = options_of(image_that_says(OURS | {"Schedule type": "Karras", "Clip skip": "2"}), set())
    assert (found["scheduler"], found["clip_skip"], found["width"]) == ("Euler Karras", 1, 64)


def test_an_image_that_says_nothing() -> None:
    Image.new("RGB", (8, 8)).save("blank.png")
    result = run("generate", "--from", "blank.png")
    assert (result.exit_code, "does not say how it was made" in result.stderr) == (2, True)


def test_tiling_of_the_vae_is_repeated(model: str) -> None:
    assert run("generate", "a cat", "-m", model, "--steps", "1", "--vae-tiling", "-o", "a.png").exit_code == 0
    assert told("a.png").settings["VAE tiling"] == "True"
    result = run("generate", "--from", "a.png", "-m", model, "-o", "b.png")
    assert result.exit_code == 0, result.stderr
    assert told("b.png").settings["VAE tiling"] == "True"
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
