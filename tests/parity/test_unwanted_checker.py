"""A safety checker that the user does not want: it stays on the hub, and out of the model folder, and sdrt says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sdrt import StableDiffusionPipeline
from sdrt.model_folder import hub
from sdrt_export.export import export_model
from tests.cli.commands import run, told
from tests.parity.test_safety_checker import CALL, add_checker


@pytest.fixture(scope="module")
def checked(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose checker flags every image."""
    folder = tmp_path_factory.mktemp("checkpoint") / "checked"
    shutil.copytree(checkpoint("sd1"), folder)
    add_checker(folder, torch.full((17,), -2.0))
    return folder


@pytest.fixture(params=["checkpoint", "exported"])
def on_hub(
    request: pytest.FixtureRequest, checked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """owner/checked on the hub, without the files of its checker. Returns what is asked for."""
    asked: list[dict[str, Any]] = []
    folder = tmp_path / "snapshots" / "checked"
    if request.param == "exported":
        export_model(checked, folder)
    else:
        shutil.copytree(checked, folder)
    for path in (folder / "safety_checker").iterdir():
        if path.name != "config.json":
            path.unlink()

    def download(name: str, **options: Any) -> Path:
        asked.append(options)
        return folder

    for name in ("download", "download_checkpoint"):
        monkeypatch.setattr(hub, name, download)
    return asked


def test_it_stays_on_the_hub(on_hub: list[dict[str, Any]]) -> None:
    messages: list[str] = []
    pipeline = StableDiffusionPipeline.from_pretrained(
        "owner/checked", provider="cpu", threads=2, safety_checker=None, notify=messages.append
    )
    made = pipeline("a lake", seed=3, **CALL)
    assert {one["safety_checker"] for one in on_hub} == {False}
    assert (made.nsfw_content_detected, pipeline.safety_checker) == (None, None)
    assert "the safety checker of checked is off: images are not filtered" in messages
    assert not any("incomplete" in one or "cannot be read" in one for one in messages)
    pipeline.safety_checker = True
    assert pipeline.safety_checker is None


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [(["{}"], False), (["{}", '{"safety_checker": true}'], True)],
    ids=["unwanted", "wanted by a line"],
)
def test_the_option_of_the_command_leaves_it_there(
    lines: list[str],
    wanted: bool,
    on_hub: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    entries = [json.dumps({"prompt": "a lake"} | json.loads(line)) for line in lines]
    Path("p.txt").write_text("\n".join(entries))
    options = ("--steps", "1", "-W", "64", "-H", "64", "--no-safety-checker", "-o", "{index}.png")
    result = run("generate", "--prompts-file", "p.txt", "-m", "owner/checked", "--provider", "cpu", *options)
    assert {one["safety_checker"] for one in on_hub} == {wanted}
    if not wanted:
        assert result.exit_code == 0, result.output
        assert "the safety checker of checked is off: images are not filtered" in result.stderr


def test_an_export_leaves_it_out(checked: Path, tmp_path: Path) -> None:
    folder, image = tmp_path / "model", tmp_path / "a.png"
    result = run("export", checked, "-o", folder, "--no-safety-checker")
    assert result.exit_code == 0, result.output
    assert "the safety checker of checked is left out: images will not be filtered" in result.stderr
    assert not (folder / "safety_checker").exists()
    assert json.loads((folder / "model_index.json").read_text())["safety_checker"] == [None, None]
    result = run("generate", "a lake", "-m", folder, "--steps", "1", "-W", "64", "-H", "64", "-o", image)
    assert result.exit_code == 0, result.output
    assert "safety checker" not in result.stderr
    assert "NSFW content detected" not in told(image).settings


def test_an_export_without_one_says_so(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    result = run("export", checkpoint("sd1"), "-o", tmp_path / "model", "--no-safety-checker")
    assert "has no safety checker to leave out" in result.stderr
