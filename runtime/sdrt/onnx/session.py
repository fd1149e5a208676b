"""A graph in a session of ONNX Runtime: input checks, buffers, placement, cancelling."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.cancelling import held
from sdrt.common.interrupt import Worker, interruptible
from sdrt.common.notices import Notices
from sdrt.common.spans import span
from sdrt.errors import ComponentError
from sdrt.onnx.buffers import PLAIN, Bound
from sdrt.onnx.create_session import create_session, session_setting
from sdrt.onnx.engine import FAILURES, ort, preload_cuda, require_cudnn, require_sound_recordings, settle
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.error_messages import Subject, load_failure, run_failure
from sdrt.onnx.float32_retry import Float32Retry
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.overflow import overflowed
from sdrt.onnx.provider_check import read_elsewhere, require_provider, told_placement
from sdrt.onnx.provider_options import Setting
from sdrt.onnx.providers import PROVIDERS, SessionConfig
from sdrt.onnx.tensor_spec import read_tensor_specs
from sdrt.onnx.tuned import NOT_TUNED, tuned_graph
from sdrt.onnx.tuning import tuned_session

__all__ = ["Component"]

_KEPT_BINDINGS = 4
# A recording is freed only with its session.
_MOST_RECORDINGS = 8
_device_locks: dict[str, threading.RLock] = {}
# What was let go of while another thread used the device, by the lock's id. Only who holds the lock may free it.
_dropped: defaultdict[int, deque[object]] = defaultdict(deque)


def _lock_of_device(config: SessionConfig) -> threading.RLock | None:
    """The lock that all components of a device share. None if the device may do several things at once."""
    records = config.provider_options.get("enable_cuda_graph") == "True"
    if not (records or PROVIDERS[config.name].one_at_a_time):
        return None
    return _device_locks.setdefault(f"{config.name}:{config.device_id}", threading.RLock())


class Component:
    """One graph in one session, a component of a model.

    `weights` decides the precision of the provider's kernels, and which compiled engines can be reused. `repeats` says
    that the graph runs many times at the same shape. `memory` is the graph if it is not in the file `path`, which
    messages name anyway.

    Raises:
        IntegrityError: the file is damaged.
        UnsupportedModelError: this build lacks an operator.
        ProviderError: the provider runs less of the graph than it should.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        config: SessionConfig,
        notices: Notices,
        weights: Weights = Weights(),  # noqa: B008 - frozen
        *,
        repeats: bool = False,
        memory: MemoryGraph | None = None,
    ) -> None:
        config = settle(config, notices)
        self.name, self._path, self.provider = name, path, config.name
        self._row, self._device_id, self._notices = PROVIDERS[self.provider], config.device_id, notices
        self._subject = Subject(
            name=name,
            path=path,
            provider=self.provider,
            version=ort.__version__,
            remedy=memory.remedy if memory else "",
        )
        if self._row.device == "cuda":
            preload_cuda()
        setting = session_setting(self._subject, config, weights, notices, repeats=repeats)
        self.records = config.passed(self.provider, setting).get("enable_cuda_graph") == "True"
        """Whether kernel launches are recorded, once per shape, and replayed. All buffers are on the device then."""
        if self.records:
            require_sound_recordings()
        self._recordings = 0
        # While a recording is made, or where a provider does one thing at a time, other components wait for the device.
        self._device_lock = _lock_of_device(config)
        # The CUDA provider keeps recordings and cuDNN's plans for attention per thread, and a plan takes longer to make
        # than a step. So a single thread loads and runs this component.
        self._thread = self._worker() if self._row.device else None
        self._idle: list[tuple[Any, Bound]] = []
        self._session, loaded = self._create(config, setting, weights, memory)
        # ONNX Runtime may read these weights in every run.
        self._uncopied = [loaded.values[name] for name in loaded.uncopied] if loaded else []
        require_provider(self._session, self._subject, config, notices)
        if self.provider == "cuda":
            # Not earlier: a provider that is linked with cuDNN has loaded it by now.
            require_cudnn()
        facts = self._subject.facts
        self.inputs = read_tensor_specs(self._session.get_inputs(), **facts)
        self.optional = read_tensor_specs(self._session.get_overridable_initializers(), **facts)
        self.outputs = read_tensor_specs(self._session.get_outputs(), **facts)
        self._read_elsewhere = read_elsewhere(self._session, self._row.device)
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.float32_retry: Float32Retry | None = None
        """Repeats runs that overflow float16. None if the model has no float32 graph."""
        self._lock = threading.Lock()

    def __del__(self) -> None:
        # Waiting here could take as long as a run, and forever if the garbage is collected in the thread of that run.
        lock = getattr(self, "_device_lock", None)
        if lock is None or not hasattr(self, "_session"):
            return
        _dropped[id(lock)].append((self._idle, self._session))
        self._idle, self._session = [], None
        if lock.acquire(blocking=False):
            try:
                _dropped[id(lock)].clear()
            finally:
                lock.release()

    def require(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Raise `ComponentError` unless the graph takes exactly `inputs` and gives at least `outputs`."""
        if set(self.inputs) != set(inputs):
            raise ComponentError(
                f"{self.name}: {self._path} takes {', '.join(self.inputs)}, expected {', '.join(inputs)}: "
                "this is another component's graph or another kind of model; export it again",
                **self._subject.facts,
                fits=f"a graph that takes {', '.join(inputs)}",
            )
        if missing := [name for name in outputs if name not in self.outputs]:
            raise ComponentError(
                f"{self.name}: {self._path} gives {', '.join(self.outputs)}, expected {missing[0]}: "
                "export it again",
                **self._subject.facts,
                fits=f"a graph that gives {missing[0]}",
            )

    @contextmanager
    def bound(self, shapes: Mapping[str, tuple[int, ...]], outputs: Sequence[str]) -> Iterator[Bound]:
        """Buffers for inputs of these shapes and for `outputs`, made once per shape and reused.

        A set of buffers has one user at a time. A second concurrent user gets another set.
        """
        key = (tuple(sorted(shapes.items())), tuple(outputs))
        with self._lock:
            found = next((entry for entry in self._idle if entry[0] == key), None)
            if found is not None:
                self._idle.remove(found)
        if found is None:
            with self._turn():
                bound = Bound(self, shapes, outputs)
        else:
            bound = found[1]
        try:
            yield bound
        finally:
            bound.overflows = False
            if not bound.in_use:
                self._keep(key, bound)

    def _keep(self, key: Any, bound: Bound) -> None:
        """Keep buffers for the next run with these shapes."""
        with self._lock:
            self._idle.append((key, bound))
            # Buffers with a recording stay, because it cannot be made again for them.
            plain = [entry for entry in self._idle if entry[1].recording == PLAIN]
            old = plain[:-_KEPT_BINDINGS]
            self._idle = [entry for entry in self._idle if entry not in old]
        if old:
            with self._turn():
                plain.clear()
                old.clear()

    def run(self, feeds: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]:
        """Run once and return one output. `feeds` may include `optional` inputs, which cannot be bound to buffers."""
        for name, array in feeds.items():
            self.check_input(name, array.dtype, array.shape)
        options, terminate = self._run_options()
        try:
            with span(self.name), self._turn():
                found: NDArray[Any] = interruptible(
                    lambda: self._session.run([output], dict(feeds), options), terminate, self._thread
                )[0]
        except FAILURES as error:
            raise run_failure(self._subject, error) from error
        if self.float32_retry is not None and overflowed(found):
            return self.float32_retry.run(feeds, output)
        return found

    def check_input(self, name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> None:
        """Raise `ComponentError` if the input does not exist, or does not take this dtype and shape."""
        spec = self.inputs.get(name) or self.optional.get(name)
        if spec is None:
            taken = ", ".join(self.inputs)
            raise ComponentError(
                f"{self.name} has no input {name!r}: it takes {taken}",
                **self._subject.facts,
                argument=name,
                fits=taken,
            )
        if not spec.accepts(dtype, shape):
            came = f"{dtype.name}[{', '.join(map(str, shape))}]"
            raise ComponentError(
                f"{self.name}: input {name!r} takes {spec.describe()}, got {came}",
                **self._subject.facts,
                argument=name,
                fits=spec.describe(),
            )

    def check_finite(self, output: str, array: NDArray[np.float32]) -> None:
        """Raise `ComponentError` if `array`, this component's `output`, contains NaN or infinity."""
        if not np.isfinite(array).all():
            remedy = self._subject.remedy
            raise ComponentError(
                f"{self.name}: output {output!r} is not finite (NaN or infinity): the graph overflows, or "
                f"{self._path} is damaged; {remedy or 'export it again in fp32'}",
                **self._subject.facts,
                fits=remedy or "a model that was exported in fp32",
            )

    @property
    def session(self) -> Any:
        """ONNX Runtime's session, which must outlive every binding."""
        return self._session

    def new_binding(self) -> Any:
        """An `IOBinding` with nothing bound yet."""
        return self._session.io_binding()

    def _turn(self) -> AbstractContextManager[None]:
        """A context in which nothing else uses the device, if that is necessary."""
        return held(self._device_lock) if self._device_lock else nullcontext()

    @contextmanager
    def device(self) -> Iterator[None]:
        """A context for work on the device's memory. It waits for the device, and raises failures as sdrt's errors."""
        try:
            with self._turn():
                yield
        except FAILURES as error:
            raise run_failure(self._subject, error) from error

    @property
    def output_device(self) -> tuple[str, int]:
        """The device that outputs are written to, and its number."""
        return (self._row.device, self._device_id) if self.records and self._row.device else ("cpu", 0)

    def input_value(self, name: str, shape: Sequence[int]) -> Any:
        """An `OrtValue` in the provider's memory for an input. None if the graph reads the input elsewhere.

        ONNX Runtime copies such an input when it is bound, and would not see what is written to the value later.
        """
        return None if name in self._read_elsewhere else self.device_value(self.inputs[name].dtype, shape)

    def device_value(self, dtype: np.dtype[Any], shape: Sequence[int]) -> Any:
        """An `OrtValue` in the provider's memory. None if it has none of its own."""
        if self._row.device is None:
            return None
        return ort.OrtValue.ortvalue_from_shape_and_type(
            list(shape), dtype.type, self._row.device, self._device_id
        )

    def execute(self, bound: Bound) -> None:
        """Run on these buffers. Ctrl-C in the main thread stops it within milliseconds, and so does cancelling."""
        options, terminate = self._run_options()
        if self.records:
            options.add_run_config_entry("gpu_graph_id", str(bound.recording))

        def work() -> None:
            # It keeps the buffers alive, which ONNX Runtime does not: cancelled work may go on without its caller.
            try:
                self._session.run_with_iobinding(bound.binding, options)
            finally:
                bound.in_use = False

        bound.in_use = True
        try:
            with span(self.name), self._turn():
                if self._device_lock:
                    _dropped[id(self._device_lock)].clear()
                interruptible(work, terminate, self._thread)
        except FAILURES as error:
            raise run_failure(self._subject, error) from error
        finally:
            if self._thread is not None:
                # Work in a worker has stopped by now, or never begins.
                bound.in_use = False

    @property
    def path(self) -> Path:
        """The graph's file."""
        return self._path

    def placement(self) -> dict[str, dict[str, int]] | None:
        """How many nodes of each operator each provider runs. None if ONNX Runtime does not report it."""
        return told_placement(self._session)

    def end_profile(self) -> Path:
        """Stop profiling and return the profile's file. Only with `SessionConfig.profile`."""
        return Path(self._session.end_profiling())

    def new_recording(self) -> int:
        """The number of a new recording. `PLAIN` if this component records nothing, or nothing more."""
        with self._lock:
            if not self.records:
                return PLAIN
            self._recordings += 1
            if self._recordings == _MOST_RECORDINGS + 1:
                self._notices.warn(
                    f"{self.name}: keeps at most {_MOST_RECORDINGS} recordings of enable_cuda_graph; other sizes run "
                    "without one"
                )
            return self._recordings if self._recordings <= _MOST_RECORDINGS else PLAIN

    def _worker(self) -> Worker:
        try:
            return Worker(f"sdrt-{self.name}")
        except RuntimeError as error:  # a limit on threads or memory is reached
            raise load_failure(self._subject, error) from error

    @staticmethod
    def _run_options() -> tuple[Any, Callable[[], None]]:
        """Options of one run, and a function that ends it early."""
        options = ort.RunOptions()
        # By default ONNX Runtime also prints the failures that it raises.
        options.log_severity_level = 4

        def terminate() -> None:
            options.terminate = True

        return options, terminate

    def _on_cpu(self, memory: MemoryGraph | None) -> MemoryGraph | None:
        """The graph in the form that ONNX Runtime's CPU provider runs, if something can make it."""
        if memory is None or memory.on_cpu is None:
            return memory
        try:
            return memory.on_cpu()
        except MemoryError as error:
            raise load_failure(self._subject, error) from error

    def _create(
        self, config: SessionConfig, setting: Setting, weights: Weights, memory: MemoryGraph | None
    ) -> tuple[Any, MemoryGraph | None]:
        create = partial(
            create_session,
            self._subject,
            config,
            setting,
            lock=self._device_lock,
            thread=self._thread,
            notices=self._notices,
            memory=memory,
        )
        if self.provider != "cpu":
            return create(), memory

        def untuned() -> tuple[Any, MemoryGraph | None]:
            made = self._on_cpu(memory)
            return create(memory=made), made

        if config.tune is False:
            return untuned()
        try:
            tuned = tuned_graph(self._subject, weights, memory, write=bool(config.tune))
        except LookupError as error:
            if config.tune:
                self._notices.warn(f"{self.name}: {NOT_TUNED}: {error}")
            return untuned()
        return tuned_session(
            tuned,
            self._subject,
            lambda place: create(place=place),
            untuned,
            self._notices,
            memory=memory,
            adapted=weights.adapted,
            write=bool(config.tune),
        )
