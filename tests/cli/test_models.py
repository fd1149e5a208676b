"""`sdrt models`: what can be named without a download."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import sdrt_models
from sdrt.cli import main
from sdrt.manifest import Manifest

pytestmark = pytest.mark.usefixtures("folder")


def models(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["models", *arguments], prog_name="sdrt")
    assert result.exit_code == 0, result.stderr
    return result


def rows() -> dict[str, dict[str, Any]]:
    return {row["model"]: row for row in json.loads(models("--json").stdout)["models"]}


def test_the_embedded_model_is_the_default() -> None:
    assert json.loads(models("--json").stdout)["default"] == "shapes"
    row = rows()["shapes"]
    manifest = Manifest.read(sdrt_models.path("shapes"))
    assert (row["where"], row["family"], row["target"]) == ("embedded", "stable-diffusion", manifest.target)
    assert row["dtype"] == manifest.dtype == "float16"
    assert row["bytes"] >= sum(record.size for record in manifest.files.values())
    header, line = models().stdout.splitlines()
    assert header.split() == ["model", "family", "target", "dtype", "size", "from"]
    assert line.startswith("shapes ")
    assert "the default" in line


def test_models_here_and_in_the_cache(tiny_model: Path, own_cache: Path) -> None:
    cached = own_cache / "exported" / "sd1-0123456789abcdef"
    shutil.copytree(tiny_model, cached)
    shutil.copytree(tiny_model, "mine")
    found = rows()
    assert found[str(cached)]["where"] == "exported"
    assert found["mine/"]["where"] == "here"
    assert found["mine/"]["source"] == Manifest.read(tiny_model).source["id"]
    for name in (str(cached), "mine/"):
        assert CliRunner().invoke(main, ["info", name]).exit_code == 0


def test_an_exported_model_in_the_hub_s_cache(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo = tmp_path / "hub" / "models--owner--name"
    commit = "0" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    shutil.copytree(tiny_model, repo / "snapshots" / commit)
    (repo / "blobs").mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        "huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False
    )
    assert rows()["owner/name"]["where"] == "hub"


def test_a_damaged_model_is_listed_with_what_is_wrong(tiny_model: Path) -> None:
    shutil.copytree(tiny_model, "broken")
    Path("broken/vae_decoder/model.onnx").unlink()
    assert "vae_decoder" in rows()["broken/"]["problem"]
    assert "is missing" in models().stdout


def test_a_model_of_another_program(model_copy: Path) -> None:
    shutil.copytree(model_copy, "other")
    row = rows()["other/"]
    assert (row["target"], row["dtype"], row["problem"]) == (None, None, None)
    assert "unknown" in models().stdout
