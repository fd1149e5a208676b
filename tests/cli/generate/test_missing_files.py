"""Mistyped paths: the error says that there is no such file, and the hub is not asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import run

pytestmark = pytest.mark.usefixtures("folder")

PATHS = (
    "models/style/ink.safetensors",
    "Lora/ink.safetensors",
    "mine/style/ink.safetensors",
    "ink.safetensors",
    "./owner/name/ink.safetensors",
    "../loras/ink.safetensors",
    "~/loras/ink.safetensors",
    "/loras/ink.safetensors",
    "loras\\style\\ink.safetensors",
    "owner/ink.png",
    "owner/ink.sft",
)


@pytest.fixture
def mine(folder: Path) -> None:
    """A folder that has no usual name."""
    (folder / "mine").mkdir()


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("option", ["--lora", "--controlnet", "--ip-adapter", "-m", "--refiner"])
def test_a_mistyped_path_is_no_hub_id(option: str, path: str, model: str) -> None:
    result = run("generate", "a cat", *(() if option == "-m" else ("-m", model)), "--quiet", option, path)
    line = result.stderr
    assert (result.exit_code, line.count("\n")) == (3, 1), line
    assert "there is no " in line or "does not exist" in line
    assert "hub model" not in line


@pytest.mark.parametrize("option", ["--lora", "--controlnet", "--ip-adapter", "-m", "--refiner"])
def test_a_file_on_the_hub_is_asked_for(option: str, model: str) -> None:
    path = "owner/name/models/ink.safetensors"
    result = run("generate", "a cat", *(() if option == "-m" else ("-m", model)), "--quiet", option, path)
    assert "hub model 'owner/name' is not in the cache, and the hub cannot be reached" in result.stderr
