"""What goes beside a checkpoint that runs directly, such as another VAE, and checkpoints that do not fit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from sdrt import StableDiffusionPipeline
from sdrt.cli import main
from sdrt.common.safetensors_file import as_array, read_header
from sdrt.errors import (
    ComponentError,
    IntegrityError,
    ModelNotFoundError,
    RequestError,
    UnsupportedModelError,
)
from sdrt.images.metadata import read_metadata
from tests.export.checkpoints.ldm_files import made
from tests.export.damaged_checkpoints import edit
from tests.export.direct import WEIGHTS, image
from tests.safetensors_files import save_file

Checkpoint = Callable[[str], Path]


@pytest.mark.full
def test_another_vae_changes_the_image_and_is_in_its_metadata(single: Path, tmp_path: Path) -> None:
    content = {
        name.removeprefix("first_stage_model."): array * np.float32(1 if array.ndim < 2 else 0.9)
        for name, array in made("sd1", whole=True).tensors.items()
        if name.startswith("first_stage_model.")
    }
    save_file(content, tmp_path / "other.safetensors")
    given = ["generate", "a", "-m", str(single), "--steps", "2", "--seed", "0", "--provider", "cpu"]
    told = {}
    for name, more in (("a", []), ("b", ["--vae", str(tmp_path / "other.safetensors")])):
        result = CliRunner().invoke(main, [*given, *more, "-o", str(tmp_path / f"{name}.png")])
        assert result.exit_code == 0, result.output
        told[name] = read_metadata(tmp_path / f"{name}.png").settings.get("VAE")
    assert told == {"a": None, "b": "other.safetensors"}
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()
    again = ["generate", "--from", str(tmp_path / "b.png"), "-m", str(single), "-o", str(tmp_path / "c.png")]
    result = CliRunner().invoke(main, [*again, "--provider", "cpu"])
    assert result.exit_code != 0
    assert "'VAE'" in result.output
    more = ["--vae", str(tmp_path / "other.safetensors"), "--provider", "cpu"]
    result = CliRunner().invoke(main, [*again, *more])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "c.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_what_goes_beside_a_checkpoint_is_refused_beside_other_models(
    checkpoint: Checkpoint, tiny_model: Path
) -> None:
    for model in (tiny_model, "shapes"):
        with pytest.raises(
            RequestError, match=r"vae is given, but .* has been exported already: leave it out"
        ):
            StableDiffusionPipeline.from_pretrained(model, vae="vae.safetensors", provider="cpu")
    with pytest.raises(RequestError, match="prediction_type is for single files"):
        image(checkpoint("sd1"), prediction_type="epsilon")
    with pytest.raises(RequestError, match=r"vae is 5: expected a path or hub id, such as vae\.safetensors"):
        image(checkpoint("sd1"), vae=5)
    with pytest.raises(RequestError, match="is a folder: open it with from_pretrained"):
        StableDiffusionPipeline.from_single_file(checkpoint("sd1"))


@pytest.mark.parametrize("command", ["generate", "export"])
@pytest.mark.parametrize("inside", [False, True], ids=["folder", "folder of a model"])
@pytest.mark.parametrize(
    ("key", "value"), [("scaling_factor", None), ("shift_factor", 0.1)], ids=["no factor", "a shift"]
)
def test_what_is_wrong_with_the_config_of_a_vae_folder_names_its_file(
    key: str, value: Any, inside: bool, command: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    given = tmp_path / "given"
    folder = given / "vae" if inside else given
    shutil.copytree(checkpoint("sd1") / "vae", folder)
    edit(folder / "config.json", **{key: value})
    more = ["x", "--steps", "1", "-m"] if command == "generate" else []
    output = ["--vae", str(given), "-o", str(tmp_path / "out.png")]
    result = CliRunner().invoke(main, [command, *more, str(checkpoint("sd1")), *output])
    assert result.exit_code == 3
    assert f"error: {folder / 'config.json'}: {key} " in result.stderr


def test_the_config_of_a_vae_folder_beside_a_single_file_is_named(
    single: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(checkpoint("sd1") / "vae", tmp_path / "given"))
    edit(folder / "config.json", scaling_factor=0)
    with pytest.raises(
        IntegrityError, match=rf"^{re.escape(str(folder / 'config.json'))}: scaling_factor is 0"
    ):
        image(single, vae=folder)


@pytest.mark.parametrize(
    "command", [["benchmark", "--steps", "1", "--time-limit", "0.1"], ["doctor"]], ids=["benchmark", "doctor"]
)
def test_what_goes_beside_a_file_reaches_every_process(command: list[str], tmp_path: Path) -> None:
    """Nothing in the file says what it predicts. Each process that opens it needs the option."""
    content = made("sd2", whole=True)
    vae = {name: one for name, one in content.tensors.items() if name.startswith("first_stage_model.")}
    save_file(vae, tmp_path / "vae.safetensors")
    rest = {name: one for name, one in content.tensors.items() if name not in vae}
    save_file(rest, tmp_path / "sd2.safetensors")
    given = [*command, "-m", str(tmp_path / "sd2.safetensors"), "--size", "64", "--provider", "cpu"]
    without = CliRunner().invoke(main, given)
    assert without.exit_code == 3, without.output
    beside = ["--vae", str(tmp_path / "vae.safetensors"), "--prediction-type", "v_prediction"]
    result = CliRunner().invoke(main, [*given, *beside])
    assert result.exit_code == 0, result.output
    assert "64x64" in result.stdout


def test_weights_that_do_not_fit_are_refused_before_anything_is_loaded(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    def changed(name: str, change: Callable[[dict[str, np.ndarray]], None]) -> Path:
        folder = shutil.copytree(checkpoint("sd1"), tmp_path / name)
        path = folder / "unet" / WEIGHTS["unet"]
        header, data = read_header(path), path.read_bytes()
        arrays = {k: as_array(header, k, data[one.start : one.end]) for k, one in header.tensors.items()}
        change(arrays)
        save_file(arrays, path)
        return folder

    with pytest.raises(IntegrityError, match=r"the weights lack conv_in\.bias"):
        image(changed("missing", lambda arrays: arrays.pop("conv_in.bias")))
    with pytest.raises(IntegrityError, match=r"conv_in\.bias is of shape \[3\]: expected \[16\]"):
        image(changed("shape", lambda arrays: arrays.update({"conv_in.bias": np.ones(3, np.float32)})))
    with pytest.raises(UnsupportedModelError, match="the weights have other"):
        image(changed("left", lambda arrays: arrays.update(other=np.ones(3, np.float32))))


def test_damaged_weights_are_said_with_a_remedy(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint")
    path = folder / "unet" / WEIGHTS["unet"]
    data, entry = bytearray(path.read_bytes()), read_header(path).tensors["conv_out.bias"]
    data[entry.start : entry.start + 4] = np.float32(np.nan).tobytes()
    path.write_bytes(data)
    with pytest.raises(
        ComponentError, match=r"unet: .*not finite.*download it again; sdrt export says which"
    ):
        image(folder)


def test_files_that_vanish_are_named(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint("sd1"), tmp_path / "checkpoint")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, provider="cpu")
    (folder / "unet" / WEIGHTS["unet"]).unlink()
    with pytest.raises(ModelNotFoundError, match=r"unet has no \.safetensors weights"):
        pipeline("a", num_inference_steps=1)


def test_a_lora_is_still_refused_as_what_it_is(tmp_path: Path) -> None:
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
    save_file({name: np.ones((4, 768), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(ModelNotFoundError, match="is a LoRA for Stable Diffusion 1, not a whole model"):
        image(tmp_path / "a.safetensors")


def test_info_says_what_a_checkpoint_runs_with(checkpoint: Checkpoint, single: Path, tmp_path: Path) -> None:
    named = Path(shutil.copy(single, tmp_path / "sd-turbo.safetensors"))
    for path, words in (
        (checkpoint("sd1"), ("a checkpoint in diffusers' layout", "PNDMScheduler", "50 steps")),
        (checkpoint("sd2"), ("a checkpoint in diffusers' layout", "v_prediction", "50 steps")),
        (single, ("a single-file checkpoint of Stable Diffusion 1, in", "epsilon", "guidance scale 7.5")),
        (named, ("EulerDiscreteScheduler", "1 step, guidance scale 0, because its name says")),
    ):
        result = CliRunner().invoke(main, ["info", str(path)])
        assert result.exit_code == 0, result.output
        assert [word for word in words if word not in result.stdout] == []
    with StableDiffusionPipeline.from_single_file(named, provider="cpu", notify=print) as pipeline:
        defaults = json.loads(CliRunner().invoke(main, ["info", str(named), "--json"]).stdout)["defaults"]
        assert (
            defaults["num_inference_steps"]
            == pipeline("a cat", width=64, height=64).request.num_inference_steps
        )


@pytest.mark.parametrize(
    ("kind", "task"),
    [("sd1", "text to image"), ("sdxl", "text to image"), ("sdxl-refiner", "image to image")],
)
def test_info_says_the_task(kind: str, task: str, tmp_path: Path) -> None:
    """SDXL's refiner finishes the images of another model."""
    path = made(kind, whole=True).saved(tmp_path / "model.safetensors")
    about = json.loads(CliRunner().invoke(main, ["info", str(path), "--json"]).stdout)
    assert (about["problem"], about["task"]) == (None, task)


def test_info_says_why_a_checkpoint_does_not_run(checkpoint: Checkpoint, tmp_path: Path) -> None:
    sd2 = made("sd2", whole=True).saved(tmp_path / "sd2.safetensors")
    result = CliRunner().invoke(main, ["info", str(sd2)])
    assert "problem    " in result.stdout
    assert "give --prediction-type v_prediction" in result.stdout
    assert json.loads(CliRunner().invoke(main, ["info", str(sd2), "--json"]).stdout)["scheduler"] is None
    hashes = CliRunner().invoke(main, ["info", str(checkpoint("sd1")), "--verify"])
    assert hashes.exit_code == 2
    assert "is a checkpoint, which has no hashes: expected a model folder" in hashes.output
