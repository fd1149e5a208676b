"""ONNX Runtime, and the only module that imports it: providers, sessions, input checks, cancelling."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.buffers import Bound
from sdrt.config import AUTO, PROVIDERS, SessionConfig
from sdrt.errors import ComponentError, ProviderError
from sdrt.extras import install_command
from sdrt.failures import Subject, load_failure, run_failure
from sdrt.interrupt import interruptible, was_interrupted
from sdrt.notices import Notices
from sdrt.ports import read_port

# Version 1.32 writes an identifier of the device into the user's home, and events beside it.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
try:
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

    ort.InferenceSession  # noqa: B018  # what a removal that left a folder behind lacks
except (ImportError, AttributeError, OSError) as error:
    if was_interrupted(error):
        raise KeyboardInterrupt from error
    raise ProviderError(
        f"ONNX Runtime cannot be imported ({error}): {install_command('cpu')}, or [gpu] for NVIDIA"
    ) from error

__all__ = ["FAILURES", "Component", "available_providers", "cuda_works", "ort", "settle"]

# ONNX Runtime's exceptions share no base class, and older builds lack some of them.
_ORT_NAMES = (
    *("DeviceReset", "EPFail", "EngineError", "Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf"),
    *("ModelLoadCanceled", "ModelRequiresCompilation", "NoModel", "NoSuchFile", "NotFound"),
    *("NotImplemented", "RuntimeException"),
)
FAILURES: tuple[type[BaseException], ...] = (
    MemoryError,
    RuntimeError,
    ValueError,
    *(getattr(ort_state, name) for name in _ORT_NAMES if hasattr(ort_state, name)),
)
# Operators that carry the work: one of these on another provider than the one asked for is a fallback.
_HEAVY = frozenset(
    {"Conv", "NhwcConv", "FusedConv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul", "MatMulNBits"}
    | {"QLinearConv", "MatMulIntegerToFloat"}
    | {"MultiHeadAttention", "Attention", "GroupNorm", "SkipGroupNorm", "InstanceNormalization"}
)
_KEPT_BINDINGS = 4


def available_providers() -> tuple[str, ...]:
    """Our names of the providers that this ONNX Runtime build offers."""
    offered = ort.get_available_providers()
    return tuple(name for name, row in PROVIDERS.items() if row.ort in offered)


def settle(config: SessionConfig, notices: Notices) -> SessionConfig:
    """`config` with "auto" decided: cuda where this build offers it and a device works, else cpu.

    Raises `ProviderError` with the fix when this build lacks the provider that was asked for.
    """
    offered = available_providers()
    if config.name == AUTO:
        works = "cuda" in offered and cuda_works()
        if "cuda" in offered and not works:
            notices.warn(
                "running on the CPU: this onnxruntime has CUDA, and finds no working device or lacks a library; "
                "sdrt doctor says which, provider cpu silences this"
            )
        return replace(config, provider="cuda" if works else "cpu")
    if config.name in offered:
        return config
    row = PROVIDERS[config.name]
    raise ProviderError(
        f"onnxruntime {ort.__version__} as installed has no {config.name} provider ({row.ort}), "
        f"it offers {', '.join(offered)}: pip uninstall -y onnxruntime; {install_command(row.extra)}"
    )


@cache
def cuda_works() -> bool:
    """Whether the first CUDA device can hold a number, which takes its driver and every library."""
    _preload()
    try:
        ort.OrtValue.ortvalue_from_shape_and_type([1], np.float32, "cuda", 0)
    except FAILURES:
        return False
    return True


@cache
def _preload() -> None:
    """Load the CUDA and cuDNN libraries of the `nvidia-*` wheels, which the loader cannot find."""
    if hasattr(ort, "preload_dlls"):
        # It prints what it does not find, and stdout is the caller's.
        with redirect_stdout(sys.stderr):
            ort.preload_dlls()


class Component:
    """One graph in one session: `text_encoder`, `unet`, `vae_decoder` or `vae_encoder`.

    Raises `IntegrityError` for a damaged file, `UnsupportedModelError` for operators this build lacks,
    `ProviderError` when the provider took less than it was asked to.
    """

    def __init__(self, name: str, path: Path, config: SessionConfig, notices: Notices) -> None:
        config = settle(config, notices)
        self.name, self._path, self.provider = name, path, config.name
        self._row, self._device_id = PROVIDERS[self.provider], config.device_id
        self._subject = Subject(name=name, path=path, provider=self.provider, version=ort.__version__)
        self._session = self._create(config)
        self._require_provider(config, notices)
        self.inputs = {port.name: port for port in map(read_port, self._session.get_inputs())}
        self.optional = {
            port.name: port for port in map(read_port, self._session.get_overridable_initializers())
        }
        self.outputs = {port.name: port for port in map(read_port, self._session.get_outputs())}
        self.metadata = dict(self._session.get_modelmeta().custom_metadata_map)
        self._idle: dict[Any, Bound] = {}
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
            bound = self._idle.pop(key, None)
        if bound is None:
            bound = Bound(self, shapes, outputs)
        try:
            yield bound
        finally:
            with self._lock:
                self._idle[key] = bound
                for old in list(self._idle)[:-_KEPT_BINDINGS]:
                    del self._idle[old]

    def run(self, feeds: Mapping[str, NDArray[Any]], output: str) -> NDArray[Any]:
        """One output, of inputs that may be `optional` ones, which cannot be bound to buffers."""
        for name, array in feeds.items():
            self.check_input(name, array.dtype, array.shape)
        options, terminate = self._run_options()
        try:
            found: NDArray[Any] = interruptible(
                lambda: self._session.run([output], dict(feeds), options), terminate
            )[0]
        except FAILURES as error:
            raise run_failure(self._subject, error) from error
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

    def new_binding(self) -> Any:
        """An `IOBinding` with nothing bound yet."""
        return self._session.io_binding()

    def device_value(self, dtype: np.dtype[Any], shape: Sequence[int]) -> Any:
        """An `OrtValue` in the provider's own memory; None where inputs stay in the host's."""
        if self._row.device is None:
            return None
        return ort.OrtValue.ortvalue_from_shape_and_type(
            list(shape), dtype.type, self._row.device, self._device_id
        )

    def execute(self, binding: Any) -> None:
        """Run on an IOBinding; Ctrl-C in the main thread stops it within milliseconds."""
        options, terminate = self._run_options()
        try:
            interruptible(lambda: self._session.run_with_iobinding(binding, options), terminate)
        except FAILURES as error:
            raise run_failure(self._subject, error) from error

    @staticmethod
    def _run_options() -> tuple[Any, Callable[[], None]]:
        """Options of one run, and what ends it early."""
        options = ort.RunOptions()
        # Failures come back as exceptions; the default also prints them.
        options.log_severity_level = 4

        def terminate() -> None:
            options.terminate = True

        return options, terminate

    def _create(self, config: SessionConfig) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = config.threads or 0
        options.log_severity_level = 4
        if self.provider != "cpu":
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if self._row.device == "cuda":
            _preload()
        rows = [PROVIDERS[name] for name in dict.fromkeys([self.provider, *self._row.helpers, "cpu"])]
        device = {"device_id": str(self._device_id)}
        arguments = [{**row.options, **(device if row.device else {})} for row in rows]
        cancel = getattr(options, "set_load_cancellation_flag", lambda flag: None)
        try:
            return interruptible(
                lambda: ort.InferenceSession(
                    str(self._path), options, [row.ort for row in rows], arguments, enable_fallback=0
                ),
                lambda: cancel(True),
            )
        except FAILURES as error:
            raise load_failure(self._subject, error) from error

    def _require_provider(self, config: SessionConfig, notices: Notices) -> None:
        """Compare what was asked for with what ONNX Runtime did, which it changes with only a warning."""
        active = self._session.get_providers()
        problem, remedy = "", f"{install_command(self._row.extra)} and run sdrt doctor"
        if active[0] != self._row.ort:
            problem = f"{self.name} was asked to run on {self.provider} and runs on {', '.join(active)}"
        elif self.provider != "cpu" and (strays := self._strays(notices)):
            listed = ", ".join(f"{count} {op}" for op, count in strays.most_common(5))
            problem = f"{self.name} runs on {self.provider} only in part: {listed} landed elsewhere"
            remedy = f"export the checkpoint with --target {self._row.target}"
        if problem and not config.allow_fallback:
            raise ProviderError(
                f"{problem}: {remedy}, or allow it with allow_fallback=True (--allow-fallback)"
            )
        if problem:
            notices.warn(problem)

    def _strays(self, notices: Notices) -> Counter[str]:
        """Operators with real work that are on neither the provider asked for nor its helpers."""
        report = getattr(self._session, "get_provider_graph_assignment_info", None)
        if report is None:
            notices.warn(
                f"{self.name}: onnxruntime {ort.__version__} does not tell which operators run on "
                f"{self.provider} and which on the CPU; upgrade it to find out"
            )
            return Counter()
        expected = {self._row.ort, *(PROVIDERS[name].ort for name in self._row.helpers)}
        elsewhere = [graph for graph in report() if graph.ep_name not in expected]
        operators = (node.op_type for graph in elsewhere for node in graph.get_nodes())
        return Counter(operator for operator in operators if operator in _HEAVY)
