"""`export_model`: check the arguments, open the checkpoint, write the components, put the folder into place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sdrt
from sdrt.common.extras import install_command, missing_modules
from sdrt.common.notices import Notify
from sdrt.errors import ExportError, ModelNotFoundError, RequestError
from sdrt.model_folder.embedded import embedded_path
from sdrt.model_folder.folder import Manifest, exists, expand
from sdrt.model_folder.resolve import refuse_revision
from sdrt.onnx.engine import ort
from sdrt_export import optimum_exporter, tokenizer
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.checkpoints.opening import Beside, open_checkpoint
from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.default_settings import checked_defaults, default_settings
from sdrt_export.hashes import Hashes
from sdrt_export.job import DTYPE_NAMES, Job, ProgressEvent, Reporter
from sdrt_export.piece import Piece
from sdrt_export.taesd import load_taesd
from sdrt_export.targets import AUTO, OPSET, Target, resolve_target
from sdrt_export.transaction import check_space, replace_folder

if TYPE_CHECKING:
    from sdrt_export.calibrate import Calibration

__all__ = ["EXPORTERS", "ProgressEvent", "Reporter", "export_model"]

EXPORTERS = ("sdrt", "optimum")

# int8 is made from float32, which is on the disk at the same time.
_BYTES = {"fp32": 4, "fp16": 2, "int8": 5}
# The packages that make the graphs, and those that make the results to compare with.
_MAKERS, _TORCH = ("onnx", "numpy", "tokenizers"), ("torch", "diffusers", "transformers")
# How often the weights are on the disk at the same time. optimum writes them as separate tensors first.
_SPACE = {"sdrt": 1, "optimum": 2}
# Graphs, configs and the manifest.
_SPACE_MARGIN = 64 << 20


def export_model(
    source: str | Path | None,
    output: str | Path,
    *,
    target: str = "cpu",
    dtype: str = AUTO,
    exporter: str = "sdrt",
    architecture: str | None = None,
    random_weights: int | None = None,
    guidance_scale: float | None = None,
    num_inference_steps: int | None = None,
    taesd: str | Path | None = None,
    calibration_prompts: Sequence[str] | None = None,
    vae: str | Path | None = None,
    text_encoders: Sequence[str | Path] = (),
    prediction_type: str | None = None,
    config: str | Path | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    verify: bool = False,
    force: bool = False,
    reporter: Reporter | None = None,
    notify: Notify | None = None,
) -> Manifest:
    """Turn a Stable Diffusion checkpoint into the model folder ``output``, whole or not at all.

    Args:
        source: a folder in diffusers' layout, a single file, or a hub id of either, such as
            "owner/name/file.safetensors". None with ``architecture`` and ``random_weights``.
        output: the folder to write. ``force`` replaces a model that exists there.
        target: a row of :data:`sdrt_export.targets.TARGETS`.
        dtype: "fp32", "fp16", "int8", or "auto", which suits the target (see :class:`sdrt_export.targets.Target`).
        exporter: "sdrt", whose graphs are fused, or "optimum", for models that "sdrt" does not support.
        architecture: a row of :data:`sdrt_export.architectures.ARCHITECTURES`.
        random_weights: the seed of the weights of ``architecture``.
        guidance_scale, num_inference_steps: the model's defaults. If None, sdrt derives them from the checkpoint's
            kind, name and scheduler, and otherwise takes diffusers' defaults.
        taesd: a folder or hub id of a TAESD. Its decoder becomes part of the model, for previews.
        calibration_prompts: at least 2 prompts like those that an "int8" model is for. None: general ones.
        vae: a file, folder or hub id of a VAE, which replaces the checkpoint's.
        text_encoders: files of text encoders, which replace a single file's.
        prediction_type: "epsilon" or "v_prediction", what a single file's U-Net predicts if the file does not say it.
        config: a folder in diffusers' layout or a hub id, with the configs of a single file that has unusual ones.
        revision, token, cache_dir: huggingface_hub's, for a hub id.
        verify: compare each component with torch before the folder appears. Needs the extra `verify`. Exports by
            "optimum" are always compared.
        reporter: receives a `ProgressEvent` at each stage.
        notify: receives messages for the user.

    Returns the manifest, as written to ``sdrt.json``.

    Raises:
        RequestError: an argument is wrong, or ``output`` exists.
        ModelNotFoundError, IntegrityError, UnsupportedModelError: the checkpoint cannot be used.
        ExportError: the disk is full, or, with ``verify``, a graph differs from torch.
        OutOfMemoryError: there is not enough memory to compare a graph with torch.
    """
    given = checked_defaults(guidance_scale, num_inference_steps)
    plan = _plan(target, dtype, exporter, given, taesd, calibration_prompts, verify)
    output, access = expand(output, "output", "a folder to write"), {"token": token, "cache_dir": cache_dir}
    beside = Beside(vae=vae, text_encoders=text_encoders, prediction_type=prediction_type, config=config)
    checkpoint = _open(source, architecture, random_weights, beside, {"revision": revision, **access}, notify)
    _check(plan, checkpoint)
    # The revision is the checkpoint's.
    preview = None if taesd is None else load_taesd(taesd, access)
    report = reporter or (lambda event: None)
    plan = _with_own_defaults(plan, checkpoint, report)
    return _write(plan, checkpoint, preview, output, force, _read(source), report)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The arguments of an export, checked before the checkpoint is opened."""

    target: Target
    dtype: str
    exporter: str
    defaults: dict[str, Any]
    versions: dict[str, str]
    calibration: Calibration | None
    verify: bool


