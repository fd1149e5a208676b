"""Record `schedulers.npz`: diffusers' trajectories and torch's noise, for tests without diffusers and torch.

Usage, where torch and diffusers are installed: python -m tools.goldens.record_schedulers
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import diffusers
import numpy as np
import numpy.typing as npt
import torch

from tools.goldens.scheduler_reference import run_reference
from tools.goldens.scheduler_runs import recorded_cases

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "schedulers.npz"
# All steps of short runs are recorded, and the last step of long runs.
WHOLE, LAST = 5, (20, 50)
RNG_SEEDS = (0, 1, 2**31 + 5, 2**32 - 1)
RNG_LENGTHS = (3, 4, 16, 15, 17, 1, 100)


def trajectories() -> dict[str, npt.NDArray[np.float32]]:
    arrays: dict[str, npt.NDArray[np.float32]] = {}
    for case in recorded_cases():
        timesteps, latents = run_reference(case, WHOLE)
        arrays[f"{case.id}/{WHOLE}"] = latents.astype(np.float32)
        arrays[f"{case.id}/timesteps"] = np.array(timesteps, dtype=np.float32)
        for steps in [steps for steps in LAST if not case.has_no_reference(steps)]:
            arrays[f"{case.id}/{steps}"] = run_reference(case, steps)[1][-1:].astype(np.float32)
    return arrays


def noise() -> dict[str, npt.NDArray[np.float32]]:
    arrays = {}
    for seed in RNG_SEEDS:
        generator = torch.Generator("cpu").manual_seed(seed)
        draws = [torch.randn(length, generator=generator).numpy() for length in RNG_LENGTHS]
        arrays[f"rng/{seed}"] = np.concatenate(draws)
    return {"rng/lengths": np.array(RNG_LENGTHS), **arrays}


def main() -> None:
    diffusers.logging.set_verbosity_error()
    arrays = {**noise(), **trajectories()}
    np.savez_compressed(OUTPUT, **cast(dict[str, Any], arrays))
    print(f"{OUTPUT.name}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
