"""Makes torch's exporter trace once instead of three times.

``torch.onnx.export`` traces a module, traces it again to decompose it into operators that it can translate, and once
more to make mixed dtypes explicit. The modules here mix no dtypes, and need no decomposition except for the operators
below. The graphs are the same in half of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from onnxscript import opset20 as op
from torch.export import ExportedProgram

__all__ = ["TRANSLATIONS", "one_trace"]

_UNSET = -1


def _cast(x: Any, dtype: int = _UNSET, *_args: Any, **_options: Any) -> Any:
    return op.Identity(x) if dtype == _UNSET else op.Cast(x, to=dtype)


def _same(x: Any, *_args: Any, **_options: Any) -> Any:
    """In inference only values matter, not storage, layout or gradients."""
    return op.Identity(x)


_aten = torch.ops.aten
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    _aten.to.dtype: _cast,
    _aten.to.dtype_layout: _cast,
    **dict.fromkeys(
        (
            _aten.alias.default,
            _aten.clone.default,
            _aten.contiguous.default,
            _aten.detach.default,
            _aten.detach_.default,
            _aten.dropout.default,
            _aten.lift_fresh_copy.default,
        ),
        _same,
    ),
}
"""Translations of operators that decomposition would remove, for ``custom_translation_table``."""


@contextmanager
def one_trace() -> Iterator[None]:
    """Skip the second and third trace while the context is open, if this torch has them under their known names.

    This is safe: an operator without a translation is an error. In-place operators, which decomposition would make
    functional, have none. ONNX has no mixed dtypes, so ONNX Runtime would refuse such a graph.
    """
    try:
        from torch.onnx._internal.exporter import _fx_passes as steps

        originals = steps.decompose_with_registry, steps.insert_type_promotion_nodes
    except (ImportError, AttributeError):
        yield
        return

    def undecomposed(program: ExportedProgram, registry: object) -> ExportedProgram:
        return program

    def unpromoted(module: torch.fx.GraphModule) -> None:
        return None

    steps.decompose_with_registry = undecomposed  # type: ignore[assignment]
    steps.insert_type_promotion_nodes = unpromoted  # type: ignore[assignment]
    try:
        yield
    finally:
        steps.decompose_with_registry, steps.insert_type_promotion_nodes = originals
