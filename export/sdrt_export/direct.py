"""`open_direct`: a torch checkpoint as a model whose graphs are built in memory. Nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import sdrt
from sdrt.common.notices import Notices, Notify
from sdrt.families import Family
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.model_folder.checker import read_preprocessor
from sdrt.model_folder.folder import Manifest, tail
from sdrt.model_folder.graph_kind import WHOLE_GRAPH, GraphKind
from sdrt.model_folder.model import CONTROLNET, GraphSource, Model
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt_export.checkpoints.checker import names_checker
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.checkpoints.opening import Beside, open_checkpoint
from sdrt_export.component_graphs import graph_of, has_kind
from sdrt_export.controlnets import controlnets_of
from sdrt_export.default_settings import default_settings
from sdrt_export.graphs.graph import Graph
from sdrt_export.graphs.in_place import bind_in_place
from sdrt_export.piece import Piece, check_pieces, pieces_of
from sdrt_export.side_files import index_of
from sdrt_export.targets import OPSET, TARGETS
from sdrt_export.tensors.array import Array, Shape
from sdrt_export.tensors.changed import ChangedTensors
from sdrt_export.tensors.joined import JoinedTensors

__all__ = ["DirectModel", "open_direct"]

_HALF, _FLOAT = "float16", "float32"


@dataclass(frozen=True, kw_only=True)
class DirectModel(Model):
    """A checkpoint whose graphs are built when they are asked for, and whose weights stay in its files.

    Attributes:
        checkpoint: the checkpoint.
        pieces: the config and tensors of each component, by its name: the checkpoint's, and ControlNets.
        scheduler: the content of `scheduler_config.json`.
        vae: the name of the VAE that replaces the checkpoint's.
    """

    checkpoint: Checkpoint
    pieces: Mapping[str, Piece]
    scheduler: Mapping[str, Any]
    vae: str | None = None

    def graph(self, name: str, kind: GraphKind = WHOLE_GRAPH) -> GraphSource | None:
        """See `Model`. A component in float16 has another graph that computes in float32."""
        if name not in self.pieces or (kind.wide and self._dtype(name) != _HALF):
            return None
        if not has_kind(self.pieces[name].component, kind):
            return None
        # A ControlNet is not in the checkpoint.
        path = Path(self.pieces[name].place) if name.startswith(CONTROLNET) else self.path
        return GraphSource(path=path, build=partial(self._build, name, kind))

    def _build(self, name: str, kind: GraphKind, more: Mapping[str, Array] | None = None) -> MemoryGraph:
        is_changed = bool(self.adaptation.key(name))
        return bind_in_place(
            self._graph(name, kind),
            self._tensors(name, more),
            turned=TARGETS[self.target].turns,
            unchanged=self._tensors(name, more, adapted=False) if is_changed else None,
        )

    def with_images(self, kind: GraphKind, more: Mapping[str, Array]) -> MemoryGraph:
        """A graph of the U-Net that sees images. `more` are the tensors of its IP-Adapters."""
        return self._build(self.family.denoiser.component, kind, more)

    def _tensors(
        self, name: str, more: Mapping[str, Array] | None, *, adapted: bool = True
    ) -> Mapping[str, Array]:
        piece = self.pieces[name]
        # The checkpoint looks for its files again, because they may have been moved or replaced.
        is_part = name not in self.controlnets
        tensors = self.checkpoint.tensors(piece.component.checkpoint) if is_part else piece.stored_tensors
        if adapted and self.adaptation.key(name):
            tensors = ChangedTensors(tensors, self.adaptation, name)
        return tensors if more is None else JoinedTensors(tensors, more)

    def parameters(self, name: str) -> Mapping[str, Shape]:
        """See `Model`."""
        return self._graph(name, WHOLE_GRAPH).sources

    def _graph(self, name: str, kind: GraphKind) -> Graph:
        """Build a graph, once."""
        key = (name, kind)
        if key not in self._graphs:
            piece, is_half = self.pieces[name], self._dtype(name) == _HALF
            self._graphs[key] = graph_of(
                piece.component, piece.config, TARGETS[self.target], half=is_half, kind=kind
            )
        return self._graphs[key]

    @cached_property
    def _graphs(self) -> dict[tuple[str, GraphKind], Graph]:
        return {}

    def check(self) -> None:
        """Check that the graphs use every tensor of the checkpoint, with its shape.

        Raises:
            IntegrityError: a tensor is missing, or has another shape than the config says.
            UnsupportedModelError: a tensor is left over, or a config says something that is not supported.
        """
        check_pieces(
            self.pieces.values(),
            lambda piece: self._graph(piece.component.name, WHOLE_GRAPH).sources,
            self._errors_of,
        )

    def _errors_of(self, piece: Piece) -> AbstractContextManager[None]:
        """See `Checkpoint`. A ControlNet is not in the checkpoint."""
        if piece.component.name in self.controlnets:
            return nullcontext()
        return self.checkpoint.errors_of(piece.component.checkpoint)

    @property
    def controlnet_names(self) -> tuple[str, ...]:
        """See `Model`."""
        return tuple(self.pieces[name].name for name in self.controlnets)

    def component_config(self, name: str) -> dict[str, Any]:
        """See `Model`."""
        return dict(self.pieces[name].config)

    def weights(self, name: str) -> Weights:
        """See `Model`. There is no digest: each graph names the files of its weights."""
        return Weights(dtype=self._dtype(name), adapted=bool(self.adaptation.key(name)))

    def tokenizer_folder(self, name: str) -> Path:
        """See `Model`."""
        return self.checkpoint.tokenizer_folders()[name]

    @property
    def other_vae(self) -> str | None:
        """See `Model`."""
        return self.vae

    @property
    def prefers_vocabulary(self) -> bool:
        """See `Model`."""
        return True

    @property
    def scheduler_config(self) -> dict[str, Any]:
        """See `Model`."""
        return dict(self.scheduler)

    @property
    def low_res_scheduler_config(self) -> dict[str, Any]:
        """See `Model`."""
        return dict(self.checkpoint.low_res_scheduler_config() or {})

    @property
    def safety_checker_problem(self) -> str:
        """See `Model`."""
        checker = self.checkpoint.checker()
        return "" if checker is None else checker.problem

    @property
    def preprocessor_config(self) -> dict[str, Any]:
        """See `Model`."""
        if self.without_checker:
            return read_preprocessor(self.path)
        checker = self.checkpoint.checker()
        return {} if checker is None else dict(checker.preprocessor)

    def preview_matrix(self) -> Any:
        """See `Model`. It is fitted when it is first asked for."""
        return self._preview

    @cached_property
    def _preview(self) -> Any:
        piece = self.pieces[self.family.vae.decoder]
        return piece.component.about(piece.config, piece.tensors).get("preview")

    def for_target(self, target: str) -> DirectModel:
        """See `Model`."""
        if target == self.target:
            return self
        return replace(self, manifest=_manifest(self.checkpoint, self.pieces, target))


def open_direct(
    source: str | Path,
    *,
    path: Path,
    target: str,
    name: str,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    notify: Notify | None = None,
    safety_checker: bool = True,
    **beside: Any,
) -> DirectModel:
    """Open a torch checkpoint as a model that is built in memory. See `sdrt.model_folder.exporter`."""
    opened = open_checkpoint(
        source,
        beside=Beside(**beside),
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        notify=notify,
        safety_checker=safety_checker,
    )
    given = pieces_of(opened) + controlnets_of(
        beside.get("controlnet", ()), opened, TARGETS[target], {"token": token, "cache_dir": cache_dir}
    )
    pieces = {piece.component.name: piece for piece in given}
    model = DirectModel(
        path=path,
        name=name,
        family=opened.family,
        manifest=_manifest(opened, pieces, target),
        index=index_of(opened, lambda component: pieces[component].config),
        checkpoint=opened,
        pieces=pieces,
        scheduler=opened.scheduler_config(),
        vae=tail(str(beside["vae"])) if "vae" in beside else None,
        without_checker=not safety_checker and names_checker(opened),
    )
    model.check()
    advice = default_settings(opened).advice
    if advice:
        Notices(notify).warn(advice)
    return model


def _manifest(checkpoint: Checkpoint, pieces: Mapping[str, Piece], target: str) -> Manifest:
    """The manifest that an export would have, without hashes."""
    dtypes = {name: _dtype_of(piece, checkpoint.family, target) for name, piece in pieces.items()}
    return Manifest(
        family=checkpoint.family.name,
        target=target,
        dtype=dtypes[checkpoint.family.denoiser.component],
        opset=OPSET,
        exporter="sdrt",
        source={"id": checkpoint.name, "revision": checkpoint.revision},
        versions={"sdrt": sdrt.__version__},
        components={name: {"dtype": dtype} for name, dtype in dtypes.items()},
        defaults=default_settings(checkpoint).recorded(),
    )


def _dtype_of(piece: Piece, family: Family, target: str) -> str:
    """The type that a component computes in: float16 where that is the target's default.

    An export measures first whether a component overflows float16. Here the run shows it, and is repeated in float32.
    A VAE whose config says that it overflows is in float32 from the start. As in diffusers, this key of the config is
    ignored for Stable Diffusion 1 and 2, where it is true by default.
    """
    row = TARGETS[target]
    if not row.halves or row.dtypes[0] != "fp16":
        return _FLOAT
    return _FLOAT if piece.config.get("force_upcast") and family.name != STABLE_DIFFUSION.name else _HALF
