"""Stage 5: trains a small decoder for previews. ``python -m sdrt_models.shapes.train_preview WORK``

The autoencoder's latents are not linear in colour, so no linear map gives their colours. This decoder is a TAESD
(https://github.com/madebyollin/taesd) with few channels. It learns from the autoencoder's decoder what latents show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from PIL import Image
from torch.nn.functional import avg_pool2d

from sdrt_models.shapes.architecture import PREVIEW
from sdrt_models.shapes.drawing import draw_scene
from sdrt_models.shapes.scenes import sample_scene
from sdrt_models.shapes.training import Stage, device_option, made_by, sheet, train, work_argument

__all__ = ["main"]

_AT_ONCE = 16
_CELL = 8


@click.command()
@work_argument
@click.option("--steps", type=click.IntRange(min=1), default=2500, show_default=True)
@click.option(
    "--images",
    type=click.IntRange(min=_AT_ONCE),
    default=2048,
    show_default=True,
    help="How many latents to decode and learn from.",
)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@device_option
def main(work: Path, steps: int, images: int, batch: int, device: str) -> None:
    """Train the decoder on latents of WORK/vae. Write WORK/preview."""
    vae = AutoencoderKL.from_pretrained(made_by("train_vae", work / "vae")).to(device).requires_grad_(False)
    latents, decoded = _examples(vae, images, np.random.default_rng(21), device)
    held_out = [tensor.to(device) for tensor in _examples(vae, _AT_ONCE, np.random.default_rng(22), device)]

    def loss(model: Any, step: int, rng: np.random.Generator) -> torch.Tensor:
        chosen = torch.from_numpy(rng.integers(len(latents), size=batch))
        return _error(model.decoder(latents[chosen].to(device)), decoded[chosen].to(device))

    def sample(model: Any) -> Image.Image:
        made = model.decoder(held_out[0])
        click.echo(f"  held out: mean error {(made - held_out[1]).abs().mean():.4f}")
        rows = torch.stack([held_out[1], made], 1).flatten(0, 1).permute(0, 2, 3, 1)
        return sheet(np.asarray((rows * 127.5 + 127.5).round().clamp(0, 255).byte().cpu()), columns=16)

    torch.manual_seed(0)
    stage = Stage(
        model=AutoencoderTiny(**PREVIEW).to(memory_format=torch.channels_last),
        loss=loss,
        sample=sample,
        folder=work / "preview-training",
        steps=steps,
        data=f"{images} latents, batch {batch}",
        learning_rate=2e-3,
        device=device,
    )
    train(stage).save_pretrained(work / "preview")


@torch.no_grad()
def _examples(
    vae: Any, count: int, rng: np.random.Generator, device: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents [count, 4, h, w] as the U-Net has them, and what the autoencoder decodes from them.

    Half of them are mixtures, because an unfinished run's estimate is a mean of the images that are still possible.
    """
    images = np.stack([np.asarray(draw_scene(sample_scene(rng), rng)) for _ in range(count)])
    parts = torch.split(torch.from_numpy(images).permute(0, 3, 1, 2), _AT_ONCE)
    encoded = [vae.encode(part.to(device).float() / 127.5 - 1).latent_dist.sample() for part in parts]
    clean = torch.cat(encoded)
    share = torch.from_numpy(rng.uniform(0, 1, (count, 1, 1, 1)).astype(np.float32)).to(device)
    share[: count // 2] = 1
    other = clean[torch.from_numpy(rng.permutation(count)).to(device)]
    mixed = share * clean + (1 - share) * other
    decoded = torch.cat([vae.decode(part).sample.clamp(-1, 1) for part in torch.split(mixed, _AT_ONCE)])
    return (mixed * vae.config.scaling_factor).cpu(), decoded.cpu()


def _error(made: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """The error of the pixels, and that of the mean colour of each latent, which is what a preview has to show."""
    coarse = avg_pool2d(made, _CELL) - avg_pool2d(decoded, _CELL)
    return (made - decoded).abs().mean() + coarse.abs().mean() + coarse.square().mean()


if __name__ == "__main__":
    main()
