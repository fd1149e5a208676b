"""Any bytes as a safetensors file: read, or refused in one line; and the library's own reader agrees."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from sdrt import UnsupportedModelError
from sdrt.common.safetensors_file import read_header, read_tensor

WIDTHS = {
    "F64": 8,
    "F32": 4,
    "F16": 2,
    "BF16": 2,
    "F8_E5M2": 1,
    "F8_E4M3": 1,
    "I64": 8,
    "U16": 2,
    "BOOL": 1,
    "C64": 8,
}
ODD: list[Any] = [
    *(None, True, False, 0, -1, 1, 3, 2**31, 2**62, 2**63, 2**64, 10**400, 1.5, 1e400, -0.0, "", "F32", "F4"),
    *(
        [],
        {},
        [0],
        [0, 0],
        [0, 4],
        [4, 0],
        [[]],
        ["0", "4"],
        {"a": 1},
        [2**40, 2**40, 0],
        [1] * 17,
        "\ud800",
        "\0",
    ),
]
PIECES = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b",",
    b"\\u",
    b"\\ud800",
    b"NaN",
    b"-",
    b"\0",
    b"\xff",
    b" ",
]


def valid(random: random.Random) -> tuple[dict[str, Any], bytes]:
    """A header with its data, as the library writes them."""
    header: dict[str, Any] = {}
    if random.random() < 0.3:
        header["__metadata__"] = {"format": "pt", "é": "\n"}
    data = b""
    for index in range(random.randrange(5)):
        dtype = random.choice(list(WIDTHS))
        shape = [random.choice([0, 1, 1, 2, 3]) for _ in range(random.randrange(4))]
        size = WIDTHS[dtype]
        for n in shape:
            size *= n
        header[f"w{index}.wéight"] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [len(data), len(data) + size],
        }
        data += random.randbytes(size)
    return header, data


def lying(random: random.Random, header: dict[str, Any]) -> None:
    """Change values in a header."""
    for _ in range(random.randrange(1, 4)):
        names = [name for name, entry in header.items() if isinstance(entry, dict)]
        if not names:
            break
        name = random.choice(names)
        kind = random.randrange(6)
        if kind == 0:
            header[random.choice([name, "__metadata__", "new", "\ud800"])] = random.choice(ODD)
        elif kind == 1:
            header[name][random.choice(["dtype", "shape", "data_offsets", "x"])] = random.choice(ODD)
        elif kind == 2 and isinstance(header[name].get("data_offsets"), list):
            header[name]["data_offsets"] = [
                n + random.choice([-1, 0, 1, 8, 2**40])
                for n in header[name]["data_offsets"]
                if type(n) is int
            ]
        elif kind == 3 and isinstance(header[name].get("shape"), list):
            header[name]["shape"] = [*header[name]["shape"], random.choice(ODD)]
        elif kind == 4:
            header[name].pop(random.choice(list(header[name]) or [""]), None)
        else:
            header[random.choice(names)] = header[random.choice(names)]


def mutated(random: random.Random, content: bytes) -> bytes:
    """Change bytes of a file, most of them in its header."""
    made = bytearray(content)
    for _ in range(random.randrange(1, 4)):
        place = random.randrange(len(made) + 1)
        kind = random.randrange(5)
        if kind == 0:
            del made[place : place + random.randrange(1, 9)]
        elif kind == 1:
            made[place:place] = random.choice(PIECES) * random.choice([1, 1, 2, 50])
        elif kind == 2 and place < len(made):
            made[place] = random.randrange(256)
        elif kind == 3:
            del made[place:]
        else:
            made += bytes(random.randrange(9))
    return bytes(made)


def one_file(random: random.Random) -> bytes:
    header, data = valid(random)
    kind = random.randrange(4)
    if kind == 0:
        lying(random, header)
    text = json.dumps(header, ensure_ascii=random.random() < 0.5, allow_nan=True).encode(
        "utf-8", "surrogatepass"
    )
    text += b" " * (-len(text) % 8)
    length = len(text) + (random.choice([-9, -1, 1, 8, 2**20, 2**60]) if kind == 1 else 0)
    content = (length % 2**64).to_bytes(8, "little") + text + data
    if kind == 2:
        content = (
            content[:8] + mutated(random, content[8:]) if random.random() < 0.7 else mutated(random, content)
        )
        if random.random() < 0.5:  # the length stays right, so that the JSON is read
            content = (max(0, len(content) - 8 - len(data))).to_bytes(8, "little") + content[8:]
    return content


def ours(path: Path) -> str | None:
    """Read everything. Return the message of a refusal: of the file, or of a tensor."""
    unread = None
    try:
        file = read_header(path)
    except UnsupportedModelError as error:
        return str(error)
    for name in file.tensors:
        try:
            assert read_tensor(file, name).shape == file.tensors[name].shape
        except UnsupportedModelError as error:
            unread = str(error)
    return unread


# What the library reads, and the reason for refusing it.
OUR_REASONS = (
    "twice",  # the library takes the last of two tensors with the same name
    "does not describe",  # the library takes a list in place of an entry, and shapes of more than 16 axes
    "is not supported: save it in float16",  # types that no weights of ours have
    "too large",  # an empty tensor with a shape that NumPy has no array for
)


def theirs(content: bytes) -> bool:
    from safetensors import SafetensorError, deserialize

    try:
        deserialize(content)  # type: ignore[no-untyped-call]
    except SafetensorError:
        return False
    return True


def check(tmp_path: Path, seed: int, count: int) -> None:
    pytest.importorskip("safetensors")
    numbers, accepted = random.Random(seed), 0
    path = tmp_path / "a.safetensors"
    for _ in range(count):
        content = one_file(numbers)
        path.write_bytes(content)
        refusal = ours(path)
        if refusal is None:
            assert theirs(content), content
            accepted += 1
        else:
            assert "\n" not in refusal, refusal
            assert len(refusal) < 400 + len(str(path)), refusal
            assert not theirs(content) or any(reason in refusal for reason in OUR_REASONS), (content, refusal)
    assert count / 5 < accepted < count / 2


def test_some_files(tmp_path: Path) -> None:
    check(tmp_path, 0, 4000)


@pytest.mark.full
def test_many_files(tmp_path: Path) -> None:
    check(tmp_path, 1, 100_000)
