"""The comparison with other systems: what is missing is said, and bars are judged as they read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def verdicts(device: str, *turns: dict[str, dict[str, float]]) -> dict[str, tuple[Any, str]]:
    from benchmarks.bars import judge

    return {bar["bar"]: (bar["figure"], bar["verdict"]) for bar in judge(device, "sdrt", turns)}


def test_bars_are_judged_by_the_median_of_the_ratios_within_rounds() -> None:
    # The machine slowed down in the second round, for both.
    first = {"sdrt": {"step": 1.0, "own": 5.0}, "optimum": {"step": 1.1, "own": 10.0}}
    second = {"sdrt": {"step": 4.0, "own": 5.0}, "optimum": {"step": 4.4, "own": 8.0}}
    third = {"sdrt": {"step": 1.0, "own": 5.0}, "optimum": {"step": 0.8, "own": 8.0}}
    said = verdicts("cpu", first, second, third)
    assert said["step time, against optimum"] == (pytest.approx(1.1), "met")
    assert said["own peak memory"] == (pytest.approx(0.625), "NOT met")
    assert said["step time, against diffusers eager"] == (None, "not measured")


def test_of_the_ways_to_compile_the_faster_one_counts() -> None:
    turn = {
        "sdrt": {"step": 1.0, "outside_unet": 0.031},
        "diffusers-compile": {"step": 2.0},
        "diffusers-max-autotune": {"step": 1.2},
    }
    said = verdicts("cuda", turn)
    assert said["step time, against torch.compile"] == (pytest.approx(1.2), "NOT met")
    assert said["share of the loop outside the U-Net"] == (0.031, "NOT met")
    assert said["peak device memory"] == (None, "not measured")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_missing_systems_are_listed_with_the_reason() -> None:
    done = run(
        "benchmarks", "peers", "--list", "--architecture", "tiny", "--python", "openvino=no-such-python"
    )
    said = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert said["sdrt"] == "here"
    assert said["openvino"].startswith("no-such-python does not run")
    assert said["stable-diffusion.cpp"] == "supports only sd15"


def test_a_process_takes_as_many_steps_as_all_others(tiny_model: Path) -> None:
    options = ("--size", "64", "--steps", "3", "--generations", "1")
    done = run("benchmarks.peer", "sdrt", tiny_model, *options)
    assert done.returncode == 1
    assert (
        "the system took 4 steps: expected 3" in done.stderr
    )  # PNDM, which the checkpoint of the comparison has not


def test_a_failure_says_what_the_command_said(tmp_path: Path) -> None:
    from benchmarks.measure import Failed
    from benchmarks.measure import run as run_measured

    script = "import sys; print('loading', file=sys.stderr); raise ValueError('no such weights')"
    with pytest.raises(Failed, match="exit code 1: ValueError: no such weights"):
        run_measured([sys.executable, "-c", script], tmp_path / "log.txt")
    with pytest.raises(Failed, match=r"took longer than 0\.1 s"):
        run_measured([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log.txt", timeout=0.1)


def test_memory_of_a_process_is_seen_from_outside(tmp_path: Path) -> None:
    from benchmarks.measure import run as run_measured

    script = "import time; held = b'x' * 100_000_000; time.sleep(0.3); print('{\"held\": 1}')"
    seen = run_measured([sys.executable, "-c", script], tmp_path / "log.txt")
    assert seen.result == {"held": 1}
    assert 100_000_000 <= seen.own_bytes <= seen.resident_bytes


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    from benchmarks.folders import checkpoint
    from benchmarks.measure import Failed

    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint" / "model_index.json").write_text(json.dumps({}))
    (tmp_path / "architecture.txt").write_text("tiny")
    with pytest.raises(Failed, match="holds tiny: expected sd15"):
        checkpoint(tmp_path, tmp_path / "log.txt", "sd15")


def test_a_command_that_was_killed_is_told_apart(tmp_path: Path) -> None:
    from benchmarks.measure import Failed, Killed
    from benchmarks.measure import run as run_measured

    log = tmp_path / "log.txt"
    with pytest.raises(Killed, match="exit code -9"):
        run_measured([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], log)
    with pytest.raises(Failed) as failed:
        run_measured([sys.executable, "-c", "raise SystemExit('no')"], log)
    assert not isinstance(failed.value, Killed)


SMI = """#!{python}
import sys, time
if "name" in sys.argv[1]:
    raise SystemExit(print("A GPU, 1024, 999.1"))
