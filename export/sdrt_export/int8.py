"""Converts a float32 model to int8 for the CPU: calibrates, rewrites, and compares call by call."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdrt.common.notices import Notices
from sdrt.errors import ExportError, SdrtError, UnsupportedModelError
from sdrt.model_folder.graph_kind import STAGES_GRAPH
from sdrt.model_folder.manifest import read_downloaded
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component as Session
from sdrt.vae.stages import StagedVae
from sdrt_export.calibrate import Calibration, Call, Found, calibrate
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.checkpoints.folder import FolderCheckpoint
from sdrt_export.graphs.stored import StoredGraph
from sdrt_export.quantize import layers, quantize, stays_float
from sdrt_export.weight_only import quantize_weights

__all__ = ["LIMITS", "QUANTIZED", "Conversion", "refuse_other_kinds"]

QUANTIZED = ("unet", "vae_decoder", "vae_encoder")
"""The components that run in int8. Text encoders only store their weights in 8 bits (`weight_only`)."""

LIMITS: Mapping[str, float] = {"unet": 0.1, "vae_decoder": 0.05, "vae_encoder": 0.05}
"""The largest errors accepted: the norm of the difference over the norm of float32's output, on a prompt that was not
used for calibration. docs/int8.md has the errors of the embedded model, and shows images beyond these limits."""
TEXT_LIMIT = 0.03
"""The largest error accepted of a text encoder, over all prompts. It guides every step."""

Array = np.ndarray[Any, Any]
Rows = list[dict[str, Any]]


def refuse_other_kinds(checkpoint: Checkpoint) -> None:
    """Raise `UnsupportedModelError` for a U-Net that needs input images, because calibration has only prompts."""
    if not isinstance(checkpoint, FolderCheckpoint):
        return
    family = checkpoint.family
    parts = (family.denoiser.component, family.vae.checkpoint)
    denoiser, vae = (read_downloaded(checkpoint.folder / part / "config.json") for part in parts)
    task = family.task_of(denoiser, vae["latent_channels"])
    if task is not family.tasks[0]:
        raise UnsupportedModelError.advised(
            f"{family.denoiser.component}: the model is for {task.name}, but int8 is calibrated on "
            "prompts alone",
            "use --dtype fp32",
            argument="dtype",
            component=family.denoiser.component,
        )


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Converts the float32 model in ``source`` to one in ``output`` in int8. Removes ``source``.

    ``text_encoders`` are the components whose weights alone are converted. ``judged`` says whether errors above the
    limits end the export. They do not for random weights, whose images show nothing. ``report`` is called with a
    component, a stage and a detail.
    """

    source: Path
    output: Path
    text_encoders: Sequence[str]
    plan: Calibration
    guidance_scale: float | None
    judged: bool
    report: Callable[[str, str, str], None]

    def run(self, entries: dict[str, Any]) -> dict[str, Any]:
        """Convert the model. Returns the manifest's ``entries`` of the components, changed for int8.

        Raises:
            ExportError: an error is above its limit, or ONNX Runtime refuses a graph.
        """
        names, made = (*QUANTIZED, *self.text_encoders), []
        for step in calibrate(self.source, QUANTIZED, self.plan, self.guidance_scale, self.text_encoders):
            if isinstance(step, str):
                self.report("calibration", "calibrate", step)
            else:
                made.append(step)
        changed = {
            name: entries[name] | self._component(name, found)
            for name, found in zip(names, made, strict=True)
        }
        for path in self.source.iterdir():
            if path.name not in names:
                path.rename(self.output / path.name)
        shutil.rmtree(self.source)
        return entries | changed

    def _component(self, name: str, found: Found) -> dict[str, Any]:
        folder, path = self.source / name, self.output / name / "model.onnx"
        path.parent.mkdir()
        self.report(name, "write", "")
        is_text = name in self.text_encoders
        done, floats = _rewrite_weights(folder, path) if is_text else _rewrite(folder, path, found)
        (folder / "config.json").rename(path.with_name("config.json"))
        self.report(name, "compare", "")
        outputs = dict.fromkeys(call.output for call in found.calls)
        rows = [
            row
            for output in outputs
            for row in _compare(name, path, [call for call in found.calls if call.output == output])
        ]
        if path.with_name(STAGES_GRAPH.file).is_file():
            rows += _compare_stages(name, path.with_name(STAGES_GRAPH.file), found.calls[0])
        worst = max(row["relative_error"] for row in rows)
        if self.judged:
            _judge_text(name, worst) if is_text else _judge(name, worst)
        self.report(name, "done", f"relative error {worst:.1e}")
        about = {"parity": rows, "int8": {"layers": len(done), "float": floats}}
        if is_text:
            return about
        plan = {"prompts": list(self.plan.prompts), "steps": list(self.plan.steps), "seed": self.plan.seed}
        return about | {"calibration": plan}


