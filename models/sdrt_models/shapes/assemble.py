"""Stage 4: joins the trained parts into a diffusers checkpoint. ``python -m sdrt_models.shapes.assemble WORK``

Then ``train_preview`` makes the decoder for previews, and ``sdrt export WORK/shapes --dtype fp16 --guidance-scale 3
--taesd WORK/preview -o …/sdrt_models/shapes/model --force`` the embedded model.
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

from sdrt.errors import SdrtError
from sdrt_export.transaction import replace_folder
from sdrt_models.shapes.architecture import SCHEDULER
from sdrt_models.shapes.training import made_by

__all__ = ["main"]


@click.command()
@click.argument("work", type=click.Path(path_type=Path, file_okay=False, exists=True))
def main(work: Path) -> None:
    """Join the parts of WORK into the checkpoint WORK/shapes."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(made_by("train_vae", work / "vae")),
        text_encoder=CLIPTextModel.from_pretrained(made_by("train_unet", work / "text_encoder_trained")),
        tokenizer=CLIPTokenizer.from_pretrained(made_by("train_text_encoder", work / "tokenizer")),
        unet=UNet2DConditionModel.from_pretrained(made_by("train_unet", work / "unet")),
        scheduler=DPMSolverMultistepScheduler.from_config(SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    # This replaces the checkpoint of an earlier training.
    try:
        with replace_folder(work / "shapes", force=True) as staging:
            pipeline.save_pretrained(staging)
    except SdrtError as error:
        raise click.ClickException(str(error)) from None
    click.echo(work / "shapes")


if __name__ == "__main__":
    main()
