"""torch's exporter with one trace instead of three.

``torch.onnx.export`` traces a module, traces the result again to decompose it into the operators that it can
translate, and once more to make mixed dtypes explicit. The modules here are translatable as they are but for the few
operators below, and mix no dtypes; the other traces take half of the time, and the graphs are the same.
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
    """For inference without autograd: storage, layout and gradients do not matter, values do."""
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
"""Operators that decomposition would have removed, to be passed as ``custom_translation_table``."""


@contextmanager
def one_trace() -> Iterator[None]:
    """Skip the other traces while the context is open, where this torch has the steps under their known names.

    An operator that then has no translation is an error of the export; in-place ones have none, so nothing that
    decomposition would have made functional can pass unnoticed. Nor can a mixed dtype: ONNX has none, and ONNX Runtime
    refuses the graph.
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
