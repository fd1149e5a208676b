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


@pytest.mark.parametrize(
    "name", ["style", "style.ckpt", "style.txt", "style.png", "style.v1.5", "-style.bin"]
)
def test_the_content_decides_whether_a_file_holds_weights(name: str, lora: Path, tmp_path: Path) -> None:
    renamed = lora.rename(tmp_path / name)
    assert run("info", renamed).stdout == "a LoRA for SDXL, in 1 tensor\n"
    renamed.write_bytes(renamed.read_bytes()[:-1])
    damaged = run("info", renamed)
    assert damaged.exit_code == 3
    assert "it is cut off" in damaged.stderr


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.ckpt", b"PK\x03\x04", "a zip archive, as torch saves pickles): only .safetensors is read"),
        ("old.pt", b"\x80\x02", "it is a pickle): only .safetensors is read"),
        ("model.gguf", b"GGUF", "it is a GGUF file"),
        ("model.bin", b"version https://git-lfs", "it is a pointer of Git LFS"),
    ],
)
def test_info_of_other_files_of_weights_says_what_they_are(
    name: str, content: bytes, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content.ljust(64, b"\0"))
    done = run("info", tmp_path / name)
    assert done.exit_code == 3
    assert words in done.stderr
    assert "image" not in done.stderr


def test_a_checkpoint_under_another_name_says_how_to_rename_it(tmp_path: Path) -> None:
    names = ["model.diffusion_model.input_blocks.0.0.weight", "cond_stage_model.transformer.x"]
    save_file({name: np.zeros(1, np.float32) for name in names}, tmp_path / "model")
    done = run("info", tmp_path / "model")
    assert done.stdout.startswith("a single-file checkpoint of Stable Diffusion 1, in 2 tensors\nproblem ")
    assert "rename it to" in done.stdout


@pytest.mark.parametrize("content", [b"{", b"\x40\0\0\0\0\0\0\0{", b'{"prompt": "a cat"}', b""])
def test_other_files_are_no_weights(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert "expected an image" in run("info", tmp_path / "file").stderr
