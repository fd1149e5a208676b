"""Calibration for int8: measures the range of each layer's values while the float32 model makes images from prompts.

The graphs get outputs for the least and greatest value of each layer's input, and of each channel of a convolution's
output. These few numbers are merged call by call and no activation is kept, so calibrating needs no more memory than
making images. Ranges get a margin, because clipping a value hurts more than coarser steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from sdrt import StableDiffusionPipeline
from sdrt.common.notices import Notices
from sdrt.errors import RequestError
from sdrt.model_folder.folder import ModelFolder
from sdrt.model_folder.graph_kind import WHOLE_GRAPH, GraphKind
from sdrt.onnx.buffers import Bound
from sdrt.onnx.engine import ort
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.provider_options import Setting
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component
from sdrt.run.components import LoadedComponents
from sdrt.run.open_graphs import OpenGraphs
from sdrt_export.graphs.graph import FLOAT
from sdrt_export.graphs.stored import StoredGraph
from sdrt_export.quantize import Layer, Span, layers

__all__ = ["PROMPTS", "Calibration", "Call", "Found", "Run", "calibrate"]

Array = np.ndarray[Any, Any]
Report = Any

PROMPTS = (
    "a photo of a cat sitting on a wooden table, soft light",
    "portrait of an old man with a white beard, oil painting, highly detailed",
    "a castle on a cliff above the sea at sunset, fantasy landscape, matte painting",
    "a busy street in the rain at night, neon signs, cinematic",
    "a white ceramic vase with red flowers on a plain gray background, studio photograph",
    "an astronaut riding a horse on the moon",
    "a watercolour of mountains and a lake in autumn",
)
"""The prompts that a checkpoint is calibrated on by default."""

# Margins of the ranges of inputs and of a convolution's output channels, which have fewer samples.
_MARGIN, _OUTPUT_MARGIN = 1.15, 1.5
# A different number of steps for each prompt. Such runs share almost no timesteps.
_LEAST_STEPS, _STEP_COUNTS = 7, 6
_UNGUIDED = 4
_CHANNELS = ":channels"
_SEED = 1000


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How a model is calibrated.

    The model's scheduler denoises each prompt in 7 to 12 steps, so that runs visit different timesteps. Every fourth
    prompt is denoised without guidance. If there are fewer than four, the first is repeated without guidance. The last
    prompt is not used for ranges, but to measure errors.
    """

    prompts: tuple[str, ...] = PROMPTS
    steps: tuple[int, int] = (_LEAST_STEPS, _LEAST_STEPS + _STEP_COUNTS - 1)
    seed: int = _SEED

    def __post_init__(self) -> None:
        if len(self.prompts) < 2:
            raise RequestError.expected(
                f"{len(self.prompts)} calibration prompt",
                "at least 2, because the last one measures errors",
                argument="calibration_prompts",
            )

    def runs(self, guidance_scale: float | None) -> list[Run]:
        """The images to make. ``guidance_scale`` is the model's default, None if it has none."""
        low, high = self.steps
        made = [
            Run(
                prompt=prompt,
                num_inference_steps=low + index % (high - low + 1),
                guidance_scale=1.0 if index % _UNGUIDED == _UNGUIDED - 1 else guidance_scale,
                seed=self.seed + index,
            )
            for index, prompt in enumerate(self.prompts)
        ]
        held_out = replace(made.pop(), guidance_scale=guidance_scale, is_held_out=True)
        if all(run.guidance_scale != 1.0 for run in made):
            made.append(replace(made[0], guidance_scale=1.0, seed=self.seed + len(self.prompts)))
        return [*made, held_out]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One image. A held-out run measures errors instead of ranges."""

    prompt: str
    num_inference_steps: int
    guidance_scale: float | None
    seed: int
    is_held_out: bool = False


@dataclass(frozen=True, kw_only=True)
class Call:
    """The inputs of a component, and its output in float32."""

    inputs: dict[str, Array]
    output: str
    expected: Array


@dataclass(frozen=True, kw_only=True)
class Found:
    """A component's ranges by the layers' weights, and calls for measuring errors."""

    spans: dict[str, Span]
    calls: list[Call]


def calibrate(
    folder: Path,
    names: Sequence[str],
    plan: Calibration,
    guidance_scale: float | None,
    text_encoders: Sequence[str] = (),
) -> Iterator[Found | str]:
    """Make images with the float32 model in ``folder``. Yield progress as texts, then `Found` for each component.

    ``names`` come first, then ``text_encoders``. For text encoders it records only the calls, for every prompt. It
    writes graphs with more outputs beside those in ``folder``, whose weights they share.
    """
    probed = {name: _write(folder / name / "model.onnx") for name in names}
    recorded = {name: folder / name / "model.onnx" for name in text_encoders}
    # With low_vram, components would be opened again after memory runs out, and would lose their ranges.
    config = SessionConfig(provider="cpu", low_vram=False)
    graphs: list[_ProbedGraphs] = []
    made: list[LoadedComponents] = []

    def make_graphs(*arguments: Any) -> OpenGraphs:
        graphs.append(_ProbedGraphs(*arguments, probed=probed, recorded=recorded))
        return graphs[-1]

    def make(*arguments: Any) -> LoadedComponents:
        made.append(LoadedComponents(*arguments, make_graphs=make_graphs))
        return made[-1]

    pipeline = StableDiffusionPipeline(
        ModelFolder.open(folder), config, verify=False, notify=lambda message: None, make_components=make
    ).load()
    runs = plan.runs(guidance_scale)
    for index, run in enumerate(runs):
        yield f"image {index + 1} of {len(runs)}"
        for probe in graphs[0].probes.values():
            probe.held_out = run.is_held_out
        _make_image(pipeline, made[0], run, encode="vae_encoder" in probed)
    for name in names:
        probe = graphs[0].probes[name]
        yield Found(spans=_spans(probed[name], probe), calls=probe.calls)
    for name in text_encoders:
        yield Found(spans={}, calls=graphs[0].recorders[name].calls)


@dataclass(frozen=True, kw_only=True)
class _Probed:
    """A graph with more outputs, and the names of each layer's input and output ranges."""

    path: Path
    layers: dict[str, tuple[str, str | None]]


