"""A model folder, and the check that it is complete."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from sdrt.adapters.change import Shape
from sdrt.adapters.stored_weights import StoredWeights
from sdrt.common.cache import cache_root
from sdrt.common.file_kind import refusal_of_file
from sdrt.common.messages import wrong_value
from sdrt.common.notices import Notices, Notify
from sdrt.errors import ModelNotFoundError, RequestError
from sdrt.families import FAMILIES
from sdrt.model_folder.arranged import stored_weights
from sdrt.model_folder.checker import FEATURE_EXTRACTOR, PREPROCESSOR, SAFETY_CHECKER, read_preprocessor
from sdrt.model_folder.contents import CONFIG_NAME, GRAPH, check_files, lacks_config
from sdrt.model_folder.exporter import load_exporter
from sdrt.model_folder.folder_kind import refusal_of_folder
from sdrt.model_folder.graph_configs import config_of_graph
from sdrt.model_folder.graph_kind import STAGES_GRAPH, WHOLE_GRAPH, GraphKind, MoreInputs
from sdrt.model_folder.index import INDEX_NAME, check_index, class_of
from sdrt.model_folder.manifest import MANIFEST_NAME, FileRecord, Manifest, Verifier, read_json, readable
from sdrt.model_folder.model import IMAGE_ENCODER, GraphSource, Model
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.graph_file import read_graph
from sdrt.onnx.memory_graph import MemoryGraph

__all__ = [
    "FileRecord",
    "Manifest",
    "ModelFolder",
    "denoiser_graphs",
    "exists",
    "expand",
    "tail",
]

TAESD_DECODER = "taesd_decoder"
"""The folder of a small decoder for previews. Not every model has it."""
LOW_RES_SCHEDULER = "low_res_scheduler"
"""The folder of an upscaling model's second scheduler."""
_PREPROCESSOR = f"{FEATURE_EXTRACTOR}/{PREPROCESSOR}"


