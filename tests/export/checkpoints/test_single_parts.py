"""Files of single parts, which replace those of a checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from diffusers import AutoencoderKL

from sdrt.errors import ModelNotFoundError, UnsupportedModelError
from tests.export.checkpoints.ldm_files import Made, made, prefixed
from tests.export.checkpoints.single_files import VAE_CONFIG, opened
from tests.safetensors_files import save_file


@pytest.mark.parametrize("style", ["prefix", "bare", "diffusers", "old diffusers", "folder", "model folder"])
def test_another_vae(style: str, tmp_path: Path, files: dict[str, tuple[Path, Made]]) -> None:
    path, _ = files["sd1"]
    other = made("sd1", {"in_channels": 9})
    state = {name: tensor.numpy() for name, tensor in other.parts["vae"].items()}
    prefix = "first_stage_model."
    own = {n: a for n, a in other.tensors.items() if n.startswith(prefix)}
    given = tmp_path / "vae.safetensors"
    if style == "prefix":
        save_file(own, given)
    elif style == "bare":
        loss = {"loss.logvar": np.zeros(1, np.float32)}
        save_file({**{n.removeprefix(prefix): a for n, a in own.items()}, **loss}, given)
    elif style == "diffusers":
        save_file(state, given)
    elif style == "old diffusers":
        old = (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn"))
        renamed = dict(state)
        for new, before in old:
            renamed = {n.replace(f"0.{new}.", f"0.{before}."): a for n, a in renamed.items()}
        assert any("proj_attn" in name for name in renamed)
        save_file(renamed, given)
    else:
        given = tmp_path / "folder"
        vae = AutoencoderKL(**VAE_CONFIG, scaling_factor=0.5)
        vae.load_state_dict(other.parts["vae"])
        vae.save_pretrained(given / "vae" if style == "model folder" else given)
    checkpoint = opened(path, vae=given)
    for name, array in state.items():
        np.testing.assert_array_equal(checkpoint.tensors("vae")[name], array, err_msg=name)
    assert checkpoint.config("vae")["scaling_factor"] == (0.5 if "folder" in style else 0.18215)
    assert set(checkpoint.left_over.values()) == {"another file replaces this part"}


def test_other_text_encoders(tmp_path: Path, files: dict[str, tuple[Path, Made]]) -> None:
    path, _ = files["sdxl"]
    other = made("sdxl", {"in_channels": 9})
    small = {name: tensor.numpy() for name, tensor in other.parts["text_encoder"].items()}
    save_file(
        {**small, "text_projection.weight": np.zeros((64, 64), np.float32)}, tmp_path / "clip_l.safetensors"
    )
    prefix = "conditioner.embedders.1.model."
    big = {n.removeprefix(prefix): a for n, a in other.tensors.items() if n.startswith(prefix)}
    save_file({**big, "visual.conv1.weight": np.zeros(3, np.float32)}, tmp_path / "clip_g.safetensors")
    given = [tmp_path / "clip_g.safetensors", tmp_path / "clip_l.safetensors"]
    checkpoint = opened(path, text_encoders=given)
    for part in ("text_encoder", "text_encoder_2"):
        for name, tensor in other.parts[part].items():
            np.testing.assert_array_equal(checkpoint.tensors(part)[name], tensor.numpy(), err_msg=name)


def test_a_file_that_is_no_vae_is_called_what_it_is(
    tmp_path: Path, files: dict[str, tuple[Path, Made]]
) -> None:
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_mid_block_proj_in.lora_down.weight": np.zeros((2, 2), np.float32)}, lora)
    with pytest.raises(ModelNotFoundError, match="is a LoRA: expected a VAE"):
        opened(files["sd1"][0], vae=lora)
    with pytest.raises(ModelNotFoundError, match="is a LoRA: expected a text encoder"):
        opened(files["sd1"][0], text_encoders=[lora])
    other = tmp_path / "other.safetensors"
    save_file({"model.text_model.final_layer_norm.weight": np.zeros(2, np.float32)}, other)
    with pytest.raises(ModelNotFoundError, match="a text encoder of CLIP with the tensor names of A1111"):
        opened(files["sd1"][0], text_encoders=[other])
    with pytest.raises(UnsupportedModelError, match="pickle"):
        opened(files["sd1"][0], vae=tmp_path / "vae.pt")


def test_a_vae_of_another_family_is_refused(tmp_path: Path, files: dict[str, tuple[Path, Made]]) -> None:
    vae = AutoencoderKL(**VAE_CONFIG, latent_channels=16)
    state = {name: tensor.numpy() for name, tensor in vae.state_dict().items()}
    save_file(prefixed("", state), tmp_path / "vae.safetensors")
    with pytest.raises(UnsupportedModelError, match="16 latent channels"):
        opened(files["sd1"][0], vae=tmp_path / "vae.safetensors")
