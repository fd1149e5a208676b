"""A ControlNet's tensors and config are the module's, however its file names them. Everything else is named."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint

from sdrt.errors import ModelError, ModelNotFoundError, UnsupportedModelError
from sdrt_export.architectures.controlnet_config import ControlNetConfig
from sdrt_export.checkpoints.controlnet import check_fits, open_controlnet_part
from sdrt_export.checkpoints.defaults import completed
from sdrt_export.checkpoints.keys.controlnet import controlnet_rows
from sdrt_export.checkpoints.parts import Part
from tests.export.checkpoints.ldm_files import (
    SD1_UNET,
    SD2_UNET,
    SDXL_UNET,
    inverted,
    prefixed,
    random_state,
)
from tests.safetensors_files import save_file

UNETS = {"sd1": SD1_UNET, "sd2": SD2_UNET, "sdxl": SDXL_UNET}
_UNET_ONLY = ("up_block_types",)


def config_of(kind: str) -> dict[str, Any]:
    own = {key: value for key, value in UNETS[kind].items() if key not in _UNET_ONLY}
    return own | {"conditioning_embedding_out_channels": (4, 6, 8, 10)}


@cache
def module_of(kind: str) -> Any:
    torch.manual_seed(0)
    return ControlNetModel(**config_of(kind))


@cache
def state_of(kind: str) -> dict[str, torch.Tensor]:
    return random_state(module_of(kind))


def ldm(kind: str, prefix: str = "control_model.") -> dict[str, Any]:
    rows = controlnet_rows(ControlNetConfig.of(dict(module_of(kind).config)))
    return prefixed(prefix, inverted(state_of(kind), rows))


def diffusers_names(kind: str, prefix: str = "") -> dict[str, Any]:
    return prefixed(prefix, {name: tensor.numpy() for name, tensor in state_of(kind).items()})


def opened(path: Path, kind: str) -> Part:
    return open_controlnet_part(path, completed("UNet2DConditionModel", UNETS[kind]))


def assert_is_module(part: Part, kind: str) -> None:
    wanted = completed("ControlNetModel", json.loads(module_of(kind).to_json_string()))
    own = ControlNetConfig.of(part.config)
    assert own == ControlNetConfig.of(wanted)
    state = state_of(kind)
    assert set(part.tensors) == set(state)
    for name, tensor in state.items():
        np.testing.assert_array_equal(part.tensors[name], tensor.numpy())


@pytest.mark.parametrize("prefix", ["control_model.", ""])
@pytest.mark.parametrize("kind", UNETS)
def test_a_file_of_lllyasviels_kind(kind: str, prefix: str, tmp_path: Path) -> None:
    tensors = ldm(kind, prefix)
    save_file(tensors, tmp_path / "control.safetensors")
    part = opened(tmp_path / "control.safetensors", kind)
    assert_is_module(part, kind)
    # diffusers' converter does not know that SDXL's label_emb belongs to a ControlNet.
    theirs = convert_controlnet_checkpoint(
        {name: torch.from_numpy(np.array(one)) for name, one in tensors.items()}, module_of(kind).config
    )
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(part.tensors[name], tensor.numpy())


def test_the_rest_of_a_whole_model_in_the_file_is_left_out(tmp_path: Path) -> None:
    """lllyasviel's first files contain the model that the ControlNet was trained with too."""
    more = {"model.diffusion_model.out.2.bias": np.zeros(4, np.float32), "betas": np.zeros(9, np.float32)}
    save_file({**ldm("sd1"), **more}, tmp_path / "control.safetensors")
    assert_is_module(opened(tmp_path / "control.safetensors", "sd1"), "sd1")


@pytest.mark.parametrize("prefix", ["", "controlnet."])
@pytest.mark.parametrize("kind", UNETS)
def test_a_file_in_diffusers_names(kind: str, prefix: str, tmp_path: Path) -> None:
    save_file(diffusers_names(kind, prefix), tmp_path / "control.safetensors")
    assert_is_module(opened(tmp_path / "control.safetensors", kind), kind)


@pytest.mark.parametrize("options", [{}, {"variant": "fp16"}, {"max_shard_size": "200KB"}], ids=str)
def test_a_folder_of_diffusers(options: Mapping[str, Any], tmp_path: Path) -> None:
    state_of("sd1")
    module_of("sd1").save_pretrained(tmp_path / "control", **options)
    assert_is_module(opened(tmp_path / "control", "sd1"), "sd1")


def test_the_controlnet_of_a_whole_folder(tmp_path: Path) -> None:
    state_of("sd1")
    module_of("sd1").save_pretrained(tmp_path / "controlnet")
    assert_is_module(opened(tmp_path, "sd1"), "sd1")


