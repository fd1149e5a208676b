"""Checkpoints that are refused, each with a typed error that names the thing and leaves nothing behind."""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from sdrt.errors import (
    ExportError,
    IntegrityError,
    ModelNotFoundError,
    RequestError,
    SdrtError,
    UnsupportedModelError,
)
from sdrt_export import TARGETS, export_model
from sdrt_export.checkpoints.folder import open_folder
from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.components import COMPONENTS
from sdrt_export.verify.modules import load_part
from tests.export.built import build
from tests.parity.checkpoints import UNET, VARIANTS

UNET_WEIGHTS = Path("unet") / "diffusion_pytorch_model.safetensors"


@pytest.fixture
def damaged(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of sd1 to damage."""
    return Path(shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint"))


def refused(error: type[SdrtError], source: str | Path | None, tmp_path: Path, **options: Any) -> str:
    """The message of the export's refusal; checks its type and that it left nothing."""
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(error) as caught:
        export_model(source, out / "model", **options)
    assert caught.type is error
    assert "\n" not in str(caught.value).strip()
    assert not list(out.iterdir())
    return str(caught.value)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def _pickles(folder: Path) -> None:
    (folder / UNET_WEIGHTS).rename(folder / "unet" / "diffusion_pytorch_model.bin")


def _truncate(folder: Path) -> None:
    path = folder / UNET_WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])


def _zero(folder: Path) -> None:
    path = folder / UNET_WEIGHTS
    path.write_bytes(bytes(path.stat().st_size))


