"""A running export: builds, writes and checks each component."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sdrt.errors import RequestError
from sdrt.families.agreement import check_text_widths
from sdrt.model_folder.checker import SAFETY_CHECKER
from sdrt.model_folder.graph_kind import NO_MORE, MoreInputs
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.checkpoints.folder import FolderCheckpoint
from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.component_graphs import GRAPH, arranged_weights, graphs_of, transposed_weights
from sdrt_export.controlnets import control_inputs
from sdrt_export.graphs.files import plain_file, write_graphs
from sdrt_export.graphs.graph import Graph
from sdrt_export.hashes import Hashes
from sdrt_export.image_prompts import ImagePrompts
from sdrt_export.piece import Piece, check_pieces, pieces_of
from sdrt_export.side_files import SCHEDULER, index, write_json, write_side_files
from sdrt_export.targets import Target
from sdrt_export.tensors.array import Array
from sdrt_export.tensors.joined import JoinedTensors

__all__ = ["DTYPE_NAMES", "Job", "ProgressEvent", "Reporter"]

DTYPE_NAMES = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
_OTHER_THAN_OPTIMUM = "--exporter sdrt"


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """Progress: ``component`` has reached ``stage``, one of `sdrt.common.progress.STAGES`."""

    component: str
    stage: str
    detail: str = ""


Reporter = Callable[[ProgressEvent], None]
Graphs = dict[str, Graph]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One running export.

    Attributes:
        checkpoint, staging, target, dtype: what is written, where and how.
        report: receives the progress.
        hashes: hashes the files while they are written.
        more: the components that are given beside the checkpoint: ControlNets, a TAESD, what sees image prompts.
        prompts: the IP-Adapters. None without any.
        verify: whether graphs are compared with torch.
        is_final: whether the files stay as they are.
    """

    checkpoint: Checkpoint
    staging: Path
    target: Target
    dtype: str
    report: Reporter
    hashes: Hashes
    more: Sequence[Piece] = ()
    prompts: ImagePrompts | None = None
    verify: bool = False
    is_final: bool = True

    @property
    def halves(self) -> bool:
        """Whether graphs compute in float16, except those that would overflow."""
        return self.dtype == "fp16" and self.target.halves

    def run(self, exporter: str, calibration: Any, defaults: Mapping[str, float]) -> dict[str, Any]:
        """Write everything but the manifest. Return the manifest's entries of the components."""
        if calibration is not None:
            return self._in_int8(calibration, defaults)
        components = self._with_optimum() if exporter == "optimum" else self._built()
        write_side_files(self.checkpoint, self.staging)
        return components

    def _built(self) -> dict[str, Any]:
        """Build all graphs, check that they fit the checkpoint, then write them one by one."""
        pieces = [*pieces_of(self.checkpoint), *self.more]
        graphs = {piece.component.name: self._build(piece) for piece in pieces}
        # Before any is written.
        check_pieces(pieces, lambda piece: graphs[piece.component.name][GRAPH].sources, self._errors_of)
        self._check_parts()
        self._tell_of_checker()
        return {piece.component.name: self._finish(piece, graphs[piece.component.name]) for piece in pieces}

    def _build(self, piece: Piece) -> Graphs:
        self._at(piece, "load")
        with self._errors_of(piece):
            graphs = self._graphs_of(piece)
        self._at(piece, "export")
        return graphs

    def _graphs_of(self, piece: Piece, *, half: bool = False) -> Graphs:
        return graphs_of(piece.component, piece.config, self.target, half=half, more=self._more_inputs())

    def _more_inputs(self) -> list[MoreInputs]:
        """What the further graphs of the U-Net take."""
        more = list(filter(None, [control_inputs(self.more)]))
        if self.prompts is not None:
            more += [replace(one, images=self.prompts.inputs.images) for one in (NO_MORE, *more)]
        return more

    def _errors_of(self, piece: Piece) -> AbstractContextManager[None]:
        """See `Checkpoint`. A TAESD and ControlNets are not parts of the checkpoint."""
        is_part = not any(piece is one for one in self.more)
        return self.checkpoint.errors_of(piece.component.checkpoint) if is_part else nullcontext()

    def _check_parts(self) -> None:
        """Check that the text encoders and the U-Net are of the same model."""
        family, config = self.checkpoint.family, self.checkpoint.config
        texts = {spec.component: config(spec.component) for spec in family.text_encoders}
        check_text_widths(family, config(family.denoiser.component), texts)

    def _tell_of_checker(self) -> None:
        """Say that the model will have no safety checker, though the checkpoint names one."""
        checker = self.checkpoint.checker()
        if checker is not None and checker.problem:
            detail = f"left out: it {checker.problem}; images will not be filtered"
            self.report(ProgressEvent(component=SAFETY_CHECKER, stage="done", detail=detail))

    def _finish(self, piece: Piece, graphs: Graphs) -> dict[str, Any]:
        """Write a component's files. Return its entry in the manifest."""
        dtype, about = self._precision(piece)
        if dtype == "fp16":
            graphs = self._graphs_of(piece, half=True)
        path = self._graph(piece)
        path.parent.mkdir()
        self._at(piece, "write")
        narrow = self.dtype == "fp16" and not self.target.halves
        create = self.hashes.create if self.is_final else plain_file
        write_graphs(path.parent, graphs, self._tensors(piece), narrow=narrow, create=create)
        write_json(path.with_name("config.json"), piece.config)
        transposed = {name for graph in graphs.values() for name in transposed_weights(graph)}
        entry = {"transposed": sorted(transposed), "arranged": arranged_weights(graphs[GRAPH]), **about}
        entry |= piece.component.about(piece.config, piece.tensors)
        # The dtype is also part of the result, which stays on the screen, if it differs from the requested one.
        notes = [_stays(about["activations"])] if self.halves and dtype == "fp32" else []
        if self.verify:
            entry["parity"], error = self._verified(piece, graphs, dtype)
            notes.insert(0, error)
        self._at(piece, "done", "; ".join(notes))
        return entry

    def _tensors(self, piece: Piece) -> Mapping[str, Array]:
        """The tensors of a component; for the U-Net also those of the IP-Adapters."""
        if self.prompts is None or piece.component.extended is None:
            return piece.tensors
        return JoinedTensors(piece.tensors, self.prompts.tensors)

    def _verified(self, piece: Piece, graphs: Graphs, dtype: str) -> tuple[list[dict[str, Any]], str]:
        """Compare a component with torch. Return the manifest's rows, and the largest error as a text."""
        from sdrt_export.verify import checks, parity

        self._at(piece, "check")
        limit = parity.HALF if dtype == "fp16" else ("fp32" if self.halves else self.dtype)
        rows = checks.check_graphs(
            piece,
            self._graph(piece),
            graphs,
            limit,
            self.target,
            more=self._more_inputs(),
            tensors=self._tensors(piece),
        )
        return rows, checks.worst(rows)

    def _precision(self, piece: Piece) -> tuple[str, dict[str, Any]]:
        """The dtype that a component computes in, and its entries in the manifest."""
        if not self.halves:
            return "fp32", {}
        from sdrt_export import precision

        activations = precision.measure(piece.component, piece.config, piece.tensors)
        dtype = "fp16" if activations.fit else "fp32"
        if not activations.fit:
            self._at(piece, "export", _stays(activations.entry()))
        return dtype, {"dtype": DTYPE_NAMES[dtype], "activations": activations.entry()}

    def _in_int8(self, plan: Any, defaults: Mapping[str, float]) -> dict[str, Any]:
        """Write the components in float32 into a temporary folder, make images with them, then convert them to int8."""
        from sdrt_export import int8

        folder = self.staging / ".float32"
        folder.mkdir()
        floats = replace(self, staging=folder, dtype="fp32", is_final=False)
        entries = floats._built()
        write_side_files(self.checkpoint, folder)
        return int8.Conversion(
            source=folder,
            output=self.staging,
            text_encoders=[spec.component for spec in self.checkpoint.family.text_encoders],
            plan=plan,
            guidance_scale=defaults.get("guidance_scale"),
            judged=not isinstance(self.checkpoint, RandomCheckpoint),
            report=lambda component, stage, detail: self.report(
                ProgressEvent(component=component, stage=stage, detail=detail)
            ),
        ).run(entries)

    def _with_optimum(self) -> dict[str, Any]:
        """Let optimum write all components, then compare each with torch, which optimum needs anyway."""
        from sdrt_export import optimum_exporter
        from sdrt_export.verify import checks

        if not isinstance(self.checkpoint, FolderCheckpoint):
            raise RequestError.advised(
                "exporter 'optimum' takes a checkpoint folder or hub id",
                "for single files, other VAEs and random weights use exporter 'sdrt'",
                argument="exporter",
            )
        self._check_parts()
        self.report(ProgressEvent(component="pipeline", stage="export"))
        # The index names a known scheduler, so that optimum imports no class that the checkpoint names. The scheduler
        # config that optimum writes is replaced later.
        optimum_exporter.export_pipeline(
            self.checkpoint, index(self.checkpoint.family, SCHEDULER), self.staging
        )
        entries = {}
        # optimum writes no safety checker. The index names it, so that the runtime says that images are not filtered.
        for piece in (one for one in pieces_of(self.checkpoint) if one.component.name != SAFETY_CHECKER):
            self._at(piece, "check")
            rows = checks.check_foreign(
                piece, self._graph(piece), self.dtype, self.target, _OTHER_THAN_OPTIMUM
            )
            self._at(piece, "done", checks.worst(rows))
            about = piece.component.about(piece.config, piece.tensors)
            entries[piece.component.name] = {"parity": rows, "transposed": [], **about}
        return entries

    def _graph(self, piece: Piece) -> Path:
        return self.staging / piece.component.name / GRAPH

    def _at(self, piece: Piece, stage: str, detail: str = "") -> None:
        self.report(ProgressEvent(component=piece.component.name, stage=stage, detail=detail))


def _stays(activations: Mapping[str, Any]) -> str:
    return f"stays in fp32: {activations['module']} reaches {activations['largest']:.3g}"
