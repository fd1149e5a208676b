"""Graphs in files: their weights are mapped, and a graph that is written again is the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sdrt.errors import IntegrityError
from sdrt_export.graphs.stored import StoredGraph

Array = np.ndarray[Any, Any]


@pytest.fixture
def decoder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model / "vae_decoder", tmp_path / "vae_decoder"))


def values(path: Path) -> dict[str, Array]:
    """By the library onnx, which reads everything into memory."""
    tensors = onnx.load(str(path)).graph.initializer
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in tensors}


def same(found: dict[str, Array], expected: dict[str, Array]) -> bool:
    return found.keys() == expected.keys() and all(
        found[name].dtype == array.dtype and np.array_equal(found[name], array)
        for name, array in expected.items()
    )


def test_weights_are_views_of_the_mapped_file(decoder: Path) -> None:
    graph = StoredGraph.read(decoder / "model.onnx")
    expected = values(decoder / "model.onnx")
    assert same({name: graph.array(name) for name in graph.initializers}, expected)
    assert {name: graph.shape(name) for name in expected} == {k: v.shape for k, v in expected.items()}
    weight = graph.array("decoder.conv_in.weight")
    assert isinstance(weight, np.memmap)
    assert not weight.flags.owndata
    assert not weight.flags.writeable


def test_a_graph_that_is_written_again_is_the_same(decoder: Path, tmp_path: Path) -> None:
    graph = StoredGraph.read(decoder / "model.onnx")
    (tmp_path / "copy").mkdir()
    graph.save(tmp_path / "copy" / "model.onnx")
    assert same(values(tmp_path / "copy" / "model.onnx"), values(decoder / "model.onnx"))
    one, other = (
        onnx.load(str(folder / "model.onnx"), load_external_data=False)
        for folder in (decoder, tmp_path / "copy")
    )
    assert list(one.graph.node) == list(other.graph.node)
    assert one.metadata_props == other.metadata_props


def test_another_graph_shares_what_is_equal(decoder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    StoredGraph.read(decoder / "model.onnx").save(folder / "model.onnx")
    whole, stages = StoredGraph.read(folder / "model.onnx"), StoredGraph.read(decoder / "stages.onnx")
    name = "decoder.conv_out.weight"
    expected = values(decoder / "stages.onnx") | {name: stages.array(name) * 2}
    changed = stages.array(name) * 2
    stages.convert(name, np.float32, lambda: changed)
    stages.save_beside(folder / "stages.onnx", whole)
    assert same(values(folder / "stages.onnx"), expected)
    written = StoredGraph.read(folder / "stages.onnx")
    assert written.place(name) is None
    assert written.place("decoder.conv_in.weight") == whole.place("decoder.conv_in.weight")
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "model.onnx_data", "stages.onnx"}


@pytest.mark.parametrize("location", ["../other", "/etc/hostname", "missing"])
def test_weights_are_read_only_from_beside_the_graph(decoder: Path, location: str) -> None:
    model = onnx.load(str(decoder / "model.onnx"), load_external_data=False)
    shutil.copy(decoder / "model.onnx_data", decoder.parent / "other")
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    with pytest.raises(IntegrityError, match="there is no file of weights"):
        StoredGraph(model, decoder).array("decoder.conv_in.weight")


def test_a_file_of_weights_that_is_cut_off_is_refused(decoder: Path) -> None:
    data = decoder / "model.onnx_data"
    data.write_bytes(data.read_bytes()[:100])
    graph = StoredGraph.read(decoder / "model.onnx")
    with pytest.raises(IntegrityError, match="is too short for decoder"):
        graph.array("decoder.conv_out.weight")
