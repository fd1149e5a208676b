"""`benchmarks/gpu.sh` and what it is made of: an hour on a GPU must not go on a path, a library or a version."""

from __future__ import annotations

import importlib.metadata
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

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="a script for bash")


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


def test_what_is_required_is_what_the_project_requires() -> None:
    """Bounds are said twice: a bare machine has no metadata of the project."""
    from benchmarks.requirements import REQUIRED, WITH_CUDA

    tomllib: Any = pytest.importorskip("tomllib", reason="Python 3.10 has none")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted: dict[str, list[str]] = {}
    for text in (
        *project["dependencies"],
        *(one for name in ("export", "verify", "benchmark", "test") for one in extras[name]),
    ):
        name, bounds = re.fullmatch(r"([\w-]+)(?:\[.*\])?(.*)", text).groups()  # type: ignore[union-attr]
        wanted.setdefault(name, []).extend(bound for bound in bounds.split(",") if "==" not in bound)
    for text in (REQUIRED | WITH_CUDA).values():
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", text).groups()  # type: ignore[union-attr]
        if name != "onnxruntime-gpu":
            assert set(bounds.split(",")) == set(filter(None, wanted[name])), name


@pytest.mark.parametrize(
    ("version", "requirement", "expected"),
    [
        ("2.11.0+cu130", "torch>=2.9", True),
        ("2.8.1", "torch>=2.9", False),
        ("4.57.6", "transformers>=4.56,<5", True),
        ("5.0.0", "transformers>=4.56,<5", False),
        ("0.23.0", "tokenizers>=0.21,<=0.23.0", True),
        ("0.23.2", "tokenizers>=0.21,<=0.23.0", False),
        ("1.0.0rc1", "huggingface_hub>=0.34,<1", False),
        ("8", "click>=8.2", False),
        ("1", "anything", True),
    ],
)
def test_bounds_of_versions(version: str, requirement: str, expected: bool) -> None:
    from benchmarks.requirements import fits

    assert fits(version, requirement) is expected


def check(*path: Path, device: str) -> subprocess.CompletedProcess[str]:
    """With folders that go before everything else."""
    before = os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.requirements", "--device", device],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": before},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_version_that_will_not_do_is_named(tmp_path: Path) -> None:
    metadata = tmp_path / "transformers-5.17.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 5.17.0\n")
    done = check(tmp_path, device="cpu")
    assert done.returncode == 1
    assert "transformers is 5.17.0: expected transformers>=4.56,<5" in done.stdout
    assert "'transformers>=4.56,<5'" in done.stdout


def test_a_runtime_that_computes_wrongly_does_not_pass(tmp_path: Path) -> None:
    """One that is imported and offers the provider: as much as it takes to pass a look at what is there."""
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text(
        "import numpy as np\n"
        "__version__ = '1.31'\n"
        "get_available_providers = lambda: ['CPUExecutionProvider']\n"
        "class SessionOptions: pass\n"
        "class InferenceSession:\n"
        "    def __init__(self, *_, providers, enable_fallback): pass\n"
        "    get_providers = staticmethod(get_available_providers)\n"
        "    def run(self, outputs, feeds): return [np.zeros((2, 8, 64, 64))]\n"
    )
    done = check(tmp_path, device="cpu")
    assert done.returncode == 1
    for case in (
        "a convolution of 3x3, 4 to 320 channels, stride 1",
        "attention of 8 heads of 40, 1024 on 77, apart",
    ):
        assert f"ONNX Runtime on cpu: {case}: differs from NumPy's by" in done.stdout


def test_packages_that_do_not_bear_one_another_do_not_pass(tmp_path: Path) -> None:
    """Each is there, and of a version that would do."""
    (tmp_path / "diffusers").mkdir()
    (tmp_path / "diffusers" / "__init__.py").write_text(
        "raise ImportError(\"cannot import name 'resolve_revision' from 'huggingface_hub'\")\n"
    )
    done = check(tmp_path, device="cpu")
    assert done.returncode == 1
    assert "do not work together: ImportError: cannot import name 'resolve_revision'" in done.stdout


def test_a_library_that_parts_leave_out_is_missing() -> None:
    from benchmarks.requirements import no_library

    assert no_library("onnxruntime/capi/__init__.py", sys.executable) is None
    path = "onnxruntime/capi/libonnxruntime_providers_tensorrt.so"
    assert no_library(path, sys.executable) == f"missing here: {path}"


def test_compiling_takes_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from benchmarks import requirements as module

    # It asks once, and here the answer is to be another one.
    module._ask.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert "a C compiler (cc, gcc or clang)" in (module.no_compiler(sys.executable) or "")
    module._ask.cache_clear()


def test_the_loader_s_own_words_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import requirements as module

    told = (
        "[E:onnxruntime:Default, provider_bridge_ort.cc:2458] [ONNXRuntimeError] : 1 : FAIL : Failed to load library "
        "/a/b/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open shared object file\n"
        "Fail: fallback to CPU EP has been explicitly disabled by the user."
    )

    def ask(python: str, script: str, *arguments: str) -> str:
        raise subprocess.CalledProcessError(1, "python", stderr=told)

    monkeypatch.setattr(module, "_ask", ask)
    problem, remedy = module._not_running("cuda")
    assert problem.endswith(
        "libonnxruntime_providers_cuda.so: libcublasLt.so.13: cannot open shared object file"
    )
    assert "LD_LIBRARY_PATH" in remedy


