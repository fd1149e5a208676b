"""Checks that every tensor of a checkpoint's part goes into a graph exactly once, and names those that do not.

With a wrong config, names or shapes do not fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sdrt.errors import IntegrityError, UnsupportedModelError
from sdrt_export.tensors.array import Array, Shape
from sdrt_export.tensors.lazy import shape_of

if TYPE_CHECKING:
    from sdrt_export.components import Component

__all__ = ["check_usage", "is_spare"]

# Positions that transformers counts by itself since version 4.31. Older versions save them.
_COUNTED = "position_ids"
_SHOWN = 3


def is_spare(component: Component, name: str) -> bool:
    """Whether checkpoints have this tensor though no graph of the component's class needs it."""
    return name.rpartition(".")[2] == _COUNTED or name.startswith(component.unused)


def check_usage(
    place: str,
    components: Iterable[Component],
    needed: Iterable[Mapping[str, Shape]],
    tensors: Mapping[str, Array],
) -> None:
    """Check the tensors of a part against what the graphs of its components need, by names and shapes.

    Args:
        place: the part, for messages: a folder or a file.
        components: those that are made of the part. The VAE's encoder and decoder share one.
        needed: for each graph, the tensors that it is made of.
        tensors: those of the checkpoint.

    Raises:
        IntegrityError: a tensor is missing, or has another shape than the config says.
        UnsupportedModelError: a tensor is left over.
    """
    known = list(components)
    part = known[0].checkpoint
    wanted: dict[str, Shape] = {}
    for one in needed:
        twice = sorted(wanted.keys() & one.keys())
        assert not twice, f"{place}: two graphs use {twice[0]}"
        wanted |= one
    _check_missing(place, part, [name for name in wanted if name not in tensors])
    for name, shape in wanted.items():
        if (found := shape_of(tensors, name)) != shape:
            raise IntegrityError.expected(
                f"{place}: the weight {name} is of shape {list(found)}",
                f"{list(shape)}, {_reason(place)}",
                component=part,
            )
    spare = [name for name in tensors if name not in wanted]
    _check_left_over(place, part, [name for name in spare if not any(is_spare(one, name) for one in known)])


def _reason(place: str) -> str:
    """What says which shape a weight has. A file has no config."""
    if Path(place).is_file():
        return "as its other weights say: the file is damaged"
    return "as config.json says: the two files do not belong together"


def _check_missing(place: str, part: str, missing: list[str]) -> None:
    if missing:
        raise IntegrityError.advised(
            f"{place}: the weights lack {_listed(missing)}", "download the checkpoint again", component=part
        )


def _check_left_over(place: str, part: str, names: list[str]) -> None:
    if names:
        raise UnsupportedModelError.expected(
            f"{place}: the weights have {_listed(names)}",
            "only weights that the graphs of config.json use: another config belongs to them, or the model has "
            "parts that sdrt does not know",
            component=part,
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN]) if len(names) <= _SHOWN else names[0]
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - 1} more"
