"""The components of each family that can be exported: their contract and example inputs. Nothing here needs torch.

Names of inputs and outputs are those of optimum's ONNX configs, so that folders are interchangeable. The graphs of sdrt
have more outputs (``last_hidden_state.skip_k``), which other runtimes ignore.
"""

from __future__ import annotations

from collections.abc import Mapping

from sdrt.families import Family
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.families.stable_diffusion_xl import STABLE_DIFFUSION_XL, STABLE_DIFFUSION_XL_REFINER
from sdrt_export.components.component import Component
from sdrt_export.components.text_encoder import TEXT_ENCODER, TEXT_ENCODER_2
from sdrt_export.components.unet import UNET, UNET_XL
from sdrt_export.components.vae import VAE_DECODER, VAE_ENCODER

__all__ = ["COMPONENTS", "Component", "components_of", "parts_of"]

COMPONENTS: Mapping[str, Component] = {
    component.name: component for component in (TEXT_ENCODER, UNET, VAE_ENCODER, VAE_DECODER)
}
"""The components of Stable Diffusion 1 and 2."""

_REFINER: Mapping[str, Component] = {
    component.name: component for component in (TEXT_ENCODER_2, UNET_XL, VAE_ENCODER, VAE_DECODER)
}
_OF_FAMILY: Mapping[str, Mapping[str, Component]] = {
    STABLE_DIFFUSION.name: COMPONENTS,
    STABLE_DIFFUSION_XL.name: {TEXT_ENCODER.name: TEXT_ENCODER, **_REFINER},
    STABLE_DIFFUSION_XL_REFINER.name: _REFINER,
}


def components_of(family: Family) -> Mapping[str, Component]:
    """The components of a family, by their names."""
    return _OF_FAMILY[family.name]


def parts_of(family: Family) -> dict[str, list[Component]]:
    """The components of each folder of a checkpoint. The VAE's encoder and decoder share one."""
    parts: dict[str, list[Component]] = {}
    for component in components_of(family).values():
        parts.setdefault(component.checkpoint, []).append(component)
    return parts
