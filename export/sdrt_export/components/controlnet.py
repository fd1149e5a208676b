"""ControlNets and T2I-Adapters: networks that see a control image and guide the U-Net."""

from __future__ import annotations

import numpy as np

from sdrt_export.architectures.controlnet import controlnet
from sdrt_export.architectures.controlnet_config import ControlNetConfig
from sdrt_export.architectures.t2i_adapter import T2IAdapterConfig, t2i_adapter
from sdrt_export.components.component import Component, Config, Inputs, noise
from sdrt_export.components.unet import more_examples
from sdrt_export.graphs.layers import Layers

__all__ = ["controlnet_component", "t2i_adapter_component"]


def controlnet_component(name: str, title: str = "") -> Component:
    """The ControlNet in the folder `name`. Its `title` is the name that users know it by."""

    def write(config: Config, g: Layers, hosted: bool) -> None:
        controlnet(ControlNetConfig.of(config, name), g)

    return Component(
        name=name,
        checkpoint=name,
        library="diffusers",
        class_name="ControlNetModel",
        write=write,
        examples=lambda config, size: _examples(ControlNetConfig.of(config, name), size),
        outputs=lambda config: _outputs(ControlNetConfig.of(config, name)),
        about=lambda config, tensors: {"name": title},
    )


def _examples(config: ControlNetConfig, size: int) -> Inputs:
    batch, height, width, length = [(2, 16, 24, 77), (1, 9, 11, 5), (2, 8, 16, 77)][size]
    shape, factor = config.unet, config.factor
    image = noise(batch, config.conditioning_channels, height * factor, width * factor, seed=size + 30)
    return {
        "sample": noise(batch, shape.in_channels, height, width, seed=size),
        "timestep": np.array([451.0, 7.0, 7.0][size], np.float32),
        "encoder_hidden_states": noise(batch, length, shape.context_width, seed=size + 10),
        "controlnet_cond": np.clip(image / 4 + 0.5, 0, 1),
        "conditioning_scale": np.linspace(0.5, 1, len(config.residuals) + 1, dtype=np.float32),
        **more_examples(shape, batch, seed=size + 20),
    }


def _outputs(config: ControlNetConfig) -> list[str]:
    down = [f"down_block_res_sample_{index}" for index in range(len(config.residuals))]
    return [*down, "mid_block_res_sample"]


def t2i_adapter_component(name: str, title: str = "") -> Component:
    """The T2I-Adapter in the folder `name`. See `controlnet_component`."""

    def write(config: Config, g: Layers, hosted: bool) -> None:
        t2i_adapter(T2IAdapterConfig.of(config, name), g)

    def examples(config: Config, size: int) -> Inputs:
        shape = T2IAdapterConfig.of(config, name)
        batch, height, width = [(2, 16, 24), (1, 9, 11), (2, 8, 16)][size]
        image = noise(batch, shape.in_channels, height * shape.factor, width * shape.factor, seed=size + 30)
        return {"adapter_cond": np.clip(image / 4 + 0.5, 0, 1)}

    return Component(
        name=name,
        checkpoint=name,
        library="diffusers",
        class_name="T2IAdapter",
        write=write,
        examples=examples,
        outputs=lambda config: [
            f"feature_{index}" for index in range(len(T2IAdapterConfig.of(config, name).widths))
        ],
        about=lambda config, tensors: {"name": title},
    )
