"""T2I-Adapters: in exported folders, beside them and directly, in every task, by the options of ControlNets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from sdrt import SdrtError, StableDiffusionPipeline
from sdrt.cli import main
from sdrt.errors import RequestError, UnsupportedModelError
from sdrt.images.metadata import Parameters, read_parameters
from sdrt.onnx.session import Component
from sdrt_export import export_model
from tests.export.control.images import control_image, made
from tests.made_once import MadeOnce
from tests.parity.t2i_adapters import write_adapter

Checkpoint = Callable[[str], Path]
GIVEN: dict[str, Any] = {"control_image": control_image()}
ROUNDING = 1e-4


@pytest.fixture(scope="session")
def adapters(made_once: MadeOnce) -> list[Path]:
    """Two T2I-Adapters for the checkpoint sd1. Not to be written to."""
    return [
        made_once(f"control/t2i-{kind}", lambda folder, kind=kind: write_adapter(folder, kind))
        for kind in ("sd1", "sd1-grey")
    ]


@pytest.fixture(scope="module")
def alone(plain: Path, adapters: list[Path]) -> np.ndarray:
    return made(plain, adapters[:1], **GIVEN)


@pytest.mark.full
@pytest.mark.parametrize("target", ["cpu", "portable"])
def test_folders_and_checkpoints_make_the_same(
    target: str,
    checkpoint: Checkpoint,
    plain: Path,
    adapters: list[Path],
    controlnets: list[Path],
    tmp_path: Path,
) -> None:
    nets, call = [adapters[0], controlnets[0], adapters[1]], {"control_image": [control_image()] * 3}
    direct = made(checkpoint("sd1"), nets, **call)
    np.testing.assert_array_equal(made(plain, nets, **call), direct)
    export_model(
        checkpoint("sd1"), tmp_path / "model", target=target, controlnet=nets, verify=target == "portable"
    )
    found = made(tmp_path / "model", [], **call)
    assert np.abs(found - direct).max() <= (0 if target == "cpu" else ROUNDING)
    assert np.abs(found - made(plain, [adapters[0]], **GIVEN)).max() > 0.01
    files = json.loads((tmp_path / "model" / "sdrt.json").read_text())["files"]
    assert "unet/controlled_featured.onnx" in files
    assert json.loads((tmp_path / "model" / "controlnet" / "config.json").read_text())["channels"] == [16, 32]


def test_a_folder_for_cuda_has_the_graphs(
    checkpoint: Checkpoint, adapters: list[Path], tmp_path: Path
) -> None:
    export_model(checkpoint("sd1"), tmp_path / "model", target="cuda", controlnet=adapters[:1])
    names = {path.name for path in (tmp_path / "model" / "unet").iterdir()}
    assert {"featured.onnx", "featured_fp32.onnx"} <= names
    assert "controlled.onnx" not in names


def test_it_runs_once_for_an_image(
    plain: Path, adapters: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in every step, not for every row of the batch, and not for every image of a prompt."""
    runs, execute = [], Component.execute
    monkeypatch.setattr(
        Component, "execute", lambda self, bound: (runs.append(self.name), execute(self, bound))[1]
    )
    made(plain, adapters[:1], num_inference_steps=4, num_images_per_prompt=2, **GIVEN)
    assert runs.count("controlnet") == 1
    assert runs.count("unet") >= 4
    runs.clear()
    # Each of four tiles is a part of it.
    made(plain, adapters[:1], num_inference_steps=4, tile_size=40, tile_overlap=8, **GIVEN)
    assert runs.count("controlnet") == 4


def test_a_scale_of_zero_and_a_share_of_the_steps(
    plain: Path, adapters: list[Path], alone: np.ndarray
) -> None:
    size = {"height": 48, "width": 64}
    without = made(plain, [], **size)
    assert np.abs(alone - without).max() > 0.01
    off = made(plain, adapters[:1], controlnet_conditioning_scale=0.0, **GIVEN)
    np.testing.assert_array_equal(off, without)
    # The graph that adds zeros makes the same image.
    np.testing.assert_allclose(
        made(plain, adapters[:1], control_guidance_start=0.9, **GIVEN), without, atol=ROUNDING
    )
    half = made(plain, adapters[:1], control_guidance_end=0.5, **GIVEN)
    assert min(np.abs(half - other).max() for other in (alone, without)) > 1e-3


