"""Contact sheets, previews, and images in the terminal."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

import sdrt
from sdrt.cli.generate.terminal_image import ImageProgress, draw
from sdrt.images.metadata import Parameters, read_parameters
from tests.cli.commands import generate, run

pytestmark = pytest.mark.usefixtures("folder")


def test_a_grid_shows_every_image_beside_their_files(model: str) -> None:
    result = run(
        *("generate", "one", "two", "-m", model, "--steps", "1", "-s", "5", "--count", "3"),
        *("-o", "x.png", "--grid", "--json"),
    )
    report = json.loads(result.stdout)
    assert report["grid"] == "x-grid.png"
    assert len(report["files"]) == 6
    with Image.open("x-grid.png") as sheet, Image.open(report["files"][0]) as first:
        assert sheet.width > 3 * first.width  # a row per prompt
        assert 2 * first.height < sheet.height < 4 * first.height
        assert sheet.crop((8, 8, 8 + first.width, 8 + first.height)).tobytes() == first.tobytes()
    # As A1111's: how the first image was made.
    assert Parameters.parse(read_parameters(Path("x-grid.png"))[1] or "").settings["Seed"] == "5"


def test_the_name_of_a_grid_is_told_last_and_checked_first(model: str) -> None:
    arguments = ("-s", "4", "--count", "2", "-o", "p-{seed}.png", "--grid")
    assert generate(model, *arguments).stdout.splitlines() == ["p-4.png", "p-5.png", "p-4-grid.png"]
    Path("p-4.png").unlink()
    Path("p-5.png").unlink()
    refused = generate(model, *arguments)
    assert refused.exit_code == 2
    assert "p-4-grid.png exists already" in refused.stderr
    assert not Path("p-4.png").exists()


def test_previews_are_written_as_it_goes(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    preview = sdrt.StableDiffusionPipeline.preview.fget
    assert preview is not None

    def spied(self: sdrt.StableDiffusionPipeline) -> Any:
        written.append(Path("now.png").exists())
        return preview(self)

    monkeypatch.setattr(sdrt.StableDiffusionPipeline, "preview", property(spied))
    options = (
        "--preview-file",
        "now.png",
        "--preview-every",
        "1",
        "-b",
        "2",
        "--preview",
        "--scheduler",
        "euler",
    )
    assert generate(model, "-o", "a.png", *options).exit_code == 0
    assert written == [False, False, True]  # once to see that there is one, then after each of two steps
    with Image.open("now.png") as now, Image.open("a-0.png") as made:
        assert now.size == (2 * made.width, made.height)
    refused = generate(model, "-o", "b.png", "--preview-file", "now.png")
    assert (refused.exit_code, "--preview-file now.png exists already" in refused.stderr) == (2, True)
    same = generate(model, "-o", "b.png", "--preview-file", "./b.png")
    assert (same.exit_code, "an image has this name too" in same.stderr) == (2, True)


@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_a_preview_that_cannot_be_written_is_a_warning(
    model: str, monkeypatch: pytest.MonkeyPatch, quiet: tuple[str, ...]
) -> None:
    preview = sdrt.StableDiffusionPipeline.preview.fget
    assert preview is not None
    expected = generate(model, "-o", "b.png", "-b", "2", "-s", "3")

    def spied(self: sdrt.StableDiffusionPipeline) -> Any:
        # As when somebody takes the name after the check.
        Path("now.png").mkdir(exist_ok=True)
        return preview(self)

    monkeypatch.setattr(sdrt.StableDiffusionPipeline, "preview", property(spied))
    found = generate(
        *(model, "-o", "a.png", "-b", "2", "-s", "3"),
        *("--preview-file", "now.png", "--preview-every", "1", *quiet),
    )
    assert (expected.exit_code, found.exit_code) == (0, 0)
    assert found.stderr.count("warning: no preview: now.png cannot be written") == (not quiet)
    for made, other in (("a-0.png", "b-0.png"), ("a-1.png", "b-1.png")):
        with Image.open(made) as image, Image.open(other) as same:
            assert image.tobytes() == same.tobytes()


def test_a_terminal_gets_images_of_half_blocks() -> None:
    console = _console(no_color=False)
    image = Image.new("RGB", (4, 2), (200, 30, 30))
    image.paste((20, 40, 220), (0, 1, 4, 2))
    console.print(draw(image, 4, 20))
    assert console.file.getvalue().count("▀") == 4 * 1  # type: ignore[attr-defined]
    assert "38;2;200;30;30" in console.file.getvalue()  # type: ignore[attr-defined]
    assert "48;2;20;40;220" in console.file.getvalue()  # type: ignore[attr-defined]
    with ImageProgress(console=console) as progress:
        progress.add_task("steps", total=2)
        progress.show(image)
    assert console.file.getvalue().count("▀") > 4  # type: ignore[attr-defined]


def test_a_terminal_without_colours_gets_no_images(model: str) -> None:
    console = _console(no_color=True)
    with ImageProgress(console=console) as progress:
        progress.add_task("steps", total=2)
        progress.show(Image.new("RGB", (4, 2), (200, 30, 30)))
    assert "▀" not in console.file.getvalue()  # type: ignore[attr-defined]
    told = generate(model, "-o", "a.png", "--preview").stderr
    assert "--preview: cannot show images, because stderr is not a terminal with colours" in told


def _console(*, no_color: bool) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        no_color=no_color,
        width=40,
        height=20,
    )


def test_an_error_is_not_hidden_by_the_sheet_that_fails_after_it(
    model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = sdrt.StableDiffusionPipeline.stream
    calls = []

    def short_of_memory(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            Path("x-grid.png").write_text("somebody else's")
            raise sdrt.OutOfMemoryError("no memory for the U-Net")
        return original(*arguments, **named)

    monkeypatch.setattr(sdrt.StableDiffusionPipeline, "stream", short_of_memory)
    result = generate(model, "-s", "1", "--count", "2", "-o", "x.png", "--grid")
    assert result.exit_code == 5
    assert "no memory for the U-Net" in result.stderr
    assert "no contact sheet: " in result.stderr
    assert Path("x-grid.png").read_text() == "somebody else's"


def test_an_interrupted_grid_shows_what_was_made(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sdrt.StableDiffusionPipeline.stream
    calls = []

    def interrupted(self: sdrt.StableDiffusionPipeline, *args: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(sdrt.StableDiffusionPipeline, "stream", interrupted)
    result = generate(model, "-s", "1", "--count", "4", "-o", "x.png", "--grid")
    assert result.exit_code == 130
    assert result.stdout.splitlines() == ["x-0.png", "x-1.png", "x-grid.png"]
