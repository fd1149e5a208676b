"""Which libraries are loaded for CUDA, from folders of stand-ins."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from sdrt.onnx.cuda_libraries import load_cuda_libraries


def test_they_are_taken_from_every_folder_but_onnxruntime_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There ONNX Runtime looks itself; what cannot be loaded is left to it, which says so."""
    monkeypatch.setattr(sys, "platform", "linux")
    ours, torchs = tmp_path / "ours", tmp_path / "torchs"
    files = [
        ours / "nvidia/cublas/lib/libcublas.so.12",
        torchs / "nvidia/cudnn/lib/libcudnn.so.9",
        torchs / "nvidia/cu13/lib/libcublas.so.13",
        torchs / "nvidia/cu13/lib/libcublasLt.so.13",
        torchs / "nvidia/cu13/lib/libnpp.so.13",
        torchs / "nvidia/cu13/lib/libcurand.so.10",
    ]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    loaded: list[str] = []

    def load(name: str) -> None:
        if "curand" in name:
            raise OSError("wrong ELF class")
        loaded.append(Path(name).name)

    monkeypatch.setattr(ctypes, "CDLL", load)
    monkeypatch.setattr(sys, "path", ["", str(ours), str(torchs), str(tmp_path / "none")])
    found = load_cuda_libraries(ours / "onnxruntime")
    # cuBLAS is linked with cuBLASLt.
    assert loaded == ["libcublasLt.so.13", "libcublas.so.13", "libcudnn.so.9"]
    assert [path.name for path in found] == loaded


def test_other_systems_have_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert load_cuda_libraries(Path("onnxruntime")) == []
