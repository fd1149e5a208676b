"""`sdrt models`: what can be named without a download."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import sdrt_models
from sdrt.cli import main
from sdrt.cli.models import here
from sdrt.model_folder.manifest import Manifest
from tests.safetensors_files import save_file

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
    assert row["bytes"] == sum(record.size for name, record in manifest.files.items() if "/" in name)
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


def test_an_exported_model_in_the_hub_s_cache(tiny_model: Path, tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--owner--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "blobs").mkdir()
    for commit, branch in (("0" * 40, "old"), ("1" * 40, "main")):
        (repo / "refs" / branch).write_text(commit)
        shutil.copytree(tiny_model, repo / "snapshots" / commit)
    # Neither a dataset nor a repository that is damaged hides it, or is listed.
    shutil.copytree(repo, repo.with_name("datasets--owner--name"))
    loop = repo.with_name("models--a--loop")
    (loop / "refs").mkdir(parents=True)
    (loop / "refs" / "main").write_text("2" * 40)
    (loop / "snapshots").mkdir()
    (loop / "snapshots" / ("2" * 40)).symlink_to("2" * 40)
    repo.with_name("models--a--file").write_text("")
    found = [row for row in rows().values() if row["where"] == "hub"]
    assert [row["model"] for row in found] == ["owner/name"]
    assert Path(found[0]["path"]).name == "1" * 40


def test_what_a_killed_export_left_is_no_model(tiny_model: Path, own_cache: Path) -> None:
    shutil.copytree(tiny_model, ".sdrt-0123")
    shutil.copytree(tiny_model, own_cache / "exported" / ".sdrt-0123")
    assert list(rows()) == ["shapes"]


def test_the_embedded_model_keeps_its_name(tiny_model: Path) -> None:
    shutil.copytree(tiny_model, "shapes")
    assert {row["model"] for row in json.loads(models("--json").stdout)["models"]} == {"shapes", "shapes/"}
    for name, source in (("shapes", "shapes"), ("shapes/", "tiny-random-0"), ("./shapes", "tiny-random-0")):
        about = json.loads(CliRunner().invoke(main, ["info", name, "--json"]).stdout)
        assert about["source"]["id"] == source


def test_a_damaged_model_is_listed_with_what_is_wrong(tiny_model: Path) -> None:
    shutil.copytree(tiny_model, "broken")
    Path("broken/vae_decoder/model.onnx").unlink()
    assert "vae_decoder" in rows()["broken/"]["problem"]
    assert "is missing" in models().stdout


def test_names_that_a_terminal_would_obey(tiny_model: Path) -> None:
    shutil.copytree(tiny_model, "new\nline\x1b[31m")
    manifest = Path("new\nline\x1b[31m/sdrt.json")
    told = json.loads(manifest.read_text())
    told["source"]["id"] = "\ud83d"
    manifest.write_text(json.dumps(told))
    lines = models().stdout.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith(r"new\nline\x1b[31m/")
    assert r"\ud83d" in lines[2]


def test_a_model_of_another_program(model_copy: Path) -> None:
    shutil.copytree(model_copy, "other")
    row = rows()["other/"]
    assert (row["target"], row["dtype"], row["problem"]) == (None, None, None)
    assert "unknown" in models().stdout


def test_a_folder_that_may_not_be_entered_hides_no_other(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_model, "mine")
    Path("locked").mkdir()
    is_file = Path.is_file

    def refused(path: Path) -> bool:  # root may enter everything
        if path.parts[0] == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refused)
    assert "mine/" in rows()


# --- checkpoints in the working directory -----------------------------------------------------------------

CONV_IN, CONTEXT = "input_blocks.0.0.weight", "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


def write_file(name: str, tensors: dict[str, tuple[int, ...]]) -> None:
    save_file({key: np.zeros(shape, np.float16) for key, shape in tensors.items()}, Path(name))


def write_checkpoint(name: str) -> None:
    unet = {CONV_IN: (8, 4, 3, 3), CONTEXT: (8, 768)}
    write_file(
        name,
        {f"model.diffusion_model.{key}": shape for key, shape in unet.items()}
        | {"cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": (77, 768)},
    )


def test_single_files_here(folder: Path) -> None:
    write_checkpoint("mine.safetensors")
    write_checkpoint("-m.SAFETENSORS")
    write_checkpoint(".hidden.safetensors")
    found = rows()
    assert list(found) == ["shapes", "./-m.SAFETENSORS", "mine.safetensors"]
    row = found["mine.safetensors"]
    assert (row["where"], row["kind"], row["base"]) == (
        "here",
        "single-file checkpoint",
        "Stable Diffusion 1",
    )
    assert (row["dtype"], row["problem"]) == ("float16", None)
    assert row["bytes"] == Path("mine.safetensors").stat().st_size
    line = models().stdout.splitlines()[-1]
    assert line.split("  ")[0] == "mine.safetensors"
    assert line.endswith("here, single-file checkpoint")
    assert "Stable Diffusion 1" in line


def test_a_diffusers_folder_here(folder: Path) -> None:
    index = {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    }
    for name, changes in {"sd": {}, "flux": {"_class_name": "FluxPipeline"}}.items():
        Path(name, "unet").mkdir(parents=True)
        Path(name, "model_index.json").write_text(json.dumps(index | changes))
        write_file(f"{name}/unet/diffusion_pytorch_model.safetensors", {"conv_in.weight": (4, 4, 3, 3)})
    Path("empty").mkdir()
    found = rows()
    assert list(found) == ["shapes", "flux/", "sd/"]
    row = found["sd/"]
    assert (row["kind"], row["family"], row["dtype"]) == (
        "diffusers checkpoint",
        "stable-diffusion",
        "float16",
    )
    assert row["bytes"] == Path("sd/unet/diffusion_pytorch_model.safetensors").stat().st_size
    assert "'FluxPipeline' is not supported" in found["flux/"]["problem"]


def test_other_files_are_counted(folder: Path) -> None:
    write_file("a.safetensors", {"lora_unet_x.lora_down.weight": (4, 8)})
    write_file("b.safetensors", {"lora_unet_x.lora_down.weight": (4, 8)})
    write_file("vae.safetensors", {"decoder.conv_in.weight": (4, 4, 3, 3)})
    write_file("odd.safetensors", {"x.weight": (4,), "y.weight": (4,)})
    said = json.loads(models("--json").stdout)
    assert [row["model"] for row in said["models"]] == ["shapes"]
    assert said["left_out"] == {"a LoRA": 2, "a VAE": 1, "an unknown kind": 1}
    result = models()
    assert len(result.stdout.splitlines()) == 2
    assert "other files here: 2 × LoRA, 1 × VAE, 1 × unknown kind" in result.stderr


def test_files_that_cannot_be_used_say_why(folder: Path) -> None:
    write_checkpoint("cut.safetensors")
    Path("cut.safetensors").write_bytes(Path("cut.safetensors").read_bytes()[:-9])
    Path("page.safetensors").write_text("<html>")
    Path("loop.safetensors").symlink_to("loop.safetensors")
    Path("folder.safetensors").mkdir()
    os.mkfifo("pipe.safetensors")
    write_file("flux.safetensors", {"double_blocks.0.img_attn.qkv.weight": (4, 4)})
    found = rows()
    assert list(found) == ["shapes", "cut.safetensors", "flux.safetensors", "page.safetensors"]
    assert "it is cut off" in found["cut.safetensors"]["problem"]
    assert "a web page" in found["page.safetensors"]["problem"]
    assert "a diffusion transformer of Flux, which is not supported" in found["flux.safetensors"]["problem"]
    assert "here: cut.safetensors cannot be read" in models().stdout


def test_many_files_are_not_all_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        write_checkpoint(f"{number}.safetensors")
    monkeypatch.setattr(here, "_MOST_FILES", 3)
    assert json.loads(models("--json").stdout)["unread"] == 2
    assert "2 more files here were not read, to save time" in models().stderr
    monkeypatch.setattr(here, "_MOST_SECONDS", -1.0)
    assert json.loads(models("--json").stdout)["unread"] == 5
