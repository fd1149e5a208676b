"""The commands that judge a model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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


@pytest.mark.full
def test_changes_are_compared_image_by_image(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["--prompts", "2", "--steps", "15", "--provider", "cpu", "--json", str(report)]
    arguments += ["--seeds", "2", "--accelerate", "balanced", "--accelerate", "fast"]
    result = CliRunner().invoke(evaluate.main, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told = json.loads(report.read_text())
    assert [one["accelerate"] for one in told["changes"]] == ["balanced", "fast"]
    for one in told["changes"]:
        assert one["calls"] < one["evaluations"] == 15
        assert 10 < one["psnr"]["5 % below"] <= one["psnr"]["median"] < 99
        everything, before = one["rates"]["everything"], told["rates"]["everything"]
        assert everything["total"] == before["total"] == one["everything"]["total"] == 4
        assert (
            everything["right"] - before["right"] == one["everything"]["gained"] - one["everything"]["lost"]
        )
        assert f"{one['everything']['lost']} lost" in result.output


@pytest.mark.full
def test_an_interval_is_a_change(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    arguments = ["--prompts", "1", "--steps", "4", "--provider", "cpu", "--json", str(report)]
    result = CliRunner().invoke(evaluate.main, [*arguments, "--guidance-interval", "0.25", "1"])
    assert result.exit_code == 0, result.output
    (change,) = json.loads(report.read_text())["changes"]
    assert change["guidance_interval"] == [0.25, 1]
    assert change["psnr"]["mean"] < 99


def test_each_seed_has_noise_of_its_own() -> None:
    made = list[tuple[int, int]]()

    def pipeline(prompts: list[str], **options: Any) -> SimpleNamespace:
        made.append((len(prompts), options["seed"]))
        return SimpleNamespace(images=[Image.new("RGB", (128, 128))] * len(prompts), timings={"unet": [0.0]})

    found = evaluate.measure(pipeline, 3, evaluate.Settings(seed=5, seeds=2, batch=2))  # type: ignore[arg-type]
    assert made == [(2, 5), (1, 7), (2, 8), (1, 10)]
    assert found["count"].total == 6


def test_a_difference_has_the_interval_of_pairs() -> None:
    before, after = [True] * 80 + [False] * 20, [True] * 75 + [False] * 5 + [True] * 2 + [False] * 18
    found = scoring.Difference.of(before, after)
    assert (found.lost, found.gained, found.total) == (5, 2, 100)
    assert found.share == pytest.approx(-0.03)
    # Agresti and Min: half an image more in each cell, and Wald's interval: -3/102 ± 1.96·√(8 - 9/102)/102.
    assert (found.low, found.high) == (pytest.approx(-0.0835, abs=1e-4), pytest.approx(0.0246, abs=1e-4))
    # With no pair that differs, the interval is not empty.
    assert scoring.Difference(lost=0, gained=0, total=100).low < -0.01


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
        (("--seeds", "0"), 2, "--seeds"),
        (("--negative", "--accelerate", "fast"), 2, "--negative is measured alone"),
        (("--accelerate", "nope"), 2, "accelerate"),
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
