"""A small decoder for previews, exported beside the model and used by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from diffusers import AutoencoderTiny
from PIL import Image

from sdrt import ModelNotFoundError, RequestError, StableDiffusionPipeline, UnsupportedModelError
from sdrt.model_folder.folder import Manifest
from sdrt_export import export_model
from sdrt_export.evaluator import Evaluator
from sdrt_export.restore import restore_checkpoint
from tests.made_once import MadeOnce

pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")

TINY: dict[str, Any] = {"architecture": "tiny", "random_weights": 0}


@pytest.fixture(scope="module")
def taesd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """TAESD's blocks with a few channels and random weights."""
    folder = tmp_path_factory.mktemp("taesd")
    torch.manual_seed(0)
    channels = {f"{half}_block_out_channels": (8, 8, 8, 8) for half in ("encoder", "decoder")}
    AutoencoderTiny(**channels).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(taesd: Path, made_once: MadeOnce) -> Path:
    return made_once(
        "with-taesd", lambda folder: export_model(None, folder, taesd=taesd, verify=True, **TINY)
    )


def test_previews_are_what_taesd_decodes(model: Path, taesd: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(model)
    latents = np.random.default_rng(0).standard_normal((2, 4, 7, 5), dtype=np.float32)
    found = pipeline.preview(latents)
    assert [image.size for image in found] == [(40, 56), (40, 56)]
    with torch.no_grad():
        expected = AutoencoderTiny.from_pretrained(taesd).decode(torch.from_numpy(latents)).sample
    levels = (expected / 2 + 0.5).clamp(0, 1).movedim(1, -1).numpy() * 255
    assert np.ptp(levels) > 20
    assert np.abs(np.stack([np.asarray(image) for image in found]) - levels).max() <= 0.51
    assert "taesd_decoder" in Manifest.read(model).components
    with pytest.raises(RequestError, match=r"latents have shape \(4, 7, 5\)"):
        pipeline.preview(latents[0])


@pytest.mark.full
def test_it_is_exported_for_cuda_too(taesd: Path, tmp_path: Path) -> None:
    """By the kernels of that provider, which NumPy stands in for: to the image that torch decodes, in float16."""
    manifest = export_model(None, tmp_path / "model", taesd=taesd, target="cuda", verify=True, **TINY)
    assert manifest.components["taesd_decoder"]["dtype"] == "float16"
    path = tmp_path / "model" / "taesd_decoder" / "model.onnx"
    operators = {node.op_type for node in ir.load(path).graph}
    assert "NhwcConv" in operators
    assert operators & {"Conv", "Resize"} == set()
    latents = np.random.default_rng(0).standard_normal((2, 4, 7, 5), dtype=np.float32)
    (found,) = Evaluator(path).run({"latent_sample": latents}, ["sample"])
    with torch.no_grad():
        expected = AutoencoderTiny.from_pretrained(taesd).decode(torch.from_numpy(latents)).sample.numpy()
    assert found.shape == expected.shape == (2, 3, 56, 40)
    assert np.abs(found - expected).max() < 1e-2 * np.abs(expected).max()


def test_the_command_previews_with_it(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from sdrt.cli import main

    monkeypatch.chdir(tmp_path)
    options = ["--steps", "2", "-W", "64", "-H", "64", "--preview-file", "now.png", "-o", "a.png"]
    result = CliRunner().invoke(main, ["generate", "a cat", "-m", str(model), *options])
    assert result.exit_code == 0, result.stderr
    with Image.open("now.png") as now:
        assert now.size == (64, 64)
        assert np.ptp(np.asarray(now)) > 0


@pytest.mark.parametrize("name", ["nope", "taesd.safetensors", "models/taesd.pt"])
def test_a_missing_taesd_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ModelNotFoundError, match=f"taesd is '{name}', which does not exist: expected a folder or"
    ):
        export_model(None, tmp_path / "model", taesd=name, **TINY)


def test_an_empty_taesd_is_named(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^taesd is '': expected a folder or hub id"):
        export_model(None, tmp_path / "model", taesd="", **TINY)


def test_what_is_no_taesd_is_refused(taesd: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match=r"--taesd .* has no config.json"):
        export_model(None, output, taesd=tmp_path / "empty", **TINY)
    (tmp_path / "empty" / "config.json").write_text('{"_class_name": "AutoencoderKL"}', encoding="utf-8")
    with pytest.raises(UnsupportedModelError, match="is of class AutoencoderKL: expected AutoencoderTiny"):
        export_model(None, output, taesd=tmp_path / "empty", **TINY)
    (tmp_path / "empty" / "config.json").write_bytes((taesd / "config.json").read_bytes())
    with pytest.raises(ModelNotFoundError, match=r"empty has no \.safetensors weights"):
        export_model(None, output, taesd=tmp_path / "empty", **TINY)
    with pytest.raises(RequestError, match="--taesd needs exporter 'sdrt'"):
        export_model(None, output, taesd=taesd, exporter="optimum", target="portable", **TINY)
    assert not output.exists()


def test_it_is_restored_with_the_model(model: Path, taesd: Path, tmp_path: Path) -> None:
    restore_checkpoint(model, tmp_path / "restored")
    latents = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 4, 7, 5), dtype=np.float32))
    with torch.no_grad():
        again, given = (
            AutoencoderTiny.from_pretrained(folder).decode(latents).sample
            for folder in (tmp_path / "restored" / "taesd_decoder", taesd)
        )
    torch.testing.assert_close(again, given)
    manifest = export_model(
        tmp_path / "restored", tmp_path / "again", taesd=tmp_path / "restored" / "taesd_decoder"
    )
    assert "taesd_decoder" in manifest.components
