"""Loads every graph of a model that calls may need, so that each can be tuned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdrt.families import T2IAdapterSpec
from sdrt.families.capabilities import Capabilities
from sdrt.model_folder.checker import SAFETY_CHECKER
from sdrt.model_folder.graph_kind import NO_MORE, ImageInput, MoreInputs
from sdrt.model_folder.model import Model

if TYPE_CHECKING:
    from sdrt.run.components import LoadedComponents

__all__ = ["load_every_graph"]


def load_every_graph(components: LoadedComponents, model: Model) -> None:
    """Load one graph after the other. With `low_vram`, large ones do not stay in memory.

    The denoiser has two: the usual one, and the one for calls that use all ControlNets and IP-Adapters. The VAE's
    graphs in stages are loaded if `vae_tiling` is set. The small decoder for previews is not loaded.
    """
    family, capabilities = model.family, model.capabilities
    for more in dict.fromkeys((NO_MORE, _of_all_controls(capabilities))):
        components.denoiser(more)
    for number, spec in enumerate(family.text_encoders):
        if model.has(spec.component):
            components.text_encoder(number)
    components.vae_decoder.load_all()
    if model.has(family.vae.encoder):
        components.vae_encoder.load_all()
    for net in capabilities.controlnets:
        components.controlnet(net)
    if model.has(SAFETY_CHECKER):
        _ = components.safety_checker
    if capabilities.ip_adapters:
        _ = components.image_encoder
    for adapter in capabilities.ip_adapters:
        components.image_projection(adapter)


def _of_all_controls(capabilities: Capabilities) -> MoreInputs:
    """What the denoiser takes in a call that uses every ControlNet, T2I-Adapter and IP-Adapter, without masks."""
    are_features = {isinstance(spec, T2IAdapterSpec) for spec in capabilities.controlnets}
    images = tuple(
        ImageInput(adapter=number, width=one.width, file=one.file)
        for number, one in enumerate(capabilities.ip_adapters)
    )
    return MoreInputs(residuals=False in are_features, features=True in are_features, images=images)
