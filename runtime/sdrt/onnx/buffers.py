"""Input and output buffers of a graph, made once for a set of shapes and reused."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sdrt.common.spans import DOWNLOAD, UPLOAD, span
from sdrt.errors import ComponentError
from sdrt.onnx.overflow import failed
from sdrt.onnx.tensor_spec import TensorSpec

__all__ = ["PLAIN", "Bound"]

PLAIN = -1
"""The recording number of a run that is not recorded."""


class _Retry(Protocol):
    """Repeats a run that overflowed float16."""

    def again(self, bound: Bound) -> Mapping[str, NDArray[Any]]: ...


class _Owner(Protocol):
    """The component that buffers belong to. `Component` documents each member."""

    name: str
    records: bool
    provider: str

    @property
    def inputs(self) -> Mapping[str, TensorSpec]: ...

    @property
    def outputs(self) -> Mapping[str, TensorSpec]: ...

    @property
    def float32_retry(self) -> _Retry | None: ...

    @property
    def session(self) -> Any: ...

    @property
    def output_device(self) -> tuple[str, int]: ...

    def new_binding(self) -> Any: ...

    def check_input(self, name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> None: ...

    def device(self) -> AbstractContextManager[None]: ...

    def input_value(self, name: str, shape: Sequence[int]) -> Any: ...

    def device_value(self, dtype: np.dtype[Any], shape: Sequence[int]) -> Any: ...

    def execute(self, bound: Bound) -> None: ...

    def new_recording(self) -> int: ...


class Bound:
    """Input and output buffers of one component for one set of shapes.

    If sdrt can write to the provider's memory, inputs are kept there, so that inputs which do not change (text
    embeddings) are uploaded once. Those that operators on the CPU read are not. Other inputs are bound again whenever
    they are set: the CPU shares the array, other providers copy it. Outputs are written to host memory. Outputs of
    recorded runs are written to the device, then copied to host memory. With `write_to`, an output goes where another
    component reads it.
    """

    def __init__(
        self, component: _Owner, shapes: Mapping[str, tuple[int, ...]], outputs: Sequence[str]
    ) -> None:
        # Not the component itself, which keeps its buffers: together they would outlive their last use until Python
        # looks for cycles, and gigabytes with them.
        self._of, self.outputs = weakref.ref(component), tuple(outputs)
        self._session, self.binding = component.session, component.new_binding()
        self.in_use = False
        """Whether native code uses these buffers, maybe without its caller, who was cancelled."""
        self._device: dict[str, Any] = {}
        self._host: dict[str, NDArray[Any]] = {}
        self._results: dict[str, NDArray[Any]] = {}
        self._raw: dict[str, NDArray[Any]] = {}
        for name, shape in shapes.items():
            self._make_input(component, name, tuple(shape))
        self.recording = PLAIN
        """The number of the recording, which is replayed from the second run on."""
        self._recorded = False
        self.overflows = False
        """Whether a run of the user who has these buffers now overflowed float16."""
        self._fetched: dict[str, Any] = {}
        # The outputs that go to the inputs of others, and those of the inputs here that others write to.
        self._targets: dict[str, tuple[Bound, str]] = {}
        self._written: set[str] = set()
        for name in self.outputs:
            self.binding.bind_output(name, *component.output_device)

    @property
    def _component(self) -> _Owner:
        component = self._of()
        assert component is not None  # whoever runs this holds it
        return component

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        """The inputs that were set last, by `set` or by another component."""
        on_device = [name for name in self._written if name in self._device]
        if not on_device:
            return self._host
        with self._component.device():
            return {**self._host, **{name: self._device[name].numpy() for name in on_device}}

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of all inputs."""
        return {name: array.shape for name, array in self._host.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that the input `name` was bound for."""
        return self._host[name].shape

    def set(self, name: str, array: NDArray[Any]) -> None:
        """Copy `array` into the input `name`, converted to the graph's width of float or integer."""
        component = self._component
        component.check_input(name, array.dtype, array.shape)
        host = self._host[name]
        if host.shape != array.shape:
            raise ComponentError(
                f"{component.name}: input {name!r} was bound for shape {host.shape}, got {array.shape}",
                component=component.name,
                argument=name,
                fits=str(host.shape),
            )
        with span(UPLOAD):
            np.copyto(host, array, casting="same_kind")
            with component.device():
                self._hand_over(name)

    def write_to(self, output: str, other: Bound, name: str) -> bool:
        """Let runs write `output` where `other` reads its input `name`, until `write_here`. Nobody copies it then.

        Returns False, and changes nothing, if their types or places differ.
        """
        component, host, value = self._component, other._host[name], other._device.get(name)
        is_same = component.outputs[output].dtype == host.dtype
        # A recording writes where it did when it was made. Providers that are neither copy their inputs.
        reads_there = value is not None or other._component.provider == "cpu"
        if component.records or not is_same or not reads_there:
            return False
        with component.device():
            if value is not None:
                self.binding.bind_ortvalue_output(output, value)
            else:
                where = host.ctypes.data
                self.binding.bind_output(output, "cpu", 0, host.dtype.type, list(host.shape), where)
        self._targets[output] = (other, name)
        other._written.add(name)
        for kept in (self._results, self._raw):
            kept.pop(output, None)
        return True

    def write_here(self) -> None:
        """Undo `write_to` for all outputs."""
        component = self._component
        for output, (other, name) in self._targets.items():
            other._written.discard(name)
            # Work that was cancelled may still write there, so nobody else may get those buffers.
            other.in_use = other.in_use or self.in_use
            if not self.in_use:
                self.binding.bind_output(output, *component.output_device)
        if not self.in_use:
            self._targets.clear()

    def __call__(self) -> Mapping[str, NDArray[Any]]:
        """Run and return the outputs, floats as float32, in arrays that the next run overwrites.

        Those that go to another component are missing, unless the run was repeated.

        If a float16 graph overflows and the model has a float32 graph too, the run is repeated in float32. Later runs
        use float32 at once, because an overflow in one step is followed by others.
        """
        component = self._component
        retry = component.float32_retry
        if retry is not None and self.overflows:
            return retry.again(self)
        self._run(component)
        with span(DOWNLOAD), component.device():
            if any(name not in self._raw and name not in self._targets for name in self.outputs):
                self._keep_outputs(component)
                self.recording = component.new_recording()
            elif self._fetched:
                self.binding.synchronize_outputs()
                for name, value in self._fetched.items():
                    np.copyto(self._raw[name], value.numpy())
            for name, raw in self._raw.items():
                if raw is not self._results[name]:
                    np.copyto(self._results[name], raw, casting="same_kind")
        if retry is not None and any(map(failed, self._results.values())):
            self.overflows = True
            return retry.again(self)
        return self._results

    def _run(self, component: _Owner) -> None:
        try:
            component.execute(self)
        except BaseException:
            # The recording is incomplete, and must not be replayed.
            if self.recording != PLAIN and not self._recorded:
                self.recording = component.new_recording()
            raise
        self._recorded = self.recording != PLAIN

    def _make_input(self, component: _Owner, name: str, shape: tuple[int, ...]) -> None:
        dtype = component.inputs[name].dtype
        component.check_input(name, dtype, shape)
        self._host[name] = np.zeros(shape, dtype)
        with component.device():
            if (value := component.input_value(name, shape)) is not None:
                self._device[name] = value
            self._hand_over(name)

    def _hand_over(self, name: str) -> None:
        if name in self._device:
            self._device[name].update_inplace(self._host[name])
            # Bound again, because versions that do not report where an input is read may have copied it.
            self.binding.bind_ortvalue_input(name, self._device[name])
        else:
            self.binding.bind_cpu_input(name, self._host[name])

    def _keep_outputs(self, component: _Owner) -> None:
        """Bind fixed buffers for the outputs that have none. Only a run tells their shapes."""
        for name, value in zip(self.outputs, self.binding.get_outputs(), strict=True):
            if name in self._targets or name in self._raw:
                continue
            raw = np.array(value.numpy())
            if component.records:
                self._fetched[name] = component.device_value(raw.dtype, raw.shape)
                self.binding.bind_ortvalue_output(name, self._fetched[name])
            else:
                self.binding.bind_output(name, "cpu", 0, raw.dtype.type, list(raw.shape), raw.ctypes.data)
            self._raw[name] = raw
            is_float = np.issubdtype(raw.dtype, np.floating)
            self._results[name] = raw.astype(np.float32, copy=False) if is_float else raw
