"""Stage 3: trains the U-Net together with the text encoder. ``python -m sdrt_models.shapes.train_unet WORK``

The U-Net predicts v (arXiv:2202.00512) at noise levels distributed as in EDM (arXiv:2206.00364). A tenth of the
captions are empty, for classifier-free guidance (arXiv:2207.12598). A linear head also learns to read what is where
from the U-Net's coarse features. The drawing program knows the answer, so this is representation alignment
(arXiv:2410.06940) with the truth instead of a teacher. The head is discarded after training.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from PIL import Image
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizerFast

from sdrt_models.shapes.architecture import SCHEDULER, UNET
from sdrt_models.shapes.captions import caption
from sdrt_models.shapes.drawing import SIZE, draw_scene, figure_mask, place_things
from sdrt_models.shapes.noise import Noise, latents_of, moments_of, token_ids
from sdrt_models.shapes.scenes import COLOURS, FILLS, SHAPES, SIZES, Scene, sample_scene
from sdrt_models.shapes.training import Stage, device_option, made_by, sheet, train, work_argument

__all__ = ["main"]

_DROPOUT = 0.1
_MAP_WEIGHT = 0.1
_MAP = 8
_MAP_VALUES = (*COLOURS, *SHAPES, *SIZES, *FILLS)
_SEED = 21
_SHOWN = 24


class _Conditional(nn.Module):
    """The modules to train: a U-Net, its text encoder, and the head that reads the first up block."""

    def __init__(self, unet: UNet2DConditionModel, text_encoder: CLIPTextModel) -> None:
        super().__init__()
        self.unet = unet
        self.text_encoder = text_encoder
        self.head = nn.Conv2d(unet.config.block_out_channels[-1], len(_MAP_VALUES), 1)

    def forward(
        self, x: torch.Tensor, timestep: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicted v, like ``x``, and the maps' logits, (n, values, 8, 8)."""
        hidden = self.text_encoder(input_ids=ids).last_hidden_state
        features: list[torch.Tensor] = []
        hook = self.unet.up_blocks[0].register_forward_hook(lambda _block, _inputs, out: features.append(out))
        v = self.unet(x, timestep, hidden).sample
        hook.remove()
        return v, self.head(features[0])


