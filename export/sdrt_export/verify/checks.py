"""Compares every graph of a component with torch, after it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrt.model_folder.graph_kind import STAGES_GRAPH, WHOLE_GRAPH, GraphKind, MoreInputs
from sdrt_export.graphs.graph import Graph
from sdrt_export.piece import Piece
from sdrt_export.targets import Target
from sdrt_export.tensors.array import Array
from sdrt_export.verify import parity

__all__ = ["check_foreign", "check_graphs", "worst"]

Rows = list[dict[str, Any]]


def check_graphs(
    piece: Piece,
    path: Path,
    graphs: Mapping[str, Graph],
    limit: str,
    target: Target,
    *,
    more: Sequence[MoreInputs] = (),
    tensors: Mapping[str, Array] | None = None,
) -> Rows:
    """The manifest's parity rows: of the whole graph in `path`, of those beside it in float32, of the stages, and of
    those with `more` inputs.

    `tensors` are the component's with those of IP-Adapters. By default there are none of these.

    Raises:
        ExportError: a graph differs from torch by more than `parity.LIMITS[limit]`, or does not run.
        OutOfMemoryError: there is not enough memory to run it.
    """
    component = piece.component
    names = component.outputs(piece.config)
    expected = parity.reference(component, piece.config, piece.tensors)
    rows = parity.compare(component, path, names, expected, limit, target)
    if (wide := WHOLE_GRAPH.widened.file) in graphs:
        rows += parity.compare(component, path.with_name(wide), names, expected[:1], "fp16", target)
    for name, own in ((STAGES_GRAPH.file, limit), (STAGES_GRAPH.widened.file, "fp16")):
        if name in graphs:
            rows += parity.compare_stages(component, path.with_name(name), expected, own, target)
    for one in more:
        kind = GraphKind(inputs=one)
        if kind.file in graphs:
            rows += _check_extended(piece, path, graphs, kind, limit, target, tensors or piece.tensors)
    return rows


def _check_extended(
    piece: Piece,
    path: Path,
    graphs: Mapping[str, Graph],
    kind: GraphKind,
    limit: str,
    target: Target,
    tensors: Mapping[str, Array],
) -> Rows:
    """The rows of the U-Net's graphs with more inputs: what ControlNets and T2I-Adapters give, tokens of images."""
    assert piece.component.extended is not None  # because it has such a graph
    component, images = piece.component.extended(kind.inputs), kind.inputs.images
    names = component.outputs(piece.config)
    used = tensors if images else piece.tensors
    expected = parity.reference(component, piece.config, used, images=images)
    rows = parity.compare(component, path.with_name(kind.file), names, expected, limit, target)
    if (wide := kind.widened.file) in graphs:
        rows += parity.compare(component, path.with_name(wide), names, expected[:1], "fp16", target)
    return rows


def check_foreign(piece: Piece, path: Path, dtype: str, target: Target, instead: str) -> Rows:
    """The rows of a graph that optimum wrote. The U-Net that it traces takes no odd sizes."""
    expected = parity.reference(piece.component, piece.config, piece.tensors, sizes=(0, 2))
    names = piece.component.outputs(piece.config)
    return parity.compare(piece.component, path, names, expected, dtype, target, instead)


def worst(rows: Sequence[Mapping[str, Any]]) -> str:
    """The largest error, for the progress display."""
    return f"relative error {max(row['relative_error'] for row in rows):.1e}"
