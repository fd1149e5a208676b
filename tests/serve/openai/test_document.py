"""docs/serve-openai.md: its program runs, and its tables have every field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from sdrt.serve.routes.openai.fields import Edit, Generation, Variation
from tests.serve.core.running import Running

TEXT = (Path(__file__).parents[3] / "docs/serve-openai.md").read_text("utf-8")


def test_its_program_makes_the_images(
    server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    program = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(program) == 1
    assert "http://127.0.0.1:7860" in program[0]
    exec(program[0].replace("http://127.0.0.1:7860", server.url), {})
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [
        "circle.png",
        *(f"square-{number}.png" for number in range(3)),
    ]
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            assert image.size == (128, 128)


def test_its_tables_have_every_field() -> None:
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", TEXT, re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"\w+", row)}
    fields = {name for kind in (Generation, Edit, Variation) for name in kind.model_fields}
    assert told == fields | {"image", "mask"}