def test_each_prompt_has_its_own_image(plain: Path, adapters: list[Path]) -> None:
    """Also with several images of each. diffusers mixes them up."""

    def call(prompts: list[str], images: list[Image.Image]) -> np.ndarray:
        with StableDiffusionPipeline.from_pretrained(
            plain, controlnet=adapters[:1], provider="cpu", notify=lambda _: None
        ) as pipeline:
            found = pipeline(
                prompts,
                control_image=images,
                num_inference_steps=2,
                num_images_per_prompt=2,
                seed=[3, 4] * len(prompts),
                output_type="np",
            )
            return np.asarray(found.images)

    other = control_image().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    both = call(["a", "b"], [control_image(), other])
    np.testing.assert_allclose(both[:2], call(["a"], [control_image()]), atol=ROUNDING)
    np.testing.assert_allclose(both[2:], call(["b"], [other]), atol=ROUNDING)


def test_tiles_and_low_vram_see_their_own_part(plain: Path, adapters: list[Path], alone: np.ndarray) -> None:
    with StableDiffusionPipeline.from_pretrained(
        plain, controlnet=adapters[:1], provider="cpu", low_vram=True, notify=lambda _: None
    ) as pipeline:
        low = pipeline("a red circle", num_inference_steps=2, seed=0, output_type="np", **GIVEN).images
    np.testing.assert_allclose(low, alone, atol=ROUNDING)
    np.testing.assert_allclose(made(plain, adapters[:1], tile_size=64, **GIVEN), alone, atol=ROUNDING)
    assert np.abs(made(plain, adapters[:1], tile_size=32, **GIVEN) - alone).max() > 1e-3


def tasks() -> dict[str, dict[str, Any]]:
    image, mask = Image.new("RGB", (64, 48), (200, 120, 40)), Image.new("L", (64, 48))
    ImageDraw.Draw(mask).rectangle((8, 8, 40, 40), fill=255)
    return {
        "image": {"image": image},
        "mask": {"image": image, "mask_image": mask},
        "cropped mask": {"image": image, "mask_image": mask, "padding_mask_crop": 4},
        "hires": {"hires_scale": 1.5},
        "outpaint": {"image": image, "outpaint": "right=16"},
    }


@pytest.mark.parametrize("task", tasks())
def test_every_task(task: str, plain: Path, adapters: list[Path]) -> None:
    """The usual scale is 1, also where diffusers' ControlNets have another."""
    call = {**GIVEN, **tasks()[task]}
    found = made(plain, adapters[:1], **call)
    np.testing.assert_array_equal(made(plain, adapters[:1], controlnet_conditioning_scale=1.0, **call), found)
    assert np.abs(made(plain, adapters[:1], controlnet_conditioning_scale=0.3, **call) - found).max() > 1e-3


def weighted(folder: Path, weights: list[float], path: Path) -> Path:
    """The same light adapter with weaker features, whose next levels see what they saw before."""
    module = diffusers.T2IAdapter.from_pretrained(folder)
    levels = module.adapter.body
    with torch.no_grad():
        for index, weight in enumerate(weights):
            levels[index].out_conv.weight.mul_(weight)
            levels[index].out_conv.bias.mul_(weight)
            if index + 1 < len(levels):
                levels[index + 1].in_conv.weight.div_(weight)
    module.save_pretrained(path)
    return path


