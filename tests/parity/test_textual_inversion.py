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

from sdrt import StableDiffusionPipeline
from tests.parity.image_prompts import HALF_LEVEL

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