def _plan(
    target: str,
    dtype: str,
    exporter: str,
    defaults: dict[str, Any],
    taesd: str | Path | None,
    prompts: Sequence[str] | None,
    verify: bool,
) -> _Plan:
    """Check the arguments that do not need the checkpoint."""
    row = resolve_target(target, dtype)
    dtype = row.dtypes[0] if dtype == AUTO else dtype
    _check_exporter(exporter, target, dtype, taesd)
    if verify:
        _require_torch()
    return _Plan(
        target=row,
        dtype=dtype,
        exporter=exporter,
        defaults=defaults,
        versions=_versions(torch=verify or exporter == "optimum"),
        calibration=_calibration(dtype, prompts),
        verify=verify,
    )


def _check(plan: _Plan, checkpoint: Checkpoint) -> None:
    """Check what would otherwise fail after minutes of work."""
    if plan.calibration is not None:
        from sdrt_export import int8

        int8.refuse_other_kinds(checkpoint)
    for folder in checkpoint.tokenizer_folders().values():
        tokenizer.check_tokenizer(folder)


def _write(
    plan: _Plan,
    checkpoint: Checkpoint,
    preview: Piece | None,
    output: Path,
    force: bool,
    reading: Path | None,
    report: Reporter,
) -> Manifest:
    """Write the components into a staging folder, which then replaces ``output``."""
    with replace_folder(output, force, reading=reading) as staging, Hashes(staging) as hashes:
        check_space(output, _space(checkpoint, plan.dtype, plan.exporter))
        job = Job(
            checkpoint=checkpoint,
            staging=staging,
            target=plan.target,
            dtype=plan.dtype,
            report=report,
            hashes=hashes,
            taesd=preview,
            verify=plan.verify,
        )
        components = job.run(plan.exporter, plan.calibration, plan.defaults)
        manifest = _manifest(plan, checkpoint, components, hashes)
        manifest.write(staging)
    report(ProgressEvent(component="", stage="done", detail=str(output)))
    return manifest


def _manifest(plan: _Plan, checkpoint: Checkpoint, components: dict[str, Any], hashes: Hashes) -> Manifest:
    return Manifest(
        family=checkpoint.family.name,
        target=plan.target.name,
        dtype=DTYPE_NAMES[plan.dtype],
        opset=OPSET if plan.exporter == "sdrt" else optimum_exporter.OPSET,
        exporter=plan.exporter,
        source={"id": checkpoint.name, "revision": checkpoint.revision},
        versions=plan.versions,
        components=components,
        defaults=plan.defaults,
        files=hashes.of_all(),
    )


def _with_own_defaults(plan: _Plan, checkpoint: Checkpoint, report: Reporter) -> _Plan:
    """Add the defaults that the checkpoint itself asks for to those that the user gave."""
    own = default_settings(checkpoint)
    if own.advice:
        report(ProgressEvent(component="scheduler", stage="done", detail=own.advice))
    entries = own.recorded()
    if "num_inference_steps" in plan.defaults:
        entries.pop("timesteps", None)
    return replace(plan, defaults=entries | plan.defaults)


