"""The export itself: for each component, load, trace, write, check; then the manifest, then into place."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnxruntime

from sdrt.errors import RequestError
from sdrt.model import FileRecord, Manifest
from sdrt_export import graph, optimum_exporter, parity, tokenizer
from sdrt_export.checkpoint import Checkpoint, FolderCheckpoint, RandomCheckpoint, open_folder
from sdrt_export.components import COMPONENTS, Component
from sdrt_export.targets import Target, resolve_target
from sdrt_export.transaction import check_space, replace_folder

__all__ = ["EXPORTERS", "ProgressEvent", "Reporter", "export_model"]

EXPORTERS = ("sdrt", "optimum")
_FAMILY = "stable-diffusion"
_DTYPE_NAMES = {"fp32": "float32"}
_VERSIONED = ("sdrt", "torch", "diffusers", "transformers", "onnx", "onnxscript")
# Graphs, configs and the manifest: small beside the weights.
_SPACE_MARGIN = 64 << 20


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """What the export is doing: ``stage`` is "load", "export", "write", "check" or "done" of ``component``."""

    component: str
    stage: str
    detail: str = ""


Reporter = Callable[[ProgressEvent], None]


def export_model(
    source: str | Path | None,
    output: str | Path,
    *,
    target: str = "cpu",
    dtype: str = "fp32",
    exporter: str = "sdrt",
    architecture: str | None = None,
    random_weights: int | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> Manifest:
    """Turn a Stable Diffusion checkpoint into the model folder ``output``; all of it or nothing.

    Args:
        source: a folder in diffusers' layout or a hub id; None with ``architecture`` and ``random_weights``.
        output: the folder to write; ``force`` replaces a model that is there.
        target: a row of :data:`sdrt_export.targets.TARGETS`.
        dtype: "fp32".
        exporter: "sdrt" (fused by construction) or "optimum" (its exporter, unfused, for what we have no form of).
        architecture: a row of :data:`sdrt_export.architectures.ARCHITECTURES`.
        random_weights: the seed of the weights of ``architecture``.
        revision: branch, tag or commit on the hub.
        token: the hub's access token; its own variables and login are used when None.
        reporter: called as the work goes on.

    Returns:
        The manifest, as written to ``sdrt.json``.

    Raises:
        RequestError: an argument is wrong, or ``output`` exists.
        ModelNotFoundError, IntegrityError, UnsupportedModelError: the checkpoint cannot be used.
        ExportError: no space, or a graph that differs from torch.
    """
    row = resolve_target(target, dtype)
    if exporter not in EXPORTERS:
        raise RequestError(f"unknown exporter {exporter!r}: expected one of {', '.join(EXPORTERS)}")
    if exporter == "optimum" and target != "portable":
        raise RequestError(
            f"exporter 'optimum' writes standard ops only: use target 'portable', not {target!r}"
        )
    checkpoint = _open(source, architecture, random_weights, revision, token)
    output = Path(output).expanduser()
    report = reporter or (lambda event: None)
    with replace_folder(output, force) as staging:
        check_space(output, checkpoint.size() + _SPACE_MARGIN)
        write = _write_with_optimum if exporter == "optimum" else _write_fused
        components = write(checkpoint, staging, row, dtype, report)
        _write_side_files(checkpoint, staging)
        manifest = _manifest(checkpoint, staging, row, dtype, exporter, components)
        manifest.write(staging)
    report(ProgressEvent(component="", stage="done", detail=str(output)))
    return manifest


def _open(
    source: str | Path | None,
    architecture: str | None,
    random_weights: int | None,
    revision: str | None,
    token: str | bool | None,
) -> Checkpoint:
    if source is None:
        if architecture is None or random_weights is None:
            raise RequestError(
                "nothing to export: give a checkpoint, or --architecture NAME with --random-weights SEED"
            )
        return RandomCheckpoint(architecture=architecture, seed=random_weights)
    if architecture is not None or random_weights is not None:
        raise RequestError(
            "--architecture and --random-weights stand in for a checkpoint: give one or the other"
        )
    folder = Path(source).expanduser()
    if folder.exists() or isinstance(source, Path):
        return open_folder(folder)
    from sdrt import hub

    name = hub.check_id(source)
    snapshot = hub.download_checkpoint(name, revision=revision, token=token)
    return open_folder(snapshot, name=name, revision=snapshot.name)


def _write_fused(
    checkpoint: Checkpoint, staging: Path, target: Target, dtype: str, report: Reporter
) -> dict[str, Any]:
    """One component at a time, so that the largest alone decides the peak memory."""
    entries = {}
    for component in COMPONENTS.values():
        entries[component.name] = _write_component(component, checkpoint, staging, target, dtype, report)
        gc.collect()
    return entries


def _write_component(
    component: Component, checkpoint: Checkpoint, staging: Path, target: Target, dtype: str, report: Reporter
) -> dict[str, Any]:
    def at(stage: str, detail: str = "") -> None:
        report(ProgressEvent(component=component.name, stage=stage, detail=detail))

    at("load")
    model = checkpoint.load(component.checkpoint)
    path, names = staging / component.name / "model.onnx", component.outputs(model)
    path.parent.mkdir()
    at("export")
    traced, transposed = graph.trace(component, model, target)
    at("write")
    graph.save(traced, path)
    _write_json(path.with_name("config.json"), _config(model))
    at("check")
    expected = parity.reference(component, model)
    del model, traced  # torch's weights and ONNX Runtime's are not needed at the same time
    gc.collect()
    rows = parity.compare(component, path, names, expected, dtype)
    at("done", f"relative error {max(row['relative_error'] for row in rows):.1e}")
    return {"parity": rows, "transposed": transposed}


def _write_with_optimum(
    checkpoint: Checkpoint, staging: Path, target: Target, dtype: str, report: Reporter
) -> dict[str, Any]:
    if not isinstance(checkpoint, FolderCheckpoint):
        raise RequestError(
            "exporter 'optimum' reads a checkpoint folder or hub id: random weights need exporter 'sdrt'"
        )
    report(ProgressEvent(component="pipeline", stage="export"))
    optimum_exporter.export_pipeline(checkpoint.folder, staging)
    entries = {}
    for component in COMPONENTS.values():
        report(ProgressEvent(component=component.name, stage="check"))
        model = checkpoint.load(component.checkpoint)
        # Its traced U-Net takes no odd sizes.
        expected = parity.reference(component, model, sizes=(0, 2))
        path = staging / component.name / "model.onnx"
        rows = parity.compare(component, path, component.outputs(model), expected, dtype)
        worst = max(row["relative_error"] for row in rows)
        report(ProgressEvent(component=component.name, stage="done", detail=f"relative error {worst:.1e}"))
        entries[component.name] = {"parity": rows, "transposed": []}
    return entries


def _config(model: Any) -> dict[str, Any]:
    """The component's config as JSON; without where it was loaded from."""
    text = (
        model.to_json_string()
        if hasattr(model, "to_json_string")
        else model.config.to_json_string(use_diff=False)
    )
    config: dict[str, Any] = json.loads(text)
    config.pop("_name_or_path", None)
    return config


