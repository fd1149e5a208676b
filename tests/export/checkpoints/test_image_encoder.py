"""Vision encoders in folders and in files of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from sdrt.errors import IntegrityError, ModelNotFoundError, UnsupportedModelError
from sdrt_export.architectures.clip_vision import ClipVisionConfig
from sdrt_export.checkpoints.image_encoder import open_image_encoder

# Widths of real encoders, because a file does not show how many heads there are.
LARGE = {"hidden_size": 1024, "num_attention_heads": 16, "hidden_act": "quick_gelu"}
HUGE = {"hidden_size": 1280, "num_attention_heads": 16, "hidden_act": "gelu"}
SMALL = {"intermediate_size": 4, "num_hidden_layers": 1, "image_size": 28, "patch_size": 14}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of an encoder, beside an adapter's files as in h94's repository."""
    return written(tmp_path / "models" / "image_encoder", LARGE)


def written(folder: Path, shape: dict[str, object]) -> Path:
    config = transformers.CLIPVisionConfig(**SMALL, **shape, projection_dim=6)
    transformers.CLIPVisionModelWithProjection(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("shape", [LARGE, HUGE])
def test_folder_and_file_are_the_same_encoder(shape: dict[str, object], tmp_path: Path) -> None:
    folder = written(tmp_path / "image_encoder", shape)
    expected = open_image_encoder(folder)
    assert ClipVisionConfig.of(open_image_encoder(tmp_path).config) == ClipVisionConfig.of(expected.config)
    found = open_image_encoder(folder / "model.safetensors")
    assert ClipVisionConfig.of(found.config) == ClipVisionConfig.of(expected.config)
    assert set(found.tensors) == set(expected.tensors)


def test_a_whole_clip_has_an_encoder(folder: Path) -> None:
    file = folder / "model.safetensors"
    more = {"logit_scale": torch.zeros(1), "text_model.final_layer_norm.bias": torch.zeros(4)}
    save_file(load_file(file) | more | {"vision_model.embeddings.position_ids": torch.zeros(1, 5)}, file)
    assert open_image_encoder(file).config["num_hidden_layers"] == 1


def test_what_is_no_encoder_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json and no image_encoder/config\.json"):
        open_image_encoder(tmp_path)
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        open_image_encoder(tmp_path / "none.safetensors")
    with pytest.raises(UnsupportedModelError, match="pickle"):
        open_image_encoder(tmp_path / "open_clip_pytorch_model.bin")
    save_file({"lora_unet_mid.alpha": torch.zeros(1)}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelNotFoundError, match="expected a folder of transformers'"):
        open_image_encoder(tmp_path / "lora.safetensors")
    for named in ({"_class_name": "ControlNetModel"}, {"architectures": ["CLIPTextModel"]}):
        other = tmp_path / "other"
        other.mkdir(exist_ok=True)
        (other / "config.json").write_text(json.dumps({"hidden_size": 4, **named}))
        (name,) = (one if isinstance(one, str) else one[0] for one in named.values())
        with pytest.raises(ModelNotFoundError, match=f"other has a {name}: expected a folder of transf"):
            open_image_encoder(other)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"vision_model.registers": torch.zeros(2, 2)}, file)
    with pytest.raises(UnsupportedModelError, match=r"the weights have vision_model\.registers"):
        open_image_encoder(folder)
    tensors.pop("vision_model.post_layernorm.bias")
    save_file(tensors, file)
    with pytest.raises(IntegrityError, match=r"the weights lack vision_model\.post_layernorm\.bias"):
        open_image_encoder(folder)
    tensors["vision_model.embeddings.position_embedding.weight"] = torch.zeros(7, 1024)
    save_file(tensors, file)
    with pytest.raises(UnsupportedModelError, match="is 1024 wide and has 7 positions"):
        open_image_encoder(file)
