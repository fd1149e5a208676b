"""ControlNets in `sdrt generate` and `sdrt plot`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sdrt.cli import main
from sdrt.images.canny import canny
from sdrt.images.metadata import Parameters, read_parameters
from tests.export.control.images import control_image, made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    control_image().save("edges.png")
    return tmp_path


def generate(plain: Path, *options: str) -> Result:
    return CliRunner().invoke(
        main, ["generate", "a red circle", "-m", str(plain), "--steps", "2", "--seed", "0", *options]
    )


@pytest.mark.parametrize(
    ("mode", "setting"),
    [(("--guess-mode",), {"guess_mode": True}), (("--control-mode", "control"), {"control_mode": "control"})],
    ids=["guess", "control"],
)
@pytest.mark.usefixtures("folder")
def test_the_command(
    mode: Sequence[str], setting: dict[str, Any], plain: Path, controlnets: list[Path]
) -> None:
    nets = [f"--controlnet={one}" for one in controlnets]
    result = generate(
        plain,
        *nets,
        *("--control-image", "edges.png", "--control-image", "edges.png", "--control-scale", "0.5,0.8"),
        *("--control-end", "0.7", *mode, "--control-preview", "map.png", "-o", "a.png"),
    )
    assert result.exit_code == 0, result.output
    found = np.asarray(Image.open("a.png"))
    wanted = made(
        plain,
        controlnets,
        control_image=[control_image()] * 2,
        controlnet_conditioning_scale=[0.5, 0.8],
        control_guidance_end=0.7,
        **setting,
        output_type="pil",
    )
    np.testing.assert_array_equal(found, wanted[0])
    # Both maps, side by side.
    np.testing.assert_array_equal(
        np.asarray(Image.open("map.png")), np.concatenate([np.asarray(control_image())] * 2, axis=1)
    )
    text = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    assert text["ControlNet 1"] == (
        "Module: none, Model: net-1, Weight: 0.8, Resize Mode: Just Resize, Guidance Start: 0, Guidance End: 0.7, "
        "Pixel Perfect: False, Control Mode: ControlNet is more important"
    )
    assert ("ControlNet guess mode" in text, list(text)[-1]) == ("guess_mode" in setting, "Version")
    again = ["generate", "--from", "a.png", "-m", str(plain), "-o", "b.png"]
    refused = CliRunner().invoke(main, again)
    assert (
        "the image was made with the ControlNets 'net-0', 'net-1'; give each with --controlnet"
        in refused.stderr
    )
    images = ["--control-image", "edges.png"] * 2
    assert CliRunner().invoke(main, [*again, *nets, *images]).exit_code == 0
    np.testing.assert_array_equal(np.asarray(Image.open("b.png")), found)
    about = CliRunner().invoke(main, [*again, "--force", "--approximate"])
    assert (about.exit_code, "ControlNet" in about.stderr) == (0, True)


@pytest.mark.usefixtures("folder")
def test_a_mode_for_each(plain: Path, controlnets: list[Path]) -> None:
    nets = [f"--controlnet={one}" for one in controlnets]
    images = ["--control-image", "edges.png"] * 2
    more = ["--control-mode", "prompt, balanced", "--control-scale", "0.30000001", "-o", "a.png"]
    assert generate(plain, *nets, *images, *more).exit_code == 0
    text = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    assert "Weight: 0.30000001" in text["ControlNet 0"]
    modes = [text[f"ControlNet {index}"].rpartition(": ")[2] for index in (0, 1)]
    assert modes == ["My prompt is more important", "Balanced"]
    again = ["generate", "--from", "a.png", "-m", str(plain), *nets, *images, "-o", "b.png"]
    assert CliRunner().invoke(main, again).exit_code == 0
    np.testing.assert_array_equal(np.asarray(Image.open("b.png")), np.asarray(Image.open("a.png")))
    one = ["generate", "--from", "a.png", "-m", str(plain), nets[0], *images[:2], "-o", "c.png"]
    fewer = CliRunner().invoke(main, one)
    told = "the image was made with the ControlNets 'net-0', 'net-1', and 1 control image is given; give each"
    assert (fewer.exit_code, told in fewer.stderr) == (2, True), fewer.stderr
    numbers = ["--control-scale=1", "--control-start=0", "--control-end=1", "--control-mode=prompt"]
    assert CliRunner().invoke(main, [*one, *numbers]).exit_code == 0
    wrong = generate(plain, *nets, *images, "--control-mode", "prompt,both")
    assert "'both' is not one of 'balanced', 'prompt', 'control'" in wrong.stderr
    sheet = ["-x", "control_mode=balanced,prompt,control", *nets, *images, "-o", "sheet.png"]
    options = ["plot", "a red circle", "-m", str(plain), "--steps", "1", "--seed", "0", *sheet]
    assert CliRunner().invoke(main, options).exit_code == 0


@pytest.mark.usefixtures("folder")
def test_the_preview_is_what_the_network_sees(plain: Path, controlnets: list[Path]) -> None:
    """Each ControlNet has its own preprocessor. Edges are found in the size of the result."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save("photo.png")
    nets = [f"--controlnet={one}" for one in controlnets]
    images = [
        "--control-image",
        "photo.png",
        "--control-image",
        "edges.png",
        "--width",
        "64",
        "--height",
        "48",
    ]
    more = [
        "--control-preprocessor",
        "canny,none",
        "--canny-low-threshold",
        "40",
        "--canny-high-threshold",
        "90",
    ]
    result = generate(plain, *nets, *images, *more, "--control-preview", "map.png", "-o", "a.png")
    assert result.exit_code == 0, result.output
    with Image.open("photo.png") as photo:
        large = np.asarray(photo.resize((64, 48), Image.Resampling.LANCZOS))
    found = np.asarray(Image.open("map.png"))
    np.testing.assert_array_equal(found[:, :64, 0], canny(large, 40, 90))
    assert 0 < np.count_nonzero(found[:, :64, 0]) < found[:, :64, 0].size
    np.testing.assert_array_equal(found[:, 64:], np.asarray(control_image()))
    wanted = made(
        plain,
        controlnets,
        control_image=[found[:, :64], control_image()],
        output_type="pil",
        width=64,
        height=48,
    )
    np.testing.assert_array_equal(np.asarray(Image.open("a.png")), wanted[0])
    text = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    assert "Module: canny, " in text["ControlNet 0"]
    assert "Threshold A: 40, Threshold B: 90" in text["ControlNet 0"]
    assert "Pixel Perfect: True" in text["ControlNet 0"]
    assert "Module: none, " in text["ControlNet 1"]
    again = ["generate", "--from", "a.png", "-m", str(plain), *nets, *images[:4], "-o", "b.png"]
    assert CliRunner().invoke(main, again).exit_code == 0
    np.testing.assert_array_equal(np.asarray(Image.open("b.png")), wanted[0])


