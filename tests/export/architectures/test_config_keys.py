"""Every key that a config can have: the graph follows it as diffusers and transformers do, or it is refused by name."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from sdrt.errors import UnsupportedModelError
from sdrt_export.architectures.clip_text import ClipTextConfig, clip_text
from sdrt_export.architectures.taesd import TaesdConfig
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.architectures.vae import VaeConfig, vae_decoder, vae_encoder
from sdrt_export.graphs.fused import FusedLayers
from sdrt_export.graphs.graph import Graph
from tests.export.architectures.test_unet import build, by_onnxruntime, make, worst
from tests.export.built import UNET as BASE

RECORDED: Mapping[str, Mapping[str, Mapping[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "goldens" / "configs.json").read_text(encoding="utf-8")
)
READERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "UNet2DConditionModel": UNetConfig.of,
    "AutoencoderKL": VaeConfig.of,
    "AutoencoderTiny": TaesdConfig.of,
    "CLIPTextConfig": ClipTextConfig.of,
}


@pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version, found in RECORDED.items() for name in found]
)
def test_what_versions_of_the_libraries_write(version: str, name: str) -> None:
    library, _, number = version.partition("==")
    own = (
        {"_class_name": name, "_diffusers_version": number}
        if library == "diffusers"
        else {
            "model_type": "clip_text_model",
            "architectures": ["CLIPTextModel"],
            "id2label": {"0": "LABEL_0"},
        }
    )
    READERS[name]({**RECORDED[version][name], **own})


def test_what_the_installed_versions_write() -> None:
    ClipTextConfig.of(CLIPTextConfig().to_dict())
    ClipTextConfig.of(json.loads(CLIPTextConfig(torch_dtype="float16").to_json_string()))
    UNetConfig.of(json.loads(make({}).to_json_string()))


UNET_VALUES: Mapping[str, list[Any]] = {
    "sample_size": [32, (16, 24)],
    "in_channels": [9],
    "out_channels": [8],
    "center_input_sample": [True],
    "flip_sin_to_cos": [False],
    "freq_shift": [1],
    "down_block_types": [
        ("DownBlock2D", "CrossAttnDownBlock2D"),
        ("AttnDownBlock2D", "DownBlock2D"),
        ("SimpleCrossAttnDownBlock2D", "DownBlock2D"),
        ("ResnetDownsampleBlock2D", "DownBlock2D"),
    ],
    "mid_block_type": ["UNetMidBlock2D", None, "UNetMidBlock2DSimpleCrossAttn"],
    "up_block_types": [("UpBlock2D", "UpBlock2D"), ("UpBlock2D", "SimpleCrossAttnUpBlock2D")],
    "only_cross_attention": [True, (False, True)],
    "block_out_channels": [(24, 16), (20, 40)],
    "layers_per_block": [2, (2, 1)],
    "downsample_padding": [0],
    "mid_block_scale_factor": [1.5],
    "dropout": [0.2],
    "act_fn": ["swish", "mish", "gelu"],
    "norm_num_groups": [8],
    "norm_eps": [1e-3],
    "cross_attention_dim": [40, (24, 24), (24, 40)],
    "transformer_layers_per_block": [2, (2, 1)],
    "reverse_transformer_layers_per_block": [(2, 1)],
    "encoder_hid_dim": [10],
    "encoder_hid_dim_type": ["text_proj", "image_proj"],
    "attention_head_dim": [2, (1, 2)],
    "num_attention_heads": [2],
    "dual_cross_attention": [True],
    "use_linear_projection": [True],
    "class_embed_type": ["timestep", "identity", "projection", "simple_projection"],
    "addition_embed_type": ["text", "image", "text_image", "image_hint"],
    "addition_time_embed_dim": [8],
    "num_class_embeds": [7],
    "upcast_attention": [True],
    "resnet_time_scale_shift": ["scale_shift"],
    "resnet_skip_time_act": [True],
    "resnet_out_scale_factor": [1.3],
    "time_embedding_type": ["fourier"],
    "time_embedding_dim": [40],
    "time_embedding_act_fn": ["silu"],
    "timestep_post_act": ["silu"],
    "time_cond_proj_dim": [12],
    "conv_in_kernel": [1, 5],
    "conv_out_kernel": [1, 5],
    "projection_class_embeddings_input_dim": [10],
    "attention_type": ["gated", "gated-text-image"],
    "class_embeddings_concat": [True],
    "mid_block_only_cross_attention": [True, False],
    "cross_attention_norm": ["layer_norm", "group_norm"],
    "addition_embed_type_num_heads": [4],
}
# diffusers does not make these either.
NO_MODEL = {"num_attention_heads"}


def rows(values: Mapping[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(key, value, id=f"{key}={value}") for key, others in values.items() for value in others
    ]


def made(make: Callable[[], Any]) -> Any:
    """A module, or None if the library does not make one of these values."""
    try:
        return make()
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, RuntimeError):
        return None


def test_every_key_of_the_unet_is_here() -> None:
    assert set(UNET_VALUES) == set(inspect.signature(UNet2DConditionModel.__init__).parameters) - {"self"}


@pytest.mark.parametrize(("key", "value"), rows(UNET_VALUES))
def test_each_key_of_a_unet(key: str, value: Any) -> None:
    module = made(lambda: make({key: value}))
    try:
        config = UNetConfig.of({**BASE, key: value})
    except UnsupportedModelError as error:
        assert f"config.json: {key} is " in str(error)  # noqa: PT017
        return
    if key not in NO_MODEL:
        assert worst(by_onnxruntime(build(config, FusedLayers), module), module, config) < 5e-6


def test_an_odd_number_of_sines_and_cosines() -> None:
    values = BASE | {"block_out_channels": (15, 30), "attention_head_dim": 3, "norm_num_groups": 5}
    with pytest.raises(
        UnsupportedModelError, match=r"block_out_channels is .*: expected an even number first"
    ):
        UNetConfig.of(values)


VAE: dict[str, Any] = {
    "block_out_channels": (8, 16),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 4,
}
VAE_VALUES: Mapping[str, list[Any]] = {
    "in_channels": [1],
    "out_channels": [4],
    "down_block_types": [("AttnDownEncoderBlock2D", "DownEncoderBlock2D")],
    "up_block_types": [("UpDecoderBlock2D", "AttnUpDecoderBlock2D")],
    "block_out_channels": [(16, 8)],
    "layers_per_block": [2],
    "act_fn": ["swish", "mish", "relu"],
    "latent_channels": [16],
    "norm_num_groups": [8],
    "sample_size": [64],
    "scaling_factor": [0.5],
    "shift_factor": [0.1],
    "latents_mean": [[0.1] * 4],
    "latents_std": [[2.0] * 4],
    "force_upcast": [False],
    "use_quant_conv": [False],
    "use_post_quant_conv": [False],
    "mid_block_add_attention": [False],
}


def test_every_key_of_the_vae_is_here() -> None:
    assert set(VAE_VALUES) == set(inspect.signature(AutoencoderKL.__init__).parameters) - {"self"}


def make_vae(values: Mapping[str, Any]) -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(**{**VAE, **values}).eval().requires_grad_(False)


@pytest.mark.parametrize(("key", "value"), rows(VAE_VALUES))
def test_each_key_of_a_vae(key: str, value: Any) -> None:
    module = made(lambda: make_vae({key: value}))
    try:
        config = VaeConfig.of({**VAE, key: value})
    except UnsupportedModelError as error:
        assert f"config.json: {key} is " in str(error)  # noqa: PT017
        return
    image = torch.randn(1, config.in_channels, 18, 14, generator=torch.Generator().manual_seed(0))
    latents = torch.randn(1, config.latent_channels, 7, 5, generator=torch.Generator().manual_seed(1))
    for write, name, given, wanted in (
        (vae_encoder, "sample", image, module.encode(image).latent_dist.parameters),
        (vae_decoder, "latent_sample", latents, module.decode(latents).sample),
    ):
        graph = Graph(name)
        write(config, FusedLayers(graph))
        found = by_onnxruntime(graph, module)({name: given.numpy()})
        assert np.abs(found - wanted.numpy()).max() < 1e-5 * wanted.abs().max()


CLIP: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "projection_dim": 8,
    "eos_token_id": 98,
    "bos_token_id": 97,
}
CLIP_VALUES: Mapping[str, list[Any]] = {
    "hidden_act": ["gelu", "gelu_new", "relu"],
    "layer_norm_eps": [1e-3],
    "max_position_embeddings": [40],
    "num_attention_heads": [4],
    "intermediate_size": [40],
    "eos_token_id": [2, 5],
    "pruned_heads": [{"0": [1]}],
    "model_type": ["t5", "xlm-roberta"],
    "attention_dropout": [0.5],
    "is_decoder": [True],
    "add_cross_attention": [True],
    "chunk_size_feed_forward": [2],
    "tie_word_embeddings": [False],
    "initializer_range": [0.5],
    "pad_token_id": [3],
    "output_hidden_states": [True],
    "use_cache": [True],
    "quantization_config": [{"quant_method": "bitsandbytes", "load_in_8bit": True}],
    "text_config": [{"hidden_size": 32}],
    "new_switch": [True, 3, "x", {"a": 1}],
}


@pytest.mark.parametrize(("key", "value"), rows(CLIP_VALUES))
def test_each_key_of_a_text_encoder(key: str, value: Any) -> None:
    try:
        config = ClipTextConfig.of({**CLIP, key: value})
    except UnsupportedModelError as error:
        assert f"config.json: {key} is " in str(error)  # noqa: PT017
        return
    torch.manual_seed(0)
    module = CLIPTextModel(CLIPTextConfig.from_dict({**CLIP, key: value})).eval().requires_grad_(False)
    ids = torch.tensor([[97, 4, 5, 90, 98, 98], [97, 98, 7, 5, 2, 98]])
    graph = Graph("text_encoder")
    clip_text(config, FusedLayers(graph))
    wanted = module(input_ids=ids)
    found = by_onnxruntime(graph, module)({"input_ids": ids.numpy()})
    assert np.abs(found - wanted.last_hidden_state.numpy()).max() < 1e-5


@pytest.mark.parametrize(
    ("read", "values", "found"),
    [
        (UNetConfig.of, BASE | {"_class_name": "UNet3DConditionModel"}, "UNet3DConditionModel"),
        (VaeConfig.of, VAE | {"_class_name": "AsymmetricAutoencoderKL"}, "AsymmetricAutoencoderKL"),
        (TaesdConfig.of, {"_class_name": "AutoencoderKL"}, "AutoencoderKL"),
    ],
)
def test_a_config_of_another_class(read: Callable[[Any], Any], values: Any, found: str) -> None:
    with pytest.raises(UnsupportedModelError, match=f"_class_name is '{found}': expected"):
        read(values)
