"""Repeats runs that overflow float16 in float32, warns, and counts them."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from numpy.typing import NDArray

from sdrt.common.notices import Notices

__all__ = ["Float32Retry"]


class _Given(Protocol):
    """The buffers of a run that overflowed: its inputs, and the names of its outputs."""

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]: ...

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]: ...

    @property
    def outputs(self) -> Sequence[str]: ...


class _Buffers(Protocol):
    """The buffers of a run in float32."""

    def set(self, name: str, array: NDArray[Any]) -> None: ...

    def __call__(self) -> Mapping[str, NDArray[Any]]: ...


class _Wide(Protocol):
    """A component that computes in float32."""

    def bound(
        self, shapes: Mapping[str, tuple[int, ...]], outputs: Sequence[str]
    ) -> AbstractContextManager[_Buffers]: ...

    def run(self, feeds: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]: ...


class Float32Retry:
    """A component's float32 graph, opened when its float16 graph overflows for the first time.

    `counts` has the number of repeated runs by component. Pass the same one when a component is opened again.
    """

    def __init__(
        self, name: str, open_wide: Callable[[], _Wide], notices: Notices, counts: Counter[str]
    ) -> None:
        self.name, self._counts = name, counts
        self._open, self._notices = open_wide, notices
        self._component: _Wide | None = None
        self._lock = threading.Lock()

    def again(self, bound: _Given) -> Mapping[str, NDArray[Any]]:
        """Repeat the run of `bound` in float32."""
        component = self._wide()
        with component.bound(bound.shapes, bound.outputs) as run:
            for name, array in bound.inputs.items():
                run.set(name, array)
            return {name: array.copy() for name, array in run().items()}

    def run(self, feeds: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]:
        """Repeat the run of `feeds` in float32."""
        return self._wide().run(feeds, output)

    def _wide(self) -> _Wide:
        with self._lock:
            self._counts[self.name] += 1
            if self._counts[self.name] == 1:
                self._notices.warn(
                    f"{self.name}: float16 overflowed, so sdrt makes this run and the rest of the image's runs in "
                    "float32, which takes more time and memory; it does the same for later images that overflow"
                )
            if self._component is None:
                self._component = self._open()
            return self._component
