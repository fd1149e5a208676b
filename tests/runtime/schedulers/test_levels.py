"""Timesteps and noise levels that a call chooses itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdrt import Request, RequestError, StableDiffusionPipeline
from sdrt.schedulers import SAMPLERS, resolve_scheduler

MODEL = {
    "_class_name": "PNDMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
}
CHOOSERS = [name for name, row in SAMPLERS.items() if row.takes_timesteps]
LEVELS = [
    name for name, row in SAMPLERS.items() if row.takes_sigmas and not (row.is_for_edm or row.is_for_flow)
]


@pytest.mark.parametrize("name", CHOOSERS)
def test_the_timesteps_chosen_are_visited_in_order(name: str) -> None:
    rule = resolve_scheduler(name, MODEL).with_levels(timesteps=[981, 700, 312, 20])
    plan = rule.plan(4)
    starts = [
        plan.timesteps[i] for i in range(plan.num_evaluations) if plan.timesteps[i] in (981, 700, 312, 20)
    ]
    assert list(dict.fromkeys(starts)) == [981, 700, 312, 20]
    assert all(after <= before for before, after in zip(plan.sigmas, plan.sigmas[1:], strict=False))


@pytest.mark.parametrize("name", LEVELS)
def test_the_levels_chosen_are_visited_in_order(name: str) -> None:
    plan = resolve_scheduler(name, MODEL).with_levels(sigmas=[10.0, 3.0, 0.5, 0.0]).plan(3)
    visited = [sigma for sigma in plan.sigmas if sigma in (10.0, 3.0, 0.5, 0.0)]
    assert list(dict.fromkeys(visited)) == [10.0, 3.0, 0.5, 0.0]


def test_the_usual_timesteps_make_the_usual_image(pipeline: StableDiffusionPipeline) -> None:
    options: dict[str, Any] = {"seed": 2, "output_type": "np", "scheduler": "dpmpp_2m"}
    usual = pipeline.scheduler_for("dpmpp_2m").plan(4)
    expected = pipeline("a cat", num_inference_steps=4, **options).images
    chosen = pipeline("a cat", timesteps=[int(t) for t in usual.timesteps], **options).images
    np.testing.assert_array_equal(chosen, expected)
    levels = pipeline("a cat", sigmas=np.array(usual.sigmas), **options).images
    np.testing.assert_allclose(levels, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("scheduler", "options", "message"),
    [
        ("pndm", {"timesteps": [9, 5]}, "scheduler 'pndm' takes no timesteps"),
        ("ddim", {"sigmas": [9, 5]}, "scheduler 'ddim' takes no sigmas"),
        ("euler", {"timesteps": [5, 9]}, "expected numbers in falling order"),
        ("euler", {"timesteps": [5, 5]}, "expected numbers in falling order"),
        ("euler", {"timesteps": [1000, 5]}, "expected numbers from 0 to 999"),
        ("euler", {"timesteps": []}, "expected a list of 1 to 1000 numbers"),
        ("euler", {"timesteps": "999,5"}, "expected a list of 1 to 1000 numbers"),
        ("euler", {"timesteps": [99.5]}, "timesteps is 99.5: expected a whole number"),
        ("euler", {"sigmas": [1.0]}, "expected two or more"),
        ("euler", {"sigmas": [1.0, 0.0, 0.0]}, "expected numbers in falling order"),
        ("dpmpp_2m", {"sigmas": [10, 9.9999999999, 5, 0]}, "expected numbers in falling order"),
        ("euler", {"sigmas": [float("nan"), 0.0]}, "sigmas is nan"),
        ("euler", {"sigmas": [1.0, 0.0], "timesteps": [5]}, "at most one of timesteps and sigmas"),
        ("euler", {"timesteps": [5], "hires_steps": 5}, "at most one of timesteps and hires_steps"),
    ],
    ids=str,
)
def test_what_is_refused(
    pipeline: StableDiffusionPipeline, scheduler: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        pipeline.stream(Request(prompt="a cat", **options), scheduler=scheduler)
