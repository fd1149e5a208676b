"""`python -m benchmarks start`: what it runs, and how it judges."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from benchmarks import measure, start
from benchmarks.bars import judge_start
from benchmarks.one_image import FIRST_STEP, IMAGE


@pytest.fixture(autouse=True)
def _no_touching(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds, and these tests compare no times."""
    monkeypatch.setattr(measure, "touch_free_memory", lambda: None)


def options(**changes: Any) -> Namespace:
    given = {"architecture": "tiny", "rounds": 1, "side": 64, "steps": 1, "baseline": None, "python": None}
    kept = {"systems": f"{start.EXPORTED},{start.TUNED}", "until": IMAGE}
    return Namespace(**{**given, **kept, **changes})


@pytest.mark.full
def test_a_model_starts_tuned_and_untuned(tmp_path: Path) -> None:
    figures = start.compare(tmp_path, options())
    assert list(figures["systems"]) == [start.EXPORTED, start.TUNED]
    tuned = list((tmp_path / "cache" / "compiled").rglob("tuned.json"))
    assert len(tuned) == 4
    assert list((tmp_path / "pycache").rglob("pipeline.*.pyc"))
    assert all(turn[name]["seconds"] > 0 for turn in figures["turns"] for name in turn)
    text = start.table(figures)
    assert "tiny, random weights, 64x64, 1 steps, until the image" in text
    assert "not measured" in text


@pytest.mark.parametrize("name", [start.EXPORTED, pytest.param(start.DIFFUSERS, marks=pytest.mark.full)])
def test_the_first_step_ends_a_turn(tmp_path: Path, name: str) -> None:
    if name == start.DIFFUSERS:
        pytest.importorskip("diffusers")
    figures = start.compare(tmp_path, options(systems=name, until=FIRST_STEP))
    assert list(figures["systems"]) == [name]
    assert not list(tmp_path.glob("*.png"))
    assert "until the first step" in start.table(figures)


@pytest.mark.parametrize(
    ("seconds", "own", "verdicts"), [(2.0, 30, ["met"] * 3), (3.0, 40, ["NOT met", "met", "NOT met"])]
)
def test_the_goals_are_ratios_to_0_1_0(seconds: float, own: float, verdicts: list[str]) -> None:
    turn = {
        start.RELEASED: {"seconds": 10.0, "own_bytes": 100.0},
        start.DIFFUSERS: {"seconds": 9.0, "own_bytes": 100.0},
        start.TUNED: {"seconds": seconds, "own_bytes": own},
    }
    assert [bar["verdict"] for bar in judge_start([turn, turn])] == verdicts


@pytest.mark.parametrize(
    ("whole", "limits"), [((512, 20), [1.9, 2.8]), ((512, 50), [2.8, 4.0]), ((64, 20), []), (None, [])]
)
def test_fewer_calls_have_goals_for_whole_images(whole: tuple[int, int] | None, limits: list[float]) -> None:
    turn = {name: {"seconds": 10.0, "own_bytes": 1.0} for name in (start.RELEASED, *start.ACCELERATED)}
    found = [bar for bar in judge_start([turn], whole=whole) if bar["system"] in start.ACCELERATED]
    assert [bar["wanted"] for bar in found] == [f"at least {limit:g}x as fast as 0.1.0" for limit in limits]
    assert {bar["verdict"] for bar in found} <= {"NOT met"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--systems", "tuned"), "unknown system 'tuned': choose from 0.1.0, "),
        (("--systems", "exported,fast", "--until", FIRST_STEP), "fast leaves out later steps only: "),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments: tuple[str, ...], told: str) -> None:
    with pytest.raises(SystemExit, match=told):
        start.main(arguments)
