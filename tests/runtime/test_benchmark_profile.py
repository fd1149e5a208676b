"""Where a step's time goes by operator: ONNX Runtime's profile, and the blocks of a graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdrt import IntegrityError, StableDiffusionPipeline
from sdrt.benchmark.ceiling import GRAPHS
from sdrt.benchmark.onnx_blocks import blocks
from sdrt.benchmark.ort_profile import operators, profile
from sdrt.benchmark.plan import Asked, Rules, expand
from sdrt.cli.benchmark_profile import profile_text


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
        # 3x3 over 4 channels, at 64 · 16 · 16 places of 2 pictures.
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
    with pytest.raises(IntegrityError, match=r"model\.onnx is no ONNX file"):
        blocks(cut)


def test_a_profile_adds_up(pipeline: StableDiffusionPipeline, tiny_model: Path) -> None:
    asked = Asked(steps=5, schedulers=("euler",), providers=("cpu",), threads=(1,))
    ((configuration, _),) = expand(asked, lambda provider, threads: pipeline)
    found = profile((str(tiny_model), "tiny"), configuration, Rules(), lambda text: None)
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
    # Rates of this machine are its own; that no single operator beats them says that they are a ceiling.
    ceiling = found["ceiling"]
    product = next(row for row in unet["operators"] if row["operator"] == "MatMul")
    assert ceiling["dtype"] == "float32"
    assert 0 < product["flops"] / product["seconds"] < 2 * ceiling["flops_per_second"]
    assert ceiling["bytes_per_second"] > 1e8


def test_the_share_of_the_roof_is_of_what_is_slower() -> None:
    row = {"provider": "CPUExecutionProvider", "block": "", "calls": 2, "seconds": 2.0}
    profile = {
        "steps": 2,
        "step_seconds": 5.0,
        "timed": True,
        "ceiling": {"dtype": "float32", "side": 8, "flops_per_second": 10e9, "bytes_per_second": 5e9},
        "components": {
            "unet": {
                "seconds": 4.5,
                "operators": [
                    # A second at the rate of products, half of one at that of bytes.
                    row | {"operator": "Conv", "flops": int(10e9), "bytes": int(2.5e9)},
                    row | {"operator": "Add", "flops": None, "bytes": int(5e9)},
                ],
            }
        },
    }
    settings = {"width": 64, "height": 64, "batch": 1}
    record = {"measurements": [{"settings": settings, "profile": profile}]}
    lines = {line.split("  ")[0]: line.split() for line in profile_text(record).splitlines()}
    assert lines["Conv"][1:] == ["CPU", "40.0%", "1000", "1", "5.0", "1.2", "50%"]
    assert lines["Add"][1:] == ["CPU", "40.0%", "1000", "1", "2.5", "50%"]
    assert lines["step"][1:] == ["100.0%", "2500", "2.0", "1.5", "40%"]
    assert "roof: 10.0 GFLOP/s in products of 8x8 matrices (float32)" in profile_text(record)
    # Where operators are only started, their time says nothing of their rate; that of the step does.
    profile["timed"] = False
    assert "5.0" not in profile_text(record).partition("outside operators")[0]
    assert "40%" in profile_text(record)


def test_the_graphs_of_the_ceiling_are_those_that_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnx")
    import write_ceiling

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
