"""IP-Adapter's projection, which turns what CLIP sees in an image into tokens for the U-Net."""

from __future__ import annotations

from dataclasses import asdict

from sdrt_export.architectures.config import Config as Checked
from sdrt_export.architectures.image_projection import TOKENS, ProjectionConfig, image_projection
from sdrt_export.components.component import Component, Config, Inputs, noise
from sdrt_export.graphs.layers import Layers

__all__ = ["projection_component", "projection_config", "projection_values"]

_MOST = 1 << 16


def projection_component(name: str, title: str = "") -> Component:
    """The projection in the folder `name`. The adapter's `title` is the name that users know it by."""

    def write(values: Config, g: Layers, hosted: bool) -> None:
        image_projection(projection_config(values, name), g)

    return Component(
        name=name,
        checkpoint=name,
        library="diffusers",
        class_name="ImageProjection",
        write=write,
        examples=lambda values, size: _examples(projection_config(values, name), size),
        outputs=lambda values: [TOKENS],
        about=lambda values, tensors: {"name": title},
    )


def projection_values(config: ProjectionConfig) -> dict[str, int]:
    """A projection's shape as its `config.json` has it."""
    return asdict(config)


def projection_config(values: Config, name: str) -> ProjectionConfig:
    """Read such a `config.json`. Raises `UnsupportedModelError` for values that are not supported."""
    config = Checked(name, values)
    config.check_keys(frozenset(ProjectionConfig.__dataclass_fields__), {}, frozenset())
    base = {key: config.whole(key, most=_MOST) for key in ("embeds_width", "tokens", "width")}
    if not config.get("layers"):
        return ProjectionConfig(**base)
    plus = {key: config.whole(key, most=_MOST) for key in ("hidden", "heads", "inner")}
    return ProjectionConfig(**base, layers=config.whole("layers", most=128), **plus)


def _examples(config: ProjectionConfig, size: int) -> Inputs:
    batch, patches = [(2, 17), (1, 5), (3, 257)][size]
    shape = (batch, patches) if config.is_plus else (batch,)
    return {"image_embeds": noise(*shape, config.embeds_width, seed=size)}
