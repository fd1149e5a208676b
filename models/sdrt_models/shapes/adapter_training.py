"""What the trainings of adapters share: the embedded model as torch modules, which stay as they are, and examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizerFast

from sdrt_export.restore import restore_checkpoint
from sdrt_models.shapes.architecture import SCHEDULER
from sdrt_models.shapes.captions import caption
from sdrt_models.shapes.drawing import draw_scene
from sdrt_models.shapes.noise import latents_of, moments_of, token_ids
from sdrt_models.shapes.scenes import Scene, sample_scene

__all__ = ["Base", "Examples", "draw_examples", "example", "generate", "held_out_scenes"]

_SEED = 61


@dataclass(frozen=True, kw_only=True)
class Base:
    """The parts of the embedded model, without gradients."""

    unet: UNet2DConditionModel
    text_encoder: CLIPTextModel
    vae: AutoencoderKL
    tokenizer: CLIPTokenizerFast
    device: str

    @classmethod
    def restore(cls, work: Path, device: str) -> Base:
        """Make WORK/base of the embedded model, unless it is there, and read it."""
        folder = work / "base"
        if not folder.is_dir():
            restore_checkpoint("shapes", folder)
            click.echo(f"restored the embedded model as {folder}")
        return cls(
            unet=UNet2DConditionModel.from_pretrained(folder / "unet")
            .to(device, memory_format=torch.channels_last)
            .requires_grad_(False),
            text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder")
            .to(device)
            .eval()
            .requires_grad_(False),
            vae=AutoencoderKL.from_pretrained(folder / "vae").to(device).eval().requires_grad_(False),
            tokenizer=CLIPTokenizerFast.from_pretrained(folder / "tokenizer"),
            device=device,
        )

    @torch.no_grad()
    def hidden(self, texts: list[str]) -> torch.Tensor:
        """The hidden states of ``texts``, (n, 77, 128)."""
        ids = token_ids(self.tokenizer, texts, self.device)
        states: torch.Tensor = self.text_encoder(input_ids=ids).last_hidden_state
        return states


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Scenes of the training set, and the latents of their images, (count, 8, 16, 16) float16."""

    scenes: Sequence[Scene]
    moments: torch.Tensor

    def batch(self, indices: np.ndarray, base: Base) -> torch.Tensor:
        """Samples of the latents of some images, scaled as the U-Net meets them."""
        chosen = self.moments[torch.from_numpy(indices)].to(base.device)
        return latents_of(chosen, base.vae.config.scaling_factor)


def draw_examples(
    base: Base, count: int, path: Path, one: Callable[[int], tuple[Scene, np.random.Generator]] | None = None
) -> Examples:
    """Draw and encode ``count`` scenes. The file ``path`` keeps the latents.

    ``one`` gives each scene, and the generator that draws it: by default :func:`example`.
    """
    pairs = [(one or example)(index) for index in range(count)]
    if not path.is_file():
        images = (np.asarray(draw_scene(scene, rng)) for scene, rng in pairs)
        moments = moments_of(base.vae, images, base.device)
        partial = path.with_suffix(".partial.npy")
        np.save(partial, moments)
        partial.replace(path)
        click.echo(f"drew and encoded {count} images")
    return Examples(scenes=[scene for scene, _ in pairs], moments=torch.from_numpy(np.load(path)))


def example(index: int) -> tuple[Scene, np.random.Generator]:
    """A scene of the training set, and the generator that draws it."""
    rng = np.random.default_rng((_SEED, index))
    return sample_scene(rng), rng


def held_out_scenes(count: int) -> list[tuple[str, Scene, np.random.Generator]]:
    """Scenes that the training never sees, each with a caption and the generator that draws it."""

    def one(index: int) -> tuple[str, Scene, np.random.Generator]:
        rng = np.random.default_rng((_SEED + 1, index))
        scene = sample_scene(rng, held_out=True)
        return caption(scene, rng, complete=True), scene, rng

    return [one(index) for index in range(count)]


@torch.no_grad()
def generate(
    base: Base,
    count: int,
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    guidance: float = 3.0,
) -> np.ndarray:
    """Images (count, 128, 128, 3) uint8 with 15 steps of DPM++ 2M.

    ``predict`` gives v at a timestep, for a batch that has all latents twice: with the prompts, then without.
    """
    scheduler = DPMSolverMultistepScheduler.from_config(SCHEDULER)
    scheduler.set_timesteps(15)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((count, 4, 16, 16), generator=generator).to(base.device)
    for timestep in scheduler.timesteps:
        v, unguided = predict(torch.cat([x, x]), timestep).chunk(2)
        x = scheduler.step(unguided + guidance * (v - unguided), timestep, x).prev_sample
    decoded = base.vae.decode(x / base.vae.config.scaling_factor).sample
    return np.asarray((decoded.permute(0, 2, 3, 1) * 127.5 + 127.5).round().clamp(0, 255).byte().cpu())
