"""Folders without configs, as diffusers' first converter to ONNX left them: graphs tell what configs would say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import IntegrityError, ModelError, StableDiffusionPipeline, UnsupportedModelError
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.model_folder.folder import ModelFolder
from sdrt.model_folder.graph_configs import config_of_graph

GRAPHS = ("text_encoder", "unet", "vae_decoder", "vae_encoder")


@pytest.fixture
def bare(model_copy: Path) -> Path:
    """The tiny model without configs, and with the index of diffusers' `OnnxStableDiffusionPipeline`."""
    for part in GRAPHS:
        (model_copy / part / "config.json").unlink()
    index: dict[str, Any] = {part: ["diffusers", "OnnxRuntimeModel"] for part in (*GRAPHS, "safety_checker")}
    index |= {"_class_name": "OnnxStableDiffusionPipeline", "_diffusers_version": "0.24.0"}
    index |= {"tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "PNDMScheduler"]}
    index |= {"feature_extractor": ["transformers", "CLIPImageProcessor"], "requires_safety_checker": True}
    (model_copy / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return model_copy


def opened(folder: Path, messages: list[str] | None = None) -> StableDiffusionPipeline:
    notify = (messages if messages is not None else []).append
    return StableDiffusionPipeline.from_pretrained(folder, provider="cpu", threads=1, notify=notify)


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae_decoder"])
def test_a_graph_says_what_its_config_says(tiny_model: Path, part: str) -> None:
    config = json.loads((tiny_model / part / "config.json").read_text(encoding="utf-8"))
    found = config_of_graph(tiny_model / part / "model.onnx", STABLE_DIFFUSION)
    assert len(found.pop("block_out_channels", [])) == len(config.get("block_out_channels", []))
    assert found
    assert found == {key: config[key] for key in found}


def test_images_are_those_of_the_folder_with_configs(bare: Path, pipeline: StableDiffusionPipeline) -> None:
    assert not list(bare.glob("*/config.json"))
    messages: list[str] = []
    options: dict[str, Any] = {"seed": 5, "num_inference_steps": 3, "output_type": "np"}
    options |= {"height": 64, "width": 64}
    ours = opened(bare, messages)
    image = ours("a cat", **options).images
    np.testing.assert_array_equal(image, pipeline("a cat", **options).images)
    options |= {"image": image[0], "strength": 0.5}
    np.testing.assert_array_equal(ours("a dog", **options).images, pipeline("a dog", **options).images)
    assert messages == [
        "the safety checker of model is incomplete: safety_checker/model.onnx is missing. "
        "Images are not filtered"
    ]


def test_images_are_of_512_pixels(bare: Path) -> None:
    """diffusers' pipelines for such folders know no other size."""
    capabilities = ModelFolder.open(bare).capabilities
    assert (capabilities.default_height, capabilities.default_width) == (512, 512)


def test_a_config_beside_the_graph_counts(bare: Path, tiny_model: Path) -> None:
    config = json.loads((tiny_model / "unet" / "config.json").read_text(encoding="utf-8"))
    (bare / "unet" / "config.json").write_text(json.dumps(config | {"sample_size": 24}), encoding="utf-8")
    assert ModelFolder.open(bare).capabilities.default_height == 192


def test_other_exporters_write_configs(bare: Path) -> None:
    """Without one, their folder is incomplete. Its graphs do not tell the size that it was trained for."""
    index = json.loads((bare / "model_index.json").read_text(encoding="utf-8"))
    index["unet"] = ["optimum.onnxruntime.modeling_diffusion", "ORTModelUnet"]
    (bare / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(IntegrityError, match=r"unet/config\.json is missing: copy the whole model folder"):
        ModelFolder.open(bare)


@pytest.mark.parametrize("part", GRAPHS)
def test_empty_graphs(bare: Path, part: str) -> None:
    (bare / part / "model.onnx").write_bytes(b"")
    with pytest.raises(
        IntegrityError, match=rf"{part}/model\.onnx is not an ONNX file, or is damaged: copy or"
    ):
        opened(bare)("a", image=np.zeros((64, 64, 3), np.uint8), num_inference_steps=2)


def test_swapped_graphs(bare: Path) -> None:
    (bare / "unet" / "model.onnx").write_bytes((bare / "vae_encoder" / "model.onnx").read_bytes())
    with pytest.raises(
        UnsupportedModelError, match=r"unet lacks an input or output out_sample: copy unet/config\.json of"
    ):
        opened(bare)


def test_a_lost_file_of_weights_is_named(bare: Path) -> None:
    (bare / "vae_decoder" / "model.onnx_data").unlink()
    with pytest.raises(ModelError, match=r"vae_decoder/model\.onnx_data is missing, which holds weights of"):
        opened(bare).load()


@pytest.mark.parametrize("lost", [["vocab.json"], ["merges.txt"], ["vocab.json", "merges.txt"]])
def test_a_lost_tokenizer_is_named(bare: Path, lost: list[str]) -> None:
    for name in ("tokenizer.json", *lost):
        (bare / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(
        IntegrityError, match=rf"tokenizer/{lost[0]} is missing, and so is tokenizer\.json: copy the whole"
    ):
        opened(bare).load()