def test_no_benchmark_asks_for_the_distribution_of_sdrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The script has the checkout on the path, and nothing is installed."""
    import sdrt
    from benchmarks import run

    def version(name: str) -> str:
        if name == "sdrt":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr("benchmarks.run.version", version)
    assert run._versions()["sdrt"] == sdrt.__version__


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


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [
        ([[0.9] * 8, [0.95] * 8], "worth it"),
        ([[0.99] * 8, [1.2] * 8], "not worth it"),
        # One that had the luck of other kernels, however often it was asked.
        ([[0.9] * 100, [1.0] * 8], "not decided"),
        ([[0.9] * 5, [0.9] * 5], "not decided"),
        ([[0.5, 1.5] * 4], "not decided"),
    ],
)
def test_another_way_is_worth_it_where_every_session_says_so(
    sessions: list[list[float]], expected: str
) -> None:
    from benchmarks.choices import verdict

    assert verdict(sessions) == expected


def test_a_way_that_fails_is_told_and_the_others_are_measured(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import choices

    plain = choices.Unet.__init__

    def refuse(unet: Any, graph: Path, device: str, sizes: Any, way: Any) -> None:
        if way.patterns:
            raise RuntimeError("no such pattern in /home/me/model.onnx")
        plain(unet, graph, device, sizes, way)

    monkeypatch.setattr(choices.Unet, "__init__", refuse)
    kept: list[int] = []
    graph = tiny_model / "unet" / "model.onnx"
    found = choices.measure(
        graph,
        "cpu",
        64,
        ways={"patterns": choices.Way(patterns=True), "the same": choices.OURS},
        rounds=1,
        sessions=1,
        keep=lambda record: kept.append(len(record["ways"])),
    )
    assert kept == [1, 2]
    assert found["ways"]["patterns"] == {"failed": "no such pattern in …/model.onnx"}
    assert found["ways"]["the same"]["outputs_differ_by"] == 0
    assert found["ways"]["the same"]["verdict"] == "not decided"
    assert "patterns: failed: no such pattern" in capsys.readouterr().out


def test_a_graph_for_the_rest_of_a_step_is_judged_beside_the_step(tmp_path: Path) -> None:
    from benchmarks.step_graph import _peers, saved

    found = {"device": "cuda", "size": 512, "ms": {"host": {"median": 0.9}, "graph": {"median": 0.3}}}
    peers: dict[str, Any] = {
        "settings": {"device": "cuda", "size": 512},
        "systems": {"sdrt": {"step": {"median": 0.02}}},
    }
    assert saved(found, peers) == {"step": 0.02, "share_of_step": pytest.approx(0.03), "worth_it": True}
    peers["systems"]["sdrt"]["step"]["median"] = 0.2
    assert not saved(found, peers)["worth_it"]
    record = tmp_path / "peers.json"
    for text, said in (
        (
            json.dumps(peers | {"settings": {"device": "cpu", "size": 512}}),
            "expected a record of cuda at 512",
        ),
        ("{", "not a record of peers"),
        ("[]", "not a record of peers"),
        ('{"format": "sdrt-benchmark"}', "not a record of peers"),
    ):
        record.write_text(text)
        with pytest.raises(SystemExit, match=said):
            _peers(record, "cuda", 512)
    record.write_text(json.dumps(peers))
    assert _peers(record, "cuda", 512) == peers


def test_records_are_scrubbed_in_their_place(tmp_path: Path) -> None:
    from benchmarks import remove_paths

    record = tmp_path / "record.json"
    record.write_text(json.dumps({"command": ["--model", "/home/me/model"], "steps": [0.5, 1]}))
    remove_paths.main([str(record)])
    assert json.loads(record.read_text()) == {"command": ["--model", "…/model"], "steps": [0.5, 1]}


def test_kernels_are_summed_by_what_they_do() -> None:
    pytest.importorskip("torch", reason="its profiler listens")
    from benchmarks.kernels import summed, table

    names = {
        "sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_nhwc": "convolution",
        "void onnxruntime::contrib::cuda::groupNormNHWCSumKernel<__half, 320>": "norms",
        "fmha_cutlassF_f16_aligned_64x64_rf_sm80": "attention",
        "void cutlass::Kernel<cutlass_80_tensorop_f16_s16816gemm>": "matrix products",
        "void cudnn::ops::nchwToNhwcKernel<__half, __half, float>": "layout",
        "void cudnn::ops::nhwcToNchwKernel<__half, __half, float>": "layout",
        "void onnxruntime::contrib::cuda::AddBiasUnpack<__half>": "packing of attention",
        "Memcpy HtoD (Pinned -> Device)": "copies",
        "void onnxruntime::contrib::cuda::biasSplitGeluKernel<__half, 1280, 256>": "activations",
    }
    events = [
        {
            "cat": "gpu_memcpy" if name.startswith("Memcpy") else "kernel",
            "name": name,
            "dur": 1000 * (index + 1),
        }
        for index, name in enumerate(names)
        for _ in range(2)
    ]
    # Of the host, and of no length.
    events += [{"cat": "cuda_runtime", "name": "cudaLaunchKernel", "dur": 5e6}, {"name": "begin"}]
    found = summed(events, steps=2, wall=0.2)
    assert {row["kernel"]: row["kind"] for row in found["kernels"]} == names
    assert found["kernels"][0]["kernel"] == [*names][-1]
    assert found["kernels"][0]["seconds"] == pytest.approx(0.009)
    assert found["kernels"][0]["calls"] == 1
    assert found["busy"] == pytest.approx(0.09 / 0.2)
    assert found["kinds"]["norms"] == pytest.approx(0.002)
    said = table(found)
    assert "100.00 ms a step, 45% of it" in said
    assert said.index("biasSplitGelu") < said.index("Memcpy")


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
