"""Checkpoints whose weights are in shards or in half precision, named as diffusers does and as it did."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from sdrt.errors import IntegrityError, ModelNotFoundError
from sdrt_export.checkpoints.folder import open_folder
from sdrt_export.checkpoints.weight_files import find_weights, link_name
from sdrt_export.verify.modules import load_part

PARTS = ("text_encoder", "unet", "vae")


def half(source: Path, folder: Path, dtype: torch.dtype, variant: str, shard: str) -> Path:
    """Save a checkpoint with weights of `dtype`, in files of at most `shard`."""
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(
        source, safety_checker=None, torch_dtype=dtype
    )
    pipeline.save_pretrained(folder, variant=variant, max_shard_size=shard)
    return folder


def renamed(folder: Path) -> Path:
    """Give shards the names that diffusers wrote before 0.28, with the variant behind the number."""

    def old(text: str) -> str:
        return re.sub(r"\.fp16(-\d{5}-of-\d{5})\.safetensors", r"\1.fp16.safetensors", text)

    for index in folder.glob("*/*.index.fp16.json"):
        index.write_text(old(index.read_text(encoding="utf-8")), encoding="utf-8")
    for file in list(folder.glob("*/*.safetensors")):
        file.rename(file.with_name(old(file.name)))
    return folder


@pytest.mark.parametrize("kind", ["whole", "shards", "shards with old names", "bf16"])
def test_half_precision(checkpoint: Callable[[str], Path], tmp_path: Path, kind: str) -> None:
    dtype, variant = (torch.bfloat16, "bf16") if kind == "bf16" else (torch.float16, "fp16")
    shard = "100KB" if "shards" in kind else "10GB"
    folder = half(checkpoint("sd1"), tmp_path / "half", dtype, variant, shard)
    if "old" in kind:
        renamed(folder)
    assert (len(list((folder / "unet").glob("*.safetensors"))) > 1) == ("shards" in kind)
    found, whole = open_folder(folder), open_folder(checkpoint("sd1"))
    assert found.size() == whole.size()
    for part in PARTS:
        weights = load_part(found, part).state_dict()
        for name, value in load_part(whole, part).state_dict().items():
            rounded = value.to(dtype).float() if value.is_floating_point() else value
            assert torch.equal(weights[name], rounded), (part, name)


def test_full_precision_comes_first(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = half(checkpoint("sd1"), tmp_path / "both", torch.float16, "fp16", "100KB")
    for part in PARTS:
        shutil.copytree(checkpoint("sd1") / part, folder / part, dirs_exist_ok=True)
        assert find_weights(folder / part, "transformers" if "text" in part else "diffusers").variant is None
    weights = load_part(open_folder(folder), "unet").state_dict()
    assert torch.equal(
        weights["conv_in.weight"],
        load_part(open_folder(checkpoint("sd1")), "unet").state_dict()["conv_in.weight"],
    )


def test_a_missing_shard_is_said(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = half(checkpoint("sd1"), tmp_path / "half", torch.float16, "fp16", "100KB")
    lost = sorted((folder / "unet").glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(
        ModelNotFoundError, match=f"lacks {re.escape(lost.name)}: download the checkpoint again"
    ):
        open_folder(folder)


def test_a_missing_index_of_shards_is_said(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = half(checkpoint("sd1"), tmp_path / "half", torch.float16, "fp16", "100KB")
    next((folder / "unet").glob("*.index*.json")).unlink()
    with pytest.raises(ModelNotFoundError, match=r"unet lacks the index .* of the shards: download"):
        open_folder(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda told: told.update({"conv_in.bias": told["conv_out.bias"]}),
            "conv_in.bias' is in '{last}', but it is in {first}",
        ),
        (
            lambda told: told.update(other="no.safetensors"),
            "'other' is in 'no.safetensors', but no shard has it",
        ),
        (lambda told: told.pop("conv_in.bias"), "there is no 'conv_in.bias', but it is in {first}"),
        (lambda told: told.update({"conv_in.bias": 3}), "weight_map is .*, expected the name of a shard"),
    ],
    ids=["wrong shard", "no tensor", "unnamed", "no name"],
)
def test_an_index_that_is_wrong_is_refused(
    checkpoint: Callable[[str], Path], tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    folder = half(checkpoint("sd1"), tmp_path / "half", torch.float16, "fp16", "100KB")
    index = next((folder / "unet").glob("*.index*.json"))
    values = json.loads(index.read_text(encoding="utf-8"))
    places = {"first": values["weight_map"]["conv_in.bias"], "last": values["weight_map"]["conv_out.bias"]}
    assert places["first"] != places["last"]
    change(values["weight_map"])
    index.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(IntegrityError, match=said.format(**places)) as caught:
        open_folder(folder)
    assert caught.value.path == index


def test_other_variants_are_named(tmp_path: Path) -> None:
    (tmp_path / "diffusion_pytorch_model.non_ema.safetensors").touch()
    with pytest.raises(ModelNotFoundError, match=r"no \.safetensors weights but of the variant non_ema"):
        find_weights(tmp_path, "diffusers")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.fp16.safetensors", "model.safetensors"),
        ("model.safetensors", "model.safetensors"),
        ("model.fp16-00001-of-00002.safetensors", "model.fp16-00001-of-00002.safetensors"),
        ("model-00001-of-00002.fp16.safetensors", "model-00001-of-00002.fp16.safetensors"),
        ("model.safetensors.index.fp16.json", "model.safetensors.index.json"),
        ("model.safetensors.index.json", "model.safetensors.index.json"),
        ("config.json", "config.json"),
    ],
)
def test_names_for_loaders_of_full_precision(name: str, expected: str) -> None:
    """Only the index is renamed for shards, because it holds their names."""
    assert link_name(Path(name)) == expected
