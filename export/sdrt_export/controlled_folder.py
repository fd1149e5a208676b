"""ControlNets beside a model folder that was exported without them. Nothing is written.

The U-Net's graph for ControlNets has the same weights as the one in the folder, so it is built in memory and takes them
from the folder's own file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.model_folder.folder import ModelFolder
from sdrt.model_folder.graph_kind import WHOLE_GRAPH, GraphKind
from sdrt.model_folder.model import CONTROLNET, GraphSource, Model
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt_export.component_graphs import graph_of, transposed_weights
from sdrt_export.components import components_of
from sdrt_export.controlnets import load_controlnets
from sdrt_export.graphs.graph import Graph, Place
from sdrt_export.graphs.in_place import bind_in_place
from sdrt_export.graphs.stored import StoredGraph
from sdrt_export.graphs.weights import Weight
from sdrt_export.piece import Piece
from sdrt_export.targets import TARGETS
from sdrt_export.tensors.array import Array
from sdrt_export.tensors.stored import Stored

__all__ = ["add_controlnets", "check_takes_more", "folder_with_images", "graph_of_folder"]

_HALF = "float16"


@dataclass(frozen=True, kw_only=True)
class ControlledFolder(ModelFolder):
    """A model folder with ControlNets that are not in it.

    Attributes:
        pieces: the config and tensors of each ControlNet, by its component's name. They replace those of the folder.
    """

    pieces: Mapping[str, Piece] = field(default_factory=dict)

    def graph(self, name: str, kind: GraphKind = WHOLE_GRAPH) -> GraphSource | None:
        """See `Model`."""
        if name in self.pieces:
            return self._of_piece(name, kind)
        if name.startswith(CONTROLNET):
            return None
        found = super().graph(name, kind)
        is_added = name == self.family.denoiser.component and _is_controlled(kind)
        if found is not None or not is_added or (kind.wide and self._dtype(name) != _HALF):
            return found
        return GraphSource(path=self.path / name / kind.file, build=partial(self._controlled, name, kind))

    def _of_piece(self, name: str, kind: GraphKind) -> GraphSource | None:
        """A graph of a ControlNet, which computes in float16 where the U-Net does."""
        is_half = self._dtype(self.family.denoiser.component) == _HALF and TARGETS[self.target].halves
        if kind.narrowed != WHOLE_GRAPH or (kind.wide and not is_half):
            return None
        return GraphSource(
            path=Path(self.pieces[name].place), build=partial(self._built, name, kind, half=is_half)
        )

    def _built(self, name: str, kind: GraphKind, *, half: bool) -> MemoryGraph:
        piece, target = self.pieces[name], TARGETS[self.target]
        graph = graph_of(piece.component, piece.config, target, half=half, kind=kind)
        return bind_in_place(graph, piece.stored_tensors, turned=target.turns)

    def _controlled(self, name: str, kind: GraphKind) -> MemoryGraph:
        """The U-Net's graph for ControlNets, with the weights of the one in the folder."""
        is_half = self._dtype(name) == _HALF and TARGETS[self.target].halves
        component = components_of(self.family)[name]
        graph = graph_of(
            component,
            self.component_config(name),
            TARGETS[self.target],
            half=is_half,
            kind=kind,
        )
        return with_changes(self, _bound(graph, self.component(name), _transposed(self)))

    @cached_property
    def controlnets(self) -> tuple[str, ...]:
        """See `Model`."""
        return tuple(self.pieces)

    @property
    def controlnet_names(self) -> tuple[str, ...]:
        """See `Model`."""
        return tuple(piece.name for piece in self.pieces.values())

    def component_config(self, name: str) -> dict[str, Any]:
        """See `Model`."""
        return dict(self.pieces[name].config) if name in self.pieces else super().component_config(name)

    def weights(self, name: str) -> Weights:
        """See `Model`. A ControlNet has no digest, because nothing is compiled."""
        if name not in self.pieces:
            return super().weights(name)
        return Weights(dtype=self._dtype(self.family.denoiser.component))


def _is_controlled(kind: GraphKind) -> bool:
    """Whether a U-Net's graph takes something from ControlNets or T2I-Adapters, and from nothing else."""
    return kind.inputs.is_controlled and not kind.inputs.images


def graph_of_folder(model: ModelFolder, kind: GraphKind, path: Path) -> MemoryGraph:
    """A graph of a folder's U-Net that sees images, with the weights of another one. See `Exporter`."""
    return folder_with_images(model, kind, {}, path)


