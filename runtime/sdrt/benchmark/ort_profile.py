"""Where the time of a step goes, by operator, from ONNX Runtime's own profile."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sdrt.benchmark.ceiling import least_seconds, measure_ceiling
from sdrt.benchmark.configurations import Configuration, Rules
from sdrt.benchmark.measure import Model, open_pipeline, session_config
from sdrt.benchmark.onnx_blocks import blocks
from sdrt.benchmark.timed_generation import Generation, generator
from sdrt.common.notices import Notices, Notify
from sdrt.errors import SdrtError
from sdrt.model_folder.model import Model as OpenedModel

if TYPE_CHECKING:
    from sdrt.onnx.session import Component

__all__ = ["operators", "profile"]

_LEAST_STEPS = 10
_KERNEL = "_kernel_time"
_MICRO = 1e-6
_SIZES = ("parameter_size", "activation_size", "output_size")
_BY_INNER = (
    *("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulNBits", "DynamicQuantizeMatMul"),
    *("MatMulInteger", "MatMulIntegerToFloat"),
)
_VIEWS = ("Reshape", "Shape", "Size", "Squeeze", "Unsqueeze", "Flatten", "Identity")
_CONVOLUTIONS = ("Conv", "FusedConv", "NhwcConv", "QLinearConv")

Event = Mapping[str, Any]


def profile(model: Model, configuration: Configuration, rules: Rules, tell: Notify) -> dict[str, Any]:
    """The operators of every component, over warm generations with at least ten steps; `rules` limit the time.

    The `seconds` of an operator include all its calls. Compare them with `step_seconds`, the time of all `steps`.
    `rates` says what has meaningful rates: "operators", only the "step" if the profile times the launches of
    operators, or None if operators were merged or replayed. `ceiling` is the result of `measure_ceiling`, None
    without one.
    """
    with tempfile.TemporaryDirectory(prefix="sdrt-profile-") as folder:
        pipeline = open_pipeline(model, configuration, tell, profile=folder)
        pipeline.load()
        generate = generator(pipeline, configuration)
        tell("profiling")
        generate()
        kept = _repeat(generate, rules)
        roles = pipeline.model.family.roles
        opened = {roles.get(graph.name, graph.name): graph for graph in pipeline.graphs}
        rates = _rates(opened["unet"])
        graphs = {
            name: (_graph_file(pipeline.model, graph, Path(folder)), graph.end_profile())
            for name, graph in opened.items()
        }
        runs = Counter(name for one in kept for name, _, _ in one.spans)
        steps = [step for one in kept for step in one.steps]
        pipeline.close()  # makes room for the ceiling
        ceiling = None if rates is None else _ceiling(configuration, pipeline.model, tell)
        return {
            "ceiling": ceiling,
            "rates": None if ceiling is None else rates,
            "generations": len(kept),
            "steps": len(steps),
            "step_seconds": sum(step.wall for step in steps),
            "components": {
                name: {
                    "runs": runs[name],
                    "seconds": sum(
                        end - start for one in kept for part, start, end in one.spans if part == name
                    ),
                    "operators": operators(_read(file), runs[name], blocks(graph), ceiling),
                }
                for name, (graph, file) in graphs.items()
                if runs[name]
            },
        }


def _graph_file(model: OpenedModel, graph: Component, folder: Path) -> Path:
    """The file of a graph. One in memory is written into `folder`."""
    source = model.graph(graph.name)
    if source is None or source.build is None:
        return graph.path
    path = folder / f"{graph.name}.onnx"
    path.write_bytes(source.build().content)
    return path


def _rates(denoiser: Component) -> str | None:
    """The value of `rates` in `profile`."""
    if denoiser.records:
        return None
    return {"cpu": "operators", "cuda": "step"}.get(denoiser.provider)


def _ceiling(configuration: Configuration, model: OpenedModel, tell: Notify) -> dict[str, Any] | None:
    """The ceiling of the provider, or None with a notice: the profile is useful without it."""
    tell("measuring the highest rates of the provider")
    try:
        return measure_ceiling(session_config(configuration), _computes_in(model), Notices(tell))
    except SdrtError as error:
        tell(f"the highest rates of the provider were not measured: {error}")
        return None


def _computes_in(model: OpenedModel) -> np.dtype[Any]:
    """The dtype that the U-Net multiplies in. Target cpu widens float16 weights; int8 counts as float32."""
    is_half = model.manifest is not None and model.manifest.target != "cpu"
    return np.dtype(
        np.float16
        if is_half and model.weights(model.family.denoiser.component).dtype == "float16"
        else np.float32
    )


def _repeat(generate: Any, rules: Rules) -> list[Generation]:
    deadline = time.perf_counter() + rules.time_limit
    kept = [generate()]
    while sum(len(one.steps) for one in kept) < _LEAST_STEPS and time.perf_counter() < deadline:
        kept.append(generate())
    return kept


def _read(path: Path) -> list[Event]:
    events: list[Event] = json.loads(path.read_text(encoding="utf-8"))
    return events


def operators(
    events: Sequence[Event],
    runs: int,
    block_of: Mapping[str, str],
    ceiling: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Calls and seconds of every operator, provider and block in the last `runs` runs of a session, slowest first.

    `block_of` maps nodes to blocks. A node that it lacks, because ONNX Runtime made it or it has no weights, belongs
    to the block of the node that ran before it. `flops` counts a multiplication and an addition as two, and is None
    for operators that mostly move memory. `bytes` counts inputs and outputs, except where only a shape changes.
    `least` is the shortest possible time of the calls in seconds, from `ceiling`; None without one.
    """
    started = sorted(event["ts"] for event in events if event.get("name") == "model_run")
    begin = started[-runs] if runs <= len(started) else 0
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]
    found: dict[tuple[str, str, str], dict[str, Any]] = defaultdict(
        lambda: {
            "calls": 0,
            "seconds": 0.0,
            "flops": None,
            "bytes": 0,
            "least": None if ceiling is None else 0.0,
        }
    )
    block = ""
    for event in sorted(nodes, key=lambda event: event["ts"]):
        block = _block(event["name"].removesuffix(_KERNEL), block_of) or block
        if event["ts"] < begin:
            continue
        arguments = event["args"]
        row = found[arguments["op_name"], arguments.get("provider", ""), block]
        row["calls"] += 1
        row["seconds"] += event["dur"] * _MICRO
        flops, moved = _flops(arguments), _bytes(arguments)
        row["bytes"] += moved
        if flops is not None:
            row["flops"] = (row["flops"] or 0) + flops
        if ceiling is not None:
            row["least"] += least_seconds(flops or 0, moved, ceiling)
    rows = [
        {"operator": operator, "provider": provider, "block": block, **row}
        for (operator, provider, block), row in found.items()
    ]
    return sorted(rows, key=lambda row: -row["seconds"])


