"""What is in the graphs: ops, names, axes, weights."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from sdrt_export import TARGETS
from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.component_graphs import graphs_of, transposed_weights
from sdrt_export.components import COMPONENTS
from sdrt_export.verify import modules
from tests.export.built import as_ir

ATTENTION, SKIP, SILU = "MultiHeadAttention", "SkipLayerNormalization", "QuickGelu"
UNET = {"Conv": 98, "InstanceNormalization": 61, "Gelu": 16, "Gemm": 24}
CLIP = {"Conv": 0, "InstanceNormalization": 0, "Gelu": 0}
ENCODER = {"Conv": 28, "InstanceNormalization": 22, "Gelu": 0, "LayerNormalization": 0}
DECODER = {"Conv": 36, "InstanceNormalization": 30, "Gelu": 0, "LayerNormalization": 0}
# Full-size SD 1.5. GELU is the half of GEGLU that is an op; SiLU is QuickGelu with alpha 1.
COUNTS = {
    ("cpu", "unet"): UNET | {ATTENTION: 32, SKIP: 32, "LayerNormalization": 16, SILU: 47, "Softmax": 0},
    ("portable", "unet"): UNET | {"Softmax": 32, "LayerNormalization": 48, "Sigmoid": 47},
    ("cpu", "text_encoder"): CLIP
    | {ATTENTION: 12, SKIP: 24, "LayerNormalization": 12, SILU: 12, "Softmax": 0},
    ("portable", "text_encoder"): CLIP | {"Softmax": 12, "LayerNormalization": 36, "Sigmoid": 12},
    ("cpu", "vae_encoder"): ENCODER | {ATTENTION: 1, SILU: 21, "Softmax": 0},
    ("portable", "vae_encoder"): ENCODER | {"Softmax": 1, "Sigmoid": 21},
    ("cpu", "vae_decoder"): DECODER | {ATTENTION: 1, SILU: 29, "Softmax": 0},
    ("portable", "vae_decoder"): DECODER | {"Softmax": 1, "Sigmoid": 29},
}
DOMAINS = {"cpu": {"", "com.microsoft"}, "portable": {""}}
QUICK = {("cpu", "unet"), ("cpu", "text_encoder")}


@pytest.mark.parametrize(
    ("target", "name"),
    [key if key in QUICK else pytest.param(*key, marks=pytest.mark.full) for key in COUNTS],
)
def test_op_counts_of_full_size_sd15(target: str, name: str) -> None:
    component, row = COMPONENTS[name], TARGETS[target]
    config = RandomCheckpoint(architecture="sd15", seed=0).config(component.checkpoint)
    module = modules.build(component, config)
    graph = graphs_of(component, config, row)["model.onnx"]
    model = as_ir(graph)
    nodes = list(model.graph.all_nodes())
    counts = Counter(node.op_type for node in nodes)
    expected = COUNTS[target, name]
    assert {op: counts[op] for op in expected} == expected
    assert {node.domain for node in nodes} == set(model.opset_imports) == DOMAINS[target]
    assert attention_patterns(model) == expected["Softmax"]
    parameters = {key: tuple(value.shape) for key, value in own_parameters(name, module).items()}
    assert {
        key: shape for weight in graph.weights.values() for key, shape in weight.sources.items()
    } == parameters
    linear = {key for key, value in own_parameters(name, module).items() if value.ndim == 2}
    assert set(transposed_weights(graph)) == linear - gemm_or_gather_weights(model)


def own_parameters(name: str, module: Any) -> dict[str, Any]:
    """The checkpoint's weights that belong to the component; a VAE's are in two halves."""
    halves = {"vae_encoder": ("encoder.", "quant_conv."), "vae_decoder": ("decoder.", "post_quant_conv.")}
    prefixes = halves.get(name, ("",))
    return {key: value for key, value in module.named_parameters() if key.startswith(prefixes)}


def gemm_or_gather_weights(model: ir.Model) -> set[str]:
    """Matrices that their ops take as torch has them."""
    users = {"Gemm": 1, "Gather": 0, "Slice": 0}
    return {
        str(value.name)
        for node in model.graph
        for value in [node.inputs[users[node.op_type]] if node.op_type in users else None]
        if value is not None and value.name in model.graph.initializers
    }


def attention_patterns(model: ir.Model) -> int:
    """How many Softmax have a MatMul somewhere above (through scaling and masks) and one right below."""
    return sum(
        _reaches_matmul(node.inputs[0])
        and any(use.node.op_type == "MatMul" for use in node.outputs[0].uses())
        for node in model.graph.all_nodes()
        if node.op_type == "Softmax"
    )


def _reaches_matmul(value: ir.Value | None) -> bool:
    node = value.producer() if value is not None else None
    if node is None or node.op_type == "MatMul":
        return node is not None
    return node.op_type in {"Add", "Mul", "Div", "Cast", "Reshape"} and any(map(_reaches_matmul, node.inputs))


@pytest.mark.parametrize(("target", "expected"), [("cpu", 0), ("portable", 8)])
def test_attention_is_fused_where_the_target_fuses(
    exported: Callable[..., Any], target: str, expected: int
) -> None:
    model = ir.load(exported("sd1", target, "unet").path)
    assert attention_patterns(model) == expected
    assert {node.domain for node in model.graph.all_nodes()} == DOMAINS[target]


TEXT = ["batch", "sequence", 32]
HIDDEN = [*(f"hidden_states.{i}" for i in range(4)), "last_hidden_state.skip_1", "last_hidden_state.skip_2"]
# Names are optimum's; the last two of the text encoder are ours, for clip_skip.
SIGNATURES: dict[str, tuple[dict[str, tuple[str, list[Any]]], dict[str, list[Any]]]] = {
    "text_encoder": (
        {"input_ids": ("tensor(int64)", ["batch", "sequence"])},
        {"last_hidden_state": TEXT, "pooler_output": ["batch", 32], **dict.fromkeys(HIDDEN, TEXT)},
    ),
    "unet": (
        {
            "sample": ("tensor(float)", ["batch", 4, "height", "width"]),
            "timestep": ("tensor(float)", []),
            "encoder_hidden_states": ("tensor(float)", TEXT),
        },
        {"out_sample": ["batch", 4, "height", "width"]},
    ),
    "vae_encoder": (
        {"sample": ("tensor(float)", ["batch", 3, "height", "width"])},
        {"latent_parameters": ["batch", 8, None, None]},
    ),
    "vae_decoder": (
        {"latent_sample": ("tensor(float)", ["batch", 4, "height", "width"])},
        {"sample": ["batch", 3, None, None]},
    ),
}


@pytest.mark.parametrize(
    ("target", "name"),
    [
        *(("cpu", name) for name in SIGNATURES),
        ("portable", "unet"),
        *(pytest.param("portable", name, marks=pytest.mark.full) for name in SIGNATURES if name != "unet"),
    ],
)
def test_names_dtypes_and_axes(exported: Callable[..., Any], target: str, name: str) -> None:
    session = ort.InferenceSession(exported("sd1", target, name).path, providers=["CPUExecutionProvider"])
    inputs, outputs = SIGNATURES[name]
    assert {arg.name: (arg.type, arg.shape) for arg in session.get_inputs()} == inputs
    assert [arg.name for arg in session.get_outputs()] == list(outputs)
    for arg in session.get_outputs():
        assert arg.type == "tensor(float)"
        # Sizes computed from others have no name to hold on to.
        wanted = outputs[arg.name]
        assert [want and got for want, got in zip(wanted, arg.shape, strict=True)] == wanted


def test_axes_become_static_by_name(exported: Callable[..., Any]) -> None:
    options = ort.SessionOptions()
    sizes = {"batch": 2, "height": 8, "width": 16, "sequence": 77}
    for axis, size in sizes.items():
        options.add_free_dimension_override_by_name(axis, size)
    path = exported("sd1", "cpu", "unet").path
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert [arg.shape for arg in session.get_inputs()] == [[2, 4, 8, 16], [], [2, 77, 32]]
    assert session.get_outputs()[0].shape == [2, 4, 8, 16]


WEIGHTS = [
    *(("sd1", "cpu", name) for name in COMPONENTS),
    ("sd1", "portable", "unet"),
    *(
        pytest.param(variant, target, name, marks=pytest.mark.full)
        for variant in ("sd2", "deep", "mixed")
        for target in ("cpu", "portable")
        for name in COMPONENTS
    ),
]


@pytest.mark.parametrize(("variant", "target", "name"), WEIGHTS)
def test_every_weight_keeps_its_name(
    exported: Callable[..., Any], variant: str, target: str, name: str
) -> None:
    made = exported(variant, target, name)
    initializers = ir.load(made.path).graph.initializers
    parameters = own_parameters(name, made.module)
    for key, parameter in parameters.items():
        stored, weight = initializers[key].const_value.numpy(), parameter.numpy()
        np.testing.assert_array_equal(stored, weight.T if key in made.transposed else weight, err_msg=key)
    assert set(made.transposed) <= {key for key, value in parameters.items() if value.ndim == 2}
    others = [value.const_value for key, value in initializers.items() if key not in parameters]
    floats = [tensor for tensor in others if tensor.dtype == ir.DataType.FLOAT]
    # What is left is shapes, indices, and the frequencies of the timestep's embedding.
    assert max((tensor.size for tensor in floats), default=0) <= 64
