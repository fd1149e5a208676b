"""A running export: loads, builds, writes and checks each component."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from sdrt.errors import RequestError
from sdrt.model_folder.folder import STAGES_GRAPH, WIDE_GRAPH, WIDE_STAGES_GRAPH
from sdrt_export import int8, optimum_exporter, parity, precision
from sdrt_export.calibrate import Calibration
from sdrt_export.checkpoint import Checkpoint, FolderCheckpoint
from sdrt_export.components import Component, components_of
from sdrt_export.graph import GRAPH, graphs_of, transposed_weights
from sdrt_export.graphs.files import write_graphs
from sdrt_export.graphs.graph import HALF, Graph
from sdrt_export.graphs.weights import Array
from sdrt_export.hashes import Hashes
from sdrt_export.random_checkpoint import RandomCheckpoint
from sdrt_export.side_files import SCHEDULER, config_of, index, write_json, write_side_files
from sdrt_export.taesd import TAESD
from sdrt_export.targets import Target

__all__ = ["DTYPE_NAMES", "Job", "ProgressEvent", "Reporter"]

DTYPE_NAMES = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
_OTHER_THAN_OPTIMUM = "--exporter sdrt"


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """Progress: ``component`` has reached ``stage``: "load", "export", "write", "check", "calibrate" or "done".

    The next component is loaded while one is written and checked, so events of two components alternate.
    """

    component: str
    stage: str
    detail: str = ""


Reporter = Callable[[ProgressEvent], None]


@dataclass(frozen=True, kw_only=True)
class _Built:
    """A component's graphs by file name, its weights, and torch's outputs for the example inputs."""

    component: Component
    graphs: dict[str, Graph]
    tensors: Mapping[str, Array]
    config: dict[str, Any]
    names: list[str]
    expected: list[parity.Reference]
    about: dict[str, Any]
    dtype: str

    @property
    def is_half(self) -> bool:
        """Whether the graph computes in float16."""
        return self.graphs[GRAPH].compute == HALF


@dataclass(frozen=True, kw_only=True)
class Job:
    """One running export."""

    checkpoint: Checkpoint
    staging: Path
    target: Target
    dtype: str
    report: Reporter
    hashes: Hashes
    taesd: nn.Module | None = None
    is_final: bool = True

    @property
    def halves(self) -> bool:
        """Whether graphs compute in float16, except those that would overflow."""
        return self.dtype == "fp16" and self.target.halves

    def run(
        self, exporter: str, calibration: Calibration | None, defaults: Mapping[str, float]
    ) -> dict[str, Any]:
        """Write everything but the manifest. Return the manifest's entries of the components."""
        if calibration is not None:
            return self._in_int8(calibration, defaults)
        components = self._with_optimum() if exporter == "optimum" else self._fused()
        write_side_files(self.checkpoint, self.staging)
        return components

    def _fused(self) -> dict[str, Any]:
        """Write every component. One thread loads and runs torch; another writes and checks."""
        largest_first = sorted(
            components_of(self.checkpoint.family).values(),
            key=lambda component: component.name != self.checkpoint.family.denoiser.component,
        )
        if self.taesd is not None:
            largest_first.append(TAESD)
        worker = ThreadPoolExecutor(max_workers=1)
        try:
            finished: dict[str, Future[dict[str, Any]]] = {}
            for component in largest_first:
                built = self._build(component)
                for future in finished.values():
                    if future.done():
                        future.result()  # raises its error, if any, before the next component is built
                finished[component.name] = worker.submit(self._finish, built)
            return {name: future.result() for name, future in finished.items()}
        finally:
            # After a failure, pending work is not needed. Without one, there is none.
            worker.shutdown(cancel_futures=True)

    def _in_int8(self, plan: Calibration, defaults: Mapping[str, float]) -> dict[str, Any]:
        """Write the components in float32 into a temporary folder, make images with them, then convert them to int8."""
        folder = self.staging / ".float32"
        folder.mkdir()
        floats = replace(self, staging=folder, dtype="fp32", is_final=False)
        entries = floats._fused()
        write_side_files(self.checkpoint, folder)
        return int8.Conversion(
            source=folder,
            output=self.staging,
            plan=plan,
            guidance_scale=defaults.get("guidance_scale"),
            judged=not isinstance(self.checkpoint, RandomCheckpoint),
            report=self._at,
        ).run(entries)

    def _with_optimum(self) -> dict[str, Any]:
        """Let optimum write all components, then check each."""
        if not isinstance(self.checkpoint, FolderCheckpoint):
            raise RequestError.advised(
                "exporter 'optimum' takes a checkpoint folder or hub id",
                "for random weights use exporter 'sdrt'",
                argument="exporter",
            )
        self._at("pipeline", "export")
        # The index names a known scheduler, so that optimum imports no class that the checkpoint names. The scheduler
        # config that optimum writes is replaced later.
        optimum_exporter.export_pipeline(
            self.checkpoint, index(self.checkpoint.family, SCHEDULER), self.staging
        )
        entries = {}
        for component in components_of(self.checkpoint.family).values():
            self._at(component.name, "check")
            model = self.checkpoint.load(component.checkpoint)
            # The U-Net that optimum traces takes no odd sizes.
            expected = parity.reference(component, model, sizes=(0, 2))
            rows = self._check(component, component.outputs(model), expected, self.dtype, _OTHER_THAN_OPTIMUM)
            entries[component.name] = {"parity": rows, "transposed": [], **component.about(model)}
        return entries

    def _build(self, component: Component) -> _Built:
        self._at(component.name, "load")
        model = self.taesd if component is TAESD else self.checkpoint.load(component.checkpoint)
        assert model is not None
        self._at(component.name, "export")
        dtype, about = self._precision(component, model)
        config = config_of(model)
        half = dtype == "fp16" and self.target.halves
        return _Built(
            component=component,
            graphs=graphs_of(component, config, self.target, half=half),
            tensors={name: tensor.numpy() for name, tensor in model.state_dict().items()},
            config=config,
            names=component.outputs(model),
            expected=parity.reference(component, model),
            about=about | component.about(model),
            dtype=dtype,
        )

    def _precision(self, component: Component, model: nn.Module) -> tuple[str, dict[str, Any]]:
        """The dtype that a component computes in, and its entries in the manifest."""
        if not self.halves:
            return "fp32", {}
        activations = precision.measure(component, model)
        dtype = "fp16" if activations.fit else "fp32"
        if not activations.fit:
            self._at(component.name, "export", _stays(activations.entry()))
        return dtype, {"dtype": DTYPE_NAMES[dtype], "activations": activations.entry()}

    def _finish(self, built: _Built) -> dict[str, Any]:
        component, path = built.component, self._graph(built.component)
        path.parent.mkdir()
        self._at(component.name, "write")
        narrow = self.dtype == "fp16" and not self.target.halves
        write_graphs(path.parent, built.graphs, built.tensors, narrow=narrow)
        if self.is_final:
            self.hashes.begin(path.parent.glob("*.onnx*"))
        write_json(path.with_name("config.json"), built.config)
        self._at(component.name, "check")
        limit = parity.HALF if built.is_half else ("fp32" if self.halves else self.dtype)
        # Also part of the result, which stays on the screen, because the dtype differs from the requested one.
        stays = self.halves and built.dtype == "fp32"
        note = f"; {_stays(built.about['activations'])}" if stays else ""
        rows = self._check(component, built.names, built.expected, limit, note=note)
        rows += self._check_beside(built, path, limit)
        return {"parity": rows, "transposed": transposed_weights(built.graphs[GRAPH]), **built.about}

    def _check(
        self,
        component: Component,
        names: list[str],
        expected: list[parity.Reference],
        limit: str,
        instead: str | None = None,
        note: str = "",
    ) -> list[dict[str, Any]]:
        path = self._graph(component)
        rows = parity.compare(component, path, names, expected, limit, self.target, instead)
        worst = max(row["relative_error"] for row in rows)
        self._at(component.name, "done", f"relative error {worst:.1e}{note}")
        return rows

    def _check_beside(self, built: _Built, path: Path, limit: str) -> list[dict[str, Any]]:
        """Compare the other graphs of a component: in float32, in stages, and both."""
        component, expected, rows = built.component, built.expected, []
        if WIDE_GRAPH in built.graphs:
            wide = path.with_name(WIDE_GRAPH)
            rows += parity.compare(component, wide, built.names, expected[:1], "fp16", self.target)
        if STAGES_GRAPH in built.graphs:
            stages = path.with_name(STAGES_GRAPH)
            rows += parity.compare_stages(component, stages, expected, limit, self.target)
        if WIDE_STAGES_GRAPH in built.graphs:
            wide = path.with_name(WIDE_STAGES_GRAPH)
            rows += parity.compare_stages(component, wide, expected, "fp16", self.target)
        return rows

    def _graph(self, component: Component) -> Path:
        return self.staging / component.name / GRAPH

    def _at(self, component: str, stage: str, detail: str = "") -> None:
        self.report(ProgressEvent(component=component, stage=stage, detail=detail))


def _stays(activations: Mapping[str, Any]) -> str:
    return f"stays in fp32: {activations['module']} reaches {activations['largest']:.3g}"
