"""A single file's tensors are those that diffusers' own converters make of it; its configs are those of the modules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)

from sdrt.errors import UnsupportedModelError
from sdrt_export.architectures.unet_config import UNetConfig
from tests.export.checkpoints.ldm_files import (
    REFINER_UNET,
    SD1_UNET,
    SD2_UNET,
    SDXL_UNET,
    TEXTS,
    UPSCALER_UNET,
    Made,
    made,
)
from tests.export.checkpoints.single_files import KINDS, VAE_CONFIG, opened
from tests.safetensors_files import save_file

UNETS = {
    "sd1": SD1_UNET,
    "sd2": SD2_UNET,
    "sdxl": SDXL_UNET,
    "sdxl-refiner": REFINER_UNET,
    "x4-upscaler": UPSCALER_UNET,
}


def torch_state(content: Made) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in content.tensors.items()}


def converted(kind: str, content: Made) -> dict[str, dict[str, torch.Tensor]]:
    """What diffusers makes of the same file."""
    state = torch_state(content)
    found = {
        "unet": convert_ldm_unet_checkpoint(dict(state), UNet2DConditionModel(**UNETS[kind]).config),
        "vae": convert_ldm_vae_checkpoint(dict(state), AutoencoderKL(**VAE_CONFIG).config),
    }
    for part, prefix, _, open_clip, _ in TEXTS[kind]:
        found[part] = (
            convert_open_clip_checkpoint(content.modules[part], dict(state), prefix=prefix)
            if open_clip
            else convert_ldm_clip_checkpoint(dict(state))
        )
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_is_what_diffusers_converter_makes(
    kind: str, files: dict[str, tuple[Path, Made]]
) -> None:
    path, content = files[kind]
    checkpoint = opened(path)
    for part, expected in converted(kind, content).items():
        tensors = checkpoint.tensors(part)
        assert set(tensors) == set(expected) == set(content.parts[part]), part
        for name, tensor in expected.items():
            np.testing.assert_array_equal(tensors[name], tensor.numpy(), err_msg=name)
            assert tensors.sources[name].shape == tuple(tensor.shape)
            np.testing.assert_array_equal(tensors[name], content.parts[part][name].numpy(), err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_each_tensor_of_the_file_is_used_once(kind: str, files: dict[str, tuple[Path, Made]]) -> None:
    checkpoint = opened(files[kind][0])
    sources = [source for part in checkpoint.parts.values() for source in part.tensors.sources.values()]
    whole = [source.name for source in sources if "in_proj" not in source.name]
    assert len(whole) == len(set(whole))
    assert {source.name for source in sources} == set(files[kind][1].tensors)
    assert checkpoint.left_over == {}


@pytest.mark.parametrize("kind", KINDS)
def test_the_configs_make_the_same_modules(kind: str, files: dict[str, tuple[Path, Made]]) -> None:
    path, content = files[kind]
    checkpoint = opened(path)
    unet = UNet2DConditionModel(**checkpoint.config("unet"))
    expected = UNet2DConditionModel(**UNETS[kind])
    assert {name: tensor.shape for name, tensor in unet.state_dict().items()} == {
        name: tensor.shape for name, tensor in expected.state_dict().items()
    }
    assert UNetConfig.of(checkpoint.config("unet")) == UNetConfig.of(dict(expected.config))
    vae = AutoencoderKL(**checkpoint.config("vae")).config
    assert {key: vae[key] for key in VAE_CONFIG} == {
        key: list(value) if isinstance(value, tuple) else value for key, value in VAE_CONFIG.items()
    }
    for part, module in content.modules.items():
        own, wanted = checkpoint.config(part), module.config
        for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
            assert own[key] == getattr(wanted, key), (part, key)
        assert (own["hidden_act"], own["eos_token_id"]) == (wanted.hidden_act, wanted.eos_token_id)


SSD_1B = {
    "transformer_layers_per_block": (1, (2, 2), (4, 4)),
    "reverse_transformer_layers_per_block": ((4, 4, 3), (2, 1, 1), 1),
    "mid_block_type": "UNetMidBlock2D",
}


VEGA = {"transformer_layers_per_block": (1, 1, 2), "mid_block_type": "UNetMidBlock2D"}


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("sdxl", SSD_1B),
        ("sdxl", VEGA),
        ("sdxl", {"mid_block_type": None}),
        ("sdxl", {"in_channels": 9}),
        ("sdxl", {"in_channels": 8}),
        ("sd1", {"in_channels": 9}),
        ("sd1", {"in_channels": 8}),
        ("sd1", {"mid_block_type": None}),
        ("sd1", {"layers_per_block": (2, 1)}),
        ("sd1", {"time_cond_proj_dim": 12}),
        ("sd1", {"time_embedding_dim": 96}),
        ("sd2", {"in_channels": 9}),
    ],
)
def test_other_shapes(kind: str, changed: dict[str, Any], tmp_path: Path) -> None:
    content = made(kind, changed)
    checkpoint = opened(content.saved(tmp_path / "model.safetensors"))
    tensors = checkpoint.tensors("unet")
    assert set(tensors) == set(content.parts["unet"])
    for name, tensor in content.parts["unet"].items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy(), err_msg=name)
    expected = UNet2DConditionModel(**{**UNETS[kind], **changed})
    assert UNetConfig.of(checkpoint.config("unet")) == UNetConfig.of(dict(expected.config))
    UNet2DConditionModel(**checkpoint.config("unet")).load_state_dict(content.parts["unet"])


def test_known_extras_are_left_out_with_a_reason(tmp_path: Path) -> None:
    text = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    extras = {
        text: np.arange(77, dtype=np.int64)[None],
        "cond_stage_model.logit_scale": np.zeros((), np.float32),
        "alphas_cumprod": np.zeros(8, np.float32),
        "sqrt_one_minus_alphas_cumprod": np.zeros(8, np.float32),
        "model_ema.decay": np.zeros((), np.float32),
        "model_ema.diffusion_modelinput_blocks00weight": np.zeros((2, 2), np.float32),
        "first_stage_model.loss.discriminator.main.0.weight": np.zeros((2, 2), np.float32),
    }
    content = made("sd1")
    told: list[str] = []
    checkpoint = opened(content.saved(tmp_path / "model.safetensors", **extras), notify=told.append)
    assert set(checkpoint.left_over) == set(extras)
    assert all(checkpoint.left_over.values())
    assert len(told) == 1
    assert "model_ema" in told[0]
    assert "plain ones are used" in told[0]


def test_an_unknown_tensor_outside_the_networks_is_named(tmp_path: Path) -> None:
    told: list[str] = []
    path = made("sd1").saved(tmp_path / "model.safetensors", stowaway=np.zeros(3, np.float32))
    assert opened(path, notify=told.append).left_over == {"stowaway": ""}
    assert "'stowaway'" in told[0]


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "first_stage_model.", TEXTS["sd1"][0][1]])
def test_an_unknown_tensor_within_a_network_is_refused(prefix: str, tmp_path: Path) -> None:
    name = f"{prefix}stowaway.weight"
    path = made("sd1").saved(tmp_path / "model.safetensors", **{name: np.zeros(3, np.float32)})
    with pytest.raises(UnsupportedModelError, match="stowaway"):
        opened(path)


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float16])
def test_damaged_positions_are_said(dtype: Any, tmp_path: Path) -> None:
    positions = np.arange(77).astype(dtype)[None]
    name = "cond_stage_model.transformer.text_model.embeddings.position_ids"
    told: list[str] = []
    content = made("sd1")
    path = content.saved(tmp_path / "good.safetensors", **{name: positions})
    assert "text_model.embeddings.position_ids" not in opened(path, notify=told.append).tensors(
        "text_encoder"
    )
    assert told == []
    positions[0, 41] = 40
    opened(content.saved(tmp_path / "bad.safetensors", **{name: positions}), notify=told.append)
    assert len(told) == 1
    assert name in told[0]


def test_the_text_encoder_without_text_model(tmp_path: Path) -> None:
    """As files from before transformers 4.31, and from 5.6 on, have it."""
    content = made("sd1")
    old = {name.replace(".text_model.", "."): array for name, array in content.tensors.items()}
    save_file(old, tmp_path / "model.safetensors")
    tensors = opened(tmp_path / "model.safetensors").tensors("text_encoder")
    assert set(tensors) == set(content.parts["text_encoder"])


def test_stable_diffusion_2_leaves_out_the_24th_layer(tmp_path: Path) -> None:
    content = made("sd2")
    prefix = "cond_stage_model.model.transformer.resblocks."
    layer = {n[len(prefix) + 1 :]: a for n, a in content.tensors.items() if n.startswith(f"{prefix}1.")}
    layers = {f"{prefix}{at}{name}": array for at in range(2, 24) for name, array in layer.items()}
    path = content.saved(
        tmp_path / "model.safetensors",
        **layers,
        **{"cond_stage_model.model.text_projection": np.zeros((64, 64), np.float32)},
    )
    checkpoint = opened(path)
    assert checkpoint.config("text_encoder")["num_hidden_layers"] == 23
    state = {name: torch.from_numpy(np.array(a)) for name, a in {**content.tensors, **layers}.items()}
    expected = convert_open_clip_checkpoint(content.modules["text_encoder"], state)
    assert set(checkpoint.tensors("text_encoder")) == set(expected)
    assert all(".23." in name or "projection" in name for name in checkpoint.left_over)


def test_the_vaes_attention_under_newer_names(tmp_path: Path) -> None:
    content = made("sd1")
    renamed = {
        name.replace("attn_1.q.", "attn_1.to_q.").replace("attn_1.proj_out.", "attn_1.to_out.0."): array
        for name, array in content.tensors.items()
    }
    save_file(renamed, tmp_path / "model.safetensors")
    tensors = opened(tmp_path / "model.safetensors").tensors("vae")
    for name, tensor in content.parts["vae"].items():
        np.testing.assert_array_equal(tensors[name], tensor.numpy())


def test_two_names_for_a_tensor_are_refused(tmp_path: Path) -> None:
    content = made("sd1")
    name = "first_stage_model.decoder.mid.attn_1.q.weight"
    twin = {name.replace(".q.", ".to_q."): content.tensors[name]}
    with pytest.raises(UnsupportedModelError, match="twice"):
        opened(content.saved(tmp_path / "model.safetensors", **twin))
