"""Where a step's time goes by operator: ONNX Runtime's profile, and the blocks of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sdrt import IntegrityError, OutOfMemoryError, StableDiffusionPipeline
from sdrt.benchmark.ceiling import GRAPHS, measure_ceiling
from sdrt.benchmark.configurations import Asked, Rules, expand
from sdrt.benchmark.measure import Model
from sdrt.benchmark.onnx_blocks import blocks
from sdrt.benchmark.ort_profile import _computes_in, _rates, operators, profile
from sdrt.cli.benchmark.profile import profile_text
from sdrt.common.notices import Notices
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.onnx.providers import SessionConfig


def node(name: str, operator: str, at: int, duration: int, **shapes: list[list[int]]) -> dict[str, Any]:
    """An event as ONNX Runtime writes it, times in microseconds."""
    arguments = {key: [{"float": shape} for shape in value] for key, value in shapes.items()}
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "ts": at,
        "dur": duration,
        "args": {"op_name": operator, "provider": "CPUExecutionProvider", **arguments},
    }


def run(at: int) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": at, "dur": 90, "args": {}}


def test_only_the_last_runs_count() -> None:
    events = [run(0), node("a", "Conv", 1, 1000), run(100), node("a", "Conv", 101, 30), run(200)]
    events.append(node("a", "Conv", 201, 50))
    (row,) = operators(events, 2, {"a": "down_blocks.0"})
    assert (row["calls"], row["block"]) == (2, "down_blocks.0")
    assert row["seconds"] == pytest.approx(80e-6)


def test_a_node_without_a_block_is_of_the_one_before_it() -> None:
    events = [run(0), node("conv_nchwc", "Conv", 1, 5), node("ReorderOutput_token_1", "ReorderOutput", 6, 1)]
    rows = operators(events, 1, {"node_conv": "mid_block"})
    assert {(row["operator"], row["block"]) for row in rows} == {
        ("Conv", "mid_block"),
        ("ReorderOutput", "mid_block"),
    }


@pytest.mark.parametrize(
    ("operator", "inputs", "output", "flops"),
    [
        # 3x3 over 4 channels, at 64 · 16 · 16 places of 2 images.
        ("Conv", [[2, 4, 16, 16], [64, 4, 3, 3], [64]], [2, 64, 16, 16], 2 * 2 * 64 * 256 * 36),
        # Weights that were packed at load are not among the inputs.
        ("MatMul", [[2, 77, 128]], [2, 77, 512], 2 * 2 * 77 * 512 * 128),
        # Scores of 256 queries and 77 keys, and the values that they weigh.
        ("MultiHeadAttention", [[2, 256, 64], [2, 77, 64], [2, 77, 64]], [2, 256, 64], 4 * 2 * 256 * 64 * 77),
        ("MultiHeadAttention", [[2, 256, 8, 3, 8]], [2, 256, 64], 4 * 2 * 256 * 64 * 256),
        ("MultiHeadAttention", [[2, 256, 64], [2, 77, 8, 2, 8]], [2, 256, 64], 4 * 2 * 256 * 64 * 77),
        ("NhwcConv", [[2, 16, 16, 4], [64, 3, 3, 4], [64]], [2, 16, 16, 64], 2 * 2 * 64 * 256 * 36),
        (
            "QLinearConv",
            [[2, 4, 16, 16], [1], [1], [64, 4, 3, 3], [64], [64], [64], [64], [64]],
            [2, 64, 16, 16],
            2 * 2 * 64 * 256 * 36,
        ),
        (
            "MatMulIntegerToFloat",
            [[2, 77, 128], [128, 512], [1], [512]],
            [2, 77, 512],
            2 * 2 * 77 * 512 * 128,
        ),
        ("Add", [[2, 4], [2, 4]], [2, 4], None),
    ],
)
def test_work_is_counted_from_shapes(
    operator: str, inputs: list[list[int]], output: list[int], flops: int | None
) -> None:
    event = node("n", operator, 1, 5, input_type_shape=inputs, output_type_shape=[output])
    (row,) = operators([run(0), event], 1, {})
    assert row["flops"] == flops


def test_blocks_are_those_of_the_weights(tiny_model: Path) -> None:
    unet = set(blocks(tiny_model / "unet" / "model.onnx").values())
    assert {"conv_in", "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.1", "conv_out"} <= unet
    assert "layers.2" in blocks(tiny_model / "text_encoder" / "model.onnx").values()


def test_a_graph_that_is_cut_short_is_named(tiny_model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "model.onnx"
    cut.write_bytes((tiny_model / "unet" / "model.onnx").read_bytes()[:1000])
    with pytest.raises(IntegrityError, match=r"model\.onnx is not an ONNX file"):
        blocks(cut)


@pytest.mark.full
def test_a_profile_adds_up(pipeline: StableDiffusionPipeline, tiny_model: Path) -> None:
    asked = Asked(steps=5, schedulers=("euler",), providers=("cpu",), threads=(1,))
    ((configuration, _),) = expand(asked, lambda provider, threads: pipeline)
    found = profile(Model(str(tiny_model), "tiny"), configuration, Rules(), lambda text: None)
    unet = found["components"]["unet"]
    # Ten steps at least, so two generations of 5.
    assert (found["steps"], found["generations"], unet["runs"]) == (10, 2, 10)
    inside = sum(row["seconds"] for row in unet["operators"])
    assert 0.2 * unet["seconds"] < inside < unet["seconds"] < found["step_seconds"]
    # One convolution of the graph runs once a step.
    first = next(row for row in unet["operators"] if (row["operator"], row["block"]) == ("Conv", "conv_in"))
    assert first["calls"] == 10
    assert set(found["components"]) == {"text_encoder", "unet", "vae_decoder"}
    # Weights of 4 input and 16 output channels, latents, and what comes of them, in two rows.
    assert first["bytes"] == 10 * 4 * (16 * 4 * 9 + 16 + 2 * 4 * 64 + 2 * 16 * 64)
    assert (found["rates"], found["ceiling"]["dtype"]) == ("operators", "float32")
    assert all(row["least"] > 0 for row in unet["operators"] if row["bytes"])


def test_a_ceiling_counts_what_the_chains_do(monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []

    def seconds(name: str, inputs: Mapping[str, Any], *_: object) -> float:
        timed.append((name, {array.dtype.name for array in inputs.values()}))
        return 2.0

    monkeypatch.setattr("sdrt.benchmark.ceiling._seconds", seconds)
    half = measure_ceiling(SessionConfig(provider="cuda"), np.dtype(np.float16), Notices())
    # Eight products of 4096x4096 in two seconds; eight sums, each of which reads two tensors and writes one.
    assert half["flops_per_second"] == 8 * 2 * 4096**3 / 2
    assert half["bytes_per_second"] == 8 * 3 * 4 * 2**26 / 2
    assert timed == [("matmul_float16", {"float16"}), ("add_float32", {"float32"})]
    assert {f"{name}.onnx" for name, _ in timed} <= {path.name for path in GRAPHS.glob("*.onnx")}
    assert measure_ceiling(SessionConfig(provider="cpu"), np.dtype(np.float32), Notices())["side"] == 1024


def test_a_ceiling_that_cannot_be_measured_costs_no_profile(
    pipeline: StableDiffusionPipeline, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OutOfMemoryError("no room")

    monkeypatch.setattr("sdrt.benchmark.ort_profile.measure_ceiling", fail)
    asked = Asked(steps=3, schedulers=("euler",), providers=("cpu",), threads=(1,))
    ((configuration, _),) = expand(asked, lambda provider, threads: pipeline)
    said: list[str] = []
    found = profile(Model(str(tiny_model), "tiny"), configuration, Rules(time_limit=0.1), said.append)
    assert (found["ceiling"], found["rates"]) == (None, None)
    assert "were not measured: no room" in said[-1]
    assert found["components"]["unet"]["operators"]


@pytest.mark.parametrize(
    ("provider", "records", "rates"),
    [("cpu", False, "operators"), ("cuda", False, "step"), ("cuda", True, None), ("openvino", False, None)],
)
def test_rates_are_of_what_is_timed(provider: str, records: bool, rates: str | None) -> None:
    denoiser: Any = SimpleNamespace(provider=provider, records=records)
    assert _rates(denoiser) == rates


@pytest.mark.parametrize(
    ("target", "weights", "dtype"),
    [("cuda", "float16", "float16"), ("cuda", "float32", "float32"), ("cpu", "float16", "float32")],
)
def test_the_roof_is_of_what_the_unet_computes_in(target: str, weights: str, dtype: str) -> None:
    model: Any = SimpleNamespace(
        manifest=SimpleNamespace(target=target),
        family=STABLE_DIFFUSION,
        weights=lambda name: SimpleNamespace(dtype=weights),
    )
    assert _computes_in(model).name == dtype
    model.manifest = None
    assert _computes_in(model).name == "float32"


def test_what_moves_nothing_has_no_bytes() -> None:
    events = [run(0), node("a", "Reshape", 1, 5), node("b", "Add", 6, 5)]
    for event in events[1:]:
        event["args"] |= {"parameter_size": "0", "activation_size": "64", "output_size": "32"}
    ceiling = {"flops_per_second": 1.0, "bytes_per_second": 48.0}
    rows = {row["operator"]: row for row in operators(events, 1, {}, ceiling)}
    assert (rows["Reshape"]["bytes"], rows["Reshape"]["least"]) == (0, 0)
    assert (rows["Add"]["bytes"], rows["Add"]["least"]) == (96, 2.0)


def test_the_share_of_the_roof_is_of_the_time_that_it_took() -> None:
    row = {"provider": "CPUExecutionProvider", "block": "", "calls": 2, "seconds": 2.0}
    profile: dict[str, Any] = {
        "steps": 2,
        "step_seconds": 5.0,
        "rates": "operators",
        "ceiling": {"dtype": "float32", "side": 8, "flops_per_second": 10e9, "bytes_per_second": 5e9},
        "components": {
            "unet": {
                "seconds": 4.5,
                "operators": [
                    row | {"operator": "Conv", "flops": int(10e9), "bytes": int(2.5e9), "least": 1.0},
                    row | {"operator": "Add", "flops": None, "bytes": int(5e9), "least": 1.5},
                ],
            }
        },
    }
    one = {"settings": {"width": 64, "height": 64, "batch": 1}, "profile": profile}
    # Without profiling a step takes two seconds where it took two and a half.
    record = {"measurements": [one | {"statistics": {"step": {"p50": 2.0}}}]}
    text = profile_text(record)
    lines = {line.split("  ")[0]: line.split() for line in text.splitlines()}
    assert lines["Conv"][1:] == ["CPU", "40.0%", "1000", "1", "5.0", "1.2", "50%"]
    assert lines["Add"][1:] == ["CPU", "40.0%", "1000", "1", "2.5", "75%"]
    assert lines["outside operators"][2:] == ["10.0%", "250.0"]
    assert "roof: 10.0 GFLOP/s in products of 8x8 matrices (float32)" in text
    assert text.endswith("a step of 2000 ms, without profiling: 2.5 GFLOP/s, 62% of roof")
    # Where operators are only started, their time says nothing of their rate; that of the step does.
    profile["rates"] = "step"
    text = profile_text(record)
    assert "1.2" not in text
    assert "to launch them, not to run them" in text
    assert text.endswith("62% of roof")
    profile["rates"] = profile["ceiling"] = None
    assert "roof" not in profile_text(record)


def test_the_graphs_of_the_ceiling_are_those_that_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    from tools import write_ceiling

    monkeypatch.setattr(write_ceiling, "GRAPHS", tmp_path)
    write_ceiling.main()
    names = {path.name for path in GRAPHS.glob("*.onnx")}
    assert names == {path.name for path in tmp_path.glob("*.onnx")}
    assert all((GRAPHS / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)


def test_placement_counts_every_node(pipeline: StableDiffusionPipeline) -> None:
    pipeline.load()
    placed = {graph.name: graph.placement() for graph in pipeline.graphs}
    if placed["unet"] is None:
        pytest.skip("this onnxruntime does not tell")
    (provider,) = placed["unet"]
    assert provider == "CPUExecutionProvider"
    assert placed["unet"][provider]["MultiHeadAttention"] > 0
