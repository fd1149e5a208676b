"""The export: check what is asked for, open the checkpoint, let a job write its components, then into place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import sdrt
from sdrt.errors import ExportError, ModelNotFoundError, RequestError
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.model_folder.embedded import embedded_path
from sdrt.model_folder.folder import Manifest, exists, expand
from sdrt.model_folder.index import check_checkpoint_index
from sdrt.model_folder.resolve import refuse_revision
from sdrt.onnx.engine import ort
from sdrt.request.checks import real
from sdrt_export import int8, optimum_exporter, tokenizer
from sdrt_export.calibrate import Calibration
from sdrt_export.checkpoint import Checkpoint, RandomCheckpoint, open_folder
from sdrt_export.hashes import Hashes
from sdrt_export.job import DTYPE_NAMES, Job, ProgressEvent, Reporter
from sdrt_export.taesd import load_taesd
from sdrt_export.targets import AUTO, OPSET, resolve_target
from sdrt_export.transaction import check_space, replace_folder

__all__ = ["EXPORTERS", "ProgressEvent", "Reporter", "export_model"]

EXPORTERS = ("sdrt", "optimum")

# int8 is made of float32, which lies beside it meanwhile.
_BYTES = {"fp32": 4, "fp16": 2, "int8": 5}
_VERSIONED = ("torch", "diffusers", "transformers", "onnx", "onnxscript")
# How many times the weights' size is on the disk at once; optimum writes them as loose tensors first.
_SPACE = {"sdrt": 1, "optimum": 2}
# Graphs, configs and the manifest: small beside the weights.
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
    taesd: str | Path | None = None,
    calibration_prompts: Sequence[str] | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> Manifest:
    """Turn a Stable Diffusion checkpoint into the model folder ``output``; all of it or nothing.

    Args:
        source: a folder in diffusers' layout or a hub id; None with ``architecture`` and ``random_weights``.
        output: the folder to write; ``force`` replaces a model that is there.
        target: a row of :data:`sdrt_export.targets.TARGETS`.
        dtype: "fp32", "fp16", or "auto": what suits the target. In "fp16" target "cpu" stores weights in half the
            bytes, widens them once at load and computes in float32; the others compute in float16, but for components
            whose activations come near its limit (see :mod:`sdrt_export.precision`). "int8":
            convolutions and linears of the U-Net and the VAE in 8 bits, for CPUs.
        exporter: "sdrt" (fused by construction) or "optimum" (its exporter, unfused, for what we have no form of).
        architecture: a row of :data:`sdrt_export.architectures.ARCHITECTURES`.
        random_weights: the seed of the weights of ``architecture``.
        guidance_scale: what calls of the model use where they name none; 7.5 where it is None. For checkpoints that are
            made for little guidance (LCM, turbo), or none.
        taesd: a folder or hub id of a TAESD, whose decoder goes into the model for previews.
        calibration_prompts: what "int8" is calibrated on, 2 at least: prompts of the kind that the model is for;
            general ones where it is None.
        revision: branch, tag or commit on the hub.
        token: the hub's access token; its own variables and login are used when None.
        cache_dir: where huggingface_hub keeps downloads.
        reporter: called as the work goes on, from two threads.

    Returns:
        The manifest, as written to ``sdrt.json``.

    Raises:
        RequestError: an argument is wrong, or ``output`` exists.
        ModelNotFoundError, IntegrityError, UnsupportedModelError: the checkpoint cannot be used.
        ExportError: no space, or a graph that differs from torch.
        OutOfMemoryError: there is no memory to compare a graph with torch.
    """
    row = resolve_target(target, dtype)
    dtype = row.dtypes[0] if dtype == AUTO else dtype
    defaults = _defaults(guidance_scale)
    _check_exporter(exporter, target, dtype, taesd)
    versions = _versions()
    calibration = _calibration(dtype, calibration_prompts)
    output = expand(output)
    access = {"token": token, "cache_dir": cache_dir}
    checkpoint = _open(source, architecture, random_weights, {"revision": revision, **access})
    if calibration is not None:
        int8.refuse_other_kinds(checkpoint)
    # A revision is the checkpoint's.
    preview = None if taesd is None else load_taesd(taesd, access)
    if folder := checkpoint.tokenizer_folder():
        tokenizer.check_tokenizer(folder)
    report = reporter or (lambda event: None)
    with replace_folder(output, force, reading=_read(source)) as staging, Hashes(staging) as hashes:
        check_space(output, _space(checkpoint, dtype, exporter))
        job = Job(
            checkpoint=checkpoint,
            staging=staging,
            target=row,
            dtype=dtype,
            report=report,
            hashes=hashes,
            taesd=preview,
        )
        components = job.run(exporter, calibration, defaults)
        manifest = Manifest(
            family=STABLE_DIFFUSION.name,
            target=row.name,
            dtype=DTYPE_NAMES[dtype],
            opset=OPSET if exporter == "sdrt" else optimum_exporter.OPSET,
            exporter=exporter,
            source={"id": checkpoint.name, "revision": checkpoint.revision},
            versions=versions,
            components=components,
            defaults=defaults,
            files=hashes.of_all(),
        )
        manifest.write(staging)
    report(ProgressEvent(component="", stage="done", detail=str(output)))
    return manifest


def _defaults(guidance_scale: float | None) -> dict[str, float]:
    """What calls of the model use where they name nothing."""
    if guidance_scale is None:
        return {}
    return {"guidance_scale": real("guidance_scale", guidance_scale, -1e4, 1e4)}


def _read(source: str | Path | None) -> Path | None:
    """The folder that is read, which nothing may be written into; None where it is another's or none."""
    folder = expand(source) if source is not None else None
    return folder if folder is not None and exists(folder) else None


