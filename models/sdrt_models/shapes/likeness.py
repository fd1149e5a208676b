"""What an IP-Adapter and its vision encoder learn of scenes with one thing: the images and the losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from sdrt.images.clip_input import ClipInput
from sdrt_models.shapes.adapter_training import Base, Examples, generate, held_out_scenes
from sdrt_models.shapes.architecture import IMAGE_ENCODER
from sdrt_models.shapes.captions import caption
from sdrt_models.shapes.drawing import draw_scene
from sdrt_models.shapes.noise import Noise
from sdrt_models.shapes.scenes import COLOURS, FILLS, SHADES, SHAPES, SIZES, Scene, sample_scene
from sdrt_models.shapes.training import sheet
from sdrt_models.shapes.variations import faded, in_other_colours, moved, repainted

__all__ = ["WORDS", "Likeness", "seen", "single"]

_FORMS = (*SHAPES, *SIZES, *FILLS)
_PAINTS = (*COLOURS, *SHADES)
WORDS = (*_PAINTS, *_FORMS)
"""What the encoder says of an image."""
_NO_TEXT = 0.8
_NO_IMAGE = 0.1
_SHIFT = 6
_READING = 0.05
_SEED = 67
_SHOWN = 16
Show = Callable[[np.ndarray, np.random.Generator], torch.Tensor]
_PREPARE = ClipInput.square(IMAGE_ENCODER["image_size"])


def single(index: int) -> tuple[Scene, np.random.Generator]:
    """An example with one thing."""
    rng = np.random.default_rng((_SEED, index))
    while len((scene := sample_scene(rng)).things) != 1:
        pass
    return scene, rng


def _drawn(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    return np.asarray(draw_scene(scene, rng))


def seen(count: int, path: Path) -> torch.Tensor:
    """The examples as the encoder takes them, (count, 3, 64, 64). The file ``path`` keeps them."""
    if not path.is_file():
        images = [_PREPARE(_drawn(*single(index))).astype(np.float16) for index in range(count)]
        partial = path.with_suffix(".partial.npy")
        np.save(partial, np.concatenate(images))
        partial.replace(path)
    return torch.from_numpy(np.load(path))


def _said(scene: Scene) -> np.ndarray:
    """Which words are true of a scene."""
    words = {*scene.background.shades}
    for thing in scene.things:
        words |= {thing.colour, thing.shape, thing.size, thing.fill}
    return np.array([word in words for word in WORDS], np.float32)


class Likeness:
    """What is learned of scenes with one thing. The examples are the first of the images that the encoder sees."""

    def __init__(self, base: Base, examples: Examples, batch: int, seen: torch.Tensor) -> None:
        self._base, self._examples, self._batch, self._seen = base, examples, batch, seen
        self._noise = Noise(base.device)
        self._said = torch.from_numpy(np.stack([_said(single(index)[0]) for index in range(len(seen))]))

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
        return self._reading(reader, rng, pale=False)

    def _reading(self, reader: Any, rng: np.random.Generator, *, pale: bool) -> torch.Tensor:
        indices = rng.integers(len(self._seen), size=8 * self._batch)
        shown = self._moved(indices, rng)
        other = 3 * len(indices) // 4
        shown[:other] = repainted(shown[:other], rng)
        if pale:
            shown[:other] = faded(shown[:other], rng)
        logits = reader(shown)[1]
        forms = self._missed(logits[:other], indices[:other], _FORMS)
        return torch.cat([forms, self._missed(logits[other:], indices[other:], _PAINTS)]).mean()

    def loss(self, model: Any, step: int, rng: np.random.Generator) -> torch.Tensor:
        """How far ``model`` is from what the U-Net predicts when a text says all that the images show."""
        return self._adapter_loss(model, rng, self._shown)

    def finishing_loss(self, model: Any, step: int, rng: np.random.Generator) -> torch.Tensor:
        """The same for images that are all moved in their own way."""
        return self._adapter_loss(model, rng, self._moved)

    def common_loss(self, model: Any, step: int, rng: np.random.Generator) -> torch.Tensor:
        """The same, and how far the encoder, which learns too, is from saying what images in pale colours show."""
        return self.finishing_loss(model, step, rng) + _READING * self._reading(model.reader, rng, pale=True)

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
        self, logits: torch.Tensor, indices: np.ndarray, words: Sequence[str] = WORDS
    ) -> torch.Tensor:
        """How far ``logits`` are from the truth of ``words``, (n,)."""
        said = self._said[torch.from_numpy(indices)].to(logits.device)
        missed = nn.functional.binary_cross_entropy_with_logits(logits, said, reduction="none")
        total: torch.Tensor = missed[:, [WORDS.index(word) for word in words]].sum(1)
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
