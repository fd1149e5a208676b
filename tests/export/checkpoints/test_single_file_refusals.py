"""Single files that are refused, and what they are called."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers import UNet2DConditionModel

from sdrt import StableDiffusionPipeline
from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from tests.export.checkpoints.ldm_files import SD2_UNET, made, unet_state
from tests.export.checkpoints.single_files import opened
from tests.safetensors_files import save_file


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("depth_model.model.pretrained.cls", "Stable Diffusion 2 with depth"),
        ("embedder.model.visual.proj", "Stable unCLIP"),
        ("noise_augmentor.betas", "Stable unCLIP"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("model.diffusion_model.double_blocks.0.img_attn.norm.key_norm.scale", "Flux"),
        ("cond_stage_model.roberta.embeddings.word_embeddings.weight", "AltDiffusion"),
        ("edm_mean", "Playground 2.5"),
        ("edm_vpred.sigma_max", "CosXL"),
        ("cc_projection.weight", "Zero123"),
        ("model.diffusion_model.input_blocks.1.1.time_stack.0.norm1.weight", "Stable Video Diffusion"),
    ],
)
def test_other_families_are_named(name: str, what: str, tmp_path: Path) -> None:
    path = made("sd1").saved(tmp_path / "model.safetensors", **{name: np.zeros((2, 2), np.float32)})
    with pytest.raises(UnsupportedModelError, match=what):
        opened(path)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight", "a LoRA"),
        ("decoder.conv_in.weight", "a VAE"),
        ("control_model.input_blocks.0.0.weight", "a ControlNet"),
        ("down_blocks.0.resnets.0.norm1.weight", "a U-Net in diffusers' names"),
        ("whatever", "unknown kind"),
    ],
)
def test_other_files_are_called_what_they_are(name: str, what: str, tmp_path: Path) -> None:
    save_file({name: np.zeros((2, 2, 3), np.float32)}, tmp_path / "file.safetensors")
    with pytest.raises(ModelNotFoundError, match=what):
        opened(tmp_path / "file.safetensors")


def test_a_u_net_for_depth_is_called_so(tmp_path: Path) -> None:
    """Some files lack the network that finds the depths (`depth_model`)."""
    content = made("sd2")
    _, unet = unet_state({**SD2_UNET, "in_channels": 5})
    save_file({**content.without("model.diffusion_model."), **unet}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=r"takes 5 channels .*Stable Diffusion 2 with depth"):
        StableDiffusionPipeline.from_single_file(tmp_path / "model.safetensors", prediction_type="epsilon")


@pytest.mark.parametrize(
    ("prefix", "remedy"), [("first_stage_model.", "--vae FILE"), ("cond_stage_model.", "--text-encoder FILE")]
)
def test_a_missing_part_has_a_remedy(prefix: str, remedy: str, tmp_path: Path) -> None:
    save_file(made("sd1").without(prefix), tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match=remedy):
        opened(tmp_path / "model.safetensors")


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    scaled = {"model.diffusion_model.input_blocks.0.0.scale_weight": np.ones((), np.float32)}
    with pytest.raises(UnsupportedModelError, match="quantised"):
        opened(made("sd1").saved(tmp_path / "model.safetensors", **scaled))


def test_heads_that_cannot_be_told_are_asked_for(tmp_path: Path) -> None:
    config = {**SD2_UNET, "block_out_channels": (32, 96), "attention_head_dim": (2, 4)}
    content = made("sd2")
    _, unet = unet_state(config)
    save_file({**content.without("model.diffusion_model."), **unet}, tmp_path / "model.safetensors")
    with pytest.raises(UnsupportedModelError, match="--config FOLDER"):
        opened(tmp_path / "model.safetensors")
    folder = tmp_path / "configs"
    UNet2DConditionModel(**config).save_config(folder / "unet")
    checkpoint = opened(tmp_path / "model.safetensors", config=folder)
    assert checkpoint.config("unet")["attention_head_dim"] == [2, 4]


def test_files_of_a_unet_alone(tmp_path: Path) -> None:
    content = made("sd1")
    prefix = "model.diffusion_model."
    unet = {n.removeprefix(prefix): a for n, a in content.tensors.items() if n.startswith(prefix)}
    save_file(unet, tmp_path / "unet.safetensors")
    with pytest.raises(UnsupportedModelError, match="no text_encoder"):
        opened(tmp_path / "unet.safetensors")
    save_file(content.without("model."), tmp_path / "rest.safetensors")
    rest = tmp_path / "rest.safetensors"
    checkpoint = opened(tmp_path / "unet.safetensors", vae=rest, text_encoders=[rest])
    for part, expected in content.parts.items():
        assert set(checkpoint.tensors(part)) == set(expected)