@dataclass(frozen=True, kw_only=True)
class ModelFolder(Model):
    """The folder of one model, with its graphs, tokenizers and configs. `open` checks that it is complete.

    Attributes:
        sees_images: whether it has the IP-Adapters that are in it.
    """

    sees_images: bool = True

    @classmethod
    def open(cls, path: str | Path, *, name: str | None = None, without_checker: bool = False) -> ModelFolder:
        """Open the folder `path` and check that it holds a model that this version can run.

        `name` is the model's name. By default it is the name of its source, or of the folder. The files of the model's
        safety checker may be missing if it is `without_checker`.

        Raises:
            ModelNotFoundError: there is no model folder at `path`.
            IntegrityError: a file is missing, unreadable or damaged.
            UnsupportedModelError: sdrt cannot run the model.
        """
        folder = expand(path)
        with readable(folder):
            _check_is_model(folder)
            index, family = check_index(folder)
            manifest = Manifest.read(folder / MANIFEST_NAME) if (folder / MANIFEST_NAME).exists() else None
            source = manifest.source.get("id") if manifest else None
            name = name or tail(source or folder.resolve().name)
            without = without_checker and class_of(index.get(SAFETY_CHECKER)) is not None
            model = cls(
                path=folder,
                name=_printable(name),
                family=family,
                manifest=_without_checker(manifest, folder) if without else manifest,
                index=index,
                without_checker=without,
            )
            model._check_files()
        return model

    def component(self, name: str) -> Path:
        """Return the path of the graph of the component `name`. It may not exist."""
        return self.path / name / GRAPH

    def stages(self, name: str) -> Path:
        """Return the path of the staged graph (for tiles) of the VAE's encoder or decoder. It may not exist."""
        return self.path / name / STAGES_GRAPH.file

    def graph(self, name: str, kind: GraphKind = WHOLE_GRAPH) -> GraphSource | None:
        """See `Model`."""
        path = self.path / name / kind.file
        if not kind.is_stored or not path.is_file():
            return self._of_images(name, kind)
        if not self.adaptation.key(name):
            return GraphSource(path=path)
        return GraphSource(path=path, build=partial(self._changed, name, path))

    def _of_images(self, name: str, kind: GraphKind) -> GraphSource | None:
        """A graph for image prompts that the folder does not have, with the weights of the one that it has."""
        stored = GraphKind(inputs=MoreInputs(images=kind.inputs.images[:1])).file
        path = self.path / name / stored
        if not kind.inputs.images or not path.is_file() or (kind.wide and self._dtype(name) != "float16"):
            return None
        return GraphSource(path=path, build=partial(self._seeing, kind, path))

    def _seeing(self, kind: GraphKind, path: Path) -> MemoryGraph:
        return load_exporter("masks of image prompts").graph_of_folder(self, kind, path)

    @cached_property
    def ip_adapters(self) -> tuple[str, ...]:
        """See `Model`."""
        return super().ip_adapters if self.sees_images else ()

    def without_ip_adapters(self) -> ModelFolder:
        """See `Model`."""
        return replace(self, sees_images=False) if self.ip_adapters else self

    def _changed(self, name: str, path: Path) -> MemoryGraph:
        """A graph with the weights that adapters change."""
        stored = self._stored_weights(name)
        with readable(self.path):
            graph = stored.graph if path == stored.path else read_graph(path)
            return graph.with_values(stored.changed(self.adaptation, graph))

    def parameters(self, name: str) -> Mapping[str, Shape]:
        """See `Model`."""
        with readable(self.path):
            return self._stored_weights(name).shapes

    def _stored_weights(self, name: str) -> StoredWeights:
        return stored_weights(self.component(name), name, self.manifest)

    def tokenizer_folder(self, name: str) -> Path:
        """See `Model`."""
        return self.path / name

    def component_config(self, name: str) -> dict[str, Any]:
        """Read the `config.json` of the component `name`, or its graph in a folder without configs.

        Raises:
            IntegrityError: it is missing or damaged.
            UnsupportedModelError: there is no config, and the graph has an unknown form.
        """
        if not lacks_config(self, name):
            return read_json(self.path / name / CONFIG_NAME, name)
        if name not in self._graph_configs:
            with readable(self.path):
                self._graph_configs[name] = config_of_graph(self.component(name), self.family)
        return dict(self._graph_configs[name])

    @cached_property
    def _graph_configs(self) -> dict[str, dict[str, Any]]:
        """The configs that were read off graphs, by component."""
        return {}

    def weights(self, name: str) -> Weights:
        """Return the precision of the component `name` and a digest that identifies its files.

        The digest is made from the files' hashes if they were checked, otherwise from their paths, sizes and times.
        """
        # Graphs of other programs may have their weights in folders below.
        files = sorted(path for path in (self.path / name).rglob("*") if path.is_file())
        facts: list[Any] = [self._identity(path) for path in files]
        base, changes = _digest(facts), self.adaptation.digest(name)
        digest = _digest([*facts, changes]) if changes else base
        return Weights(dtype=self._dtype(name), digest=digest, adapted=bool(changes), base=base)

    def _identity(self, path: Path) -> list[str | int]:
        """Return what identifies a file: its name and hash, or its path, size and time if it was not hashed."""
        record = self.manifest.files.get(path.relative_to(self.path).as_posix()) if self.manifest else None
        if record is not None and self._verifier.remembers(path, record):
            return [path.name, record.sha256]
        state = path.stat()
        return [str(path.resolve()), state.st_size, state.st_mtime_ns]

    @property
    def names(self) -> tuple[str, ...]:
        """See `Model`."""
        return (self.name, self.path.name)

    @cached_property
    def scheduler_config(self) -> dict[str, Any]:
        """The model's `scheduler_config.json`."""
        return read_json(self.path / "scheduler" / "scheduler_config.json", "scheduler")

    @cached_property
    def low_res_scheduler_config(self) -> dict[str, Any]:
        """The `scheduler_config.json` that says how an upscaling model adds noise to the small image."""
        return read_json(self.path / LOW_RES_SCHEDULER / "scheduler_config.json", LOW_RES_SCHEDULER)

    @cached_property
    def safety_checker_problem(self) -> str:
        """See `Model`."""
        if self.without_checker or class_of(self.index.get(SAFETY_CHECKER)) is None:
            return ""
        needed = (self.component(SAFETY_CHECKER), self.path / _PREPROCESSOR)
        missing = [path.relative_to(self.path).as_posix() for path in needed if not path.is_file()]
        return f"is incomplete: {missing[0]} is missing" if missing else ""

    @cached_property
    def preprocessor_config(self) -> dict[str, Any]:
        """See `Model`."""
        return read_preprocessor(self.path)

    @cached_property
    def _verifier(self) -> Verifier:
        try:
            return Verifier(cache_root() / "verified.json")
        except RequestError:
            # Without a cache folder, every file is hashed every time.
            return Verifier(None)

    def verify(self, notify: Notify | Notices | None = None) -> bool:
        """Check every file against the manifest. Return False if the folder has no manifest.

        Raises:
            IntegrityError: a file is missing or damaged.
        """
        if self.manifest is None:
            return False
        notices = notify if isinstance(notify, Notices) else Notices(notify)
        self._verifier.check(self.path, self.manifest.files, notices)
        return True

    def is_verified(self) -> bool:
        """Tell whether every file was checked before and has not changed since."""
        if self.manifest is None:
            return False
        return all(
            self._verifier.remembers(self.path / name, record) for name, record in self.manifest.files.items()
        )

    def _check_files(self) -> None:
        checker = () if self.without_checker else (SAFETY_CHECKER,)
        others = (TAESD_DECODER, "scheduler", LOW_RES_SCHEDULER, FEATURE_EXTRACTOR, *checker)
        check_files(self, (*others, *self.controlnets, *self.ip_adapters, IMAGE_ENCODER))


