"""Composes fused operators of standard ones, for devices that compute them wrongly.

The operators become functions of the model, which ONNX Runtime replaces by what they consist of. A function with the
name of an operator that ONNX Runtime has itself would never be used, so they get domains of their own. These have as
many letters as Microsoft's, so the graph stays as it is: the names are overwritten, and the functions are appended.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from pathlib import Path

from sdrt.errors import UnsupportedModelError
from sdrt.onnx.graph_file import MICROSOFT, FusedNode, fused_nodes, opset_of
from sdrt.onnx.nodes import FLOAT, constant, node, number, numbers, opset, reference, tensor
from sdrt.onnx.protobuf import message_field

__all__ = ["ATTENTION", "PRODUCT", "composed"]

ATTENTION, PRODUCT = "MultiHeadAttention", "FusedMatMul"
_PLAIN, _CAUSAL = "sdrt.composed", "sdrt.causally"
# CastLike is new in it.
_LEAST_OPSET = 15
assert len(_PLAIN) == len(_CAUSAL) == len(MICROSOFT)

# Fields of onnx.proto3: ModelProto.opset_import and .functions; FunctionProto.name, .input, .output, .attribute, .node,
# .opset_import and .domain.
_OPSET, _FUNCTIONS = 8, 25
_NAME, _INPUT, _OUTPUT, _ATTRIBUTE, _NODE, _FUNCTION_OPSET, _DOMAIN = 1, 4, 5, 6, 7, 9, 10


def composed(content: bytes, path: Path, operators: Collection[str] = (ATTENTION,)) -> bytes:
    """The graph `content` without these fused operators, `ATTENTION` or `PRODUCT`. The same if it has none.

    `path` is its file, for messages.

    Raises:
        UnsupportedModelError: an operator has a form that sdrt does not write.
        IntegrityError: this is not an ONNX graph.
    """
    changed, version = bytearray(content), opset_of(content, path)
    functions: dict[tuple[str, str], bytes] = {}
    for operator in operators:
        for one in fused_nodes(content, path, operator):
            if not _IS_PLAIN[operator](one) or version < _LEAST_OPSET:
                raise UnsupportedModelError.advised(
                    f"{path} has {_CALLED[operator]} of a form that sdrt cannot compose of standard operators",
                    "export the checkpoint with --target portable",
                    path=path,
                )
            domain = _CAUSAL if _is_causal(one) else _PLAIN
            changed[slice(*one.domain)] = domain.encode()
            write = _attention if operator == ATTENTION else _product
            functions[domain, operator] = write(domain, version)
    for domain in sorted({domain for domain, _ in functions}):
        changed += message_field(_OPSET, opset(domain, 1))
    for _, function in sorted(functions.items()):
        changed += message_field(_FUNCTIONS, function)
    return bytes(changed)


def _is_plain_attention(one: FusedNode) -> bool:
    """Whether it has queries, keys, values and a scale, and nothing else."""
    known = one.numbers.keys() <= {"num_heads", "scale", "unidirectional"}
    return known and bool(one.numbers.get("scale")) and len(one.inputs) == len("qkv") and all(one.inputs)


def _is_plain_product(one: FusedNode) -> bool:
    """Whether it multiplies with a weight as checkpoints store it, and does nothing else."""
    return one.numbers == {"transB": 1} and len(one.inputs) == 2


_IS_PLAIN = {ATTENTION: _is_plain_attention, PRODUCT: _is_plain_product}
_CALLED = {ATTENTION: "fused attentions", PRODUCT: "fused matrix products"}


def _is_causal(one: FusedNode) -> bool:
    return bool(one.numbers.get("unidirectional", 0))


def _attention(domain: str, version: int) -> bytes:
    """A function of queries, keys and values `[batch, sequence, heads * width]`."""
    nodes = [
        node("Constant", [], "heads", [reference("value_int", "num_heads", is_real=False)]),
        node("Constant", [], "given_scale", [reference("value_float", "scale", is_real=True)]),
        node("CastLike", ["given_scale", "q"], "scale"),
        *(constant(name, values) for name, values in (("one", [1]), ("same", [0, 0]), ("rest", [-1]))),
        node("Reshape", ["heads", "one"], "heads_axis"),
        node("Concat", ["same", "heads_axis", "rest"], "by_head", [number("axis", 0)]),
        *(node("Reshape", [name, "by_head"], f"{name}_apart") for name in "qkv"),
        node("Transpose", ["q_apart"], "q_heads", [numbers("perm", [0, 2, 1, 3])]),
        node("Transpose", ["k_apart"], "k_heads", [numbers("perm", [0, 2, 3, 1])]),
        node("Transpose", ["v_apart"], "v_heads", [numbers("perm", [0, 2, 1, 3])]),
        # Scaled before the product, which in float16 could overflow.
        node("Mul", ["q_heads", "scale"], "q_scaled"),
        node("MatMul", ["q_scaled", "k_heads"], "scores"),
        *(_mask() if domain == _CAUSAL else ()),
        node("Softmax", ["masked" if domain == _CAUSAL else "scores"], "shares", [number("axis", 3)]),
        node("MatMul", ["shares", "v_heads"], "attended"),
        node("Transpose", ["attended"], "by_token", [numbers("perm", [0, 2, 1, 3])]),
        constant("joined", [0, 0, -1]),
        node("Reshape", ["by_token", "joined"], "y"),
    ]
    return _function(ATTENTION, "qkv", ("num_heads", "scale", "unidirectional"), nodes, domain, version)


def _product(domain: str, version: int) -> bytes:
    """A function of rows and a weight `[outputs, inputs]`, which is transposed once, when the graph loads."""
    nodes = [
        node("Transpose", ["b"], "b_turned", [numbers("perm", [1, 0])]),
        node("MatMul", ["a", "b_turned"], "y"),
    ]
    return _function(PRODUCT, "ab", ("transB",), nodes, domain, version)


def _function(
    name: str,
    inputs: Iterable[str],
    attributes: Iterable[str],
    nodes: Iterable[bytes],
    domain: str,
    version: int,
) -> bytes:
    """A function whose output is `y`."""
    return b"".join(
        [
            message_field(_NAME, name),
            *(message_field(_INPUT, one) for one in inputs),
            message_field(_OUTPUT, "y"),
            *(message_field(_ATTRIBUTE, one) for one in attributes),
            *(message_field(_NODE, one) for one in nodes),
            message_field(_FUNCTION_OPSET, opset("", version)),
            message_field(_DOMAIN, domain),
        ]
    )


def _mask() -> list[bytes]:
    """Scores of later tokens become minus infinity. Only text encoders have this, whose sequences are short."""
    return [
        *(constant(name, value, scalar=True) for name, value in (("first", [0]), ("step", [1]))),
        node("Shape", ["scores"], "length_axis", [number("start", 2), number("end", 3)]),
        node("Squeeze", ["length_axis"], "length"),
        node("Range", ["first", "length", "step"], "positions"),
        constant("column", [-1, 1]),
        node("Reshape", ["positions", "column"], "rows"),
        node("Greater", ["positions", "rows"], "later"),
        node("Constant", [], "minus", [tensor("value", FLOAT, [], struct.pack("<f", float("-inf")))]),
        node("CastLike", ["minus", "scores"], "minus_infinity"),
        node("Where", ["later", "minus_infinity", "scores"], "masked"),
    ]
