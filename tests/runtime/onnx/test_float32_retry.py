"""Runs that overflow float16 are made again in float32; models of a target go to providers that have its operators."""

from __future__ import annotations

import gc
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import Request, StableDiffusionPipeline, UnsupportedModelError
from sdrt.common.notices import Notices
from sdrt.model_folder.folder import FileRecord, Manifest, ModelFolder
from sdrt.onnx.create_session import session_setting
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.error_messages import Subject
from sdrt.onnx.overflow import failed
from sdrt.onnx.placement import tell_of_target
from sdrt.onnx.providers import SessionConfig
from sdrt.onnx.session import Component

CALL = {"num_inference_steps": 2, "width": 64, "height": 64, "seed": 1, "output_type": "np"}


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([1.0, 2.0], np.float32), False),
        (np.array([1.0, np.nan, 2.0], np.float32), True),
        (np.array([1.0, -np.inf, 2.0], np.float32), True),
        (np.zeros((2, 3), np.float32), True),
        (np.array([3.0], np.float32), False),
        (np.zeros(4, np.int64), False),
        # An image of one colour, and one that has a pixel of another.
        (np.ones((1, 3, 4, 4), np.float32) * np.float32([[[[0.1]], [[0.2]], [[0.3]]]]), True),
        (np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4), False),
        # Of one pixel nothing can be told.
        (np.array([[[[1.0]], [[2.0]]]], np.float32), False),
    ],
)
def test_an_overflow_is_told(array: np.ndarray, expected: bool) -> None:
    assert failed(array) is expected


@pytest.fixture
def with_wide_graphs(tiny_model: Path, tmp_path: Path) -> Path:
    """The tiny model as if it were a float16 one: each graph has one in float32 beside it, here the same."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    manifest, files = Manifest.read(folder), {}
    for name in ("text_encoder", "unet", "vae_decoder"):
        wide = Path(shutil.copy(folder / name / "model.onnx", folder / name / "model_fp32.onnx"))
        files[f"{name}/{wide.name}"] = FileRecord.of(wide)
        if (staged := folder / name / "stages.onnx").is_file():
            wide = Path(shutil.copy(staged, folder / name / "stages_fp32.onnx"))
            files[f"{name}/{wide.name}"] = FileRecord.of(wide)
    replace(manifest, files={**manifest.files, **files}).write(folder)
    return folder


@pytest.mark.parametrize("name", ["unet", "vae_decoder", "text_encoder"])
def test_the_run_is_made_again(with_wide_graphs: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Once of this component: said once, counted, and the image is that of a run without a failure.

    The U-Net's next step is made in float32 at once: it would overflow too.
    """
    said: list[str] = []
    pipeline = StableDiffusionPipeline.from_pretrained(with_wide_graphs, notify=said.append)
    expected = pipeline("a", **CALL).images
    assert pipeline.float32_retries == {}
    said.clear()
    once = [name]

    def overflows(array: np.ndarray) -> bool:
        shapes = {"unet": (2, 4, 8, 8), "vae_decoder": (1, 3, 64, 64), "text_encoder": (1, 77, 32)}
        return bool(once) and array.shape == shapes[once[0]] and once.pop() == name

    monkeypatch.setattr("sdrt.onnx.buffers.failed", overflows)
    found = pipeline("a", **CALL).images
    steps = pipeline.num_evaluations(Request(prompt="a", num_inference_steps=CALL["num_inference_steps"]))
    assert pipeline.float32_retries == {name: steps if name == "unet" else 1}
    assert [line for line in said if line.startswith(f"{name}: float16 overflowed")] == said
    assert len(said) == 1
    np.testing.assert_array_equal(found, expected)
    # Another image begins in float16 again.
    pipeline("a", **CALL)
    assert pipeline.float32_retries == {name: steps if name == "unet" else 1}


