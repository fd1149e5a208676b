"""Checks `model_index.json`. sdrt looks the classes that it names up in `sdrt.families` and never imports them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError
from sdrt.families import FAMILIES, Family, IndexEntry, family_of
from sdrt.model_folder.manifest import read_downloaded, read_json

__all__ = ["INDEX_NAME", "check_checkpoint_index", "check_index", "class_of", "known_family"]

INDEX_NAME = "model_index.json"
# Of a folder that may be a checkpoint or an exported model.
_AGAIN = "download or export the model again"
_LIBRARIES = frozenset({"diffusers", "transformers", "optimum", "onnxruntime", "sdrt"})


def check_index(folder: Path) -> tuple[dict[str, Any], Family]:
    """Read the index of an exported model. Return it with the model's family.

    Raises:
        IntegrityError: the index is missing or damaged.
        UnsupportedModelError: it names a class that sdrt cannot run.
    """
    path = folder / INDEX_NAME
    index = read_json(path)
    family = family_of(index)
    if family is None:
        raise _unknown_pipeline(path, index, [row.pipeline_classes for row in FAMILIES])
    for name, library, found in _components(path, index, family):
        if name not in family.index:
            raise UnsupportedModelError(
                f"{path}: component {name!r} ({found}) is not part of {family.title}", component=name
            )
        entry = family.index[name]
        allowed = None if entry is None else entry.classes | entry.exported
        if library.split(".")[0] not in _LIBRARIES or (allowed is not None and found not in allowed):
            known = ", ".join(sorted(allowed)) if allowed else "a class of diffusers"
            raise UnsupportedModelError(
                f"{path}: {name} names class {library}.{found}, which sdrt cannot run: expected {known}",
                component=name,
                fits=known,
            )
    return index, family


def check_checkpoint_index(folder: Path) -> Family:
    """Return the family of a torch checkpoint.

    Raises:
        IntegrityError: the index is missing or damaged.
        UnsupportedModelError: it names a class that sdrt cannot export.
    """
    path = folder / INDEX_NAME
    index = read_downloaded(path)
    family = family_of(index)
    if family is None or index["_class_name"] not in family.checkpoint_classes:
        raise _unknown_pipeline(path, index, [row.checkpoint_classes for row in FAMILIES])
    for name, entry in family.index.items():
        if entry is not None and entry.required and not _names_one_of(index.get(name), entry):
            expected = " or ".join(repr([entry.library, known]) for known in sorted(entry.classes))
            raise UnsupportedModelError(
                f"{path}: {name} is {brief(index.get(name))}, expected {expected}: sdrt knows a fixed table of "
                "classes and never runs a checkpoint's own code",
                component=name,
                fits=expected,
            )
    return check_index(folder)[1]


def known_family(folder: Path) -> Family | None:
    """Return the family that a folder's index names, or None without an index or for an unknown class."""
    path = folder / INDEX_NAME
    return family_of(read_json(path, remedy=_AGAIN)) if path.is_file() else None


def class_of(entry: object) -> str | None:
    """Return the class that an entry of the index names, or None if the component is absent."""
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else None


def _unknown_pipeline(
    path: Path, index: Mapping[str, Any], classes: Sequence[frozenset[str]]
) -> UnsupportedModelError:
    known = ", ".join(sorted(frozenset[str]().union(*classes)))
    return UnsupportedModelError(
        f"{path}: pipeline class {brief(index.get('_class_name'))} is not supported: expected one of {known}",
        path=path,
        fits=known,
    )


def _names_one_of(found: object, entry: IndexEntry) -> bool:
    return any(found == [entry.library, known] for known in entry.classes)


def _components(path: Path, index: Mapping[str, Any], family: Family) -> Iterator[tuple[str, str, str]]:
    """Yield the name, library and class of every component that is present and that sdrt uses."""
    for name, entry in index.items():
        is_option = name not in family.index and (entry is None or isinstance(entry, (bool, int, float)))
        if name.startswith("_") or is_option:
            continue
        if not _is_pair(entry):
            raise UnsupportedModelError(
                f"{path}: {name} is {brief(entry)}, expected a library and a class, as in "
                '["diffusers", "UNet2DConditionModel"]',
                path=path,
                component=name,
                fits='a library and a class, as in ["diffusers", "UNet2DConditionModel"]',
            )
        library, found = entry
        if found is not None and name not in family.ignored:
            yield name, str(library), found


def _is_pair(entry: object) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and all(part is None or isinstance(part, str) for part in entry)
    )
