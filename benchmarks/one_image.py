"""Makes one image, or only its first step, with diffusers or any version of sdrt. `start.py` runs this file.

    python benchmarks/one_image.py diffusers|sdrt|sdrt-untuned MODEL SIDE STEPS first-step|image

It is a script and not a module of the package, because 0.1.0 has another package of this name.
"""

from __future__ import annotations

import os
import sys
from typing import Any

PROMPT = "a red circle"
FIRST_STEP, IMAGE = "first-step", "image"


def main() -> None:
    system, model, side, steps, until = sys.argv[1:]
    pipeline = _with_diffusers(model) if system == "diffusers" else _with_sdrt(model, tune=system == "sdrt")
    size = int(side)
    pipeline(
        PROMPT,
        num_inference_steps=int(steps),
        width=size,
        height=size,
        callback_on_step_end=_end if until == FIRST_STEP else None,
    )


def _with_diffusers(model: str) -> Any:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _with_sdrt(model: str, *, tune: bool) -> Any:
    from sdrt import StableDiffusionPipeline

    # 0.1.0 has no such argument, and `True` is the default.
    options: dict[str, Any] = {} if tune else {"tune": False}
    return StableDiffusionPipeline.from_pretrained(model, provider="cpu", **options)


def _end(*_: Any) -> None:
    """End the process at once, without the time that its end takes."""
    os._exit(0)


if __name__ == "__main__":
    main()
