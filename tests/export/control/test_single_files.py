"""ControlNets on checkpoints that are one file: the latents are those of the export."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sdrt_export import export_model
from sdrt_export.checkpoints.opening import open_checkpoint
from tests.export.checkpoints.ldm_files import made as made_file
from tests.export.control.images import control_image, made
from tests.parity.checkpoints import randomise


def net_for(file: Path, folder: Path, seed: int) -> Path:
    import diffusers

    config = open_checkpoint(file).config("unet")
    unet = diffusers.UNet2DConditionModel.from_config(config)
    module = diffusers.ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(4, 6, 8))
    randomise(module, seed).save_pretrained(folder)
    return folder


def test_the_latents_of_the_export(tmp_path: Path) -> None:
    file = made_file("sd1", whole=True).saved(tmp_path / "model.safetensors")
    nets = [net_for(file, tmp_path / f"net-{seed}", seed) for seed in (1, 2)]
    export_model(file, tmp_path / "exported", controlnet=nets)
    # Random weights make images of black and white, so the latents are compared.
    given = {"control_image": [control_image()] * 2, "output_type": "latent"}
    direct = made(file, nets, **given)
    np.testing.assert_allclose(direct, made(tmp_path / "exported", [], **given), rtol=1e-4, atol=1e-4)
    alone = made(file, nets[:1], **given | {"control_image": control_image()})
    assert np.abs(direct - alone).max() > 0.01
