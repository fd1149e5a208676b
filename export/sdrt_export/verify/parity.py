"""Compares each component's graph in ONNX Runtime with the unchanged torch module, at two sizes.

Graphs with operators that ONNX Runtime has for GPUs only run on a GPU, or with NumPy if there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sdrt.common.notices import Notices
from sdrt.errors import ExportError, OutOfMemoryError, SdrtError
from sdrt.model_folder.graph_kind import ImageInput
from sdrt.onnx.engine import FAILURES, available_providers, cuda_works, ort
from sdrt.onnx.error_messages import Subject, run_failure
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component as Session
from sdrt.onnx.tensor_spec import TensorSpec, read_tensor_specs
from sdrt.vae.stages import StagedVae
from sdrt_export.components import Component
from sdrt_export.components.component import Config
from sdrt_export.evaluator import Evaluator
from sdrt_export.targets import Target
from sdrt_export.verify import modules

__all__ = ["HALF", "LIMITS", "Reference", "compare", "compare_stages", "reference"]

HALF = "half"
"""The key in `LIMITS` of graphs that compute in float16."""
LIMITS: Mapping[str, float] = {"fp32": 1e-4, "fp16": 5e-3, HALF: 1e-2}
"""The largest relative errors accepted, by dtype. Measured errors are 1e-7 to 1e-5 in float32, whose sums have another
order; 5e-4 to 2e-3 with weights rounded to float16; 7e-4 to 4e-3 with every result rounded to float16 ("half")."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Inputs of one size, and torch's outputs in the order of the component's output names."""

    inputs: dict[str, Array]
    outputs: list[Array]


def reference(
    component: Component,
    config: Config,
    tensors: Mapping[str, Array],
    sizes: tuple[int, int] = (1, 2),
    images: Sequence[ImageInput] = (),
) -> list[Reference]:
    """Load the torch module, and run it at two of the component's example sizes.

    With `images`, it is a U-Net that sees them.
    """
    module = modules.load(component, config, tensors, images)
    made = []
    for size in sizes:
        inputs = component.examples(config, size)
        made.append(Reference(inputs=inputs, outputs=modules.run(component, module, inputs)))
    return made


def compare(
    component: Component,
    path: Path,
    names: list[str],
    references: list[Reference],
    dtype: str,
    target: Target,
    instead: str | None = None,
) -> list[dict[str, Any]]:
    """Run the graph at ``path`` on the same inputs. Return a row for the manifest for each size.

    The relative error is an output's largest difference over its largest magnitude. ``names`` are the outputs of
    ``references``. Those that the graph lacks are skipped (optimum's has no ``last_hidden_state.skip_k``). ``instead``
    is the remedy for messages, by default the target's.

    Raises:
        ExportError: ONNX Runtime refuses the graph, or an output differs by more than ``LIMITS[dtype]`` or is not
            finite.
        OutOfMemoryError: there is not enough memory to run the graph.
    """
    instead = target.instead if instead is None else instead
    with _explained(component.name, path, target, instead):
        runner = _open(component.name, path, dtype, target)
        return _compare(component, runner, names, references, dtype, instead)


@contextmanager
def _explained(name: str, path: Path, target: Target, instead: str) -> Iterator[None]:
    """Turn failures of running the graph into errors of the export, with its remedies."""
    try:
        yield
    except ExportError:
        raise
    except _FAILURES as error:
        provider = "cuda" if target.channels_last and _has_gpu() else "cpu"
        subject = Subject(name=name, path=path, provider=provider, version=ort.__version__)
        if isinstance(error, MemoryError) or isinstance(run_failure(subject, error), OutOfMemoryError):
            hide = (
                "; or hide the GPU (CUDA_VISIBLE_DEVICES=-1) to compare with NumPy"
                if provider == "cuda"
                else ""
            )
            raise OutOfMemoryError.advised(
                f"{name}: not enough memory on {provider} to compare the exported graph with torch: "
                f"{error}; nothing was written",
                f"end other programs that use memory there{hide}",
                component=name,
                provider=provider,
            ) from error
        raise ExportError.advised(
            f"{name}: ONNX Runtime {ort.__version__} refuses the exported graph on {provider}: "
            f"{error}; nothing was written",
            f"try {instead}",
            component=name,
            provider=provider,
        ) from error


def _compare(
    component: Component,
    runner: _Runner,
    names: list[str],
    references: list[Reference],
    dtype: str,
    instead: str,
) -> list[dict[str, Any]]:
    rows = []
    for case in references:
        outputs = {name: out for name, out in zip(names, case.outputs, strict=True) if name in runner.outputs}
        got = runner.run(list(outputs), _as_declared(runner, case.inputs))
        errors = {name: _relative_error(a, b) for (name, b), a in zip(outputs.items(), got, strict=True)}
        worst = max(errors, key=errors.__getitem__)
        shapes = {key: list(value.shape) for key, value in case.inputs.items()}
        if not errors[worst] <= LIMITS[dtype]:
            raise ExportError.advised(
                f"{component.name}: output {worst} differs from torch by {errors[worst]:.2g} (relative) "
                f"for inputs {shapes}; the limit for {dtype} is {LIMITS[dtype]:g}; nothing was written",
                f"try {instead}",
                component=component.name,
            )
        error = float(f"{errors[worst]:.3g}")
        rows.append({"inputs": shapes, "output": worst, "relative_error": error, **runner.by})
    return rows


