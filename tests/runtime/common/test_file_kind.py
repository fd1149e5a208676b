"""Files of weights are called what they are, by the names of their tensors in the styles of many programs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrt import ModelError, ModelNotFoundError, UnsupportedModelError
from sdrt.common.file_kind import kind_of
from sdrt.common.safetensors_file import read_header
from sdrt.model_folder.resolve import open_local, resolve_model
from tests.safetensors_files import write_file

Tensors = dict[str, list[int]]

ATTENTION = "down_blocks{0}0{0}attentions{0}0{0}transformer_blocks{0}0{0}attn2{0}to_k"
KOHYA = f"lora_unet_{ATTENTION.format('_')}"
DIFFUSERS = f"unet.{ATTENTION.format('.')}"
# By the tensor that tells each from Stable Diffusion.
FAMILIES = {
    "depth_model.model.pretrained.cls_token": "Stable Diffusion 2 with depth",
    "embedder.model.ln_final.weight": "Stable unCLIP",
    "cc_projection.weight": "Stable Zero123",
    "model.diffusion_model.input_blocks.1.1.time_stack.0.x": "Stable Video Diffusion",
    "cond_stage_model.roberta.embeddings.word_embeddings.weight": "AltDiffusion",
    "edm_mean": "Playground 2.5",
    "edm_vpred.sigma_max": "CosXL",
    "model.diffusion_model.distilled_guidance_layer.in_proj.weight": "Chroma",
    "model.diffusion_model.cap_embedder.0.weight": "Lumina",
    "model.diffusion_model.mlp_t5.0.weight": "HunyuanDiT",
    "model.diffusion_model.patchify_proj.weight": "LTX-Video",
}
ORIGINAL = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def written(path: Path, tensors: Tensors) -> Path:
    header = {
        name: {"dtype": "F8", "shape": shape, "data_offsets": [0, 0]} for name, shape in tensors.items()
    }
    write_file(path, header)
    return path


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        (
            {f"{KOHYA}.lora_down.weight": [4, 768], "lora_te_text_model_x.alpha": []},
            "a LoRA for Stable Diffusion 1",
        ),
        (
            {f"{KOHYA}.lora_up.weight": [320, 4], f"{KOHYA}.lora_down.weight": [4, 1024]},
            "a LoRA for Stable Diffusion 2",
        ),
        ({f"{KOHYA}.lora_down.weight": [4, 2048]}, "a LoRA for SDXL"),
        ({f"{DIFFUSERS}.lora_A.weight": [4, 768]}, "a LoRA for Stable Diffusion 1"),
        ({f"{DIFFUSERS}.lora.down.weight": [4, 2048]}, "a LoRA for SDXL"),
        ({f"{DIFFUSERS}.lora_linear_layer.down.weight": [4, 768]}, "a LoRA for Stable Diffusion 1"),
        (
            {f"{ATTENTION.format('.').replace('to_k', 'processor.to_k_lora')}.down.weight": [4, 768]},
            "a LoRA for Stable Diffusion 1",
        ),
        ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": [4, 4]}, "a LoRA for SDXL"),
        ({"text_encoder.text_model.encoder.layers.0.q_proj.lora_B.weight": [4, 4]}, "a LoRA"),
        ({"base_model.model.down_blocks.0.x.lora_A.weight": [4, 4]}, "a LoRA"),
        ({"lora_unet_x.hada_w1_a": [4, 4]}, "a LoRA"),
        ({"lora_unet_x.lokr_w1": [4, 4]}, "a LoRA"),
        ({"diffusion_model.x.lokr_w2_a": [4, 4]}, "a LoRA"),
        ({"transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight": [4, 4]}, "a LoRA for Flux"),
        ({"lora_unet_double_blocks_0_img_attn_proj.lora_down.weight": [4, 4]}, "a LoRA for Flux"),
        ({"diffusion_model.double_blocks.0.img_attn.proj.lora_A.weight": [4, 4]}, "a LoRA for Flux"),
        ({"double_blocks.0.processor.qkv_lora1.down.weight": [4, 4]}, "a LoRA for Flux"),
        (
            {"transformer.transformer_blocks.0.attn.to_k.lora_A.weight": [4, 4]},
            "a LoRA for Stable Diffusion 3",
        ),
        ({"control_model.input_blocks.0.0.weight": [1]}, "a ControlNet"),
        ({"controlnet_cond_embedding.conv_in.weight": [1], "conv_in.weight": [1]}, "a ControlNet"),
        ({"lora_controlnet": [0], "input_blocks.1.0.down": [1]}, "a ControlNet"),
        ({"ip_adapter.1.to_k_ip.weight": [1], "image_proj.proj.weight": [1]}, "an IP-Adapter"),
        ({"adapter.body.0.resnets.0.block1.weight": [1]}, "a T2I-Adapter"),
        ({"down_blocks.0.motion_modules.0.norm.weight": [1]}, "a motion module"),
        ({"768.0.linear.0.weight": [1, 2]}, "a hypernetwork"),
        (
            {ORIGINAL: [320, 768], "first_stage_model.encoder.conv_in.weight": [1]},
            "a single-file checkpoint of Stable Diffusion 1",
        ),
        ({ORIGINAL: [320, 1024]}, "a single-file checkpoint of Stable Diffusion 2"),
        ({"conditioner.embedders.1.model.ln_final.weight": [1]}, "a single-file checkpoint of SDXL"),
        ({"model.diffusion_model.double_blocks.0.x": [1]}, "a single-file checkpoint of Flux"),
        ({"model.diffusion_model.joint_blocks.0.x": [1]}, "a single-file checkpoint of Stable Diffusion 3"),
        *(
            ({ORIGINAL: [320, 768], name: [1]}, f"a single-file checkpoint of {family}")
            for name, family in FAMILIES.items()
        ),
        ({"model.diffusion_model.label_emb.weight": [1000, 1024]}, "a single-file checkpoint"),
        ({"model.diffusion_model.label_emb.0.0.weight": [1, 1]}, "a single-file checkpoint of SDXL"),
        ({"adaln_single.linear.weight": [1]}, "a diffusion transformer of PixArt"),
        ({"clip_txt_mapper.weight": [1]}, "a diffusion transformer of Stable Cascade"),
        ({"double_layers.0.attn.w1q.weight": [1]}, "a diffusion transformer of AuraFlow"),
        ({"encoder.conv_in.weight": [1], "decoder.conv_in.weight": [1]}, "a VAE"),
        ({"first_stage_model.decoder.mid.attn_1.q.weight": [1]}, "a VAE"),
        ({"decoder.layers.0.weight": [1]}, "a small VAE (TAESD)"),
        ({"conv_in.weight": [1], "down_blocks.0.resnets.0.x": [1]}, "a U-Net"),
        ({"input_blocks.0.0.weight": [1]}, "a U-Net"),
        ({"double_blocks.0.img_attn.qkv.weight": [1]}, "a diffusion transformer of Flux"),
        ({"text_model.embeddings.token_embedding.weight": [1]}, "a text encoder"),
        ({"encoder.block.0.layer.0.SelfAttention.q.weight": [1], "shared.weight": [1]}, "a text encoder"),
        ({"conv_first.weight": [1], "RRDB_trunk.0.x": [1]}, "an upscaler"),
        ({"emb_params": [2, 768]}, "a textual inversion"),
        ({"<cat>": [768], "<dog>": [768]}, "a textual inversion"),
        ({"anything": [4, 768]}, "a textual inversion"),
        ({"clip_l": [1, 768], "clip_g": [1, 1280]}, "a textual inversion for SDXL"),
        ({"a": [1], "b": [2]}, "None"),
        ({}, "None"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value), "nothing")[:40],
)
def test_kinds(tmp_path: Path, tensors: Tensors, kind: str) -> None:
    assert str(kind_of(read_header(written(tmp_path / "a.safetensors", tensors)))) == kind


@pytest.mark.parametrize(
    ("tensors", "error", "words"),
    [
        (
            {"model.diffusion_model.joint_blocks.0.x": [1]},
            UnsupportedModelError,
            "is a single-file checkpoint of Stable Diffusion 3, which is not supported: expected a model of",
        ),
        (
            {f"{KOHYA}.lora_down.weight": [4, 768]},
            ModelNotFoundError,
            "is a LoRA for Stable Diffusion 1, not a whole model, expected a model folder, or",
        ),
        ({"decoder.conv_in.weight": [1]}, ModelNotFoundError, "is a VAE, not a whole model"),
        (
            {"a": [1], "b": [1]},
            ModelNotFoundError,
            "is a safetensors file of an unknown kind, not a whole model",
        ),
    ],
)
def test_files_in_place_of_a_model(
    tmp_path: Path, tensors: Tensors, error: type[ModelError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        resolve_model(written(tmp_path / "a.safetensors", tensors))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.safetensors", "models/missing.safetensors"])
def test_a_file_that_does_not_exist_is_no_hub_id(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=f"there is no file {name}: check the path"):
        resolve_model(name)


def test_a_checkpoint_in_place_of_a_folder(tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", {ORIGINAL: [320, 768]})
    with pytest.raises(
        UnsupportedModelError, match=r"not a model folder: make one with sdrt export .*a\.saf"
    ):
        open_local(path)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "a.ckpt",
            "is a pickle, which runs code when it is read: take the .safetensors file of the same model, or",
        ),
        ("a.pt", "is a pickle"),
        (
            "a.safetensors",
            r"cannot be read as a safetensors file \(it is a pickle\): only \.safetensors is read",
        ),
        ("unet.onnx", "is one graph of a model, expected the folder of the model"),
        ("a.gguf", "is a GGUF file of quantised weights, expected a model folder: make one with sdrt export"),
    ],
)
def test_other_files_in_place_of_a_model(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match=words):
        resolve_model(tmp_path / name)
