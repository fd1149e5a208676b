"""Stage 2: trains the tokenizer and the text encoder. ``python -m sdrt_models.shapes.train_text_encoder WORK``

Stable Diffusion's text encoder learnt the meaning of words from captioned images before any U-Net used it (CLIP,
arXiv:2103.00020). Here, the drawing program knows what a caption says, so the encoder learns to name it. From the end
token, and from any padding token after it, linear heads read which thing comes first and which second (from the left
or the top), and what is on the left, on the right, above, below or alone. A U-Net uses the positions place by place;
with the order alone, it learnt the direction between two things, but not which is which. Without the order, the
encoder learns the positions late. The heads are discarded after training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer, CLIPTokenizerFast

from sdrt_models.shapes.architecture import TEXT_ENCODER
from sdrt_models.shapes.captions import caption
from sdrt_models.shapes.scenes import COLOURS, FILLS, OPPOSITES, SHADES, SHAPES, SIZES, Scene, sample_scene
from sdrt_models.shapes.tokenizer import train_tokenizer
from sdrt_models.shapes.training import Stage, device_option, train, work_argument

__all__ = ["main"]

_LENGTH = 48  # of 77: longer than every caption, with some padding; the training of the U-Net covers the rest
_CAPTIONS = 60_000
_NONE = "none"
_THING = {"colour": (*COLOURS,), "shape": SHAPES, "size": (*SIZES,), "fill": FILLS}
_ORDER = ("first", "second")
_PLACES = {"left of": ("left", "right"), "above": ("top", "bottom"), None: ("alone",)}
_HEADS = {
    "relation": (_NONE, "left of", "above"),
    **{
        f"{place} {key}": (_NONE, *values)
        for places in (_ORDER, *_PLACES.values())
        for place in places
        for key, values in _THING.items()
    },
    "shades": (_NONE, *(" ".join(sorted({a, b})) for a in SHADES for b in SHADES if a <= b)),
}


class _Naming(nn.Module):
    """The encoder and a linear head for each question."""

    def __init__(self, encoder: CLIPTextModel) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.config.hidden_size
        self.heads = nn.ModuleDict({name: nn.Linear(width, len(values)) for name, values in _HEADS.items()})

    def forward(self, ids: torch.Tensor, positions: torch.Tensor) -> list[torch.Tensor]:
        hidden = self.encoder(input_ids=ids).last_hidden_state
        read = hidden[torch.arange(len(ids), device=ids.device), positions]
        return [head(read) for head in self.heads.values()]


@click.command()
@work_argument
@click.option("--steps", type=click.IntRange(min=1), default=5000, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True)
@device_option
def main(work: Path, steps: int, batch: int, device: str) -> None:
    """Learn the merges, then train the text encoder. Write WORK/tokenizer and WORK/text_encoder."""
    pairs = [_captioned((11, index)) for index in range(_CAPTIONS)]
    train_tokenizer([text for text, _ in pairs], work / "tokenizer")
    tokenizer = CLIPTokenizerFast.from_pretrained(work / "tokenizer")
    ids, ends = _encode(tokenizer, [text for text, _ in pairs])
    labels = torch.tensor([label for _, label in pairs])
    held_out = [_captioned((12, index), held_out=True) for index in range(2000)]

    def loss(model: Any, step: int, rng: np.random.Generator) -> torch.Tensor:
        chosen = torch.from_numpy(rng.integers(len(ids), size=batch))
        padding = torch.from_numpy(rng.integers(_LENGTH, size=batch)).clamp(min=ends[chosen])
        positions = torch.where(torch.from_numpy(rng.random(batch) < 0.5), ends[chosen], padding)
        logits = model(ids[chosen].to(device), positions.to(device))
        return _cross_entropy(logits, labels[chosen].to(device))

    torch.manual_seed(0)
    stage = Stage(
        model=_Naming(_encoder(tokenizer)),
        loss=loss,
        sample=None,
        folder=work / "text-encoder-training",
        steps=steps,
        data=f"{_CAPTIONS} captions, batch {batch}",
        learning_rate=1e-3,
        device=device,
    )
    model = train(stage)
    click.echo(
        f"held out: {_accuracy(model, tokenizer, held_out, device):.4f} of the captions read without an error"
    )
    model.encoder.save_pretrained(work / "text_encoder")


def _encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            **TEXT_ENCODER,
            vocab_size=len(tokenizer),
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _captioned(seed: tuple[int, int], *, held_out: bool = False) -> tuple[str, list[int]]:
    """A caption and the answers to it. A caption of a held-out scene is complete."""
    rng = np.random.default_rng(seed)
    scene = sample_scene(rng, held_out=held_out)
    while not scene.things:
        scene = sample_scene(rng, held_out=held_out)
    text = caption(scene, rng, complete=held_out or rng.random() < 0.5)
    return text, _answers(scene, text)


def _answers(scene: Scene, text: str) -> list[int]:
    """The right index for each head; 0 if there is none, or if ``text`` does not mention the background.

    For the other things that ``text`` leaves open, the heads learn the frequencies.
    """
    relation, things = scene.relation, scene.things
    if relation is not None and relation not in _PLACES:
        relation, things = OPPOSITES[relation], things[::-1]
    found = {"relation": relation or _NONE}
    for places in (_ORDER, _PLACES[relation]):
        for place, thing in zip(places, things, strict=False):
            found |= {f"{place} {key}": getattr(thing, key) for key in _THING}
    if text.endswith("background"):
        shades = scene.background.shades
        found["shades"] = " ".join(sorted({shades[0], shades[-1]}))
    return [values.index(found.get(name, _NONE)) for name, values in _HEADS.items()]


def _encode(tokenizer: CLIPTokenizer, texts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (n, length) and the position of each end token (n,)."""
    ids = tokenizer(
        texts, padding="max_length", max_length=_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids, (ids == tokenizer.eos_token_id).int().argmax(-1)


def _cross_entropy(logits: list[torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
    losses = [nn.functional.cross_entropy(row, labels[:, index]) for index, row in enumerate(logits)]
    return torch.stack(losses).sum()


@torch.no_grad()
def _accuracy(model: Any, tokenizer: CLIPTokenizer, pairs: list[tuple[str, list[int]]], device: str) -> float:
    """The share of captions for which the heads read every stated colour, shape and place right."""
    ids, ends = _encode(tokenizer, [text for text, _ in pairs])
    labels = torch.tensor([label for _, label in pairs])
    logits = model(ids.to(device), ends.to(device))
    stated = [
        index for index, name in enumerate(_HEADS) if name.split()[-1] in ("relation", "colour", "shape")
    ]
    right = torch.stack([logits[index].argmax(-1).cpu() == labels[:, index] for index in stated])
    return float(right.all(0).float().mean())


if __name__ == "__main__":
    main()
