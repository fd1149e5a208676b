"""Reading a diffusers `scheduler_config.json`: every key is supported, irrelevant, or refused by name.

A key that only other diffusers schedulers have is irrelevant, as in `OtherScheduler.from_config(scheduler.config)`.
A key that no scheduler knows is refused unless it is null or false.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError
from sdrt.schedulers.config_keys import CHECKS, IRRELEVANT_KEYS, one_of
from sdrt.schedulers.settings import Settings

__all__ = ["NOISE_ALGORITHMS", "read_settings"]

Config = Mapping[str, Any]
NOISE_ALGORITHMS = ("dpmsolver", "sde-dpmsolver")
"""The algorithms that integrate ε, which has no value at a clean image."""
_NOTHING: Mapping[str, Any] = {}


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
        class_name: the diffusers class to behave as, for messages.
        defaults: that class's values for missing keys.
        known: the keys that the class reads.
        synonyms: how the class reads other classes' values of a key.
        allowed: keys for which the class accepts fewer values than other classes do.

    Raises:
        UnsupportedModelError: a key would change the result and is not supported. The message has the key and its
            value.
    """
    for key in config:
        if not isinstance(key, str):
            raise _unsupported(class_name, brief(key), config[key], "keys that are texts")
    unset = config.get("_use_default_values") or []
    if not isinstance(unset, (list, tuple)) or not all(isinstance(key, str) for key in unset):
        raise _unsupported(class_name, "_use_default_values", unset, "a list of keys")
    given = _renamed({k: v for k, v in config.items() if k not in unset and not k.startswith("_")})
    for key, value in given.items():
        if key not in CHECKS and key not in IRRELEVANT_KEYS and value is not None and value is not False:
            raise _unsupported(class_name, key, value, "a key that this version knows")
    if "shift" not in known and given.get("shift") not in (None, 1, 1.0):
        # diffusers ignores it there. But a config with it is for a model that was trained by flow matching.
        raise _unsupported(
            class_name, "shift", given["shift"], "1, because the class is not for flow matching"
        )
    merged = {**defaults, **{k: v for k, v in given.items() if k in known}}
    for key, value in merged.items():
        meant = synonyms.get(key, _NOTHING).get(value, value) if isinstance(value, str) else value
        check = one_of(*allowed[key]) if key in allowed else CHECKS[key]
        if not check.passes(meant):
            raise _unsupported(class_name, key, meant, check.expected)
        merged[key] = tuple(meant) if isinstance(meant, list) else meant
    if "predictor_order" in merged:
        merged["solver_order"] = merged["predictor_order"]
    merged["levels"] = _levels(class_name, merged)
    fields = {k: v for k, v in merged.items() if k in Settings.__dataclass_fields__}
    return _consistent(class_name, Settings(**fields))


def _renamed(given: dict[str, Any]) -> dict[str, Any]:
    """Replace `predict_epsilon`, which says in configs of diffusers 0.8 what `prediction_type` says since then."""
    if not isinstance(given.get("predict_epsilon"), bool):
        return given
    meant = "epsilon" if given.pop("predict_epsilon") else "sample"
    return {"prediction_type": meant} | given


def _levels(class_name: str, merged: Config) -> str | None:
    asked = [name for name in ("karras", "exponential", "beta") if merged.get(f"use_{name}_sigmas")]
    if len(asked) > 1:
        raise _unsupported(class_name, f"use_{asked[1]}_sigmas", True, f"false with use_{asked[0]}_sigmas")
    if merged.get("use_lu_lambdas") and asked != ["karras"]:
        # As in diffusers: Karras goes before it, and it goes before the others.
        return "lu"
    return asked[0] if asked else merged.get("sigma_schedule")


def _consistent(class_name: str, settings: Settings) -> Settings:
    if settings.rescale_betas_zero_snr and settings.prediction_type == "epsilon":
        # With no signal the input is the noise itself, so a prediction of it says nothing about the image.
        raise _unsupported(class_name, "rescale_betas_zero_snr", True, "false with prediction_type epsilon")
    if settings.algorithm_type in NOISE_ALGORITHMS and settings.final_sigmas_type == "zero":
        raise _unsupported(
            class_name,
            "final_sigmas_type",
            "zero",
            f"sigma_min with algorithm_type {settings.algorithm_type}",
        )
    if settings.trained_betas is not None and len(settings.trained_betas) != settings.num_train_timesteps:
        expected = f"a list of {settings.num_train_timesteps} (num_train_timesteps)"
        found = f"a list of {len(settings.trained_betas)}"
        raise _unsupported(class_name, "trained_betas", found, expected)
    return replace(settings, disable_corrector=settings.disable_corrector or ())


def _unsupported(class_name: str, key: str, value: Any, expected: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"scheduler config ({class_name}): {key[:60]} is {brief(value)}; supported: {expected}. "
        "Change the key in scheduler_config.json, or ask for another scheduler by name",
        component="scheduler",
        fits=expected,
    )
