"""The kind of checkpoint that is a folder in diffusers' layout.

The classes of components come from :mod:`sdrt_export.components`. The names in ``model_index.json`` are
only compared with it. Weights are read from safetensors, memory-mapped. Nothing in a checkpoint is executed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdrt.common.file_kind import refusal_of_file
from sdrt.common.messages import brief
from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from sdrt.families import Family, Task
from sdrt.families.capabilities import default_size, sample_size
from sdrt.model_folder.contents import GRAPH
from sdrt.model_folder.folder_kind import refusal_of_folder
from sdrt.model_folder.index import INDEX_NAME, check_checkpoint_index
from sdrt.model_folder.manifest import read_downloaded, readable
from sdrt.vae.latent_scale import LatentScale
from sdrt_export.checkpoints.checker import Checker, find_checker
from sdrt_export.checkpoints.defaults import DEFAULTS, completed
from sdrt_export.checkpoints.old_names import current_names
from sdrt_export.checkpoints.weight_files import Weights, find_weights, num_elements
from sdrt_export.components import Component, parts_of
from sdrt_export.components.image_encoder import SAFETY_CHECKER
from sdrt_export.tensors.array import Array
from sdrt_export.tensors.lazy import Source, Tensors

__all__ = ["FolderCheckpoint", "open_folder", "read_tensors"]


@dataclass(frozen=True, kw_only=True)
class FolderCheckpoint:
    """A folder in diffusers' layout, checked by :func:`open_folder`.

    Attributes:
        folder: the folder.
        name: the name of the model.
        family: its family.
        weights: the files of weights of each part.
        revision: the revision on the hub; None for a local folder.
    """

    folder: Path
    name: str
    family: Family
    weights: Mapping[str, Weights]
    revision: str | None = None
    safety_checker: Checker | None = None

    def config(self, part: str) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        path, wanted = self.folder / part / "config.json", self._class(part).class_name
        read = _read_config(path)
        _check_class(path, read.get("_class_name"), wanted)
        values = completed(wanted, read)
        task = _task(self.folder, self.family)
        # diffusers' pipeline makes these changes after it has loaded a component.
        if part == self.family.denoiser.component:
            values["sample_size"] = sample_size(values, task)
        if part == self.family.vae.checkpoint and task.scaling_factor is not None:
            values["scaling_factor"] = task.scaling_factor
        return values

    def tensors(self, part: str) -> Mapping[str, Array]:
        """See :class:`Checkpoint`."""
        files = self.weights[part].files
        if not all(file.is_file() for file in files):
            # A file is gone since the folder was opened. The error of `find_weights` names it.
            files = find_weights(self.folder / part, self._class(part).library).files
        return read_tensors(files, self._class(part).class_name)

    def place(self, part: str) -> str:
        """See :class:`Checkpoint`."""
        return str(self.folder / part)

    def _class(self, part: str) -> Component:
        """A component of the part's class."""
        return SAFETY_CHECKER if part == SAFETY_CHECKER.checkpoint else parts_of(self.family)[part][0]

    def checker(self) -> Checker | None:
        """See :class:`Checkpoint`."""
        return self.safety_checker

    def errors_of(self, part: str) -> AbstractContextManager[None]:
        """See `Checkpoint`."""
        return nullcontext()

    def scheduler_config(self) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return _read_config(self.folder / "scheduler" / "scheduler_config.json")

    def low_res_scheduler_config(self) -> dict[str, Any] | None:
        """See :class:`Checkpoint`."""
        path = self.folder / "low_res_scheduler" / "scheduler_config.json"
        return _read_config(path) if path.parent.is_dir() else None

    def index(self) -> dict[str, Any]:
        """See :class:`Checkpoint`."""
        return read_downloaded(self.folder / INDEX_NAME)

    def names(self) -> tuple[str, ...]:
        """See :class:`Checkpoint`."""
        return (self.name,)

    def tokenizer_folders(self) -> dict[str, Path]:
        """See :class:`Checkpoint`."""
        return {name: self.folder / name for name in self.family.tokenizers}

    def files(self) -> list[Path]:
        """The files that are read: weights, configs, tokenizer."""
        # optimum, which reads these, is not given the safety checker.
        parts = [self.folder / part for part in self.family.checkpoint_components]
        found = [path for part in self.family.checkpoint_components for path in self.weights[part].files]
        found += [path for part in parts for path in part.glob("*.safetensors.index*.json")]
        found += [part / "config.json" for part in parts]
        tokenizers = self.tokenizer_folders().values()
        found += [
            path for folder in tokenizers for path in folder.iterdir() if path.suffix in (".json", ".txt")
        ]
        return [*found, self.folder / "scheduler" / "scheduler_config.json"]

    def size(self) -> int:
        """See :class:`Checkpoint`. Reads the headers of the safetensors files."""
        return 4 * sum(num_elements(file) for weights in self.weights.values() for file in weights.files)


