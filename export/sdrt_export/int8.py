"""From a model in float32 to one in int8 for the CPU: calibrated, rewritten, compared call by call."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from sdrt.config import SessionConfig
from sdrt.errors import ExportError, UnsupportedModelError
from sdrt.kinds import TEXT_TO_IMAGE, kind_of
from sdrt.manifest import read_json
from sdrt.model import STAGES_GRAPH
from sdrt.notices import Notices
from sdrt.session import FAILURES, ort
from sdrt.session import Component as Session
from sdrt.vae_stages import StagedVae
from sdrt_export import graph
from sdrt_export.calibrate import Calibration, Call, Found, calibrate
from sdrt_export.quantize import quantize, stays_float

__all__ = ["LIMITS", "QUANTIZED", "convert", "refuse_other_kinds"]

QUANTIZED = ("unet", "vae_decoder", "vae_encoder")
"""The components that run in int8. The text encoder runs once for each prompt, and what it makes guides every step."""

LIMITS: Mapping[str, float] = {"unet": 0.1, "vae_decoder": 0.05, "vae_encoder": 0.05}
"""Largest error accepted, as the norm of the difference over the norm of float32's output, on trajectories that were
not calibrated on. The embedded model measures U-Net 0.025, decoder 0.009, encoder 0.005."""

Array = np.ndarray[Any, Any]
Report = Callable[[str, str, str], None]


def convert(
    source: Path,
    output: Path,
    entries: dict[str, Any],
    plan: Calibration,
    guidance_scale: float | None,
    report: Report,
) -> dict[str, Any]:
    """Write the float32 model in ``source`` to ``output`` with ``QUANTIZED`` in int8; ``source`` is used up.

    ``entries`` are the manifest's of the components, with the errors of float32. Returns those of the result.
    ``guidance_scale`` is the model's own, where it has one.
    ``report`` gets a component, what is done with it, and a detail.

    Raises:
        ExportError: the error is above ``LIMITS``, or the pictures of the float32 model cannot be made.
    """
    scratch = source / ".calibration"
    made = []
    for step in calibrate(source, scratch, QUANTIZED, plan, guidance_scale):
        if isinstance(step, str):
            report("calibration", "calibrate", step)
        else:
            made.append(step)
    report("calibration", "done", "")
    shutil.rmtree(scratch)
    changed = {}
    for name, found in zip(QUANTIZED, made, strict=True):
        changed[name] = entries[name] | _component(name, source, output, found, plan, report)
    for path in source.iterdir():
        if path.name not in QUANTIZED:
            path.rename(output / path.name)
    shutil.rmtree(source)
    return entries | changed


def refuse_other_kinds(source: Path) -> None:
    """Raise `UnsupportedModelError` for a U-Net that makes pictures of pictures: there are none to calibrate with."""
    unet, vae = (read_json(source / name / "config.json") for name in ("unet", "vae_decoder"))
    kind = kind_of(unet, vae["latent_channels"])
    if kind is not TEXT_TO_IMAGE:
        raise UnsupportedModelError(
            f"unet: is for {kind.name}, and int8 is calibrated on pictures made of prompts alone: use --dtype fp32"
        )


def _component(
    name: str, source: Path, output: Path, found: Found, plan: Calibration, report: Report
) -> dict[str, Any]:
    folder, path = source / name, output / name / "model.onnx"
    path.parent.mkdir()
    report(name, "write", "")
    model = ir.load(folder / path.name)
    floats = [key for key in model.graph.initializers if key is not None and stays_float(key)]
    done = quantize(model, found.spans)
    graph.save(model, path, apart=True)
    rows = _compare(name, path, found.calls)
    if (stages := folder / STAGES_GRAPH).is_file():
        tiles = ir.load(stages)
        quantize(tiles, found.spans)
        graph.save_beside(tiles, path.with_name(STAGES_GRAPH), path)
        rows += _compare_stages(name, path.with_name(STAGES_GRAPH), found.calls[0])
    (folder / "config.json").rename(path.with_name("config.json"))
    worst = max(row["relative_error"] for row in rows)
    report(name, "done", f"relative error {worst:.1e}")
    return {
        "parity": rows,
        "int8": {"layers": len(done), "float": sorted(key for key in floats if key.endswith("weight"))},
        "calibration": {"prompts": list(plan.prompts), "steps": list(plan.steps), "seed": plan.seed},
    }


def _compare(name: str, path: Path, calls: list[Call]) -> list[dict[str, Any]]:
    """Run the calls again in int8; a row for the manifest of the whole trajectory."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        made = [session.run([call.output], call.inputs)[0] for call in calls]
    except FAILURES as error:
        raise ExportError(
            f"{name}: ONNX Runtime {ort.__version__} refuses the graph in int8: {error}; nothing was written: use "
            "--dtype fp32"
        ) from error
    return _row(name, calls, made, {"calls": len(calls)})


def _compare_stages(name: str, path: Path, call: Call) -> list[dict[str, Any]]:
    """The VAE in tiles, of one picture."""
    session = Session(f"{name} in stages", path, SessionConfig(provider="cpu"), Notices(None))
    widest = max(int(port.shape[1]) for port in session.outputs.values())
    (data,) = call.inputs.values()
    return _row(name, [call], [StagedVae(session, tile=4096 * widest)(data[0])[np.newaxis]], {"tiled": 1})


def _row(name: str, calls: list[Call], made: list[Array], what: dict[str, int]) -> list[dict[str, Any]]:
    error = _distance(made, [call.expected for call in calls])
    if not error <= LIMITS[name]:
        raise ExportError(
            f"{name}: int8 differs from float32 by {error:.2g} (relative, on a prompt that it was not calibrated on); "
            f"the limit is {LIMITS[name]:g}; nothing was written: use --dtype fp32, or --calibration-prompts with "
            "prompts of the kind that the model is for"
        )
    shapes = {key: list(value.shape) for key, value in calls[0].inputs.items()}
    return [{"inputs": shapes | what, "output": calls[0].output, "relative_error": float(f"{error:.3g}")}]


def _distance(made: list[Array], expected: list[Array]) -> float:
    """The norm of the difference over the norm of ``expected``, of all calls together."""
    apart = sum(float(np.square(a.astype(np.float64) - b).sum()) for a, b in zip(made, expected, strict=True))
    size = sum(float(np.square(b.astype(np.float64)).sum()) for b in expected)
    return float(np.sqrt(apart / size)) if size and np.isfinite(apart) else float("inf")
