"""Trains an IP-Adapter and the vision encoder that it reads. ``python -m sdrt_models.shapes.train_ip_adapter WORK``

First the encoder (CLIP's, with a width of 96) learns to say what a scene shows. Then it learns to say it of images that
are moved, turned and in other colours. Last, the adapter learns to tell the U-Net what a text would say of the scene.
The images have one thing each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sdrt.images.clip_input import ClipInput
from sdrt_models.shapes.adapter_training import (
    Base,
    Examples,
    draw_examples,
    generate,
    held_out_scenes,
)
from sdrt_models.shapes.architecture import IMAGE_ENCODER, IMAGE_TOKENS
from sdrt_models.shapes.captions import caption
from sdrt_models.shapes.drawing import draw_scene
from sdrt_models.shapes.noise import Noise
from sdrt_models.shapes.scenes import COLOURS, FILLS, SHADES, SHAPES, SIZES, Scene, sample_scene
from sdrt_models.shapes.training import Stage, device_option, sheet, train, work_argument
from sdrt_models.shapes.variations import in_other_colours, moved, repainted

__all__ = ["NAME", "main"]

NAME = "likeness.safetensors"
_ENCODER = "image_encoder"
_FORMS = (*SHAPES, *SIZES, *FILLS)
_PAINTS = (*COLOURS, *SHADES)
_WORDS = (*_PAINTS, *_FORMS)
_ENCODER_LEARNING_RATE, _REFINING_LEARNING_RATE = 1e-3, 7e-4
_NO_TEXT = 0.8
_NO_IMAGE = 0.1
_SHIFT = 6
_SEED = 67
_SHOWN = 16
Show = Callable[[np.ndarray, np.random.Generator], torch.Tensor]
_PREPARE = ClipInput.square(IMAGE_ENCODER["image_size"])


@click.command()
@work_argument
@click.option("--encoder-steps", type=click.IntRange(min=1), default=5000, show_default=True)
@click.option("--encoder-images", type=click.IntRange(min=1), default=24000, show_default=True)
@click.option("--refining-steps", type=click.IntRange(min=1), default=4500, show_default=True)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    default=1500,
    show_default=True,
    help="Of the adapter, three times.",
)
@click.option("--images", type=click.IntRange(min=1), default=3000, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--learning-rate", default=3e-3, show_default=True)
@device_option
def main(
    work: Path,
    encoder_steps: int,
    encoder_images: int,
    refining_steps: int,
    steps: int,
    images: int,
    batch: int,
    learning_rate: float,
    device: str,
) -> None:
    """Train both, and write WORK/likeness.safetensors and WORK/image_encoder."""
    base = Base.restore(work, device)
    examples = draw_examples(base, images, work / f"scenes-{images}.npy", _single)
    task = _Task(base, examples, batch, _seen(encoder_images, work / f"seen-{encoder_images}.npy"))
    torch.manual_seed(0)
    reader = _Reader(CLIPVisionModelWithProjection(CLIPVisionConfig(**IMAGE_ENCODER)))
    settings: dict[str, Any] = {
        "data": f"{images} scenes of {encoder_images}, batch {batch}",
        "device": device,
        "ema_decay": 0.99,
        "warmup": 100,
        "every": 100,
        "sample_every": 500,
    }
    for name, objective, count, rate in (
        ("image-encoder-training", task.reading_loss, encoder_steps, _ENCODER_LEARNING_RATE),
        ("image-encoder-refining", task.refining_loss, refining_steps, _REFINING_LEARNING_RATE),
    ):
        reader = train(
            Stage(
                model=reader.requires_grad_(True),
                loss=objective,
                sample=None,
                folder=work / name,
                steps=count,
                learning_rate=rate,
                **settings,
            )
        )
    torch.manual_seed(0)
    made = _trained(_Prompted(base.unet, reader), task, work, steps, learning_rate, settings)
    made.reader.encoder.half().save_pretrained(work / _ENCODER)
    save_file(_tensors(made.unet), work / NAME)
    for path in (work / NAME, work / _ENCODER / "model.safetensors"):
        click.echo(f"{path}: {path.stat().st_size} bytes")


def _trained(
    made: _Prompted, task: _Task, work: Path, steps: int, learning_rate: float, settings: dict[str, Any]
) -> Any:
    """The U-Net with the adapter, which is trained three times."""
    for seed, (name, rate, loss) in enumerate(
        (
            ("ip-adapter-training", 1.0, task.loss),
            ("ip-adapter-refining", 0.5, task.loss),
            ("ip-adapter-finishing", 0.5, task.finishing_loss),
        )
    ):
        made = train(
            Stage(
                model=made.trainable(),
                loss=loss,
                sample=task.sample,
                folder=work / name,
                steps=steps,
                learning_rate=rate * learning_rate,
                seed=seed,
                **settings,
            )
        )
    return made


class _Reader(nn.Module):
    """The vision encoder, and a head that says what it sees, which is discarded after training."""

    def __init__(self, encoder: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.projection_dim, len(_WORDS))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The embeddings of images, and the logits of the words."""
        embeds = self.encoder(pixels).image_embeds
        return embeds, self.head(embeds)


