from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from sdrt import RequestError
from sdrt.images.metadata import Parameters, read_parameters, save_options

SETTINGS = {
    "Steps": "20",
    "Sampler": "DPM++ 2M Karras",
    "CFG scale": "7.5",
    "Seed": "1",
    "Size": "512x512",
    "Model": "name",
    "RNG": "CPU",
    "Version": "sdrt 0.1.0",
}
LINE = (
    "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7.5, Seed: 1, Size: 512x512, "
    "Model: name, RNG: CPU, Version: sdrt 0.1.0"
)


def test_text_is_prompt_then_negative_prompt_then_one_line_of_settings() -> None:
    parameters = Parameters(prompt="a castle,\nat dawn", negative_prompt="blurry", settings=SETTINGS)
    assert str(parameters) == f"a castle,\nat dawn\nNegative prompt: blurry\n{LINE}"


def test_empty_prompts_leave_no_line() -> None:
    assert str(Parameters(settings=SETTINGS)) == LINE
    assert Parameters.parse(LINE) == Parameters(settings=SETTINGS)


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a castle", ""),
        ("", "blurry"),
        ("two\nlines", "three\nmore\nlines"),
        ("Steps: 3, Seed: 4", "a, b: c"),
        ("日本 \N{ROCKET}", 'quoted "words"'),
        ("  spaces around  ", ""),
        ("\nan empty line first", ""),
    ],
)
def test_parse_is_the_inverse(prompt: str, negative: str) -> None:
    parameters = Parameters(prompt=prompt, negative_prompt=negative, settings=SETTINGS)
    assert Parameters.parse(str(parameters)) == parameters


@pytest.mark.parametrize(
    "name", ["a, b", "a: b", 'say "cheese"', "back\\slash, comma", "two\nlines", '"', " spaces ", "plain"]
)
def test_values_that_would_break_the_line_are_quoted(name: str) -> None:
    parameters = Parameters(prompt="p", settings=SETTINGS | {"Model": name})
    assert Parameters.parse(str(parameters)).settings["Model"] == name


def test_a_value_with_a_comma_is_a_json_string() -> None:
    assert f"Model: {json.dumps('a, b')}" in str(Parameters(settings=SETTINGS | {"Model": "a, b"}))


def test_text_of_another_program_is_read() -> None:
    text = (
        "masterpiece, (cat:1.2)\nNegative prompt: dog\nSteps: 28, Sampler: Euler a, "
        'Schedule type: Automatic, CFG scale: 7, Seed: 3, Lora hashes: "a: 1, b: 2", Version: v1.10.1'
    )
    parsed = Parameters.parse(text)
    assert parsed.prompt == "masterpiece, (cat:1.2)"
    assert parsed.negative_prompt == "dog"
    assert parsed.settings["Schedule type"] == "Automatic"
    assert parsed.settings["Lora hashes"] == "a: 1, b: 2"


def test_text_without_settings_is_all_prompt() -> None:
    assert Parameters.parse("just: a\nprompt: here") == Parameters(prompt="just: a\nprompt: here")


@pytest.mark.parametrize(("suffix", "name"), [("png", "PNG"), ("jpg", "JPEG"), ("webp", "WEBP")])
@pytest.mark.parametrize("prompt", ["plain", "Grüße \N{ROCKET} 日本"])
def test_every_format_gives_the_text_back(tmp_path: Path, suffix: str, name: str, prompt: str) -> None:
    text = str(Parameters(prompt=prompt, settings=SETTINGS))
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (16, 8)).save(path, **save_options(name, text))
    assert read_parameters(path) == ({"format": name, "width": 16, "height": 8}, text)


@pytest.mark.parametrize(("prompt", "chunk"), [("plain", b"tEXtparameters\0"), ("日本", b"iTXtparameters\0")])
def test_png_uses_the_chunk_that_other_programs_read(tmp_path: Path, prompt: str, chunk: bytes) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(path, **save_options("PNG", prompt))
    assert chunk in path.read_bytes()


def test_exif_comment_is_the_one_that_other_programs_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path, **save_options("JPEG", "text"))
    assert b"UNICODE\0" + "text".encode("utf-16-be") in path.read_bytes()


def test_an_image_without_text_has_none(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert read_parameters(tmp_path / "a.png")[1] is None


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1\x00\x10Exif\0\0"]
)
def test_what_is_no_image_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(RequestError, match=r"a\.png (is not an image|is empty|is damaged|cannot be read)"):
        read_parameters(path)


def test_exif_that_ends_early_is_no_concern(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x0e\0\x02")
    about, text = read_parameters(tmp_path / "a.jpg")
    assert (about["width"], text) == (8, None)


def test_the_pixels_of_a_png_with_a_text_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = str(Parameters(prompt="p", settings=SETTINGS))
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", **save_options("PNG", text))

    def decode(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    assert read_parameters(tmp_path / "a.png")[1] == text
