"""The safety checker in a checkpoint's folder. A folder may name one in its index and not have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.common.messages import brief
from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from sdrt.model_folder.checker import FEATURE_EXTRACTOR, PREPROCESSOR, SAFETY_CHECKER
from sdrt.model_folder.index import class_of
from sdrt.model_folder.manifest import read_downloaded
from sdrt_export.checkpoints.weight_files import Weights, find_weights

if TYPE_CHECKING:
    from sdrt_export.checkpoints.checkpoint import Checkpoint

__all__ = ["Checker", "find_checker", "names_checker"]

_CLASS = "StableDiffusionSafetyChecker"


@dataclass(frozen=True, kw_only=True)
class Checker:
    """The safety checker that a checkpoint's index names.

    Attributes:
        weights: its files. None if there are none that can be read.
        preprocessor: the content of `preprocessor_config.json`.
        problem: why there are none, as the end of a sentence. Empty otherwise.
    """

    weights: Weights | None = None
    preprocessor: Mapping[str, Any]
    problem: str = ""


def names_checker(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint names a safety checker, which may have been left out."""
    return checkpoint.family.checks_images and class_of(checkpoint.index().get(SAFETY_CHECKER)) is not None


def find_checker(folder: Path, index: Mapping[str, Any]) -> Checker | None:
    """The safety checker of a folder in diffusers' layout. None if its index names none.

    Many users leave out its gigabyte when they download a checkpoint, so that is no error.

    Raises:
        IntegrityError, UnsupportedModelError: its files are damaged or quantised.
    """
    named = class_of(index.get(SAFETY_CHECKER))
    if named is None:
        return None
    part, preprocessor = folder / SAFETY_CHECKER, folder / FEATURE_EXTRACTOR / PREPROCESSOR
    problem = f"is of the class {brief(named)}, which sdrt does not know" if named != _CLASS else ""
    for path in (part / "config.json", preprocessor):
        if not problem and not path.is_file():
            problem = f"is incomplete: {path} is missing"
    if problem:
        return Checker(preprocessor={}, problem=problem)
    try:
        weights = find_weights(part, "transformers")
    except (ModelNotFoundError, UnsupportedModelError) as error:
        if any(part.glob("*.safetensors")):
            raise
        return Checker(preprocessor={}, problem=f"cannot be read: {error}")
    return Checker(weights=weights, preprocessor=read_downloaded(preprocessor, FEATURE_EXTRACTOR))