class _Prompted(nn.Module):
    """The U-Net with an IP-Adapter, whose weights are all that is trained of it, and the encoder."""

    def __init__(self, unet: UNet2DConditionModel, reader: _Reader) -> None:
        super().__init__()
        width = unet.config.cross_attention_dim
        projection = ImageProjection(
            image_embed_dim=IMAGE_ENCODER["projection_dim"],
            cross_attention_dim=width,
            num_image_text_embeds=IMAGE_TOKENS,
        )
        unet.set_attn_processor(_processors(unet))
        unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection])
        unet.register_to_config(encoder_hid_dim_type="ip_image_proj")
        self.unet, self.reader = unet, reader

    def trainable(self) -> _Prompted:
        """The same, of which the adapter can be trained."""
        self.requires_grad_(False)
        for part in (self.unet.encoder_hid_proj, *self.unet.attn_processors.values()):
            if isinstance(part, nn.Module):
                part.requires_grad_(True)
        return self

    def forward(
        self, x: torch.Tensor, timestep: torch.Tensor, hidden: torch.Tensor, embeds: torch.Tensor
    ) -> torch.Tensor:
        """Predicted v. An embedding of zeros stands for no image."""
        v: torch.Tensor = self.unet(
            x, timestep, hidden, added_cond_kwargs={"image_embeds": [embeds[:, None]]}
        ).sample
        return v

    @torch.no_grad()
    def without_image(self, x: torch.Tensor, timestep: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """What the U-Net predicts without the adapter."""
        adapters = [one for one in self.unet.attn_processors.values() if hasattr(one, "scale")]
        for one in adapters:
            one.scale = [0.0]
        none = torch.zeros((len(x), IMAGE_ENCODER["projection_dim"]), device=x.device)
        v: torch.Tensor = self(x, timestep, hidden, none)
        for one in adapters:
            one.scale = [1.0]
        return v


def _processors(unet: UNet2DConditionModel) -> dict[str, Any]:
    """diffusers' processors, which begin with the keys and values of the text."""
    made = dict(unet.attn_processors)
    weights = unet.state_dict()
    for name in made:
        if "attn2" in name:
            path = name.removesuffix(".processor")
            key, value = (weights[f"{path}.to_{letter}.weight"] for letter in "kv")
            made[name] = IPAdapterAttnProcessor2_0(len(key), key.shape[1], num_tokens=(IMAGE_TOKENS,))
            made[name].to_k_ip[0].weight.data.copy_(key)
            made[name].to_v_ip[0].weight.data.copy_(value)
    return made


def _tensors(unet: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """The adapter in the layout of h94's files: attentions have odd numbers, in the order of diffusers."""
    (projection,) = unet.encoder_hid_proj.image_projection_layers
    found = {
        **{f"image_proj.proj.{name}": value for name, value in projection.image_embeds.state_dict().items()},
        **{f"image_proj.norm.{name}": value for name, value in projection.norm.state_dict().items()},
    }
    for index, (name, processor) in enumerate(unet.attn_processors.items()):
        if "attn2" in name:
            found[f"ip_adapter.{index}.to_k_ip.weight"] = processor.to_k_ip[0].weight
            found[f"ip_adapter.{index}.to_v_ip.weight"] = processor.to_v_ip[0].weight
    return {name: value.detach().half().contiguous() for name, value in found.items()}


def _single(index: int) -> tuple[Scene, np.random.Generator]:
    """An example with one thing."""
    rng = np.random.default_rng((_SEED, index))
    while len((scene := sample_scene(rng)).things) != 1:
        pass
    return scene, rng


def _drawn(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(draw_scene(scene, rng))


def _seen(count: int, path: Path) -> torch.Tensor:
    """The examples as the encoder takes them, (count, 3, 64, 64). The file ``path`` keeps them."""
    if not path.is_file():
        images = [_PREPARE(_drawn(*_single(index))).astype(np.float16) for index in range(count)]
        partial = path.with_suffix(".partial.npy")
        np.save(partial, np.concatenate(images))
        partial.replace(path)
    return torch.from_numpy(np.load(path))


def _said(scene: Scene) -> np.ndarray:
    """Which words are true of a scene."""
    words = {*scene.background.shades}
    for thing in scene.things:
        words |= {thing.colour, thing.shape, thing.size, thing.fill}
    return np.array([word in words for word in _WORDS], np.float32)


class _Task:
    """What is learned of scenes with one thing. The examples are the first of the images that the encoder sees."""

    def __init__(self, base: Base, examples: Examples, batch: int, seen: torch.Tensor) -> None:
        self._base, self._examples, self._batch, self._seen = base, examples, batch, seen
        self._noise = Noise(base.device)
        self._said = torch.from_numpy(np.stack([_said(_single(index)[0]) for index in range(len(seen))]))

    def reading_loss(self, reader: Any, _: int, rng: np.random.Generator) -> torch.Tensor:
        """How far ``reader`` is from saying what images show."""
        indices = rng.integers(len(self._seen), size=8 * self._batch)
        shown, half = self._shown(indices, rng), len(indices) // 2
        # Each colour comes with some of the shapes only. So the encoder must not guess a shape by its colour.
        shown[:half] = in_other_colours(shown[:half], rng)
        logits = reader(shown)[1]
        return torch.cat(
            [self._missed(logits[:half], indices[:half], _FORMS), self._missed(logits[half:], indices[half:])]
        ).mean()

    def refining_loss(self, reader: Any, _: int, rng: np.random.Generator) -> torch.Tensor:
        """The same for images that are all moved in their own way. Forms are only asked for in other colours."""
        indices = rng.integers(len(self._seen), size=8 * self._batch)
        shown = self._moved(indices, rng)
        other = 3 * len(indices) // 4
        shown[:other] = repainted(shown[:other], rng)
        logits = reader(shown)[1]
        forms = self._missed(logits[:other], indices[:other], _FORMS)
        return torch.cat([forms, self._missed(logits[other:], indices[other:], _PAINTS)]).mean()

    def loss(self, model: Any, step: int, rng: np.random.Generator) -> torch.Tensor:
        """How far ``model`` is from what the U-Net predicts when a text says all that the images show."""
        return self._adapter_loss(model, rng, self._shown)

    def finishing_loss(self, model: Any, step: int, rng: np.random.Generator) -> torch.Tensor:
        """The same for images that are all moved in their own way."""
        return self._adapter_loss(model, rng, self._moved)

    def _adapter_loss(self, model: Any, rng: np.random.Generator, show: Show) -> torch.Tensor:
        base = self._base
        indices = rng.integers(len(self._examples.scenes), size=self._batch)
        scenes = [self._examples.scenes[index] for index in indices]
        kept = rng.random(len(indices)) >= _NO_IMAGE
        texts = ["" if rng.random() < _NO_TEXT else caption(scene, rng) for scene in scenes]
        whole = [caption(scene, rng, complete=True) for scene in scenes]
        said = [every if seen else text for every, text, seen in zip(whole, texts, kept, strict=True)]
        noisy = self._noise.add(self._examples.batch(indices, base), rng)
        embeds, _ = model.reader(show(indices, rng))
        expected = model.without_image(noisy.x, noisy.timestep, base.hidden(said))
        embeds = embeds * torch.from_numpy(kept[:, None]).to(base.device)
        predicted = model(noisy.x, noisy.timestep, base.hidden(texts), embeds)
        missed: torch.Tensor = (predicted - expected).square().mean()
        return missed

    def _shown(self, indices: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """The images of examples, moved by a few pixels and mirrored, which no word tells."""
        pixels = self._seen[torch.from_numpy(indices)].to(self._base.device).float()
        padded = nn.functional.pad(pixels, (_SHIFT,) * 4, mode="replicate")
        side = pixels.shape[-1]
        x, y = (int(value) for value in rng.integers(2 * _SHIFT + 1, size=2))
        moved = padded[..., y : y + side, x : x + side]
        return moved.flip(-1) if rng.random() < 0.5 else moved

    def _moved(self, indices: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """The images of examples, each moved in its own way."""
        return moved(self._seen[torch.from_numpy(indices)].to(self._base.device).float(), rng)

    def _missed(
        self, logits: torch.Tensor, indices: np.ndarray, words: Sequence[str] = _WORDS
    ) -> torch.Tensor:
        """How far ``logits`` are from the truth of ``words``, (n,)."""
        said = self._said[torch.from_numpy(indices)].to(logits.device)
        missed = nn.functional.binary_cross_entropy_with_logits(logits, said, reduction="none")
        total: torch.Tensor = missed[:, [_WORDS.index(word) for word in words]].sum(1)
        return total

    @torch.no_grad()
    def sample(self, model: Any) -> Image.Image:
        """A sheet of held-out images, and what the model draws with them and no text."""
        held_out = [one for one in held_out_scenes(4 * _SHOWN) if len(one[1].things) == 1][:_SHOWN]
        images = [_drawn(scene, rng) for _, scene, rng in held_out]
        pixels = torch.from_numpy(np.concatenate([_PREPARE(image) for image in images]))
        embeds, _ = model.reader(pixels.to(self._base.device))
        both = torch.cat([embeds, torch.zeros_like(embeds)])
        hidden = self._base.hidden([""] * len(both))
        made = generate(self._base, len(images), lambda x, t: model(x, t, hidden, both))
        return sheet(np.concatenate([np.stack(images), made]), columns=8)


if __name__ == "__main__":
    main()
