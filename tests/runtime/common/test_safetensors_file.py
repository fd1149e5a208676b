"""Reading safetensors files: every number type, and headers that lie or are made to take memory."""

from __future__ import annotations

import json
import os
import pickle
import tracemalloc
from collections.abc import Callable
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
        for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?")
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
        ({"x": entry(shape=[10**400])}, b"1234", None, "its header is not JSON"),
        (
            {"x": entry(shape=[2], place=[0, 8])},
            b"1234",
            None,
            r"cut off: 'x' ends at byte \d+, and the file has",
        ),
        ({"x": entry(shape=[2**40, 2**40, 0], place=[0, 0])}, b"", None, "the shape of 'x' is too large"),
        ({"x": entry(), "y": entry()}, b"1234", None, "the bytes of 'x' and 'y' overlap"),
        (
            {"x": entry(), "y": entry(shape=[0], place=[2, 2])},
            b"1234",
            None,
            "the bytes of 'x' and 'y' overlap",
        ),
        ({"x": entry(place=[4, 8])}, b"12345678", None, "4 bytes before 'x' belong to no tensor"),
        ({"x": entry()}, b"123456", None, "its last 2 bytes belong to no tensor"),
        ({"x": entry("F4", [3], [0, 2])}, b"12", None, "the size of 'x' does not fit its shape"),
        (b'{"x": 1, "x": 2}', b"", None, "its header names 'x' twice"),
        (b'{"x": {"dtype": "F32", "dtype": "I32"}}', b"", None, "its header names 'dtype' twice"),
        (b'{"x": NaN}', b"", None, "its header is not JSON"),
        (
            b'{"\\ud800": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}',
            b"1234",
            None,
            "its header is not JSON",
        ),
        (json.dumps({"x": entry()}).encode("utf-16"), b"1234", None, "its header is not JSON"),
        ({"__metadata__": {"a": 1}}, b"", None, "its __metadata__ is not an object of texts"),
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "a pointer of Git LFS.*: .* git lfs pull",
        ),
        (b"<!DOCTYPE html><html>Log in</html>", "a web page.*: download it again"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "a GGUF file.*: use the model's .safetensors"),
        (b"PK\x03\x04\x14\0\0\0\0\0", "a zip archive.*: only .safetensors is read"),
        (pickle.dumps({"state_dict": {}}), "a pickle.*: only .safetensors is read"),
        (b'{"_class_name": "UNet2DConditionModel"}', "a text in JSON"),
    ],
)
def test_other_kinds_of_files(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=rf"cannot be read as a safetensors file \(it is {words}"):
        read_header(tmp_path / "a.safetensors")


def test_what_is_no_file(tmp_path: Path) -> None:
    """A pipe would be waited for, a device read without an end."""
    with pytest.raises(UnsupportedModelError, match="is a folder: expected a safetensors file"):
        read_header(tmp_path)
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path / "pipe.safetensors", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(UnsupportedModelError, match="is a pipe or a device: expected a safetensors file"):
            read_header(path)


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


def _shorter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _replaced(path: Path) -> None:
    copy = path.with_name("b")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


def _moved(path: Path) -> None:
    path.rename(path.with_name("b"))


def _without_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def _under_a_file(path: Path) -> None:
    _without_folder(path)
    path.parent.write_bytes(b"")


def _in_a_circle(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


CHANGED = r"changed while it was in use: wait until the program .*, then open it again"
GONE = "was removed, renamed or moved while it was in use: put it back, or open it where it is now"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_shorter, CHANGED),
        (_replaced, CHANGED),
        (Path.unlink, GONE),
        (_moved, GONE),
        (_without_folder, GONE),
        (_under_a_file, GONE),
        (
            _in_a_circle,
            r"can no longer be read \(.*symbolic links.*\): check its permissions, and whether its",
        ),
    ],
)
def test_a_file_that_changes(tmp_path: Path, change: Callable[[Path], None], words: str) -> None:
    (tmp_path / "folder").mkdir()
    path = written(tmp_path / "folder" / "a.safetensors", {"x": entry()}, b"1234")
    file = read_header(path)
    change(path)
    with pytest.raises(UnsupportedModelError, match=words):
        read_tensor(file, "x")


@pytest.mark.full
def test_a_header_of_the_largest_size(tmp_path: Path) -> None:
    """Eight megabytes of what takes Python most memory: refused in seconds, in a bounded amount."""
    path = written(tmp_path / "a.safetensors", b'{"x": [' + b"[]," * ((8 << 20) // 3 - 8) + b"[]]}")
    tracemalloc.start()
    try:
        with pytest.raises(UnsupportedModelError, match="does not describe 'x'"):
            read_header(path)
        assert tracemalloc.get_traced_memory()[1] < 300_000_000
    finally:
        tracemalloc.stop()
