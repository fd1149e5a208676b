"""Checkpoints that run directly on other targets than the CPU: their graphs, without running them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from sdrt.model_folder.graph_kind import STAGES_GRAPH, WHOLE_GRAPH
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt_export import export_model, open_direct
from tests.export.direct import built

Checkpoint = Callable[[str], Path]


def weights(graph: MemoryGraph) -> Iterator[tuple[str, np.ndarray]]:
    """The weights of a graph in memory as ONNX Runtime reads them, in float32."""
    for tensor in onnx.load_from_string(graph.content).graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {one.key: one.value for one in tensor.external_data}
        if tensor.name in graph.values:
            value = graph.values[tensor.name]
        else:
            data = (graph.folder / entries["location"]).read_bytes()
            offset, length = int(entries["offset"]), int(entries["length"])
            raw = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims)
            raw.raw_data = data[offset : offset + length]
            value = numpy_helper.to_array(raw)
        assert value.shape == tuple(tensor.dims)
        yield tensor.name, value.astype(np.float32)


def test_the_cuda_graph_is_the_exported_one_with_the_same_weights(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    export_model(checkpoint("sd2"), tmp_path / "cuda", target="cuda")
    path = checkpoint("sd2")
    model = open_direct(path, path=path, target="cpu", name="x").for_target("cuda")
    assert model.target == "cuda"
    for name in ("unet", "text_encoder", "vae_decoder"):
        exported = onnx.load(tmp_path / "cuda" / name / "model.onnx")
        graph = built(model.graph(name))
        own = onnx.load_from_string(graph.content).graph
        names = {one.name for one in own.initializer if one.external_data}
        # ONNX Runtime folds these when it loads the graph.
        kept = [node for node in own.node if node.op_type != "Cast" or node.input[0] not in names]
        assert [node.op_type for node in kept] == [node.op_type for node in exported.graph.node]
        expected = {one.name: numpy_helper.to_array(one) for one in exported.graph.initializer}
        for key, value in weights(graph):
            stored = expected[key]
            np.testing.assert_array_equal(value.astype(stored.dtype), stored, err_msg=key)


def test_components_in_float16_have_graphs_in_float32_for_what_overflows(checkpoint: Checkpoint) -> None:
    path = checkpoint("sd1")
    half = open_direct(path, path=path, target="cuda", name="x")
    wide = open_direct(path, path=path, target="cpu", name="x")
    for kind in (WHOLE_GRAPH.widened, STAGES_GRAPH.widened):
        assert half.graph("vae_decoder", kind) is not None
        assert wide.graph("vae_decoder", kind) is None
    assert half.graph("unet", STAGES_GRAPH.widened) is None
    assert half.weights("unet").dtype == "float16"
    types = {
        one.type.tensor_type.elem_type
        for one in onnx.load_from_string(built(half.graph("unet", WHOLE_GRAPH.widened)).content).graph.output
    }
    assert types == {onnx.TensorProto.FLOAT}
