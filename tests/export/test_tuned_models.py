"""Models of other kinds, tuned: every graph of theirs can be, and images stay the same."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdrt import StableDiffusionPipeline
from sdrt.onnx.tuned import every_tuned_graph
from tests.made_once import MadeOnce
from tests.parity.legacy_onnx import LEGACY, make_legacy

GRAPHS = {"unet", "text_encoder", "vae_decoder", "vae_encoder"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDRT_CACHE", str(tmp_path / "cache"))


def image(model: Path, *, tune: bool = False) -> np.ndarray:
    with StableDiffusionPipeline.from_pretrained(model, provider="cpu", notify=lambda _: None) as pipeline:
        if tune:
            pipeline.tune()
        found = pipeline("a cat", num_inference_steps=1, width=64, height=64, seed=0)
        return np.asarray(found.images[0])


def check(model: Path) -> None:
    plain = image(model)
    np.testing.assert_array_equal(image(model, tune=True), plain)
    assert {one.folder.name.rpartition("-")[0] for one in every_tuned_graph()} == GRAPHS
    np.testing.assert_array_equal(image(model), plain)


def test_a_checkpoint_in_float8(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(checkpoint("sd1"), model)
    (path,) = (model / "unet").glob("*.safetensors")
    save_file({name: one.to(torch.float8_e4m3fn) for name, one in load_file(path).items()}, path)
    check(model)


@pytest.mark.full
@pytest.mark.parametrize("name", ["0.6", "fp16"])
def test_folders_of_the_first_converter(
    name: str, checkpoint: Callable[[str], Path], made_once: MadeOnce
) -> None:
    """Their channels are free axes, and their encoder of images draws noise."""
    row = LEGACY[name]
    check(made_once(f"legacy/{name}", lambda folder: make_legacy(checkpoint(row.variant), folder, row)))
