"""What the server tells of the models that it offers: A1111's names and hashes for them, and their ControlNets."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from sdrt.errors import SdrtError
from sdrt.serve.errors import ServeError
from sdrt.serve.service import Service

__all__ = ["ModelFacts", "facts_of", "name_of", "title_of"]

_SHORT = 10
_SUFFIX = ".safetensors"


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model's files say. The defaults are for a model of which the server has no folder yet.

    Attributes:
        is_known: whether the server has read them.
        sha256: the hash of its manifest, which has the hashes of all files. None without one.
        controlnets: the names of its ControlNets, in order.
        follows_instructions: whether it takes an `image_cfg_scale`.
        sees_mask: whether its U-Net has inputs for a mask.
    """

    is_known: bool = False
    sha256: str | None = None
    controlnets: tuple[str, ...] = ()
    follows_instructions: bool = False
    sees_mask: bool = False

    @property
    def short_hash(self) -> str | None:
        """The first digits of the hash, as A1111 shows it."""
        return None if self.sha256 is None else self.sha256[:_SHORT]


async def facts_of(service: Service, name: str) -> ModelFacts:
    """What the files of a served model say. They are read once, outside of the event loop."""
    source = next(model.source for model in service.options.models if model.name == name)
    return await asyncio.to_thread(_read, source)


@lru_cache(maxsize=256)
def _read(source: str) -> ModelFacts:
    from sdrt.model_folder.manifest import MANIFEST_NAME
    from sdrt.model_folder.resolve import open_local

    try:
        folder = open_local(source)
        task = folder.capabilities.task
        manifest = folder.path / MANIFEST_NAME
        digest = hashlib.sha256(manifest.read_bytes()).hexdigest() if manifest.is_file() else None
    except (SdrtError, OSError):
        # It is a checkpoint or on the hub, and the worker says what is wrong with it.
        return ModelFacts()
    return ModelFacts(
        is_known=True,
        sha256=digest,
        controlnets=folder.controlnet_names,
        follows_instructions=task.has_image_guidance,
        sees_mask=task.planes > 0 and not task.has_image_guidance and not task.has_noise_level,
    )


def title_of(name: str, facts: ModelFacts) -> str:
    """A1111's title of a model, which clients show and send back: its name, with its hash if it has one."""
    return name if facts.short_hash is None else f"{name} [{facts.short_hash}]"


async def name_of(service: Service, wanted: str, field: str) -> str:
    """The name of the model that a client means by its name, title or hash, in any case, as in A1111.

    Raises:
        ServeError: there is none.
    """
    facts = {name: await facts_of(service, name) for name in service.model_names}
    aliases = _aliases(facts)
    found = aliases.get(wanted.strip()) or aliases.get(wanted.strip().lower().removesuffix(_SUFFIX))
    if found is None:
        raise ServeError(
            404,
            f"{field}: there is no model {wanted[:128]!r}: expected one of {', '.join(facts)}",
            field=field,
            code="model_not_found",
        )
    return found


def _aliases(facts: Mapping[str, ModelFacts]) -> dict[str, str]:
    """Models by what clients may call them. Exact names count most."""
    found: dict[str, str] = {}
    for name, one in facts.items():
        for alias in (title_of(name, one), one.sha256, one.short_hash):
            if alias is not None:
                found.setdefault(alias, name)
                found.setdefault(alias.lower(), name)
        found.setdefault(name.lower().removesuffix(_SUFFIX), name)
    return found | {name: name for name in facts}
