"""Trains a ControlNet: edges in, that scene out. ``python -m sdrt_models.shapes.train_controlnet WORK``

Half of the edges are those that ``--control-preprocessor canny`` finds, half are lines that the drawing program draws.
The ControlNet has no transformers, so it is half as large. The U-Net reads the caption.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from PIL import Image

from sdrt.images.preprocessing import preprocessed
from sdrt_models.shapes.adapter_training import (
    Base,
    Examples,
    draw_examples,
    example,
    generate,
    held_out_scenes,
)
from sdrt_models.shapes.architecture import CONTROLNET, UNET
from sdrt_models.shapes.captions import caption
from sdrt_models.shapes.drawing import draw_edges, draw_scene
from sdrt_models.shapes.noise import Noise
from sdrt_models.shapes.training import Stage, device_option, sheet, train, work_argument

__all__ = ["NAME", "main"]

NAME = "edges"
_DROPOUT = 0.5
_SHOWN = 16


@click.command()
@work_argument
@click.option("--steps", type=click.IntRange(min=1), default=3000, show_default=True)
@click.option("--images", type=click.IntRange(min=1), default=1500, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--learning-rate", default=3e-3, show_default=True)
@device_option
def main(work: Path, steps: int, images: int, batch: int, learning_rate: float, device: str) -> None:
    """Train the ControlNet, and write it to WORK/edges."""
    base = Base.restore(work, device)
    examples = draw_examples(base, images, work / f"scenes-{images}.npy")
    torch.manual_seed(0)
    task = _Task(base, examples, batch)
    stage = Stage(
        model=_begin(base.unet),
        loss=task.loss,
        sample=task.sample,
        data=f"{images} scenes, batch {batch}",
        folder=work / "controlnet-training",
        steps=steps,
        learning_rate=learning_rate,
        device=device,
        ema_decay=0.99,
        warmup=50,
        every=50,
        sample_every=200,
    )
    train(stage).half().save_pretrained(work / NAME)
    size = sum(file.stat().st_size for file in (work / NAME).iterdir())
    click.echo(f"{work / NAME}: {size} bytes")


def _begin(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet with the U-Net's weights, where it has the same layers."""
    shared = (
        "in_channels",
        "block_out_channels",
        "layers_per_block",
        "cross_attention_dim",
        "norm_num_groups",
    )
    made = ControlNetModel(**{name: UNET[name] for name in shared}, **CONTROLNET)
    weights = unet.state_dict()
    made.load_state_dict({name: weights[name] for name in made.state_dict() if name in weights}, strict=False)
    return made.to(memory_format=torch.channels_last)


@cache
def _edges(index: int) -> np.ndarray:
    """The edges (128, 128) uint8 of an example, which are kept."""
    scene, rng = example(index)
    if index % 2:
        return np.asarray(draw_edges(scene, rng).convert("L"))
    return preprocessed(np.asarray(draw_scene(scene, rng)), "canny", low=100, high=200)[..., 0]


def _control(edges: list[np.ndarray], device: str) -> torch.Tensor:
    """Control images, (n, 3, 128, 128)."""
    return torch.from_numpy(np.stack(edges)).to(device)[:, None].expand(-1, 3, -1, -1).float() / 255


class _Task:
    """What the ControlNet learns: to tell the U-Net where the edges are."""

    def __init__(self, base: Base, examples: Examples, batch: int) -> None:
        self._base, self._examples, self._batch = base, examples, batch
        self._noise = Noise(base.device)

    def loss(self, controlnet: Any, _: int, rng: np.random.Generator) -> torch.Tensor:
        """The loss of ``controlnet`` on a batch that ``rng`` draws."""
        scenes, base = self._examples.scenes, self._base
        indices = rng.integers(len(scenes), size=self._batch)
        texts = ["" if rng.random() < _DROPOUT else caption(scenes[index], rng) for index in indices]
        noisy = self._noise.add(self._examples.batch(indices, base), rng)
        control = _control([_edges(int(index)) for index in indices], base.device)
        return noisy.loss(self._predict(controlnet, noisy.x, noisy.timestep, base.hidden(texts), control))

    def _predict(
        self,
        controlnet: Any,
        x: torch.Tensor,
        timestep: torch.Tensor,
        hidden: torch.Tensor,
        control: torch.Tensor,
    ) -> torch.Tensor:
        down, middle = controlnet(x, timestep, hidden, control, return_dict=False)
        v: torch.Tensor = self._base.unet(
            x,
            timestep,
            hidden,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample
        return v

    def sample(self, controlnet: Any) -> Image.Image:
        """A sheet of edges of held-out scenes, and what the model draws with them."""
        held_out = held_out_scenes(_SHOWN)
        edges = [np.asarray(draw_edges(scene, rng).convert("L")) for _, scene, rng in held_out]
        hidden = self._base.hidden([*(text for text, _, _ in held_out), *[""] * _SHOWN])
        control = _control([*edges, *edges], self._base.device)
        made = generate(self._base, _SHOWN, lambda x, t: self._predict(controlnet, x, t, hidden, control))
        shown = np.repeat(np.stack(edges)[..., None], 3, axis=-1)
        return sheet(np.concatenate([shown, made]), columns=8)


if __name__ == "__main__":
    main()
