"""Trains an IP-Adapter and the vision encoder that it reads. ``python -m sdrt_models.shapes.train_ip_adapter WORK``

First the encoder (CLIP's, with a width of 96) learns to say what a scene shows. Then it learns to say it of images that
are moved, turned and in other colours. Then the adapter learns to tell the U-Net what a text would say of the scene.
Last, both learn that together. The images have one thing each.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from sdrt_models.shapes.adapter_training import Base, draw_examples
from sdrt_models.shapes.architecture import IMAGE_ENCODER, IMAGE_TOKENS
from sdrt_models.shapes.likeness import WORDS, Likeness, seen, single
from sdrt_models.shapes.training import Stage, device_option, train, work_argument

__all__ = ["NAME", "main"]

NAME = "likeness.safetensors"
_ENCODER = "image_encoder"
_ENCODER_LEARNING_RATE, _REFINING_LEARNING_RATE, _COMMON_LEARNING_RATE = 1e-3, 7e-4, 2.5e-4


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
@click.option("--common-steps", type=click.IntRange(min=1), default=430, show_default=True)
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
    common_steps: int,
    images: int,
    batch: int,
    learning_rate: float,
    device: str,
) -> None:
    """Train both, and write WORK/likeness.safetensors and WORK/image_encoder."""
    base = Base.restore(work, device)
    examples = draw_examples(base, images, work / f"scenes-{images}.npy", single)
    task = Likeness(base, examples, batch, seen(encoder_images, work / f"seen-{encoder_images}.npy"))
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
    made = _trained_with_encoder(made, task, work, common_steps, settings | {"warmup": 50})
    made.reader.encoder.half().save_pretrained(work / _ENCODER)
    save_file(_tensors(made.unet), work / NAME)
    for path in (work / NAME, work / _ENCODER / "model.safetensors"):
        click.echo(f"{path}: {path.stat().st_size} bytes")


def _trained(
    made: _Prompted, task: Likeness, work: Path, steps: int, learning_rate: float, settings: dict[str, Any]
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


def _trained_with_encoder(
    made: _Prompted, task: Likeness, work: Path, steps: int, settings: dict[str, Any]
) -> Any:
    """The same, and the encoder with it."""
    return train(
        Stage(
            model=made.trainable(encoder=True),
            loss=task.common_loss,
            sample=task.sample,
            folder=work / "ip-adapter-and-encoder",
            steps=steps,
            learning_rate=_COMMON_LEARNING_RATE,
            seed=3,
            **settings,
        )
    )


class _Reader(nn.Module):
    """The vision encoder, and a head that says what it sees, which is discarded after training."""

    def __init__(self, encoder: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.projection_dim, len(WORDS))

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

    def trainable(self, *, encoder: bool = False) -> _Prompted:
        """The same, of which the adapter can be trained, and the encoder with its head if asked for."""
        self.requires_grad_(False)
        self.reader.requires_grad_(encoder)
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


if __name__ == "__main__":
    main()
