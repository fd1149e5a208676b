"""`python -m benchmarks processes`: what it measures, and how it judges."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest

pytest.importorskip("onnx")

from benchmarks import measure, processes
from benchmarks.bars import judge_processes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.full
def test_processes_that_share_a_model_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "touch_free_memory", lambda: None)
    options = Namespace(architecture="tiny", count=2, rounds=1, side=64, steps=1)
    figures = processes.compare(tmp_path, options)
    (turn,) = figures["turns"]
    one, together = turn[processes.ONE], turn[processes.TOGETHER]
    assert 0 < one["own_bytes"] < one["shared_bytes"]
    assert one["shared_bytes"] < together["shared_bytes"]
    assert all((tmp_path / f"{number}.png").is_file() for number in range(2))
    assert "tiny, random weights, 64x64, 1 steps, 2 at once" in processes.table(figures)


@pytest.mark.parametrize(("bytes_together", "verdict"), [(19, "met"), (21, "NOT met")])
def test_the_goal_is_twice_the_memory_of_one(bytes_together: int, verdict: str) -> None:
    turn = {
        processes.ONE: {"shared_bytes": 10.0},
        processes.TOGETHER: {"shared_bytes": float(bytes_together)},
    }
    assert [bar["verdict"] for bar in judge_processes([turn])] == [verdict]