def _without_checker(manifest: Manifest | None, folder: Path) -> Manifest | None:
    """The manifest without the files of the safety checker."""
    if manifest is None:
        return None
    files = {name: one for name, one in manifest.files.items() if not name.startswith(f"{SAFETY_CHECKER}/")}
    if not (folder / _PREPROCESSOR).is_file():
        files.pop(_PREPROCESSOR, None)
    return replace(manifest, files=files)


def denoiser_graphs() -> list[str]:
    """The graph that every exported model has, one POSIX name for each family."""
    return [f"{family.denoiser.component}/{GRAPH}" for family in FAMILIES]


def expand(
    path: str | Path,
    argument: str = "model",
    fits: str = "a folder, the name of an embedded model or a hub id",
) -> Path:
    """Expand a leading `~` as a shell does. The path stays as it is if there is no such user.

    `argument` and `fits`, the expected value in words, are for the error.

    Raises:
        RequestError: `path` is not a path, or an argument that names no model is empty.
        ModelNotFoundError: `path` is the empty name of a model. pathlib takes it for the current folder.
    """
    if path == "" and argument == "model":
        raise ModelNotFoundError.expected("model is ''", fits, argument=argument)
    if not isinstance(path, (str, Path)) or path == "" or "\0" in str(path):
        raise wrong_value(argument, path, fits)
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def exists(folder: Path) -> bool:
    """Tell whether `folder` exists.

    Raises:
        ModelNotFoundError: permissions forbid access, or it is a broken link.
    """
    try:
        folder.stat()
    except PermissionError as error:
        raise ModelNotFoundError.advised(
            f"{folder} cannot be accessed ({error.strerror})",
            f"check the permissions of {folder.parent}",
            argument="model",
            path=folder,
        ) from None
    except OSError:
        if os.path.islink(folder):  # noqa: PTH114  # Path's own raises for names that are too long
            raise ModelNotFoundError.advised(
                f"{folder} is a link to {folder.readlink()}, which does not exist",
                "download or copy the model again",
                argument="model",
                path=folder,
            ) from None
        # It does not exist, or the name is too long for a file; a hub id may be that long.
        return False
    return True


def tail(name: str) -> str:
    """Return the last part of a path or hub id."""
    return name.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1]


def _printable(name: str) -> str:
    """Replace bytes that are not Unicode, because image metadata cannot hold them. A folder's name may."""
    return name.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _check_is_model(folder: Path) -> None:
    if not folder.exists():
        raise ModelNotFoundError.advised(
            f"there is no model folder {folder}",
            f"check the path, or make one with sdrt export CHECKPOINT -o {folder}",
            argument="model",
            path=folder,
        )
    if not folder.is_dir():
        raise refusal_of_file(folder)
    if not (folder / INDEX_NAME).exists():
        raise refusal_of_folder(folder)


def _digest(facts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