def compare_stages(
    component: Component, path: Path, references: list[Reference], dtype: str, target: Target
) -> list[dict[str, Any]]:
    """Like `compare`, for the VAE in stages: the runtime runs them for one image in several tiles.

    Raises:
        ExportError, OutOfMemoryError: as `compare`.
    """
    name = f"{component.name} in stages"
    (inputs,), (expected,) = references[0].inputs.values(), references[0].outputs
    with _explained(name, path, target, target.instead):
        session, by = _stages(name, path, dtype, target)
        # 256 pixels at the widest stage: full-size models take 2 to 6 tiles for the example, in seconds.
        widest = max(int(spec.shape[1]) for spec in session.outputs.values())
        error = _relative_error(StagedVae(session, tile=256 * widest)(inputs[0]), expected[0])
    if not error <= LIMITS[dtype]:
        raise ExportError.advised(
            f"{component.name}: in tiles, the output differs from torch by {error:.2g} (relative) for "
            f"an input of shape {inputs[0].shape}; the limit for {dtype} is {LIMITS[dtype]:g}; "
            "nothing was written",
            f"try {target.instead}",
            component=component.name,
        )
    shape = {"tiled": list(inputs[0].shape)}
    return [{"inputs": shape, "output": path.name, "relative_error": float(f"{error:.3g}"), **by}]


@dataclass(frozen=True, kw_only=True)
class _Runner:
    """A graph, and a function that runs it. ``by`` goes to the manifest."""

    run: Callable[[list[str], dict[str, Array]], list[Array]]
    inputs: Mapping[str, TensorSpec]
    outputs: list[str]
    by: Mapping[str, str]


_FAILURES: tuple[type[BaseException], ...] = (*FAILURES, SdrtError)
_NUMPY = {"evaluator": "numpy"}


def _cuda(dtype: str) -> SessionConfig:
    """The configuration for CUDA: the default one for graphs that compute in float16, others without TF32.

    By default the provider rounds float32's factors to TF32's 10 bits, an error of 1e-3 that the limits do not allow.
    Graphs in float16 keep TF32, because without it convolutions would use other kernels than in generation.
    """
    return SessionConfig(provider="cuda", provider_options={} if dtype == HALF else {"use_tf32": False})


def _open(name: str, path: Path, dtype: str, target: Target) -> _Runner:
    if not target.channels_last:
        session = _session(path)
        arguments = (*session.get_inputs(), *session.get_overridable_initializers())
        return _Runner(
            run=session.run,
            inputs=read_tensor_specs(arguments),
            outputs=[output.name for output in session.get_outputs()],
            by={},
        )
    if _has_gpu():
        gpu = Session(name, path, _cuda(dtype), Notices(None))
        return _Runner(
            run=lambda outputs, feeds: [gpu.run(feeds, output) for output in outputs],
            inputs=gpu.inputs | gpu.optional,
            outputs=list(gpu.outputs),
            by={"evaluator": "cuda"},
        )
    evaluator = Evaluator(path)
    return _Runner(
        run=lambda outputs, feeds: evaluator.run(feeds, outputs),
        inputs=evaluator.specs,
        outputs=evaluator.outputs,
        by=_NUMPY,
    )


def _stages(name: str, path: Path, dtype: str, target: Target) -> tuple[Session, Mapping[str, str]]:
    if not target.channels_last:
        return Session(name, path, SessionConfig(provider="cpu"), Notices(None)), {}
    if _has_gpu():
        return Session(name, path, _cuda(dtype), Notices(None)), {"evaluator": "cuda"}
    return _NumpySession(name, path), _NUMPY


def _has_gpu() -> bool:
    return "cuda" in available_providers() and cuda_works()


class _NumpySession(Session):
    """The parts of a session that the VAE's stages use, with NumPy."""

    def __init__(self, name: str, path: Path) -> None:
        self._evaluator = Evaluator(path)
        self.name, self._path = name, path
        self.inputs = {key: self._evaluator.specs[key] for key in self._evaluator.inputs}
        self.outputs = {spec.name: spec for spec in self._evaluator.output_specs}
        self.optional, self.metadata = {}, self._evaluator.metadata

    def run(self, feeds: Mapping[str, Array], output: str) -> Array:
        return self._evaluator.run(feeds, [output])[0]


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # For a single use: all of ONNX Runtime's fusions, but no layout changes and packed weights, which take 15 s and a
    # second copy of a full-size U-Net. So its 3.4 GB stay mapped from the file.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _as_declared(runner: _Runner, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The inputs that the graph takes, in its dtypes. optimum's timestep is an integer."""
    specs = runner.inputs
    return {name: value.astype(specs[name].dtype) for name, value in inputs.items() if name in specs}


def _relative_error(got: Array, expected: Array) -> float:
    if got.shape != expected.shape or not np.isfinite(got).all():
        return float("inf")
    scale = float(np.abs(expected).max()) or 1.0
    return float(np.abs(got.astype(np.float64) - expected).max()) / scale
