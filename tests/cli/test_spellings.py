"""Error lines name what the user typed: options on the command line, and keys in a prompts file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from sdrt import Request, RequestError
from sdrt.cli import main
from sdrt.cli.spellings import options_of, spelled
from sdrt.request.setting import Setting
from sdrt.request.table import TABLE
from tests.cli.commands import run

pytestmark = pytest.mark.usefixtures("folder")

OPTIONS = [row for row in TABLE if row.option and row.option.spellings]
NAMES = {row.name for row in TABLE if "_" in row.name}
"""Names that are no words. A line for people has none of them."""
GENERATE = options_of(main.get_command(None, "generate"))  # type: ignore[arg-type]


def wrong_values() -> Iterator[tuple[Setting, str]]:
    """A value that each setting refuses before a model is asked, where there is one."""
    for row in OPTIONS:
        if row.bounds is not None:
            yield row, "-1e30" if row.kind is float else str(-(10**20))
        elif is_of_image(row):
            yield row, "nope.png"


def is_of_image(row: Setting) -> bool:
    return row.name.startswith(("image", "mask_image", "control_image", "ip_adapter")) and row.kind is str


def names_in(line: str) -> set[str]:
    return {name for name in NAMES if re.search(rf"(?<![\w-]){name}(?![\w-])", line)}


def needs(row: Setting) -> list[str]:
    """What must be given with a setting, so that its own value is what is wrong."""
    given: list[str] = []
    for name in row.only_with[:1]:
        other = next(one for one in TABLE if one.name == name)
        given += needs(other)
        if other.option and other.option.spellings:
            value = {"hires_scale": "2", "tile_size": "64", "refiner": "shapes"}.get(name, "in.png")
            given += [other.spelling, value]
    return given


@pytest.mark.parametrize(("row", "value"), [pytest.param(*one, id=one[0].name) for one in wrong_values()])
def test_a_wrong_value_is_that_of_an_option(row: Setting, value: str) -> None:
    Image.new("RGB", (64, 64), "white").save("in.png")
    result = run("generate", "a cat", "--quiet", *needs(row), f"{row.spelling}={value}")
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith(f"error: {row.spelling} "), result.stderr
    assert names_in(result.stderr) == set()


@pytest.mark.parametrize("row", [row for row in OPTIONS if row.only_with], ids=lambda row: row.name)
def test_an_option_alone_asks_for_options(row: Setting) -> None:
    assert row.option is not None
    Image.new("RGB", (64, 64), "white").save("in.png")
    least = "0" if row.bounds is None or row.bounds[0] <= 0 else "1"
    value = row.choices[-1] if row.choices else "in.png" if is_of_image(row) else least
    given = [row.spelling] if row.kind is bool else [row.spelling, value]
    result = run("generate", "a cat", "--quiet", *given)
    if row.name == "prompt_2":
        # A prompt is always given. The model has no second text encoder.
        assert "error: --prompt-2 has no effect: " in result.stderr
        assert result.stderr.rstrip().endswith("; leave --prompt-2 out")
        return
    asked = " or ".join(GENERATE[name] for name in row.only_with if name in GENERATE)
    told = f"error: {row.spelling} has no effect without {asked}; give {asked}, or leave out {row.spelling}\n"
    assert (result.exit_code, result.stderr) == (2, told)


@pytest.mark.parametrize("row", OPTIONS, ids=lambda row: row.name)
def test_any_message_about_a_setting_names_its_option(row: Setting) -> None:
    for text in ("{} is 5: expected 6", "{} 'a.png' cannot be read", "{}: no"):
        told = spelled(text.format(row.name), GENERATE, row.name)
        assert told == text.format(row.spelling)
    both = spelled(f"expected at most one of {row.name} and eta, got both", GENERATE, row.name)
    assert both == f"expected at most one of {row.spelling} and --eta, got both"


@pytest.mark.parametrize(
    ("text", "argument", "told"),
    [
        # "image" is a word here, and no argument.
        ("an image prompt needs a VAE encoder", "image", "an image prompt needs a VAE encoder"),
        (
            "this model is made for painting; give image and mask_image",
            "image",
            "this model is made for painting; give --image and --mask",
        ),
        (
            "width is 4096: expected at most 2048: allow more with max_size=4096 (--max-size 4096)",
            "width",
            "--width is 4096: expected at most 2048: allow more with --max-size 4096",
        ),
        (
            "control_image 'mask_image' is in a folder/tile_size/a.png",
            "control_image",
            "--control-image 'mask_image' is in a folder/tile_size/a.png",
        ),
        # The argument of another function, and no argument.
        ("token 'strength' is unknown", "token", "token 'strength' is unknown"),
        (
            "scheduler_config.json: prediction_type is 5",
            "beta_start",
            "scheduler_config.json: prediction_type is 5",
        ),
    ],
)
def test_only_arguments_are_replaced(text: str, argument: str, told: str) -> None:
    assert spelled(text, GENERATE, argument) == told


def test_python_names_arguments() -> None:
    with pytest.raises(RequestError, match=r"^controlnet_conditioning_scale is 500: expected") as caught:
        Request(prompt="a cat", controlnet_conditioning_scale=500)
    assert caught.value.argument == "controlnet_conditioning_scale"


@pytest.mark.parametrize(
    ("settings", "options", "told"),
    [
        ({"control_scale": 500}, (), "control_scale is 500: expected a number from -100 to 100"),
        ({"num_inference_steps": 0}, (), "steps is 0: expected a whole number from 1"),
        ({"tile_size": 0}, (), "tile_size is 0: expected"),
        (
            {"hires_steps": 3},
            (),
            "hires_steps has no effect without --hires; give --hires, or leave out hires_steps",
        ),
        ({}, ("--control-scale", "500"), "--control-scale is 500.0: expected a number from -100 to 100"),
    ],
)
def test_a_line_of_a_file_has_its_own_keys(
    settings: dict[str, float], options: tuple[str, ...], told: str
) -> None:
    Path("p.txt").write_text("a cat\n" + json.dumps({"prompt": "a dog", **settings}))
    result = run("generate", "--prompts-file", "p.txt", "--quiet", *options)
    line = 1 if options else 2
    assert (result.exit_code, result.stderr.startswith(f"error: p.txt, line {line}: {told}")) == (2, True)


def test_an_unknown_scheduler_names_which_is_meant() -> None:
    result = run("generate", "a cat", "--quiet", "--hires", "2", "--hires-scheduler", "nope")
    assert result.stderr.startswith(
        "error: --hires-scheduler: unknown scheduler 'nope'; choose one of: euler"
    )


def test_a_notice_names_options(model: str) -> None:
    result = run("generate", "a cat", "-m", model, "--steps", "1", "--lora-scale", "0.5")
    assert "--lora-scale has no effect without a LoRA" in result.stderr
