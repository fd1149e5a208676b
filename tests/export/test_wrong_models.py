"""What is no checkpoint, given to `sdrt export`, and parts of different models."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from diffusers import UNet2DConditionModel

from sdrt.cli import main
from tests.safetensors_files import write_file
from tests.wrong_models import WRONG_MODELS


def refused(source: Path, words: str, *options: str) -> None:
    output = source.parent / "exported"
    done = CliRunner().invoke(main, ["export", str(source), "-o", str(output), "-q", *options])
    assert done.exit_code == 3, done.output
    (line,) = done.stderr.splitlines()
    assert re.search(f"^error: .*{words}", line), line
    assert sorted(source.parent.iterdir()) == [source]


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_it_is_named(tmp_path: Path, name: str) -> None:
    make, words = WRONG_MODELS[name]
    make(tmp_path / name)
    refused(tmp_path / name, words)


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("vae", {"latent_channels": 16}, "16"),
        ("unet", {"block_out_channels": [16000, 16000]}, "more than 16,000,000,000 weights"),
        (
            "unet",
            {"layers_per_block": 64, "transformer_layers_per_block": 64},
            "network of more than 50,000 operators",
        ),
        (
            "vae",
            {"block_out_channels": [8192] * 4, "layers_per_block": 16},
            "more than 16,000,000,000 weights",
        ),
        ("text_encoder", {"model_type": "t5"}, "text_encoder/config.json: model_type is 't5'"),
        (
            "text_encoder",
            {"quantization_config": {"bits": 4}},
            "text_encoder/config.json: quantization_config is",
        ),
        (
            "unet",
            {"_class_name": "UNet3DConditionModel"},
            "unet/config.json: _class_name is 'UNet3DConditionModel'",
        ),
    ],
)
def test_parts_that_disagree(
    checkpoint: Callable[[str], Path], tmp_path: Path, part: str, changes: dict[str, Any], words: str
) -> None:
    folder = Path(shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint"))
    path = folder / part / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    refused(folder, words)


@pytest.mark.parametrize("exporter", ["sdrt", "optimum"])
def test_a_unet_of_another_model(checkpoint: Callable[[str], Path], tmp_path: Path, exporter: str) -> None:
    """Each part is whole, but they do not belong together."""
    folder = Path(shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint"))
    shutil.rmtree(folder / "unet")
    values = {**json.loads((checkpoint("sd1") / "unet" / "config.json").read_text(encoding="utf-8"))}
    module = UNet2DConditionModel.from_config({**values, "cross_attention_dim": 48})
    module.save_pretrained(folder / "unet")
    more = ("--exporter", "optimum") if exporter == "optimum" else ()
    refused(
        folder,
        "unet reads texts of width 48, but text_encoder writes 32: they are of different models",
        *more,
    )


UNET = "unet/diffusion_pytorch_model.safetensors"


def _header(path: Path, change: Callable[[dict[str, Any]], object], data: bytes = b"") -> None:
    """Change the header of a file, and add `data` at its end."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    change(header)
    write_file(path, header, [content[end:], data])


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-100]), "it is cut off: .* ends at byte"),
        (lambda f: f.write_bytes(f.read_bytes() + b"12345678"), "its last 8 bytes belong to no tensor"),
        (
            lambda f: f.write_bytes(b"version https://git-lfs.github.com/spec/v1"),
            "it is a pointer of Git LFS",
        ),
        (lambda f: f.write_bytes(b""), "it is cut off"),
        (_pipe, "is a pipe or a device: expected a safetensors file"),
        (
            lambda f: _header(f, lambda h: h["conv_in.bias"].update(dtype="I32")),
            "conv_in.bias is of the type I32",
        ),
        (
            lambda f: _header(f, lambda h: h["conv_in.bias"].update(dtype="F128")),
            "number type 'F128', which is not",
        ),
        (
            lambda f: _header(f, lambda h: h["conv_in.weight"]["shape"].reverse()),
            r"conv_in.weight is of shape \[3, 3",
        ),
        (lambda f: _header(f, lambda h: h.pop("conv_in.bias")), "bytes before .* belong to no tensor"),
        (
            lambda f: _header(
                f, lambda h: h.update({"a\x1b[2J": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}})
            ),
            r"the weights have a\\x1b\[2J",
        ),
    ],
)
def test_damaged_weights(
    checkpoint: Callable[[str], Path], tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    folder = Path(shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint"))
    damage(folder / UNET)
    refused(folder, words)


@pytest.mark.parametrize("name", [5, ["EulerDiscreteScheduler"]])
def test_a_scheduler_whose_class_is_no_name(
    checkpoint: Callable[[str], Path], tmp_path: Path, name: Any
) -> None:
    folder = Path(shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint"))
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({"_class_name": name}), encoding="utf-8"
    )
    refused(folder, "scheduler/scheduler_config.json: _class_name is .*: expected a scheduler of diffusers")
