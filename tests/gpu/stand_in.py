"""A GPU's part in ONNX Runtime, played by NumPy: so that the tests of a GPU are run before there is one.

What the runtime calls has the rules that the CUDA provider has: a device's memory is reached by copies alone, of the
same width; a recording belongs to the thread that made it, wants its outputs on the device, and when it is replayed
reads and writes where it did; memory has an end. How the numbers come about, `sdrt_export.evaluator` says, and ONNX
Runtime's CPU provider where it has the operators. Nothing is as fast, or as wrong, as on a GPU.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx_ir as ir

from sdrt.onnx import engine as onnx_runtime
from sdrt.onnx.engine import ort
from sdrt.onnx.tensor_spec import TensorSpec

__all__ = ["install"]

CUDA = "CUDAExecutionProvider"
_REAL = ort.InferenceSession
_TYPES = {"float32": "float", "float16": "float16", "float64": "double", "bool": "bool"}
# Kinds of numbers that ONNX Runtime's `GetCpuPreferredNodes` takes for shapes, and mostly has no other kernels for.
# Of tokens' numbers it has these.
_HAS_KERNELS = frozenset({"Clip", "GreaterOrEqual"})
_OF_SHAPES = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})


class Value:
    """An `OrtValue` in the device's memory."""

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        # Whoever reads what was never written finds no zeros there.
        self._array = np.empty(tuple(shape), dtype)
        self._array.view(np.uint8).fill(0xFF) if self._array.ndim else self._array.fill(-1)

    def numpy(self) -> np.ndarray:
        return self._array.copy()

    def update_inplace(self, array: np.ndarray) -> None:
        assert array.dtype == self._array.dtype, (array.dtype, self._array.dtype)
        assert array.shape == self._array.shape, (array.shape, self._array.shape)
        assert array.flags.c_contiguous
        np.copyto(self._array, array)

    def device_name(self) -> str:
        return "cuda"

    def data_ptr(self) -> int:
        return self._array.ctypes.data

    def shape(self) -> list[int]:
        return list(self._array.shape)


class Binding:
    """An `IOBinding`: inputs are values of the device or arrays of the host, outputs where they are to go."""

    def __init__(self, outputs: Sequence[str]) -> None:
        self.names = list(outputs)
        self.inputs: dict[str, Any] = {}
        self.outputs: dict[str, Any] = {}
        self.made: dict[str, Any] = {}

    def bind_ortvalue_input(self, name: str, value: Value) -> None:
        assert isinstance(value, Value)
        self.inputs[name] = value

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self.inputs[name] = array

    def bind_ortvalue_output(self, name: str, value: Value) -> None:
        self.outputs[name] = value

    def bind_output(
        self,
        name: str,
        device: str,
        device_id: int,
        dtype: Any = None,
        shape: Any = None,
        pointer: Any = None,
    ) -> None:
        assert device in ("cpu", "cuda")
        self.outputs[name] = (device, dtype, shape, pointer)

    def get_outputs(self) -> list[Any]:
        return [self.made[name] for name in self.outputs]

    def synchronize_outputs(self) -> None:
        return

    def feeds(self) -> dict[str, np.ndarray]:
        return {
            name: value.numpy() if isinstance(value, Value) else value for name, value in self.inputs.items()
        }

    def keep(self, found: Mapping[str, np.ndarray]) -> None:
        """Put results where they are to go."""
        for name, result in found.items():
            # A transpose of NumPy's is a view, in the order of what it views.
            where, array = self.outputs[name], np.ascontiguousarray(result)
            if isinstance(where, Value):
                where.update_inplace(array)
                self.made[name] = where
                continue
            _device, dtype, shape, pointer = where
            if pointer is not None:
                assert (array.dtype, list(array.shape)) == (np.dtype(dtype), list(shape))
                ctypes.memmove(pointer, array.ctypes.data, array.nbytes)
            self.made[name] = SimpleNamespace(numpy=lambda array=array: array)

    def are_on_device(self) -> bool:
        return all(isinstance(value, Value) for value in (*self.inputs.values(), *self.outputs.values()))


