"""Which graphs are tuned: those of ControlNets, image prompts and tiles, of int8 models, and right after an export."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sdrt import StableDiffusionPipeline
from sdrt.cli import main
from sdrt.onnx import tuning
from sdrt.onnx.tuned import every_tuned_graph
from sdrt_export import export_model
from tests.made_once import MadeOnce
from tests.parity.checkpoints import randomise
from tests.parity.ip_adapters import adapter_file, image_encoder_folder
from tests.parity.t2i_adapters import write_adapter

Checkpoint = Callable[[str], Path]

PLAIN = {"text_encoder": 1, "unet": 1, "vae_decoder": 1, "vae_encoder": 1}
CALL: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "width": 64, "height": 64, "output_type": "np"}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SDRT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def beside(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """A ControlNet, a T2I-Adapter and an IP-Adapter for the checkpoint sd1."""
    folder = tmp_path_factory.mktemp("beside")
    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint("sd1") / "unet")
    module = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 6, 8, 10))
    randomise(module, 50).save_pretrained(folder / "net")
    image_encoder_folder(folder / "image_encoder")
    nets = [str(folder / "net"), str(write_adapter(folder / "t2i", "sd1"))]
    adapter = adapter_file(folder / "base.safetensors", unet, "base", 60)
    return {"controlnet": nets, "ip_adapter": [str(adapter)]}


def tuned() -> Counter[str]:
    """How many graphs of each component are tuned."""
    return Counter(one.folder.name.rpartition("-")[0] for one in every_tuned_graph())


def made(
    source: Path, said: list[str], *, tune: bool | None, call: dict[str, Any] = CALL, **options: Any
) -> np.ndarray:
    with StableDiffusionPipeline.from_pretrained(
        source, provider="cpu", tune=tune, notify=said.append, **options
    ) as pipeline:
        return np.asarray(pipeline("a lake", **call).images)


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.mark.full
def test_everything_that_a_call_needs_is_tuned(checkpoint: Checkpoint, beside: dict[str, list[str]]) -> None:
    drawn = Image.new("RGB", (64, 64), (40, 90, 200))
    call = CALL | {"control_image": [drawn, drawn], "ip_adapter_image": drawn}
    options: dict[str, Any] = {**beside, "vae_tiling": True}
    plain = made(checkpoint("sd1"), [], tune=False, call=call, **options)

    given = [part for name, files in beside.items() for one in files for part in (f"--{name}", one)]
    names = [one.replace("_", "-") if one.startswith("--") else one for one in given]
    done = run("tune", "-m", checkpoint("sd1"), *names, "--vae-tiling")
    assert done.exit_code == 0, done.stderr
    twice = {"unet": 2, "vae_decoder": 2, "vae_encoder": 2}
    controls = dict.fromkeys(("controlnet", "controlnet_2", "ip_adapter", "image_encoder"), 1)
    assert tuned() == Counter(PLAIN | twice | controls)

    said: list[str] = []
    np.testing.assert_array_equal(
        made(checkpoint("sd1"), said, tune=True, call=call, **options),
        plain,
    )
    assert [one for one in said if "tuned" in one] == []
    masked = call | {"ip_adapter_masks": Image.new("L", (64, 64), 255)}
    made(checkpoint("sd1"), said, tune=True, call=masked, **options)
    assert [one.partition(" in ")[0] for one in said if "tuned" in one] == ["unet: tuned for this machine"]


def test_the_vae_for_tiles_is_tuned_only_if_it_is_asked_for(checkpoint: Checkpoint) -> None:
    assert run("tune", "-m", checkpoint("sd1")).exit_code == 0
    assert tuned() == Counter(PLAIN)


@pytest.fixture(scope="module")
def int8(session_cache: Path, made_once: MadeOnce) -> Path:
    export = partial(
        export_model,
        None,
        architecture="tiny",
        random_weights=0,
        dtype="int8",
        guidance_scale=1,
        calibration_prompts=("a cat on a table", "a red house", "an old man"),
    )
    return made_once("int8", lambda folder: export(output=folder))


def test_a_tuned_model_in_int8_makes_the_same_images(int8: Path) -> None:
    plain = made(int8, [], tune=False)
    assert run("tune", "-m", int8).exit_code == 0
    assert tuned() == Counter(PLAIN)
    said: list[str] = []
    np.testing.assert_array_equal(made(int8, said, tune=True), plain)
    assert [one for one in said if "tuned" in one] == []


def test_an_export_can_tune_the_model(checkpoint: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    done = run("export", checkpoint("sd1"), "-o", folder, "--tune")
    assert (done.exit_code, done.stdout) == (0, f"{folder}\n"), done.stderr
    assert f"{folder}: 4 graphs are tuned, " in done.stderr
    assert {folder / name / "model.onnx" for name in PLAIN} == {one.of for one in every_tuned_graph()}


def test_an_export_that_cannot_be_tuned_is_there_all_the_same(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sdrt.onnx.tuned._LEFT_FREE", 10**18)
    done = run("export", checkpoint("sd1"), "-o", tmp_path / "model", "--tune")
    assert (done.exit_code, done.stdout) == (1, f"{tmp_path / 'model'}\n")
    assert "0 graphs are tuned, and 4 could not be: " in done.stderr.splitlines()[-1]


def test_a_model_for_cuda_is_not_tuned(checkpoint: Checkpoint, tmp_path: Path) -> None:
    done = run("export", checkpoint("sd1"), "-o", tmp_path / "model", "--tune", "--target", "cuda")
    assert done.exit_code == 2
    assert "--tune is given with --target cuda" in done.stderr
    assert not (tmp_path / "model").exists()


def test_a_checkpoint_that_is_replaced_while_it_is_tuned_is_not_kept(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    shutil.copytree(checkpoint("sd1"), model)
    (unet,) = (model / "unet").glob("*.safetensors")
    compare = tuning._gives_the_same

    def replacing(*given: Any) -> bool:
        shutil.copy2(unet, tmp_path / "other")
        (tmp_path / "other").replace(unet)
        return compare(*given)

    monkeypatch.setattr(tuning, "_gives_the_same", replacing)
    done = run("tune", "-m", model)
    assert done.exit_code == 1
    assert f"unet: not tuned for this machine: {unet} changed while it was in use" in done.stderr
    assert "unet" not in tuned()
