"""`python -m benchmarks lora`: what it runs, and how it judges."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")

from benchmarks import lora, measure
from benchmarks.bars import met

OPTIONS: dict[str, Any] = {"architecture": "tiny", "rounds": 1, "rank": 2, "convolutions": True}


@pytest.fixture(autouse=True)
def _no_touching(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds, and these tests compare no times."""
    monkeypatch.setattr(lora, "touch_free_memory", lambda: None)


@pytest.mark.full
@pytest.mark.parametrize("model", [lora.EXPORTED, lora.FOLDER])
def test_a_change_is_measured(tmp_path: Path, model: str) -> None:
    figures = lora.compare(tmp_path, Namespace(**OPTIONS, model=model))
    assert set(figures["systems"]) == {"anew", "added", "changed"}
    assert figures["changed_bytes"] > 10_000
    # Loading the U-Net takes milliseconds even here; without it, only the request is planned.
    assert all(turn["loaded"] for turn in figures["turns"][0].values())
    text = lora.table(figures)
    assert f"tiny, random weights, {model}" in text
    assert "time to change a LoRA" in text


@pytest.mark.parametrize(
    ("seconds", "more", "verdicts"), [(1.2, 0.9, ["met", "met"]), (1.4, 1.1, ["NOT met", "NOT met"])]
)
def test_the_goals_are_ratios_within_a_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, more: float, verdicts: list[str]
) -> None:
    def run(command: Any, log: Path, *, environment: Any) -> measure.Run:
        loras = [one for one in command if str(one).endswith(".safetensors")]
        took, size = (seconds, more) if loras else (1.0, 0.0)
        result = {"seconds": took, "cpu_seconds": took, "changed_bytes": 1000 if loras else 0}
        own = int(5000 + 1000 * size)
        return measure.Run(
            seconds=took,
            cpu_seconds=took,
            system_seconds=0.0,
            own_bytes=own,
            resident_bytes=own,
            device_bytes=None,
            result=result,
        )

    monkeypatch.setattr(lora, "run", run)
    monkeypatch.setattr(lora, "make", lambda *_, **__: tmp_path / "model")
    monkeypatch.setattr(lora, "checkpoint", lambda *_: tmp_path / "model")
    monkeypatch.setattr(lora, "write_lora", lambda model, path, **_: path)
    figures = lora.compare(tmp_path, Namespace(**OPTIONS | {"rounds": 2}, model=lora.EXPORTED))
    assert [bar["verdict"] for bar in figures["bars"]] == verdicts * 2
    assert met(figures) == (verdicts[0] == "met")
