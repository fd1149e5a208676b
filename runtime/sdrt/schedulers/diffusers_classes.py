"""diffusers' scheduler classes, for programs with `DDIMScheduler.from_config(pipeline.scheduler.config)`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from sdrt.common.messages import wrong_value
from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.foreign.checked import ExplainsAttributes
from sdrt.schedulers.resolve import IN_MEMORY, read_config, resolve_scheduler
from sdrt.schedulers.scheduler import Scheduler
from sdrt.schedulers.table import SAMPLERS

__all__ = ["SchedulerClass", "class_names", "config_inside", "without_source"]


def class_names() -> tuple[str, ...]:
    """Return the names of diffusers' classes that sdrt has."""
    return tuple(dict.fromkeys(row.class_name for row in SAMPLERS.values() if row.class_name))


class SchedulerClass(ExplainsAttributes):
    """A class of diffusers' schedulers. It makes a `Scheduler`, which can be assigned to a pipeline.

    A call takes the class's options by name, such as `DDIMScheduler(beta_schedule="scaled_linear")`.

    Raises:
        UnsupportedModelError: an option that changes the image is not supported.
    """

    _arguments: ClassVar = {"__call__": ()}

    def __init__(self, name: str) -> None:
        self.__name__ = self.__qualname__ = name

    def __repr__(self) -> str:
        return f"<sdrt.{self.__name__}>"

    def __call__(self, **options: Any) -> Scheduler:
        """Make a scheduler with these options, and the class's defaults for the others."""
        return self.from_config(options)

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, Scheduler) and value.sampler.class_name == self.__name__

    def from_config(self, config: Mapping[str, Any], **changes: Any) -> Scheduler:
        """Make a scheduler of this class from a config, which another class may have written, and `changes`.

        Raises:
            RequestError: `config` is not a mapping.
            UnsupportedModelError: a key that changes the image is not supported.
        """
        if not isinstance(config, Mapping):
            raise wrong_value("config", config, "a mapping, such as pipeline.scheduler.config")
        whole = {**config, **changes, "_class_name": self.__name__}
        if changed := set(changes) & set(whole.get("_use_default_values") or ()):
            whole["_use_default_values"] = [key for key in whole["_use_default_values"] if key not in changed]
        return replace(Scheduler.from_config(whole), source=IN_MEMORY)

    def from_pretrained(self, path: str | Path, subfolder: str = "", **changes: Any) -> Scheduler:
        """Make a scheduler of this class from a `scheduler_config.json`, or from a folder that contains one.

        Raises:
            RequestError: there is no such file.
            UnsupportedModelError: a key that changes the image is not supported.
        """
        return self.from_config(read_config(Path(path) / subfolder), **changes)


def config_inside(value: Any) -> Any:
    """Return the config of a scheduler of diffusers. Everything else is returned as it is."""
    config = getattr(value, "config", None)
    if isinstance(value, (str, Path, Mapping, Scheduler)) or not isinstance(config, Mapping):
        return value
    return {**config, "_class_name": type(value).__name__}


def without_source(scheduler: Scheduler, model_config: Mapping[str, Any]) -> Scheduler:
    """Return a scheduler that came from a config in memory as one without a source, if its names mean the same.

    Metadata can then say which scheduler it was, for `--from`.
    """
    if scheduler.source != IN_MEMORY:
        return scheduler
    try:
        named = resolve_scheduler(scheduler.name, model_config, spacing=scheduler.spacing)
    except (RequestError, UnsupportedModelError):
        return scheduler
    return replace(scheduler, source=None) if named.settings == scheduler.settings else scheduler