def test_after_an_overflow_the_image_is_not_computed_twice(
    with_wide_graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(with_wide_graphs, notify=lambda message: None)
    ran: list[str] = []
    plain = Component.execute

    def execute(component: Component, *arguments: Any) -> None:
        ran.append(component.path.name)
        plain(component, *arguments)

    monkeypatch.setattr(Component, "execute", execute)
    monkeypatch.setattr("sdrt.onnx.buffers.failed", lambda array: array.shape == (2, 4, 8, 8))
    pipeline("a", **CALL | {"num_inference_steps": 4, "scheduler": "euler", "output_type": "latent"})
    assert ran[-5:] == ["model.onnx", *["model_fp32.onnx"] * 4]


def test_without_such_a_graph_the_run_counts(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not finite is an error then, of whoever takes it; what is flat may be meant."""
    monkeypatch.setattr("sdrt.onnx.buffers.failed", lambda array: True)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    assert pipeline("a", **CALL).images.shape == (1, 64, 64, 3)
    assert pipeline.float32_retries == {}


def test_with_low_vram_too_and_the_vae_in_stages(
    with_wide_graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted over every component that was opened anew, said once, and nothing of it stays in memory."""
    said: list[str] = []
    pipeline = StableDiffusionPipeline.from_pretrained(with_wide_graphs, low_vram=True, notify=said.append)
    expected = pipeline("a", **CALL).images
    monkeypatch.setattr("sdrt.onnx.buffers.failed", lambda array: array.shape == (1, 4, 8, 8))
    monkeypatch.setattr("sdrt.onnx.session.overflowed", lambda array: True)
    gc.disable()
    said.clear()
    for count in (1, 2):
        np.testing.assert_array_equal(pipeline("a", **CALL).images, expected)
        evaluations = 2 * pipeline.num_evaluations(Request(prompt="a", num_inference_steps=2))
        assert pipeline.float32_retries["unet"] == count * evaluations
        assert pipeline.float32_retries["vae_decoder"] >= count
        assert {graph.name for graph in pipeline.graphs} == {"vae_decoder"}
    gc.enable()
    assert {graph.path.name for graph in pipeline.graphs} == {"stages.onnx", "stages_fp32.onnx"}
    assert len(said) == 2


def test_the_graph_in_float32_is_not_computed_in_float16(
    with_wide_graphs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Providers that take a hint of precision are told of the graph's own."""
    manifest = Manifest.read(with_wide_graphs)
    replace(manifest, dtype="float16").write(with_wide_graphs)
    asked: dict[str, str] = {}
    plain = session_setting

    def setting(subject: Subject, config: Any, weights: Weights, notices: Any, *, repeats: bool) -> Any:
        asked[subject.path.name] = weights.dtype
        return plain(subject, config, weights, notices, repeats=repeats)

    monkeypatch.setattr("sdrt.onnx.session.session_setting", setting)
    monkeypatch.setattr("sdrt.onnx.buffers.failed", lambda array: True)
    StableDiffusionPipeline.from_pretrained(with_wide_graphs, notify=lambda message: None)("a", **CALL)
    assert asked == {"model.onnx": "float16", "model_fp32.onnx": "float32"}


def test_a_model_of_another_target_is_refused_with_the_remedy(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    manifest = json.loads((folder / "sdrt.json").read_text())
    (folder / "sdrt.json").write_text(json.dumps(manifest | {"target": "cuda"}))
    pipeline = StableDiffusionPipeline.from_pretrained(folder, provider="cpu")
    with pytest.raises(
        UnsupportedModelError, match=r"target cuda, whose .* provider cpu lacks.*--target cpu"
    ):
        pipeline("a", **CALL)


@pytest.mark.parametrize(("target", "said"), [("cuda", 0), ("cpu", 1), ("portable", 1)])
def test_a_gpu_says_that_another_export_is_made_for_it(
    tiny_model: Path, tmp_path: Path, target: str, said: int
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    replace(Manifest.read(folder), target=target).write(folder)
    heard: list[str] = []
    model = ModelFolder.open(folder)
    tell_of_target(model.target, model.name, SessionConfig(provider="cuda"), Notices(heard.append))
    assert len(heard) == said
    assert all("--target cuda suits this provider better" in text for text in heard)


def test_a_component_that_stayed_in_float32_says_so(tiny_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    manifest = Manifest.read(folder)
    components = {
        **manifest.components,
        "vae_decoder": {**manifest.components["vae_decoder"], "dtype": "float32"},
    }
    replace(manifest, dtype="float16", components=components).write(folder)
    model = ModelFolder.open(folder)
    assert model.weights("unet").dtype == "float16"
    assert model.weights("vae_decoder").dtype == "float32"
