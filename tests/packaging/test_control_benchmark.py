"""`python -m benchmarks control`: what it runs, and how it judges."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from benchmarks import control, measure
from benchmarks.bars import met

OPTIONS: dict[str, Any] = {"architecture": "tiny", "rounds": 2, "size": 64, "controlnet": None}


def test_a_step_is_measured(tmp_path: Path) -> None:
    figures = control.compare(tmp_path, Namespace(**OPTIONS))
    assert set(figures["seconds"]) == {"plain step", "ControlNet", "both parts", "step with it"}
    for turn in figures["turns"]:
        for key in ("step", "cpu"):
            assert turn["both parts"][key] == turn["plain step"][key] + turn["ControlNet"][key]
            assert turn["step with it"][key] > 0
    # Both of the U-Net's graphs have run.
    assert sorted(figures["graphs"]) == ["controlnet", "text_encoder", "unet", "unet"]
    assert (tmp_path / "controlnet" / "config.json").is_file()
    assert "tiny, random weights, 64x64" in control.table(figures)


@pytest.mark.parametrize(("seconds", "verdict"), [(3.1, "met"), (3.2, "NOT met")])
def test_the_goal_is_a_ratio_within_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, verdict: str
) -> None:
    taken = {"plain step": 2.0, "ControlNet": 1.0, "step with it": seconds}
    turns = [
        {name: {"step": one * slow, "cpu": one} for name, one in taken.items()} for slow in (1.0, 2.0, 9.0)
    ]

    def run(*_: Any, **__: Any) -> measure.Run:
        return measure.Run(
            seconds=1.0,
            cpu_seconds=1.0,
            system_seconds=0.0,
            own_bytes=1,
            resident_bytes=1,
            device_bytes=None,
            result={"turns": turns, "graphs": []},
        )

    monkeypatch.setattr(control, "run", run)
    monkeypatch.setattr(control, "make", lambda *_, **__: tmp_path / "model")
    monkeypatch.setattr(control, "checkpoint", lambda *_: tmp_path / "model")
    monkeypatch.setattr(control, "write_controlnet", lambda unet, folder: folder)
    figures = control.compare(tmp_path, Namespace(**OPTIONS))
    assert [bar["verdict"] for bar in figures["bars"]] == [verdict]
    assert figures["ratios"]["step with it"]["step"]["median"] == pytest.approx(seconds / 3)
    assert met(figures) == (verdict == "met")
