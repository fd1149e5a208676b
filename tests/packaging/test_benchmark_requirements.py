"""What the benchmarks require, and how they name what is missing."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.benchmark_scripts import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a script for bash")


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


@pytest.mark.full
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
