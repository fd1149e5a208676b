"""The model folder: what it must hold, and how a name given by the user becomes one.

Names of classes in `model_index.json` are looked up in the tables below and never imported.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrt.config import Notices, Notify
from sdrt.errors import IntegrityError, ModelNotFoundError, UnsupportedModelError
from sdrt.manifest import MANIFEST_NAME, FileRecord, Manifest, Verifier, read_json

__all__ = [
    "COMPONENTS",
    "FileRecord",
    "Manifest",
    "ModelFolder",
    "cache_dir",
    "holds_torch_checkpoint",
    "resolve_model",
]

GRAPH = "model.onnx"
COMPONENTS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")

_ONNX = frozenset({"OnnxRuntimeModel"})
_PIPELINES = frozenset(
    {"StableDiffusionPipeline", "OnnxStableDiffusionPipeline", "ORTStableDiffusionPipeline"}
    | {"StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipelineLegacy"}
)
# What each entry of model_index.json may name. None: the entry's own config file decides (scheduler).
_CLASSES: Mapping[str, frozenset[str] | None] = {
    "text_encoder": _ONNX | {"CLIPTextModel", "ORTTextEncoder", "ORTModelTextEncoder"},
    "tokenizer": frozenset({"CLIPTokenizer", "CLIPTokenizerFast"}),
    "unet": _ONNX | {"UNet2DConditionModel", "ORTUnet", "ORTModelUnet"},
    "vae": frozenset({"AutoencoderKL", "ORTVae", "ORTWrapperVae"}),
    "vae_decoder": _ONNX | {"AutoencoderKL", "ORTVaeDecoder", "ORTModelVaeDecoder"},
    "vae_encoder": _ONNX | {"AutoencoderKL", "ORTVaeEncoder", "ORTModelVaeEncoder"},
    "scheduler": None,
}
_LIBRARIES = frozenset({"diffusers", "transformers", "optimum", "onnxruntime", "sdrt"})
# Parts of a checkpoint that text to image never calls.
_IGNORED = frozenset({"safety_checker", "feature_extractor", "image_encoder"})


def cache_dir() -> Path:
    """Where sdrt keeps what it can make again: `$SDRT_CACHE`, or the user's cache folder."""
    if given := os.environ.get("SDRT_CACHE"):
        return Path(given).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("sdrt", appauthor=False))


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder with the graphs, tokenizer and configs of one model, checked to be complete."""

    path: Path
    name: str
    manifest: Manifest | None = None
    index: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path, *, name: str | None = None) -> ModelFolder:
        """Check that `path` holds a model this version can run.

        Raises `ModelNotFoundError`, `IntegrityError` or `UnsupportedModelError`.
        """
        folder = Path(path).expanduser()
        _check_is_model(folder)
        index = read_json(folder / "model_index.json")
        _check_index(folder / "model_index.json", index)
        manifest = Manifest.read(folder / MANIFEST_NAME) if (folder / MANIFEST_NAME).exists() else None
        source = manifest.source.get("id") if manifest else None
        model = cls(
            path=folder, name=name or _tail(source or folder.resolve().name), manifest=manifest, index=index
        )
        model._check_files()
        return model

    def component(self, name: str) -> Path:
        """The graph of `name`, one of `COMPONENTS`."""
        return self.path / name / GRAPH

    def has(self, name: str) -> bool:
        """Whether the folder has the graph of `name`."""
        return self.component(name).is_file()

    def component_config(self, name: str) -> dict[str, Any]:
        """The `config.json` of `name`."""
        return read_json(self.path / name / "config.json")

    @cached_property
    def scheduler_config(self) -> dict[str, Any]:
        """The model's `scheduler_config.json`."""
        return read_json(self.path / "scheduler" / "scheduler_config.json")

    def verify(self, notify: Notify | Notices | None = None) -> bool:
        """Check every file against the manifest; False when the folder has none to check against."""
        if self.manifest is None:
            return False
        notices = notify if isinstance(notify, Notices) else Notices(notify)
        Verifier(cache_dir() / "verified.json").check(self.path, self.manifest.files, notices)
        return True

    def is_verified(self) -> bool:
        """Whether every file was hashed before and has not been touched since."""
        if self.manifest is None:
            return False
        verifier = Verifier(cache_dir() / "verified.json")
        return all(
            verifier.remembers(self.path / name, record) for name, record in self.manifest.files.items()
        )

    def _check_files(self) -> None:
        needed = ["unet/" + GRAPH, "vae_decoder/" + GRAPH, "scheduler/scheduler_config.json"]
        needed += ["unet/config.json", "vae_decoder/config.json"]
        if _class_of(self.index.get("text_encoder")) is not None:
            needed += ["text_encoder/" + GRAPH, "text_encoder/config.json"]
        needed += [name for name in (self.manifest.files if self.manifest else ()) if name not in needed]
        for name in needed:
            if not (self.path / name).is_file():
                raise IntegrityError(
                    f"{self.path / name} is missing: copy the whole model folder, or export it again"
                )