def _write(source: Path) -> _Probed:
    graph, path = StoredGraph.read(source), source.with_name("probed.onnx")
    found = list(layers(graph))
    reductions = _Reductions(graph)
    for name in dict.fromkeys(layer.node.input[0] for layer in found):
        reductions.add(name, name, axes=None)
    for layer in found:
        if layer.is_convolution:
            reductions.add(layer.node.output[0], f"{layer.node.output[0]}{_CHANNELS}", axes=[0, 2, 3])
    reductions.insert()
    graph.save_beside(path, graph)
    return _Probed(path=path, layers={layer.name: (layer.node.input[0], _output(layer)) for layer in found})


def _output(layer: Layer) -> str | None:
    return f"{layer.node.output[0]}{_CHANNELS}" if layer.is_convolution else None


class _Reductions:
    """Nodes for the extremes of values, each right after the node that makes the value."""

    def __init__(self, graph: StoredGraph) -> None:
        self._graph = graph
        self._after: dict[str, list[NodeProto]] = {}

    def add(self, value: str, name: str, axes: list[int] | None) -> None:
        """Add the outputs ``low:NAME`` and ``high:NAME``, the extremes of `value` over `axes`, all by default."""
        for prefix, operator in (("low", "ReduceMin"), ("high", "ReduceMax")):
            inputs, made = [value], f"{prefix}:{name}"
            if axes is not None:
                inputs.append(self._graph.constant(f"{made}:axes", np.array(axes, np.int64)))
            node = helper.make_node(operator, inputs, [made], name=made, keepdims=0)
            self._after.setdefault(value, []).append(node)
            shape = [] if axes is None else [None]
            self._graph.model.graph.output.append(helper.make_tensor_value_info(made, FLOAT, shape))

    def insert(self) -> None:
        """Put the nodes into the graph. Those of the graph's inputs come first."""
        nodes = self._graph.nodes
        made = {name for node in nodes for name in node.output}
        first = [one for value, added in self._after.items() if value not in made for one in added]
        rest = [[node, *(one for name in node.output for one in self._after.get(name, ()))] for node in nodes]
        self._graph.nodes = [*first, *(one for group in rest for one in group)]


