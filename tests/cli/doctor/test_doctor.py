from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from sdrt.cli import main
from sdrt.cli.doctor import checks
from sdrt.cli.doctor import onnx_runtime as checks_ort
from sdrt.cli.doctor.check_result import Finding, Status
from sdrt.cli.doctor.linked import linked_libraries

CPUINFO = "processor : 0\nflags\t\t: fpu sse avx2 avx512f avx512_vnni amx_int8\n"


def run_with(findings: list[Finding], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setattr(checks, "run_checks", lambda *_, **__: iter(findings))
    result = CliRunner().invoke(main, ["doctor"])
    return result.exit_code, result.stdout


def error(code: int) -> Finding:
    return Finding(name="part", detail="broken", status=Status.ERROR, remedy="mend it", exit_code=code)


def test_exit_code_is_that_of_the_first_error(monkeypatch: pytest.MonkeyPatch) -> None:
    warning = Finding(name="part", detail="odd", status=Status.WARNING)
    assert run_with([warning], monkeypatch)[0] == 0
    assert run_with([warning, error(4), error(3)], monkeypatch)[0] == 4


def test_remedies_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ERROR  part: broken\n         mend it" in run_with([error(4)], monkeypatch)[1]


def test_cpu_features(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO, encoding="utf-8")
    assert checks.cpu_features(tmp_path / "cpuinfo") == ["AVX2", "AVX512", "AVX512-VNNI", "AMX"]
    assert checks.cpu_features(tmp_path / "none") == []


def test_several_onnxruntime_wheels_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def distribution(name: str) -> SimpleNamespace:
        if name in ("onnxruntime", "onnxruntime-gpu"):
            return SimpleNamespace(version="1.0", read_text=lambda _: "Version: 1.0")
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", distribution)
    first = next(iter(checks_ort.check_onnxruntime()))
    assert first.status is Status.WARNING
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in first.remedy


LINKED = ["libcublasLt.so.12", "libcublas.so.12", "libcufft.so.11", "libcudart.so.12"]


def cuda_findings(
    monkeypatch: pytest.MonkeyPatch, *, present: set[str], providers: tuple[str, ...]
) -> Iterator[Finding]:
    monkeypatch.setattr(checks_ort.platform, "system", lambda: "Linux")
    monkeypatch.setattr(checks_ort, "_loads", present.__contains__)
    monkeypatch.setattr(checks_ort, "_in_wheel", lambda name: False)
    monkeypatch.setattr(checks_ort, "cuda_major", lambda: 12)
    # What the library of CUDA's provider says.
    monkeypatch.setattr(
        checks_ort, "linked_libraries", lambda _: [*LINKED, "libcuda.so.1", "libc.so.6", "libstdc++.so.6"]
    )
    return checks_ort.check_cuda(providers)


def test_missing_cuda_libraries_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"libcuda.so.1", *LINKED[2:]}
    (finding,) = cuda_findings(monkeypatch, present=present, providers=("cpu", "cuda"))
    assert (finding.status, finding.exit_code) == (Status.ERROR, 4)
    assert finding.detail == (
        "missing libcublas.so.12 (nvidia-cublas-cu12), libcublasLt.so.12 (nvidia-cublas-cu12), "
        "libcudnn.so.9 (nvidia-cudnn-cu12)"
    )
    assert finding.remedy.startswith("pip install 'onnxruntime-gpu[cuda,cudnn]")


def test_complete_cuda_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    present = {"libcuda.so.1", "libcudnn.so.9", *LINKED}
    (finding,) = cuda_findings(monkeypatch, present=present, providers=("cpu", "cuda"))
    assert finding.status is Status.OK


