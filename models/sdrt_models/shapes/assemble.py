"""Stage 4: what was trained as a diffusers checkpoint. ``python -m sdrt_models.shapes.assemble WORK``

``sdrt export WORK/shapes --dtype fp16 -o …/sdrt_models/shapes/model --force`` then makes the embedded model.
"""

from __future__ import annotations

from pathlib import Path

import click
from diffusers import (
    AutoencoderKL,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from sdrt_models.shapes.architecture import SCHEDULER

__all__ = ["main"]


@click.command()
@click.argument("work", type=click.Path(path_type=Path, file_okay=False, exists=True))
def main(work: Path) -> None:
    """Join the parts of WORK into the checkpoint WORK/shapes."""
    StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(work / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(work / "text_encoder_trained"),
        tokenizer=CLIPTokenizer.from_pretrained(work / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(work / "unet"),
        scheduler=DPMSolverMultistepScheduler.from_config(SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(work / "shapes")
    click.echo(work / "shapes")


if __name__ == "__main__":
    main()