class _Recorder(Component):
    """A component that records its calls."""

    def __init__(self, name: str, path: Path, config: SessionConfig, notices: Notices) -> None:
        super().__init__(name, path, config, notices)
        self.calls: list[Call] = []

    @contextmanager
    def bound(self, shapes: Mapping[str, tuple[int, ...]], outputs: Sequence[str]) -> Iterator[Bound]:
        probes = [name for name in self.outputs if ":" in name]
        with super().bound(shapes, (*outputs, *probes)) as run:
            yield _Watched(self, run, shapes, outputs[0], probes)  # type: ignore[misc]

    def see(
        self, inputs: dict[str, Array], output: str, found: Mapping[str, Array], probes: list[str]
    ) -> None:
        """Record one call, a `Call` for each output that was asked for."""
        names = [name for name in found if name not in probes]
        self.calls += [Call(inputs=inputs, output=name, expected=found[name].copy()) for name in names]


class _Probe(_Recorder):
    """A component that records the ranges of its layers, or its calls if ``held_out``."""

    def __init__(self, name: str, path: Path, config: SessionConfig, notices: Notices) -> None:
        super().__init__(name, path, config, notices)
        self.ranges: dict[str, Array] = {}
        self.held_out = False

    def see(
        self, inputs: dict[str, Array], output: str, found: Mapping[str, Array], probes: list[str]
    ) -> None:
        """Record one call."""
        if self.held_out:
            super().see(inputs, output, found, probes)
            return
        for name in probes:
            fold = np.minimum if name.startswith("low:") else np.maximum
            self.ranges[name] = fold(self.ranges.get(name, found[name]), found[name])

    def _create(
        self, config: SessionConfig, setting: Setting, weights: Weights, memory: MemoryGraph | None
    ) -> tuple[Any, MemoryGraph | None]:
        # To save memory, which peaks here: weights stay mapped from the file and are not packed, and memory is returned
        # after each run. By default, ranges would be computed last, and all activations kept until then.
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        options.enable_cpu_mem_arena = options.enable_mem_pattern = False
        return ort.InferenceSession(str(self._path), options, providers=["CPUExecutionProvider"]), None


class _Watched:
    """A `Bound` that reports its runs to its component."""

    def __init__(
        self, probe: _Recorder, run: Bound, shapes: Mapping[str, Any], output: str, probes: list[str]
    ) -> None:
        self._probe, self._run, self._output, self._probes = probe, run, output, probes
        self._inputs: dict[str, Array] = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        return self._run.shape(name)

    def set(self, name: str, array: Array) -> None:
        self._run.set(name, array)
        self._inputs[name] = np.array(array)

    def __call__(self) -> Mapping[str, Array]:
        found = self._run()
        self._probe.see(dict(self._inputs), self._output, found, self._probes)
        return found


class _ProbedGraphs(OpenGraphs):
    """The graphs of a model, some of which are probes, and some `recorded`."""

    def __init__(self, *arguments: Any, probed: Mapping[str, _Probed], recorded: Mapping[str, Path]) -> None:
        super().__init__(*arguments)
        self.probed, self.recorded = probed, recorded
        self.probes: dict[str, _Probe] = {}
        self.recorders: dict[str, _Recorder] = {}

    def open(self, name: str, kind: GraphKind = WHOLE_GRAPH, memory: MemoryGraph | None = None) -> Component:
        """See `OpenGraphs`."""
        if name in self.recorded:
            self.recorders[name] = _Recorder(name, self.recorded[name], self.config, self.notices)
            return self.recorders[name]
        if name not in self.probed or kind != WHOLE_GRAPH:
            return super().open(name, kind, memory)
        self.probes[name] = _Probe(name, self.probed[name].path, self.config, self.notices)
        return self.probes[name]


def _make_image(
    pipeline: StableDiffusionPipeline, components: LoadedComponents, run: Run, *, encode: bool
) -> None:
    """Make an image, and `encode` it if the VAE's encoder is calibrated."""
    image = pipeline(
        run.prompt,
        num_inference_steps=run.num_inference_steps,
        guidance_scale=run.guidance_scale,
        seed=run.seed,
        output_type="np",
    ).images[0]
    if encode:
        components.vae_encoder.mean(np.rint(image * 255).astype(np.uint8))


def _spans(probed: _Probed, probe: _Probe) -> dict[str, Span]:
    found = {}
    for name, (data, out) in probed.layers.items():
        low, high = (float(probe.ranges[f"{end}:{data}"]) * _MARGIN for end in ("low", "high"))
        channels = {}
        if out is not None:
            channels = {
                f"out_{end}": probe.ranges[f"{end}:{out}"] * _OUTPUT_MARGIN for end in ("low", "high")
            }
        found[name] = Span(low=low, high=high, **channels)
    return found
