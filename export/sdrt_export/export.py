"""The export itself: for each component, load, trace, write, check; then the manifest, then into place."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import onnx_ir as ir
from torch import nn

import sdrt
from sdrt.arguments import real
from sdrt.embedded import embedded_path
from sdrt.errors import ExportError, ModelNotFoundError, RequestError
from sdrt.index import INDEX_NAME, check_checkpoint_index
from sdrt.kinds import TEXT_TO_IMAGE, kind_of
from sdrt.model import STAGES_GRAPH, WIDE_GRAPH, WIDE_STAGES_GRAPH, FileRecord, Manifest, exists, expand
from sdrt.session import ort
from sdrt.source import refuse_revision
from sdrt_export import graph, int8, optimum_exporter, parity, precision, tokenizer
from sdrt_export.calibrate import Calibration
from sdrt_export.checkpoint import Checkpoint, FolderCheckpoint, RandomCheckpoint, open_folder
from sdrt_export.components import COMPONENTS, Component
from sdrt_export.taesd import TAESD, load_taesd
from sdrt_export.targets import AUTO, OPSET, Target, resolve_target
from sdrt_export.transaction import check_space, replace_folder
from sdrt_export.weights import DTYPES

__all__ = ["EXPORTERS", "ProgressEvent", "Reporter", "export_model"]

EXPORTERS = ("sdrt", "optimum")
_FAMILY = "stable-diffusion"
_SCHEDULER = "PNDMScheduler"
_DTYPE_NAMES = {"fp32": "float32", "fp16": "float16", "int8": "int8"}
# int8 is made of float32, which lies beside it meanwhile.
_BYTES = {"fp32": 4, "fp16": 2, "int8": 5}
_VERSIONED = ("torch", "diffusers", "transformers", "onnx", "onnxscript")
# How many times the weights' size is on the disk at once; optimum writes them as loose tensors first.
_SPACE = {"sdrt": 1, "optimum": 2}
_OTHER_THAN_OPTIMUM = "--exporter sdrt"
# Graphs, configs and the manifest: small beside the weights.
_SPACE_MARGIN = 64 << 20


@dataclass(frozen=True, kw_only=True)
class ProgressEvent:
    """What is being done: ``stage`` is "load", "export", "write", "check", "calibrate" or "done" of ``component``.

    One component is written and checked while the next is traced, so their events alternate.
    """

    component: str
    stage: str
    detail: str = ""


Reporter = Callable[[ProgressEvent], None]


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
            convolutions and linears of the U-Net and the VAE in 8 bits, for CPUs with VNNI or dot products.
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
    defaults = (
        {}
        if guidance_scale is None
        else {"guidance_scale": real("guidance_scale", guidance_scale, -1e4, 1e4)}
    )
    _check_exporter(exporter, target, dtype)
    versions = _versions()
    plan = _calibration(dtype, calibration_prompts)
    if exporter == "optimum" and taesd is not None:
        raise RequestError("--taesd takes the exporter 'sdrt': leave one of the two out")
    output = expand(output)
    hub_options = {"revision": revision, "token": token, "cache_dir": cache_dir}
    checkpoint = _open(source, architecture, random_weights, hub_options)
    if plan is not None:
        int8.refuse_other_kinds(checkpoint)
    # A revision is the checkpoint's.
    preview = None if taesd is None else load_taesd(taesd, {"token": token, "cache_dir": cache_dir})
    report = reporter or (lambda event: None)
    if folder := checkpoint.tokenizer_folder():
        tokenizer.check_tokenizer(folder)
    folder = expand(source) if source is not None else None
    reading = folder if folder is not None and exists(folder) else None
    with replace_folder(output, force, reading=reading) as staging, _Hashes(staging) as hashes:
        check_space(output, _space(checkpoint, dtype, exporter))
        job = _Job(
            checkpoint=checkpoint,
            staging=staging,
            target=row,
            dtype=dtype,
            versions=versions,
            report=report,
            hashes=hashes,
            taesd=preview,
        )
        if plan is None:
            components = job.with_optimum() if exporter == "optimum" else job.fused()
            _write_side_files(checkpoint, staging)
        else:
            components = job.in_int8(plan, defaults)
        manifest = _manifest(job, exporter, components, defaults)
        manifest.write(staging)
    report(ProgressEvent(component="", stage="done", detail=str(output)))
    return manifest


def _space(checkpoint: Checkpoint, dtype: str, exporter: str) -> int:
    """Bytes on the disk while it is exported."""
    return checkpoint.size() * _BYTES[dtype] // _BYTES["fp32"] * _SPACE[exporter] + _SPACE_MARGIN


def _check_exporter(exporter: str, target: str, dtype: str) -> None:
    if exporter not in EXPORTERS:
        raise RequestError(f"unknown exporter {exporter!r}: expected one of {', '.join(EXPORTERS)}")
    if exporter == "optimum" and target != "portable":
        raise RequestError(
            f"exporter 'optimum' writes standard ops only: use target 'portable', not {target!r}"
        )
    if exporter == "optimum" and dtype != "fp32":
        raise RequestError(f"exporter 'optimum' writes fp32 only here: leave out dtype {dtype!r}")


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
    from sdrt import hub

    name = hub.check_id(source)
    # A few kilobytes tell whether the gigabytes are worth it.
    check_checkpoint_index(hub.download(name, **hub_options))
    snapshot = hub.download_checkpoint(name, **hub_options)
    return open_folder(snapshot, name=name, revision=snapshot.name)


class _Hashes:
    """Hashes files in the background, while the next component is traced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._records: dict[Path, Future[FileRecord]] = {}

    def __enter__(self) -> _Hashes:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown(cancel_futures=True)

    def begin(self, paths: Iterable[Path]) -> None:
        """These files are complete."""
        self._records |= {path: self._worker.submit(FileRecord.of, path) for path in paths}

    def of_all(self) -> dict[str, FileRecord]:
        """The record of every file of the folder, by its POSIX name there."""
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        self.begin(path for path in files if path not in self._records)
        return {path.relative_to(self._folder).as_posix(): self._records[path].result() for path in files}


