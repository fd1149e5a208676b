"""ONNX Runtime, and the only module that imports it: providers, buffers, input checks, cancelling, errors."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sdrt.config import AUTO, PROVIDERS, Notices, Provider, SessionConfig
from sdrt.errors import (
    ComponentError,
    IntegrityError,
    ModelError,
    OutOfMemoryError,
    ProviderError,
    SdrtError,
    UnsupportedModelError,
)
from sdrt.interrupt import interruptible

try:
    import onnxruntime as ort
    from onnxruntime.capi import onnxruntime_pybind11_state as ort_state
except ImportError as error:
    raise ProviderError(
        f"ONNX Runtime cannot be imported ({error}): pip install 'sdrt[cpu]', or 'sdrt[gpu]' for NVIDIA"
    ) from error

__all__ = ["Bound", "Component", "Port", "resolve_provider"]

_DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
}
# ONNX Runtime's exceptions share no base class, and older builds lack some of them.
_ORT_NAMES: tuple[str, ...] = (
    "DeviceReset",
    "EPFail",
    "EngineError",
    "Fail",
    "InvalidArgument",
    "InvalidGraph",
    "InvalidProtobuf",
)
_ORT_NAMES += ("ModelLoadCanceled", "ModelRequiresCompilation", "NoModel", "NoSuchFile", "NotFound")
_ORT_NAMES += ("NotImplemented", "RuntimeException")
_FAILURES: tuple[type[BaseException], ...] = (
    MemoryError,
    RuntimeError,
    ValueError,
    *(getattr(ort_state, name) for name in _ORT_NAMES if hasattr(ort_state, name)),
)
_MEMORY_MARKS = ("failed to allocate memory", "bad allocation", "bad_alloc", "out of memory", "alloc_failed")
_UNSUPPORTED_MARKS = (
    "not_implemented",
    "could not find an implementation",
    "is not a registered function/op",
)
_DAMAGED_MARKS: tuple[str, ...] = (
    "invalidprotobuf",
    "protobuf parsing failed",
    "no such file",
    "out of bounds",
    "external data",
)
_DAMAGED_MARKS += (
    "doesn't have a graph",
    "modelproto does not have a graph",
    "no graph was found",
    "does not exist",
    "file size",
)
# Operators that carry the work: one of these on another provider than the one asked for is a fallback.
_HEAVY = frozenset(
    {"Conv", "NhwcConv", "FusedConv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul", "MatMulNBits"}
    | {"MultiHeadAttention", "Attention", "GroupNorm", "SkipGroupNorm", "InstanceNormalization"}
)
_KEPT_BINDINGS = 4


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of a graph; a dimension is a number, or a name when it is free."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]

    def describe(self) -> str:
        """For messages: `float32[batch, 4, height, width]`."""
        return f"{self.dtype.name}[{', '.join(map(str, self.shape))}]"

    def accepts(self, shape: Sequence[int]) -> bool:
        """Whether an array of `shape` has this rank and these fixed dimensions."""
        pairs = zip(self.shape, shape, strict=False)
        return len(shape) == len(self.shape) and all(isinstance(a, str) or a == b for a, b in pairs)


def available_providers() -> tuple[str, ...]:
    """Our names of the providers that this ONNX Runtime build offers."""
    offered = ort.get_available_providers()
    return tuple(name for name, row in PROVIDERS.items() if row.ort in offered)


def resolve_provider(config: SessionConfig) -> str:
    """The name of a row of `PROVIDERS`: "auto" is cuda where this build offers it, else cpu.

    Raises `ProviderError` with the fix when this build lacks the provider.
    """
    offered = available_providers()
    if config.name == AUTO:
        return "cuda" if "cuda" in offered else "cpu"
    if config.name in offered:
        return config.name
    row = PROVIDERS[config.name]
    fix = (
        f"pip uninstall -y onnxruntime; pip install 'sdrt[{row.extra}]'"
        if row.extra
        else "see onnxruntime.ai"
    )
    raise ProviderError(
        f"onnxruntime {ort.__version__} as installed has no {config.name} provider ({row.ort}), "
        f"it offers {', '.join(offered)}: {fix}"
    )


class Component:
    """One graph in one session: `text_encoder`, `unet`, `vae_decoder` or `vae_encoder`.

    Raises `IntegrityError` for a damaged file, `UnsupportedModelError` for operators this build lacks,
    `ProviderError` when the provider took less than it was asked to.
    """

    def __init__(self, name: str, path: Path, config: SessionConfig, notices: Notices) -> None:
        self.name, self._path = name, path
        self.provider = resolve_provider(config)
        self._row, self._device_id = PROVIDERS[self.provider], config.device_id
        self._session = self._create(config)
        self._require_provider(config, notices)
        self.inputs = {port.name: port for port in map(_port, self._session.get_inputs())}
        self.outputs = {port.name: port for port in map(_port, self._session.get_outputs())}
        self._idle: dict[Any, Bound] = {}
        self._lock = threading.Lock()

    def require(self, inputs: Mapping[str, Sequence[str]] | Sequence[str], outputs: Sequence[str]) -> None:
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

    def check_input(self, name: str, dtype: np.dtype[Any], shape: Sequence[int]) -> None:
        """Raise `ComponentError` naming the input, what it takes and what came."""
        port = self.inputs.get(name)
        if port is None:
            raise ComponentError(f"{self.name} has no input {name!r}: it takes {', '.join(self.inputs)}")
        # Widths of one kind are converted here (float32 to a half graph); kinds never are.
        same_kind = np.can_cast(dtype, port.dtype, casting="same_kind")
        if not same_kind or not port.accepts(shape):
            came = f"{dtype.name}[{', '.join(map(str, shape))}]"
            raise ComponentError(f"{self.name}: input {name!r} takes {port.describe()}, got {came}")

    def check_finite(self, output: str, array: NDArray[np.float32]) -> None:
        """Raise `ComponentError` when `array`, this component's `output`, holds NaN or infinity."""
        if not np.isfinite(array).all():
            raise ComponentError(
                f"{self.name}: output {output!r} is not finite (NaN or infinity): the graph overflows or is "
                "damaged; export it again in fp32"
            )

    def execute(self, binding: Any) -> None:
        """Run on an IOBinding; Ctrl-C in the main thread stops it within milliseconds."""
        options = ort.RunOptions()
        # Failures come back as exceptions; the default also prints them.
        options.log_severity_level = 4

        def terminate() -> None:
            options.terminate = True

        try:
            interruptible(lambda: self._session.run_with_iobinding(binding, options), terminate)
        except _FAILURES as error:
            raise self._failure(error, "failed to run") from error

    def _create(self, config: SessionConfig) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = config.threads or 0
        options.log_severity_level = 4
        if self.provider != "cpu":
            options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        _preload(self._row)
        arguments = dict(self._row.options)
        if self._row.device == "cuda":
            arguments["device_id"] = str(self._device_id)
        providers = list(dict.fromkeys([self._row.ort, "CPUExecutionProvider"]))
        arguments_by_provider = [arguments, {}][: len(providers)]
        cancel = getattr(options, "set_load_cancellation_flag", lambda flag: None)
        try:
            return interruptible(
                lambda: ort.InferenceSession(
                    str(self._path), options, providers, arguments_by_provider, enable_fallback=0
                ),
                lambda: cancel(True),
            )
        except _FAILURES as error:
            raise self._failure(error, "cannot be loaded") from error

    def _failure(self, error: BaseException, what: str) -> SdrtError:
        text = str(error)
        low = text.lower() + type(error).__name__.lower()
        reason = " ".join(text.split())[:400]
        if isinstance(error, MemoryError) or any(mark in low for mark in _MEMORY_MARKS):
            return OutOfMemoryError(
                f"{self.name} ran out of memory on {self.provider}: make fewer pictures at once "
                f"(num_images_per_prompt, --batch-size) or smaller ones; {reason}"
            )
        if what == "failed to run":
            return ComponentError(f"{self.name} failed to run on {self.provider}: {reason}")
        if any(mark in low for mark in _UNSUPPORTED_MARKS):
            return UnsupportedModelError(
                f"{self.name}: {self._path} needs an operator that {self.provider} lacks in onnxruntime "
                f"{ort.__version__}: export with --target portable; {reason}"
            )
        if any(mark in low for mark in _DAMAGED_MARKS):
            return IntegrityError(
                f"{self.name}: {self._path} is damaged: copy or export the model again; {reason}"
            )
        kind = ModelError if self.provider == "cpu" else ProviderError
        return kind(
            f"{self.name}: {self._path} cannot be loaded on {self.provider}: export it again; {reason}"
        )

    def _require_provider(self, config: SessionConfig, notices: Notices) -> None:
        """Compare what was asked for with what ONNX Runtime did, which it changes with only a warning."""
        active = self._session.get_providers()
        problem = ""
        if active[0] != self._row.ort:
            problem = f"{self.name} was asked to run on {self.provider} and runs on {', '.join(active)}"
        elif strays := self._strays():
            listed = ", ".join(f"{count} {op}" for op, count in strays.most_common(5))
            problem = f"{self.name} runs on {self.provider} only in part: {listed} landed elsewhere"
        if problem and not config.allow_fallback:
            extra = f"'sdrt[{self._row.extra}]'" if self._row.extra else "its libraries"
            raise ProviderError(
                f"{problem}: install {extra} and run sdrt doctor, or allow it with allow_fallback=True "
                "(--allow-fallback)"
            )
        if problem:
            notices.warn(problem)

    def _strays(self) -> Counter[str]:
        """Operators with real work that are not on the provider asked for, where ONNX Runtime can tell."""
        report = getattr(self._session, "get_provider_graph_assignment_info", None)
        if report is None or self.provider == "cpu":
            return Counter()
        elsewhere = [graph for graph in report() if graph.ep_name != self._row.ort]
        operators = (node.op_type for graph in elsewhere for node in graph.get_nodes())
        return Counter(operator for operator in operators if operator in _HEAVY)