def _drop_a_weight(part: str, key: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (path,) = (folder / part).glob("*.safetensors")
        tensors = load_file(path)
        del tensors[key]
        save_file(tensors, path, metadata={"format": "pt"})

    return damage


def _foreign_class(folder: Path) -> None:
    (folder / "unet" / "evil.py").write_text("raise SystemExit")
    _edit(folder / "model_index.json", unet=["evil", "Net"])


def _change(part: str, key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (path,) = (folder / part).glob("*.safetensors")
        tensors = load_file(path)
        save_file(tensors | {key: change(tensors[key])}, path, metadata={"format": "pt"})

    return damage


def _add_factor(folder: Path) -> None:
    tensors = load_file(folder / UNET_WEIGHTS) | {"conv_in.scale_weight": torch.ones(())}
    save_file(tensors, folder / UNET_WEIGHTS, metadata={"format": "pt"})


def _add_a_weight(folder: Path) -> None:
    (path,) = (folder / "vae").glob("*.safetensors")
    save_file(load_file(path) | {"decoder.new.weight": torch.ones(2)}, path, metadata={"format": "pt"})


TEXT_KEY = "text_model.encoder.layers.0.self_attn.k_proj.weight"
DAMAGES: dict[str, tuple[Callable[[Path], Any], type[SdrtError], list[str]]] = {
    "pickle only": (_pickles, UnsupportedModelError, [".bin", "pickle", ".safetensors"]),
    "no weights": (lambda f: (f / UNET_WEIGHTS).unlink(), ModelNotFoundError, ["unet", "no .safetensors"]),
    "no component": (lambda f: shutil.rmtree(f / "vae"), ModelNotFoundError, ["vae", "config.json"]),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), ModelNotFoundError, ["vocab.json", "missing"]),
    "no scheduler": (lambda f: shutil.rmtree(f / "scheduler"), ModelNotFoundError, ["scheduler_config.json"]),
    "no index": (lambda f: (f / "model_index.json").unlink(), ModelNotFoundError, ["model_index.json"]),
    "foreign class": (_foreign_class, UnsupportedModelError, ["evil", "UNet2DConditionModel"]),
    "foreign library": (
        lambda f: _edit(f / "model_index.json", text_encoder=["evil", "CLIPTextModel"]),
        UnsupportedModelError,
        ["evil", "transformers"],
    ),
    "another tokenizer": (
        lambda f: _edit(f / "model_index.json", tokenizer=["transformers", "T5Tokenizer"]),
        UnsupportedModelError,
        ["T5Tokenizer", "CLIPTokenizer"],
    ),
    "another pipeline": (
        lambda f: _edit(f / "model_index.json", _class_name="KolorsPipeline"),
        UnsupportedModelError,
        ["KolorsPipeline", "StableDiffusionPipeline"],
    ),
    "the pipeline of another family": (
        lambda f: _edit(f / "model_index.json", _class_name="StableDiffusionXLPipeline"),
        UnsupportedModelError,
        ["text_encoder_2", "CLIPTextModelWithProjection"],
    ),
    "truncated": (_truncate, IntegrityError, ["diffusion_pytorch_model.safetensors", "download it again"]),
    "zeroed": (_zero, IntegrityError, ["diffusion_pytorch_model.safetensors", "download it again"]),
    "no JSON": (
        lambda f: (f / "unet" / "config.json").write_text("{"),
        IntegrityError,
        ["unet", "config.json", "JSON"],
    ),
    # Both libraries only log this, and go on with random numbers.
    "text encoder lacks a weight": (
        _drop_a_weight("text_encoder", TEXT_KEY),
        IntegrityError,
        ["text_encoder", TEXT_KEY],
    ),
    "text encoder of another size": (
        lambda f: _edit(f / "text_encoder" / "config.json", hidden_size=64),
        IntegrityError,
        [
            "text_encoder: the weight text_model",
            "is of shape [674, 32]",
            "[674, 64]",
            "do not belong together",
        ],
    ),
    "text encoder without heads": (
        lambda f: _edit(f / "text_encoder" / "config.json", num_attention_heads=0),
        UnsupportedModelError,
        ["text_encoder/config.json: num_attention_heads is 0"],
    ),
    "a layer less in the config": (
        lambda f: _edit(f / "text_encoder" / "config.json", num_hidden_layers=2),
        UnsupportedModelError,
        ["text_encoder: the weights have text_model.encoder.layers.2.", "and 15 more"],
    ),
    "a weight that nothing uses": (
        _add_a_weight,
        UnsupportedModelError,
        ["vae: the weights have decoder.new.weight: expected", "only weights that the graphs"],
    ),
    # torch and the graph agree on these, but their images are black, or noise.
    "NaN": (
        _change("vae", "decoder.conv_in.bias", lambda t: t * torch.nan),
        IntegrityError,
        ["vae", "decoder.conv_in.bias contains NaN", "download the checkpoint again"],
    ),
    "infinity": (
        _change("text_encoder", TEXT_KEY, lambda t: t + torch.inf),
        IntegrityError,
        ["text_encoder", TEXT_KEY, "infinity"],
    ),
    "whole numbers": (
        _change("unet", "conv_in.weight", lambda t: (t * 100).to(torch.int8)),
        UnsupportedModelError,
        ["is quantised (conv_in.weight is of the type I8)", "floating-point"],
    ),
    "factors of quantised weights": (
        _add_factor,
        UnsupportedModelError,
        ["is quantised (conv_in.scale_weight", "floating-point"],
    ),
    # The runtime would refuse the model.
    "no scaling factor": (
        lambda f: _edit(f / "vae" / "config.json", scaling_factor=None),
        IntegrityError,
        ["vae/config.json: scaling_factor is None", "correct it"],
    ),
    "a scaling factor in quotes": (
        lambda f: _edit(f / "vae" / "config.json", scaling_factor="0.18215"),
        IntegrityError,
        ["vae/config.json: scaling_factor is '0.18215'", "correct it"],
    ),
    "a shift": (
        lambda f: _edit(f / "vae" / "config.json", shift_factor=0.1),
        UnsupportedModelError,
        ["vae/config.json: shift_factor 0.1 is not supported"],
    ),
    "no size": (
        lambda f: _edit(f / "unet" / "config.json", sample_size=0),
        IntegrityError,
        ["unet/config.json: sample_size is 0", "correct it"],
    ),
    "a huge size": (
        lambda f: _edit(f / "unet" / "config.json", sample_size=10**9),
        IntegrityError,
        ["unet/config.json: sample_size is 1000000000", "correct it"],
    ),
    "an unknown key": (
        lambda f: _edit(f / "unet" / "config.json", use_new_blocks=True),
        UnsupportedModelError,
        ["unet/config.json: use_new_blocks is True"],
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoints(damage: str, damaged: Path, tmp_path: Path) -> None:
    apply, error, words = DAMAGES[damage]
    apply(damaged)
    message = refused(error, damaged, tmp_path)
    assert [word for word in words if word not in message] == []
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    ("part", "key"), [("unet", "conv_in.weight"), ("vae", "decoder.mid_block.attentions.0.to_k.weight")]
)
def test_a_missing_weight_is_named(part: str, key: str, damaged: Path, tmp_path: Path) -> None:
    _drop_a_weight(part, key)(damaged)
    assert f"{part}: the weights lack {key}: download" in refused(IntegrityError, damaged, tmp_path)


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


@pytest.mark.parametrize(
    ("name", "error", "word"),
    [
        ("model.ckpt", UnsupportedModelError, "pickle"),
        ("model.safetensors", UnsupportedModelError, "it is a pickle"),
        ("nothing", ModelNotFoundError, "there is no checkpoint folder"),
    ],
)
def test_sources_that_are_no_folders(name: str, error: type[SdrtError], word: str, tmp_path: Path) -> None:
    if "." in name:
        (tmp_path / name).write_bytes(b"\x80\x04")
    message = refused(error, tmp_path / name, tmp_path)
    assert name in message
    assert word in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "tpu"}, ["'tpu'", "cpu, cuda, portable"]),
        ({"dtype": "fp8"}, ["'fp8'", "fp32", "auto"]),
        ({"target": "cuda", "dtype": "bf16"}, ["'cuda'", "'bf16'", "fp16, fp32, auto"]),
        ({"exporter": "tf"}, ["'tf'", "sdrt, optimum"]),
        ({"exporter": "optimum"}, ["'optimum'", "'portable'"]),
        (
            {"architecture": "sd15", "random_weights": 0},
            ["--architecture", "give a checkpoint, or both of them"],
        ),
        ({"source": None}, ["nothing to export", "--random-weights"]),
        (
            {"source": None, "architecture": "sd99", "random_weights": 0},
            ["'sd99'", "sd15, sd15-inpainting, ", "tiny", "x4-upscaler"],
        ),
        ({"source": None, "architecture": "tiny", "random_weights": -1}, ["-1", "expected a seed from 0 to"]),
        (
            {"source": None, "architecture": "tiny", "random_weights": 0}
            | {"exporter": "optimum", "target": "portable"},
            ["optimum", "random weights use exporter 'sdrt'"],
        ),
    ],
    ids=str,
)
def test_wrong_options(
    options: dict[str, Any], words: list[str], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    message = refused(RequestError, tmp_path=tmp_path, **{"source": checkpoint("sd1"), **options})
    assert [word for word in words if word not in message] == []


def test_too_little_space(
    checkpoint: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    message = refused(ExportError, checkpoint("sd1"), tmp_path)
    assert "GB are free" in message


def test_an_existing_model_stays(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("old")
    with pytest.raises(RequestError, match="--force"):
        export_model(checkpoint("sd1"), tmp_path)
    assert (tmp_path / "model_index.json").read_text() == "old"


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("unet", "class_embed_type", "timestep"),
        ("unet", "encoder_hid_dim", 8),
        ("unet", "addition_embed_type", "text"),
    ],
)
def test_unet_configs_without_a_fused_form(name: str, key: str, value: Any) -> None:
    extra = {key: value} | ({"addition_embed_type_num_heads": 2} if "addition" in key else {})
    extra |= {"encoder_hid_dim_type": "text_proj"} if "hid_dim" in key else {}
    module = diffusers.UNet2DConditionModel(**(UNET | VARIANTS["sd1"].unet | extra))
    with pytest.raises(UnsupportedModelError, match=f"{key}.*{value!r}.*--exporter optimum"):
        build(COMPONENTS[name], module, TARGETS["cpu"])


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
    _edit(damaged / "unet" / "config.json", use_new_blocks=off)
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
    _edit(folder / "model_index.json", _class_name=pipeline)
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
    _edit(folder / "vae" / "config.json", scaling_factor=0.18215)
    theirs = diffusers.StableDiffusionUpscalePipeline.from_pretrained(folder)
    assert theirs.vae.config.scaling_factor == 0.08333
    assert open_folder(folder).config("vae")["scaling_factor"] == 0.08333