@dataclass(frozen=True, kw_only=True)
class _Traced:
    """A component's graph, which still refers to torch's weights, and what torch makes of its example inputs."""

    component: Component
    graph: ir.Model
    stages: ir.Model | None
    transposed: list[str]
    config: dict[str, Any]
    names: list[str]
    expected: list[parity.Reference]
    about: dict[str, Any]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class _Job:
    """One export under way."""

    checkpoint: Checkpoint
    staging: Path
    target: Target
    dtype: str
    versions: Mapping[str, str]
    report: Reporter
    hashes: _Hashes
    taesd: nn.Module | None = None
    is_final: bool = True

    @property
    def halves(self) -> bool:
        """Whether graphs compute in float16, but for those that overflow."""
        return self.dtype == "fp16" and self.target.halves

    def fused(self) -> dict[str, Any]:
        """Write every component. One thread traces, which is all Python; another writes and checks, which is not."""
        largest_first = sorted(COMPONENTS.values(), key=lambda component: component.name != "unet")
        if self.taesd is not None:
            largest_first.append(TAESD)
        worker = ThreadPoolExecutor(max_workers=1)
        try:
            finished: dict[str, Future[dict[str, Any]]] = {}
            for component in largest_first:
                traced = self._trace(component)
                for future in finished.values():
                    if future.done():
                        future.result()  # raises what went wrong, before more work is put into it
                finished[component.name] = worker.submit(self._finish, traced)
            return {name: future.result() for name, future in finished.items()}
        finally:
            # What has not begun need not: after a failure nobody wants it, and else there is none.
            worker.shutdown(cancel_futures=True)

    def in_int8(self, plan: Calibration, defaults: Mapping[str, float]) -> dict[str, Any]:
        """Write every component in float32 into a folder of its own, make pictures with that, and int8 of it."""
        folder = self.staging / ".float32"
        folder.mkdir()
        floats = replace(self, staging=folder, dtype="fp32", is_final=False)
        entries = floats.fused()
        _write_side_files(self.checkpoint, folder)
        return int8.Conversion(
            source=folder,
            output=self.staging,
            plan=plan,
            guidance_scale=defaults.get("guidance_scale"),
            judged=not isinstance(self.checkpoint, RandomCheckpoint),
            report=self._at,
        ).run(entries)

    def with_optimum(self) -> dict[str, Any]:
        """Let optimum write them all, then check each."""
        if not isinstance(self.checkpoint, FolderCheckpoint):
            raise RequestError(
                "exporter 'optimum' reads a checkpoint folder or hub id: random weights need exporter 'sdrt'"
            )
        self._at("pipeline", "export")
        # Its own scheduler config is written over: by another class's name here, none of the file's is imported.
        optimum_exporter.export_pipeline(self.checkpoint, _index(_SCHEDULER), self.staging)
        entries = {}
        for component in COMPONENTS.values():
            self._at(component.name, "check")
            model = self.checkpoint.load(component.checkpoint)
            # Its traced U-Net takes no odd sizes.
            expected = parity.reference(component, model, sizes=(0, 2))
            rows = self._check(component, component.outputs(model), expected, self.dtype, _OTHER_THAN_OPTIMUM)
            entries[component.name] = {"parity": rows, "transposed": [], **component.about(model)}
        return entries

    def _trace(self, component: Component) -> _Traced:
        self._at(component.name, "load")
        model = self.taesd if component is TAESD else self.checkpoint.load(component.checkpoint)
        assert model is not None
        self._at(component.name, "export")
        dtype, about = self._precision(component, model)
        traced, transposed = graph.trace(component, model, self.target, DTYPES[dtype])
        stages = graph.trace_stages(component, model, self.target, DTYPES[dtype])
        if self.dtype == "fp16" and not self.target.halves:
            for one in (traced, stages):
                if one is not None:
                    graph.narrow(one, dict(model.named_parameters()))
        return _Traced(
            component=component,
            graph=traced,
            stages=stages,
            transposed=transposed,
            config=_config(model),
            names=component.outputs(model),
            expected=parity.reference(component, model),
            about=about | component.about(model),
            dtype=dtype,
        )

    def _precision(self, component: Component, model: nn.Module) -> tuple[str, dict[str, Any]]:
        """The dtype that a component computes in, and what the manifest says of it."""
        if not self.halves:
            return "fp32", {}
        activations = precision.measure(component, model)
        dtype = "fp16" if activations.fit else "fp32"
        if not activations.fit:
            self._at(component.name, "export", _stays(activations.entry()))
        return dtype, {"dtype": _DTYPE_NAMES[dtype], "activations": activations.entry()}

    def _finish(self, traced: _Traced) -> dict[str, Any]:
        component, path = traced.component, self._graph(traced.component)
        path.parent.mkdir()
        self._at(component.name, "write")
        graph.save(traced.graph, path, apart=traced.stages is not None or traced.dtype == "fp16")
        if traced.stages is not None:
            graph.save_beside(traced.stages, path.with_name(STAGES_GRAPH), path)
        if traced.dtype == "fp16":
            graph.save_wide(path.with_name(WIDE_GRAPH), path)
        wide_stages = traced.stages is not None and traced.dtype == "fp16"
        if wide_stages:
            graph.save_wide(path.with_name(WIDE_STAGES_GRAPH), path.with_name(STAGES_GRAPH))
        if self.is_final:
            self.hashes.begin(path.parent.glob("*.onnx*"))
        _write_json(path.with_name("config.json"), traced.config)
        self._at(component.name, "check")
        limit = "half" if traced.dtype == "fp16" else ("fp32" if self.halves else self.dtype)
        # Said with the result too, which stays on the screen: it is not the dtype that was asked for.
        stays = self.halves and traced.dtype == "fp32"
        note = f"; {_stays(traced.about['activations'])}" if stays else ""
        rows = self._check(component, traced.names, traced.expected, limit, note=note)
        if traced.dtype == "fp16":
            path_of_wide = path.with_name(WIDE_GRAPH)
            rows += parity.compare(
                component, path_of_wide, traced.names, traced.expected[:1], "fp16", self.target
            )
        if traced.stages is not None:
            rows += parity.compare_stages(
                component, path.with_name(STAGES_GRAPH), traced.expected, limit, self.target
            )
        if wide_stages:
            rows += parity.compare_stages(
                component, path.with_name(WIDE_STAGES_GRAPH), traced.expected, "fp16", self.target
            )
        return {"parity": rows, "transposed": traced.transposed, **traced.about}

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

    def _graph(self, component: Component) -> Path:
        return self.staging / component.name / "model.onnx"

    def _at(self, component: str, stage: str, detail: str = "") -> None:
        self.report(ProgressEvent(component=component, stage=stage, detail=detail))


