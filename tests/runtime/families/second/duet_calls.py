"""The calls of the second family's model."""

from __future__ import annotations

from typing import Any

SIZE, STEPS, GUIDANCE = (24, 40), 5, 3.0


CALL: dict[str, Any] = {
    "height": SIZE[0],
    "width": SIZE[1],
    "num_inference_steps": STEPS,
    "guidance_scale": GUIDANCE,
    "output_type": "np",
    "seed": 11,
}
