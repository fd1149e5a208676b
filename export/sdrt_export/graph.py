"""Traces a patched torch module, simplifies the graph, and writes it to an ONNX file."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as passes
import torch
from onnxscript import optimizer, rewriter
from onnxscript.rewriter.rules import common as rules
from torch import nn

from sdrt.errors import ExportError
from sdrt.vae.stages import METADATA, describe
from sdrt_export import vae_stages
from sdrt_export.components import Component
from sdrt_export.fuse import fused
from sdrt_export.targets import OPSET, OPTIMUM, Target
from sdrt_export.translation import TRANSLATIONS, one_trace
from sdrt_export.weights import fill, stand_ins

__all__ = ["narrow", "save", "save_beside", "trace", "trace_stages"]

_FOLD_LIMIT = 1 << 16
_HALF_MAX = float(np.finfo(np.float16).max)
_RULES = (
    rules.collapse_slice_rule,
    rules.collapse_slice2_rule,
    rules.materialize_reshape_shape_rule,
    rules.no_op_cast_rule,
    rules.reshape_reshape_rule,
    rules.squeeze_reshape_1d_rule,
)
# Larger weights get a file of their own, which ONNX Runtime maps instead of parsing. Protobuf is limited to 2 GB.
_EXTERNAL_LIMIT = 64 << 20


def trace(
    component: Component, model: nn.Module, target: Target, dtype: torch.dtype = torch.float32
) -> tuple[ir.Model, list[str]]:
    """The ONNX model of one component with ``target``'s operators, and the names of its transposed weights.

    The graph computes in ``dtype``, with inputs and outputs in float32. Its weights refer to ``model``'s storage, and
    nothing is copied or converted before :func:`save`.

    Raises:
        UnsupportedModelError: the model's configuration has no fused form.
        ExportError: torch cannot trace it.
    """
    component.check_for(model, target)
    inputs = component.inputs(model, 0, target)
    axes = {name: dict(component.axes[name]) or None for name in inputs}
    outputs, defaults = component.outputs(model), component.defaults(model)
    with stand_ins(model, target, dtype) as stored:
        with fused(model, target), _forward(model, component.forward(target)), _quiet(), torch.no_grad():
            program = _export(component.name, model, inputs, axes, outputs)
        graph = program.model
        transposed = _tidy(graph)
    fill(graph, stored, transposed)
    _set_defaults(graph, defaults)
    return graph, transposed


def trace_stages(
    component: Component, model: Any, target: Target, dtype: torch.dtype = torch.float32
) -> ir.Model | None:
    """The graph of a VAE's encoder or decoder in stages, for tiles. None for other components and other blocks.

    Its weights have the same names as in the whole graph.
    """
    if component.name not in vae_stages.STAGES or not (parts := vae_stages.parts(component.name, model)):
        return None
    inputs = {name: value for part in parts for name, value in part.examples().items()}
    axes = {name: free for index, part in enumerate(parts) for name, free in part.axes(index).items()}
    outputs = [part.stage.output for part in parts]
    with stand_ins(model, target, dtype) as stored:
        forward = vae_stages.forward(parts, target, dtype)
        with fused(model, target), _forward(model, forward), _quiet(), torch.no_grad():
            program = _export(component.name, model, {"inputs": inputs}, {"inputs": axes}, outputs)
        graph = program.model
        transposed = _tidy(graph)
    fill(graph, stored, transposed)
    for value, name in zip(graph.graph.inputs, inputs, strict=True):
        value.name = name
    graph.metadata_props[METADATA] = describe([part.stage for part in parts])
    return graph


def _set_defaults(model: ir.Model, defaults: dict[str, torch.Tensor]) -> None:
    """Make inputs optional: an initializer with an input's name is the input's default."""
    for value in model.graph.inputs:
        if value.name in defaults:
            value.const_value = ir.tensor(defaults[value.name].numpy(), name=value.name)
            model.graph.register_initializer(value)


def _export(
    name: str, model: nn.Module, inputs: dict[str, Any], axes: dict[str, Any], outputs: list[str]
) -> torch.onnx.ONNXProgram:
    try:
        try:
            with one_trace():
                return _convert(model, inputs, axes, outputs, TRANSLATIONS)
        except torch.onnx.errors.OnnxExporterError:
            # Some operators can be translated only after decomposition.
            return _convert(model, inputs, axes, outputs, None)
    except torch.onnx.errors.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())[:400]
        raise ExportError.advised(
            f"{name}: torch cannot export this configuration ({reason})",
            f"try {OPTIMUM}",
            joint="; ",
            component=name,
        ) from error


def _convert(
    model: nn.Module,
    inputs: dict[str, Any],
    axes: dict[str, Any],
    outputs: list[str],
    translations: dict[Any, Any] | None,
) -> torch.onnx.ONNXProgram:
    program = torch.onnx.export(
        model,
        (),
        kwargs=inputs,
        dynamo=True,
        optimize=False,
        verbose=False,
        opset_version=OPSET,
        dynamic_shapes=axes,
        output_names=outputs,
        custom_translation_table=translations,
    )
    assert program is not None
    return program


def narrow(model: ir.Model, parameters: Collection[str]) -> None:
    """Store the weights of ``model`` in float16, but compute as before.

    A Cast follows each weight. ONNX Runtime folds it when it loads the graph, so the file is half as large and weights
    are widened once. Only ``parameters`` are stored so, not constants of the tracer such as the timestep's frequencies.
    Vectors (biases, norms) stay in float32, because they are a hundredth of the bytes and small scales lose the most.
    So do weights that exceed float16's range.
    """
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if name not in parameters or tensor is None or len(tensor.shape) < 2:
            continue
        if float(np.abs(tensor.numpy()).max(initial=0.0)) > _HALF_MAX:
            continue
        _widen(model, value)
        value.type = ir.TensorType(ir.DataType.FLOAT16)
        value.const_value = ir.LazyTensor(
            lambda tensor=tensor: ir.tensor(tensor.numpy().astype(np.float16)),  # type: ignore[misc]
            dtype=ir.DataType.FLOAT16,
            shape=ir.Shape(tuple(tensor.shape.numpy())),
            name=value.name,
        )


def save(model: ir.Model, path: Path, *, apart: bool = False) -> None:
    """Write ``model`` to ``path``, with large weights in a file beside it, or all weights if ``apart``.

    This empties ``model``: torch's exporter keeps graphs alive, so their weights have to be released here.
    """
    apart = apart or _bytes(model) > _EXTERNAL_LIMIT
    ir.save(model, path, external_data=f"{path.name}_data" if apart else None)
    for value in model.graph.initializers.values():
        value.const_value = None


def save_wide(path: Path, whole: Path) -> None:
    """Write a version of the graph ``whole`` that computes in float32 to ``path``, for images that overflow float16.

    It shares the weights' file, and widens them at load, so it takes little space on the disk.
    """
    model = ir.load(whole)
    for value in list(model.graph.initializers.values()):
        if value.dtype == ir.DataType.FLOAT16:
            _widen(model, value)
    for node in model.graph:
        to = node.attributes.get("to")
        if node.op_type == "Cast" and to is not None and to.as_int() == ir.DataType.FLOAT16:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
        for made in node.outputs:
            if made.dtype == ir.DataType.FLOAT16:
                made.type = ir.TensorType(ir.DataType.FLOAT)
    ir.save(model, path)


def _widen(model: ir.Model, value: ir.Value) -> None:
    """Make all uses of the weight ``value`` take it in float32."""
    cast = ir.node("Cast", [value], attributes={"to": int(ir.DataType.FLOAT)}, name=f"{value.name}.widen")
    wide = cast.outputs[0]
    wide.name, wide.shape, wide.type = (
        f"{value.name}.float32",
        value.shape,
        ir.TensorType(ir.DataType.FLOAT),
    )
    value.replace_all_uses_with(wide)
    cast.replace_input_with(0, value)
    model.graph.insert_before(model.graph[0], cast)


def save_beside(model: ir.Model, path: Path, whole: Path) -> None:
    """Write ``model`` to ``path`` with the weights in the file of the graph ``whole``."""
    there = ir.load(whole).graph.initializers
    for name, value in model.graph.initializers.items():
        tensor = there[name].const_value if name in there else None
        own = value.const_value
        # Values that are missing there, or differ, are constants of the tracer and belong to this graph.
        if isinstance(tensor, ir.ExternalTensor) and own is not None and _equal(tensor, own):
            value.const_value = tensor
    ir.save(model, path)
    for value in model.graph.initializers.values():
        value.const_value = None


def _bytes(model: ir.Model) -> int:
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)


def _equal(one: ir.TensorProtocol, other: ir.TensorProtocol) -> bool:
    return one.dtype == other.dtype and np.array_equal(one.numpy(), other.numpy())


@contextmanager
def _forward(model: nn.Module, forward: Any) -> Iterator[None]:
    model.forward = MethodType(forward, model)
    try:
        yield
    finally:
        del model.forward


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide messages of torch's exporter (missing torchvision, pytree deprecations) from the user."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _tidy(model: ir.Model) -> list[str]:
    """Simplify a traced graph, and keep the parameters' names. Return the names of transposed weights."""
    parameters = frozenset(model.graph.initializers)

    def should_fold(node: ir.Node) -> bool | None:
        # Folding a weight would rename it. ONNX Runtime folds these when it loads the graph.
        return False if any(value is not None and value.name in parameters for value in node.inputs) else None

    passes.InlinePass()(model)
    optimizer.fold_constants(
        model, should_fold=should_fold, input_size_limit=_FOLD_LIMIT, output_size_limit=_FOLD_LIMIT
    )
    transposed = _fold_weight_transposes(model)
    # Not all of torch's own rules, which take a third of the whole time. Merging equal initializers would also lose
    # parameters' names.
    rewriter.rewrite(model, _RULES)
    for tidy in (
        passes.IdentityEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        passes.RemoveUnusedOpsetsPass(),
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.CommonSubexpressionEliminationPass(),
        passes.RemoveUnusedNodesPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
        passes.ClearMetadataAndDocStringPass(),
    ):
        tidy(model)
    _drop_unused_outputs(model)  # last, because the passes give names to outputs with an empty name
    return sorted(transposed)


