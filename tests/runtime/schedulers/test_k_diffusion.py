"""Trajectories against those recorded from k-diffusion 0.1.1: no torch needed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.goldens.k_diffusion_runs import RUNS, Run

GOLDENS = Path(__file__).resolve().parents[2] / "goldens" / "k_diffusion.npz"

# float32 state against float64: 1.2e-6 is the largest measured.
TOLERANCE = 2e-6


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.id)
def test_the_last_state_equals_the_recorded_one(run: Run) -> None:
    with np.load(GOLDENS) as goldens:
        expected = goldens[run.id]
    error = np.abs(run.ours() - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE
