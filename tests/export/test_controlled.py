"""ControlNets in exported folders of every target, beside folders that were exported without, and directly."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image, ImageDraw

from sdrt import StableDiffusionPipeline
from sdrt.cli import main
from sdrt.errors import ModelNotFoundError, RequestError, UnsupportedModelError
from sdrt.images.metadata import Parameters, read_parameters
from sdrt.model_folder.embedded import embedded_path
from sdrt_export import export_model, open_direct
from tests.adapters import write_lora
from tests.parity.checkpoints import randomise

Checkpoint = Callable[[str], Path]
LEVEL = 1 / 255


def control_image() -> Image.Image:
    drawn = Image.new("RGB", (64, 48))
    ImageDraw.Draw(drawn).ellipse((10, 8, 50, 38), outline="white", width=3)
    return drawn


@pytest.fixture(scope="module")
def controlnets(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two ControlNets for the checkpoint sd1."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(checkpoint("sd1") / "unet")
    folders = []
    for number in (0, 1):
        module = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 6, 8, 10))
        folders.append(tmp_path_factory.mktemp("control") / f"net-{number}")
        randomise(module, 50 + number).save_pretrained(folders[-1])
    return folders


def made(source: Path | str, controlnets: list[Path], **options: Any) -> np.ndarray:
    with StableDiffusionPipeline.from_pretrained(
        source, controlnet=controlnets, provider="cpu", notify=lambda _: None
    ) as pipeline:
        call: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "output_type": "np", **options}
        return np.asarray(pipeline("a red circle", **call).images)


@pytest.fixture(scope="module")
def plain(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "model"
    export_model(checkpoint("sd1"), folder)
    return folder


@pytest.fixture(scope="module")
def direct(checkpoint: Checkpoint, controlnets: list[Path]) -> np.ndarray:
    return made(checkpoint("sd1"), controlnets, control_image=[control_image()] * 2)


@pytest.mark.parametrize(
    ("target", "dtype", "tolerance"),
    [("cpu", "fp32", 0.0), ("cpu", "fp16", 0.05), ("portable", "fp32", 1e-4), ("portable", "fp16", 0.05)],
)
def test_an_exported_folder(
    target: str,
    dtype: str,
    tolerance: float,
    checkpoint: Checkpoint,
    controlnets: list[Path],
    direct: np.ndarray,
    tmp_path: Path,
) -> None:
    export_model(
        checkpoint("sd1"),
        tmp_path / "model",
        target=target,
        dtype=dtype,
        controlnet=controlnets,
        verify=target == "portable",
    )
    found = made(tmp_path / "model", [], control_image=[control_image()] * 2)
    assert float(np.abs(found - direct).max()) <= tolerance
    manifest = json.loads((tmp_path / "model" / "sdrt.json").read_text())
    assert {"controlnet", "controlnet_2"} <= set(manifest["components"])
    assert "unet/controlled.onnx" in manifest["files"]
    assert "unet/controlled.onnx_data" not in manifest["files"]


def test_a_folder_for_cuda_has_the_graphs(
    checkpoint: Checkpoint, controlnets: list[Path], tmp_path: Path
) -> None:
    export_model(checkpoint("sd1"), tmp_path / "model", target="cuda", controlnet=controlnets[:1])
    names = {path.name for path in (tmp_path / "model" / "unet").iterdir()}
    assert {"controlled.onnx", "controlled_fp32.onnx", "model.onnx_data"} <= names
    assert "controlled.onnx_data" not in names
    assert (tmp_path / "model" / "controlnet" / "model_fp32.onnx").is_file()


def test_a_folder_that_was_exported_without(plain: Path, controlnets: list[Path], direct: np.ndarray) -> None:
    before = sorted(plain.rglob("*"))
    found = made(plain, controlnets, control_image=[control_image()] * 2)
    np.testing.assert_array_equal(found, direct)
    assert sorted(plain.rglob("*")) == before


def test_without_a_control_image_nothing_changes(
    plain: Path, controlnets: list[Path], checkpoint: Checkpoint
) -> None:
    np.testing.assert_array_equal(made(plain, controlnets), made(plain, []))
    np.testing.assert_array_equal(made(checkpoint("sd1"), controlnets), made(checkpoint("sd1"), []))


def test_at_a_scale_of_zero_the_image_is_that_without(plain: Path, controlnets: list[Path]) -> None:
    """The graph adds zeros, which changes no bit."""
    given: dict[str, Any] = {"control_image": control_image(), "height": 48, "width": 64}
    found = made(plain, controlnets[:1], controlnet_conditioning_scale=0.0, **given)
    np.testing.assert_array_equal(found, made(plain, [], height=48, width=64))


def test_tiles_and_low_vram_see_their_own_part(plain: Path, controlnets: list[Path]) -> None:
    call: dict[str, Any] = {"control_image": control_image(), "guess_mode": True}
    with StableDiffusionPipeline.from_pretrained(
        plain, controlnet=controlnets[:1], provider="cpu", low_vram=True, notify=lambda _: None
    ) as pipeline:
        low = pipeline("a red circle", num_inference_steps=2, seed=0, output_type="np", **call).images
    assert np.abs(np.asarray(low) - made(plain, controlnets[:1], **call)).max() < 1e-4
    # One window as large as the image is the image.
    whole = made(plain, controlnets[:1], **call)
    windows = made(plain, controlnets[:1], tile_size=64, **call)
    assert np.abs(windows - whole).max() < 1e-4
    assert np.abs(made(plain, controlnets[:1], tile_size=32, **call) - whole).max() > 1e-3


def test_loras_change_the_graph_for_controlnets(
    plain: Path, checkpoint: Checkpoint, controlnets: list[Path], direct: np.ndarray, tmp_path: Path
) -> None:
    """In a folder with that graph, in one whose graph is made in memory, and in the checkpoint itself."""
    source, folder = checkpoint("sd1"), tmp_path / "model"
    model = open_direct(source, path=source, target="cpu", name="sd1")
    lora = write_lora(tmp_path / "style.safetensors", {"unet": model.parameters("unet")}, scale=1)
    export_model(source, folder, controlnet=controlnets)
    call: dict[str, Any] = {"control_image": [control_image()] * 2, "num_inference_steps": 2, "seed": 0}
    images = []
    for where, nets in ((source, controlnets), (folder, []), (plain, controlnets)):
        with StableDiffusionPipeline.from_pretrained(
            where, controlnet=nets, provider="cpu", notify=lambda _: None
        ) as pipeline:
            before, changed, after = (
                np.asarray(pipeline("a red circle", output_type="np", **call, **more).images)
                for more in ({}, {"lora": lora}, {"lora": f"{lora}:0"})
            )
        np.testing.assert_array_equal(before, direct)
        np.testing.assert_array_equal(after, direct)
        images.append(changed)
    assert np.abs(images[0] - direct).max() > 0.02
    np.testing.assert_array_equal(images[1], images[0])
    np.testing.assert_array_equal(images[2], images[0])


def test_the_size_is_that_of_the_control_image(plain: Path, controlnets: list[Path]) -> None:
    assert made(plain, controlnets[:1], control_image=control_image()).shape == (1, 48, 64, 3)
    assert made(plain, controlnets[:1], control_image=control_image(), width=80).shape == (1, 48, 80, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"control_image has 1 image, and the model has 2 ControlNets: expected one image for each"),
        ({"control_image": []}, "control_image is an empty list"),
        ({"control_image": "missing.png"}, "control_image 'missing.png' cannot be read"),
        ({"control_image": [[1, 2], [3]]}, "lists of unequal length"),
        (
            {"control_guidance_start": 0.7, "control_guidance_end": 0.3},
            "control_guidance_start is 0.7.*less than control_guidance_end, which is 0.3",
        ),
        ({"control_guidance_end": 1.5}, "control_guidance_end"),
        ({"controlnet_conditioning_scale": [1, 2, 3]}, "has 3 numbers for 2 ControlNets"),
        ({"controlnet_conditioning_scale": "much"}, "controlnet_conditioning_scale"),
        ({"control_image": None, "guess_mode": True}, "guess_mode has no effect without control_image"),
        ({"image": control_image(), "outpaint": "left=8"}, "at most one of control_image and outpaint"),
        (
            {
                "scheduler": "dpm_adaptive",
                "control_guidance_end": 0.5,
                "control_image": [control_image()] * 2,
            },
            "this scheduler chooses its steps",
        ),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_bad_settings_are_one_line(
    options: dict[str, Any], message: str, plain: Path, controlnets: list[Path]
) -> None:
    two = [control_image()] * 2 if any("scale" in name for name in options) else control_image()
    with pytest.raises(RequestError, match=message) as error:
        made(plain, controlnets, **{"control_image": two, **options})
    assert "\n" not in str(error.value)


def test_a_model_without_a_controlnet(plain: Path) -> None:
    with pytest.raises(RequestError, match=r"this model has no ControlNet: add one with controlnet"):
        made(plain, [], control_image=control_image())


def test_a_controlnet_for_another_model(
    checkpoint: Checkpoint, controlnets: list[Path], tmp_path: Path
) -> None:
    message = "is a ControlNet for models with texts of width 32: expected one for .* 48, as sd2"
    with pytest.raises(UnsupportedModelError, match=message):
        export_model(checkpoint("sd2"), tmp_path / "model", controlnet=controlnets)
    assert not (tmp_path / "model").exists()
    with pytest.raises(UnsupportedModelError, match=message):
        made(checkpoint("sd2"), controlnets)


def test_what_no_controlnet_can_be_given_to(
    checkpoint: Checkpoint, controlnets: list[Path], tmp_path: Path
) -> None:
    for options in ({"dtype": "int8"}, {"exporter": "optimum", "target": "portable"}):
        with pytest.raises(RequestError, match="makes no graphs for ControlNets"):
            export_model(checkpoint("sd1"), tmp_path / "model", controlnet=controlnets, **options)  # type: ignore[arg-type]
    with pytest.raises(ModelNotFoundError, match="has no config"):
        made(checkpoint("sd1"), [tmp_path])
    with pytest.raises(RequestError, match="controlnet is ''"):
        made(checkpoint("sd1"), [""])  # type: ignore[list-item]


# --- the command -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    control_image().save("edges.png")
    return tmp_path


def generate(plain: Path, *options: str) -> Result:
    return CliRunner().invoke(
        main, ["generate", "a red circle", "-m", str(plain), "--steps", "2", "--seed", "0", *options]
    )


@pytest.mark.usefixtures("folder")
def test_the_command(plain: Path, controlnets: list[Path]) -> None:
    nets = [f"--controlnet={one}" for one in controlnets]
    result = generate(
        plain,
        *nets,
        *("--control-image", "edges.png", "--control-image", "edges.png", "--control-scale", "0.5,0.8"),
        *("--control-end", "0.7", "--guess-mode", "--control-preview", "map.png", "-o", "a.png"),
    )
    assert result.exit_code == 0, result.output
    found = np.asarray(Image.open("a.png"))
    wanted = made(
        plain,
        controlnets,
        control_image=[control_image()] * 2,
        controlnet_conditioning_scale=[0.5, 0.8],
        control_guidance_end=0.7,
        guess_mode=True,
        output_type="pil",
    )
    np.testing.assert_array_equal(found, wanted[0])
    # Both maps, side by side.
    np.testing.assert_array_equal(
        np.asarray(Image.open("map.png")), np.concatenate([np.asarray(control_image())] * 2, axis=1)
    )
    text = Parameters.parse(read_parameters(Path("a.png"))[1] or "").settings
    assert text["ControlNet 1"] == (
        "Module: none, Model: net-1, Weight: 0.8, Resize Mode: Just Resize, Guidance Start: 0, Guidance End: 0.7, "
        "Control Mode: ControlNet is more important"
    )
    assert list(text)[-1] == "Version"
    again = ["generate", "--from", "a.png", "-m", str(plain), "-o", "b.png"]
    refused = CliRunner().invoke(main, again)
    assert "the image was made with a ControlNet; give that one with --controlnet" in refused.stderr
    images = ["--control-image", "edges.png"] * 2
    assert CliRunner().invoke(main, [*again, *nets, *images]).exit_code == 0
    np.testing.assert_array_equal(np.asarray(Image.open("b.png")), found)
    about = CliRunner().invoke(main, [*again, "--force", "--approximate"])
    assert (about.exit_code, "ControlNet" in about.stderr) == (0, True)


@pytest.mark.usefixtures("folder")
def test_prompts_files_and_plots(plain: Path, controlnets: list[Path]) -> None:
    lines = [
        {"prompt": "a red circle", "control_image": "edges.png", "control_scale": 0.5},
        {"prompt": "a red circle", "control_image": ["edges.png"], "control_scale": [0.5]},
    ]
    Path("prompts.txt").write_text("\n".join(map(json.dumps, lines)))
    options = ["-m", str(plain), f"--controlnet={controlnets[0]}", "--steps", "2", "--seed", "0"]
    run = CliRunner().invoke
    made = run(main, ["generate", "--prompts-file", "prompts.txt", *options, "-o", "p-{index}.png"])
    assert made.exit_code == 0, made.output
    images = [np.asarray(Image.open(f"p-{index}.png")) for index in (0, 1)]
    assert images[0].shape == images[1].shape == (48, 64, 3)
    sheet = ["-x", "control_scale=0,0.5", "--control-image", "edges.png", "-o", "sheet.png"]
    assert run(main, ["plot", "a red circle", *options, *sheet]).exit_code == 0


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--control-preview", "m.png"], "--control-preview has no effect without --control-image"),
        (["--control-image", "no.png"], "'no.png' cannot be read"),
        (["--control-image", "edges.png"], "this model has no ControlNet"),
        (["--controlnet", "no.safetensors"], "--controlnet is 'no.safetensors', which does not exist"),
        (["--guess-mode"], "guess_mode has no effect without control_image"),
        (["--control-image", "-", "-i", "-"], "both read standard input"),
    ],
    ids=str,
)
def test_bad_options_are_one_line(options: list[str], message: str, plain: Path) -> None:
    result = generate(plain, *options)
    assert result.exit_code != 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]


@pytest.mark.usefixtures("folder")
def test_a_controlnet_without_an_image(plain: Path, controlnets: list[Path]) -> None:
    result = generate(plain, f"--controlnet={controlnets[0]}")
    assert result.exit_code != 0
    assert "--controlnet has no effect without --control-image" in result.stderr


def test_the_embedded_model(tmp_path: Path) -> None:
    """Its weights are in float16, and an earlier version of sdrt has stored small ones in the graph's own file."""
    config = json.loads((embedded_path("shapes") / "unet" / "config.json").read_text())  # type: ignore[operator]
    known = inspect.signature(diffusers.ControlNetModel.__init__).parameters
    module = diffusers.ControlNetModel(
        **{key: value for key, value in config.items() if key in known},
        conditioning_embedding_out_channels=(4, 6, 8, 10),
    )
    randomise(module, 7).save_pretrained(tmp_path)
    given: dict[str, Any] = {"control_image": control_image(), "height": 64, "width": 64}
    plain = made("shapes", [], height=64, width=64)
    off = made("shapes", [tmp_path], controlnet_conditioning_scale=0, **given)
    # That version's graph adds in another order, which is 1e-7 here.
    assert np.abs(off - plain).max() < 1e-5
    assert np.abs(made("shapes", [tmp_path], **given) - plain).max() > 0.02
