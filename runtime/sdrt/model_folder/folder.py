"""The model folder: what it must hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sdrt.common.cache import cache_root
from sdrt.common.messages import brief
from sdrt.common.notices import Notices, Notify
from sdrt.errors import IntegrityError, ModelNotFoundError, RequestError
from sdrt.families import Family
from sdrt.families.capabilities import Capabilities
from sdrt.model_folder.index import INDEX_NAME, check_index, class_of
from sdrt.model_folder.manifest import MANIFEST_NAME, FileRecord, Manifest, Verifier, read_json, readable
from sdrt.onnx.engine_cache import Weights

__all__ = [
    "FileRecord",
    "Manifest",
    "ModelFolder",
    "exists",
    "expand",
    "tail",
]

GRAPH, STAGES_GRAPH, WIDE_GRAPH = "model.onnx", "stages.onnx", "model_fp32.onnx"
WIDE_STAGES_GRAPH = "stages_fp32.onnx"
TAESD_DECODER = "taesd_decoder"
"""The folder of a small decoder for previews, which a model may have."""
LOW_RES_SCHEDULER = "low_res_scheduler"
"""The folder of an upscaling model's second scheduler."""


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A folder with the graphs, tokenizer and configs of one model, checked to be complete."""

    path: Path
    name: str
    family: Family
    manifest: Manifest | None = None
    index: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | Path, *, name: str | None = None) -> ModelFolder:
        """Check that `path` holds a model this version can run.

        Raises `ModelNotFoundError`, `IntegrityError` or `UnsupportedModelError`.
        """
        folder = expand(path)
        with readable(folder):
            _check_is_model(folder)
            index, family = check_index(folder)
            manifest = Manifest.read(folder / MANIFEST_NAME) if (folder / MANIFEST_NAME).exists() else None
            source = manifest.source.get("id") if manifest else None
            name = name or tail(source or folder.resolve().name)
            model = cls(path=folder, name=_printable(name), family=family, manifest=manifest, index=index)
            model._check_files()
        return model

    def component(self, name: str) -> Path:
        """The graph of the component `name`."""
        return self.path / name / GRAPH

    def stages(self, name: str) -> Path:
        """The graph in stages of the VAE's encoder or decoder, which not every model has."""
        return self.path / name / STAGES_GRAPH

    def wide(self, name: str) -> Path:
        """The graph of `name` that computes in float32, which those in float16 have beside them."""
        return self.path / name / WIDE_GRAPH

    def wide_stages(self, name: str) -> Path:
        """The same of the graph in stages."""
        return self.path / name / WIDE_STAGES_GRAPH

    def has(self, name: str) -> bool:
        """Whether the folder has the graph of `name`."""
        return self.component(name).is_file()

    def component_config(self, name: str) -> dict[str, Any]:
        """The `config.json` of `name`."""
        return read_json(self.path / name / "config.json")

    def weights(self, name: str) -> Weights:
        """Precision of the component `name`, and a digest of its files: of their hashes where those were checked."""
        files = sorted(path for path in (self.path / name).glob("*") if path.is_file())
        digest = hashlib.sha256(json.dumps([self._identity(path) for path in files]).encode())
        return Weights(dtype=self._dtype(name), digest=digest.hexdigest())

    def _dtype(self, name: str) -> str:
        """That of the component `name`: a model in float16 may have one that does not fit into it."""
        if self.manifest is None:
            return "float32"
        own = self.manifest.components.get(name, {}).get("dtype")
        return own if isinstance(own, str) else self.manifest.dtype

    def _identity(self, path: Path) -> list[str | int]:
        """What tells a file from others: name and hash; place, size and time of one that nobody hashed."""
        record = self.manifest.files.get(path.relative_to(self.path).as_posix()) if self.manifest else None
        if record is not None and self._verifier.remembers(path, record):
            return [path.name, record.sha256]
        state = path.stat()
        return [str(path.resolve()), state.st_size, state.st_mtime_ns]

    @property
    def target(self) -> str:
        """The target that the model was exported for; empty where no manifest says so."""
        return self.manifest.target if self.manifest else ""

    @cached_property
    def capabilities(self) -> Capabilities:
        """What this model can serve. Raises `IntegrityError` or `UnsupportedModelError` for its configs."""
        manifest = self.manifest
        family = self.family
        return Capabilities.of(
            family,
            denoiser=self.component_config(family.denoiser.component),
            vae=self.component_config(family.vae.decoder),
            index=self.index,
            defaults=manifest.defaults if manifest else {},
            # A traced graph (no sdrt.json) has the factor 2 of every upsampling baked in; ours takes any size.
            any_size=manifest is not None and manifest.exporter != "optimum",
            has_text_encoder=all(self.has(spec.component) for spec in family.text_encoders),
            has_vae_encoder=self.has(family.vae.encoder),
        )

    @cached_property
    def scheduler_config(self) -> dict[str, Any]:
        """The model's `scheduler_config.json`."""
        return read_json(self.path / "scheduler" / "scheduler_config.json")

    @cached_property
    def low_res_scheduler_config(self) -> dict[str, Any]:
        """Of an upscaling model: how noise is put on the small image."""
        return read_json(self.path / LOW_RES_SCHEDULER / "scheduler_config.json")

    @cached_property
    def _verifier(self) -> Verifier:
        try:
            return Verifier(cache_root() / "verified.json")
        except RequestError:
            # There is nowhere to remember anything, so every file is hashed every time.
            return Verifier(None)

    def verify(self, notify: Notify | Notices | None = None) -> bool:
        """Check every file against the manifest; False when the folder has none to check against."""
        if self.manifest is None:
            return False
        notices = notify if isinstance(notify, Notices) else Notices(notify)
        self._verifier.check(self.path, self.manifest.files, notices)
        return True

    def is_verified(self) -> bool:
        """Whether every file was hashed before and has not been touched since."""
        if self.manifest is None:
            return False
        return all(
            self._verifier.remembers(self.path / name, record) for name, record in self.manifest.files.items()
        )

    def _check_files(self) -> None:
        family = self.family
        given = [
            spec.component
            for spec in family.text_encoders
            if class_of(self.index.get(spec.component)) is not None
        ]
        needed = [
            f"{name}/{file}"
            for name in (family.denoiser.component, family.vae.decoder, *given)
            for file in (GRAPH, "config.json")
        ]
        needed.append("scheduler/scheduler_config.json")
        listed = self.manifest.files if self.manifest else {}
        for name in dict.fromkeys([*needed, *listed]):
            if not (self.path / name).is_file():
                raise IntegrityError(
                    f"{self.path / name} is missing: copy the whole model folder, or export it again"
                )
        if self.manifest and (unlisted := [name for name in self._files() if name not in listed]):
            raise IntegrityError(
                f"{self.path / MANIFEST_NAME} does not list {unlisted[0]}, so nothing tells whether that is "
                "damaged: remove it if it is not the model's, or export the model again"
            )

    def _files(self) -> list[str]:
        """POSIX names of the index and of the files in the folders that are read; hidden files are left out."""
        family, names = self.family, [INDEX_NAME]
        others = (TAESD_DECODER, "scheduler", LOW_RES_SCHEDULER)
        for folder in (*family.components, *family.tokenizers, *others):
            for path in sorted((self.path / folder).rglob("*")):
                name = path.relative_to(self.path)
                if path.is_file() and not any(part.startswith(".") for part in name.parts):
                    names.append(name.as_posix())
        return names