@pytest.mark.usefixtures("folder")
def test_prompts_files_and_plots(plain: Path, controlnets: list[Path]) -> None:
    lines = [
        {"prompt": "a red circle", "control_image": "edges.png", "control_scale": 0.5},
        {
            "prompt": "a red circle",
            "control_image": ["edges.png"],
            "control_scale": [0.5],
            "control_mode": ["balanced"],
        },
    ]
    Path("prompts.txt").write_text("\n".join(map(json.dumps, lines)))
    options = ["-m", str(plain), f"--controlnet={controlnets[0]}", "--steps", "2", "--seed", "0"]
    run = CliRunner().invoke
    made = run(main, ["generate", "--prompts-file", "prompts.txt", *options, "-o", "p-{index}.png"])
    assert made.exit_code == 0, made.output
    images = [np.asarray(Image.open(f"p-{index}.png")) for index in (0, 1)]
    assert images[0].shape == images[1].shape == (48, 64, 3)
    sheet = ["-x", "control_scale=0,0.5", "--control-image", "edges.png", "-o", "sheet.png"]
    assert run(main, ["plot", "a red circle", *options, *sheet]).exit_code == 0


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--control-preview", "m.png"], "--control-preview has no effect without --control-image"),
        (["--control-image", "no.png"], "'no.png' cannot be read"),
        (["--control-image", "edges.png"], "this model has no ControlNet"),
        (["--controlnet", "no.safetensors"], "--controlnet is 'no.safetensors', which does not exist"),
        (["--guess-mode"], "--guess-mode has no effect without --control-image"),
        (["--control-image", "-", "-i", "-"], "both read standard input"),
    ],
    ids=str,
)
def test_bad_options_are_one_line(options: list[str], message: str, plain: Path) -> None:
    result = generate(plain, *options)
    assert result.exit_code != 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.usefixtures("folder")
def test_a_controlnet_without_an_image(plain: Path, controlnets: list[Path]) -> None:
    result = generate(plain, f"--controlnet={controlnets[0]}")
    assert result.exit_code != 0
    assert "--controlnet has no effect without --control-image" in result.stderr
