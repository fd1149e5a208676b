"""Images through the standard streams: `-i -`, `--mask -` and `-o -`."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sdrt import read_metadata
from sdrt.cli import main

if os.name == "posix":
    import pty

FAST = ["--steps", "2", "--seed", "3", "--threads", "1", "--quiet", "--provider", "cpu"]


def generate(*arguments: str, given: bytes = b"") -> Result:
    return CliRunner().invoke(main, ["generate", *arguments, *FAST], input=given)


def png(mode: str = "RGB", colour: object = "red", name: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (64, 64), colour).save(buffer, format=name)  # type: ignore[arg-type]
    return buffer.getvalue()


def test_output_to_a_pipe_is_the_file_s_bytes(folder: Path, model: str) -> None:
    piped = generate("a cat", "-m", model, "-o", "-", "-W", "64", "-H", "64")
    assert piped.exit_code == 0, piped.output
    assert generate("a cat", "-m", model, "-o", "a.png", "-W", "64", "-H", "64").exit_code == 0
    assert piped.stdout_bytes == Path("a.png").read_bytes()
    assert piped.stderr == ""
    Path("b.png").write_bytes(piped.stdout_bytes)
    assert read_metadata("b.png").prompt == "a cat"
    assert not Path("-").exists()


@pytest.mark.parametrize("option", ["-i", "--mask"])
def test_input_from_a_pipe_is_the_file_s(folder: Path, model: str, option: str) -> None:
    content = {"-i": png(), "--mask": png("L", 255)}
    Path("i.png").write_bytes(content["-i"])
    Path("mask.png").write_bytes(content["--mask"])
    files = {"-i": "i.png", "--mask": "mask.png"}
    of_file = [text for pair in files.items() for text in pair]
    of_pipe = [text for pair in (files | {option: "-"}).items() for text in pair]
    assert generate("a cat", "-m", model, *of_file, "-o", "a.png").exit_code == 0
    piped = generate("a cat", "-m", model, *of_pipe, "-o", "b.png", given=content[option])
    assert piped.exit_code == 0, piped.output
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            b"%!PS-Adobe-3.0 EPSF-3.0",
            "error: --image (23 bytes) is an EPS or PostScript file: expected an image in PNG",
        ),
        (b"hello", "error: --image (5 bytes) is not an image: expected an image in PNG"),
        (b"", "error: --image (0 bytes) is empty"),
        (png(name="PPM"), "is a Netpbm image: expected an image in PNG"),
    ],
)
def test_what_is_no_image_is_one_line(folder: Path, given: bytes, message: str) -> None:
    refused = generate("a cat", "-i", "-", "-o", "a.png", given=given)
    assert refused.exit_code == 2
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "-i", "-", "--mask", "-"], "-i and --mask both read standard input"),
        (["--prompts-file", "-", "-i", "-"], "--prompts-file and -i both read standard input"),
        (["a", "b", "-o", "-"], "-o - writes one image to standard output, and there are 2"),
        (["a", "-o", "-", "--json"], "-o - and --json both write to standard output"),
        (["a", "-o", "-", "--grid"], "-o - writes one image, and --grid a second one"),
        (["a", "--preview-file", "-"], "--preview-file - has the extension ''"),
    ],
)
def test_a_stream_that_two_would_use(folder: Path, arguments: list[str], message: str) -> None:
    refused = generate(*arguments, given=b"a prompt")
    assert refused.exit_code == 2
    assert message in refused.stderr


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
def test_a_terminal_gets_no_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sdrt.cli.generate.streams import check_stdout
    from sdrt.errors import RequestError

    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        with pytest.raises(RequestError, match="is a terminal: expected a pipe or a file"):
            check_stdout([0])
    os.close(ours)


def test_plot_writes_its_sheet_to_a_pipe(folder: Path, model: str) -> None:
    made = CliRunner().invoke(
        main, ["plot", "a cat", "-m", model, "-x", "steps=1,2", "-W", "64", "-H", "64", "-o", "-", *FAST[2:]]
    )
    assert made.exit_code == 0, made.output
    assert made.stdout_bytes.startswith(b"\x89PNG")
