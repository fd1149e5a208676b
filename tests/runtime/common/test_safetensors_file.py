"""Reading safetensors files: every number type, and headers that lie or are made to take memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import UnsupportedModelError
from sdrt.common.safetensors_file import read_header, read_tensor


def written(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """Write a file with any header, and with a wrong `length` if there is one."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(dtype: Any = "F32", shape: Any = (1,), place: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": place}


def test_files_of_the_library(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    arrays = {
        np.dtype(kind).name: np.arange(6).astype(kind).reshape(2, 3)
        for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?")
    } | {"scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 4), np.float32)}
    library.save_file(arrays, tmp_path / "a.safetensors", metadata={"name": "x"})
    file = read_header(tmp_path / "a.safetensors")
    assert file.metadata == {"name": "x"}
    assert set(file.tensors) == set(arrays)
    for name, array in arrays.items():
        found = read_tensor(file, name)
        np.testing.assert_array_equal(found, array)
        assert found.dtype == array.dtype


@pytest.mark.parametrize(
    ("dtype", "theirs"),
    [("BF16", "bfloat16"), ("F8_E4M3", "float8_e4m3fn"), ("F8_E5M2", "float8_e5m2")],
)
def test_every_number_of_a_type_that_numpy_lacks(tmp_path: Path, dtype: str, theirs: str) -> None:
    """All 65,536 or 256 of them, against `ml_dtypes`."""
    ml_dtypes = pytest.importorskip("ml_dtypes")
    width = np.dtype(getattr(ml_dtypes, theirs)).itemsize
    raw = np.arange(256**width, dtype=f"<u{width}")
    header = {"x": entry(dtype, [len(raw)], [0, raw.nbytes])}
    file = read_header(written(tmp_path / "a.safetensors", header, raw.tobytes()))
    expected = raw.view(getattr(ml_dtypes, theirs)).astype(np.float32)
    np.testing.assert_array_equal(read_tensor(file, "x"), expected)


@pytest.mark.parametrize(
    ("header", "data", "length", "words"),
    [
        (b"", b"", 1 << 60, "it is cut off, or is another kind of file"),
        (b"{", b"", 2, "it is cut off"),
        (b"PK\x03\x04", b"", None, "its header is not JSON"),
        (b"[" * 100_000, b"", None, "its header is not JSON"),
        (b"[]", b"", None, "its header is not a JSON object"),
        (b"\xff\xfe", b"", None, "its header is not JSON"),
        ({"x": 5}, b"", None, "does not describe 'x'"),
        ({"x": entry(dtype=4)}, b"1234", None, "does not describe 'x'"),
        ({"x": entry(shape=[-1])}, b"1234", None, "does not describe 'x'"),
        ({"x": entry(shape=[True])}, b"1234", None, "does not describe 'x'"),
        ({"x": entry(shape=[1] * 1000)}, b"1234", None, "does not describe 'x'"),
        ({"x": entry(shape=[10**400])}, b"1234", None, "does not describe 'x'"),
        ({"x": entry(place=[0, 5])}, b"1234", None, "does not describe 'x'"),
        ({"x": entry(place=[4, 0])}, b"1234", None, "does not describe 'x'"),
        ({"x": entry(place=[0, 4, 8])}, b"1234", None, "does not describe 'x'"),
        ({"x": entry(shape=[2])}, b"1234", None, "the size of 'x' does not fit its shape"),
        ({"x\n\x1b[2J": entry(place=[0, 9])}, b"1234", None, r"'x\\n\\x1b\[2J'"),
    ],
)
def test_damaged_headers(tmp_path: Path, header: Any, data: bytes, length: int | None, words: str) -> None:
    path = written(tmp_path / "a.safetensors", header, data, length)
    with pytest.raises(
        UnsupportedModelError, match=rf"cannot be read as a safetensors file \(.*{words}"
    ) as caught:
        read_header(path)
    assert "\n" not in str(caught.value)


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").touch()
    with pytest.raises(UnsupportedModelError, match="it is cut off"):
        read_header(tmp_path / "a.safetensors")


def test_a_huge_header_is_not_read(tmp_path: Path) -> None:
    """A header of a gigabyte in a sparse file."""
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((1 << 30).to_bytes(8, "little"))
        file.truncate(8 + (1 << 30))
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedModelError, match="its header has 1073741824 bytes, expected at most"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", {"x": entry()}, b"1234")
    file = read_header(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnsupportedModelError, match="it was cut off while it was read"):
        read_tensor(file, "x")
