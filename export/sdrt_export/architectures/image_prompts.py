"""Image prompts in the U-Net: IP-Adapter's decoupled cross-attention (Ye et al. 2023, arXiv:2308.06721)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sdrt.model_folder.graph_kind import ImageInput
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.graphs.layers import Layers
from sdrt_export.graphs.values import ImagePrompt, Value

__all__ = ["Context", "image_prompt_inputs", "image_prompt_layers", "image_prompt_levels"]


@dataclass(frozen=True)
class Images:
    """An `ImageInput` in the graph: its tokens, its scales `[layers]`, and its masks by level."""

    adapter: int
    tokens: Value
    scales: str
    masks: Mapping[int, str]


@dataclass(frozen=True)
class Context:
    """What cross-attention reads: the text, and images."""

    text: Value
    images: Sequence[Images] = ()

    def prompts(self, g: Layers, config: UNetConfig, path: str) -> list[ImagePrompt]:
        """What the cross-attention `path` reads of the images."""
        if not self.images:
            return []
        index = g.graph.constant(list(image_prompt_layers(config)).index(path))
        level = _level(config, path)
        return [
            ImagePrompt(
                one.adapter, one.tokens, g.graph.op("Gather", one.scales, index), one.masks.get(level, "")
            )
            for one in self.images
        ]


def image_prompt_layers(config: UNetConfig) -> dict[str, int]:
    """The cross-attentions with their channels, in the order in which diffusers and files of IP-Adapters count them.

    The middle comes last. A file's keys have only the odd numbers, because self-attention counts too.
    """
    blocks = [(f"down_blocks.{index}", block) for index, block in enumerate(config.down)]
    blocks += [(f"up_blocks.{index}", block) for index, block in enumerate(config.up)]
    blocks += [] if config.mid is None else [("mid_block", config.mid)]
    return {
        f"{path}.attentions.{index}.transformer_blocks.{layer}.attn2": block.channels
        for path, block in blocks
        if block.attends
        for index, depth in enumerate(block.depths)
        for layer in range(depth)
    }


def image_prompt_levels(config: UNetConfig) -> list[int]:
    """The levels with cross-attentions. At level n, an image has half as many pixels n times along each side."""
    return sorted({_level(config, path) for path in image_prompt_layers(config)})


def _level(config: UNetConfig, path: str) -> int:
    kind, _, rest = path.partition(".")
    last = len(config.down) - 1
    if kind == "mid_block":
        return last
    number = int(rest.partition(".")[0])
    return number if kind == "down_blocks" else last - number


def image_prompt_inputs(config: UNetConfig, g: Layers, images: Sequence[ImageInput]) -> list[Images]:
    """The inputs for images: `image_tokens_n`, `image_scales_n`, and `image_mask_n_level` with a mask."""
    layers, made = len(image_prompt_layers(config)), []
    for number, one in enumerate(images):
        tokens = g.tokens_input(f"image_tokens_{number}", one.width, f"image_sequence_{number}")
        scales = g.computed(Value(layers, g.graph.input(f"image_scales_{number}", [layers])))
        masks = {}
        for level in image_prompt_levels(config) if one.masked else ():
            name = f"image_mask_{number}_{level}"
            mask = g.graph.input(name, [f"image_mask_{number}_batch", f"image_pixels_{level}", 1])
            masks[level] = g.computed(Value(1, mask)).name
        made.append(Images(one.adapter, tokens, scales.name, masks))
    return made
