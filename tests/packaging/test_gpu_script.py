"""`benchmarks/gpu.sh` and what it is made of: an hour on a GPU must not go on a path, a library or a version."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.benchmark_scripts import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a script for bash")


BENCHMARKS = ROOT / "benchmarks"


def gpu_sh(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """From `folder`, with this interpreter."""
    command = ["bash", str(BENCHMARKS / "gpu.sh"), "--python", sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False
    )


def test_it_names_what_it_does_not_know(tmp_path: Path) -> None:
    done = gpu_sh(tmp_path, "tset")
    assert done.returncode == 2
    assert "unknown option or stage tset" in done.stderr


def write_parts(folder: Path, *names: str) -> None:
    """An archive of a package `onnxruntime` in as many parts as there are names."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as archive:
        content = b"__version__ = 'of the parts'"
        entry = tarfile.TarInfo("onnxruntime/__init__.py")
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    folder.mkdir(parents=True)
    size = -(-len(packed.getvalue()) // len(names))
    for index, name in enumerate(names):
        (folder / name).write_bytes(packed.getvalue()[index * size : (index + 1) * size])


def test_paths_are_the_caller_s_and_no_xz_is_needed(tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", "ort.tar.xz.00", "ort.tar.xz.01", "ort.tar.xz.02")
    old = tmp_path / "work" / "site" / "onnxruntime_gpu-1.0.dist-info"
    old.mkdir(parents=True)
    # A folder of commands without xz and tar.
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("bash", "dirname", "mkdir"):
        found = subprocess.run(["bash", "-c", f"type -P {name}"], capture_output=True, text=True, check=True)
        (commands / name).symlink_to(found.stdout.strip())
    done = gpu_sh(tmp_path, "--parts", "parts", "--work", "work", "unpack", PATH=str(commands))
    assert done.returncode == 0, done.stderr
    assert "of the parts" in (tmp_path / "work" / "site" / "onnxruntime" / "__init__.py").read_text()
    assert not old.exists()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("ort.tar.xz.00", "ort.tar.xz.02"), "expected ort.tar.xz.00 to ort.tar.xz.01 without a gap"),
        (("other",), "expected the parts ort.tar.xz.00 and so on, found none"),
    ],
)
def test_parts_that_are_left_out_are_named(tmp_path: Path, names: tuple[str, ...], reason: str) -> None:
    write_parts(tmp_path / "parts", *names)
    done = gpu_sh(tmp_path, "--parts", "parts", "--work", "work", "unpack")
    assert done.returncode == 1
    assert reason in done.stderr


