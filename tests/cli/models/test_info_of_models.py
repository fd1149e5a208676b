"""`sdrt info` on model folders: whole, malformed and damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import sdrt
from tests.cli.commands import generate, run

pytestmark = pytest.mark.usefixtures("folder")


def test_info_on_a_malformed_manifest(model: str, folder: Path) -> None:
    source = sdrt.StableDiffusionPipeline.from_pretrained(model, notify=lambda text: None).model.path
    copy = Path(shutil.copytree(source, folder / "copy"))
    manifest = json.loads((copy / "sdrt.json").read_text(encoding="utf-8"))
    (copy / "sdrt.json").write_text(json.dumps(manifest | {"components": {"unet": 5}}), encoding="utf-8")
    result = run("info", "copy")
    assert result.exit_code == 3
    assert "components.unet must list" in result.stderr


def test_info_summarises_a_model(model: str) -> None:
    about = json.loads(run("info", model, "--json").stdout)
    assert about["target"] == "cpu"
    assert about["components"]["unet"]["bytes"] > 0
    assert about["components"]["unet"]["relative_error"] < 1e-4
    assert about["hashes"] == "not verified"
    assert json.loads(run("info", model, "--verify", "--json").stdout)["hashes"] == "verified"
    generate(model, "-o", "a.png")
    assert "hashes          verified" in run("info", model).stdout


def test_info_names_a_damaged_file(model: str, folder: Path) -> None:
    import shutil

    damaged = folder / "copy"
    source = sdrt.StableDiffusionPipeline.from_pretrained(model, notify=lambda text: None).model.path
    shutil.copytree(source, damaged)
    graph = damaged / "unet" / "model.onnx"
    content = bytearray(graph.read_bytes())
    content[-100] ^= 1
    graph.write_bytes(content)
    result = run("info", "copy", "--verify")
    assert result.exit_code == 3
    assert "unet/model.onnx" in result.stderr


def test_info_of_a_folder_without_a_manifest(model: str, folder: Path) -> None:
    import shutil

    source = sdrt.StableDiffusionPipeline.from_pretrained(model, notify=lambda text: None).model.path
    shutil.copytree(source, folder / "copy", ignore=shutil.ignore_patterns("sdrt.json"))
    assert "no sdrt.json" in run("info", "copy").stdout
    assert run("info", "copy", "--verify").exit_code == 3
