"""One component of a running export: how it is written, its config, and its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.vae.latent_scale import LatentScale
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.components import Component, components_of
from sdrt_export.components.image_encoder import SAFETY_CHECKER
from sdrt_export.tensors.array import Array
from sdrt_export.tensors.finite import FiniteTensors

__all__ = ["Piece", "pieces_of"]


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


def _checker(checkpoint: Checkpoint) -> list[Component]:
    """The safety checker, if the checkpoint has one that can be read."""
    found = checkpoint.checker()
    return [] if found is None or found.problem else [SAFETY_CHECKER]