def test_a_part_that_was_cut_short_is_an_error(tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", "ort.tar.xz.00", "ort.tar.xz.01")
    (tmp_path / "parts" / "ort.tar.xz.01").write_bytes(b"")
    done = gpu_sh(tmp_path, "--parts", "parts", "--work", "work", "unpack")
    assert done.returncode == 1
    assert "are not a complete archive" in done.stderr


def test_libraries_are_found_in_every_entry_of_the_path(tmp_path: Path) -> None:
    from benchmarks.libraries import folders

    wanted = [
        tmp_path / "site" / "nvidia" / "cudnn" / "lib",
        tmp_path / "packages" / "nvidia" / "cu13" / "lib",
        tmp_path / "packages" / "torch" / "lib",
    ]
    for folder in wanted:
        folder.mkdir(parents=True)
        (folder / "libsome.so.13").touch()
    (tmp_path / "packages" / "nvidia" / "nothing" / "lib").mkdir(parents=True)
    path = [str(tmp_path / "site"), str(tmp_path / "packages"), str(tmp_path / "none")]
    assert folders(path) == [str(folder) for folder in wanted]


def test_the_summary_of_the_tests_has_no_paths() -> None:
    from benchmarks.remove_paths import summary

    log = (
        "rootdir: /home/me/sdrt\n/home/me/sdrt/tests/gpu/test_cuda.py F\n"
        "=========== short test summary info ===========\n"
        "FAILED tests/gpu/test_cuda.py::test_it - OSError: /home/me/sdrt/x.onnx\n"
        "SKIPPED [1] /home/me/sdrt/tests/gpu/test_cuda.py:3: no CUDA device works\n"
        "=== 1 failed, 1 skipped in 3.00s ===\n"
    )
    said = summary(log)
    assert "/home" not in said
    assert "FAILED tests/gpu/test_cuda.py::test_it - OSError: …/x.onnx" in said
    assert "SKIPPED [1] …/test_cuda.py:3: no CUDA device works" in said
    assert said.endswith("=== 1 failed, 1 skipped in 3.00s ===\n")


def test_records_are_scrubbed_in_their_place(tmp_path: Path) -> None:
    from benchmarks import remove_paths

    record = tmp_path / "record.json"
    record.write_text(json.dumps({"command": ["--model", "/home/me/model"], "steps": [0.5, 1]}))
    remove_paths.main([str(record)])
    assert json.loads(record.read_text()) == {"command": ["--model", "…/model"], "steps": [0.5, 1]}


@pytest.mark.full
def test_the_rehearsal_goes_through(tmp_path: Path) -> None:
    """From elsewhere, by relative paths, as if sdrt were not installed; what it writes may be kept."""
    systems = ("--", "--systems", "sdrt,diffusers", "--generations", "1")
    done = gpu_sh(tmp_path, "--dry-run", "--work", "work", *systems)
    assert done.returncode == 0, done.stdout + done.stderr
    codes = re.findall(r"^=== (\w+): exit code (\d)", done.stdout, re.MULTILINE)
    stages = ("unpack", "check", "prepare", "test", "measure", "latency", "profile", "choose")
    assert codes == [(stage, "0") for stage in stages]
    work = tmp_path / "work"
    record: dict[str, Any] = json.loads((work / "dry-run.json").read_text())
    assert [*record["turns"][0]] == ["sdrt", "diffusers"]
    assert record["left"] == []
    manifest = json.loads((work / "tiny" / "sdrt-cuda" / "sdrt.json").read_text())
    rows = [row for entry in manifest["components"].values() for row in entry["parity"]]
    assert rows
    assert {row["evaluator"] for row in rows} == {"numpy"}
    tests = (work / "dry-run-tests.txt").read_text()
    assert re.search(r"\d+ passed", tests)
    assert "skipped" not in tests
    for text in (tests, json.dumps(record), (work / "dry-run.md").read_text()):
        assert str(tmp_path) not in text
        assert sys.prefix not in text
        assert "../" not in text
    choices = json.loads((work / "dry-run-choices.json").read_text())
    step = json.loads((work / "dry-run-step.json").read_text())
    assert all(found["over_ours"]["median"] > 0 for found in choices["ways"].values())
    assert step["graph_over_host"]["median"] > 0
    assert step["step"] == record["systems"]["sdrt"]["step"]["median"]
    for choice in (choices, step):
        assert choice["size"] == 64
        assert str(tmp_path) not in json.dumps(choice)
    latency = json.loads((work / "dry-run-latency.json").read_text())
    measured = latency["measurements"]
    assert [one["settings"]["batch"] for one in measured] == [1, 2]
    assert (work / "dry-run-latency.png").stat().st_size > 0
    assert "p99" in (work / "dry-run-latency.txt").read_text()
    assert "64x64" in (work / "dry-run-doctor.txt").read_text()
    for name in ("latency.json", "latency.txt", "low-vram.json", "doctor.txt", "kernels.json"):
        text = (work / f"dry-run-{name}").read_text()
        assert str(tmp_path) not in text, name
        assert sys.prefix not in text, name
    # What was measured is not measured again.
    again = gpu_sh(tmp_path, "--dry-run", "--work", "work", "measure", *systems)
    assert again.returncode == 0, again.stderr
    assert "round 1 of 1" not in again.stderr
    assert json.loads((work / "dry-run.json").read_text())["turns"] == record["turns"]