open({log!r}, "a").write("started\\n")
for used in (100, 100, 300, *[200] * 1000):
    print(used, flush=True)
    time.sleep(0.1 if "-lms" in sys.argv else 9)
"""


@pytest.mark.skipif(os.name == "nt", reason="a command of one file")
def test_without_nvidia_s_library_one_command_tells_of_the_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started once for a run, however long that is: starting it again and again is felt in what is measured."""
    from benchmarks import measure

    command, log = tmp_path / "nvidia-smi", tmp_path / "started.txt"
    command.write_text(SMI.format(python=sys.executable, log=str(log)))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("sdrt.benchmark.nvidia.used_bytes", lambda device: None)
    monkeypatch.setattr("sdrt.benchmark.nvidia.gpus", list)
    seen = measure.run([sys.executable, "-c", "import time; time.sleep(1)"], tmp_path / "log.txt", gpu=True)
    assert seen.device_bytes == 200 << 20
    assert log.read_text() == "started\n"
    assert measure.device()["gpus"] == [{"name": "A GPU", "memory_bytes": 1 << 30, "driver": "999.1"}]


def journal(path: Path, *, resume: bool, **run: Any) -> Any:
    from benchmarks.journal import Journal

    return Journal(path / "turns.jsonl", run, resume=resume)


def test_turns_are_gone_on_with(tmp_path: Path) -> None:
    first = journal(tmp_path, resume=False, size=512)
    first.add(0, tflops=3.5)
    first.add(0, system="sdrt", turn={"step": 1.0}, seconds=40.0)
    with (tmp_path / "turns.jsonl").open("a") as stream:
        stream.write('{"run": "half a li')  # its writer was killed
    again = journal(tmp_path, resume=True, size=512)
    again.add(0, system="diffusers", turn={"step": 2.0}, seconds=50.0)
    again.add(1, system="sdrt", turn={"step": 3.0}, seconds=30.0)
    last = journal(tmp_path, resume=True, size=512)
    assert last.turns(3) == [
        {"sdrt": {"step": 1.0}, "diffusers": {"step": 2.0}},
        {"sdrt": {"step": 3.0}},
        {},
    ]
    assert last.peaks() == {0: 3.5}
    assert last.seconds("sdrt") == 40.0
    assert last.seconds("optimum") == 50.0  # nobody knows yet: as long as the others
    assert last.foreign == 0


def test_what_would_end_too_late_is_left_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import peers

    turns: list[str] = []

    def take(name: str, *_: Any) -> dict[str, Any]:
        turns.append(name)
        return {"step": 1.0, "steps": [1.0], "thumbnail": "00"}

    monkeypatch.setattr("benchmarks.peers.versions", lambda python: {})
    monkeypatch.setattr("benchmarks.peers.multiplication", lambda work, settings: [1.0])
    monkeypatch.setattr("benchmarks.peers.take_turn", take)
    folders = {"sdrt": tmp_path, "diffusers": tmp_path}
    monkeypatch.setattr("benchmarks.peers.prepare", lambda *_: (folders, {}, []))
    settings = peers.Settings(names=tuple(folders), rounds=2)
    late = peers.Limits(within=0.0)
    assert peers.compare(tmp_path, settings, limits=late)["left"] == [
        *("sdrt in round 1", "diffusers in round 1", "diffusers in round 2", "sdrt in round 2"),
    ]
    assert turns == []
    kept: list[int] = []
    record = peers.compare(tmp_path, settings, lambda found: kept.append(len(found["turns"])), resume=True)
    assert record["left"] == []
    assert turns == ["sdrt", "diffusers", "diffusers", "sdrt"]
    assert kept == [1, 1, 2, 2]
    peers.compare(tmp_path, settings, resume=True)
    assert len(turns) == 4