def _write_side_files(checkpoint: Checkpoint, staging: Path) -> None:
    """Tokenizer, scheduler config and the index that optimum and diffusers look for."""
    scheduler = checkpoint.scheduler_config()
    tokens = staging / "tokenizer"
    shutil.rmtree(tokens, ignore_errors=True)
    source = checkpoint.tokenizer_folder()
    if source is None:
        text = json.loads((staging / "text_encoder" / "config.json").read_text(encoding="utf-8"))
        tokenizer.write_byte_tokenizer(staging / "scratch", tokens, text["max_position_embeddings"])
    else:
        tokenizer.write_tokenizer(source, tokens)
    (staging / "scheduler").mkdir(exist_ok=True)
    _write_json(staging / "scheduler" / "scheduler_config.json", scheduler)
    _write_json(staging / "model_index.json", _index(scheduler))


def _index(scheduler: Mapping[str, Any]) -> dict[str, Any]:
    classes = {row.checkpoint: [row.library, row.model_class.__name__] for row in COMPONENTS.values()}
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": version("diffusers"),
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler.get("_class_name", "PNDMScheduler")],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        **classes,
    }


def _manifest(
    checkpoint: Checkpoint,
    staging: Path,
    target: Target,
    dtype: str,
    exporter: str,
    components: dict[str, Any],
) -> Manifest:
    names = sorted(path for path in staging.rglob("*") if path.is_file())
    return Manifest(
        family=_FAMILY,
        target=target.name,
        dtype=_DTYPE_NAMES[dtype],
        opset=graph.OPSET if exporter == "sdrt" else optimum_exporter.OPSET,
        exporter=exporter,
        source={"id": checkpoint.name, "revision": checkpoint.revision},
        versions={name: version(name) for name in _VERSIONED} | {"onnxruntime": onnxruntime.__version__},
        components=components,
        files={path.relative_to(staging).as_posix(): FileRecord.of(path) for path in names},
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
