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

from sdrt.errors import ModelNotFoundError, RequestError, UnsupportedModelError
from sdrt_export.architectures.unet_config import UNetConfig
from sdrt_export.checkpoints.single_file import SingleFile, open_single_file
from tests.export.checkpoints.ldm_files import (
    REFINER_UNET,
    SD1_UNET,
    SD2_UNET,
    SDXL_UNET,
    TEXTS,
    UPSCALER_UNET,
    Made,
    made,
    prefixed,
    unet_state,
)
from tests.safetensors_files import save_file

KINDS = list(TEXTS)
UNETS = {
    "sd1": SD1_UNET,
    "sd2": SD2_UNET,
    "sdxl": SDXL_UNET,
    "sdxl-refiner": REFINER_UNET,
    "x4-upscaler": UPSCALER_UNET,
}
# What the sample's size, a path, and a number type say has no influence on the tensors.
UNCOMPARED = {"sample_size", "_class_name", "_diffusers_version", "_name_or_path"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Made]]:
    folder = tmp_path_factory.mktemp("files")
    return {kind: ((m := made(kind)).saved(folder / f"{kind}.safetensors"), m) for kind in KINDS}


def opened(path: Path, **arguments: Any) -> SingleFile:
    return open_single_file(path, **{"prediction_type": "epsilon", **arguments})


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


VAE_CONFIG: dict[str, Any] = {
    "block_out_channels": (32, 64, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "layers_per_block": 2,
}


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


@pytest.mark.parametrize(
    ("kind", "scaling", "scheduler", "size"),
    [
        ("sd1", 0.18215, "PNDMScheduler", 64),
        ("sd2", 0.18215, "PNDMScheduler", 64),
        ("x4-upscaler", 0.08333, "DDIMScheduler", 128),
        ("sdxl", 0.13025, "EulerDiscreteScheduler", 128),
        ("sdxl-refiner", 0.13025, "EulerDiscreteScheduler", 128),
    ],
)
def test_what_no_tensor_tells(
    kind: str, scaling: float, scheduler: str, size: int, files: dict[str, tuple[Path, Made]]
) -> None:
    checkpoint = opened(files[kind][0])
    assert checkpoint.config("vae")["scaling_factor"] == scaling
    assert checkpoint.scheduler_config()["_class_name"] == scheduler
    assert checkpoint.config("unet")["sample_size"] == size
    assert (checkpoint.low_res_scheduler_config() is not None) == (kind == "x4-upscaler")


# --- pruned and other shapes --------------------------------------------------------------------------------

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


# --- what files have beside the weights ---------------------------------------------------------------------


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


# --- predictions --------------------------------------------------------------------------------------------


def with_metadata(content: Made, path: Path, metadata: dict[str, str]) -> Path:
    from safetensors.numpy import save_file as save

    save({name: np.ascontiguousarray(array) for name, array in content.tensors.items()}, path, metadata)
    return path


def prediction(path: Path, given: str | None = None) -> str:
    found = open_single_file(path, prediction_type=given).scheduler_config()["prediction_type"]
    assert isinstance(found, str)
    return found


def test_stable_diffusion_2_asks_what_it_predicts(files: dict[str, tuple[Path, Made]]) -> None:
    path, _ = files["sd2"]
    with pytest.raises(UnsupportedModelError, match="--prediction-type v_prediction"):
        open_single_file(path)
    assert prediction(path, "epsilon") == "epsilon"
    checkpoint = open_single_file(path, prediction_type="v_prediction")
    assert checkpoint.scheduler_config()["_class_name"] == "DDIMScheduler"
    assert checkpoint.config("unet")["sample_size"] == 96
    with pytest.raises(RequestError, match="epsilon or v_prediction"):
        open_single_file(path, prediction_type="v")


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.prediction_type": "epsilon"}, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
    ],
)
def test_metadata_tell(
    metadata: dict[str, str], expected: str, tmp_path: Path, files: dict[str, tuple[Path, Made]]
) -> None:
    path = with_metadata(files["sd2"][1], tmp_path / "model.safetensors", metadata)
    assert prediction(path) == expected
    other = "epsilon" if expected == "v_prediction" else "v_prediction"
    assert prediction(path, other) == other


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('model:\n  params:\n    parameterization: "v"\n    unet_config:\n', "v_prediction"),
        ("model:\n  params:\n    parameterization: eps\n", "epsilon"),
        ("model:\n  params:\n    unet_config:\n", "epsilon"),
    ],
)
def test_a_yaml_file_beside_it_tells_as_in_a1111(
    text: str, expected: str, tmp_path: Path, files: dict[str, tuple[Path, Made]]
) -> None:
    path = files["sd2"][1].saved(tmp_path / "model.safetensors")
    (tmp_path / "model.yaml").write_text(text)
    assert prediction(path) == expected


def test_markers_tell(tmp_path: Path, files: dict[str, tuple[Path, Made]]) -> None:
    content, empty = files["sdxl"][1], np.zeros(0, np.float32)
    checkpoint = open_single_file(content.saved(tmp_path / "v.safetensors", v_pred=empty))
    assert checkpoint.scheduler_config()["prediction_type"] == "v_prediction"
    assert "rescale_betas_zero_snr" not in checkpoint.scheduler_config()
    checkpoint = open_single_file(content.saved(tmp_path / "z.safetensors", v_pred=empty, ztsnr=empty))
    assert checkpoint.scheduler_config()["rescale_betas_zero_snr"] is True
    assert checkpoint.scheduler_config()["timestep_spacing"] == "trailing"
    assert prediction(files["sdxl"][0]) == "epsilon"


def test_the_files_own_resolution_is_the_default_size(
    tmp_path: Path, files: dict[str, tuple[Path, Made]]
) -> None:
    path = with_metadata(files["sd1"][1], tmp_path / "m.safetensors", {"modelspec.resolution": "768x512"})
    assert opened(path).config("unet")["sample_size"] == [64, 96]


# --- refusals -----------------------------------------------------------------------------------------------


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


# --- files of single parts ----------------------------------------------------------------------------------


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
    with pytest.raises(UnsupportedModelError, match="pickle"):
        opened(files["sd1"][0], vae=tmp_path / "vae.pt")


def test_a_vae_of_another_family_is_refused(tmp_path: Path, files: dict[str, tuple[Path, Made]]) -> None:
    vae = AutoencoderKL(**VAE_CONFIG, latent_channels=16)
    state = {name: tensor.numpy() for name, tensor in vae.state_dict().items()}
    save_file(prefixed("", state), tmp_path / "vae.safetensors")
    with pytest.raises(UnsupportedModelError, match="16 latent channels"):
        opened(files["sd1"][0], vae=tmp_path / "vae.safetensors")
