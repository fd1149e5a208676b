"""Which steps of a run a guidance interval guides: those of diffusers' guiders."""

from __future__ import annotations

import pytest
from diffusers.guiders import ClassifierFreeGuidance

from sdrt.request.guidance_interval import GuidanceInterval


@pytest.mark.parametrize("start", [0.0, 0.1, 0.19, 0.25, 0.3])
@pytest.mark.parametrize("end", [0.31, 0.5, 0.7, 0.99, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 4, 7, 10, 20, 50])
def test_the_guided_steps(start: float, end: float, steps: int) -> None:
    guider = ClassifierFreeGuidance(guidance_scale=3, start=start, stop=end)
    theirs = []
    for step in range(steps):
        guider.set_state(step=step, num_inference_steps=steps, timestep=None)
        theirs.append(guider._is_cfg_enabled())
    assert [GuidanceInterval(start, end).guides(step, steps) for step in range(steps)] == theirs
