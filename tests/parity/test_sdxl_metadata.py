"""What an SDXL image's metadata say: the image can be made again from them, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image, PngImagePlugin

from sdrt import read_metadata
from sdrt.cli import main

Folders = Callable[[str], Path]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(main, [*arguments, "--quiet"] if arguments[0] != "info" else list(arguments))
    assert done.exit_code == 0, done.output
    return done.output


def generated(folder: Path, path: Path, *options: str) -> bytes:
    run("generate", *options, "-m", str(folder), "-o", str(path), "--force", "--threads", "1")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("options", "label", "text"),
    [
        ([], "Empty negative prompt", None),
        (["-n", ""], "Empty negative prompt", "True"),
        (["-n", "fog", "--negative-prompt-2", "bad, worse"], "Negative prompt 2", "bad, worse"),
        (["--prompt-2", "a red house"], "Prompt 2", "a red house"),
        # A1111 counts from the last layer. SDXL takes the last but one, so skipping one more is 3.
        (["--clip-skip", "1"], "Clip skip", "3"),
        (["--original-size", "300x200"], "Original size", "300x200"),
        (["--crops-coords-top-left", "4,9"], "Crop top left", "4,9"),
        (["--target-size", "640x512"], "Target size", "640x512"),
        (
            [
                *("--negative-original-size", "64x32", "--negative-target-size", "9x8"),
                *("--negative-crops-coords-top-left", "1,2"),
            ],
            "Negative crop top left",
            "1,2",
        ),
    ],
    ids=str,
)
def test_an_image_is_made_again(
    sdrt_folder: Folders, tmp_path: Path, options: list[str], label: str, text: str | None
) -> None:
    folder, size = sdrt_folder("xl"), ["--steps", "2", "--seed", "3", "-W", "64", "-H", "64"]
    made = generated(folder, tmp_path / "a.png", "a cat", *size, *options)
    assert read_metadata(tmp_path / "a.png").settings.get(label) == text
    assert generated(folder, tmp_path / "b.png", "--from", str(tmp_path / "a.png")) == made
    if text is not None:
        assert generated(folder, tmp_path / "c.png", "a cat", *size) != made


def test_the_refiner_s_scores(sdrt_folder: Folders, tmp_path: Path) -> None:
    folder = sdrt_folder("xl-refiner")
    Image.linear_gradient("L").resize((64, 64)).convert("RGB").save(tmp_path / "in.png")
    given = ["-i", str(tmp_path / "in.png"), "--steps", "4", "--seed", "3", "--strength", "0.9"]
    made = generated(folder, tmp_path / "a.png", "a cat", *given, "--aesthetic-score", "7.5")
    settings = read_metadata(tmp_path / "a.png").settings
    assert (settings["Aesthetic score"], settings["Negative aesthetic score"]) == ("7.5", "2.5")
    again = ["--from", str(tmp_path / "a.png"), "-i", str(tmp_path / "in.png")]
    assert generated(folder, tmp_path / "b.png", *again) == made
    assert generated(folder, tmp_path / "c.png", "a cat", *given) != made


@pytest.mark.parametrize(("skip", "same"), [("1", True), ("2", True), ("3", False)])
def test_a1111_s_clip_skip_of_two_is_sdxl_s_usual_layer(
    sdrt_folder: Folders, tmp_path: Path, skip: str, same: bool
) -> None:
    made = {}
    for name, setting in (("usual", ""), ("skipped", f"Clip skip: {skip}, ")):
        text = PngImagePlugin.PngInfo()
        text.add_text(
            "parameters",
            f"a cat\nSteps: 2, Sampler: Euler, CFG scale: 5, Seed: 3, Size: 64x64, {setting}RNG: CPU",
        )
        Image.new("RGB", (64, 64)).save(tmp_path / "theirs.png", pnginfo=text)
        options = ["--from", str(tmp_path / "theirs.png"), "--no-metadata"]
        made[name] = generated(sdrt_folder("xl"), tmp_path / f"{name}.png", *options)
    assert (made["usual"] == made["skipped"]) == same