def _read(source: str | Path | None) -> Path | None:
    """The folder that is read, and must not be written to. None for a hub id or random weights."""
    folder = expand(source) if source is not None else None
    return folder if folder is not None and exists(folder) else None


def _space(checkpoint: Checkpoint, dtype: str, exporter: str) -> int:
    """The bytes that an export needs on the disk."""
    return checkpoint.size() * _BYTES[dtype] // _BYTES["fp32"] * _SPACE[exporter] + _SPACE_MARGIN


def _check_exporter(exporter: str, target: str, dtype: str, taesd: str | Path | None) -> None:
    if exporter not in EXPORTERS:
        raise RequestError.expected(
            f"unknown exporter {exporter!r}", f"one of {', '.join(EXPORTERS)}", argument="exporter"
        )
    if exporter == "optimum" and target != "portable":
        raise RequestError.advised(
            "exporter 'optimum' writes standard operators only",
            f"use target 'portable', not {target!r}",
            argument="target",
        )
    if exporter == "optimum" and dtype != "fp32":
        raise RequestError.advised(
            "exporter 'optimum' writes fp32 only", f"leave out dtype {dtype!r}", argument="dtype"
        )
    if exporter == "optimum" and taesd is not None:
        raise RequestError.advised(
            "--taesd needs exporter 'sdrt'", "leave out --taesd or exporter 'optimum'", argument="taesd"
        )


def _calibration(dtype: str, prompts: Sequence[str] | None) -> Calibration | None:
    """The calibration for int8. None for other dtypes."""
    if dtype != "int8" and prompts is not None:
        raise RequestError.advised(
            f"calibration prompts are for dtype 'int8', not {dtype!r}",
            "leave them out, or export with dtype 'int8'",
            argument="calibration_prompts",
        )
    if dtype != "int8":
        return None
    from sdrt_export.calibrate import Calibration

    return Calibration() if prompts is None else Calibration(prompts=tuple(prompts))


def _open(
    source: str | Path | None,
    architecture: str | None,
    random_weights: int | None,
    beside: Beside,
    hub_options: Mapping[str, Any],
    notify: Notify | None,
) -> Checkpoint:
    if source is None:
        if architecture is None or random_weights is None:
            raise RequestError.advised(
                "nothing to export",
                "give a checkpoint, or --architecture NAME with --random-weights SEED",
                argument="source",
            )
        refuse_revision(f"--architecture {architecture}", hub_options["revision"])
        _refuse_beside(beside)
        return RandomCheckpoint(architecture=architecture, seed=random_weights)
    if architecture is not None or random_weights is not None:
        raise RequestError.advised(
            "--architecture and --random-weights replace a checkpoint",
            "give a checkpoint, or both of them",
            argument="architecture",
        )
    if isinstance(source, str) and embedded_path(source):
        raise ModelNotFoundError.advised(
            f"{source} is an embedded model and has been exported already",
            f"to export it again, make a checkpoint of it with python -m sdrt_export.restore {source} "
            f"DIR; for a folder of that name, write ./{source}",
            argument="source",
        )
    return open_checkpoint(source, beside=beside, notify=notify, **hub_options)


def _refuse_beside(beside: Beside) -> None:
    """Raise `RequestError` for an argument that has no effect with random weights."""
    for argument in ("vae", "text_encoders", "prediction_type", "config"):
        if getattr(beside, argument):
            raise RequestError.advised(
                f"{argument} is given, but random weights replace a checkpoint",
                "leave one of them out",
                argument=argument,
            )


def _require_torch() -> None:
    if missing := missing_modules("verify"):
        raise ExportError.advised(
            f"--verify needs {', '.join(missing)}; run", install_command("verify"), argument="verify"
        )


def _versions(*, torch: bool) -> dict[str, str]:
    """The versions of the packages that make the graphs, and with `torch` of torch and its libraries.

    sdrt's own is in its code, because a checkout on the path is not an installed distribution.
    """
    versions = {"sdrt": sdrt.__version__}
    for name in (*_MAKERS, *(_TORCH if torch else ())):
        try:
            versions[name] = version(name)
        except PackageNotFoundError as error:
            raise ExportError.advised(
                f"{name} is not installed as a distribution, so its version is unknown", "install it with pip"
            ) from error
    return versions | {"onnxruntime": ort.__version__}
