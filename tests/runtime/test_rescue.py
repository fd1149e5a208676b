"""Runs that overflow float16 are made again in float32; models of a target go to providers that have its operators."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sdrt import StableDiffusionPipeline, UnsupportedModelError
from sdrt.model import FileRecord, Manifest, ModelFolder
from sdrt.rescue import failed

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
    replace(manifest, files={**manifest.files, **files}).write(folder)
    return folder


@pytest.mark.parametrize("name", ["unet", "vae_decoder", "text_encoder"])
def test_the_run_is_made_again(with_wide_graphs: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Once of this component: said once, counted, and the picture is that of a run without a failure."""
    said: list[str] = []
    pipeline = StableDiffusionPipeline.from_pretrained(with_wide_graphs, notify=said.append)
    expected = pipeline("a", **CALL).images
    assert pipeline.rescues == {}
    said.clear()
    once = [name]

    def overflows(array: np.ndarray) -> bool:
        shapes = {"unet": (2, 4, 8, 8), "vae_decoder": (1, 3, 64, 64), "text_encoder": (1, 77, 32)}
        return bool(once) and array.shape == shapes[once[0]] and once.pop() == name

    monkeypatch.setattr("sdrt.buffers.failed", overflows)
    found = pipeline("a", **CALL).images
    assert pipeline.rescues == {name: 1}
    assert [line for line in said if line.startswith(f"{name}: float16 overflowed")] == said
    assert len(said) == 1
    np.testing.assert_array_equal(found, expected)


def test_without_such_a_graph_it_is_an_error(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sdrt.buffers.failed", lambda array: True)
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    assert pipeline("a", **CALL).images.shape == (1, 64, 64, 3)
    assert pipeline.rescues == {}


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