def _stays(activations: Mapping[str, Any]) -> str:
    return f"stays in fp32: {activations['module']} reaches {activations['largest']:.3g}"


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
    index = _index(scheduler.get("_class_name", _SCHEDULER))
    unet = json.loads((staging / "unet" / "config.json").read_text(encoding="utf-8"))
    vae = json.loads((staging / "vae_decoder" / "config.json").read_text(encoding="utf-8"))
    kind = kind_of(unet, vae["latent_channels"])
    index["_class_name"] = kind.pipeline
    if kind.has_noise_level:
        index |= _write_low_res_scheduler(checkpoint, staging)
    _write_json(staging / INDEX_NAME, index)


def _write_low_res_scheduler(checkpoint: Checkpoint, staging: Path) -> dict[str, Any]:
    """An upscaler's second scheduler; the entries of the index that go with it."""
    config = checkpoint.low_res_scheduler_config()
    if config is None:
        raise ModelNotFoundError(
            f"{checkpoint.name}: its unet upscales, and there is no low_res_scheduler: the download may be incomplete"
        )
    (staging / "low_res_scheduler").mkdir()
    _write_json(staging / "low_res_scheduler" / "scheduler_config.json", config)
    entries: dict[str, Any] = {"low_res_scheduler": ["diffusers", str(config.get("_class_name"))]}
    most = checkpoint.index().get("max_noise_level")
    return entries | ({"max_noise_level": most} if isinstance(most, int) else {})


def _index(scheduler: str) -> dict[str, Any]:
    """``model_index.json``, with no name in it that a checkpoint's file gave, but its ``scheduler``'s class."""
    classes = {row.checkpoint: [row.library, row.model_class.__name__] for row in COMPONENTS.values()}
    return {
        "_class_name": TEXT_TO_IMAGE.pipeline,
        "_diffusers_version": version("diffusers"),
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", scheduler],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        **classes,
    }


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


def _manifest(job: _Job, exporter: str, components: dict[str, Any], defaults: dict[str, float]) -> Manifest:
    return Manifest(
        family=_FAMILY,
        target=job.target.name,
        dtype=_DTYPE_NAMES[job.dtype],
        opset=OPSET if exporter == "sdrt" else optimum_exporter.OPSET,
        exporter=exporter,
        source={"id": job.checkpoint.name, "revision": job.checkpoint.revision},
        versions=dict(job.versions),
        components=components,
        defaults=defaults,
        files=job.hashes.of_all(),
    )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