class Bound:
    """Input and output buffers of one component for one set of shapes.

    On the CPU the graph reads and writes these arrays in place. On a device, inputs live there and are
    updated in place, so what does not change (text embeddings) is uploaded once; outputs
    arrive in host memory.
    """

    def __init__(
        self, component: Component, shapes: Mapping[str, tuple[int, ...]], outputs: Sequence[str]
    ) -> None:
        self._component, self._outputs = component, tuple(outputs)
        self._binding = component._session.io_binding()
        self._device: dict[str, Any] = {}
        self._host: dict[str, NDArray[Any]] = {}
        self._results: dict[str, NDArray[Any]] = {}
        self._raw: dict[str, NDArray[Any]] = {}
        for name, shape in shapes.items():
            self._bind_input(name, tuple(shape))
        for name in self._outputs:
            self._binding.bind_output(name, "cpu")

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape that the input `name` was bound for."""
        return self._host[name].shape

    def set(self, name: str, array: NDArray[Any]) -> None:
        """Copy `array` into the input `name`, to the width of float or integer that the graph takes."""
        self._component.check_input(name, array.dtype, array.shape)
        host = self._host[name]
        if host.shape != array.shape:
            raise ComponentError(
                f"{self._component.name}: input {name!r} was bound for shape {host.shape}, got {array.shape}"
            )
        np.copyto(host, array, casting="same_kind")
        if name in self._device:
            self._device[name].update_inplace(host)

    def __call__(self) -> Mapping[str, NDArray[Any]]:
        """Run; returns the outputs, floats as float32, in arrays that the next run overwrites."""
        self._component.execute(self._binding)
        if not self._results:
            self._keep_outputs()
        for name, raw in self._raw.items():
            if raw is not self._results[name]:
                np.copyto(self._results[name], raw, casting="same_kind")
        return self._results

    def _bind_input(self, name: str, shape: tuple[int, ...]) -> None:
        port = self._component.inputs[name]
        self._component.check_input(name, port.dtype, shape)
        self._host[name] = np.zeros(shape, port.dtype)
        device = self._component._row.device
        if device == "cpu":
            self._binding.bind_cpu_input(name, self._host[name])
            return
        self._device[name] = ort.OrtValue.ortvalue_from_shape_and_type(
            list(shape), port.dtype.type, device, self._component._device_id
        )
        self._binding.bind_ortvalue_input(name, self._device[name])

    def _keep_outputs(self) -> None:
        """After the first run the shapes of the outputs are known: from now on write into fixed buffers."""
        for name, value in zip(self._outputs, self._binding.get_outputs(), strict=True):
            raw = np.array(value.numpy())
            self._binding.bind_output(name, "cpu", 0, raw.dtype.type, list(raw.shape), raw.ctypes.data)
            self._raw[name] = raw
            is_float = np.issubdtype(raw.dtype, np.floating)
            self._results[name] = raw.astype(np.float32, copy=False) if is_float else raw


def _port(argument: Any) -> Port:
    if argument.type not in _DTYPES:
        raise UnsupportedModelError(
            f"{argument.name!r} is a {argument.type}, expected one of {', '.join(_DTYPES)}"
        )
    shape = tuple(size if isinstance(size, int) else str(size) for size in argument.shape)
    return Port(name=argument.name, dtype=np.dtype(_DTYPES[argument.type]), shape=shape)


def _preload(row: Provider) -> None:
    """Load the CUDA and cuDNN libraries of the `nvidia-*` wheels, which the loader cannot find."""
    if row.device == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