def _rewrite(folder: Path, path: Path, found: Found) -> tuple[list[str], list[str]]:
    """Write the int8 graph of the component in ``folder`` to ``path``, and its stages beside it.

    Returns the layers that run in int8, and those that ``FLOAT`` keeps in float32.
    """
    graph = StoredGraph.read(folder / path.name)
    floats = [layer.name for layer in layers(graph, every=True) if stays_float(layer.name)]
    done = quantize(graph, found.spans)
    graph.save(path)
    if (stages := folder / STAGES_GRAPH.file).is_file():
        tiles = StoredGraph.read(stages)
        quantize(tiles, found.spans)
        tiles.save_beside(path.with_name(STAGES_GRAPH.file), StoredGraph.read(path))
    return done, sorted(floats)


def _rewrite_weights(folder: Path, path: Path) -> tuple[list[str], list[str]]:
    """Write the graph of the text encoder in ``folder`` to ``path``, with weights in 8 bits.

    Returns their names, and nothing for the second part of `_rewrite`.
    """
    graph = StoredGraph.read(folder / path.name)
    done = quantize_weights(graph)
    graph.save(path)
    return done, []


def _compare(name: str, path: Path, calls: list[Call]) -> Rows:
    """Repeat the calls in int8. Returns one row for the manifest, for all calls together."""
    try:
        session = Session(name, path, SessionConfig(provider="cpu"), Notices(None))
        made = [session.run(call.inputs, call.output) for call in calls]
    except SdrtError as error:
        raise ExportError(
            f"{name}: the int8 graph does not run, so nothing was written: use --dtype fp32; {error}",
            component=name,
            fits="use --dtype fp32",
        ) from error
    return _row(calls, made, {"calls": len(calls)})


def _compare_stages(name: str, path: Path, call: Call) -> Rows:
    """Compare the VAE in tiles, on one image."""
    session = Session(f"{name} in stages", path, SessionConfig(provider="cpu"), Notices(None))
    widest = max(int(spec.shape[1]) for spec in session.outputs.values())
    (data,) = call.inputs.values()
    # 64x64 pixels at the widest stage, which makes several tiles of any image.
    return _row([call], [StagedVae(session, tile=4096 * widest)(data[0])[np.newaxis]], {"tiled": 1})


def _row(calls: list[Call], made: list[Array], what: dict[str, int]) -> Rows:
    shapes = {key: list(value.shape) for key, value in calls[0].inputs.items()}
    error = _distance(made, [call.expected for call in calls])
    return [{"inputs": shapes | what, "output": calls[0].output, "relative_error": float(f"{error:.3g}")}]


def _judge_text(name: str, error: float) -> None:
    if not error <= TEXT_LIMIT:
        raise ExportError.advised(
            f"{name}: weights in 8 bits change its output by {error:.2g} (relative); the limit is {TEXT_LIMIT:g}, so "
            "nothing was written",
            "use --dtype fp32",
            component=name,
        )


def _judge(name: str, error: float) -> None:
    if not error <= LIMITS[name]:
        raise ExportError.advised(
            f"{name}: int8 differs from float32 by {error:.2g} (relative, on a prompt not used for "
            f"calibration); the limit is {LIMITS[name]:g}, so nothing was written",
            "use --dtype fp32, or --calibration-prompts with prompts like those that the model is for",
            component=name,
        )


def _distance(made: list[Array], expected: list[Array]) -> float:
    """The norm of the difference over the norm of ``expected``, for all calls together."""
    apart = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in zip(made, expected, strict=True))
    size = sum(float(np.square(b.astype(np.float64)).sum()) for b in expected)
    if not np.isfinite(apart) or not size:
        raise ExportError.advised(
            "int8: an output is not finite, or is zero in float32: the checkpoint may be damaged",
            "download it again",
            joint="; ",
        )
    return float(np.sqrt(apart / size))
