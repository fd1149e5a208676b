"""float16 that overflows: such a run is made again in float32, said aloud and counted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.notices import Notices

if TYPE_CHECKING:
    from sdrt.onnx.buffers import Bound
    from sdrt.onnx.session import Component

__all__ = ["Rescue", "failed", "overflowed"]


def failed(array: NDArray[Any]) -> bool:
    """Whether an output tells of an overflow: NaN, infinity, or the same number everywhere.

    Of latents and pictures [N, C, H, W], everywhere in each of their planes: a picture of one colour is as flat.
    """
    if array.size < 2 or not np.issubdtype(array.dtype, np.floating):
        return False
    if overflowed(array):
        return True
    planes = (2, 3) if array.ndim == 4 and array.shape[2] * array.shape[3] > 1 else None
    least, most = array.min(axis=planes), array.max(axis=planes)
    return bool((least == most).all())


def overflowed(array: NDArray[Any]) -> bool:
    """Whether an output is not finite. A tile of a picture may be flat for good."""
    return not np.isfinite(array).all()


class Rescue:
    """The graph of a component that computes in float32, opened when the one in float16 fails for the first time.

    `counts` are, by component, of runs that were made again; whoever opens a component anew hands in the same.
    """

    def __init__(
        self, name: str, open_wide: Callable[[], Component], notices: Notices, counts: Counter[str]
    ) -> None:
        self.name, self._counts = name, counts
        self._open, self._notices = open_wide, notices
        self._component: Component | None = None
        self._lock = threading.Lock()

    def again(self, bound: Bound) -> Mapping[str, NDArray[Any]]:
        """The run of what `bound` was given, in float32."""
        component = self._wide()
        with component.bound(bound.shapes, bound.outputs) as run:
            for name, array in bound.inputs.items():
                run.set(name, array)
            return {name: array.copy() for name, array in run().items()}

    def run(self, feeds: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]:
        """The run of these `feeds` that was just made, in float32."""
        return self._wide().run(feeds, output)

    def _wide(self) -> Component:
        with self._lock:
            self._counts[self.name] += 1
            if self._counts[self.name] == 1:
                self._notices.warn(
                    f"{self.name}: float16 overflowed, so this run is made again in float32, as all will be to which "
                    "it happens, and the rest of their picture's; it takes longer and more memory"
                )
            if self._component is None:
                self._component = self._open()
            return self._component