def _space(checkpoint: Checkpoint, dtype: str, exporter: str) -> int:
    """Bytes on the disk while it is exported."""
    return checkpoint.size() * _BYTES[dtype] // _BYTES["fp32"] * _SPACE[exporter] + _SPACE_MARGIN


def _check_exporter(exporter: str, target: str, dtype: str, taesd: str | Path | None) -> None:
    if exporter not in EXPORTERS:
        raise RequestError(f"unknown exporter {exporter!r}: expected one of {', '.join(EXPORTERS)}")
    if exporter == "optimum" and target != "portable":
        raise RequestError(
            f"exporter 'optimum' writes standard ops only: use target 'portable', not {target!r}"
        )
    if exporter == "optimum" and dtype != "fp32":
        raise RequestError(f"exporter 'optimum' writes fp32 only here: leave out dtype {dtype!r}")
    if exporter == "optimum" and taesd is not None:
        raise RequestError("--taesd takes the exporter 'sdrt': leave one of the two out")


def _calibration(dtype: str, prompts: Sequence[str] | None) -> Calibration | None:
    """How to calibrate; None for what is not."""
    if dtype != "int8" and prompts is not None:
        raise RequestError(
            f"calibration prompts are for dtype 'int8', not {dtype!r}: leave one of the two out"
        )
    if dtype != "int8":
        return None
    return Calibration() if prompts is None else Calibration(prompts=tuple(prompts))


def _open(
    source: str | Path | None,
    architecture: str | None,
    random_weights: int | None,
    hub_options: Mapping[str, Any],
) -> Checkpoint:
    if source is None:
        if architecture is None or random_weights is None:
            raise RequestError(
                "nothing to export: give a checkpoint, or --architecture NAME with --random-weights SEED"
            )
        refuse_revision(f"--architecture {architecture}", hub_options["revision"])
        return RandomCheckpoint(architecture=architecture, seed=random_weights)
    if architecture is not None or random_weights is not None:
        raise RequestError(
            "--architecture and --random-weights stand in for a checkpoint: give one or the other"
        )
    if isinstance(source, str) and embedded_path(source):
        raise ModelNotFoundError(
            f"{source} is embedded and exported already: python -m sdrt_export.restore {source} DIR makes a "
            f"checkpoint of it, which can be exported again; a folder of that name is ./{source}"
        )
    folder = expand(source)
    if exists(folder) or isinstance(source, Path):
        refuse_revision(source, hub_options["revision"])
        return open_folder(folder)
    from sdrt.model_folder import hub

    name = hub.check_id(source)
    # A few kilobytes tell whether the gigabytes are worth it.
    check_checkpoint_index(hub.download(name, **hub_options))
    snapshot = hub.download_checkpoint(name, **hub_options)
    return open_folder(snapshot, name=name, revision=snapshot.name)


def _versions() -> dict[str, str]:
    """Of what makes the graphs, for the manifest. Asked for before anything is exported: one may not be installed.

    Our own is the code's: a checkout on the path has no distribution to ask.
    """
    versions = {"sdrt": sdrt.__version__}
    for name in _VERSIONED:
        try:
            versions[name] = version(name)
        except PackageNotFoundError as error:
            raise ExportError(
                f"{name}: is not an installed distribution, so the manifest cannot name its version: install it by pip"
            ) from error
    return versions | {"onnxruntime": ort.__version__}
