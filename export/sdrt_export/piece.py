"""One component of a running export: how it is written, its config, and its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from sdrt.vae.latent_scale import LatentScale
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.checkpoints.usage import check_usage
from sdrt_export.components import Component, components_of
from sdrt_export.components.image_encoder import SAFETY_CHECKER
from sdrt_export.tensors.array import Array, Shape
from sdrt_export.tensors.finite import FiniteTensors

__all__ = ["Piece", "check_pieces", "pieces_of"]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A component, with its config and tensors from a checkpoint. `place` names where they are, for messages."""

    component: Component
    place: str
    config: dict[str, Any]
    tensors: Mapping[str, Array]

    @property
    def name(self) -> str:
        """The name that users know a ControlNet by."""
        return str(self.component.about(self.config, self.tensors)["name"])

    @property
    def stored_tensors(self) -> Mapping[str, Array]:
        """The tensors as their files store them, without the check that they are finite."""
        return self.tensors.tensors if isinstance(self.tensors, FiniteTensors) else self.tensors


def pieces_of(checkpoint: Checkpoint) -> list[Piece]:
    """The pieces of a checkpoint. Those of the same part share its tensors, which are checked when they are read.

    Raises:
        IntegrityError, UnsupportedModelError: the family's latents are not scaled as the VAE's config says.
    """
    family = checkpoint.family
    rows, vae = [*components_of(family).values(), *_checker(checkpoint)], family.vae
    parts = {
        part: (checkpoint.place(part), checkpoint.tensors(part), checkpoint.config(part))
        for part in dict.fromkeys(row.checkpoint for row in rows)
    }
    with checkpoint.errors_of(vae.checkpoint):
        LatentScale.of(parts[vae.checkpoint][2], vae.checkpoint, vae, family.tasks[0])
    made = []
    for row in rows:
        place, tensors, config = parts[row.checkpoint]
        made.append(Piece(component=row, place=place, config=config, tensors=FiniteTensors(place, tensors)))
    return made


def check_pieces(
    pieces: Iterable[Piece],
    needed: Callable[[Piece], Mapping[str, Shape]],
    errors_of: Callable[[Piece], AbstractContextManager[None]],
) -> None:
    """Check that the graphs of the pieces use every tensor of each part, with its shape.

    Args:
        pieces: those of a checkpoint, and further ones.
        needed: the tensors that a piece's graph needs.
        errors_of: the block for errors about a piece. See `Checkpoint.errors_of`.

    Raises:
        IntegrityError: a tensor is missing, or has another shape than the config says.
        UnsupportedModelError: a tensor is left over.
    """
    parts: dict[tuple[str, str], list[Piece]] = {}
    for piece in pieces:
        parts.setdefault((piece.component.checkpoint, piece.place), []).append(piece)
    for (_, place), own in parts.items():
        with errors_of(own[0]):
            check_usage(place, [piece.component for piece in own], map(needed, own), own[0].tensors)


def _checker(checkpoint: Checkpoint) -> list[Component]:
    """The safety checker, if the checkpoint has one that can be read."""
    found = checkpoint.checker()
    return [] if found is None or found.problem else [SAFETY_CHECKER]