def test_turns_of_another_run_are_left_alone(tmp_path: Path) -> None:
    journal(tmp_path, resume=False, size=512).add(0, system="sdrt", turn={}, seconds=1.0)
    other = journal(tmp_path, resume=True, size=768)
    assert other.turns(1) == [{}]
    assert other.foreign == 1
    fresh = journal(tmp_path, resume=False, size=512)
    assert fresh.turns(1) == [{}]
    assert len(list(tmp_path.glob("turns-until-*.jsonl"))) == 1


def test_a_system_without_a_turn_has_a_reason(tmp_path: Path) -> None:
    made = journal(tmp_path, resume=False)
    made.add(0, absent="optimum", reason="not here")
    made.add(0, absent="diffusers", reason="out of time")
    made.add(1, system="diffusers", turn={}, seconds=1.0)
    assert journal(tmp_path, resume=True).absent() == {"optimum": "not here"}


def test_a_record_has_no_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import peers

    monkeypatch.setattr("benchmarks.peers.versions", lambda python: {})
    own = tmp_path / "environment" / "bin" / "python"
    settings = peers.Settings(names=("sdrt", "openvino"), pythons={"openvino": str(own)})
    absent = {"openvino": f"failed in round 1: {own} -m optimum in '{tmp_path}/log.txt' ended with 1/2"}
    record = peers._record(settings, absent, journal(tmp_path, resume=False), [])
    assert record["settings"]["pythons"] == ["openvino"]
    assert record["missing"] == {
        "openvino": "failed in round 1: …/python -m optimum in '…/log.txt' ended with 1/2"
    }
    assert str(tmp_path) not in json.dumps(record)


def test_a_compiler_that_was_killed_loses_its_own_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks import settings, system_process
    from benchmarks.measure import Failed, Killed

    mine, other = (
        tmp_path / system_process.COMPILED / name for name in ("diffusers-compile", "diffusers-max-autotune")
    )
    for folder in (mine, other):
        folder.mkdir(parents=True)
        (folder / "kernel").touch()
    error: Failed = Failed("exit code 1")

    def run_and_fail(*arguments: Any, **options: Any) -> None:
        assert options["environment"] == {"TORCHINDUCTOR_CACHE_DIR": str(mine)}
        raise error

    monkeypatch.setattr("benchmarks.system_process.run", run_and_fail)
    turn = ("diffusers-compile", [], tmp_path, settings.Settings())
    with pytest.raises(Failed):
        system_process.run_turn(*turn)
    assert (mine / "kernel").exists()
    error = Killed("took longer than 1 s")
    with pytest.raises(Killed):
        system_process.run_turn(*turn)
    assert not (mine / "kernel").exists()
    assert (other / "kernel").exists()


def test_int8_has_bars_of_its_own() -> None:
    from benchmarks.bars import judge

    turn = {
        "sdrt": {"step": 2.0, "own": 4.0},
        "sdrt-int8": {"step": 1.0, "own": 1.9},
        "openvino-bf16": {"step": 1.2},
        "optimum": {"step": 0.1, "own": 0.1},
    }
    said = {bar["bar"]: (bar["figure"], bar["verdict"]) for bar in judge("cpu", "sdrt-int8", [turn])}
    assert said == {
        "step time, against OpenVINO in bf16": (pytest.approx(1.2), "met"),
        "own peak memory": (pytest.approx(0.475), "met"),
    }
