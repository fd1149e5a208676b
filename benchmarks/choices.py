"""This command compares a step of the U-Net in sdrt's own session with sessions that have other settings.

    python -m benchmarks choices MODEL [--device cpu|cuda] [--size 512] [--rounds 9] [--sessions 2] [--only A,B]
                                 [--json FILE]

MODEL is a folder from `sdrt export`. For each alternative, the command opens a session and one of sdrt's. They take
turns, each first in every other round, with buffers on the device. Ratios are taken within a round. Then the command
opens two new sessions, because ONNX Runtime chooses kernels once per session. An alternative is worth it if the
interval of the median ratio is below `WORTH` in all sessions. docs/benchmark.md says what the project decided.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from benchmarks.command_line import parser_of
from benchmarks.measure import device as machine
from benchmarks.measure import spread
from benchmarks.remove_paths import without_paths
from sdrt.benchmark.stats import median_interval
from sdrt.onnx.engine import FAILURES, ort, preload_cuda
from sdrt.onnx.provider_options import Setting
from sdrt.onnx.providers import PROVIDERS, SessionConfig

FACTOR, TOKENS = 8, 77
WORTH = 0.97
"""The ratio of steps that an alternative must reach. Less does not pay for a session per size, or for memory."""
UNDECIDED = "not decided"


@dataclass(frozen=True, kw_only=True)
class Way:
    """One alternative: the settings of a session.

    `fixed` gives it the shapes beforehand. `patterns` uses ONNX Runtime's memory patterns. `unpacked` uses another
    graph, in which self-attention gets its three inputs one by one (`unpack`). `options` are the provider's.
    """

    fixed: bool = False
    patterns: bool = False
    unpacked: bool = False
    options: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ("cpu", "cuda")


OURS = Way()
WAYS: Mapping[str, Way] = {
    "fixed shapes": Way(fixed=True),
    "memory patterns": Way(patterns=True),
    "fixed shapes and memory patterns": Way(fixed=True, patterns=True),
    "cuDNN's algorithms by heuristic": Way(
        options={"cudnn_conv_algo_search": "HEURISTIC"}, devices=("cuda",)
    ),
    "convolutions with their biases": Way(options={"fuse_conv_bias": "true"}, devices=("cuda",)),
    "flash attention": Way(options={"sdpa_kernel": "1"}, devices=("cuda",)),
    "memory-efficient attention": Way(options={"sdpa_kernel": "2"}, devices=("cuda",)),
    "an arena that doubles": Way(options={"arena_extend_strategy": "kNextPowerOfTwo"}, devices=("cuda",)),
    "queries, keys and values apart": Way(unpacked=True, devices=("cuda",)),
    "a recording": Way(options={"enable_cuda_graph": "true"}, devices=("cuda",)),
}


class Unet:
    """A session of the U-Net, with buffers of one size."""

    def __init__(self, graph: Path, device: str, sizes: Mapping[str, int], way: Way) -> None:
        options = ort.SessionOptions()
        options.enable_mem_pattern = way.patterns
        for axis, size in sizes.items() if way.fixed else ():
            options.add_free_dimension_override_by_name(axis, size)
        row = PROVIDERS[device]
        config = SessionConfig(provider=device, provider_options=way.options)
        passed = config.passed(device, Setting(repeats=True))
        self._session = ort.InferenceSession(str(graph), options, [row.ort], [passed], enable_fallback=0)
        if self._session.get_providers()[0] != row.ort:
            raise RuntimeError(f"ONNX Runtime took another provider than {row.ort}")
        random, self._binding = np.random.default_rng(0), self._session.io_binding()
        # In earlier versions, a binding does not keep its values alive.
        self._kept = []
        for port in self._session.get_inputs():
            shape = [sizes[axis] if isinstance(axis, str) else axis for axis in port.shape]
            array = np.asarray(random.standard_normal(shape), np.float32)
            self._kept.append(ort.OrtValue.ortvalue_from_numpy(array, device, 0))
            self._binding.bind_ortvalue_input(port.name, self._kept[-1])
        (port,) = self._session.get_outputs()
        # One fixed place, which recordings need.
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in port.shape]
        self._output = ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, device, 0)
        self._binding.bind_ortvalue_output(port.name, self._output)

    def seconds(self) -> float:
        """Seconds of one run."""
        start = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        self._binding.synchronize_outputs()
        return time.perf_counter() - start

    def output(self) -> Any:
        """The output of the last run."""
        return self._output.numpy()


def unpack(graph: Path, folder: Path) -> Path:
    """Write the graph to `folder` with separate products for the queries, keys and values of self-attention.

    A packed graph has one product `[…, heads, 3, width]`, which goes through a Reshape into MultiHeadAttention. Kernels
    for newer GPUs unpack it again. Exits if the graph has no such attention.
    """
    model = ir.load(graph)
    done = 0
    for attention in [node for node in model.graph if node.op_type == "MultiHeadAttention"]:
        given = [value for value in attention.inputs if value is not None]
        if len(given) != 1:
            continue
        reshape = _producer(given[0])
        product = _producer(reshape.inputs[0])
        # Leave a product with an addition as it is (CLIP, in float32).
        if product.op_type != "MatMul":
            continue
        weight, heads = product.inputs[1], attention.attributes["num_heads"].as_int()
        if weight is None or weight.const_value is None:
            raise SystemExit(f"{graph}: {product.name} does not multiply by a constant")
        packed = weight.const_value.numpy()
        parts = packed.reshape(len(packed), heads, 3, -1).transpose(2, 0, 1, 3).reshape(3, len(packed), -1)
        products = []
        for name, part in zip("qkv", parts, strict=True):
            value = ir.Value(name=f"{weight.name}.{name}", const_value=ir.tensor(np.ascontiguousarray(part)))
            value.type, value.shape = weight.type, ir.Shape(part.shape)
            model.graph.register_initializer(value)
            products.append(ir.node("MatMul", [product.inputs[0], value]))
        for node, name in zip(products, "qkv", strict=True):
            node.outputs[0].name = f"{attention.outputs[0].name}.{name}"
            node.outputs[0].type = attention.outputs[0].type
        model.graph.insert_before(attention, products)
        attention.resize_inputs(3)
        for index, node in enumerate(products):
            attention.replace_input_with(index, node.outputs[0])
        model.graph.remove([reshape, product], safe=True)
        done += 1
    if not done:
        raise SystemExit(f"{graph}: no attention has packed queries, keys and values")
    path = folder / "unpacked.onnx"
    ir.save(model, path, external_data=f"{path.name}_data")
    return path


def _producer(value: ir.Value | None) -> ir.Node:
    """The node that makes `value`. Exits for an input of the graph."""
    node = None if value is None else value.producer()
    if node is None:
        raise SystemExit(f"no node makes {value}")
    return node


def measure(
    graph: Path,
    device: str,
    size: int,
    *,
    ways: Mapping[str, Way],
    rounds: int,
    sessions: int,
    keep: Callable[[dict[str, Any]], None] = lambda _: None,
) -> dict[str, Any]:
    """The record: for each way, the seconds of a step, its ratio to sdrt's, and the relative difference of the outputs.

    `keep` gets the record after each way, so that an interrupted run keeps its results.
    """
    if device == "cuda":
        preload_cuda()
    sizes = {"batch": 2, "height": size // FACTOR, "width": size // FACTOR, "sequence": TOKENS}
    found: dict[str, Any] = {
        "device": device,
        "size": size,
        "sessions": sessions,
        "rounds": rounds,
        "ways": {},
    }
    for name, way in ways.items():
        found["ways"][name] = _beside(graph, device, sizes, way, rounds, sessions)
        print(said(name, found["ways"][name]), flush=True)
        keep(found)
    return found


def _beside(
    graph: Path, device: str, sizes: Mapping[str, int], way: Way, rounds: int, sessions: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        other = unpack(graph, Path(scratch)) if way.unpacked else graph
        kinds = {"ours": (graph, OURS), "other": (other, way)}
        return _in_turns(kinds, device, sizes, rounds, sessions)


def _in_turns(
    kinds: Mapping[str, tuple[Path, Way]], device: str, sizes: Mapping[str, int], rounds: int, sessions: int
) -> dict[str, Any]:
    turns: list[list[dict[str, float]]] = []
    differ = 0.0
    for _ in range(sessions):
        try:
            made = {kind: Unet(path, device, sizes, way) for kind, (path, way) in kinds.items()}
            for unet in made.values():
                for _ in range(2):  # the provider sets up in the first run, and records in the second
                    unet.seconds()
        except FAILURES as error:
            return {"failed": without_paths(" ".join(str(error).split()))[:200]}
        ours, theirs = (unet.output() for unet in made.values())
        differ = max(differ, float(np.abs(ours - theirs).max() / np.abs(ours).max()))
        turns.append([])
        for number in range(rounds):
            order = list(made) if number % 2 else [*reversed(made)]
            turns[-1].append({kind: made[kind].seconds() for kind in order})
        del made, unet  # makes room for the next two
    ratios = [[turn["other"] / turn["ours"] for turn in session] for session in turns]
    every = [turn for session in turns for turn in session]
    return {
        "seconds": {kind: spread([turn[kind] for turn in every]) for kind in kinds},
        "over_ours": spread([ratio for session in ratios for ratio in session]),
        "outputs_differ_by": differ,
        "verdict": verdict(ratios),
    }


def verdict(ratios: Sequence[Sequence[float]]) -> str:
    """Whether an alternative is worth it, from the ratios of each session. All sessions must agree.

    A session decides by the interval of its median ratio. The ratios of all sessions are not pooled, because the
    kernels of a session are chosen once and affect all its ratios.
    """
    said = {_verdict(session) for session in ratios}
    return said.pop() if len(said) == 1 else UNDECIDED


def _verdict(ratios: Sequence[float]) -> str:
    interval = median_interval(ratios)
    if interval is None or interval.low < WORTH <= interval.high:
        return UNDECIDED
    return "worth it" if interval.high < WORTH else "not worth it"


def said(name: str, found: Mapping[str, Any]) -> str:
    """One line about a way."""
    if "failed" in found:
        return f"{name}: failed: {found['failed']}"
    ratio, seconds = found["over_ours"], found["seconds"]
    return (
        f"{name}: {ratio['median']:.3f} of sdrt's time ({ratio['min']:.3f}–{ratio['max']:.3f}), "
        f"{seconds['other']['median'] * 1e3:.2f} ms against {seconds['ours']['median'] * 1e3:.2f} ms: "
        f"{found['verdict']} (the limit is {WORTH:g}); outputs differ by {found['outputs_differ_by']:.1g}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("choices", __doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--sessions", type=int, default=2)
    parser.add_argument("--only", metavar="A,B", help=f"some of {', '.join(WAYS)}")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    if min(options.rounds, options.sessions, options.size) < 1 or options.size % FACTOR:
        parser.error(
            f"expected at least 1 for --rounds and --sessions, and a --size that is a multiple of {FACTOR}"
        )
    graph = options.model / "unet" / "model.onnx"
    if not graph.is_file():
        parser.error(f"{options.model} has no unet/model.onnx: expected a folder from sdrt export")
    names = (
        options.only.split(",")
        if options.only is not None
        else [name for name, way in WAYS.items() if options.device in way.devices]
    )
    if unknown := [name for name in names if name not in WAYS or options.device not in WAYS[name].devices]:
        parser.error(f"unknown way {unknown[0]!r} on {options.device}: choose from {', '.join(WAYS)}")

    def keep(found: dict[str, Any]) -> None:
        if options.json:
            record = found | {"machine": machine()}
            options.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")

    found = measure(
        graph,
        options.device,
        options.size,
        ways={name: WAYS[name] for name in names},
        rounds=options.rounds,
        sessions=options.sessions,
        keep=keep,
    )
    if all("failed" in row for row in found["ways"].values()):
        raise SystemExit("nothing was measured")
