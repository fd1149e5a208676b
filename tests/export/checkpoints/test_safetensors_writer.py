"""The files that it writes are those of the library `safetensors`, byte by byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from sdrt_export.checkpoints.safetensors_writer import write_safetensors

Array = np.ndarray[Any, Any]


def test_they_are_the_library_s(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tensors: dict[str, Array] = {
        "b.weight": random.standard_normal((3, 5, 2, 2)).astype(np.float32),
        "b.bias": random.standard_normal(3).astype(np.float32),
        "a": random.standard_normal((4, 3)).astype(np.float32).T,
        "scalar": np.array(2.5, np.float32),
        "none": np.zeros((0, 3), np.float32),
        "half": random.standard_normal(7).astype(np.float16),
        "größe": np.ones(1, np.float32),
    }
    write_safetensors(
        tmp_path / "ours", {name: array.shape for name, array in tensors.items()}, tensors.__getitem__
    )
    copies = {
        name: np.ascontiguousarray(array, np.float32).reshape(array.shape) for name, array in tensors.items()
    }
    save_file(copies, tmp_path / "theirs", metadata={"format": "pt"})
    from safetensors.numpy import load_file

    found = load_file(tmp_path / "ours")
    assert found.keys() == copies.keys()
    for name, array in copies.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    without = {name: array for name, array in copies.items() if name.isascii()}
    write_safetensors(
        tmp_path / "ascii", {name: array.shape for name, array in without.items()}, without.__getitem__
    )
    save_file(without, tmp_path / "ascii-theirs", metadata={"format": "pt"})
    assert (tmp_path / "ascii").read_bytes() == (tmp_path / "ascii-theirs").read_bytes()


def test_one_tensor_is_read_at_a_time(tmp_path: Path) -> None:
    read: list[str] = []

    def give(name: str) -> Array:
        read.append(name)
        return np.zeros(2, np.float32)

    write_safetensors(tmp_path / "file", {"b": (2,), "a": (2,)}, give)
    assert read == ["a", "b"]
