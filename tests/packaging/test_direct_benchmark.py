"""`python -m benchmarks direct`: what it runs, and how it judges."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from benchmarks import direct, measure
from benchmarks.bars import met


@pytest.fixture(autouse=True)
def _no_touching(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds, and these tests compare no times."""
    monkeypatch.setattr(measure, "touch_free_memory", lambda: None)


@pytest.mark.full
def test_an_architecture_runs_both_ways(tmp_path: Path) -> None:
    figures = direct.compare(tmp_path, "tiny", 1, [direct.EXPORTED, direct.FOLDER])
    assert set(figures["systems"]) == {direct.EXPORTED, direct.FOLDER}
    assert figures["ratios"][direct.FOLDER]["own_bytes"]["median"] < 2
    text = direct.table(figures)
    assert "tiny, random weights" in text
    assert "time to the first step" in text


@pytest.mark.parametrize(("seconds", "verdict"), [(12.0, "met"), (14.0, "NOT met")])
def test_the_goal_is_a_ratio_within_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, verdict: str
) -> None:
    cost: Mapping[str, float] = {direct.EXPORTED: 10.0, direct.FOLDER: seconds}

    def run(command: Any, log: Path, *, environment: Mapping[str, str]) -> measure.Run:
        took = cost[command[-1].name]
        return measure.Run(
            seconds=took,
            cpu_seconds=took,
            system_seconds=0.0,
            own_bytes=1,
            resident_bytes=1,
            device_bytes=None,
            result={},
        )

    def model(name: str, work: Path, log: Path, architecture: str) -> Path:
        (tmp_path / name).touch()
        return tmp_path / name

    monkeypatch.setattr(direct, "run", run)
    monkeypatch.setattr(direct, "_model", model)
    figures = direct.compare(tmp_path, "sd15", 2, list(cost))
    assert [bar["verdict"] for bar in figures["bars"]] == [verdict, "not measured"]
    assert met(figures) == (verdict == "met")
