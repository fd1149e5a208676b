"""Reads the configs of components, key by key: a key that changes the result and is not supported is an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import UnsupportedModelError

__all__ = ["OPTIMUM", "OTHER_EXPORTER", "Config"]

OPTIMUM = "--target portable --exporter optimum --dtype fp32"
"""The remedy for models that no builder supports. The exporter optimum refuses other targets and dtypes."""
OTHER_EXPORTER = f"for another model, try {OPTIMUM}"
"""What to do with a config that is not supported, if the exporter optimum may support it."""


class Config:
    """A component's config. Every key that is there must be known; each value is checked when it is read.

    `remedy` is what to do with a model whose config is not supported; empty for none.
    """

    def __init__(self, component: str, values: Mapping[str, Any], remedy: str = OTHER_EXPORTER) -> None:
        self.component, self._values, self._remedy = component, values, remedy

    def check_keys(
        self,
        known: frozenset[str],
        fixed: Mapping[str, Any],
        ignored: frozenset[str],
        *,
        classes: tuple[str, ...] = (),
    ) -> None:
        """Check the keys that a builder does not read.

        Args:
            known: the keys that the builder reads.
            fixed: keys with the only value that is supported, or a tuple of several.
            ignored: keys that do not change the result.
            classes: the allowed values of `_class_name`, if the config has it. Empty allows all.

        Raises:
            UnsupportedModelError: an unknown key is not off, or a fixed key has another value.
        """
        named = self.get("_class_name")
        if classes and named is not None and named not in classes:
            raise self.refused("_class_name", " or ".join(classes))
        for key, value in self._values.items():
            if key.startswith("_") or key in known or key in ignored:
                continue
            if key not in fixed and (value is None or value is False):
                continue  # a switch of a later version of diffusers, which is off
            if key not in fixed:
                raise self.refused(key, "a key that sdrt knows")
            allowed = fixed[key] if isinstance(fixed[key], tuple) else (fixed[key],)
            if value not in allowed:
                raise self.refused(key, " or ".join(repr(one) for one in allowed))

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key; its default if it is missing or null."""
        value = self._values.get(key)
        return default if value is None else value

    def number(self, key: str, default: float | None = None, *, least: float, most: float) -> float:
        """A finite number from `least` to `most`."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise self.refused(key, f"a number from {least:g} to {most:g}")
        return float(value)

    def whole(self, key: str, default: int | None = None, *, most: int = 1 << 20) -> int:
        """A whole number from 1 to `most`."""
        value = self.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise self.refused(key, f"a whole number from 1 to {most}")
        return value

    def flag(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.refused(key, "true or false")
        return value

    def texts(self, key: str, default: tuple[str, ...], *, most: int = 16) -> tuple[str, ...]:
        """A list of one to `most` strings."""
        value = self.get(key, default)
        fits = isinstance(value, (list, tuple)) and 1 <= len(value) <= most
        if not fits or not all(isinstance(one, str) for one in value):
            raise self.refused(key, f"a list of 1 to {most} strings")
        return tuple(value)

    def wholes(self, key: str, default: tuple[int, ...], *, most: int = 1 << 20) -> tuple[int, ...]:
        """A list of one to 16 whole numbers from 1 to `most`."""
        return tuple(self._whole(key, one, most) for one in self._listed(key, self.get(key, default)))

    def each(
        self, key: str, default: int, count: int, *, least: int = 1, most: int = 1 << 20
    ) -> tuple[int, ...]:
        """A whole number for each of `count` blocks; a single one holds for all."""
        value = self.get(key, default)
        values = self._listed(key, value) if isinstance(value, (list, tuple)) else [value] * count
        if len(values) != count:
            raise self.refused(key, f"one number, or one for each of {count} blocks")
        return tuple(self._whole(key, one, most, least) for one in values)

    def refused(self, key: str, expected: str) -> UnsupportedModelError:
        """The error for a value that is not supported."""
        return UnsupportedModelError.expected(
            f"{self.component}/config.json: {_shown(key)} is {brief(self._values.get(key), 80)}",
            "; ".join(filter(None, (expected, self._remedy))),
            component=self.component,
        )

    def raw(self, key: str) -> Any:
        """The value without a check. None if it is missing or null."""
        return self._values.get(key)

    def _listed(self, key: str, value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= 16:
            raise self.refused(key, "a list of 1 to 16 numbers")
        return list(value)

    def _whole(self, key: str, value: Any, most: int, least: int = 1) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.refused(key, f"whole numbers from {least} to {most}")
        return value


def _shown(key: Any) -> str:
    """A key for a message: unchanged if it looks like a key, otherwise quoted and shortened."""
    return key if isinstance(key, str) and key.isidentifier() and len(key) <= 60 else brief(key)
