"""What the tests of two models share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrt import (
    StableDiffusionPipeline,
)

FAST: dict[str, Any] = {"num_inference_steps": 6, "seed": 3, "output_type": "np"}


def opened(folder: Path, **options: Any) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", threads=1, notify=options.pop("notify", lambda _: None), **options
    )