def _tail(name: str) -> str:
    return name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]


def _class_of(entry: object) -> str | None:
    """The class that an entry of model_index.json names; None for an absent component."""
    named = isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[1], str)
    return entry[1] if named else None  # type: ignore[index]


def _check_is_model(folder: Path) -> None:
    if not folder.exists():
        raise ModelNotFoundError(
            f"there is no model folder {folder}: make one with sdrt export CHECKPOINT -o {folder}"
        )
    if not folder.is_dir():
        raise ModelNotFoundError(f"{folder} is a file, expected a model folder: make one with sdrt export")
    if not (folder / "model_index.json").exists():
        state = "holds no model_index.json" if any(folder.iterdir()) else "is empty"
        raise ModelNotFoundError(f"{folder} {state}, expected a model folder: make one with sdrt export")


def _check_index(path: Path, index: Mapping[str, Any]) -> None:
    pipeline = index.get("_class_name")
    if pipeline not in _PIPELINES:
        known = ", ".join(sorted(_PIPELINES))
        raise UnsupportedModelError(f"{path}: pipeline class {pipeline!r} is not supported; known: {known}")
    for name, entry in index.items():
        found = _class_of(entry)
        if name.startswith("_") or name in _IGNORED or found is None:
            continue
        if name not in _CLASSES:
            raise UnsupportedModelError(
                f"{path}: component {name!r} ({found}) is not part of Stable Diffusion 1 or 2"
            )
        library, allowed = str(entry[0]).split(".")[0], _CLASSES[name]
        if library not in _LIBRARIES or (allowed is not None and found not in allowed):
            known = ", ".join(sorted(allowed)) if allowed else "diffusers' own"
            raise UnsupportedModelError(
                f"{path}: {name} names class {entry[0]}.{found}, which sdrt cannot run; known: {known}"
            )


def holds_torch_checkpoint(folder: Path) -> bool:
    """Whether `folder` is a diffusers checkpoint that has not been exported."""
    if not (folder / "model_index.json").is_file() or (folder / "unet" / GRAPH).exists():
        return False
    weights = ("*.safetensors", "*.safetensors.index.json", "*.bin")
    # A hub id is looked at before its weights are downloaded: diffusers configs without any graph count too.
    graphs = any((folder / name / GRAPH).exists() for name in COMPONENTS)
    has_weights = any(any((folder / "unet").glob(pattern)) for pattern in weights)
    return has_weights or (not graphs and (folder / "vae" / "config.json").is_file())


def resolve_model(
    model: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    notify: Notify | None = None,
    target: str = "cpu",
    reporter: Any = None,
) -> ModelFolder:
    """Turn a folder, a bundled name or a hub id into a `ModelFolder`; a torch checkpoint is exported first.

    `cache_dir` is where huggingface_hub keeps downloads; `revision`, `token` and its own environment
    variables are passed through. `reporter` receives the exporter's `ProgressEvent`s.
    """
    notices = Notices(notify)
    folder = Path(model).expanduser()
    # Path.exists raises for a name that is too long; this does not.
    if os.path.exists(folder):  # noqa: PTH110
        return _open_or_export(folder, str(folder), None, target=target, notices=notices, reporter=reporter)
    if isinstance(model, str) and (bundled := _bundled(model)):
        return ModelFolder.open(bundled, name=model)
    from sdrt import hub

    name = hub.check_id(model)
    snapshot = hub.download(name, revision=revision, token=token, cache_dir=cache_dir)
    commit = snapshot.name
    if not holds_torch_checkpoint(snapshot):
        return ModelFolder.open(snapshot, name=_tail(name))
    from sdrt import autoexport

    source = autoexport.Source(name=name, commit=commit, configs=snapshot, token=token)
    return autoexport.export_once(source, target=target, notices=notices, reporter=reporter)


def _open_or_export(
    folder: Path, name: str, commit: str | None, *, target: str, notices: Notices, reporter: Any
) -> ModelFolder:
    if not (folder.is_dir() and holds_torch_checkpoint(folder)):
        return ModelFolder.open(folder)
    from sdrt import autoexport

    source = autoexport.Source(name=name, commit=commit, configs=folder)
    return autoexport.export_once(source, target=target, notices=notices, reporter=reporter)


def _bundled(name: str) -> Path | None:
    """The folder of a model that comes with the package; None for other names."""
    try:
        import sdrt_models
    except ModuleNotFoundError:
        return None
    return sdrt_models.path(name) if name in sdrt_models.NAMES else None
