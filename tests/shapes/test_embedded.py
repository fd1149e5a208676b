"""The embedded model judged by what its images show. Bounds are below what is measured in MODEL_CARD.md, by more
than 40 prompts scatter, and far above what a broken sampler gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import sdrt_models
from sdrt import StableDiffusionPipeline
from sdrt_models.shapes.distance import psnr
from sdrt_models.shapes.evaluate import (
    Settings,
    held_out_prompts,
    measure,
    measure_changes,
    measure_negative_prompt,
)
from sdrt_models.shapes.scenes import is_held_out
from sdrt_models.shapes.scoring import Rate

PROMPTS = 40


@pytest.fixture(scope="module")
def shapes() -> Iterator[StableDiffusionPipeline]:
    with StableDiffusionPipeline.from_pretrained("shapes", provider="cpu", notify=lambda _: None) as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def found(shapes: StableDiffusionPipeline) -> dict[str, Rate]:
    return measure(shapes, PROMPTS, Settings())


def test_it_draws_what_it_is_asked_for(found: dict[str, Rate]) -> None:
    assert found["colour"].share >= 0.95
    assert found["shape"].share >= 0.90
    assert found["relation"].share >= 0.90
    assert found["everything"].share >= 0.80


@pytest.mark.full
def test_guidance_matters(shapes: StableDiffusionPipeline, found: dict[str, Rate]) -> None:
    unguided = measure(shapes, PROMPTS, Settings(guidance_scale=1.0))
    assert unguided["everything"].share < found["everything"].share - 0.1


def test_fewer_calls_draw_the_same(shapes: StableDiffusionPipeline) -> None:
    changes = [Settings(accelerate="balanced"), Settings(accelerate="fast")]
    usual, found = measure_changes(shapes, 8, Settings(), changes)
    for change, most, least_psnr in zip(found, (0.55, 0.4), (30, 22), strict=True):
        assert change.distance.evaluations == 20
        assert change.distance.calls <= most * 20
        # A run with another seed is at about 10 dB.
        assert change.distance.mean >= least_psnr
        assert change.rates["colour"].right >= usual["colour"].right - 1


@pytest.mark.parametrize("steps", [4, 8])
def test_nothing_changes_in_short_runs(shapes: StableDiffusionPipeline, steps: int) -> None:
    settings = Settings(num_inference_steps=steps)
    fast = replace(settings, accelerate="fast")
    _, (change,) = measure_changes(shapes, 2, settings, [fast])
    assert change.distance.calls == change.distance.evaluations == steps
    assert change.distance.psnr == [99, 99]
    assert (change.difference.lost, change.difference.gained) == (0, 0)


def test_psnr_is_that_of_its_definition() -> None:
    black = Image.new("RGB", (4, 4))
    assert psnr(black, black) == 99
    assert psnr(black, Image.new("RGB", (4, 4), "white")) == 0
    # An error of a fifth of the peak.
    assert psnr(black, Image.new("L", (4, 4), 51).convert("RGB")) == pytest.approx(13.98, abs=0.01)


@pytest.mark.full
def test_a_negative_prompt_takes_away_what_it_names(shapes: StableDiffusionPipeline) -> None:
    found = measure_negative_prompt(shapes, 24, Settings())
    assert found["kept"].share <= 0.7
    assert found["drawn"].share >= 0.7


def test_prompts_are_held_out_and_different() -> None:
    prompts = held_out_prompts(200)
    assert len({text for text, _ in prompts}) == 200
    assert all(is_held_out(scene) for _, scene in prompts)


def test_it_is_small() -> None:
    files = [path for path in sdrt_models.path("shapes").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 30e6


def test_the_command_needs_no_network(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "def refuse(event, _):\n"
        "    if event.startswith('socket.') and event != 'socket.__new__': raise SystemExit(f'network: {event}')\n"
        "sys.addaudithook(refuse)\n"
        "from sdrt.__main__ import main\n"
        "main()"
    )
    offline = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    command = [sys.executable, "-c", code, "generate", "a red circle", "--steps", "2", "-o", "a.png"]
    done = subprocess.run(command, cwd=tmp_path, env=offline, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "a.png\n"), done.stderr
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (128, 128)
