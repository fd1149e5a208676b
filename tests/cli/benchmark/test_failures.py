"""`sdrt benchmark` when a file, a process or a reader fails: what was measured is kept."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from sdrt import OutOfMemoryError
from tests.cli.benchmark.tiny_benchmark import FAST, benchmark

pytestmark = pytest.mark.usefixtures("folder")


def _taken(*names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take these names while sdrt measures."""
    from sdrt.cli.benchmark.runner import Job

    measure = Job.measure

    def taking(job: Job) -> None:
        for name in names:
            Path(name).mkdir()
        measure(job)

    monkeypatch.setattr(Job, "measure", taking)


@pytest.mark.full
@pytest.mark.parametrize(
    ("taken", "written"),
    [
        (["a.json"], ["p.png", "t.png"]),
        (["p.png"], ["a.json", "t.png"]),
        (["a.json", "p.png"], ["t.png"]),
        (["t.png"], ["a.json", "p.png"]),
    ],
)
def test_a_file_that_cannot_be_written_loses_no_other(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, taken: list[str], written: list[str]
) -> None:
    pytest.importorskip("matplotlib")
    _taken(*taken, monkeypatch=monkeypatch)
    files = ("--json", "a.json", "--plot", "p.png", "--timeline", "t.png", "--force")
    result = benchmark("-m", str(tiny_model), "--size", "64", *FAST, *files)
    assert result.exit_code == 1
    assert "64x64 b1" in result.stdout
    assert [name for name in ("a.json", "p.png", "t.png") if Path(name).is_file()] == written
    assert all(f"{name} cannot be written" in result.stderr for name in taken)


@pytest.mark.full
def test_the_error_that_ended_it_is_told_though_no_file_can_be_written(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sdrt.cli.benchmark.runner import Job

    _taken("a.json", monkeypatch=monkeypatch)
    one = Job._one

    def second_fails(job: Job, model: Any, configuration: Any, tell: Any) -> Any:
        if configuration.batch == 2:
            raise OutOfMemoryError("unet ran out of memory", component="unet")
        return one(job, model, configuration, tell)

    monkeypatch.setattr(Job, "_one", second_fails)
    result = benchmark("-m", str(tiny_model), "--size", "64", *FAST, "-b", "1,2", "--json", "a.json", "-f")
    assert result.exit_code == 5
    assert result.stderr.strip().endswith("error: unet ran out of memory")
    assert "warning: a.json cannot be written" in result.stderr


def test_a_disk_that_is_full_takes_no_tables(
    measured: tuple[Result, Path], record: dict[str, Any], tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    path = str(measured[1])
    result = benchmark("--compare", path, path, "--json", str(folder / "a.json"))
    assert result.exit_code == 0
    shown = result.stdout

    def lost(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sdrt.cli.benchmark.runner.Files.write", lost)
        result = benchmark("--compare", path, path, "--json", str(folder / "b.json"))
    assert result.exit_code != 0
    assert result.stdout == shown


def test_what_fails_does_not_end_the_others(
    tiny_model: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(model: object, configuration: Any, *_: object) -> dict[str, Any]:
        if configuration.width == 128:
            raise OutOfMemoryError("unet ran out of memory")
        one = record["measurements"][0]
        return {key: one[key] for key in one if key not in ("settings", "statistics", "warnings", "model")}

    monkeypatch.setattr("sdrt.benchmark.runner.measured", measured)
    monkeypatch.setattr("sdrt.benchmark.runner.first_pictures", lambda *_: [1.0])
    result = benchmark("-m", str(tiny_model), *FAST, "--size", "64,128,72", "--json", "a.json")
    assert result.exit_code == 5
    assert "64x64" in result.stdout
    assert "72x72" in result.stdout
    assert "128x128 b1: failed: unet ran out of memory" in result.stderr
    found = json.loads(Path("a.json").read_text())
    assert [one["settings"]["width"] for one in found["measurements"]] == [64, 72]
    assert [one["settings"]["width"] for one in found["failed"]] == [128]
    assert found["complete"] is False
    compared = benchmark("--compare", "a.json", "a.json")
    assert (
        "a.json is from a run in which 1 configurations failed: it has only what was measured"
        in compared.stderr
    )


def test_nobody_who_reads_the_tables_leaves_the_record(
    tiny_model: Path, record: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = record["measurements"][0]
    kept = {key: one[key] for key in one if key not in ("settings", "statistics", "warnings", "model")}
    monkeypatch.setattr("sdrt.benchmark.runner.measured", lambda *_: dict(kept))
    monkeypatch.setattr("sdrt.benchmark.runner.first_pictures", lambda *_: [1.0])

    def broken(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("sdrt.cli.benchmark.runner.report", broken)
    result = benchmark("-m", str(tiny_model), *FAST, "--json", "a.json")
    assert result.exit_code == 1
    assert len(json.loads(Path("a.json").read_text())["measurements"]) == 1


def test_a_process_that_fails_is_told_as_its_error(model_copy: Path) -> None:
    graph = model_copy / "vae_decoder" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:2000])
    result = benchmark("-m", str(model_copy), *FAST, "--json", "a.json")
    assert (result.exit_code, result.stdout) == (3, "")
    assert "error: vae_decoder" in result.stderr
    assert not Path("a.json").exists()


@pytest.mark.full
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_keeps_what_was_measured(model: str, folder: Path) -> None:
    command = [sys.executable, "-m", "sdrt", "benchmark", "-m", model, *FAST]
    command += ["--batch", "1,2", "--json", "a.json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith("2 of 2"):
            assert line, "it ended"
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate()
    assert process.returncode == 130
    assert errors.strip().endswith("error: interrupted")
    assert "64x64 b1" in out
    found = json.loads((folder / "a.json").read_text())
    assert (found["complete"], len(found["measurements"])) == (False, 1)
    assert [path.name for path in folder.iterdir()] == ["a.json"]
