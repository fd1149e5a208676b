"""Trajectories against those recorded from diffusers: no torch needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.goldens.scheduler_runs import Case, recorded_cases, run, tolerance_of, worst_error

GOLDENS = Path(__file__).resolve().parents[2] / "goldens"

# float32 state against float64, over at most 50 steps: 8e-7 is the largest measured.
TOLERANCE = 2e-6


@pytest.mark.parametrize("case", recorded_cases(), ids=lambda case: case.id)
def test_trajectory_equals_the_recorded_one(case: Case) -> None:
    with np.load(GOLDENS / "schedulers.npz") as goldens:
        names = ("timesteps", *(str(steps) for steps in (5, 20, 50) if not case.has_no_reference(steps)))
        expected = {name: goldens[f"{case.id}/{name}"] for name in names}
    scheduler = case.scheduler
    np.testing.assert_allclose(scheduler.plan(5).timesteps, expected["timesteps"], rtol=1e-6, atol=1e-3)
    assert worst_error(run(scheduler, 5, eta=case.eta), expected["5"]) < TOLERANCE
    for steps in [steps for steps in (20, 50) if str(steps) in expected]:
        error = worst_error(run(scheduler, steps, eta=case.eta)[-1:], expected[str(steps)])
        assert error < tolerance_of(case, TOLERANCE)
