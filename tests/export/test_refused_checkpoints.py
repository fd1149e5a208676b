"""Checkpoints that are refused, each with a typed error that names the thing and leaves nothing behind."""

from __future__ import annotations

import shutil
import sys
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
from sdrt_export.components import COMPONENTS
from tests.export.built import build
from tests.export.damaged_checkpoints import UNET_WEIGHTS, edit
from tests.parity.checkpoints import UNET, VARIANTS


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
    edit(folder / "model_index.json", unet=["evil", "Net"])


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
        lambda f: edit(f / "model_index.json", text_encoder=["evil", "CLIPTextModel"]),
        UnsupportedModelError,
        ["evil", "transformers"],
    ),
    "another tokenizer": (
        lambda f: edit(f / "model_index.json", tokenizer=["transformers", "T5Tokenizer"]),
        UnsupportedModelError,
        ["T5Tokenizer", "CLIPTokenizer"],
    ),
    "another pipeline": (
        lambda f: edit(f / "model_index.json", _class_name="KolorsPipeline"),
        UnsupportedModelError,
        ["KolorsPipeline", "StableDiffusionPipeline"],
    ),
    "the pipeline of another family": (
        lambda f: edit(f / "model_index.json", _class_name="StableDiffusionXLPipeline"),
        UnsupportedModelError,
        ["text_encoder_2", "CLIPTextModelWithProjection"],
    ),
    "truncated": (_truncate, IntegrityError, ["diffusion_pytorch_model.safetensors", "download it again"]),
    "zeroed": (_zero, IntegrityError, ["diffusion_pytorch_model.safetensors", "download it again"]),
    "an index that is cut off": (
        lambda f: (f / "model_index.json").write_text("{"),
        IntegrityError,
        ["model_index.json is not JSON", ": download"],
    ),
    "no JSON": (
        lambda f: (f / "unet" / "config.json").write_text("{"),
        IntegrityError,
        ["unet", "config.json", "JSON", ": download it again"],
    ),
    # Both libraries only log this, and go on with random numbers.
    "text encoder lacks a weight": (
        _drop_a_weight("text_encoder", TEXT_KEY),
        IntegrityError,
        ["text_encoder", TEXT_KEY],
    ),
    "text encoder of another size": (
        lambda f: edit(f / "text_encoder" / "config.json", hidden_size=64),
        IntegrityError,
        [
            "text_encoder: the weight text_model",
            "is of shape [674, 32]",
            "[674, 64]",
            "do not belong together",
        ],
    ),
    "text encoder without heads": (
        lambda f: edit(f / "text_encoder" / "config.json", num_attention_heads=0),
        UnsupportedModelError,
        ["text_encoder/config.json: num_attention_heads is 0"],
    ),
    "a layer less in the config": (
        lambda f: edit(f / "text_encoder" / "config.json", num_hidden_layers=2),
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
        lambda f: edit(f / "vae" / "config.json", scaling_factor=None),
        IntegrityError,
        ["vae/config.json: scaling_factor is None", "correct it"],
    ),
    "a scaling factor in quotes": (
        lambda f: edit(f / "vae" / "config.json", scaling_factor="0.18215"),
        IntegrityError,
        ["vae/config.json: scaling_factor is '0.18215'", "correct it"],
    ),
    "a shift": (
        lambda f: edit(f / "vae" / "config.json", shift_factor=0.1),
        UnsupportedModelError,
        ["vae/config.json: shift_factor 0.1 is not supported"],
    ),
    "no size": (
        lambda f: edit(f / "unet" / "config.json", sample_size=0),
        IntegrityError,
        ["unet/config.json: sample_size is 0", "correct it"],
    ),
    "a huge size": (
        lambda f: edit(f / "unet" / "config.json", sample_size=10**9),
        IntegrityError,
        ["unet/config.json: sample_size is 1000000000", "correct it"],
    ),
    "an unknown key": (
        lambda f: edit(f / "unet" / "config.json", use_new_blocks=True),
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
