"""Execution providers in libraries of their own: which are found, which are refused, and how it is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from sdrt import StableDiffusionPipeline
from sdrt.cli import main
from sdrt.errors import ProviderError, RequestError
from sdrt.onnx import plugins
from sdrt.onnx.plugins import find_library, installed_packages
from sdrt.onnx.providers import PROVIDERS, SessionConfig

PACKAGE = "onnxruntime-ep-webgpu"
WEBGPU = pytest.mark.skipif(PACKAGE not in installed_packages(), reason=f"no {PACKAGE}")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`package(code)` is the name of an installed package `onnxruntime-ep-odd` with this code, in a module."""

    def make(code: str, module: str = "onnxruntime_ep_odd", told: str = "") -> str:
        (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
        about = tmp_path / "onnxruntime_ep_odd-7.5.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: onnxruntime_ep.odd\nVersion: 7.5\n", encoding="utf-8"
        )
        if told:
            (about / "top_level.txt").write_text(told, encoding="utf-8")
        return "onnxruntime-ep-odd"

    monkeypatch.syspath_prepend(tmp_path)
    yield make
    for name in ("onnxruntime_ep_odd", "odd_provider"):
        sys.modules.pop(name, None)


@WEBGPU
def test_a_library_is_found_by_its_package_its_module_and_its_file() -> None:
    found = find_library(PACKAGE)
    assert PACKAGE in installed_packages()
    assert found.providers == ("WebGpuExecutionProvider",)
    assert found.path.is_file()
    assert find_library("onnxruntime_ep_webgpu") == found
    assert find_library(str(found.path)).path == found.path


@pytest.mark.parametrize(
    "code",
    [
        "def get_library_path(): return __file__\ndef get_ep_names(): return ['OddExecutionProvider']\n",
        "def library_path(): return __file__\ndef ep_name(): return 'OddExecutionProvider'\n",
    ],
    ids=["Microsoft's names", "others"],
)
def test_packages_name_their_functions_in_several_ways(package: Any, code: str) -> None:
    found = find_library(package(code))
    assert (str(found), found.providers) == ("onnxruntime-ep-odd 7.5", ("OddExecutionProvider",))
    assert found.name in installed_packages()


def test_a_package_whose_module_has_another_name(package: Any) -> None:
    """As onnxruntime-ep-nv-tensorrt-rtx-cu13, whose module does not name CUDA."""
    code = "def get_library_path(): return __file__\ndef get_ep_name(): return 'OddExecutionProvider'\n"
    found = find_library(package(code, module="odd_provider", told="odd_provider\n"))
    assert found.path.name == "odd_provider.py"
    assert found.providers == ("OddExecutionProvider",)


@pytest.mark.parametrize(
    "code",
    [
        "",
        "def get_library_path(): raise FileNotFoundError('gone')\n",
        "def get_library_path(): return '/no/such/library.so'\n",
        "def get_library_path(folder): return folder\n",
        "raise ImportError('DLL load failed')\n",
        "import a_module_that_nobody_has\n",
    ],
)
def test_a_package_without_its_library_is_told(package: Any, code: str) -> None:
    name = package(code)
    with pytest.raises(ProviderError, match=r"onnxruntime-ep-odd 7\.5 does not say where its library is"):
        find_library(name)
    told = CliRunner().invoke(main, ["doctor"]).output
    assert "onnxruntime-ep-odd: the package onnxruntime-ep-odd 7.5 does not say" in told
    assert "generation" in told


@pytest.mark.parametrize(
    "given", ["onnxruntime-ep-none", "/no/such/file.so", "a b", "", "../x", "x" * 5000, "\0"]
)
def test_what_is_neither_a_file_nor_a_package(given: str) -> None:
    with pytest.raises(ProviderError, match="neither a file nor an installed package with a library"):
        find_library(given)


def test_a_file_that_is_no_library(tiny_model: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.so"
    wrong.write_text("text", encoding="utf-8")
    config = SessionConfig(provider="webgpu", provider_library=str(wrong))
    with pytest.raises(ProviderError, match=r"cannot load .*wrong\.so.*: install a version that suits"):
        plugins.chosen(config)


def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> None:
    monkeypatch.setattr("sdrt.onnx.engine.is_installed", lambda package: False)
    with pytest.raises(
        ProviderError, match=rf"provider webgpu is in the package {PACKAGE}, .*pip install .*\[webgpu\]"
    ):
        StableDiffusionPipeline.from_pretrained(tiny_model, provider="webgpu")("a cat")


@WEBGPU
def test_a_machine_without_a_device() -> None:
    """In a process of its own, because devices are counted once."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("ORT_WEBGPU", "VK_"))
    }
    command = [sys.executable, "-m", "sdrt", "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    findings = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    if "devices" in findings["webgpu"]["detail"]:
        pytest.skip("this machine has a GPU that WebGPU can use")
    assert findings["webgpu"]["detail"].endswith("finds no device")
    assert findings["webgpu"]["remedy"] == f"it needs {PROVIDERS['webgpu'].needs}"
    command = [sys.executable, "-m", "sdrt", "generate", "a", "--provider", "webgpu", "-q"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == ProviderError.exit_code
    (line,) = done.stderr.splitlines()
    assert "offers no device for webgpu: it needs a GPU, its driver" in line


def test_the_library_needs_a_provider() -> None:
    with pytest.raises(
        ProviderError, match="but provider is auto: say which of its providers to use, such as webgpu"
    ):
        SessionConfig(provider_library=PACKAGE)
    with pytest.raises(ProviderError, match="but provider is cpu"):
        SessionConfig(provider="cpu", provider_library=PACKAGE)
    with pytest.raises(RequestError, match="provider_library is 7: expected a file, the name of a package"):
        SessionConfig(provider="webgpu", provider_library=7)  # type: ignore[arg-type]


def test_names_of_onnx_runtime_s_are_for_libraries() -> None:
    with pytest.raises(ProviderError, match="another provider of ONNX Runtime"):
        SessionConfig(provider="OddExecutionProvider")
    config = SessionConfig(
        provider="OddExecutionProvider", provider_library="odd.so", provider_options={"level": 3}
    )
    assert PROVIDERS[config.name].ort == "OddExecutionProvider"
    assert config.provider_options == {"level": "3"}
    assert "OddExecutionProvider" not in PROVIDERS
    # What ONNX Runtime calls one that has a row is that row.
    assert SessionConfig(provider="WebGpuExecutionProvider").name == "webgpu"
    assert SessionConfig(provider="WebGpuExecutionProvider:1").provider == "webgpu:1"
    second = SessionConfig(provider="OddExecutionProvider:1", provider_library=Path("odd.so"))
    assert (second.name, second.device_id, second.provider_library) == ("OddExecutionProvider", 1, "odd.so")
    for wrong in (None, [1], ""):
        with pytest.raises(RequestError, match="expected a text or a number"):
            SessionConfig(
                provider="OddExecutionProvider", provider_library="odd.so", provider_options={"a": wrong}
            )


def test_doctor_says_for_each_missing_provider_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt.cli.doctor.onnx_runtime.is_installed", lambda package: False)
    monkeypatch.setattr(plugins, "installed_packages", list)
    told = CliRunner().invoke(main, ["doctor"]).output
    for name, row in PROVIDERS.items():
        if name == "cpu" or f"providers cpu, {name}" in told:
            continue
        assert f"{name}: not installed" in told
        assert row.needs in told
        assert name == "coreml" or f"[{row.extra}]'" in told