@pytest.mark.parametrize(
    ("name", "pools"),
    [
        ("control_v11e_sd15_shuffle", True),
        ("control_v11e_sd15_shuffle_fp16", True),
        ("control_v11p_sd15_canny", False),
        ("shuffled_lines", False),
    ],
)
def test_only_shuffle_pools(name: str, pools: bool, tmp_path: Path) -> None:
    """ComfyUI and A1111's extension go by the name too, because nothing in the file says it."""
    save_file(ldm("sd1"), tmp_path / f"{name}.safetensors")
    assert opened(tmp_path / f"{name}.safetensors", "sd1").config["global_pool_conditions"] is pools


def test_float16_stays_as_it_is(tmp_path: Path) -> None:
    tensors = {name: np.asarray(one, np.float16) for name, one in ldm("sd1").items()}
    save_file(tensors, tmp_path / "control.safetensors")
    part = opened(tmp_path / "control.safetensors", "sd1")
    assert {one.dtype for one in part.tensors.values()} == {np.dtype(np.float16)}


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["task_embedding", "controlnet_cond_embedding.conv_in.weight"], "a ControlNet-Union"),
        (["control_add_embedding.linear_1.weight"], "a ControlNet-Union"),
        (["control_to_base_for_conv_in.weight"], "a ControlNet-XS"),
        (["control_model.enc_zero_convs_out.0.0.weight"], "a ControlNet-XS"),
        (["lora_controlnet", "input_hint_block.0.weight"], "a Control-LoRA"),
        (["lllite_unet_input_blocks_7_1.down.0.weight"], "a ControlNet-LLLite"),
        (["difference", "control_model.input_hint_block.0.weight"], "the difference between"),
        (["lora_unet_down_blocks_0.lora_up.weight"], "a LoRA"),
        (["first_stage_model.decoder.conv_in.weight"], "a VAE"),
        (["something", "else"], "a safetensors file of an unknown kind"),
    ],
    ids=str,
)
def test_other_files_are_called_by_their_names(names: list[str], what: str, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    save_file({name: np.zeros((3, 3), np.float32) for name in names}, path)
    with pytest.raises(
        ModelError, match=f"file.safetensors is {what}.*expected a ControlNet or T2I-Adapter: "
    ) as error:
        opened(path, "sd1")
    assert "\n" not in str(error.value)


def test_a_pickle_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="cannot be read"):
        opened(tmp_path / "control.safetensors", "sd1")
    (tmp_path / "control.pth").write_bytes(b"\x80\x02")
    with pytest.raises(UnsupportedModelError, match="a pickle"):
        opened(tmp_path / "control.pth", "sd1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        opened(tmp_path / "empty", "sd1")


def test_a_tensor_of_another_architecture_is_named(tmp_path: Path) -> None:
    save_file(
        {**ldm("sd1"), "control_model.extra.weight": np.zeros(3, np.float32)}, tmp_path / "c.safetensors"
    )
    with pytest.raises(UnsupportedModelError, match=r"the controlnet has the tensor .*extra\.weight"):
        opened(tmp_path / "c.safetensors", "sd1")


def fits(part: Part, unet: Mapping[str, Any], **other: Any) -> None:
    check_fits(
        part, completed("UNet2DConditionModel", unet), "model", **{"channels": 4, "factor": 8, **other}
    )


def test_a_controlnet_that_fits() -> None:
    for kind in UNETS:
        part = Part(config=dict(module_of(kind).config), tensors=None, place="c")  # type: ignore[arg-type]
        fits(part, UNETS[kind])
        # A U-Net for inpainting takes more channels, but the ControlNet sees the latents alone.
        fits(part, UNETS[kind] | {"in_channels": 9})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"cross_attention_dim": 2048},
            "c is a ControlNet for SDXL: expected one for Stable Diffusion 1, as model is",
        ),
        (
            {"cross_attention_dim": 100},
            "c is a ControlNet for models with texts of width 100: expected one for Stable Diffusion 1",
        ),
        ({"block_out_channels": (32, 96)}, r"has blocks of \[32, 96\] channels: expected \[32, 64\]"),
        ({"layers_per_block": 2}, r"before its middle: expected \[32, 32, 32, 64\]"),
        ({"in_channels": 9}, "has 9 channels of latents: expected 4, as model has"),
        ({"conditioning_embedding_out_channels": (4, 6)}, "2 pixels per latent: expected 8"),
        ({"num_class_embeds": 5}, "has 5 class labels: expected 0"),
    ],
    ids=str,
)
def test_a_controlnet_for_another_model(change: dict[str, Any], message: str) -> None:
    config = config_of("sd1") | {"cross_attention_dim": 768} | change
    part = Part(config=config, tensors=None, place="c")  # type: ignore[arg-type]
    with pytest.raises(UnsupportedModelError, match=message):
        fits(part, SD1_UNET | {"cross_attention_dim": 768})
