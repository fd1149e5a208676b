"""TensorRT's libraries: where they are looked for, and their version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdrt.onnx import tensorrt

FIRST, SECOND = tensorrt.LIBRARIES


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    tensorrt.load_tensorrt.cache_clear()
    yield
    tensorrt.load_tensorrt.cache_clear()


def libraries(monkeypatch: pytest.MonkeyPatch, found: set[str], number: int = 101303) -> list[str]:
    """A system with the libraries `found`, by name or path; what was loaded."""
    loaded: list[str] = []

    def load(name: str) -> SimpleNamespace:
        if name not in found:
            raise OSError(name)
        loaded.append(name)
        return SimpleNamespace(getInferLibVersion=lambda: number)

    monkeypatch.setattr(tensorrt.sys, "platform", "linux")
    monkeypatch.setattr(tensorrt.ctypes, "CDLL", load)
    return loaded


@pytest.mark.parametrize(("number", "version"), [(101303, "10.13.3"), (100900, "10.9.0"), (8601, "8.6.1")])
def test_the_system_s(monkeypatch: pytest.MonkeyPatch, number: int, version: str) -> None:
    loaded = libraries(monkeypatch, {FIRST, SECOND}, number)
    assert tensorrt.load_tensorrt() == version
    assert loaded == [FIRST, SECOND]


def test_the_wheel_s(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    paths = [str(tmp_path / "tensorrt_libs" / name) for name in tensorrt.LIBRARIES]
    loaded = libraries(monkeypatch, set(paths))
    assert tensorrt.load_tensorrt() == "10.13.3"
    assert loaded == paths


@pytest.mark.parametrize("found", [set(), {FIRST}, {SECOND}])
def test_half_of_it_is_none(monkeypatch: pytest.MonkeyPatch, found: set[str]) -> None:
    libraries(monkeypatch, found)
    assert tensorrt.load_tensorrt() is None
