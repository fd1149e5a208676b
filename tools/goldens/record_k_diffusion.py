"""Record `k_diffusion.npz`: trajectories and levels of k-diffusion 0.1.1, for samplers that diffusers does not have.

Usage, where torch, torchsde, torchdiffeq and k-diffusion are installed: python -m tools.goldens.record_k_diffusion

Only `k_diffusion.sampling` is loaded, because the package's other modules need what trains models.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch

from tools.goldens.k_diffusion_runs import RUNS, Run

OUTPUT = Path(__file__).resolve().parents[2] / "tests" / "goldens" / "k_diffusion.npz"


def k_diffusion_sampling() -> Any:
    """The module `k_diffusion.sampling`, with what it uses of `k_diffusion.utils`."""
    found = importlib.util.find_spec("k_diffusion")
    assert found is not None
    package, utils = ModuleType("k_diffusion"), ModuleType("k_diffusion.utils")
    package.__path__ = list(found.submodule_search_locations or [])
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]  # type: ignore[attr-defined]
    package.utils = utils  # type: ignore[attr-defined]
    sys.modules |= {"k_diffusion": package, "k_diffusion.utils": utils}
    return importlib.import_module("k_diffusion.sampling")


def trajectory(run: Run, sampling: Any) -> npt.NDArray[np.float64]:
    """The last state of a run, in float64."""
    generator = torch.Generator("cpu").manual_seed(run.seed)
    x = torch.randn(run.shape, generator=generator, dtype=torch.float32).double() * run.plan.init_scale

    def noise(*_levels: Any) -> torch.Tensor:
        return torch.randn(run.shape, generator=generator, dtype=torch.float32).double()

    def denoise(x: torch.Tensor, sigma: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.from_numpy(run.denoise(x.numpy(), float(sigma[0])))

    function: Callable[..., torch.Tensor] = getattr(sampling, f"sample_{run.function}")
    options = {key: torch.tensor(v, dtype=torch.float64) for key, v in run.levels.items()}
    made = function(denoise, x, **options, **run.options, disable=True, noise_sampler=noise)
    return np.asarray(made.numpy())


def main() -> None:
    # k-diffusion lays out DPM fast's levels in torch's default type, and takes a root of their difference.
    torch.set_default_dtype(torch.float64)
    sampling = k_diffusion_sampling()
    arrays = {run.id: trajectory(run, sampling) for run in RUNS}
    np.savez_compressed(OUTPUT, **cast(dict[str, Any], arrays))
    print(f"{OUTPUT.name}: {len(arrays)} arrays, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
