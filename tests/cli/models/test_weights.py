"""`sdrt info FILE.safetensors`, and such files in place of a model or an embedding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import run
from tests.safetensors_files import save_file


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    path = tmp_path / "style.safetensors"
    down = np.zeros((4, 2048), np.float32)
    save_file({"lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": down}, path)
    return path


def test_info_says_what_a_file_holds(lora: Path) -> None:
    assert run("info", lora).stdout == "a LoRA for SDXL, in 1 tensor\n"
    about = json.loads(run("info", lora, "--json").stdout)
    assert about == {"file": str(lora), "kind": "a LoRA", "base": "SDXL", "tensors": 1}
    lora.write_bytes(b"\x00" * 4)
    damaged = run("info", lora)
    assert damaged.exit_code == 3
    assert "cannot be read as a safetensors file" in damaged.stderr


@pytest.mark.parametrize("name", ["missing.safetensors", "missing.png", "folder/missing", "missing-v1.5"])
def test_info_of_what_does_not_exist(name: str, folder: Path) -> None:
    done = run("info", name)
    assert done.exit_code == 3
    assert done.stderr == f"error: there is no file or model folder {name}: check the path\n"


def test_a_lora_is_called_a_lora(lora: Path, tmp_path: Path) -> None:
    output = tmp_path / "a.png"
    for options, words in (
        (("--embedding", lora), "is a LoRA for SDXL: expected a textual inversion"),
        (("-m", lora), "is a LoRA for SDXL, not a whole model, expected a model folder"),
    ):
        result = run("generate", "a cat", "-o", output, *options)
        assert result.exit_code == 3
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert not output.exists()
