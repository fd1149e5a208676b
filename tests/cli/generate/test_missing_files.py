"""Mistyped paths: the error says that there is no such file, and the hub is not asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdrt import Request, RequestError
from sdrt.common.extras import missing_modules
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


needs_exporter = pytest.mark.skipif(
    bool(missing_modules("export")), reason="without the exporter, that is said first"
)


@pytest.mark.parametrize(
    "option",
    [
        *("--lora", "-m", "--refiner"),
        *(pytest.param(name, marks=needs_exporter) for name in ("--controlnet", "--ip-adapter")),
    ],
)
def test_a_file_on_the_hub_is_asked_for(option: str, model: str) -> None:
    path = "owner/name/models/ink.safetensors"
    result = run("generate", "a cat", *(() if option == "-m" else ("-m", model)), "--quiet", option, path)
    assert "hub model 'owner/name' is not in the cache, and the hub cannot be reached" in result.stderr


NAMES = (
    *(
        "--control-image",
        "--ip-image",
        "--ip-mask",
        "--mask",
        "-i",
        "--from",
        "--prompts-file",
        "--embedding",
    ),
    *("--wildcards", "--preview-file", "--control-preview", "--lora-dir", "-o", "--text-encoder"),
)


@pytest.mark.parametrize("option", NAMES)
def test_an_empty_name_is_said(option: str) -> None:
    result = run("generate", "a cat", "--quiet", option, "")
    line = result.stderr
    assert (result.exit_code, line.count("\n")) == (2, 1)
    spelling = {"-i": "--image", "-o": "--output"}.get(option, option)
    assert line.startswith(f"error: {spelling} is '': expected the name of a "), line
    assert not list(Path().iterdir())


def test_an_empty_name_is_said_by_other_commands() -> None:
    result = run("plot", "a cat", "-x", "steps=1,2", "--mask", "")
    assert "--mask is '': expected the name of a file" in result.stderr
    result = run("export", "x", "-o", "y", "--calibration-prompts", "")
    assert "--calibration-prompts is '': expected the name of a file" in result.stderr
    result = run("export", "shapes", "-o", "", "--force")
    assert result.stderr == "error: --output is '': expected the name of a folder\n"
    Path("p.txt").write_text('{"prompt": "a", "steps": 3, "guidance_scale": 2}')
    result = run("export", "x", "-o", "y", "--calibration-prompts", "p.txt")
    assert "p.txt, line 1 has steps, guidance_scale: expected only prompts" in result.stderr
    result = run("export", "", "-o", "y")
    assert result.stderr == "error: SOURCE is '': expected a diffusers folder, a single file or a hub id\n"
    result = run("plot", "a cat", "-x", "image=,a.png")
    assert "--image is '': expected the name of an image file" in result.stderr


@pytest.mark.parametrize("name", ["image", "control_image", "ip_adapter_image"])
def test_an_empty_name_in_python(name: str) -> None:
    with pytest.raises(RequestError, match=f"^{name} is '': expected the name of an image file$"):
        Request(prompt="a cat", **{name: ""})
