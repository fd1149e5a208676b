"""The linear map for previews: the best that there is for the colours that the VAE decodes."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import AutoencoderKL

from sdrt_export.preview import _blobs, fit_preview


def tiny_vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        layers_per_block=1,
        scaling_factor=0.5,
    ).eval()


def test_no_other_map_is_nearer_to_what_the_vae_decodes() -> None:
    vae = tiny_vae()
    found = np.array(fit_preview(vae))
    with torch.no_grad():
        latents = vae.encode(_blobs(24)).latent_dist.mean
        decoded = torch.nn.functional.avg_pool2d(vae.decode(latents).sample.clamp(-1, 1), 2)
    rows = (latents * 0.5).movedim(1, -1).reshape(-1, 4).numpy()
    rows = np.concatenate([rows, np.ones_like(rows[:, :1])], axis=1)
    colours = decoded.movedim(1, -1).reshape(-1, 3).numpy()

    def error(matrix: np.ndarray) -> float:
        return float(np.square(rows @ matrix - colours).sum())

    assert error(found) < np.square(colours - colours.mean(0)).sum()
    for index in np.ndindex(found.shape):
        for step in (-0.01, 0.01):
            other = found.copy()
            other[index] += step
            assert error(other) > error(found)
