"""Reading a graph without its weights: what it says, and files that are damaged or made to take memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sdrt import IntegrityError
from sdrt.common.notices import Notices
from sdrt.onnx.added_output import with_output
from sdrt.onnx.engine import ort
from sdrt.onnx.graph_file import read_graph
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component

UNET = "unet/model.onnx"


@pytest.mark.parametrize("component", ["text_encoder", "unet", "vae_encoder", "vae_decoder"])
def test_it_says_what_onnx_runtime_says(tiny_model: Path, component: str) -> None:
    path = tiny_model / component / "model.onnx"
    session, graph = ort.InferenceSession(str(path)), read_graph(path)
    for theirs in session.get_inputs():
        free = [size if isinstance(size, int) else str(size) for size in theirs.shape]
        assert list(graph.inputs[theirs.name]) == free
    assert list(graph.outputs) == [one.name for one in session.get_outputs()]
    made = {name for node in graph.nodes for name in node.outputs}
    assert set(graph.outputs) <= made
    assert {name for node in graph.nodes for name in node.inputs if name} <= (
        made | set(graph.inputs) | set(graph.constants)
    )


def test_every_cut_is_found_or_reads(tiny_model: Path, tmp_path: Path) -> None:
    """A file that is cut off anywhere ends in an error of sdrt's."""
    data, path = (tiny_model / UNET).read_bytes(), tmp_path / "unet" / "model.onnx"
    path.parent.mkdir()
    for length in [*range(40), *range(40, len(data), len(data) // 60)]:
        path.write_bytes(data[:length])
        with pytest.raises(
            IntegrityError, match=r"model\.onnx is not an ONNX file, or is damaged: copy or export"
        ):
            read_graph(path)


@pytest.mark.full
@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 4096,
        b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\x00" * 100,
        b"\x3a\x02\x0a\x00" * 300_000,
        b"PK\x03\x04" + b"\x00" * 500,
        b"\x3a\x86\xc0\x02" + b"\x0a\x82\xc0\x02" + b"\x22\xfe\xbf\x02" + b"a" * 40_958,
    ],
    ids=["endless number", "huge length", "millions of graphs", "zip", "long name"],
)
def test_hostile_files(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "unet" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="not an ONNX file"):
            read_graph(path)
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_weights_take_no_memory(tmp_path: Path) -> None:
    """A field of 64 MB in a tensor is skipped."""
    raw = b"\x4a" + _varint(1 << 26) + bytes(1 << 26)
    tensor = b"\x08\x02\x08\x03\x42\x01w" + raw
    graph = b"\x0a\x03\x22\x01X" + b"\x2a" + _varint(len(tensor)) + tensor
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x3a" + _varint(len(graph)) + graph)
    tracemalloc.start()
    try:
        assert read_graph(path).constants == {"w": (2, 3)}
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def test_an_inner_tensor_becomes_an_output(tiny_model: Path) -> None:
    """The weights are in another file, which ONNX Runtime must find though the graph comes from memory."""
    path = tiny_model / "vae_decoder" / "model.onnx"
    graph = read_graph(path)
    assert graph.external
    last = [node for node in graph.nodes if node.op == "Conv"][-1]
    content = with_output(path, last.outputs[0], "inner")
    memory = MemoryGraph(content=content, folder=path.parent)
    component = Component("vae_decoder", path, SessionConfig(provider="cpu"), Notices(), memory=memory)
    given = {"latent_sample": np.ones((1, 4, 8, 8), np.float32)}
    np.testing.assert_array_equal(component.run(given, "inner"), component.run(given, "sample"))
