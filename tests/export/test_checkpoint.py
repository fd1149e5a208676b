"""Checkpoints in folders: number types, shards, old names, random weights, and keys that configs lack."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdrt_export import export_model
from sdrt_export.checkpoints.folder import open_folder
from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.verify.modules import load_part
from tests.export.damaged_checkpoints import UNET_WEIGHTS, edit


@pytest.mark.parametrize(
    "names",
    [
        # transformers before 4.31 saved positions; its whole CLIP model has an image encoder beside the text encoder.
        ["text_model.embeddings.position_ids", "vision_model.post_layernorm.weight", "logit_scale"],
        # What CLIPTextModelWithProjection has, and CLIPTextModel ignores.
        ["text_projection.weight"],
    ],
)
def test_weights_that_are_known_to_be_spare(names: list[str], damaged: Path, tmp_path: Path) -> None:
    (path,) = (damaged / "text_encoder").glob("*.safetensors")
    spare = {name: torch.arange(77)[None] if "ids" in name else torch.ones(3, 3) for name in names}
    save_file(load_file(path) | spare, path, metadata={"format": "pt"})
    manifest = export_model(damaged, tmp_path / "model", verify=True)
    assert all(row["relative_error"] < 1e-4 for row in manifest.components["text_encoder"]["parity"])


def test_text_encoders_of_newer_transformers(checkpoint: Callable[[str], Path], damaged: Path) -> None:
    """From 5.6 on, the names of `CLIPTextModel` do not begin with that of the model that it is a part of."""
    (path,) = (damaged / "text_encoder").glob("*.safetensors")
    tensors = {key.removeprefix("text_model."): value for key, value in load_file(path).items()}
    assert "embeddings.token_embedding.weight" in tensors
    save_file(tensors, path, metadata={"format": "pt"})
    found, whole = (open_folder(folder) for folder in (damaged, checkpoint("sd1")))
    assert same(load_part(found, "text_encoder"), load_part(whole, "text_encoder"))


def test_the_text_encoder_of_a_whole_clip_config(checkpoint: Callable[[str], Path], damaged: Path) -> None:
    path = damaged / "text_encoder" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    whole = {"model_type": "clip", "text_config": config, "projection_dim": 5}
    path.write_text(json.dumps(whole), encoding="utf-8")
    expected = open_folder(checkpoint("sd1")).config("text_encoder")
    assert open_folder(damaged).config("text_encoder") == expected


def same(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def test_half_precision_files_load_as_float32(checkpoint: Callable[[str], Path], damaged: Path) -> None:
    tensors = {key: value.half() for key, value in load_file(damaged / UNET_WEIGHTS).items()}
    (damaged / UNET_WEIGHTS).unlink()
    save_file(
        tensors, damaged / "unet" / "diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"}
    )
    half, full = load_part(open_folder(damaged), "unet"), load_part(open_folder(checkpoint("sd1")), "unet")
    assert {parameter.dtype for parameter in half.parameters()} == {torch.float32}
    assert same(half, full.half().float())
    assert open_folder(damaged).size() == open_folder(checkpoint("sd1")).size()


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16, torch.float64])
def test_every_precision_loads_as_float32(
    part: str, dtype: torch.dtype, checkpoint: Callable[[str], Path], damaged: Path
) -> None:
    (path,) = (damaged / part).glob("*.safetensors")
    save_file(
        {key: value.to(dtype) for key, value in load_file(path).items()}, path, metadata={"format": "pt"}
    )
    loaded, full = load_part(open_folder(damaged), part), load_part(open_folder(checkpoint("sd1")), part)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert same(loaded, full.to(dtype).float())


@pytest.mark.parametrize("off", [None, False])
def test_switches_of_later_versions_that_are_off(off: Any, damaged: Path, tmp_path: Path) -> None:
    edit(damaged / "unet" / "config.json", use_new_blocks=off)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers says that it ignores the key
        export_model(damaged, tmp_path / "model")
    assert (tmp_path / "model" / "unet" / "model.onnx").is_file()


def test_shards_load_as_one(checkpoint: Callable[[str], Path], damaged: Path) -> None:
    whole = open_folder(checkpoint("sd1"))
    shutil.rmtree(damaged / "unet")
    load_part(whole, "unet").save_pretrained(damaged / "unet", max_shard_size="100KB")
    assert len(list((damaged / "unet").glob("*.safetensors"))) > 1
    assert same(load_part(open_folder(damaged), "unet"), load_part(whole, "unet"))
    assert open_folder(damaged).size() == whole.size()


def test_old_names_of_the_vae_load(checkpoint: Callable[[str], Path], damaged: Path) -> None:
    """SD 1.5's own files call the VAE's attention query, key, value, proj_attn."""
    path = damaged / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(path)
    for new, name in old.items():
        tensors = {
            key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): t for key, t in tensors.items()
        }
    assert "decoder.mid_block.attentions.0.query.weight" in tensors
    save_file(tensors, path, metadata={"format": "pt"})
    assert same(load_part(open_folder(damaged), "vae"), load_part(open_folder(checkpoint("sd1")), "vae"))


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_random_weights_follow_the_seed(part: str) -> None:
    first, again, other = (
        load_part(RandomCheckpoint(architecture="tiny", seed=seed), part) for seed in (3, 3, 4)
    )
    assert same(first, again)
    differ = zip(first.parameters(), other.parameters(), strict=True)
    assert not any(torch.equal(x, y) for x, y in differ)
    assert all(parameter.isfinite().all() for parameter in first.parameters())


@pytest.mark.parametrize(
    ("variant", "pipeline"),
    [
        ("sd1", "StableDiffusionPipeline"),
        ("sd1", "StableDiffusionImg2ImgPipeline"),
        ("inpaint", "StableDiffusionInpaintPipeline"),
        ("pix2pix", "StableDiffusionInstructPix2PixPipeline"),
    ],
)
@pytest.mark.parametrize("version", ["0.2.2", "0.8.1", "0.9.0.dev0", "0.10.2", "1.0", None])
@pytest.mark.parametrize("size", [32, 63, 64, 96])
def test_sample_sizes_before_diffusers_0_9(
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
    variant: str,
    pipeline: str,
    version: str | None,
    size: int,
) -> None:
    """diffusers' pipelines take 64 for a smaller size, except the one for instructions."""
    folder = Path(shutil.copytree(checkpoint(variant), tmp_path / "old"))
    config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8")) | {"sample_size": size}
    config.pop("_diffusers_version")
    config |= {} if version is None else {"_diffusers_version": version}
    (folder / "unet" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    edit(folder / "model_index.json", _class_name=pipeline)
    unet = diffusers.UNet2DConditionModel.from_config(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers warns of the size
        parts = dict.fromkeys(("vae", "text_encoder", "tokenizer", "scheduler", "safety_checker"))
        theirs = getattr(diffusers, pipeline)(unet=unet, feature_extractor=None, **parts)
    assert open_folder(folder).config("unet")["sample_size"] == theirs.unet.config.sample_size


def test_a_vae_without_a_scaling_factor(checkpoint: Callable[[str], Path], damaged: Path) -> None:
    config = json.loads((damaged / "vae" / "config.json").read_text(encoding="utf-8"))
    del config["scaling_factor"]
    (damaged / "vae" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert open_folder(damaged).config("vae")["scaling_factor"] == 0.18215


@pytest.mark.filterwarnings("ignore:The configuration file of the vae:FutureWarning")
def test_the_upscaler_has_its_own_scaling_factor(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint("upscale"), tmp_path / "upscale"))
    edit(folder / "vae" / "config.json", scaling_factor=0.18215)
    theirs = diffusers.StableDiffusionUpscalePipeline.from_pretrained(folder)
    assert theirs.vae.config.scaling_factor == 0.08333
    assert open_folder(folder).config("vae")["scaling_factor"] == 0.08333
