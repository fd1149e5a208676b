"""Which files a model folder must have, and which of its components have no config of their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from sdrt.errors import IntegrityError
from sdrt.model_folder.index import INDEX_NAME, class_of
from sdrt.model_folder.manifest import MANIFEST_NAME, Manifest, component_of, missing

if TYPE_CHECKING:
    from pathlib import Path

    from sdrt.families import Family

__all__ = ["CONFIG_NAME", "GRAPH", "check_files", "lacks_config"]

GRAPH, CONFIG_NAME = "model.onnx", "config.json"
# diffusers' class for graphs, which it saves without a config.
_WITHOUT_CONFIG = "OnnxRuntimeModel"


class Folder(Protocol):
    """The parts of a model folder that this module reads."""

    @property
    def path(self) -> Path:
        """The folder."""

    @property
    def index(self) -> Mapping[str, Any]:
        """The content of `model_index.json`."""

    @property
    def manifest(self) -> Manifest | None:
        """The manifest, if the folder has one."""

    @property
    def family(self) -> Family:
        """The family of the model."""


def lacks_config(model: Folder, name: str) -> bool:
    """Tell whether the config of the component `name` must be read off its graph."""
    is_bare = model.manifest is None and class_of(model.index.get(name)) == _WITHOUT_CONFIG
    return is_bare and not (model.path / name / CONFIG_NAME).exists()


def check_files(model: Folder, others: tuple[str, ...]) -> None:
    """Check that a folder has every file that its model needs, and that its manifest lists every file.

    `others` are the folders that may hold files beside those of the family's components.

    Raises:
        IntegrityError: a file is missing or not listed.
    """
    listed = model.manifest.files if model.manifest else {}
    for name in dict.fromkeys([*_needed(model), *listed]):
        if not (model.path / name).is_file():
            raise missing(model.path / name, component_of(name))
    if model.manifest and (unlisted := [name for name in _files(model, others) if name not in listed]):
        raise IntegrityError.advised(
            f"{model.path / MANIFEST_NAME} does not list {unlisted[0]}, so sdrt cannot check that file",
            "remove the file if it does not belong to the model, or export the model again",
            path=model.path / unlisted[0],
            component=component_of(unlisted[0]),
        )


def _needed(model: Folder) -> Iterator[str]:
    """Yield the relative POSIX paths of the files that every model of the family needs."""
    family = model.family
    texts = [spec.component for spec in family.text_encoders]
    given = [name for name in texts if class_of(model.index.get(name)) is not None]
    for name in (family.denoiser.component, family.vae.decoder, *given):
        yield f"{name}/{GRAPH}"
        if not lacks_config(model, name):
            yield f"{name}/{CONFIG_NAME}"
    yield "scheduler/scheduler_config.json"


def _files(model: Folder, others: tuple[str, ...]) -> list[str]:
    """Return the relative POSIX paths of all files that sdrt may read, except hidden files."""
    family, names = model.family, [INDEX_NAME]
    for folder in (*family.components, *family.tokenizers, *others):
        for path in sorted((model.path / folder).rglob("*")):
            name = path.relative_to(model.path)
            if path.is_file() and not any(part.startswith(".") for part in name.parts):
                names.append(name.as_posix())
    return names
