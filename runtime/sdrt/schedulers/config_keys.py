"""The keys of a diffusers `scheduler_config.json`, and the values that this version supports."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.schedulers.discrete_schedule import BETA_SCHEDULES, PREDICTION_TYPES

__all__ = ["CHECKS", "IRRELEVANT_KEYS", "Check", "one_of"]


@dataclass(frozen=True, kw_only=True)
class Check:
    """A test for a value, and words for the values that pass it."""

    passes: Callable[[Any], bool]
    expected: str


def _is_number(value: Any) -> bool:
    """Whether the value is infinite, or a number that float32 can hold."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= _LARGEST or value in (math.inf, -math.inf)


def _whole(least: int, most: int) -> Check:
    return Check(
        passes=lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v <= most,
        expected=f"a whole number from {least} to {most}",
    )


def one_of(*values: Any) -> Check:
    """A check for equality with one of `values`, type included."""
    listed = " or ".join(str(v) for v in values)
    return Check(
        passes=lambda v: any(v is c or (type(v) is type(c) and v == c) for c in values), expected=listed
    )


def _is_indices(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(index, int) and not isinstance(index, bool) and index >= 0 for index in value
    )


def _is_betas(value: Any) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 1
        and all(_is_number(b) and 0 < b < 1 for b in value)
    )


# Models are trained with 1000. A schedule holds a few numbers for each, so a huge value would take all memory.
_MOST_TIMESTEPS = 100_000
_LARGEST = 1e30
_FLAG = one_of(True, False)
_BETA = Check(passes=lambda v: _is_number(v) and 0 < v < 1, expected="a number between 0 and 1")
_LEVEL = Check(
    passes=lambda v: v is None or (_is_number(v) and 0 < v < math.inf), expected="a positive number or null"
)

# The supported values. Any other value of these keys would change the image.
CHECKS: Mapping[str, Check] = {
    "num_train_timesteps": _whole(2, _MOST_TIMESTEPS),
    "beta_start": _BETA,
    "beta_end": _BETA,
    "beta_schedule": one_of(*BETA_SCHEDULES),
    "trained_betas": Check(passes=lambda v: v is None or _is_betas(v), expected="null or a list of betas"),
    "rescale_betas_zero_snr": _FLAG,
    "prediction_type": one_of(*PREDICTION_TYPES),
    "timestep_spacing": one_of("leading", "trailing", "linspace"),
    "steps_offset": _whole(0, _MOST_TIMESTEPS),
    "use_karras_sigmas": one_of(True, False, None),
    "use_exponential_sigmas": one_of(True, False, None),
    "use_beta_sigmas": one_of(True, False, None),
    "sigma_schedule": one_of("karras", "exponential"),
    "sigma_min": _LEVEL,
    "sigma_max": _LEVEL,
    "final_sigmas_type": one_of("zero", "sigma_min"),
    "set_alpha_to_one": _FLAG,
    "clip_sample": _FLAG,
    "clip_sample_range": Check(
        passes=lambda v: _is_number(v) and 1e-3 <= v <= 1e6, expected="a number from 0.001 to 1000000"
    ),
    "thresholding": _FLAG,
    "dynamic_thresholding_ratio": Check(
        passes=lambda v: _is_number(v) and 0 <= v <= 1, expected="a number from 0 to 1"
    ),
    "sample_max_value": Check(
        passes=lambda v: _is_number(v) and 1e-3 <= v <= 1e6, expected="a number from 0.001 to 1000000"
    ),
    "use_lu_lambdas": one_of(True, False, None),
    "skip_prk_steps": _FLAG,
    "algorithm_type": one_of(
        "dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver", "deis", "data_prediction"
    ),
    "solver_order": one_of(1, 2, 3),
    "predictor_order": one_of(1, 2, 3),
    "corrector_order": one_of(1, 2, 3),
    "solver_type": one_of("midpoint", "heun", "logrho", "bh1", "bh2"),
    "lower_order_final": _FLAG,
    "euler_at_final": _FLAG,
    "disable_corrector": Check(
        passes=lambda v: v is None or _is_indices(v), expected="a list of steps' indices"
    ),
    "lambda_min_clipped": Check(passes=_is_number, expected="a number"),
    "original_inference_steps": _whole(1, _MOST_TIMESTEPS),
    "timestep_scaling": Check(
        passes=lambda v: _is_number(v) and 1e-3 <= v <= 1e6, expected="a number from 0.001 to 1000000"
    ),
    "sigma_data": Check(
        passes=lambda v: _is_number(v) and 1e-3 <= v <= 1e3, expected="a number from 0.001 to 1000"
    ),
    "shift": Check(passes=lambda v: _is_number(v) and 1e-2 <= v <= 1e2, expected="a number from 0.01 to 100"),
    # Options that are not supported, with the one value that switches each off.
    "use_flow_sigmas": one_of(False, None),
    "use_dynamic_shifting": one_of(False, None),
    "shift_terminal": one_of(None),
    "invert_sigmas": one_of(False),
    "stochastic_sampling": one_of(False),
    "interpolation_type": one_of("linear"),
    "timestep_type": one_of("discrete"),
    "predict_x0": one_of(True),
    "solver_p": one_of(None),
    "tau_func": one_of(None),
    "rho": one_of(7, 7.0),
    # "learned" and "learned_range" need a variance that the model predicts, which is not supported.
    "variance_type": one_of(None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}

# These have no effect unless a refused option is on, belong to schedulers that are not in the table, or were dropped by
# diffusers: `tensor_format` and `timestep_values` in 0.4, `set_alpha_to_zero` in 0.19.
IRRELEVANT_KEYS = frozenset(
    {
        "base_image_seq_len",
        "base_shift",
        "flow_shift",
        "max_image_seq_len",
        "max_shift",
        "noise_sampler_seed",
        "set_alpha_to_zero",
        "tensor_format",
        "time_shift_type",
        "timestep_values",
    }
)
