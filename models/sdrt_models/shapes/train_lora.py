"""Trains a LoRA with which the embedded model draws moons. ``python -m sdrt_models.shapes.train_lora WORK``

The model knows eight shapes, and the word "moon" is none of them. Three of four images have a moon in place of a thing.
The others are those of the first training, so that the model keeps what it knows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from torch import nn

from sdrt_models.shapes.adapter_training import Base, Examples, draw_examples, generate
from sdrt_models.shapes.captions import caption
from sdrt_models.shapes.noise import Noise, token_ids
from sdrt_models.shapes.scenes import MOON, Scene, is_held_out, sample_scene, with_moon
from sdrt_models.shapes.training import Stage, device_option, sheet, train, work_argument

__all__ = ["NAME", "main"]

NAME = "moon.safetensors"
_DROPOUT = 0.1
_SHOWN = 16
_SEED = 65
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
_CONVOLUTIONS = ("conv1", "conv2")
_OF_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@click.command()
@work_argument
@click.option("--steps", type=click.IntRange(min=1), default=2500, show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=2000, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--rank", type=click.IntRange(min=1), default=4, show_default=True)
@click.option("--learning-rate", default=2e-3, show_default=True)
@device_option
def main(
    work: Path, steps: int, images: int, batch: int, rank: int, learning_rate: float, device: str
) -> None:
    """Train the LoRA, and write WORK/moon.safetensors."""
    base = Base.restore(work, device)
    examples = draw_examples(base, images, work / f"moons-{images}.npy", _example)
    torch.manual_seed(0)
    model = _Adapted(base, rank)
    task = _Task(base, examples, batch)
    stage = Stage(
        model=model,
        loss=task.loss,
        sample=task.sample,
        data=f"{images} moons, batch {batch}, rank {rank}",
        folder=work / "lora-training",
        steps=steps,
        learning_rate=learning_rate,
        device=device,
        ema_decay=0.99,
        weight_decay=0.0,
        warmup=20,
        every=100,
        sample_every=250,
    )
    trained = train(stage)
    StableDiffusionPipeline.save_lora_weights(
        work,
        unet_lora_layers=_layers(trained.unet),
        text_encoder_lora_layers=_layers(trained.text_encoder),
        weight_name=NAME,
    )
    click.echo(f"{work / NAME}: {(work / NAME).stat().st_size} bytes")


class _Adapted(nn.Module):
    """The U-Net and the text encoder, with low-rank layers, which are all that is trained."""

    def __init__(self, base: Base, rank: int) -> None:
        super().__init__()
        self.unet, self.text_encoder = base.unet, base.text_encoder
        self.unet.add_adapter(
            LoraConfig(r=rank, lora_alpha=rank, target_modules=[*_ATTENTION, *_CONVOLUTIONS])
        )
        self.text_encoder.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=[*_OF_TEXT]))

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Predicted v."""
        hidden = self.text_encoder(input_ids=ids).last_hidden_state
        v: torch.Tensor = self.unet(x, timestep, hidden).sample
        return v


def _layers(module: Any) -> dict[str, torch.Tensor]:
    return {name: value.half() for name, value in get_peft_model_state_dict(module).items()}


def _example(index: int) -> tuple[Scene, np.random.Generator]:
    rng = np.random.default_rng((_SEED, index))
    scene = sample_scene(rng)
    while index % 4 and (not scene.things or is_held_out(scene) or not _has_moon(scene)):
        scene = _any_with_moon(rng)
    return scene, rng


def _any_with_moon(rng: np.random.Generator) -> Scene:
    scene = sample_scene(rng)
    return with_moon(scene, rng) if scene.things else scene


def _has_moon(scene: Scene) -> bool:
    return any(thing.shape == MOON for thing in scene.things)


def _shown() -> list[str]:
    """Captions of held-out scenes with a moon."""
    prompts: list[str] = []
    index = 0
    while len(prompts) < _SHOWN:
        rng = np.random.default_rng((_SEED + 1, index))
        scene = sample_scene(rng)
        if scene.things and is_held_out(moon := with_moon(scene, rng)):
            prompts.append(caption(moon, rng, complete=True))
        index += 1
    return prompts


class _Task:
    """What is learned: what a moon is."""

    def __init__(self, base: Base, examples: Examples, batch: int) -> None:
        self._base, self._examples, self._batch = base, examples, batch
        self._noise = Noise(base.device)

    def loss(self, model: Any, _: int, rng: np.random.Generator) -> torch.Tensor:
        """The loss of ``model`` on a batch that ``rng`` draws."""
        scenes = self._examples.scenes
        indices = rng.integers(len(scenes), size=self._batch)
        texts = ["" if rng.random() < _DROPOUT else caption(scenes[index], rng) for index in indices]
        noisy = self._noise.add(self._examples.batch(indices, self._base), rng)
        return noisy.loss(model(noisy.x, noisy.timestep, self._ids(texts)))

    def sample(self, model: Any) -> Image.Image:
        """A sheet of what ``model`` draws for captions of held-out scenes."""
        ids = self._ids([*_shown(), *[""] * _SHOWN])
        return sheet(generate(self._base, _SHOWN, lambda x, t: model(x, t, ids)), columns=8)

    def _ids(self, texts: list[str]) -> torch.Tensor:
        return token_ids(self._base.tokenizer, texts, self._base.device)


if __name__ == "__main__":
    main()
