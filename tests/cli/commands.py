"""Runs commands, and looks at the files that they write."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner, Result
from PIL import Image

from sdrt.cli import main
from sdrt.images.metadata import Parameters, read_parameters


def run(*arguments: str | Path, stdin: str | None = None) -> Result:
    """Run `sdrt` with these arguments."""
    return CliRunner().invoke(main, [str(one) for one in arguments], prog_name="sdrt", input=stdin)


def generate(model: str, *arguments: str, prompt: str = "a red circle") -> Result:
    """Make an image in two steps."""
    return run("generate", prompt, "-m", model, "--steps", "2", *arguments)


def pixels(path: Path | str) -> bytes:
    """The pixels of an image in a file."""
    with Image.open(path) as image:
        return image.convert("RGB").tobytes()


def told(path: str | Path) -> Parameters:
    """What the metadata of an image in a file say."""
    return Parameters.parse(read_parameters(Path(path))[1] or "")
