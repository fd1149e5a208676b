"""`export_model`: check the arguments, open the checkpoint, write the components, put the folder into place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.common.notices import Notices, Notify
from sdrt.errors import ModelNotFoundError, RequestError
from sdrt.model_folder.embedded import embedded_path
from sdrt.model_folder.folder import Manifest, exists, expand
from sdrt.model_folder.resolve import refuse_revision
from sdrt_export import optimum_exporter, tokenizer
from sdrt_export.checkpoints.checker import names_checker
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.checkpoints.opening import Beside, open_checkpoint
from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.controlnets import controlnets_of
from sdrt_export.default_settings import default_settings
from sdrt_export.hashes import Hashes
from sdrt_export.image_prompts import ImagePrompts, load_image_prompts
from sdrt_export.job import DTYPE_NAMES, Job, ProgressEvent, Reporter
from sdrt_export.options import EXPORTERS, ExportKeywords, ExportOptions
from sdrt_export.piece import Piece
from sdrt_export.plan import ExportPlan, plan_of
from sdrt_export.taesd import load_taesd
from sdrt_export.targets import OPSET, Target
from sdrt_export.tensors.lazy import shape_of
from sdrt_export.transaction import check_space, replace_folder

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["EXPORTERS", "ExportOptions", "ProgressEvent", "Reporter", "export_model"]

# int8 is made from float32, which is on the disk at the same time.
_BYTES = {"fp32": 4, "fp16": 2, "int8": 5}
# How often the weights are on the disk at the same time. optimum writes them as separate tensors first.
_SPACE = {"sdrt": 1, "optimum": 2}
# Graphs, configs and the manifest.
_SPACE_MARGIN = 64 << 20


def export_model(
    source: str | Path | None,
    output: str | Path,
    *,
    force: bool = False,
    reporter: Reporter | None = None,
    notify: Notify | None = None,
    **options: Unpack[ExportKeywords],
) -> Manifest:
    """Turn a Stable Diffusion checkpoint into the model folder ``output``, whole or not at all.

    Args:
        source: a folder in diffusers' layout, a single file, or a hub id of either, such as
            "owner/name/file.safetensors". None with ``architecture`` and ``random_weights``.
        output: the folder to write.
        force: replace a model that exists at ``output``.
        reporter: receives a `ProgressEvent` at each stage.
        notify: receives messages for the user.
        options: the attributes of :class:`sdrt_export.ExportOptions`.

    Returns the manifest, as written to ``sdrt.json``.

    Raises:
        RequestError: an argument is wrong, or ``output`` exists.
        ModelNotFoundError, IntegrityError, UnsupportedModelError: the checkpoint cannot be used.
        ExportError: the disk is full, or, with ``verify``, a graph differs from torch.
        OutOfMemoryError: there is not enough memory to compare a graph with torch.
    """
    given = ExportOptions(**options)
    plan = plan_of(given)
    output = expand(output, "output", "a folder to write")
    checkpoint = _open(source, given, notify)
    _check(plan, checkpoint)
    if not given.safety_checker:
        _tell_of_checker(checkpoint, notify)
    more = controlnets_of(given.beside.controlnet, checkpoint, plan.target, given.access)
    prompts = _image_prompts(given, checkpoint, plan.target, source)
    more += [] if prompts is None else list(prompts.pieces.values())
    more += [] if given.taesd is None else [load_taesd(given.taesd, given.access)]
    report = reporter or (lambda event: None)
    plan = _with_own_defaults(plan, checkpoint, report)
    return _write(plan, checkpoint, more, prompts, output, force, _read(source), report)


def _image_prompts(
    options: ExportOptions, checkpoint: Checkpoint, target: Target, source: str | Path | None
) -> ImagePrompts | None:
    """The IP-Adapters that are given beside the checkpoint. None without any."""
    beside = options.beside
    if not beside.ip_adapter:
        return None
    return load_image_prompts(
        beside.ip_adapter,
        beside.image_encoder,
        unet=checkpoint.config(checkpoint.family.denoiser.component),
        model=checkpoint.name,
        folder=_read(source) or Path(),
        encoder_config=None,
        target=target,
        access=options.access,
    )


def _check(plan: ExportPlan, checkpoint: Checkpoint) -> None:
    """Check what would otherwise fail after minutes of work."""
    if plan.calibration is not None:
        from sdrt_export import int8

        int8.refuse_other_kinds(checkpoint)
    for folder in checkpoint.tokenizer_folders().values():
        tokenizer.check_tokenizer(folder)


def _write(
    plan: ExportPlan,
    checkpoint: Checkpoint,
    more: Sequence[Piece],
    prompts: ImagePrompts | None,
    output: Path,
    force: bool,
    reading: Path | None,
    report: Reporter,
) -> Manifest:
    """Write the components into a staging folder, which then replaces ``output``."""
    with replace_folder(output, force, reading=reading) as staging, Hashes(staging) as hashes:
        check_space(output, _space(checkpoint, more, plan.dtype, plan.exporter))
        job = Job(
            checkpoint=checkpoint,
            staging=staging,
            target=plan.target,
            dtype=plan.dtype,
            report=report,
            hashes=hashes,
            more=more,
            prompts=prompts,
            verify=plan.verify,
        )
        components = job.run(plan.exporter, plan.calibration, plan.defaults)
        manifest = _manifest(plan, checkpoint, components, hashes)
        manifest.write(staging)
    report(ProgressEvent(component="", stage="done", detail=str(output)))
    return manifest


def _manifest(
    plan: ExportPlan, checkpoint: Checkpoint, components: dict[str, Any], hashes: Hashes
) -> Manifest:
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


def _with_own_defaults(plan: ExportPlan, checkpoint: Checkpoint, report: Reporter) -> ExportPlan:
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


def _space(checkpoint: Checkpoint, more: Sequence[Piece], dtype: str, exporter: str) -> int:
    """The bytes that an export needs on the disk."""
    others = sum(math.prod(shape_of(piece.tensors, name)) for piece in more for name in piece.tensors)
    size = checkpoint.size() + _BYTES["fp32"] * others
    return size * _BYTES[dtype] // _BYTES["fp32"] * _SPACE[exporter] + _SPACE_MARGIN


def _open(source: str | Path | None, options: ExportOptions, notify: Notify | None) -> Checkpoint:
    beside, architecture, random_weights = options.beside, options.architecture, options.random_weights
    if source is None:
        if architecture is None or random_weights is None:
            raise RequestError.advised(
                "nothing to export",
                "give a checkpoint, or --architecture NAME with --random-weights SEED",
                argument="source",
            )
        refuse_revision(f"--architecture {architecture}", options.revision)
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
    return open_checkpoint(
        source,
        beside=beside,
        revision=options.revision,
        notify=notify,
        safety_checker=options.safety_checker,
        **options.access,
    )


def _tell_of_checker(checkpoint: Checkpoint, notify: Notify | None) -> None:
    """Say that nothing will look at the images, because the user leaves the safety checker out."""
    told = (
        f"the safety checker of {checkpoint.name} is left out: images will not be filtered"
        if names_checker(checkpoint)
        else f"{checkpoint.name} has no safety checker to leave out"
    )
    Notices(notify).inform(told)


def _refuse_beside(beside: Beside) -> None:
    """Raise `RequestError` for an argument that has no effect with random weights."""
    for argument in ("vae", "text_encoders", "prediction_type", "config"):
        if getattr(beside, argument):
            raise RequestError.advised(
                f"{argument} is given, but random weights replace a checkpoint",
                "leave one of them out",
                argument=argument,
            )
