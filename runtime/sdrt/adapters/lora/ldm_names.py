"""What the first code of Stable Diffusion calls a U-Net's modules, which is also what kohya calls SDXL's.

The exporter's tables of single-file checkpoints are made of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

__all__ = ["FIRST", "LAST", "RESNET", "ldm_names"]

FIRST: Mapping[str, str] = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "time_embedding.cond_proj": "time_embed.cond_proj",
    "class_embedding": "label_emb",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
}
"""The modules before the blocks, by diffusers' names."""
LAST: Mapping[str, str] = {"conv_norm_out": "out.0", "conv_out": "out.2"}
"""The modules after the blocks."""
RESNET: Mapping[str, str] = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
"""The modules of a resnet."""
_MIDDLE: Mapping[str, str] = {
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_OUTER = {**FIRST, **LAST}
_LAYER = re.compile(r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.")
_RESNETS = re.compile(r"((?:(?:down|up)_blocks\.\d+|mid_block)\.resnets\.\d+)\.(.+)")
_OTHERS = re.compile(
    r"((?:(?:down|up)_blocks\.\d+|mid_block)\.(?:attentions|downsamplers|upsamplers)\.\d+)\.(.+)"
)


def ldm_names(modules: Iterable[str]) -> dict[str, str]:
    """The original names of a U-Net's `modules`, by diffusers' names. Modules that it did not have are left out."""
    modules = list(modules)
    layers = _layers(modules)
    return {module: name for module in modules if (name := _name(module, layers)) is not None}


def _name(module: str, layers: Mapping[str, str]) -> str | None:
    if module in _OUTER:
        return _OUTER[module]
    if found := _RESNETS.fullmatch(module):
        layer, inner = layers.get(found[1]), RESNET.get(found[2])
        return f"{layer}.{inner}" if layer and inner else None
    found = _OTHERS.fullmatch(module)
    if found is None or found[1] not in layers:
        return None
    layer = layers[found[1]]
    if "samplers" in found[1]:
        return layer if found[2] == "conv" else None
    return f"{layer}.{found[2]}"


def _layers(modules: Iterable[str]) -> dict[str, str]:
    """The original name of each layer. Layers were numbered through all blocks, with each downsampling as one more."""
    counts: dict[tuple[str, int], dict[str, int]] = {}
    for module in modules:
        if found := _LAYER.match(module):
            block = counts.setdefault((found[1], int(found[2])), {})
            block[found[3]] = max(block.get(found[3], 0), int(found[4]) + 1)
    names, place = dict(_MIDDLE), {"down_blocks": 1, "up_blocks": 0}
    for (side, index), block in sorted(counts.items()):
        place[side] = _block(names, f"{side}.{index}", block, place[side])
    return names


def _block(names: dict[str, str], block: str, counts: Mapping[str, int], place: int) -> int:
    """Name the layers of one block, and return the number of the next layer."""
    side = "input_blocks" if block.startswith("down") else "output_blocks"
    for layer in range(counts.get("resnets", 0)):
        names[f"{block}.resnets.{layer}"] = f"{side}.{place}.0"
        names[f"{block}.attentions.{layer}"] = f"{side}.{place}.1"
        place += 1
    if "downsamplers" in counts:
        names[f"{block}.downsamplers.0"] = f"{side}.{place}.0.op"
        return place + 1
    if "upsamplers" in counts:
        names[f"{block}.upsamplers.0"] = f"{side}.{place - 1}.{2 if 'attentions' in counts else 1}.conv"
    return place
