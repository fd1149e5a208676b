"""Reading a diffusers `scheduler_config.json`: every key is supported, irrelevant, or refused by name.

A key that another of diffusers' schedulers has and the one read does not is irrelevant, as it is in
`OtherScheduler.from_config(scheduler.config)`. A key nobody knows is refused unless it is null or false.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError
from sdrt.schedulers.noise_schedule import (
    BETA_SCHEDULES,
    PREDICTION_TYPES,
    EdmNoiseSchedule,
    NoiseSchedule,
    zero_terminal_snr,
)

__all__ = ["IRRELEVANT_KEYS", "Settings", "build_edm_schedule", "build_noise_schedule", "read_settings"]

Config = Mapping[str, Any]
_NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A scheduler's options, named as in diffusers; one that a class does not know keeps the default here.

    `levels` stands for diffusers' `use_karras_sigmas`, `use_exponential_sigmas`, `use_beta_sigmas`, `sigma_schedule`
    and for spacings that diffusers has no key for: a name from `spacing.LEVELS`, or None where timesteps are chosen.
    `timesteps` or `sigmas`, with the final one, are what a call asked for in place of any spacing.
    """

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    rescale_betas_zero_snr: bool = False
    prediction_type: str = "epsilon"
    timestep_spacing: str = "linspace"
    steps_offset: int = 0
    levels: str | None = None
    timesteps: tuple[float, ...] | None = None
    sigmas: tuple[float, ...] | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    final_sigmas_type: str = "zero"
    set_alpha_to_one: bool = True
    clip_sample: bool = False
    clip_sample_range: float = 1.0
    skip_prk_steps: bool = True
    algorithm_type: str = "dpmsolver++"
    solver_order: int = 2
    corrector_order: int = 2
    solver_type: str = "midpoint"
    lower_order_final: bool = True
    euler_at_final: bool = False
    disable_corrector: tuple[int, ...] = ()
    lambda_min_clipped: float = float("-inf")
    original_inference_steps: int = 50
    timestep_scaling: float = 10.0
    sigma_data: float = 0.5


@dataclass(frozen=True, kw_only=True)
class _Check:
    """A test for a value, and the words for what passes it."""

    passes: Callable[[Any], bool]
    expected: str


