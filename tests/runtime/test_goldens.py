"""The parity ladder without torch: token ids, embeddings, components and images, as recorded from diffusers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import StableDiffusionPipeline
from tests.comparison import relative_error
from tools.goldens.pipeline_cases import CALLS, PROMPTS, component_inputs

GOLDENS = Path(__file__).resolve().parents[1] / "goldens"

SEED = 5
# float32 sums in another order; the exporter measured 2e-6 at worst on these weights.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def goldens() -> dict[str, np.ndarray]:
    with np.load(GOLDENS / "pipeline.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def tiny() -> Iterator[StableDiffusionPipeline]:
    folder = GOLDENS.parent / "models" / "tiny"
    with StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", threads=1, notify=lambda _: None
    ) as made:
        yield made


@pytest.mark.parametrize("index", range(len(PROMPTS)))
def test_token_ids_and_embeddings(
    tiny: StableDiffusionPipeline, goldens: dict[str, np.ndarray], index: int
) -> None:
    encoder = tiny._cache.get().text_encoder()
    assert encoder.tokenizer(PROMPTS[index]).ids.tolist() == goldens[f"ids/{index}"].tolist()
    assert relative_error(encoder([PROMPTS[index]])[0], goldens[f"embeds/{index}"]) < TOLERANCE


@pytest.mark.parametrize("name", ["unet", "vae_decoder", "vae_encoder"])
def test_components(tiny: StableDiffusionPipeline, goldens: dict[str, np.ndarray], name: str) -> None:
    from sdrt.common.notices import Notices
    from sdrt.onnx.providers import SessionConfig
    from sdrt.onnx.session import Component

    inputs = component_inputs()[name]
    component = Component(
        name, tiny.model.component(name), SessionConfig(provider="cpu", threads=1), Notices()
    )
    outputs = tuple(component.outputs)
    with component.bound({key: value.shape for key, value in inputs.items()}, outputs) as run:
        for key, value in inputs.items():
            run.set(key, value)
        assert relative_error(run()[outputs[0]], goldens[name]) < TOLERANCE


@pytest.mark.parametrize("name", CALLS)
def test_images(tiny: StableDiffusionPipeline, goldens: dict[str, np.ndarray], name: str) -> None:
    """At most one level of 255 apart, on images that are not flat."""
    options: dict[str, Any] = dict(CALLS[name])
    got = np.stack([np.asarray(image) for image in tiny(seed=SEED, **options).images]).astype(np.int16)
    expected = goldens[f"picture/{name}"].astype(np.int16)
    assert got.shape == expected.shape
    assert np.ptp(expected) > 100
    assert np.abs(got - expected).max() <= 1
