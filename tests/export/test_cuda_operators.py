"""Target `cuda` without a GPU: which operators its full-size graphs have, and the document says so."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from pathlib import Path

import onnx_ir as ir
import pytest

from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.component_graphs import graphs_of
from sdrt_export.components import parts_of
from tests.export.built import as_ir
from tests.export.cuda_graphs import CUDA

# Full-size SD 1.5. Sums and biases are in the norms, or in BiasAdd where no norm follows; each VAE's attention has
# three projections with a bias, in Add. Nothing else adds.
COUNTS: dict[str, dict[str, int]] = {
    "unet": {
        **{
            "NhwcConv": 98,
            "GroupNorm": 16,
            "SkipGroupNorm": 45,
            "MultiHeadAttention": 32,
            "BiasSplitGelu": 16,
        },
        **{"BiasAdd": 31, "LayerNormalization": 16, "SkipLayerNormalization": 32, "Gemm": 24, "QuickGelu": 2},
        **{"Conv": 0, "Add": 0, "Sigmoid": 0, "Gelu": 0, "InstanceNormalization": 0, "Cast": 4},
        # Three upsamplings; and the timestep's embedding has one Expand.
        **{"Resize": 0, "Pad": 0, "Expand": 3 + 1, "Slice": 3},
    },
    "vae_encoder": {
        **{
            "NhwcConv": 28,
            "GroupNorm": 14,
            "SkipGroupNorm": 8,
            "MultiHeadAttention": 1,
            "BiasAdd": 3,
            "Add": 3,
        },
        **{"Conv": 0, "QuickGelu": 0, "InstanceNormalization": 0, "Cast": 2, "Pad": 0},
    },
    "vae_decoder": {
        **{
            "NhwcConv": 36,
            "GroupNorm": 18,
            "SkipGroupNorm": 12,
            "MultiHeadAttention": 1,
            "BiasAdd": 3,
            "Add": 3,
        },
        **{"Conv": 0, "QuickGelu": 0, "InstanceNormalization": 0, "Cast": 2},
        **{"Resize": 0, "Pad": 0, "Expand": 3, "Slice": 0},
    },
    "text_encoder": {
        **{"MultiHeadAttention": 12, "LayerNormalization": 12, "SkipLayerNormalization": 24, "QuickGelu": 12},
        **{"ArgMax": 0, "GatherND": 0, "Softmax": 0, "Add": 25},
    },
}


# Into NHWC and out of it.
TRANSPOSES = {name: [] if name == "text_encoder" else [(0, 2, 3, 1), (0, 3, 1, 2)] for name in COUNTS}


@cache
def full_size(architecture: str, name: str) -> ir.Model:
    """The graph of a component at full size, without weights."""
    source = RandomCheckpoint(architecture=architecture, seed=0)
    component = {one.name: one for parts in parts_of(source.family).values() for one in parts}[name]
    return as_ir(graphs_of(component, source.config(component.checkpoint), CUDA, half=True)["model.onnx"])


# The table's columns, and what they are of.
COLUMNS: list[list[tuple[str, str]]] = [
    [("sd15", "unet")],
    [("sdxl", "unet")],
    [("sd15", "vae_encoder"), ("sdxl", "vae_encoder")],
    [("sd15", "vae_decoder"), ("sdxl", "vae_decoder")],
    [("sd15", "text_encoder"), ("sdxl", "text_encoder")],
    [("sdxl", "text_encoder_2")],
]


TABLE_ROW = re.compile(r"^\| `(\w+)`[^|]*\|(.+)\|$", re.M)


@pytest.mark.parametrize("column", range(len(COLUMNS)))
def test_the_document_has_the_operators_of_full_size(column: int) -> None:
    rows = TABLE_ROW.findall((Path(__file__).parents[2] / "docs" / "cuda.md").read_text(encoding="utf-8"))
    told = {op: cells.split("|")[column].strip().replace("–", "0") for op, cells in rows}
    assert len(told) == 11
    for architecture, name in COLUMNS[column]:
        counts = Counter(node.op_type for node in full_size(architecture, name).graph.all_nodes())
        # The embedding of the timestep has one, which repeats no pixels.
        counts["Expand"] -= name == "unet"
        assert {op: int(count) for op, count in told.items()} == {op: counts[op] for op in told}


@pytest.mark.parametrize("name", COUNTS)
def test_operators_of_full_size_sd15(name: str) -> None:
    nodes = list(full_size("sd15", name).graph.all_nodes())
    counts = Counter(node.op_type for node in nodes)
    assert {op: counts[op] for op in COUNTS[name]} == COUNTS[name]
    transposes = [node for node in nodes if node.op_type == "Transpose"]
    assert [tuple(node.attributes["perm"].as_ints()) for node in transposes] == TRANSPOSES[name]
    strides: list[tuple[int, int]] = []
    for node in nodes:
        if node.op_type == "MultiHeadAttention":
            # Packed, but for the VAE's one: queries, keys and values in one, or keys and values.
            count = 3 if name.startswith("vae") else 2 if ".attn2" in node.name else 1
            assert len(node.inputs) == count
        if node.op_type.endswith("GroupNorm"):
            assert [value.dtype for value in node.inputs[1:3]] == [ir.DataType.FLOAT] * 2
        if node.op_type == "NhwcConv":
            weight = node.inputs[1]
            assert weight.is_initializer()
            assert weight.dtype == ir.DataType.FLOAT16
            # 4: three of the encoder's, with zeros at one end so that the padding is the same all around.
            assert weight.shape[1] == weight.shape[2] in ((1, 3, 4) if name == "vae_encoder" else (1, 3))
            pads = list(node.attributes["pads"].as_ints())
            assert pads[:2] == pads[2:]
            strides.append((int(weight.shape[1]), node.attributes["strides"].as_ints()[0]))
    assert Counter(strides)[4, 2] == Counter(size for size, _ in strides)[4] == 3 * (name == "vae_encoder")
