"""Writes ONNX operators with their attributes, without `onnx`."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

from sdrt.onnx.protobuf import float_field, message_field, number_field

__all__ = ["FLOAT", "constant", "node", "number", "numbers", "opset", "real", "reference", "tensor"]

FLOAT = 1
"""ONNX's number of float32."""
_INT64 = 7
# Fields of onnx.proto3: OperatorSetIdProto.domain and .version; NodeProto.input, .output, .op_type, .attribute and
# .domain; AttributeProto.name, .f, .i, .t, .ints, .type and .ref_attr_name; TensorProto.dims, .data_type and .raw_data.
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_INPUT, _OUTPUT, _OP, _ATTRIBUTE, _DOMAIN = 1, 2, 4, 5, 7
_NAME, _F, _I, _T, _INTS, _TYPE, _REFERENCE = 1, 2, 3, 5, 8, 20, 21
_DIMS, _DATA_TYPE, _RAW_DATA = 1, 2, 9
_AS_FLOAT, _AS_INT, _AS_TENSOR, _AS_INTS = 1, 2, 4, 7


def opset(domain: str, version: int) -> bytes:
    """A version of the operators of `domain`."""
    return message_field(_OPSET_DOMAIN, domain) + number_field(_OPSET_VERSION, version)


def node(
    op: str, inputs: Iterable[str], output: str, attributes: Sequence[bytes] = (), domain: str = ""
) -> bytes:
    """An operator with one output."""
    return b"".join(
        [
            *(message_field(_INPUT, name) for name in inputs),
            message_field(_OUTPUT, output),
            message_field(_OP, op),
            *(message_field(_ATTRIBUTE, attribute) for attribute in attributes),
            *([message_field(_DOMAIN, domain)] if domain else []),
        ]
    )


def constant(name: str, values: Sequence[int], *, scalar: bool = False) -> bytes:
    """An operator that gives whole numbers."""
    data = struct.pack(f"<{len(values)}q", *values)
    return node("Constant", [], name, [tensor("value", _INT64, [] if scalar else [len(values)], data)])


def tensor(name: str, dtype: int, dims: Sequence[int], data: bytes) -> bytes:
    """An attribute that is a tensor."""
    content = b"".join(number_field(_DIMS, size) for size in dims)
    content += number_field(_DATA_TYPE, dtype) + message_field(_RAW_DATA, data)
    return message_field(_NAME, name) + message_field(_T, content) + number_field(_TYPE, _AS_TENSOR)


def number(name: str, value: int) -> bytes:
    """An attribute that is a whole number, not negative."""
    return message_field(_NAME, name) + number_field(_I, value) + number_field(_TYPE, _AS_INT)


def numbers(name: str, values: Sequence[int]) -> bytes:
    """An attribute that is a list of whole numbers, not negative."""
    content = b"".join(number_field(_INTS, value) for value in values)
    return message_field(_NAME, name) + content + number_field(_TYPE, _AS_INTS)


def real(name: str, value: float) -> bytes:
    """An attribute that is a number."""
    return message_field(_NAME, name) + float_field(_F, value) + number_field(_TYPE, _AS_FLOAT)


def reference(name: str, attribute: str, *, is_real: bool) -> bytes:
    """An attribute whose value is that of the function's `attribute`, a real or a whole number."""
    kind = _AS_FLOAT if is_real else _AS_INT
    return message_field(_NAME, name) + message_field(_REFERENCE, attribute) + number_field(_TYPE, kind)
