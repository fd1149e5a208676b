"""`--verify` compares the U-Net's graphs for image prompts with diffusers' IP-Adapters, with ControlNets too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from diffusers import ControlNetModel, UNet2DConditionModel

from sdrt.errors import ExportError
from sdrt_export.architectures import image_prompts
from sdrt_export.export import export_model
from tests.parity.checkpoints import randomise
from tests.parity.ip_adapters import adapter_file, image_encoder_folder

KINDS = ("base", "plus")


@pytest.fixture(scope="module")
def adapters(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two IP-Adapters, beside their image encoder."""
    folder = tmp_path_factory.mktemp("adapters")
    image_encoder_folder(folder / "image_encoder")
    unet = UNet2DConditionModel.from_pretrained(checkpoint("sd1"), subfolder="unet")
    paths = [folder / f"{kind}.safetensors" for kind in KINDS]
    for number, (kind, path) in enumerate(zip(KINDS, paths, strict=True)):
        adapter_file(path, unet, kind, 70 + number)
    return paths


@pytest.fixture(scope="module")
def controlnet(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("controlnet")
    unet = UNet2DConditionModel.from_pretrained(checkpoint("sd1"), subfolder="unet")
    randomise(ControlNetModel.from_unet(unet), 5).save_pretrained(folder)
    return folder


@pytest.mark.full
def test_every_graph_of_the_unet_is_compared(
    checkpoint: Callable[[str], Path], adapters: list[Path], controlnet: Path, tmp_path: Path
) -> None:
    manifest = export_model(
        checkpoint("sd1"), tmp_path / "model", ip_adapter=adapters, controlnet=[controlnet], verify=True
    )
    rows = manifest.components["unet"]["parity"]
    kinds = [
        (
            any(name.startswith("image_tokens_1") for name in row["inputs"]),
            any(name.startswith("mid_block_additional") for name in row["inputs"]),
        )
        for row in rows
    ]
    # Two sizes of each graph: model.onnx, controlled.onnx, prompted.onnx and prompted_controlled.onnx.
    assert sorted(kinds) == sorted([(one, two) for one in (False, True) for two in (False, True)] * 2)
    assert max(row["relative_error"] for row in rows) < 1e-5


def test_a_graph_that_sees_images_wrongly_is_refused(
    checkpoint: Callable[[str], Path], adapters: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def backwards(config: Any) -> dict[str, int]:
        return dict(reversed(own(config).items()))

    own = image_prompts.image_prompt_layers
    monkeypatch.setattr(image_prompts, "image_prompt_layers", backwards)
    with pytest.raises(ExportError, match="unet: output out_sample differs from torch by"):
        export_model(checkpoint("sd1"), tmp_path / "model", ip_adapter=adapters[:1], verify=True)
    assert not (tmp_path / "model").exists()