def _block(node: str, block_of: Mapping[str, str]) -> str | None:
    # When ONNX Runtime changes the layout of a convolution, it renames the node after its output.
    plain = node.removesuffix("_nchwc")
    return block_of.get(node) or block_of.get(plain) or block_of.get(f"node_{plain}")


def _bytes(arguments: Mapping[str, Any]) -> int:
    """Bytes of one call. They do not include weights that were packed when the session was created."""
    if arguments["op_name"] in _VIEWS:
        return 0
    return sum(int(arguments.get(size, 0)) for size in _SIZES)


def _flops(arguments: Mapping[str, Any]) -> int | None:
    """Operations of one call, from the shapes of its inputs and outputs; None for unknown operators."""
    operator = arguments["op_name"]
    inputs, outputs = (_shapes(arguments, key) for key in ("input_type_shape", "output_type_shape"))
    if not inputs or not outputs or not inputs[0]:
        return None
    if operator in _BY_INNER:
        return 2 * math.prod(outputs[0]) * inputs[0][-1]
    if operator in _CONVOLUTIONS:
        # In int8, scales and zero points come before the weights.
        weights = next((shape for shape in inputs[1:] if len(shape) == 4), None)
        return None if weights is None else 2 * math.prod(outputs[0]) * math.prod(weights[1:])
    if operator == "MultiHeadAttention":
        # Queries, keys and values are packed into one tensor or two, or are three tensors.
        keys = inputs[0] if len(inputs[0]) == 5 else inputs[1] if len(inputs) > 1 else []
        return 4 * math.prod(outputs[0]) * keys[1] if len(keys) in (3, 5) else None
    return None


def _shapes(arguments: Mapping[str, Any], key: str) -> list[list[int]]:
    """The shapes of the tensors under `key`. ONNX Runtime stores each with its type."""
    return [list(shape) for tensor in arguments.get(key, ()) for shape in tensor.values()]
