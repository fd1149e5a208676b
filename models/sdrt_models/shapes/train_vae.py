"""Stage 1: trains the autoencoder. ``python -m sdrt_models.shapes.train_vae WORK``"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from sdrt_models.shapes.architecture import VAE
from sdrt_models.shapes.drawing import SIZE, draw_scene
from sdrt_models.shapes.scenes import Scene, sample_scene
from sdrt_models.shapes.scoring import rates, table
from sdrt_models.shapes.training import Stage, device_option, sheet, train, work_argument

__all__ = ["main"]

_KL_WEIGHT = 3e-4
_EDGE_WEIGHT = 1.0
_CROP = 64
_WHOLE_FROM = 0.7


@click.command()
@work_argument
@click.option("--steps", type=click.IntRange(min=1), default=6500, show_default=True)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=6144,
    show_default=True,
    help="How many images to draw and crop.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=4),
    default=16,
    show_default=True,
    help="Crops of 64×64 per batch; later, a quarter as many whole images.",
)
@device_option
def main(work: Path, steps: int, images: int, batch: int, device: str) -> None:
    """Train the autoencoder on crops, then on whole images. Write WORK/vae."""
    pool = torch.from_numpy(_draw(images, seed=1))
    held_out = _as_tensor(torch.from_numpy(_draw(32, seed=2, held_out=True)), device)

    def loss(model: Any, step: int, rng: np.random.Generator) -> torch.Tensor:
        whole = step >= _WHOLE_FROM * steps
        chosen = _whole(pool, batch // 4, rng) if whole else _crops(pool, batch, rng)
        return _loss(model, _as_tensor(chosen, device))

    def sample(model: Any) -> Image.Image:
        with torch.no_grad():
            mean = model.encode(held_out).latent_dist.mode()
            decoded = model.decode(mean).sample
        click.echo(
            f"  held out: mean error {(decoded - held_out).abs().mean():.4f}, latents' std {mean.std():.3f}"
        )
        rows = torch.stack([held_out, decoded], 1).flatten(0, 1)
        return sheet(_as_images(rows), columns=16)

    torch.manual_seed(0)
    stage = Stage(
        model=AutoencoderKL(**VAE).to(memory_format=torch.channels_last),
        loss=loss,
        sample=sample,
        folder=work / "vae-training",
        steps=steps,
        data=f"{images} images, batch {batch}",
        learning_rate=1.5e-3,
        device=device,
    )
    model = train(stage)
    scaling_factor = 1 / _latent_std(model, pool[:1024], device)
    model.register_to_config(scaling_factor=round(scaling_factor, 5))
    model.save_pretrained(work / "vae")
    click.echo(f"scaling_factor {scaling_factor:.5f}; held-out images, encoded and decoded:")
    click.echo(table(rates(_reconstructed(model, 300, device))))


def _draw(count: int, *, seed: int, held_out: bool = False) -> np.ndarray:
    """Images of the training set or of the held-out set: (count, 128, 128, 3) uint8."""
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for index in range(count):
        rng = np.random.default_rng((seed, index))
        images[index] = np.asarray(draw_scene(sample_scene(rng, held_out=held_out), rng))
    return images


def _as_tensor(images: torch.Tensor, device: str) -> torch.Tensor:
    tensor = images.to(device).permute(0, 3, 1, 2).float() / 127.5 - 1
    return tensor.contiguous(memory_format=torch.channels_last)


def _as_images(tensor: torch.Tensor) -> np.ndarray:
    levels = (tensor.permute(0, 2, 3, 1) * 127.5 + 127.5).round().clamp(0, 255)
    return np.asarray(levels.byte().cpu())


def _whole(pool: torch.Tensor, count: int, rng: np.random.Generator) -> torch.Tensor:
    return pool[torch.from_numpy(rng.integers(len(pool), size=count))]


def _crops(pool: torch.Tensor, count: int, rng: np.random.Generator) -> torch.Tensor:
    """Randomly flipped random crops. Each is the more colourful of two, because most of an image is background."""

    def crop() -> torch.Tensor:
        y, x = rng.integers(SIZE - _CROP + 1, size=2)
        return pool[int(rng.integers(len(pool))), y : y + _CROP, x : x + _CROP]

    def chroma(image: torch.Tensor) -> float:
        coarse = image[::8, ::8].float()
        return float((coarse.amax(-1) - coarse.amin(-1)).mean())

    chosen = [max(crop(), crop(), key=chroma) for _ in range(count)]
    flipped = [image.flip([axis for axis in (0, 1) if rng.random() < 0.5]) for image in chosen]
    return torch.stack(flipped)


def _loss(model: Any, images: torch.Tensor) -> torch.Tensor:
    """The reconstruction error, and the divergence from a unit Gaussian."""
    posterior = model.encode(images).latent_dist
    divergence: torch.Tensor = posterior.kl().mean() / posterior.mean[0].numel()
    return _error(model.decode(posterior.sample()).sample, images) + _KL_WEIGHT * divergence


def _error(decoded: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """The absolute error of pixels and of their differences (edges)."""
    error = decoded - images
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.abs().mean() + _EDGE_WEIGHT * edges


@torch.no_grad()
def _latent_std(model: Any, images: torch.Tensor, device: str) -> float:
    """The standard deviation of posterior samples over whole images, which the U-Net is trained on."""
    latents = [
        model.encode(_as_tensor(images[first : first + 32], device)).latent_dist.sample().flatten()
        for first in range(0, len(images), 32)
    ]
    return float(torch.cat(latents).std())


@torch.no_grad()
def _reconstructed(model: Any, count: int, device: str) -> Iterator[tuple[Scene, Image.Image]]:
    """Held-out scenes, and their images encoded and decoded: the best that a U-Net can reach."""
    for index in range(count):
        rng = np.random.default_rng((3, index))
        scene = sample_scene(rng, held_out=True)
        image = torch.from_numpy(np.array(draw_scene(scene, rng))[None])
        latents = model.encode(_as_tensor(image, device)).latent_dist.sample()
        yield scene, Image.fromarray(_as_images(model.decode(latents).sample)[0])


if __name__ == "__main__":
    main()
