"""Textual inversion against diffusers' own loader, from files in its form and in A1111's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sdrt import StableDiffusionPipeline, UnsupportedModelError
from tests.parity.image_prompts import HALF_LEVEL, given_image

# diffusers hands tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_|wrap__ must accept):DeprecationWarning")

FILES = {
    "diffusers": ({"<sea-shell>": torch.linspace(-1, 1, 32)}, None, "<sea-shell>"),
    "diffusers, three tokens": (
        {"<sea-shell>": torch.linspace(-1, 1, 96).reshape(3, 32)},
        None,
        "<sea-shell>",
    ),
    "a1111": ({"emb_params": torch.linspace(-2, 1, 64).reshape(2, 32)}, "seashell", "seashell"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("syntax", ["plain", "a1111"])
def test_images(
    sdrt_folder: Callable[[str], Path],
    diffusers_pipeline: Callable[[str], Any],
    tmp_path: Path,
    name: str,
    syntax: str,
) -> None:
    tensors, token, word = FILES[name]
    file = tmp_path / "seashell.safetensors"
    save_file(tensors, file)
    theirs = copy.deepcopy(diffusers_pipeline("sd1"))
    theirs.load_textual_inversion(str(file), token=token)
    ours = StableDiffusionPipeline.from_pretrained(sdrt_folder("sd1"), provider="cpu", notify=lambda _: None)
    assert ours.load_textual_inversion(file) == [word]
    options: dict[str, Any] = {
        "prompt": f"a photo of {word}, on the sea",
        "negative_prompt": f"blurry {word}",
        "num_inference_steps": 4,
        "output_type": "np",
    }
    expected = theirs(generator=torch.Generator("cpu").manual_seed(3), **options).images
    made = ours(seed=3, prompt_syntax=syntax, **options).images
    assert float(np.abs(made - expected).max()) <= HALF_LEVEL
    plain = ours(seed=3, **options | {"prompt": "a photo of, on the sea", "negative_prompt": "blurry"}).images
    assert float(np.abs(made - plain).max()) > 10 * HALF_LEVEL


@pytest.mark.parametrize(("variant", "widths"), [("xl-uneven", (32, 24)), ("xl-refiner", (24, 40))])
def test_sdxl_has_a_part_for_each_text_encoder(
    sdrt_folder: Callable[[str], Path],
    diffusers_pipeline: Callable[[str], Any],
    tmp_path: Path,
    variant: str,
    widths: tuple[int, int],
) -> None:
    """With configs from before transformers 4.31 (`eos_token_id` 2), transformers pools the word, not the end."""
    parts = {
        name: torch.linspace(-1, number, 2 * width).reshape(2, width)
        for number, (name, width) in enumerate(zip(("clip_l", "clip_g"), widths, strict=True), start=1)
    }
    file = tmp_path / "seashell.safetensors"
    save_file(parts, file)
    theirs = copy.deepcopy(diffusers_pipeline(variant))
    for name, suffix in (("clip_l", ""), ("clip_g", "_2")):
        if getattr(theirs, f"text_encoder{suffix}") is not None:
            theirs.load_textual_inversion(
                parts[name],
                token="seashell",
                text_encoder=getattr(theirs, f"text_encoder{suffix}"),
                tokenizer=getattr(theirs, f"tokenizer{suffix}"),
            )
    ours = StableDiffusionPipeline.from_pretrained(
        sdrt_folder(variant), provider="cpu", notify=lambda _: None
    )
    assert ours.load_textual_inversion(file) == ["seashell"]
    options: dict[str, Any] = {
        "prompt": "a photo of seashell, on the sea",
        "negative_prompt": "blurry seashell",
        "num_inference_steps": 6,
        "output_type": "np",
    }
    if variant == "xl-refiner":
        options |= {"image": given_image(64, 64), "strength": 0.7}
    expected = theirs(generator=torch.Generator("cpu").manual_seed(3), **options).images
    made = ours(seed=3, **options).images
    assert float(np.abs(made - expected).max()) <= HALF_LEVEL
    ours.unload_textual_inversion("seashell")
    assert float(np.abs(ours(seed=3, **options).images - expected).max()) > 10 * HALF_LEVEL


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["emb_params"],
            "is a textual inversion for one text encoder: expected one for SDXL, which has clip_l and",
        ),
        (["clip_l"], "has no clip_g: expected a textual inversion for SDXL"),
    ],
)
def test_sdxl_needs_both_parts(
    sdrt_folder: Callable[[str], Path], tmp_path: Path, names: list[str], message: str
) -> None:
    file = tmp_path / "seashell.safetensors"
    save_file({name: torch.linspace(-1, 1, 24) for name in names}, file)
    ours = StableDiffusionPipeline.from_pretrained(sdrt_folder("xl"), provider="cpu", notify=lambda _: None)
    with pytest.raises(UnsupportedModelError, match=message):
        ours.load_textual_inversion(file)