class Session:
    """An `InferenceSession` on the CUDA provider."""

    def __init__(self, path: str, options: Any, passed: Mapping[str, str]) -> None:
        from sdrt_export.evaluator import Evaluator

        if passed.get("device_id", "0") != "0":
            raise RuntimeError("CUDA failure 101: invalid device ordinal")
        self._evaluator = Evaluator(Path(path))
        self._need(Path(path), passed)
        self._placed = _placement(Path(path))
        # cuDNN's plans and recordings are a thread's: whoever runs in another one makes them again.
        self._thread = threading.get_ident()
        self._records = passed.get("enable_cuda_graph") == "True"
        self._recordings: dict[tuple[int, int], Binding] = {}
        self._real = _on_cpu(path, options)

    def _need(self, path: Path, passed: Mapping[str, str]) -> None:
        limit = int(passed.get("gpu_mem_limit", 1 << 40))
        weights = ir.load(path).graph.initializers.values()
        size = sum(value.const_value.nbytes for value in weights if value.const_value is not None)
        if size > limit:
            raise RuntimeError(f"Available memory of {limit} is smaller than requested bytes of {size}")

    def get_providers(self) -> list[str]:
        return [CUDA, "CPUExecutionProvider"]

    def get_inputs(self) -> list[Any]:
        return [_argument(self._evaluator.specs[name]) for name in self._evaluator.inputs]

    def get_overridable_initializers(self) -> list[Any]:
        specs = self._evaluator.specs
        return [_argument(spec) for name, spec in specs.items() if name not in self._evaluator.inputs]

    def get_outputs(self) -> list[Any]:
        return [_argument(spec) for spec in self._evaluator.output_specs]

    def get_modelmeta(self) -> Any:
        return SimpleNamespace(custom_metadata_map=self._evaluator.metadata)

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return self._placed

    def io_binding(self) -> Binding:
        return Binding(self._evaluator.outputs)

    def run(
        self, outputs: list[str], feeds: Mapping[str, np.ndarray], options: Any = None
    ) -> list[np.ndarray]:
        assert threading.get_ident() == self._thread, "another thread than the one that loaded it"
        if self._real is not None:
            return list(self._real.run(outputs, dict(feeds)))
        with np.errstate(all="ignore"):  # NumPy tells of overflows, a GPU does not
            return self._evaluator.run(feeds, outputs)

    def run_with_iobinding(self, binding: Binding, options: Any = None) -> None:
        number = int(options.get_run_config_entry("gpu_graph_id")) if self._records else -1
        recording = self._recordings.get((threading.get_ident(), number))
        if number >= 0 and recording is None:
            assert binding.are_on_device(), "CUDA records no copies to the host"
            recording = self._recordings[threading.get_ident(), number] = _frozen(binding)
        binding = binding if recording is None else recording
        names = list(binding.outputs)
        binding.keep(dict(zip(names, self.run(names, binding.feeds()), strict=True)))


def _frozen(binding: Binding) -> Binding:
    """What a recording reads and writes, whatever is bound later."""
    frozen = Binding(binding.names)
    frozen.inputs, frozen.outputs = dict(binding.inputs), dict(binding.outputs)
    frozen.made = binding.made
    return frozen


def _on_cpu(path: str, options: Any) -> Any:
    """A session of ONNX Runtime's own, where its CPU provider has the operators: much faster."""
    # This one it loads, and refuses when it runs.
    attentions = [node for node in ir.load(path).graph if node.op_type == "MultiHeadAttention"]
    if any(len(node.inputs) < 3 for node in attentions):
        return None
    try:
        return _REAL(path, options, ["CPUExecutionProvider"])
    except onnx_runtime.FAILURES:
        return None


def _placement(path: Path) -> list[Any]:
    operators: dict[str, list[Any]] = {CUDA: [], "CPUExecutionProvider": []}
    for node in ir.load(path).graph:
        whole = all(value is None or value.dtype in _OF_SHAPES for value in node.inputs)
        on_host = node.op_type == "Shape" or (whole and node.op_type not in _HAS_KERNELS)
        provider = "CPUExecutionProvider" if on_host else CUDA
        operators[provider].append(SimpleNamespace(op_type=node.op_type))
    return [
        SimpleNamespace(ep_name=provider, get_nodes=lambda nodes=nodes: nodes)
        for provider, nodes in operators.items()
    ]


def _argument(spec: TensorSpec) -> Any:
    kind = _TYPES.get(spec.dtype.name, spec.dtype.name)
    return SimpleNamespace(name=spec.name, type=f"tensor({kind})", shape=list(spec.shape))


def install() -> None:
    """From now on ONNX Runtime offers CUDA in this process. Not undone: nothing else runs in it."""
    offered, make = ort.get_available_providers(), ort.OrtValue.ortvalue_from_shape_and_type

    def session(
        path: Any, options: Any = None, providers: Any = None, arguments: Any = None, **named: Any
    ) -> Any:
        if providers and providers[0] == CUDA:
            return Session(path, options, arguments[0])
        return _REAL(path, options, providers, arguments, **named)

    def value(shape: Any, dtype: Any, device: str = "cpu", device_id: int = 0) -> Any:
        if device != "cuda":
            return make(shape, dtype, device, device_id)
        if device_id:
            raise RuntimeError("CUDA failure 101: invalid device ordinal")
        return Value(shape, dtype)

    # The methods that the runtime asks the class for.
    session.get_provider_graph_assignment_info = None  # type: ignore[attr-defined]
    ort.get_available_providers = lambda: [CUDA, *offered]
    ort.InferenceSession = session
    ort.OrtValue.ortvalue_from_shape_and_type = staticmethod(value)
    onnx_runtime.has_cudnn = lambda: True
    onnx_runtime.cuda_works.cache_clear()
