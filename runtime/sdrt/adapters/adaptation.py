"""Adapters with their weights, and what they make of a model's parameters together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sdrt.adapters.change import Adapter, Array, Change, Factors, Shape
from sdrt.adapters.workspace import Workspace
from sdrt.common.finite import is_finite
from sdrt.errors import UnsupportedModelError

__all__ = ["NO_ADAPTATION", "Adaptation", "Weighted"]


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """An adapter with its weight in each component. A component that `weights` does not name has weight 1."""

    adapter: Adapter
    weights: Mapping[str, float] = field(default_factory=dict, hash=False)
    called: str | None = None

    @property
    def name(self) -> str:
        """How the call names it, which may be another name than its file's."""
        return self.called or self.adapter.name

    def weight(self, component: str) -> float:
        """The weight in a component."""
        return self.weights.get(component, 1.0)


@dataclass(frozen=True)
class Adaptation:
    """Adapters that change a model together. Their changes are added."""

    parts: tuple[Weighted, ...] = ()

    def key(self, component: str) -> tuple[tuple[Adapter, float], ...]:
        """What changes a component: adapters with weights. Components with equal keys have equal weights."""
        return tuple(
            (part.adapter, part.weight(component))
            for part in self.parts
            if part.weight(component) != 0 and part.adapter.changes.get(component)
        )

    def digest(self, component: str) -> str:
        """A text that differs for different changes of a component, also in other processes. Empty without changes."""
        key = [f"{adapter.sha256}:{weight!r}" for adapter, weight in self.key(component)]
        return hashlib.sha256("\n".join(key).encode()).hexdigest() if key else ""

    def changes(self, component: str) -> dict[str, list[tuple[Change, float]]]:
        """The changes of each parameter of a component, with their weights. Those of weight 0 are left out."""
        found: dict[str, list[tuple[Change, float]]] = {}
        for adapter, weight in self.key(component):
            for name, change in adapter.changes[component].items():
                found.setdefault(name, []).append((change, weight))
        return found

    def factors(self, component: str, name: str, shape: Shape) -> Factors | None:
        """The changes of a parameter together, as one product: their factors side by side.

        The rank is 0 without a change. None if a change is no product.
        """
        found = [Factors(np.empty((shape[0], 0), np.float32), np.empty((0, *shape[1:]), np.float32))]
        for adapter, weight in self.key(component):
            change = adapter.changes[component].get(name)
            if change is None:
                continue
            with np.errstate(over="ignore"):
                own = change.as_factors(weight)
            if own is None:
                return None
            found.append(Factors(own.rows, own.columns.reshape(-1, *shape[1:])))
        if len(found) == 2:
            return found[1]
        return Factors(
            np.concatenate([one.rows for one in found], axis=1),
            np.concatenate([one.columns for one in found]),
        )

    def changed(
        self, component: str, name: str, base: Array, workspace: Workspace | None = None
    ) -> NDArray[np.float32]:
        """A parameter with the changes of every adapter, in float32. `base` is the model's own.

        The result is in the memory of `workspace`.

        Raises:
            UnsupportedModelError: the result has NaN or infinity.
        """
        made = np.empty(base.shape, np.float32) if workspace is None else workspace.empty(base.shape)
        factors = self.factors(component, name, base.shape) if base.ndim > 1 else None
        if factors is not None:
            np.copyto(made, base)
            (workspace or Workspace()).add(made, factors)
            if is_finite(made):
                return made
        return self._one_by_one(component, name, base, made)

    def _one_by_one(
        self, component: str, name: str, base: Array, made: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """The same, in `made`, for changes that are no products. The error names the adapter."""
        wide: NDArray[np.float32] = np.asarray(base, np.float32)
        np.copyto(made, wide)
        for adapter, weight in self.key(component):
            change = adapter.changes[component].get(name)
            if change is None:
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                made += change.delta(wide, weight)
            if not is_finite(made):
                raise not_finite(adapter.name, component, name)
        return made


NO_ADAPTATION = Adaptation()
"""No adapters."""


def not_finite(adapter: str, component: str, name: str) -> UnsupportedModelError:
    """The error for a parameter that adapters make infinite, or NaN."""
    return UnsupportedModelError.advised(
        f"adapter {adapter!r} makes {name} of {component} infinite or not a number",
        "give it a smaller weight, or download its file again",
        component=component,
        argument="lora",
    )
