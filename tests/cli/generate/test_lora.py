"""`--lora`, `--lora-dir`, tags in prompts, and what metadata say of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sdrt import StableDiffusionPipeline
from sdrt.adapters.lora_folder import short_hash
from tests.adapters import write_lora
from tests.cli.commands import run, told

QUICK = ("--steps", "1", "-s", "1", "--width", "64", "--height", "64", "-f")


@pytest.fixture(autouse=True)
def loras(folder: Path, tiny_model: Path) -> Path:
    model = StableDiffusionPipeline.from_pretrained(tiny_model, provider="cpu").model
    shapes = {name: model.parameters(name) for name in ("unet", "text_encoder")}
    (folder / "loras" / "more").mkdir(parents=True)
    write_lora(folder / "loras" / "ink.safetensors", shapes, seed=1, scale=1)
    write_lora(folder / "loras" / "more" / "oil.safetensors", shapes, seed=2, scale=1)
    return folder / "loras"


def generate(model: str, *arguments: str, ok: bool = True) -> str:
    result = run("generate", "-m", model, *arguments)
    assert (result.exit_code == 0) is ok, result.stderr
    return result.stderr


def pixels(name: str) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image)


def test_options_and_tags_make_the_same_image(model: str, loras: Path) -> None:
    generate(model, "a cat", *QUICK, "-o", "plain.png")
    generate(model, "a cat<lora:ink:0.5><lora:oil:-1:2>", "--lora-dir", "loras", *QUICK, "-o", "tags.png")
    options = ("--lora", "loras/ink.safetensors:0.5", "--lora", "loras/more/oil.safetensors:-1:2")
    generate(model, "a cat", *options, *QUICK, "-o", "options.png")
    assert np.ptp(pixels("tags.png").astype(int) - pixels("plain.png")) > 10
    np.testing.assert_array_equal(pixels("tags.png"), pixels("options.png"))
    generate(model, "a cat<lora:ink:0>", "--lora-dir", "loras", *QUICK, "-o", "zero.png")
    np.testing.assert_array_equal(pixels("zero.png"), pixels("plain.png"))


def test_metadata_are_those_of_a1111_and_make_the_image_again(model: str, loras: Path) -> None:
    options = ("--lora", "loras/ink.safetensors:1:0.5", "--lora-scale", "0.5")
    generate(model, "a cat <lora:oil>", "--lora-dir", "loras", *options, *QUICK, "-o", "made.png")
    said = told("made.png")
    assert said.prompt == "a cat <lora:ink:0.5:0.25><lora:oil:0.5>"
    hashes = [short_hash(loras / name) for name in ("ink.safetensors", "more/oil.safetensors")]
    assert said.settings["Lora hashes"] == f"ink: {hashes[0]}, oil: {hashes[1]}"
    error = generate(model, "--from", "made.png", "-o", "again.png", ok=False)
    assert (
        f"was made with the LoRAs 'ink: {hashes[0]}, oil: {hashes[1]}'; give the folder of its LoRAs with --lora-dir"
        in error
    )
    generate(model, "--from", "made.png", "--lora-dir", "loras", "-o", "again.png")
    np.testing.assert_array_equal(pixels("again.png"), pixels("made.png"))
    assert told("again.png") == said
    files = ("--lora", "loras/ink.safetensors:.5:.25", "--lora", "loras/more/oil.safetensors:0.5")
    generate(model, "--from", "made.png", *files, "-o", "files.png")
    np.testing.assert_array_equal(pixels("files.png"), pixels("made.png"))


def test_tags_without_effect_have_none_again(model: str) -> None:
    """They were left out, because nothing said where the files are."""
    for files, prompt in (
        ((), "a cat <lora:oil>"),
        (("--lora", "loras/ink.safetensors:0.5"), "a cat <lora:ink:0.5>"),
    ):
        generate(model, "a cat <lora:oil>", *files, *QUICK, "-o", "made.png")
        assert told("made.png").prompt == prompt
        generate(model, "--from", "made.png", "--lora-dir", "loras", "-f", "-o", "again.png")
        np.testing.assert_array_equal(pixels("again.png"), pixels("made.png"))


def test_a_plain_prompt_has_tags_as_words_and_files_as_options(model: str) -> None:
    files = ("--lora", "loras/ink.safetensors:0.5")
    plain = ("--prompt-syntax", "plain")
    generate(model, "a <lora:oil> cat", *files, *plain, *QUICK, "-o", "made.png")
    assert told("made.png").prompt == "a <lora:oil> cat<lora:ink:0.5>"
    error = generate(model, "--from", "made.png", "--lora-dir", "loras", "-o", "no.png", ok=False)
    assert "was made with the LoRAs 'ink: " in error
    assert "give each with --lora FILE:WEIGHT" in error
    generate(model, "--from", "made.png", *files, "-o", "again.png")
    np.testing.assert_array_equal(pixels("again.png"), pixels("made.png"))
    generate(model, "--from", "made.png", "--approximate", "-o", "without.png")
    generate(model, "a <lora:oil> cat", *plain, *QUICK, "-o", "base.png")
    np.testing.assert_array_equal(pixels("without.png"), pixels("base.png"))


def test_another_file_of_the_same_name_is_noticed(model: str, loras: Path) -> None:
    generate(model, "a cat <lora:ink>", "--lora-dir", "loras", *QUICK, "-o", "made.png")
    (loras / "ink.safetensors").write_bytes((loras / "more" / "oil.safetensors").read_bytes())
    again = ("--from", "made.png", "--lora-dir", "loras", "-o", "again.png")
    assert "was made with the LoRAs 'ink: " in generate(model, *again, ok=False)
    assert "these differ: 'Lora hashes' ('ink: " in generate(model, *again, "--approximate")


def test_renamed_files_are_found_by_their_hash(model: str, loras: Path) -> None:
    generate(model, "a cat <lora:ink:1:0.5>, <lora:oil>", "--lora-dir", "loras", *QUICK, "-o", "made.png")
    (loras / "ink.safetensors").rename(loras / "pen.safetensors")
    (loras / "more" / "oil.safetensors").rename(loras / "ink.safetensors")
    generate(model, "--from", "made.png", "--lora-dir", "loras", "-o", "again.png")
    np.testing.assert_array_equal(pixels("again.png"), pixels("made.png"))
    assert told("again.png").prompt == "a cat <lora:pen:1:0.5>, <lora:ink>"


def test_two_files_of_one_name(model: str, loras: Path) -> None:
    """In the metadata they have one name and two hashes."""
    (loras / "more" / "oil.safetensors").rename(loras / "more" / "ink.safetensors")
    files = ("--lora", "loras/ink.safetensors", "--lora", "loras/more/ink.safetensors:0.5")
    generate(model, "a cat", *files, *QUICK, "-o", "made.png")
    assert told("made.png").prompt == "a cat<lora:ink:1><lora:ink:0.5>"
    error = generate(model, told("made.png").prompt, "--lora-dir", "loras", *QUICK, "-o", "no.png", ok=False)
    assert "several files in loras are called 'ink': write the subfolder before the name" in error
    generate(model, "--from", "made.png", "--lora-dir", "loras", "-o", "again.png")
    np.testing.assert_array_equal(pixels("again.png"), pixels("made.png"))
    generate(model, "a cat", *files[:2], *QUICK, "-o", "one.png")
    assert not np.array_equal(pixels("one.png"), pixels("made.png"))


def test_a_missing_lora_is_named_before_any_image_is_made(model: str) -> None:
    error = generate(model, "a", "b <lora:ing>", "--lora-dir", "loras", *QUICK, "-o", "{seed}.png", ok=False)
    assert "no LoRA in loras is called 'ing' (did you mean ink?)" in error
    assert not list(Path().glob("*.png"))


@pytest.mark.parametrize("name", ["none", "loras/ink.safetensors"])
def test_a_folder_that_is_none_is_named_without_tags_too(model: str, name: str) -> None:
    error = generate(model, "a cat", "--lora-dir", name, *QUICK, "-o", "no.png", ok=False)
    assert error == f"error: --lora-dir {name} is no folder: expected a folder of .safetensors files\n"


def test_a_folder_with_several_files_says_how_the_command_names_one(model: str, loras: Path) -> None:
    (loras / "pen.safetensors").write_bytes((loras / "ink.safetensors").read_bytes())
    error = generate(model, "a cat", "--lora", "loras", *QUICK, "-o", "no.png", ok=False)
    assert "name one as FOLDER/FILE.safetensors, or with weight_name in Python" in error


def test_prompts_of_a_batch_may_have_other_loras(model: str) -> None:
    prompts = ("a cat<lora:ink>", "a cat<lora:oil>", "a cat")
    generate(model, *prompts, "--lora-dir", "loras", "-b", "3", "--count", "1", *QUICK, "-o", "{seed}.png")
    for number, prompt in enumerate(prompts, 1):
        generate(model, prompt, "--lora-dir", "loras", *QUICK, "-s", str(number), "-o", "alone.png")
        np.testing.assert_array_equal(pixels(f"{number}.png"), pixels("alone.png"))


@pytest.mark.parametrize("axis", ["lora_scale=0,1", "lora=loras/ink.safetensors:0,loras/ink.safetensors:1"])
def test_weights_are_an_axis(model: str, axis: str) -> None:
    tag = "<lora:ink>" if axis.startswith("lora_scale") else ""
    result = run(
        "plot", "-m", model, f"a cat{tag}", "--lora-dir", "loras", "-x", axis, *QUICK, "-o", "plot.png"
    )
    assert result.exit_code == 0, result.stderr
    sheet = pixels("plot.png").astype(int)
    generate(model, "a cat", *QUICK, "-o", "plain.png")
    generate(model, "a cat<lora:ink>", "--lora-dir", "loras", *QUICK, "-o", "changed.png")
    shown = [window(sheet, pixels(name)) for name in ("plain.png", "changed.png")]
    assert None not in shown
    assert shown[0] < shown[1]


def window(sheet: np.ndarray, image: np.ndarray) -> tuple[int, int] | None:
    """Where an image is on a sheet: the column and the row."""
    height, width = image.shape[:2]
    for column in range(sheet.shape[1] - width + 1):
        for row in range(sheet.shape[0] - height + 1):
            if np.array_equal(sheet[row : row + height, column : column + width], image):
                return column, row
    return None


def test_a_missing_lora_of_a_prompts_file_is_named_with_its_line(model: str, folder: Path) -> None:
    lines = '{"prompt": "a cat", "lora": "loras/ink.safetensors"}\n{"prompt": "a", "lora": "loras/none.safetensors"}\n'
    (folder / "prompts.txt").write_text(lines)
    error = generate(model, "--prompts-file", "prompts.txt", *QUICK, "-o", "file-{index}.png", ok=False)
    assert error.startswith("error: prompts.txt, line 2: there is no LoRA file loras/none.safetensors: ")


def test_a_scale_without_a_lora_is_said(model: str) -> None:
    words = "--lora-scale has no effect without a LoRA"
    assert words in generate(model, "a cat", "--lora-scale", "2", *QUICK, "-o", "a.png")
    files = ("--lora", "loras/ink.safetensors:0.1")
    assert words not in generate(model, "a cat", *files, "--lora-scale", "2", *QUICK, "-o", "a.png")


def test_a_prompts_file_has_loras(model: str, folder: Path) -> None:
    (folder / "prompts.txt").write_text(
        '{"prompt": "a cat", "lora": "loras/ink.safetensors:0.5"}\n'
        '{"prompt": "a cat", "lora": ["loras/ink.safetensors:0.25", "loras/ink.safetensors:0.25"], "seed": 1}\n'
    )
    generate(model, "--prompts-file", "prompts.txt", *QUICK, "-o", "file-{index}.png")
    generate(model, "a cat", "--lora", "loras/ink.safetensors:0.5", *QUICK, "-o", "option.png")
    first, second = sorted(Path().glob("file-*.png"))
    np.testing.assert_array_equal(pixels(str(first)), pixels("option.png"))
    assert np.abs(pixels(str(second)).astype(int) - pixels("option.png")).max() <= 1
