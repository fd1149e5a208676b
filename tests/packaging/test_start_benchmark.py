"""`python -m benchmarks start`: what it runs, and how it judges."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from benchmarks import measure, start
from benchmarks.bars import judge_start


@pytest.fixture(autouse=True)
def _no_touching(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds, and these tests compare no times."""
    monkeypatch.setattr(measure, "touch_free_memory", lambda: None)


def options(**changes: Any) -> Namespace:
    given = {"architecture": "tiny", "rounds": 1, "side": 64, "steps": 1, "baseline": None, "python": None}
    return Namespace(**{**given, "systems": f"{start.EXPORTED},{start.TUNED}", **changes})


def test_a_model_starts_tuned_and_untuned(tmp_path: Path) -> None:
    figures = start.compare(tmp_path, options())
    assert list(figures["systems"]) == [start.EXPORTED, start.TUNED]
    tuned = list((tmp_path / "cache" / "compiled").rglob("tuned.json"))
    assert len(tuned) == 4
    assert list((tmp_path / "pycache").rglob("pipeline.*.pyc"))
    assert all(turn[name]["seconds"] > 0 for turn in figures["turns"] for name in turn)
    text = start.table(figures)
    assert "tiny, random weights, 64x64, 1 steps" in text
    assert "not measured" in text


@pytest.mark.parametrize(
    ("seconds", "own", "verdicts"), [(2.0, 30, ["met", "met"]), (3.0, 40, ["NOT met"] * 2)]
)
def test_the_goals_are_ratios_to_0_1_0(seconds: float, own: float, verdicts: list[str]) -> None:
    turn = {
        start.RELEASED: {"seconds": 10.0, "own_bytes": 100.0},
        start.TUNED: {"seconds": seconds, "own_bytes": own},
    }
    assert [bar["verdict"] for bar in judge_start([turn, turn])] == verdicts
