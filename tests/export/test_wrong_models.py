"""What is no checkpoint, given to `sdrt export`, and parts of different models."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from diffusers import UNet2DConditionModel

from sdrt.cli import main
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
