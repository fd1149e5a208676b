"""What the tests of checkpoints that run directly have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sdrt import StableDiffusionPipeline
from sdrt.onnx.memory_graph import MemoryGraph

__all__ = ["WEIGHTS", "built", "image"]

WEIGHTS = {
    "text_encoder": "model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
}


def image(model: Path | str, **options: Any) -> np.ndarray:
    """An image of two steps. More steps would not show more, and random weights amplify rounding."""
    with StableDiffusionPipeline.from_pretrained(model, provider="cpu", notify=print, **options) as pipeline:
        call: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "output_type": "np"}
        made = pipeline("a red circle", negative_prompt="blue", **call)
        return np.asarray(made.images)


def built(source: Any) -> MemoryGraph:
    """The graph of a source that builds one."""
    assert source is not None
    graph = source.build()
    assert isinstance(graph, MemoryGraph)
    return graph
