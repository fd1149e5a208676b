"""This command lists the GPU kernels of a step by time, which ONNX Runtime's own profile does not contain.

    python -m benchmarks kernels MODEL [--device cuda|cpu] [--size 512] [--steps 10] [--option KEY=VALUE] [--json FILE]

MODEL is a folder from `sdrt export`. torch's profiler listens to CUDA's own (CUPTI), which reports every kernel of
the process, whoever launched it. One image warms up, and the steady steps of the next one count. The command sums
kernels by name and by kind. "Busy" is the share of the time in which a kernel ran; the rest is launching and waiting.
A CPU has no kernels, so a run on the CPU is only a rehearsal.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.command_line import parser_of
from benchmarks.measure import device as machine
from benchmarks.measure import markdown
from benchmarks.systems import GUIDANCE_SCALE, PROMPT, SEED
from sdrt import Request, SdrtError, StableDiffusionPipeline

KINDS: Mapping[str, str] = {
    "layout": r"nchwtonhwc|nhwctonchw",
    "biases": r"addtensor|op_tensor|optensor|addbias(?!unpack)|biasadd",
    "packing of attention": r"unpack|addbiastrans|transposeqkv",
    "attention": r"fmha|flash|sdpa|attention|softmax|mha",
    "norms": r"norm|welford",
    "convolution": r"conv|cudnn|fprop|implicit|winograd|wgrad|dgrad",
    "matrix products": r"gemm|gemv|cutlass|cublas|nvjet|matmul",
    "activations": r"gelu|silu|swish|sigmoid",
    "copies": r"memcpy|memset|transpose|concat|split|slice|expand|gather|copy",
}
"""Kind → pattern in the names of its kernels. The first match counts. A kernel without a match is "other"."""
OTHER = "other"
_ON_DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})


def kind_of(name: str) -> str:
    """The row of `KINDS` that a kernel belongs to."""
    lowered = name.lower()
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, lowered)), OTHER)


def summed(events: Iterable[Mapping[str, Any]], steps: int, wall: float) -> dict[str, Any]:
    """Sum a trace in Chrome's format: seconds of a step by kind and by kernel, slowest first, and the busy share."""
    kernels: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") in _ON_DEVICE:
            kernels.setdefault(event["name"], []).append(event["dur"] * 1e-6)
    total = sum(map(sum, kernels.values()))
    kinds: dict[str, float] = {}
    for name, durations in kernels.items():
        kinds[kind_of(name)] = kinds.get(kind_of(name), 0.0) + sum(durations) / steps
    rows = [
        {"kernel": name, "kind": kind_of(name), "calls": len(took) / steps, "seconds": sum(took) / steps}
        for name, took in kernels.items()
    ]
    return {
        "steps": steps,
        "step": wall / steps,
        "busy": total / wall,
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1])),
        "kernels": sorted(rows, key=lambda row: -row["seconds"]),
    }


def measure(folder: Path, device: str, size: int, steps: int, options: Mapping[str, str]) -> dict[str, Any]:
    """The figures of the steady steps of one image."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, provider=device, provider_options=options)
    request = Request(
        prompt=PROMPT,
        width=size,
        height=size,
        num_inference_steps=steps + 1,
        guidance_scale=GUIDANCE_SCALE,
        seed=SEED,
    )
    for _ in pipeline.stream(request):
        pass
    kind = torch.profiler.ProfilerActivity
    profiler = torch.profiler.profile(activities=[kind.CUDA if device == "cuda" else kind.CPU])
    began = wall = 0.0
    # Read the stream to its end. The work of a step is done when the stream yields it.
    for number, _ in enumerate(pipeline.stream(request)):
        if number == 0:
            profiler.start()
            began = time.perf_counter()
        elif number == steps:
            wall = time.perf_counter() - began
            profiler.stop()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "trace.json")
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    return {"size": size, "options": dict(options), **summed(events, steps, wall)}


def table(found: Mapping[str, Any], most: int = 25) -> str:
    """A table of the kinds, and one of the `most` slowest kernels."""
    if not found["kernels"]:
        return f"{found['step'] * 1e3:.2f} ms a step; no kernel ran on a GPU\n"
    busy = sum(found["kinds"].values())
    rows = [
        [kind, f"{seconds * 1e3:.3f}", f"{seconds / busy:.1%}"] for kind, seconds in found["kinds"].items()
    ]
    longest = [
        [row["kernel"][:90], row["kind"], f"{row['calls']:g}", f"{row['seconds'] * 1e3:.3f}"]
        for row in found["kernels"][:most]
    ]
    return "\n".join(
        [
            f"{found['step'] * 1e3:.2f} ms a step, {found['busy']:.0%} of it with a kernel running\n",
            markdown(["kind", "ms a step", "share"], rows),
            markdown(["kernel", "kind", "calls a step", "ms a step"], longest),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of("kernels", __doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=10, help="steps after the first")
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the provider"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    if options.steps < 1 or any("=" not in text for text in options.option):
        parser.error("expected at least 1 for --steps, and KEY=VALUE for each --option")
    passed = dict(text.split("=", 1) for text in options.option)
    try:
        found = measure(options.model, options.device, options.size, options.steps, passed)
    except SdrtError as error:
        raise SystemExit(f"kernels: {error}") from error
    print(table(found))
    if options.json:
        options.json.write_text(json.dumps(found | {"machine": machine()}, indent=2) + "\n", encoding="utf-8")
