"""The comparison with other systems: what is missing is said, and bars are judged as they read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def verdicts(device: str, *turns: dict[str, dict[str, float]]) -> dict[str, tuple[Any, str]]:
    from bars import judge

    return {bar["bar"]: (bar["figure"], bar["verdict"]) for bar in judge(device, "sdrt", turns)}


def test_bars_are_judged_by_the_median_of_the_ratios_within_rounds() -> None:
    # The machine slowed down in the second round, for both.
    first = {"sdrt": {"step": 1.0, "own": 5.0}, "optimum": {"step": 1.1, "own": 10.0}}
    second = {"sdrt": {"step": 4.0, "own": 5.0}, "optimum": {"step": 4.4, "own": 8.0}}
    third = {"sdrt": {"step": 1.0, "own": 5.0}, "optimum": {"step": 0.8, "own": 8.0}}
    said = verdicts("cpu", first, second, third)
    assert said["a step, beside optimum's ORT"] == (pytest.approx(1.1), "met")
    assert said["peak memory of its own"] == (pytest.approx(0.625), "NOT met")
    assert said["a step, beside torch eager"] == (None, "not measured")


def test_of_the_ways_to_compile_the_faster_one_counts() -> None:
    turn = {
        "sdrt": {"step": 1.0, "outside_unet": 0.031},
        "diffusers-compile": {"step": 2.0},
        "diffusers-max-autotune": {"step": 1.2},
    }
    said = verdicts("cuda", turn)
    assert said["a step, beside torch.compile"] == (pytest.approx(1.2), "NOT met")
    assert said["the loop outside the U-Net"] == (0.031, "NOT met")
    assert said["peak device memory"] == (None, "not measured")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_missing_systems_are_listed_with_the_reason() -> None:
    done = run(
        BENCHMARKS / "peers.py", "--list", "--architecture", "tiny", "--python", "openvino=no-such-python"
    )
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert said["sdrt"] == "here"
    assert said["openvino"].startswith("no-such-python does not run")
    assert said["stable-diffusion.cpp"] == "knows sd15 only"


def test_a_process_takes_as_many_steps_as_all_others(tiny_model: Path) -> None:
    options = ("--size", "64", "--steps", "3", "--generations", "1")
    done = run(BENCHMARKS / "peer.py", "sdrt", tiny_model, *options)
    assert done.returncode == 1
    assert (
        "4 steps were taken: expected 3" in done.stderr
    )  # PNDM, which the checkpoint of the comparison has not


def test_a_failure_says_what_the_command_said(tmp_path: Path) -> None:
    from measure import Failed
    from measure import run as run_measured

    script = "import sys; print('loading', file=sys.stderr); raise ValueError('no such weights')"
    with pytest.raises(Failed, match="exit code 1: ValueError: no such weights"):
        run_measured([sys.executable, "-c", script], tmp_path / "log.txt")
    with pytest.raises(Failed, match=r"took longer than 0\.1 s"):
        run_measured([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log.txt", timeout=0.1)


def test_memory_of_a_process_is_seen_from_outside(tmp_path: Path) -> None:
    from measure import run as run_measured

    script = "import time; held = b'x' * 100_000_000; time.sleep(0.3); print('{\"held\": 1}')"
    seen = run_measured([sys.executable, "-c", script], tmp_path / "log.txt")
    assert seen.result == {"held": 1}
    assert 100_000_000 <= seen.own_bytes <= seen.resident_bytes


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    from folders import checkpoint
    from measure import Failed

    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "model_index.json").write_text(json.dumps({}))
    (tmp_path / "architecture.txt").write_text("tiny")
    with pytest.raises(Failed, match="holds tiny: expected sd15"):
        checkpoint(tmp_path, tmp_path / "log.txt", "sd15")


def test_gpu_sh_names_what_it_does_not_know() -> None:
    done = subprocess.run([BENCHMARKS / "gpu.sh", "tset"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown option or stage tset" in done.stderr
