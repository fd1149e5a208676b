"""The facts in the errors of files: images, models, hashes, textual inversions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sdrt import StableDiffusionPipeline, errors
from sdrt.common.notices import Notices
from sdrt.errors import IntegrityError, RequestError, SdrtError, UnsupportedModelError
from sdrt.model_folder.folder import ModelFolder


def test_a_bad_image_file(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    for content, fits in ((None, "an image"), (b"no image", "PNG"), (b"\x89PNG\r\n\x1a\n", "PNG")):
        if content is not None:
            bad.write_bytes(content)
        with pytest.raises(RequestError) as caught:
            pipeline("a red circle", image=bad)
        assert (caught.value.argument, caught.value.path) == ("image", bad)
        assert fits in str(caught.value.fits)


def _without_graph(model: Path) -> Path:
    (model / "unet" / "model.onnx").unlink()
    return model / "unet" / "model.onnx"


def _bad_config(model: Path) -> Path:
    (model / "vae_decoder" / "config.json").write_text("{")
    return model / "vae_decoder" / "config.json"


def _bad_scheduler(model: Path) -> Path:
    (model / "scheduler" / "scheduler_config.json").write_text("[]")
    return model / "scheduler" / "scheduler_config.json"


def _bad_tokenizer(model: Path) -> Path:
    path = next(
        path for name in ("tokenizer.json", "vocab.json") if (path := model / "tokenizer" / name).exists()
    )
    path.write_text("{")
    return path


def _bad_index(model: Path) -> Path:
    (model / "model_index.json").write_text("{}")
    return model / "model_index.json"


def _bad_manifest(model: Path) -> Path:
    (model / "sdrt.json").write_text(json.dumps({"format_version": 99}))
    return model / "sdrt.json"


@pytest.mark.parametrize(
    ("damage", "kind", "component", "fits"),
    [
        (_without_graph, IntegrityError, "unet", "copy the whole model folder, or export it again"),
        (_bad_config, IntegrityError, "vae_decoder", "export the model again"),
        (_bad_scheduler, IntegrityError, "scheduler", "export the model again"),
        (_bad_tokenizer, IntegrityError, "tokenizer", "export the model again"),
        (_bad_index, UnsupportedModelError, None, "StableDiffusionPipeline"),
        (_bad_manifest, UnsupportedModelError, None, "upgrade with pip install -U sdrt"),
    ],
)
def test_a_damaged_model(
    model_copy: Path, damage: Callable[[Path], Path], kind: type[SdrtError], component: str | None, fits: str
) -> None:
    path = damage(model_copy)
    with pytest.raises(kind) as caught, StableDiffusionPipeline.from_pretrained(model_copy) as pipeline:
        pipeline("a red circle", num_inference_steps=1)
    assert (caught.value.component, caught.value.path) == (component, path)
    assert fits in str(caught.value.fits)


def test_a_wrong_hash(tiny_model: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    graph = model / "vae_decoder" / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.write_bytes(data)
    with pytest.raises(IntegrityError, match="sha256") as caught:
        ModelFolder.open(model).verify(Notices())
    assert (caught.value.component, caught.value.path) == ("vae_decoder", graph)
    assert caught.value.fits == "copy or export the model again"


@pytest.mark.parametrize("name", ["word.pt", "word.safetensors"])
def test_a_wrong_textual_inversion(pipeline: StableDiffusionPipeline, tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.ModelError) as caught:
        pipeline.load_textual_inversion(tmp_path / name)
    assert caught.value.path == tmp_path / name
    assert "safetensors" in str(caught.value.fits)


def test_a_wrong_file_name(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    output = pipeline("a red circle", num_inference_steps=1)
    for name in ("a.tiff", "none/a.png", "{x}.png"):
        with pytest.raises(RequestError) as caught:
            output.save(tmp_path / name)
        assert caught.value.path == tmp_path / name
        assert caught.value.fits
