"""Scales of image prompts for single blocks of the U-Net against diffusers (InstantStyle)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pytest.importorskip("diffusers")

from tests.parity.ip_adapter_calls import (
    ADAPTERS,
    SIZE,
    Adapter,
    compared,
    mask,
    oracle,
    ours,
    prompt_image,
)

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")


BLOCKS: list[Any] = [
    {"up": {"block_1": [0.0, 1.0, 0.3]}},
    {"down": {"block_0": [0.0, 1.5]}, "up": {"block_1": [0.9]}, "mid": 0.4},
    {"down": 0.7, "mid": [2.0]},
    {"up": [0.1, 0.8, -0.5]},
    {},
]


@pytest.mark.parametrize("scale", BLOCKS, ids=str)
@pytest.mark.parametrize("variant", ["sd1", "xl"])
def test_scales_of_single_blocks(
    variant: str, scale: Any, checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path
) -> None:
    """InstantStyle. What a dict does not name has the scale 0."""
    source, files = checkpoint(variant), [adapter(variant, "base", 0)]
    theirs = oracle(source, files, encoder)
    scale = fitting(theirs.unet, scale)
    compared(ours(source, files, encoder), theirs, prompt_image(), scale=scale)


def fitting(unet: Any, scale: Any) -> Any:
    """The scale for the first block of this U-Net that sees images, with a number for each of its transformers."""
    made = dict(scale)
    for way, value in scale.items():
        if way == "mid" or not isinstance(value, (dict, list)):
            continue
        blocks = unet.down_blocks if way == "down" else unet.up_blocks
        seeing = {number: one for number, one in enumerate(blocks) if hasattr(one, "attentions")}
        first, numbers = min(seeing), value if isinstance(value, list) else next(iter(value.values()))
        cut = numbers[: len(seeing[first].attentions)] if len(numbers) > 1 else numbers
        made[way] = cut if isinstance(value, list) else {f"block_{first}": cut}
    return made


def test_scales_of_blocks_for_two_adapters_with_masks(
    checkpoint: Callable[[str], Path], adapter: Adapter, encoder: Path
) -> None:
    source, files = checkpoint("xl"), [adapter("xl", kind, 1) for kind in ADAPTERS]
    pipeline, theirs = ours(source, files, encoder), oracle(source, files, encoder)
    scale = [fitting(theirs.unet, BLOCKS[0]), fitting(theirs.unet, BLOCKS[1])]
    compared(pipeline, theirs, [prompt_image(0), [prompt_image(1), prompt_image(2)]], scale=scale)
    everywhere = Image.new("L", SIZE, 255)
    compared(
        pipeline,
        theirs,
        [[prompt_image(0), prompt_image(1)], [prompt_image(2)]],
        scale=[scale[0], [0.4]],
        masks=[[mask(True), mask(False)], [everywhere]],
    )