def expand(path: str | Path) -> Path:
    """`path` with its `~` expanded, as a shell would: left as it is where there is no such user."""
    if not isinstance(path, (str, Path)) or "\0" in str(path):
        raise RequestError(
            f"model is {brief(path)}: expected a folder, the name of an embedded model or a hub id"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def exists(folder: Path) -> bool:
    """Whether `folder` is there. Raises `ModelNotFoundError` where nobody may look."""
    try:
        folder.stat()
    except PermissionError as error:
        raise ModelNotFoundError(
            f"{folder} cannot be looked at ({error.strerror}): check the permissions of {folder.parent}"
        ) from None
    except OSError:
        # Not there; or too long a name for a file, which a hub id's may be too.
        return False
    return True


def tail(name: str) -> str:
    """The last part of a path or hub id."""
    return name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]


def _printable(name: str) -> str:
    """`name` as Unicode: a folder's may hold bytes that are none, and a picture's metadata must not."""
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _check_is_model(folder: Path) -> None:
    if not folder.exists():
        raise ModelNotFoundError(
            f"there is no model folder {folder}: make one with sdrt export CHECKPOINT -o {folder}"
        )
    if not folder.is_dir():
        raise ModelNotFoundError(f"{folder} is a file, expected a model folder: make one with sdrt export")
    if not (folder / INDEX_NAME).exists():
        state = "holds no model_index.json" if any(folder.iterdir()) else "is empty"
        raise ModelNotFoundError(f"{folder} {state}, expected a model folder: make one with sdrt export")
