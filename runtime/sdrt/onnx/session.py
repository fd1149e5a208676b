"""A graph in a session of ONNX Runtime: input checks, buffers, placement, cancelling."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.common.interrupt import Worker, interruptible
from sdrt.common.notices import Notices
from sdrt.common.spans import span
from sdrt.errors import ComponentError, ProviderError
from sdrt.onnx.buffers import PLAIN, Bound
from sdrt.onnx.engine import (
    FAILURES,
    ort,
    preload_cuda,
    require_cudnn,
    require_sound_recordings,
    settle,
    tells_placement,
)
from sdrt.onnx.engine_cache import Weights, compiled_folder
from sdrt.onnx.error_messages import Subject, load_failure, run_failure
from sdrt.onnx.float32_retry import Rescue, overflowed
from sdrt.onnx.placement import is_refusal_to_fall_back, listed, refusal, shortfall, strays, unfit
from sdrt.onnx.provider_options import Setting
from sdrt.onnx.providers import PROVIDERS, SessionConfig
from sdrt.onnx.tensor_spec import read_port
from sdrt.onnx.tensorrt import load_tensorrt

__all__ = ["Component"]

_KEPT_BINDINGS = 4
# Components that run many times at one shape.
_REPEATED = frozenset({"unet"})
# A recording cannot be let go of before its session.
_MOST_RECORDINGS = 8
_turns: dict[str, threading.RLock] = {}


def _turn(config: SessionConfig) -> AbstractContextManager[Any]:
    """The lock of a device, one for all components."""
    return _turns.setdefault(f"{config.name}:{config.device_id}", threading.RLock())


class Component:
    """One graph in one session: `text_encoder`, `unet`, `vae_decoder` or `vae_encoder`.

    Raises `IntegrityError` for a damaged file, `UnsupportedModelError` for operators this build lacks,
    `ProviderError` when the provider took less than it was asked to. `weights` says what precision follows from
    the model and whose engines may be used again.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        config: SessionConfig,
        notices: Notices,
        weights: Weights = Weights(),  # noqa: B008 - frozen
    ) -> None:
        config = settle(config, notices)
        self.name, self._path, self.provider = name, path, config.name
        self._row, self._device_id, self._notices = PROVIDERS[self.provider], config.device_id, notices
        self._subject = Subject(name=name, path=path, provider=self.provider, version=ort.__version__)
        if self._row.device == "cuda":
            preload_cuda()
        setting = self._setting(config, weights, notices)
        self.records = config.passed(self.provider, setting).get("enable_cuda_graph") == "True"
        """Whether what is launched is recorded, once per shape, and replayed: all buffers are the device's then."""
        if self.records:
            require_sound_recordings()
        self._recordings = 0
        # While one is made, nothing else may touch the device: components of a pipeline that records have it in turn.
        self._turn = _turn(config) if config.provider_options.get("enable_cuda_graph") == "True" else None
        # What CUDA's provider keeps is a thread's: recordings, and plans of attention of cuDNN, which take longer to
        # make than a step. One thread loads and runs this, for as long as it lives.
        self._thread = Worker(f"sdrt-{name}") if self._row.device else None
        self._session = self._create(config, setting)
        self._require_provider(config, notices)
        if self.provider == "cuda":
            # Not before: where the provider is linked with it, it is loaded by now.
            require_cudnn()
        self.inputs = {port.name: port for port in map(read_port, self._session.get_inputs())}
        self.optional = {
            port.name: port for port in map(read_port, self._session.get_overridable_initializers())
        }
        self.outputs = {port.name: port for port in map(read_port, self._session.get_outputs())}
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self.rescue: Rescue | None = None
        """What makes a run again that overflowed float16, where the model has it."""
        self._idle: list[tuple[Any, Bound]] = []
        self._lock = threading.Lock()

    def require(self, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        """Raise `ComponentError` unless the graph takes exactly `inputs` and gives at least `outputs`."""
        if set(self.inputs) != set(inputs):
            raise ComponentError(
                f"{self.name}: {self._path} takes {', '.join(self.inputs)}, expected {', '.join(inputs)}: "
                "this is another component's graph or another kind of model; export it again"
            )
        if missing := [name for name in outputs if name not in self.outputs]:
            raise ComponentError(
                f"{self.name}: {self._path} gives {', '.join(self.outputs)}, expected {missing[0]}: "
                "export it again"
            )

    @contextmanager
    def bound(self, shapes: Mapping[str, tuple[int, ...]], outputs: Sequence[str]) -> Iterator[Bound]:
        """Buffers for inputs of these shapes and for `outputs`, made once per shape and reused.

        A set of buffers has one user at a time; a second concurrent user gets its own.
        """
        key = (tuple(sorted(shapes.items())), tuple(outputs))
        with self._lock:
            found = next((entry for entry in self._idle if entry[0] == key), None)
            if found is not None:
                self._idle.remove(found)
        bound = Bound(self, shapes, outputs) if found is None else found[1]
        try:
            yield bound
        finally:
            bound.overflows = False
            with self._lock:
                self._idle.append((key, bound))
                # What is recorded stays: there is no second recording for the same buffers.
                plain = [entry for entry in self._idle if entry[1].recording == PLAIN]
                for old in plain[:-_KEPT_BINDINGS]:
                    self._idle.remove(old)

    def run(self, feeds: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]:
        """One output, of inputs that may be `optional` ones, which cannot be bound to buffers."""
        for name, array in feeds.items():
            self.check_input(name, array.dtype, array.shape)
        options, terminate = self._run_options()
        try:
            with span(self.name), self._turn or nullcontext():
                found: NDArray[Any] = interruptible(
                    lambda: self._session.run([output], dict(feeds), options), terminate, self._thread
                )[0]
        except FAILURES as error:
            raise run_failure(self._subject, error) from error
        if self.rescue is not None and overflowed(found):
            return self.rescue.run(feeds, output)
        return found

    def check_input(self, name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> None:
        """Raise `ComponentError` naming the input, what it takes and what came."""
        port = self.inputs.get(name) or self.optional.get(name)
        if port is None:
            raise ComponentError(f"{self.name} has no input {name!r}: it takes {', '.join(self.inputs)}")
        if not port.accepts(dtype, shape):
            came = f"{dtype.name}[{', '.join(map(str, shape))}]"
            raise ComponentError(f"{self.name}: input {name!r} takes {port.describe()}, got {came}")

    def check_finite(self, output: str, array: NDArray[np.float32]) -> None:
        """Raise `ComponentError` when `array`, this component's `output`, holds NaN or infinity."""
        if not np.isfinite(array).all():
            raise ComponentError(
                f"{self.name}: output {output!r} is not finite (NaN or infinity): the graph overflows or is "
                "damaged; export it again in fp32"
            )

    @property
    def session(self) -> Any:
        """ONNX Runtime's, which must outlive every binding."""
        return self._session

    def new_binding(self) -> Any:
        """An `IOBinding` with nothing bound yet."""
        return self._session.io_binding()

    @contextmanager
    def device(self) -> Iterator[None]:
        """Around what touches the device's memory: its failures are ours, and it waits for recordings."""
        try:
            with self._turn or nullcontext():
                yield
        except FAILURES as error:
            raise run_failure(self._subject, error) from error

    @property
    def output_device(self) -> tuple[str, int]:
        """Where outputs are written: the device and its number."""
        return (self._row.device, self._device_id) if self.records and self._row.device else ("cpu", 0)

    def device_value(self, dtype: np.dtype[Any], shape: Sequence[int]) -> Any:
        """An `OrtValue` in the provider's own memory; None where inputs stay in the host's."""
        if self._row.device is None:
            return None
        return ort.OrtValue.ortvalue_from_shape_and_type(
            list(shape), dtype.type, self._row.device, self._device_id
        )

    def execute(self, binding: Any, recording: int = PLAIN) -> None:
        """Run on an IOBinding; Ctrl-C in the main thread stops it within milliseconds.

        `recording` is a number of `new_recording`, of the shapes and buffers of this binding.
        """
        options, terminate = self._run_options()
        if self.records:
            options.add_run_config_entry("gpu_graph_id", str(recording))
        try:
            with span(self.name), self._turn or nullcontext():
                interruptible(
                    lambda: self._session.run_with_iobinding(binding, options), terminate, self._thread
                )
        except FAILURES as error:
            raise run_failure(self._subject, error) from error

    @property
    def path(self) -> Path:
        """The graph's file."""
        return self._path

    def placement(self) -> dict[str, dict[str, int]] | None:
        """How many nodes of each operator ONNX Runtime gave to which provider; None where it does not tell."""
        report = getattr(self._session, "get_provider_graph_assignment_info", None)
        if report is None:
            return None
        placed: dict[str, Counter[str]] = {}
        for graph in report():
            counts = placed.setdefault(graph.ep_name, Counter())
            counts.update(node.op_type for node in graph.get_nodes())
        return {provider: dict(counts.most_common()) for provider, counts in placed.items()}

    def end_profile(self) -> Path:
        """The file that a session with `SessionConfig.profile` wrote; it writes no more from here on."""
        return Path(self._session.end_profiling())

    def new_recording(self) -> int:
        """The number of one more recording; `PLAIN` where none is made, or no more."""
        with self._lock:
            if not self.records:
                return PLAIN
            self._recordings += 1
            if self._recordings == _MOST_RECORDINGS + 1:
                self._notices.warn(
                    f"{self.name}: {_MOST_RECORDINGS} recordings are kept, and no more will be made: other sizes run "
                    "as without enable_cuda_graph"
                )
            return self._recordings if self._recordings <= _MOST_RECORDINGS else PLAIN

    @staticmethod
    def _run_options() -> tuple[Any, Callable[[], None]]:
        """Options of one run, and what ends it early."""
        options = ort.RunOptions()
        # Failures come back as exceptions; the default also prints them.
        options.log_severity_level = 4

        def terminate() -> None:
            options.terminate = True

        return options, terminate

    def _setting(self, config: SessionConfig, weights: Weights, notices: Notices) -> Setting:
        setting = Setting(threads=config.threads, dtype=weights.dtype, repeats=self.name in _REPEATED)
        if not self._row.keeps_compiled or (version := load_tensorrt()) is None:
            return setting
        versions = f"{self.provider}-{version}-onnxruntime-{ort.__version__}"
        options = config.passed(self.provider, setting)
        setting = replace(setting, compiled=compiled_folder(self._path, weights, versions, options, notices))
        if (folder := config.passed(self.provider, setting).get("trt_engine_cache_path")) is not None:
            try:
                Path(folder).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise ProviderError(
                    f"trt_engine_cache_path: {folder} cannot be made ({error.strerror or error}): choose another folder"
                ) from error
        return setting

    def _create(self, config: SessionConfig, setting: Setting) -> Any:
        strict = self._row.whole and not config.allow_fallback and not tells_placement()
        options = self._session_options(config, strict)
        # Where falling back to the CPU is forbidden, ONNX Runtime does not want to see it named.
        names = dict.fromkeys([self.provider, *self._row.helpers, *([] if strict else ["cpu"])])
        rows = [PROVIDERS[name].ort for name in names]
        arguments = [config.passed(name, setting) for name in names]
        cancel = getattr(options, "set_load_cancellation_flag", lambda flag: None)
        try:
            with self._turn or nullcontext():
                return interruptible(
                    lambda: ort.InferenceSession(
                        str(self._path), options, rows, arguments, enable_fallback=0
                    ),
                    lambda: cancel(True),
                    self._thread,
                )
        except FAILURES as error:
            if is_refusal_to_fall_back(error):
                raise shortfall(
                    f"{self.name} landed on the CPU, whole or in part: onnxruntime {ort.__version__} does not tell "
                    "which operators, 1.24 and later do",
                    unfit(config),
                    refusal(config),
                ) from error
            raise load_failure(self._subject, error) from error

    def _session_options(self, config: SessionConfig, strict: bool) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = config.threads or 0
        options.log_severity_level = 4
        # A pattern is one more block of memory for each shape, beside the arena that the first run has filled: half a
        # step's activations again, and no faster.
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # CPUs without VNNI add products of bytes up in 16 bits, which overflow; this has them add up what is exact.
        options.add_session_config_entry("session.x64quantprecision", "1")
        if config.profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(config.profile, self.name))
        if strict:
            options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        return options

    def _require_provider(self, config: SessionConfig, notices: Notices) -> None:
        """Compare what was asked for with what ONNX Runtime did, which it changes with only a warning."""
        problem, remedy = self._problem(config, notices)
        if problem and not config.allow_fallback:
            raise shortfall(problem, remedy)
        if problem:
            notices.warn(problem)

    def _problem(self, config: SessionConfig, notices: Notices) -> tuple[str, str]:
        """What is wrong and its remedy; two empty texts where nothing is."""
        active = self._session.get_providers()
        if active[0] != self._row.ort:
            problem = f"{self.name} was asked to run on {self.provider} and runs on {', '.join(active)}"
            return problem, refusal(config)
        if self.provider == "cpu":
            return "", ""
        if tells_placement():
            elsewhere = strays(self._row, self._session.get_provider_graph_assignment_info())
            problem = (
                f"{self.name} runs on {self.provider} only in part: {listed(elsewhere)} landed elsewhere"
            )
            return (problem, unfit(config)) if elsewhere else ("", "")
        if not self._row.whole or config.allow_fallback:
            notices.warn(
                f"{self.name}: onnxruntime {ort.__version__} does not tell which operators run on "
                f"{self.provider} and which on the CPU; upgrade it to find out"
            )
        return "", ""