def folder_with_images(
    model: ModelFolder, kind: GraphKind, more: Mapping[str, Array], path: Path | None = None
) -> MemoryGraph:
    """A graph of a folder's U-Net that sees images, with the folder's weights and `more` of its IP-Adapters.

    `path` is the folder's graph with the weights, by default the usual one.
    """
    name = model.family.denoiser.component
    target, is_half = TARGETS[model.target], model.weights(name).dtype == _HALF
    graph = graph_of(
        components_of(model.family)[name],
        model.component_config(name),
        target,
        half=is_half and target.halves,
        kind=kind,
    )
    path = path or model.component(name)
    stored = StoredGraph.read(path)
    own = {one: weight for one, weight in graph.weights.items() if not more.keys() & set(weight.sources)}
    _check_arrangement(graph, own, stored, path, _transposed(model), "ip_adapter")
    given = {one: _as_stored(stored, one, path.parent) for one in own}
    return with_changes(model, bind_in_place(graph, more, turned=target.turns, given=given))


def with_changes(model: ModelFolder, bound: MemoryGraph) -> MemoryGraph:
    """A graph of the U-Net with the changes of the folder's adapters (LoRA)."""
    name = model.family.denoiser.component
    if not model.adaptation.key(name):
        return bound
    changed = model._stored_weights(name).changed(model.adaptation)
    # The form for the CPU is made of the weights without these changes.
    return replace(bound, values={**bound.values, **changed}, on_cpu=None)


def _transposed(model: ModelFolder) -> Sequence[str]:
    """The weights that the folder's U-Net stores transposed."""
    entry = model.manifest.components.get(model.family.denoiser.component, {}) if model.manifest else {}
    found: Sequence[str] = entry.get("transposed", ())
    return found


def _as_stored(graph: StoredGraph, name: str, folder: Path) -> Stored:
    """A weight as a graph's file stores it."""
    array, place, dtype = graph.array(name), graph.place(name), graph.initializers[name].data_type
    if place is None:
        return Stored(array=array, dtype=dtype)
    return Stored(array=array, dtype=dtype, file=(folder / place.location).resolve(), offset=place.offset)


def _bound(graph: Graph, path: Path, transposed: Sequence[str]) -> MemoryGraph:
    """A graph with the weights of the one in `path`, of which those in `transposed` are stored so.

    Raises:
        UnsupportedModelError: that one lacks a weight, or has it in another arrangement.
    """
    stored, own = StoredGraph.read(path), graph.weights
    _check_arrangement(graph, own, stored, path, transposed, "controlnet")
    places = {name: stored.place(name) for name in own}
    # Earlier versions kept small weights in the graph's own file.
    inside = {name: np.ascontiguousarray(stored.array(name)) for name in own if places[name] is None}
    model = graph.model(
        {name: place or Place(location="memory") for name, place in places.items()},
        {name: stored.initializers[name].data_type for name in own},
    )
    return MemoryGraph(
        content=model.SerializeToString(),
        folder=path.parent,
        remedy="export the model again",
        values=inside,
    )


def _check_arrangement(
    graph: Graph,
    own: Mapping[str, Weight],
    stored: StoredGraph,
    path: Path,
    transposed: Sequence[str],
    argument: str,
) -> None:
    """Check that a file has the weights `own` of a graph, arranged as this version of sdrt arranges them."""
    fits = all(name in stored.initializers and stored.shape(name) == own[name].shape for name in own)
    # The shape of a square matrix does not tell whether it is transposed.
    if not fits or not set(transposed_weights(graph)) & own.keys() <= set(transposed):
        raise UnsupportedModelError.advised(
            f"{path} stores its weights differently from this version of sdrt",
            f"export the checkpoint again, with --{argument.replace('_', '-')}",
            path=path,
            argument=argument,
        )


def check_takes_more(model: Model, argument: str) -> None:
    """Raise `RequestError` if nothing can be added to a model, because sdrt did not export it, or did so in int8.

    `argument` is what the user gives, which an export can have too.
    """
    manifest = model.manifest
    if manifest is None or manifest.exporter != "sdrt" or manifest.dtype == "int8":
        by = "in int8" if manifest is not None and manifest.exporter == "sdrt" else "by another program"
        raise RequestError.advised(
            f"{argument} is given, but {model.path} was exported {by}",
            f"export the checkpoint with sdrt export --{argument.replace('_', '-')}, in another dtype than int8",
            argument=argument,
            path=model.path,
        )


def add_controlnets(
    model: ModelFolder,
    controlnet: Sequence[str | Path],
    *,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> ModelFolder:
    """A model folder with these ControlNets. See `sdrt.model_folder.exporter`."""
    check_takes_more(model, CONTROLNET)
    pieces = load_controlnets(
        controlnet,
        family=model.family,
        unet=model.component_config(model.family.denoiser.component),
        vae=model.component_config(model.family.vae.decoder),
        model=model.name,
        target=TARGETS[model.target],
        access={"token": token, "cache_dir": cache_dir},
    )
    own = {one.name: getattr(model, one.name) for one in fields(model)}
    return ControlledFolder(**own, pieces={piece.component.name: piece for piece in pieces})