@click.command()
@work_argument
@click.option("--steps", type=click.IntRange(min=1), default=10_500, show_default=True)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=36_000,
    show_default=True,
    help="How many images to draw and encode, once.",
)
@click.option("--batch", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--learning-rate", default=8e-4, show_default=True)
@device_option
def main(work: Path, steps: int, images: int, batch: int, learning_rate: float, device: str) -> None:
    """Encode a training set and train the U-Net on it. Write WORK/unet and WORK/text_encoder_trained."""
    text_encoder = CLIPTextModel.from_pretrained(made_by("train_text_encoder", work / "text_encoder"))
    vae = (
        AutoencoderKL.from_pretrained(made_by("train_vae", work / "vae"))
        .to(device)
        .eval()
        .requires_grad_(False)
    )
    tokenizer = CLIPTokenizerFast.from_pretrained(made_by("train_text_encoder", work / "tokenizer"))
    examples = _examples(vae, images, work, device)
    task = _Task(examples=examples, vae=vae, tokenizer=tokenizer, batch=batch, device=device)
    torch.manual_seed(0)
    (work / "prompts.txt").write_text("\n".join(_prompts(_SHOWN)) + "\n", encoding="utf-8")
    unet = UNet2DConditionModel(**UNET).to(memory_format=torch.channels_last)
    stage = Stage(
        model=_Conditional(unet, text_encoder),
        loss=task.loss,
        sample=task.sample,
        folder=work / "unet-training",
        data=f"{examples.name}, batch {batch}",
        steps=steps,
        learning_rate=learning_rate,
        # With a rate that falls to zero early, the model draws colours only with the shapes of the training.
        last_rate=0.3,
        cooldown=steps // 7,
        device=device,
    )
    model = train(stage)
    model.unet.save_pretrained(work / "unet")
    model.text_encoder.save_pretrained(work / "text_encoder_trained")


@dataclass(frozen=True, kw_only=True)
class _Examples:
    """The training set: scenes, the latents of their images, and maps of what is where."""

    scenes: list[Scene]
    moments: torch.Tensor  # mean and log-variance, (count, 8, 16, 16) float16
    maps: torch.Tensor  # (count, values, 8, 8) float16
    name: str


class _Task:
    """What the U-Net learns: v of noisy latents, and what lies where in them."""

    def __init__(
        self,
        *,
        examples: _Examples,
        vae: AutoencoderKL,
        tokenizer: CLIPTokenizerFast,
        batch: int,
        device: str,
    ) -> None:
        self._examples, self._vae, self._tokenizer = examples, vae, tokenizer
        self._batch, self._device = batch, device
        self._noise = Noise(device)

    def loss(self, model: Any, step: int, rng: np.random.Generator) -> torch.Tensor:
        """The loss of ``model`` on a batch that ``rng`` draws."""
        scenes, device = self._examples.scenes, self._device
        indices = rng.integers(len(scenes), size=self._batch)
        chosen = torch.from_numpy(indices)
        x_0 = latents_of(self._examples.moments[chosen].to(device), self._vae.config.scaling_factor)
        texts = ["" if rng.random() < _DROPOUT else caption(scenes[index], rng) for index in indices]
        noisy = self._noise.add(x_0, rng)
        predicted, logits = model(noisy.x, noisy.timestep, token_ids(self._tokenizer, texts, device))
        maps = self._examples.maps[chosen].to(device).float()
        missed = nn.functional.binary_cross_entropy_with_logits(logits, maps, reduction="none")
        return noisy.loss(predicted, _MAP_WEIGHT * missed.sum(1).mean((1, 2)))

    def sample(self, model: Any) -> Image.Image:
        """A sheet of what ``model`` draws for captions of held-out scenes."""
        ids = token_ids(self._tokenizer, [*_prompts(_SHOWN), *[""] * _SHOWN], self._device)
        return sheet(_generate(model, self._vae, ids), columns=8)


def _examples(vae: AutoencoderKL, count: int, work: Path, device: str) -> _Examples:
    """Draw and encode ``count`` images. WORK keeps the latents for this autoencoder."""
    weights = (work / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    name = f"examples-{count}-{hashlib.sha256(weights).hexdigest()[:12]}"
    path = work / f"{name}.npz"
    scenes = [sample_scene(_example_rng(index)) for index in range(count)]
    if not path.is_file():
        drawn = np.stack([_maps(index) for index in range(count)]).astype(np.float16)
        partial = path.with_name("examples.partial.npz")
        np.savez(
            partial, moments=moments_of(vae, (_image(index) for index in range(count)), device), maps=drawn
        )
        partial.replace(path)
        click.echo(f"drew and encoded {count} images")
    kept = np.load(path)
    moments, maps = (torch.from_numpy(kept[key]) for key in ("moments", "maps"))
    return _Examples(scenes=scenes, moments=moments, maps=maps, name=name)


def _example_rng(index: int) -> np.random.Generator:
    return np.random.default_rng((_SEED, index))


def _image(index: int) -> np.ndarray:
    rng = _example_rng(index)
    return np.asarray(draw_scene(sample_scene(rng), rng))


def _maps(index: int) -> np.ndarray:
    """The share of each cell that each colour, shape, size and fill covers: (values, 8, 8), from 0 to 1."""
    rng = _example_rng(index)
    scene = sample_scene(rng)
    maps = np.zeros((len(_MAP_VALUES), _MAP, _MAP), np.float32)
    cell = SIZE // _MAP
    for thing, place in zip(scene.things, place_things(scene, rng), strict=True):
        cover = figure_mask(thing.shape, place).reshape(_MAP, cell, _MAP, cell).mean((1, 3))
        for value in (thing.colour, thing.shape, thing.size, thing.fill):
            maps[_MAP_VALUES.index(value)] += cover
    return maps


def _prompts(count: int) -> list[str]:
    """Captions of held-out scenes."""

    def held_out(index: int) -> tuple[Scene, np.random.Generator]:
        rng = np.random.default_rng((_SEED + 1, index))
        return sample_scene(rng, held_out=True), rng

    return [caption(scene, rng, complete=True) for scene, rng in map(held_out, range(count))]


@torch.no_grad()
def _generate(model: Any, vae: AutoencoderKL, ids: torch.Tensor, guidance: float = 7.5) -> np.ndarray:
    """Images with 20 steps of DPM++ 2M. ``ids`` has the prompts, then as many empty ones."""
    scheduler = DPMSolverMultistepScheduler.from_config(SCHEDULER)
    scheduler.set_timesteps(20)
    hidden = model.text_encoder(input_ids=ids).last_hidden_state
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((len(ids) // 2, 4, 16, 16), generator=generator).to(ids.device)
    for timestep in scheduler.timesteps:
        v, unguided = model.unet(torch.cat([x, x]), timestep, hidden).sample.chunk(2)
        x = scheduler.step(unguided + guidance * (v - unguided), timestep, x).prev_sample
    decoded = vae.decode(x / vae.config.scaling_factor).sample
    return np.asarray((decoded.permute(0, 2, 3, 1) * 127.5 + 127.5).round().clamp(0, 255).byte().cpu())


if __name__ == "__main__":
    main()
