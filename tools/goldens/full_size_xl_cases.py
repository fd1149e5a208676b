"""The run of SDXL's full-size architecture with random weights: one float16 file, 512×512, two steps with guidance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from sdrt_export.checkpoints.random import RandomCheckpoint

SOURCE = RandomCheckpoint(architecture="sdxl", seed=0)
SEED = 3
TEXTS: Mapping[str, str] = {"prompt": "a lighthouse on a cliff, oil painting", "negative_prompt": "blurry"}
RUN: Mapping[str, Any] = {
    "num_inference_steps": 2,
    "guidance_scale": 5.0,
    "height": 512,
    "width": 512,
    # diffusers' order is (height, width).
    "original_size": (333, 1024),
    "crops_coords_top_left": (7, 120),
}


def kept(name: str, array: NDArray[Any]) -> NDArray[Any]:
    """The part of a result that is recorded: every 16th number of the embeddings, every 8th pixel each way."""
    if name == "encoder_hidden_states":
        return array[..., ::16]
    return array[::8, ::8] if name == "image" else array