def _fold_weight_transposes(model: ir.Model) -> list[str]:
    """Store ``Linear`` weights as MatMul takes them, under their own names. Return those names."""
    transposed = []
    for node in list(model.graph):
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or weight.name not in model.graph.initializers or weight.const_value is None:
            continue
        if len(weight.const_value.shape) != 2 or len(weight.uses()) != 1:
            continue
        tensor = weight.const_value
        weight.const_value = ir.LazyTensor(
            lambda tensor=tensor: _transposed(tensor),  # type: ignore[misc]
            dtype=tensor.dtype,
            shape=ir.Shape(tuple(reversed(tensor.shape.numpy()))),
            name=weight.name,
        )
        weight.shape = weight.const_value.shape
        node.outputs[0].replace_all_uses_with(weight)
        model.graph.remove(node, safe=True)
        transposed.append(str(weight.name))
    return transposed


def _transposed(tensor: Any) -> ir.TensorProtocol:
    raw: torch.Tensor = tensor.raw
    return ir.tensor(raw.detach().t().contiguous().numpy())


def _drop_unused_outputs(model: ir.Model) -> None:
    """Drop unused optional outputs (mean, inverse deviation), so that kernels need not compute them."""
    for node in model.graph:
        if node.op_type == "SkipLayerNormalization":
            for value in node.outputs[1:3]:
                value.name = ""
        elif node.op_type == "SkipGroupNorm" and not node.outputs[1].uses():
            node.outputs[1].name = ""