def _check_class(path: Path, found: object, wanted: str) -> None:
    """Check the class that diffusers wrote into a config. transformers writes none there."""
    if found not in (None, wanted):
        raise UnsupportedModelError.expected(
            f"{path.parent.name}/{path.name}: _class_name is {brief(found)}",
            f"{wanted}, as model_index.json says",
            path=path,
            component=path.parent.name,
        )


def read_tensors(files: Iterable[Path], class_name: str) -> Tensors:
    """The tensors of some files, by the names that the builders use."""
    sources: dict[str, Source] = dict(Tensors.of_files(files).sources)
    return Tensors({name: sources[key] for name, key in current_names(class_name, sources).items()})


def open_folder(
    folder: Path, name: str | None = None, revision: str | None = None, *, safety_checker: bool = True
) -> FolderCheckpoint:
    """Check that ``folder`` is a Stable Diffusion checkpoint of known classes in safetensors.

    Without ``safety_checker``, its own is left out.

    Raises:
        ModelNotFoundError: the folder does not exist, or is not in diffusers' layout.
        UnsupportedModelError: a class is not in the table, or weights are pickles.
    """
    if not folder.exists():
        raise ModelNotFoundError.expected(
            f"there is no checkpoint folder {folder}",
            "a folder in diffusers' layout or a hub id",
            argument="source",
            path=folder,
        )
    if not folder.is_dir():
        raise refusal_of_file(folder)
    with readable(folder):
        return _open_folder(folder, name, revision, safety_checker)


def _open_folder(
    folder: Path, name: str | None, revision: str | None, safety_checker: bool
) -> FolderCheckpoint:
    if not (folder / "model_index.json").is_file():
        raise refusal_of_folder(folder)
    family = check_checkpoint_index(folder)
    _refuse_exported(folder, family)
    weights = {}
    for part, (component, *_) in parts_of(family).items():
        _read_config(folder / part / "config.json")
        weights[part] = find_weights(folder / part, component.library)
    wanted = safety_checker and family.checks_images
    checker = find_checker(folder, read_downloaded(folder / INDEX_NAME)) if wanted else None
    if checker is not None and checker.weights is not None:
        weights[SAFETY_CHECKER.checkpoint] = checker.weights
    _check_scheduler(folder / "scheduler" / "scheduler_config.json")
    _check_task(folder, family)
    for tokenizer in family.tokenizers:
        _check_tokenizer(folder / tokenizer)
    return FolderCheckpoint(
        folder=folder,
        name=name or folder.resolve().name,
        family=family,
        weights=weights,
        revision=revision,
        safety_checker=checker,
    )


def _refuse_exported(folder: Path, family: Family) -> None:
    """Refuse a folder of graphs. Some repositories have graphs beside the weights of torch: those are checkpoints."""
    denoiser = folder / family.denoiser.component
    if (denoiser / GRAPH).is_file() and not any(denoiser.glob("*.safetensors*")):
        raise ModelNotFoundError.advised(
            f"{folder} is a model folder, which has been exported already",
            "run it with sdrt generate -m, or export the checkpoint that it was made of",
            argument="source",
            path=folder,
        )


def _check_scheduler(path: Path) -> None:
    """Check that a class is a name. The runtime checks whether it knows the class when it opens the model."""
    found = _read_config(path).get("_class_name")
    if found is not None and not isinstance(found, str):
        raise UnsupportedModelError.expected(
            f"scheduler/{path.name}: _class_name is {brief(found)}",
            "a scheduler of diffusers, such as 'EulerDiscreteScheduler'",
            path=path,
            component="scheduler",
        )


def _check_task(folder: Path, family: Family) -> None:
    """Check the configs that would otherwise fail after the components are written, or when the model is used."""
    task, part = _task(folder, family), family.vae.checkpoint
    if task.has_noise_level:
        _read_config(folder / "low_res_scheduler" / "scheduler_config.json")
    default_size(family, _read_config(folder / family.denoiser.component / "config.json"), task, factor=1)
    LatentScale.of(_read_config(folder / part / "config.json"), part, family.vae, task)


def _task(folder: Path, family: Family) -> Task:
    """The task of a checkpoint. Its configs may leave out the defaults of their classes."""
    parts = (family.denoiser.component, family.vae.checkpoint)
    denoiser, vae = (_read_config(folder / part / "config.json") for part in parts)
    channels = DEFAULTS["AutoencoderKL"]["latent_channels"]
    return family.task_of(
        {**DEFAULTS["UNet2DConditionModel"], **denoiser}, vae.get("latent_channels", channels)
    )


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelNotFoundError(f"{path} is missing: the download may be incomplete", path=path)
    return read_downloaded(path)


def _check_tokenizer(folder: Path) -> None:
    files = ("vocab.json", "merges.txt")
    missing = [name for name in files if not (folder / name).is_file()]
    if missing and not (folder / "tokenizer.json").is_file():
        raise ModelNotFoundError(
            f"{folder / missing[0]} is missing: the download may be incomplete", path=folder / missing[0]
        )
