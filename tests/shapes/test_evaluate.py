"""The commands that judge a model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from sdrt_models.shapes import evaluate, scoring
from sdrt_models.shapes.recognise import Seen
from sdrt_models.shapes.scoring import ATTRIBUTES


def test_a_table_and_the_same_as_json(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["--prompts", "3", "--steps", "1", "--provider", "cpu", "--json", str(report)]
    result = CliRunner().invoke(evaluate.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told = json.loads(report.read_text())
    assert told["settings"]["prompts"] == 3
    assert told["settings"]["dtype"] == "float16"
    _, table = result.output.split("\n\n")
    for name in ATTRIBUTES:
        rate = told["rates"][name]
        assert f"{rate['right']}/{rate['total']}" in next(line for line in table.splitlines() if name in line)
    assert told["rates"]["count"]["total"] == 3


def test_what_a_negative_prompt_does_to_images_without_a_background(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    red = Image.new("RGB", (128, 128), (220, 30, 30))
    monkeypatch.setattr(evaluate, "_generate", lambda _pipeline, prompts, *_: [red] * len(prompts))
    found = evaluate.measure_negative_prompt(None, 4, evaluate.Settings())  # type: ignore[arg-type]
    assert found["kept"].total == 0
    assert (found["drawn"].right, found["drawn"].total) == (0, 4)


def test_a_recogniser_at_fault_judges_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "recognise", lambda image, shapes: Seen(things=(), shades=("white",)))
    result = CliRunner().invoke(evaluate.main, ["--prompts", "1"])
    assert result.exit_code == 1
    assert "fix it first" in result.output


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-m", "nosuch"), 3, "nosuch"),
        (("--scheduler", "nope"), 2, "unknown scheduler 'nope'"),
        (("--prompts", "0"), 2, "--prompts"),
        (("--batch", "0"), 2, "--batch"),
        (("--json", "nowhere/report.json"), 2, "nowhere"),
    ],
)
def test_wrong_arguments_are_one_line(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.setattr(evaluate, "_validate", lambda: None)
    result = CliRunner().invoke(evaluate.main, ["--prompts", "1", "--steps", "1", *arguments])
    assert result.exit_code == code, result.output
    assert said in result.output
    assert not isinstance(result.exception, (OSError, ValueError))
