"""A scheduler's options as diffusers writes them, the inverse of :mod:`~sdrt.schedulers.config`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from sdrt.errors import RequestError
from sdrt.foreign.word import no_attribute
from sdrt.schedulers.settings import Settings
from sdrt.schedulers.table import SamplerRow

__all__ = ["SchedulerConfig", "written_config"]

_FLAGS = {name: f"use_{name}_sigmas" for name in ("karras", "exponential", "beta")}


class SchedulerConfig(dict[str, Any]):
    """A dict that cannot be changed, whose values are also attributes, like the configs of diffusers' schedulers."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        if name.startswith("__"):
            raise AttributeError(name)
        raise no_attribute("scheduler.config", name, self, ())

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise RequestError.advised(
            "scheduler.config cannot be changed",
            "assign pipeline.scheduler = {**pipeline.scheduler.config, key: value}",
            argument="scheduler",
        )

    __setitem__ = __delitem__ = __setattr__ = __delattr__ = __ior__ = _refuse
    update = pop = popitem = clear = setdefault = _refuse

    def __reduce__(self) -> tuple[type[SchedulerConfig], tuple[dict[str, Any]]]:
        return SchedulerConfig, (dict(self),)


def written_config(
    row: SamplerRow, settings: Settings, given: Mapping[str, Any], as_given: Settings
) -> SchedulerConfig:
    """Return the config of a scheduler of the class of `row`.

    `given` is the config that it was made from, and `as_given` are the settings in it. Its keys for other classes stay,
    because those read them if they are made from this config. As in diffusers, keys that it does not have are listed,
    so that another class takes its own defaults for them.
    """
    unset = {"_use_default_values", *(given.get("_use_default_values") or ())}
    others = {key: value for key, value in given.items() if key not in unset}
    own, usual = _own(row, settings), _own(row, as_given)
    defaults = [key for key in own if key not in others and own[key] == usual[key]]
    return SchedulerConfig(others | own | {"_class_name": row.class_name, "_use_default_values": defaults})


def _own(row: SamplerRow, settings: Settings) -> dict[str, Any]:
    """Return the keys that the class of `row` reads."""
    values = vars(settings) | {flag: settings.levels == name for name, flag in _FLAGS.items()}
    values |= {"predictor_order": settings.solver_order, "sigma_schedule": settings.levels}
    own = {key: values[key] for key in sorted(row.known_keys) if key in values}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in own.items()}