@pytest.mark.skipif(sys.platform != "linux", reason="onnxruntime has ELF files only on Linux")
def test_a_library_says_what_it_is_linked_with(tmp_path: Path) -> None:
    import onnxruntime

    (library,) = Path(onnxruntime.__file__).parent.glob("capi/onnxruntime_pybind11_state*.so")
    linked = linked_libraries(library)
    assert linked is not None
    assert {"libc.so.6", "libstdc++.so.6"} <= set(linked)
    assert linked_libraries(Path(__file__)) is None
    assert linked_libraries(tmp_path / "none.so") is None
    # A part of a file says nothing, whatever is missing.
    content = library.read_bytes()
    for size in (0, 16, 64, 200, 4096, len(content) // 2):
        (tmp_path / "part.so").write_bytes(content[:size])
        assert linked_libraries(tmp_path / "part.so") in (None, linked)
    # Where the table of segments begins.
    (tmp_path / "part.so").write_bytes(content[:0x20] + b"\xff" * 8 + content[0x28:])
    assert linked_libraries(tmp_path / "part.so") is None


def test_no_driver_under_a_gpu_build_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    findings = list(cuda_findings(monkeypatch, present=set(), providers=("cpu", "cuda")))
    assert [finding.name for finding in findings] == ["CUDA driver", "CUDA libraries"]
    assert {finding.exit_code for finding in findings} == {4}


def test_a_gpu_under_a_cpu_build_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = cuda_findings(monkeypatch, present={"libcuda.so.1"}, providers=("cpu",))
    assert finding.status is Status.NOTE
    assert not list(cuda_findings(monkeypatch, present=set(), providers=("cpu",)))


def test_low_space_and_a_read_only_cache_are_warnings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SDRT_CACHE", str(tmp_path / "not" / "yet" / "made"))
    monkeypatch.setattr(checks, "LOW_SPACE", 2**70)
    (finding,) = checks.check_cache()
    assert (finding.status, "SDRT_CACHE" in finding.remedy) == (Status.WARNING, True)
    monkeypatch.setattr(checks.os, "access", lambda *_: False)
    (finding,) = checks.check_cache()
    assert "not writable" in finding.detail


def test_a_record_that_a_removal_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "onnxruntime_gpu-1.22.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    first = next(iter(checks_ort.check_onnxruntime()))
    assert first.status is Status.WARNING
    assert "onnxruntime-gpu" in first.remedy


@pytest.mark.parametrize("name", ["numpy", "PIL.Image", "tokenizers"])
def test_a_library_that_is_missing(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    *_, last = checks.run_checks("shapes", "cpu")
    assert last.name == checks.REQUIRED[name]
    assert (last.status, last.exit_code) == (Status.ERROR, 1)
    assert "pip install" in last.remedy


def test_an_onnxruntime_of_which_only_a_folder_is_left(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime" / "capi").mkdir(parents=True)
    (tmp_path / "onnxruntime" / "capi" / "onnxruntime_pybind11_state.py").touch()
    (tmp_path / "onnxruntime" / "__init__.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from sdrt.cli import main; main(['doctor'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (4, "")
    assert "ERROR  onnxruntime: ONNX Runtime cannot be imported" in done.stdout


def test_a_cache_that_is_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SDRT_CACHE", str(tmp_path / "file"))
    (finding,) = checks.check_cache()
    assert finding.status is Status.WARNING


@pytest.mark.parametrize(("version", "status"), [("10.13.3", Status.OK), (None, Status.NOTE)])
def test_tensorrt_is_looked_for_where_its_provider_is(
    monkeypatch: pytest.MonkeyPatch, version: str | None, status: Status
) -> None:
    monkeypatch.setattr(checks_ort, "load_tensorrt", lambda: version)
    monkeypatch.setattr(checks_ort, "cuda_major", lambda: 13)
    (finding,) = checks_ort.check_tensorrt(("cpu", "cuda", "tensorrt"))
    assert finding.status is status
    assert version in finding.detail if version else "tensorrt-cu13" in finding.remedy
    assert not list(checks_ort.check_tensorrt(("cpu", "cuda")))


def test_openvino_s_devices_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt.onnx.engine.openvino_devices", lambda: ["CPU", "GPU"])
    (finding,) = checks_ort.check_openvino(("cpu", "openvino"))
    assert finding.detail.endswith("CPU, GPU")
    assert not list(checks_ort.check_openvino(("cpu",)))


def test_the_embedded_model_is_not_tried_where_graphs_go_whole() -> None:
    (finding,) = checks.check_generation("shapes", "openvino")
    assert finding.status is Status.NOTE
    assert "-m MODEL, a model exported with --target portable" in finding.remedy
