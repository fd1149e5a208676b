"""Plots of images over settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from sdrt import RequestError
from sdrt.cli.generate.variations import parse_axis
from tests.cli.commands import run

pytestmark = pytest.mark.usefixtures("folder")


def test_a_plot_has_an_image_for_each_combination(model: str) -> None:
    result = run(
        *("plot", "a cat", "-m", model, "-x", "steps=1,2", "-y", "scheduler=euler,DDIM", "-z", "seed=3,4"),
        *("-o", "plot.png", "--json"),
    )
    assert result.exit_code == 0, result.output
    about = json.loads(result.stdout)
    assert (about["grid"], about["files"], about["seeds"]) == ("plot.png", [], [3] * 4 + [4] * 4)
    assert [own.get("scheduler", "euler") for own in about["own_settings"]] == ["euler"] * 2 + [
        "ddim"
    ] * 2 + ["euler"] * 2 + ["ddim"] * 2
    assert [path.name for path in Path().glob("*.png")] == ["plot.png"]


def test_a_plot_over_random_seeds_shows_which_they_are(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    labels: list[str] = []
    monkeypatch.setattr(
        "sdrt.images.contact_sheet.ContactSheet.add", lambda self, image, label: labels.append(label)
    )
    options = ("-m", model, "--steps", "1", "-s", "-1", "-o", "plot.png", "--json")
    about = json.loads(run("plot", "a cat", *options, "-x", "seed=-1,-1,4294967299,-2").stdout)
    assert about["seeds"][2:] == [2**32 + 3, 2**64 - 2]
    assert len(set(about["seeds"])) == 4
    assert min(about["seeds"]) >= 0
    assert labels == [f"seed {seed}" for seed in about["seeds"]]


def test_a_plot_over_prompts_and_sizes(model: str) -> None:
    result = run(
        *("plot", "a cat", "-m", model, "--steps", "1", "-s", "2"),
        *("-x", 'prompt="a cat, sitting",a dog', "-y", "width=64,96"),
    )
    assert result.stdout == "sdrt-plot-2.png\n"
    with Image.open("sdrt-plot-2.png") as sheet:
        assert sheet.width > 2 * 64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps", "expected a setting and its values"),
        ("colour=1,2", "unknown setting 'colour'"),
        ("steps=", "there are no values"),
        ("steps=1,,2", "there are no values, or one is empty"),
        ("steps=1,a", "expected whole numbers"),
        ("eta=1,a", "expected numbers"),
        ('prompt="a,b', "put a value that contains a comma in quotes"),
    ],
)
def test_axes_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        parse_axis(text)


def test_axes_of_one_field(model: str) -> None:
    result = run("plot", "a", "-m", model, "-x", "steps=1", "-y", "steps=2")
    assert (result.exit_code, "steps is given to two axes" in result.stderr) == (2, True)
    three = run("plot", "a", "-m", model, "-x", "steps=1", "-y", "steps=2", "-z", "seed=3")
    assert "steps is given to two axes" in three.stderr


def test_a_plot_that_fails_leaves_the_old_one(model: str) -> None:
    options = ("plot", "a cat", "-m", model, "--steps", "1", "-o", "p.png", "-f")
    assert run(*options, "-x", "clip_skip=0,1").exit_code == 0
    before = Path("p.png").read_bytes()
    assert run(*options, "-x", "clip_skip=0,900").exit_code == 2
    assert Path("p.png").read_bytes() == before
