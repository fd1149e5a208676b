"""SDXL without torch: token ids, embeddings, pooled embeddings and images, as recorded from diffusers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import StableDiffusionPipeline
from tests.comparison import relative_error
from tools.goldens.xl_cases import CALLS, PROMPTS, given_array

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"

SEED = 5
# float32 sums in another order; the exporter measured 2e-6 at worst on these weights.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def goldens() -> dict[str, np.ndarray]:
    with np.load(GOLDENS / "xl.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def tiny() -> Iterator[StableDiffusionPipeline]:
    folder = GOLDENS.parent / "models" / "tiny-xl"
    with StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", threads=1, notify=lambda _: None
    ) as made:
        yield made


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("index", range(len(PROMPTS)))
def test_token_ids_and_embeddings(
    tiny: StableDiffusionPipeline, goldens: dict[str, np.ndarray], index: int, number: int
) -> None:
    encoder = tiny._cache.get().text_encoder(number)
    ids = encoder.tokenizer(PROMPTS[index]).ids
    assert ids.tolist() == goldens[f"ids/{number}/{index}"].tolist()
    made = encoder.encode(PROMPTS[index])
    assert relative_error(made.embeds, goldens[f"embeds/{number}/{index}"]) < TOLERANCE
    if number == 0:
        assert made.pooled is None
    else:
        assert made.pooled is not None
        assert relative_error(made.pooled, goldens[f"pooled/{index}"]) < TOLERANCE


@pytest.mark.parametrize("name", CALLS)
def test_images(tiny: StableDiffusionPipeline, goldens: dict[str, np.ndarray], name: str) -> None:
    """At most one level of 255 apart, on images that are not flat."""
    options: dict[str, Any] = dict(CALLS[name])
    if "image" in options:
        options["image"] = given_array()
    got = np.stack([np.asarray(image) for image in tiny(seed=SEED, **options).images]).astype(np.int16)
    expected = goldens[f"image/{name}"].astype(np.int16)
    assert got.shape == expected.shape
    assert np.ptp(expected) > 100
    assert np.abs(got - expected).max() <= 1
