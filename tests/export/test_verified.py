"""`verify` for every architecture that is listed, in small, and for every kind of single file."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt.model_folder.folder import Manifest
from sdrt_export import export_model
from sdrt_export.architectures.published import PUBLISHED
from sdrt_export.verify.parity import LIMITS
from tests.export.checkpoints.ldm_files import made
from tests.safetensors_files import save_file

Config = Mapping[str, Any]
# Published widths are multiples of these.
UNET_UNIT, VAE_UNIT, TEXT_UNIT = 32, 32, 64
SINES = 8
# They take ten seconds each, so all others run with the full-size tests.
QUICK = {"bk-sdm-tiny", "sd1"}
# The kind of a single file, what its U-Net has changed, and what the export is given beside it.
SINGLE_FILES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sd1": ("sd1", {}, {}),
    "sd1-inpainting": ("sd1", {"in_channels": 9}, {}),
    "instruct-pix2pix": ("sd1", {"in_channels": 8}, {}),
    "sd2": ("sd2", {}, {"prediction_type": "v_prediction"}),
    "x4-upscaler": ("x4-upscaler", {}, {}),
    "sdxl": ("sdxl", {}, {}),
    "sdxl-inpainting": ("sdxl", {"in_channels": 9}, {}),
    "sdxl-refiner": ("sdxl-refiner", {}, {}),
}


def marked(names: Iterable[str]) -> list[Any]:
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.full) for name in names]


def in_small(configs: Mapping[str, Config]) -> dict[str, Config]:
    """An architecture with narrow layers and short text encoders. All else is as published: blocks, heads, tasks."""
    small = {**configs, "vae": _narrow(configs["vae"], VAE_UNIT)}
    texts = {part: _short(configs[part]) for part in ("text_encoder", "text_encoder_2") if part in configs}
    return {**small, **texts, "unet": _unet(configs["unet"], texts)}


def _narrow(config: Config, unit: int) -> Config:
    widths = tuple(width * 4 // unit for width in config["block_out_channels"])
    return {**config, "block_out_channels": widths, "norm_num_groups": 4}


def _short(config: Config) -> Config:
    """Widths of 48 to 80 numbers, in heads of 4. The vocabulary has the bytes."""
    width = config["hidden_size"] * 4 // TEXT_UNIT
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_attention_heads": width // 4}
    return {**config, **sizes, "num_hidden_layers": 3, "vocab_size": 514, "projection_dim": width}


def _unet(config: Config, texts: Mapping[str, Config]) -> Config:
    """A narrow U-Net that reads what the text encoders make."""
    small = {
        **_narrow(config, UNET_UNIT),
        "cross_attention_dim": sum(t["hidden_size"] for t in texts.values()),
    }
    if config.get("addition_embed_type") is None:
        return small
    sizes = (config["projection_class_embeddings_input_dim"] - 1280) // config["addition_time_embed_dim"]
    pooled = texts["text_encoder_2"]["projection_dim"]
    return small | {
        "addition_time_embed_dim": SINES,
        "projection_class_embeddings_input_dim": pooled + sizes * SINES,
    }


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*"))


def assert_verified(manifest: Manifest, texts: set[str]) -> None:
    """Every component was compared at two sizes, and the VAE in tiles too."""
    assert set(manifest.components) == {*texts, "unet", "vae_encoder", "vae_decoder"}
    for name, entry in manifest.components.items():
        checks = entry["parity"]
        assert len(checks) == 2 + name.startswith("vae"), name
        assert all(0 < check["relative_error"] <= LIMITS["fp32"] for check in checks), (name, checks)


def texts_of(parts: Iterable[str]) -> set[str]:
    return {part for part in parts if part.startswith("text_encoder")}


@pytest.mark.parametrize("name", marked(name for name in PUBLISHED if not name.startswith("tiny")))
def test_every_architecture(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = PUBLISHED[name]
    monkeypatch.setitem(PUBLISHED, name, replace(row, configs=in_small(row.configs)))
    manifest = export_model(None, tmp_path / "model", architecture=name, random_weights=0, verify=True)
    assert_verified(manifest, texts_of(row.configs))
    assert size_of(tmp_path / "model") < 512 << 20


@pytest.mark.parametrize("name", marked(SINGLE_FILES))
def test_every_kind_of_single_file(name: str, tmp_path: Path) -> None:
    kind, unet, beside = SINGLE_FILES[name]
    content = made(kind, unet, whole=True)
    # By fan-in, as weights are: otherwise the networks amplify what the sums round.
    small = {
        key: value * np.float32(max(1, math.prod(value.shape[1:])) ** -0.5)
        for key, value in content.tensors.items()
    }
    path = tmp_path / "file.safetensors"
    save_file(small, path)
    manifest = export_model(path, tmp_path / "model", verify=True, **beside)
    assert_verified(manifest, texts_of(content.parts))
