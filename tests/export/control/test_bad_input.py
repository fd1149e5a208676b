"""Control images of any kind, and files that are no ControlNet: they work, or one line says why not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from safetensors.torch import load_file, save_file

from sdrt import SdrtError, StableDiffusionPipeline
from sdrt.cli import main
from tests.export.control.images import control_image, made

WEIGHTS = "diffusion_pytorch_model.safetensors"
SIZE = {"width": 64, "height": 48}
CALL: dict[str, Any] = {"num_inference_steps": 2, "seed": 0, "output_type": "np", **SIZE}


@pytest.fixture(scope="module")
def pipeline(plain: Path, controlnets: list[Path]) -> Any:
    with StableDiffusionPipeline.from_pretrained(
        plain, controlnet=controlnets[:1], provider="cpu", notify=lambda _: None
    ) as made:
        yield made


def grey(level: int = 130) -> Image.Image:
    return Image.new("RGB", (64, 48), (level,) * 3)


@pytest.mark.parametrize(
    ("image", "as_rgb"),
    [
        (grey().convert("L"), grey()),
        (Image.new("1", (64, 48), 1), grey(255)),
        (Image.new("RGBA", (64, 48), (130, 130, 130, 255)), grey()),
        # Transparent pixels are white, as in A1111.
        (Image.new("RGBA", (64, 48), (130, 130, 130, 0)), grey(255)),
        (Image.new("LA", (64, 48), (130, 0)), grey(255)),
        (grey().quantize(4), grey()),
        (Image.fromarray(np.full((48, 64), 130 * 257, np.uint16)), grey()),
        (np.full((48, 64), 130, np.uint8), grey()),
        (np.full((48, 64, 3), np.float32(130 / 255)), grey()),
        (Image.new("RGB", (1, 1), (130,) * 3), grey()),
        (Image.new("RGB", (1, 100_000), (130,) * 3), grey()),
        (Image.new("RGB", (100_000, 1), (130,) * 3), grey()),
    ],
    ids=[
        *("grey", "bits", "opaque", "transparent", "grey and transparent", "palette", "16 bits", "an array"),
        *("floats", "a pixel", "tall", "wide"),
    ],
)
def test_a_control_image_may_be_of_any_kind(pipeline: Any, image: Any, as_rgb: Image.Image) -> None:
    found = pipeline("a", control_image=image, **CALL).images
    np.testing.assert_array_equal(found, pipeline("a", control_image=as_rgb, **CALL).images)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((48, 64, 4), np.uint8), r"shape \(48, 64, 4\): expected \(height, width, 3\)"),
        (np.zeros((1, 4, 8, 8), np.float32), r"shape \(1, 4, 8, 8\)"),
        (np.full((48, 64, 3), np.nan), "numbers outside of 0 to 1"),
        (np.zeros((48, 64, 3), np.uint16), "an array of uint16"),
        (3, "control_image is 3: expected a path"),
        ([None], "control_image is None"),
        ("edges.gone.png", "cannot be read: No such file"),
        (b"GIF89a", "control_image"),
        ([control_image()] * 2, "has 2 images, and the model has 1 ControlNet: expected one image for each"),
    ],
    ids=["RGBA array", "latents", "NaN", "uint16", "a number", "None", "missing", "cut off", "too many"],
)
def test_a_bad_control_image_is_one_line_and_changes_nothing(pipeline: Any, image: Any, message: str) -> None:
    before = pipeline("a", control_image=control_image(), **CALL).images
    with pytest.raises(SdrtError, match=message) as error:
        pipeline("a", control_image=image, **CALL)
    assert "\n" not in str(error.value)
    np.testing.assert_array_equal(pipeline("a", control_image=control_image(), **CALL).images, before)


def test_a_large_control_image_is_no_reason_for_a_large_result(pipeline: Any) -> None:
    given = {key: value for key, value in CALL.items() if key not in SIZE}
    with pytest.raises(SdrtError, match="height is 100000: expected at most"):
        pipeline("a", control_image=Image.new("RGB", (1, 100_000)), **given)


def damaged(change: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path, Path], Path]:
    def make(source: Path, folder: Path) -> Path:
        shutil.copytree(source, folder)
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)
        return folder

    return make


def configured(**values: Any) -> Callable[[Path, Path], Path]:
    def make(source: Path, folder: Path) -> Path:
        shutil.copytree(source, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | values))
        return folder

    return make


def lora(_: Path, folder: Path) -> Path:
    folder.mkdir()
    path, key = folder / "style.safetensors", "lora_unet_mid_block_attentions_0_proj_in"
    save_file({f"{key}.lora_{end}.weight": torch.zeros(2, 2) for end in ("up", "down")}, path)
    return path


def truncated(source: Path, folder: Path) -> Path:
    """A file without the network that sees the control image."""
    folder.mkdir()
    tensors = load_file(source / WEIGHTS)
    kept = {name: one for name, one in tensors.items() if "cond_embedding.conv_in" not in name}
    save_file(kept, folder / "net.safetensors")
    return folder / "net.safetensors"


def reshaped(source: Path, folder: Path) -> Path:
    folder.mkdir()
    save_file(load_file(source / WEIGHTS) | {MIDDLE: torch.zeros(3)}, folder / "net.safetensors")
    return folder / "net.safetensors"


FIRST = "controlnet_down_blocks.0.weight"
MIDDLE = "controlnet_mid_block.bias"


def test_damaged_weights_beside_a_checkpoint_name_their_file(
    checkpoint: Callable[[str], Path], controlnets: list[Path], tmp_path: Path
) -> None:
    tensors = load_file(controlnets[0] / WEIGHTS)
    tensors[MIDDLE][0] = float("nan")
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(SdrtError, match=r"a\.safetensors is damaged; download it again") as error:
        made(checkpoint("sd1"), [tmp_path / "a.safetensors"], control_image=control_image())
    assert error.value.path == tmp_path / "a.safetensors"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            damaged(lambda all_: all_[FIRST].view(-1)[:1].fill_(float("nan"))),
            "controlnet: .*sample_0' is not finite .* or .*net is damaged; download it again",
        ),
        (damaged(lambda all_: all_[MIDDLE].fill_(float("inf"))), "controlnet: output 'mid.* is not finite"),
        (damaged(lambda all_: all_.pop(FIRST)), f"the weights lack {FIRST}"),
        (damaged(lambda all_: all_.update(more=torch.zeros(2))), "the weights have more: expected only"),
        (damaged(lambda all_: all_.update({MIDDLE: torch.zeros(0)})), rf"{MIDDLE} is of shape \[0\]"),
        (configured(cross_attention_dim=64), "texts of width 64|is of shape"),
        (configured(_class_name="ControlNetUnionModel"), "is a ControlNet-Union"),
        (configured(_class_name="T2IAdapter"), "is .*: expected a key that sdrt knows"),
        (
            configured(_class_name="UNet2DConditionModel"),
            "has a UNet2DConditionModel: expected a ControlNet or T2I-Adapter: ",
        ),
        (
            configured(_class_name=None, architectures=["CLIPTextModel"]),
            "has a CLIPTextModel: expected a ControlNet or T2I-Adapter: ",
        ),
        (configured(_class_name="ControlNetXSAdapter"), "is a ControlNet-XS"),
        (
            configured(conditioning_channels=4.5),
            "controlnet: .*/net/config.json: conditioning_channels is 4.5: expected a whole number",
        ),
        (configured(act_fn="tanh"), "controlnet: .*/net/config.json: act_fn is 'tanh': expected"),
        (
            truncated,
            "net.safetensors is a ControlNet that lacks .*input_hint_block.0.weight: download it again",
        ),
        (
            reshaped,
            r"net.safetensors: the weight .* is of shape \[3\]: expected \[\d+\], as its other weights say",
        ),
        (lambda source, folder: Path("n" * 5000), "controlnet is 'nnn.*, which does not exist"),
        (lora, "style.safetensors is a LoRA: expected a ControlNet or T2I-Adapter"),
    ],
    ids=[
        *(
            "NaN",
            "infinity",
            "a weight less",
            "a weight more",
            "no values",
            "another width",
            "Union",
            "T2I-Adapter",
            "U-Net",
            "text encoder",
            "XS",
            "a number",
            "another function",
        ),
        *("no first convolution", "another shape in a file", "a long name", "LoRA"),
    ],
)
def test_a_bad_controlnet_is_one_line(
    make: Callable[[Path, Path], Path],
    message: str,
    plain: Path,
    controlnets: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = make(controlnets[0], tmp_path / "net")
    with pytest.raises(SdrtError, match=message) as error:
        made(plain, [path], control_image=control_image())
    assert "\n" not in str(error.value)
    monkeypatch.chdir(tmp_path)
    control_image().save("edges.png")
    given = ["-m", str(plain), f"--controlnet={path}", "--control-image", "edges.png", "--steps", "1"]
    result = CliRunner().invoke(main, ["generate", "a", *given, "-o", "a.png"])
    assert result.exit_code not in (0, 1)
    assert sum(line.startswith("error: ") for line in result.stderr.splitlines()) == 1
    assert not Path("a.png").exists()
