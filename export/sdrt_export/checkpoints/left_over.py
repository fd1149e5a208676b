"""The tensors of a single file that no component takes, and what to tell the user about them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence

from sdrt.common.messages import brief
from sdrt.common.notices import Notices
from sdrt.errors import UnsupportedModelError
from sdrt_export.checkpoints.keys.extras import extra_of
from sdrt_export.checkpoints.parts import Part, Section
from sdrt_export.tensors.lazy import MappedFile

__all__ = ["check_all_known", "told_left_over"]

_REPLACED = "another file replaces this part"
_EMA = "model_ema."
_POSITIONS = "position_ids"


def told_left_over(
    file: MappedFile, sections: Mapping[str, Section], parts: Mapping[str, Part], notices: Notices
) -> dict[str, str]:
    """The tensors of a file that no part takes, each with the reason if it is known. `notices` tell of them."""
    found = _left_over(file, sections, parts)
    _tell(file, found, notices)
    return found


def check_all_known(file: MappedFile, known: Collection[str], what: str) -> None:
    """Check that a file has no other tensors than the `known` ones, and those that files have beside the weights.

    Raises:
        UnsupportedModelError: it has. It says that the file is `what`.
    """
    unknown = [name for name in file.header.tensors if name not in known and extra_of(name) is None]
    if unknown:
        path = file.header.path
        raise UnsupportedModelError.expected(
            f"{path} is {what}, and also has the tensor {_counted(unknown)}", f"{what} alone", path=path
        )


def _counted(names: Sequence[str]) -> str:
    return brief(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _left_over(
    file: MappedFile, sections: Mapping[str, Section], parts: Mapping[str, Part]
) -> dict[str, str]:
    """The tensors that no part takes, with the reason if it is known."""
    sources = [source for part in parts.values() for source in part.tensors.sources.values()]
    used = {source.name for source in sources if source.file is file}
    replaced = {name for section in sections.values() for name in section.names}
    found = {}
    for name in file.header.tensors:
        if name not in used:
            extra = extra_of(name)
            found[name] = extra.reason if extra else _REPLACED if name in replaced else ""
    return found


def _tell(file: MappedFile, left_over: Mapping[str, str], notices: Notices) -> None:
    """Print notices about tensors that are left out although the user might expect them."""
    path = file.header.path
    unknown = [name for name, reason in left_over.items() if not reason]
    if unknown:
        notices.warn(f"{path}: the tensor {_counted(unknown)} is not part of the model and is left out")
    if any(name.startswith(_EMA) for name in left_over):
        notices.inform(
            f"{path} also has averaged weights (model_ema): the plain ones are used, as in A1111 and diffusers"
        )
    for name in _damaged_positions(file, left_over):
        notices.warn(
            f"{path}: {name} is damaged; positions are counted from 0, as in diffusers (A1111 uses the damaged ones)"
        )


def _damaged_positions(file: MappedFile, names: Iterable[str]) -> list[str]:
    """The lists of positions, of a plausible size, that are not 0, 1, 2 …: merging programs round and average them."""
    found = []
    for name in names:
        size = math.prod(file.header.tensors[name].shape)
        if name.endswith(_POSITIONS) and size <= 1 << 16:
            # A1111 makes whole numbers of them too.
            values = file.array(name).reshape(-1).astype("int64")
            if values.tolist() != list(range(size)):
                found.append(name)
    return found
