"""A safety checker that the user does not want: it stays on the hub, and out of the model folder, and sdrt says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from sdrt import RequestError, SdrtError, StableDiffusionPipeline
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
    with pytest.raises(RequestError, match="checked was opened without its safety checker: open it with"):
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


def test_a_refiner_leaves_its_own_there(
    on_hub: list[dict[str, Any]], checkpoint: Callable[[str], Path]
) -> None:
    call: dict[str, Any] = {"prompt": "a lake", "seed": 3, "refiner": "owner/checked", "refiner_switch": 0.5}
    messages: list[str] = []
    with StableDiffusionPipeline.from_pretrained(
        checkpoint("sd1"), provider="cpu", threads=2, notify=messages.append
    ) as pipeline:
        pipeline(safety_checker=False, **call, **CALL)
        pipeline(output_type="latent", **call, **CALL)
        pipeline.safety_checker = None
        pipeline(**call, **CALL)
        assert {one["safety_checker"] for one in on_hub} == {False}
        said = "the safety checker of checked is off: images are not filtered"
        assert messages.count(said) == 2
        pipeline.safety_checker = True
        on_hub.clear()
        with suppress(SdrtError):  # an exported model lacks files, and a checkpoint says so
            pipeline(**call, **CALL)
        assert {one["safety_checker"] for one in on_hub} == {True}


@pytest.mark.parametrize("kind", ["checkpoint", "exported"])
@pytest.mark.parametrize(
    "gone",
    [
        "safety_checker",
        "safety_checker/model*",
        "safety_checker/config.json",
        "feature_extractor",
    ],
)
def test_one_that_is_not_used_need_not_be_complete(
    gone: str, kind: str, checked: Path, tmp_path: Path
) -> None:
    folder, image = tmp_path / "model", tmp_path / "a.png"
    export_model(checked, folder) if kind == "exported" else shutil.copytree(checked, folder)
    for path in list(folder.glob(gone)):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    size = ("--steps", "1", "-W", "64", "-H", "64")
    result = run("generate", "a lake", "-m", folder, *size, "--no-safety-checker", "-o", image)
    assert result.exit_code == 0, result.output
    assert f"the safety checker of {checked.name if kind == 'exported' else 'model'} is off" in result.stderr
    assert "incomplete" not in result.stderr
    assert "missing" not in result.stderr
    assert told(image).settings["Safety checker"] == "False"


def test_a_damaged_one_that_is_not_used_does_not_matter(checked: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checked, tmp_path / "model")
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"cut off")
    size = ("--steps", "1", "-W", "64", "-H", "64", "-o", tmp_path / "a.png")
    result = run("generate", "a lake", "-m", folder, *size)
    assert result.exit_code == 3, result.output
    assert "safety_checker/model.safetensors is not a complete safetensors file" in result.stderr
    assert run("generate", "a lake", "-m", folder, *size, "--no-safety-checker").exit_code == 0


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