def test_the_control_modes(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """The weights are those of sd-webui-controlnet 1.1.455 (`hook.py`) for T2I-Adapters."""
    source, net = checkpoint("sd2"), write_adapter(tmp_path / "net", "sd2-light")
    soft = weighted(net, [0.25, 0.62, 0.825], tmp_path / "soft")
    call = {**GIVEN, "controlnet_conditioning_scale": 3.0}
    prompt, control = (made(source, [net], control_mode=mode, **call) for mode in ("prompt", "control"))
    np.testing.assert_allclose(prompt, made(source, [soft], **call), atol=ROUNDING)
    assert np.abs(prompt - made(source, [net], **call)).max() > 0.01
    # Without guidance there is only the half with the prompt.
    assert np.abs(prompt - control).max() > 0.005
    call["guidance_scale"] = 1.0
    found = [made(source, [net], control_mode=mode, **call) for mode in ("prompt", "control")]
    np.testing.assert_array_equal(*found)


def test_a_coloured_image_for_an_adapter_of_greys(plain: Path, adapters: list[Path]) -> None:
    drawn = control_image()
    ImageDraw.Draw(drawn).rectangle((2, 2, 20, 20), fill=(250, 30, 90))
    found = made(plain, adapters[1:], control_image=drawn)
    np.testing.assert_array_equal(made(plain, adapters[1:], control_image=drawn.convert("L")), found)


# --- what is refused ---------------------------------------------------------------------------------------


def test_guess_mode_is_for_controlnets(plain: Path, adapters: list[Path], controlnets: list[Path]) -> None:
    message = "controlnet_2 is a T2I-Adapter: leave guess_mode out, and give control_mode 'control'"
    with pytest.raises(RequestError, match=message):
        made(plain, [controlnets[0], adapters[0]], control_image=[control_image()] * 2, guess_mode=True)


@pytest.mark.parametrize(("kind", "family"), [("xl", "SDXL"), ("sd2-light", "Stable Diffusion 1 or 2")])
def test_another_model_is_named(
    kind: str, family: str, plain: Path, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    net = write_adapter(tmp_path / "net", kind)
    message = rf"is a T2I-Adapter for {family} with .*: expected one for Stable .* with features of 16 ch"
    for source in (plain, checkpoint("sd1")):
        with pytest.raises(UnsupportedModelError, match=message):
            made(source, [net], **GIVEN)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_damaged_weights_are_one_line(
    value: float, plain: Path, checkpoint: Checkpoint, adapters: list[Path], tmp_path: Path
) -> None:
    """Of a folder and of a file, beside a model folder and beside a checkpoint, which is another file."""
    module = diffusers.T2IAdapter.from_pretrained(adapters[0])
    with torch.no_grad():
        module.adapter.body[1].resnets[0].block2.bias[0] = value
    module.save_pretrained(tmp_path)
    for source in (plain, checkpoint("sd1")):
        for net in (tmp_path, tmp_path / "diffusion_pytorch_model.safetensors"):
            message = f"^controlnet: {net}: the weight adapter.body.1.resnets.0.block2.bias contains NaN or infinity"
            with pytest.raises(SdrtError, match=message) as error:
                made(source, [net], **GIVEN)
            assert "\n" not in str(error.value)


def test_infinity_that_vanishes_on_the_way_is_found(
    plain: Path, adapters: list[Path], tmp_path: Path
) -> None:
    module = diffusers.T2IAdapter.from_pretrained(adapters[0])
    with torch.no_grad():
        module.adapter.body[0].resnets[0].block1.bias[0] = -float("inf")  # ReLU makes 0 of it
    module.save_pretrained(tmp_path)
    with pytest.raises(SdrtError, match=r"block1\.bias contains NaN or infinity"):
        made(plain, [tmp_path], **GIVEN)


def test_other_tensors_in_a_file_are_refused(plain: Path, adapters: list[Path], tmp_path: Path) -> None:
    tensors = load_file(adapters[0] / "diffusion_pytorch_model.safetensors")
    save_file(
        tensors | {f"other.{index}": torch.zeros(1) for index in range(3000)}, tmp_path / "a.safetensors"
    )
    message = (
        r"a\.safetensors is a T2I-Adapter, and also has the tensor 'other\.0' and 2999 more: expected a T2I-"
    )
    with pytest.raises(UnsupportedModelError, match=message):
        made(plain, [tmp_path / "a.safetensors"], **GIVEN)


def test_errors_about_a_config_name_its_file(
    plain: Path, checkpoint: Checkpoint, adapters: list[Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(adapters[0], tmp_path / "sketch")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"channels": "many"}))
    for source in (plain, checkpoint("sd1")):
        with pytest.raises(
            UnsupportedModelError, match=f"^controlnet: {path}: channels is 'many': expected a list"
        ) as error:
            made(source, [folder], **GIVEN)
        assert error.value.path == path
    with pytest.raises(UnsupportedModelError, match=f"^controlnet: {path}: channels is 'many'"):
        export_model(checkpoint("sd1"), tmp_path / "model", controlnet=[folder])
    path.write_text(json.dumps(config | {"downscale_factor": None}))
    np.testing.assert_array_equal(made(plain, [folder], **GIVEN), made(plain, adapters[:1], **GIVEN))


# --- the command -------------------------------------------------------------------------------------------


def opened(name: str) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image)


def test_the_command_and_its_metadata(
    plain: Path, adapters: list[Path], alone: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    control_image().save("edges.png")
    given = ["-m", str(plain), f"--controlnet={adapters[0]}", "--control-image=edges.png"]
    more = ["--steps=2", "--seed=0", "--control-preview=map.png", "-o", "a.png"]
    run = CliRunner().invoke
    result = run(main, ["generate", "a red circle", *given, *more])
    assert result.exit_code == 0, result.output
    first = opened("a.png")
    assert np.abs(first / 255 - alone[0]).max() <= 1 / 255
    assert opened("map.png").shape == (48, 64, 3)
    parameters = Parameters.parse(read_parameters(Path("a.png"))[1] or "")
    assert f"Model: {adapters[0].name}, Weight: 1" in parameters.settings["ControlNet 0"]
    assert run(main, ["generate", "--from", "a.png", *given, "-o", "b.png"]).exit_code == 0
    np.testing.assert_array_equal(opened("b.png"), first)
