"""diffusers' pipeline with the random weights that an export of an architecture has too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
from transformers import CLIPTokenizerFast

from sdrt_export.checkpoints.random import RandomCheckpoint
from sdrt_export.tokenizer import write_byte_tokenizer
from sdrt_export.verify.modules import load_part

__all__ = ["random_pipeline"]


def random_pipeline(architecture: str, folder: Path) -> Any:
    """A `diffusers.StableDiffusionPipeline` with the weights of seed 0. Its tokenizer's files are in `folder`."""
    source = RandomCheckpoint(architecture=architecture, seed=0)
    write_byte_tokenizer(folder / "scratch", folder / "tokenizer", 77)
    pipeline = diffusers.StableDiffusionPipeline(
        text_encoder=load_part(source, "text_encoder"),
        unet=load_part(source, "unet"),
        vae=load_part(source, "vae"),
        tokenizer=CLIPTokenizerFast.from_pretrained(folder / "tokenizer"),
        scheduler=diffusers.PNDMScheduler.from_config(source.scheduler_config()),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
