"""Token ids and embeddings against transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sdrt import StableDiffusionPipeline
from sdrt.text.tokenizer import Tokenizer
from tests.parity.checkpoints import VARIANTS

PROMPTS = {
    "plain": "a beautiful sunset over the sea",
    "empty": "",
    "spaces": "  a\t cat \n\n on   a mat ",
    "case": "A Photo OF an AStronaut",
    "punctuation": "it's 8k, isn't it?! (really:1.2) [x] {y} <z> ~~ -- ... !!!",
    "padding token": "a cat! on! a! mat",
    "numbers": "1234567890 35mm 3.14",
    "accents": "naïve café Ångström",
    "decomposed accents": "cafe\u0301 A\u030angstrom",
    "emoji": "a 🦊 and 🌈🌈 with 🏳",
    "special": "a <|endoftext|> b <|startoftext|>",
    "underscore": "snake_case __init__",
    "long": "castle " * 200,
    "long word": "x" * 3000,
}
# Without ftfy, transformers' slow tokenizer puts spaces around every Chinese character and drops control
# characters; the fast one, like OpenAI's original and transformers 5, does neither. We follow the fast one.
FAST_ONLY = {
    "chinese": "日本語の猫 and 中文",
    "joined emoji": "👩‍👩‍👧 with 🏳️‍🌈",
    "control": "a\u200bb \ufeffc\u00a0d",
    "korean": "고양이",
    "turkish": "İstanbul ıI",
    "greek": "ΟΔΟΣ",
}
# diffusers and transformers hand tensors to NumPy in a way that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def ours(checkpoint: Path, length: int) -> Tokenizer:
    return Tokenizer(checkpoint / "tokenizer", max_positions=length)


@pytest.mark.parametrize("fast", [False, True], ids=["slow", "fast"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_token_ids(checkpoint: Callable[[str], Path], variant: str, fast: bool) -> None:
    from transformers import CLIPTokenizer, CLIPTokenizerFast

    folder = checkpoint(variant) / "tokenizer"
    oracle = (CLIPTokenizerFast if fast else CLIPTokenizer).from_pretrained(folder)
    tokenizer = ours(folder.parent, oracle.model_max_length)
    assert tokenizer.length == oracle.model_max_length
    for name, prompt in (PROMPTS | (FAST_ONLY if fast else {})).items():
        expected = oracle(prompt, padding="max_length", truncation=True, return_tensors="np").input_ids[0]
        np.testing.assert_array_equal(tokenizer(prompt).ids, expected, err_msg=name)


@pytest.mark.full
@pytest.mark.parametrize("variant", ["sd1", "sd2", "deep", "mixed"])
def test_embeddings(
    optimum_folder: Callable[[str], Path], diffusers_pipeline: Callable[[str], Any], variant: str
) -> None:
    prompts = ["a cat on a mat", "", "castle " * 200]
    with torch.no_grad():
        expected, _ = diffusers_pipeline(variant).encode_prompt(prompts, "cpu", 1, False)
    pipeline = StableDiffusionPipeline.from_pretrained(
        optimum_folder(variant), provider="cpu", threads=1, notify=lambda message: None
    )
    embeds = pipeline._cache.get().text_encoder()(prompts)
    # Layer-normalised values of order 1; both sides compute in float32.
    np.testing.assert_allclose(embeds, expected.numpy(), atol=2e-5)
