"""What is no model, given as one: a line that says what it is, exit code 3, and nothing written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

import sdrt
from sdrt.cli import main
from tests.wrong_models import WRONG_MODELS


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_it_is_named(folder: Path, name: str) -> None:
    make, words = WRONG_MODELS[name]
    make(folder / name)
    before = sorted(folder.iterdir())
    done = CliRunner().invoke(main, ["generate", "-m", f"./{name}", "a red circle", "-o", "image.png"])
    assert done.exit_code == 3, done.output
    (line,) = done.stderr.splitlines()
    assert re.search(f"^error: .*{words}", line), line
    assert sorted(folder.iterdir()) == before


def test_from_pretrained(folder: Path) -> None:
    for name, (make, words) in WRONG_MODELS.items():
        make(folder / name)
        with pytest.raises(sdrt.ModelError, match=words):
            sdrt.StableDiffusionPipeline.from_pretrained(folder / name)
