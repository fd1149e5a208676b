"""Whether the shards of a component hold what their index says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sdrt.common.messages import brief
from sdrt.common.safetensors_file import SafetensorsFile
from sdrt.errors import IntegrityError
from sdrt.model_folder.manifest import read_downloaded

__all__ = ["check_index"]

_KEY = "weight_map"


def check_index(index: Path, headers: Sequence[SafetensorsFile]) -> None:
    """Check that an index names the shard of each tensor, and no other tensors.

    Args:
        index: the file `….safetensors.index.json`.
        headers: those of the shards.

    Raises:
        IntegrityError: it does not, or it is damaged.
    """
    said = _weight_map(index)
    found: dict[str, list[str]] = {}
    for header in headers:
        for name in header.tensors:
            found.setdefault(name, []).append(header.path.name)
    for name, shard in said.items():
        if shard not in found.get(name, ()):
            where = f"it is in {found[name][0]}" if name in found else "no shard has it"
            raise _wrong(index, f"{brief(name)} is in {brief(shard)}", where)
    for name in found:
        if name not in said:
            raise _wrong(index, f"there is no {brief(name)}", f"it is in {found[name][0]}")


def _weight_map(index: Path) -> Mapping[str, str]:
    """The names of shards by those of tensors."""
    said = read_downloaded(index).get(_KEY)
    if not isinstance(said, dict) or not all(isinstance(shard, str) for shard in said.values()):
        raise IntegrityError.advised(
            f"{index}: {_KEY} is {brief(said)}, expected the name of a shard for each tensor",
            "download it again",
            path=index,
        )
    return said


def _wrong(index: Path, said: str, found: str) -> IntegrityError:
    return IntegrityError.advised(
        f"{index} says that {said}, but {found}", "download the checkpoint again", path=index
    )
