"""The alternatives to the usual graph and settings that a session on a GPU measures, and their verdicts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a script for bash")


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [
        ([[0.9] * 8, [0.95] * 8], "worth it"),
        ([[0.99] * 8, [1.2] * 8], "not worth it"),
        # One that had the luck of other kernels, however often it was asked.
        ([[0.9] * 100, [1.0] * 8], "not decided"),
        ([[0.9] * 5, [0.9] * 5], "not decided"),
        ([[0.5, 1.5] * 4], "not decided"),
    ],
)
def test_another_way_is_worth_it_where_every_session_says_so(
    sessions: list[list[float]], expected: str
) -> None:
    from benchmarks.choices import verdict

    assert verdict(sessions) == expected


def test_a_way_that_fails_is_told_and_the_others_are_measured(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from benchmarks import choices

    plain = choices.Unet.__init__

    def refuse(unet: Any, graph: Path, device: str, sizes: Any, way: Any) -> None:
        if way.patterns:
            raise RuntimeError("no such pattern in /home/me/model.onnx")
        plain(unet, graph, device, sizes, way)

    monkeypatch.setattr(choices.Unet, "__init__", refuse)
    kept: list[int] = []
    graph = tiny_model / "unet" / "model.onnx"
    found = choices.measure(
        graph,
        "cpu",
        64,
        ways={"patterns": choices.Way(patterns=True), "the same": choices.OURS},
        rounds=1,
        sessions=1,
        keep=lambda record: kept.append(len(record["ways"])),
    )
    assert kept == [1, 2]
    assert found["ways"]["patterns"] == {"failed": "no such pattern in …/model.onnx"}
    assert found["ways"]["the same"]["outputs_differ_by"] == 0
    assert found["ways"]["the same"]["verdict"] == "not decided"
    assert "patterns: failed: no such pattern" in capsys.readouterr().out


def test_a_graph_for_the_rest_of_a_step_is_judged_beside_the_step(tmp_path: Path) -> None:
    from benchmarks.step_graph import _peers, saved

    found = {"device": "cuda", "size": 512, "ms": {"host": {"median": 0.9}, "graph": {"median": 0.3}}}
    peers: dict[str, Any] = {
        "settings": {"device": "cuda", "size": 512},
        "systems": {"sdrt": {"step": {"median": 0.02}}},
    }
    assert saved(found, peers) == {"step": 0.02, "share_of_step": pytest.approx(0.03), "worth_it": True}
    peers["systems"]["sdrt"]["step"]["median"] = 0.2
    assert not saved(found, peers)["worth_it"]
    record = tmp_path / "peers.json"
    for text, said in (
        (
            json.dumps(peers | {"settings": {"device": "cpu", "size": 512}}),
            "expected a record of cuda at 512",
        ),
        ("{", "not a record of peers"),
        ("[]", "not a record of peers"),
        ('{"format": "sdrt-benchmark"}', "not a record of peers"),
    ):
        record.write_text(text)
        with pytest.raises(SystemExit, match=said):
            _peers(record, "cuda", 512)
    record.write_text(json.dumps(peers))
    assert _peers(record, "cuda", 512) == peers


def test_kernels_are_summed_by_what_they_do() -> None:
    pytest.importorskip("torch", reason="its profiler listens")
    from benchmarks.kernels import summed, table

    names = {
        "sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_nhwc": "convolution",
        "void onnxruntime::contrib::cuda::groupNormNHWCSumKernel<__half, 320>": "norms",
        "fmha_cutlassF_f16_aligned_64x64_rf_sm80": "attention",
        "void cutlass::Kernel<cutlass_80_tensorop_f16_s16816gemm>": "matrix products",
        "void cudnn::ops::nchwToNhwcKernel<__half, __half, float>": "layout",
        "void cudnn::ops::nhwcToNchwKernel<__half, __half, float>": "layout",
        "void onnxruntime::contrib::cuda::AddBiasUnpack<__half>": "packing of attention",
        "Memcpy HtoD (Pinned -> Device)": "copies",
        "void onnxruntime::contrib::cuda::biasSplitGeluKernel<__half, 1280, 256>": "activations",
    }
    events = [
        {
            "cat": "gpu_memcpy" if name.startswith("Memcpy") else "kernel",
            "name": name,
            "dur": 1000 * (index + 1),
        }
        for index, name in enumerate(names)
        for _ in range(2)
    ]
    # Of the host, and of no length.
    events += [{"cat": "cuda_runtime", "name": "cudaLaunchKernel", "dur": 5e6}, {"name": "begin"}]
    found = summed(events, steps=2, wall=0.2)
    assert {row["kernel"]: row["kind"] for row in found["kernels"]} == names
    assert found["kernels"][0]["kernel"] == [*names][-1]
    assert found["kernels"][0]["seconds"] == pytest.approx(0.009)
    assert found["kernels"][0]["calls"] == 1
    assert found["busy"] == pytest.approx(0.09 / 0.2)
    assert found["kinds"]["norms"] == pytest.approx(0.002)
    said = table(found)
    assert "100.00 ms a step, 45% of it" in said
    assert said.index("biasSplitGelu") < said.index("Memcpy")