def _is_number(value: Any) -> bool:
    """Whether float32 can hold it, or it is infinite as JSON's Infinity is."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= _LARGEST or value in (math.inf, -math.inf)


def _whole(least: int, most: int) -> _Check:
    return _Check(
        passes=lambda v: isinstance(v, int) and not isinstance(v, bool) and least <= v <= most,
        expected=f"a whole number from {least} to {most}",
    )


def _one_of(*values: Any) -> _Check:
    listed = " or ".join(str(v) for v in values)
    return _Check(
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


# Models are trained with 1000; a schedule holds a few numbers for each.
_MOST_TIMESTEPS = 100_000
_LARGEST = 1e30
_FLAG = _one_of(True, False)
_BETA = _Check(passes=lambda v: _is_number(v) and 0 < v < 1, expected="a number between 0 and 1")
_LEVEL = _Check(
    passes=lambda v: v is None or (_is_number(v) and 0 < v < math.inf), expected="a positive number or null"
)

# What this version computes with. Anything else under these names would change the picture.
_CHECKS: Mapping[str, _Check] = {
    "num_train_timesteps": _whole(2, _MOST_TIMESTEPS),
    "beta_start": _BETA,
    "beta_end": _BETA,
    "beta_schedule": _one_of(*BETA_SCHEDULES),
    "trained_betas": _Check(passes=lambda v: v is None or _is_betas(v), expected="null or a list of betas"),
    "rescale_betas_zero_snr": _FLAG,
    "prediction_type": _one_of(*PREDICTION_TYPES),
    "timestep_spacing": _one_of("leading", "trailing", "linspace"),
    "steps_offset": _whole(0, _MOST_TIMESTEPS),
    "use_karras_sigmas": _one_of(True, False, None),
    "use_exponential_sigmas": _one_of(True, False, None),
    "use_beta_sigmas": _one_of(True, False, None),
    "sigma_schedule": _one_of("karras", "exponential"),
    "sigma_min": _LEVEL,
    "sigma_max": _LEVEL,
    "final_sigmas_type": _one_of("zero", "sigma_min"),
    "set_alpha_to_one": _FLAG,
    "clip_sample": _FLAG,
    "clip_sample_range": _Check(
        passes=lambda v: _is_number(v) and 1e-3 <= v <= 1e6, expected="a number from 0.001 to 1000000"
    ),
    "skip_prk_steps": _one_of(True),
    "algorithm_type": _one_of("dpmsolver++", "sde-dpmsolver++", "deis", "data_prediction"),
    "solver_order": _one_of(1, 2, 3),
    "predictor_order": _one_of(1, 2, 3),
    "corrector_order": _one_of(1, 2, 3),
    "solver_type": _one_of("midpoint", "heun", "logrho", "bh1", "bh2"),
    "lower_order_final": _FLAG,
    "euler_at_final": _FLAG,
    "disable_corrector": _Check(
        passes=lambda v: v is None or _is_indices(v), expected="a list of steps' indices"
    ),
    "lambda_min_clipped": _Check(passes=_is_number, expected="a number"),
    "original_inference_steps": _whole(1, _MOST_TIMESTEPS),
    "timestep_scaling": _Check(
        passes=lambda v: _is_number(v) and 1e-3 <= v <= 1e6, expected="a number from 0.001 to 1000000"
    ),
    "sigma_data": _Check(
        passes=lambda v: _is_number(v) and 1e-3 <= v <= 1e3, expected="a number from 0.001 to 1000"
    ),
    # Never computed with: the one value that switches each off.
    "thresholding": _one_of(False),
    "use_lu_lambdas": _one_of(False, None),
    "use_flow_sigmas": _one_of(False, None),
    "use_dynamic_shifting": _one_of(False, None),
    "interpolation_type": _one_of("linear"),
    "timestep_type": _one_of("discrete"),
    "predict_x0": _one_of(True),
    "solver_p": _one_of(None),
    "tau_func": _one_of(None),
    "rho": _one_of(7, 7.0),
    # How a model's own variance is read, where it gives one; the others ask nothing of the model.
    "variance_type": _one_of(None, "fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log"),
}

# Without effect unless a refused option is on, or an option of schedulers that are not in the table.
IRRELEVANT_KEYS = frozenset(
    {
        "dynamic_thresholding_ratio",
        "flow_shift",
        "noise_sampler_seed",
        "sample_max_value",
        "shift_terminal",
        "time_shift_type",
    }
)


def read_settings(
    config: Config,
    *,
    class_name: str,
    defaults: Config,
    known: frozenset[str],
    synonyms: Mapping[str, Mapping[str, str]] = _NOTHING,
    allowed: Mapping[str, tuple[Any, ...]] = _NOTHING,
) -> Settings:
    """Settings of a diffusers class from a config, which may have been written by another class.

    Args:
        config: the parsed `scheduler_config.json`.
        class_name: the diffusers class to behave as; for messages.
        defaults: what that class takes for keys that are missing.
        known: the keys that class reads.
        synonyms: how that class reads other classes' values of a key.
        allowed: keys of which that class takes fewer values than others do.

    Raises:
        UnsupportedModelError: a key would change the result and is not supported; names the key and value.
    """
    for key in config:
        if not isinstance(key, str):
            raise _unsupported(class_name, brief(key), config[key], "keys that are texts")
    unset = config.get("_use_default_values") or []
    if not isinstance(unset, (list, tuple)) or not all(isinstance(key, str) for key in unset):
        raise _unsupported(class_name, "_use_default_values", unset, "a list of keys")
    given = {k: v for k, v in config.items() if k not in unset and not k.startswith("_")}
    for key, value in given.items():
        if key not in _CHECKS and key not in IRRELEVANT_KEYS and value is not None and value is not False:
            raise _unsupported(class_name, key, value, "a key that this version knows")
    merged = {**defaults, **{k: v for k, v in given.items() if k in known}}
    for key, value in merged.items():
        meant = synonyms.get(key, _NOTHING).get(value, value) if isinstance(value, str) else value
        merged[key] = _checked(class_name, key, meant, allowed.get(key))
    if "predictor_order" in merged:
        merged["solver_order"] = merged["predictor_order"]
    merged["levels"] = _levels(class_name, merged)
    fields = {k: v for k, v in merged.items() if k in Settings.__dataclass_fields__}
    return _consistent(class_name, Settings(**fields))


def _checked(class_name: str, key: str, value: Any, allowed: tuple[Any, ...] | None) -> Any:
    check = _CHECKS[key] if allowed is None else _one_of(*allowed)
    if not check.passes(value):
        raise _unsupported(class_name, key, value, check.expected)
    return tuple(value) if isinstance(value, list) else value


def _levels(class_name: str, merged: Config) -> str | None:
    asked = [name for name in ("karras", "exponential", "beta") if merged.get(f"use_{name}_sigmas")]
    if len(asked) > 1:
        raise _unsupported(class_name, f"use_{asked[1]}_sigmas", True, f"false with use_{asked[0]}_sigmas")
    return asked[0] if asked else merged.get("sigma_schedule")


def _consistent(class_name: str, settings: Settings) -> Settings:
    if settings.rescale_betas_zero_snr and settings.prediction_type == "epsilon":
        # At zero signal-to-noise the noise is the input, so predicting it says nothing about the picture.
        raise _unsupported(class_name, "rescale_betas_zero_snr", True, "false with prediction_type epsilon")
    if settings.trained_betas is not None and len(settings.trained_betas) != settings.num_train_timesteps:
        expected = f"num_train_timesteps, {settings.num_train_timesteps}, of them"
        found = f"a list of {len(settings.trained_betas)}"
        raise _unsupported(class_name, "trained_betas", found, expected)
    return replace(settings, disable_corrector=settings.disable_corrector or ())


def _unsupported(class_name: str, key: str, value: Any, expected: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"scheduler config ({class_name}): {key[:60]} is {brief(value)}; supported: {expected}. "
        "Change the key in scheduler_config.json, or ask for another scheduler by name"
    )


def build_noise_schedule(settings: Settings, zero_snr_alpha: float) -> NoiseSchedule:
    """The training noise levels; `zero_snr_alpha` stands in for ᾱ = 0 where zero terminal SNR asks for it."""
    betas = _betas(settings)
    # Betas far from any model's leave the range of float32; what comes of it is looked at below.
    with np.errstate(all="ignore"):
        if settings.rescale_betas_zero_snr:
            betas = zero_terminal_snr(betas)
        schedule = NoiseSchedule.from_betas(
            betas,
            prediction_type=settings.prediction_type,
            terminal_alpha_cumprod=zero_snr_alpha if settings.rescale_betas_zero_snr else None,
        )
    finite = np.isfinite(schedule.log_sigmas).all()
    if not (finite and (np.diff(schedule.log_sigmas) > 0).all()):
        raise UnsupportedModelError(
            "scheduler config: the betas give noise levels that do not rise from above zero to a finite one. "
            "Change beta_start, beta_end or trained_betas in scheduler_config.json"
        )
    return schedule


def build_edm_schedule(settings: Settings, _zero_snr_alpha: float) -> NoiseSchedule:
    """EDM's preconditioning, which needs no trained levels (Karras et al. 2022, arXiv:2206.00364, table 1)."""
    return EdmNoiseSchedule.from_sigma_data(settings.sigma_data, prediction_type=settings.prediction_type)


def _betas(settings: Settings) -> npt.NDArray[np.float32]:
    if settings.trained_betas is not None:
        return np.array(settings.trained_betas, dtype=np.float32)
    make = BETA_SCHEDULES[settings.beta_schedule]
    return make(settings.beta_start, settings.beta_end, settings.num_train_timesteps)
