"""Previews of the embedded model have the colours of its images: during a run and at its end."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sdrt import Request, StableDiffusionPipeline
from sdrt.run.result import GenerationStep
from sdrt_models.shapes.scenes import COLOURS

STEPS, MIDDLE = 12, 6

Levels = NDArray[np.float64]


def _nearest(colour: Levels) -> str:
    """The name whose hue is nearest, as a direction on the colour circle."""
    red, green, blue = colour
    hue = np.degrees(np.arctan2(np.sqrt(3) * (green - blue), 2 * red - green - blue))
    away = {name: abs((hue - known.hue + 180) % 360 - 180) for name, known in COLOURS.items()}
    return min(away, key=away.__getitem__)


def _thing(levels: Levels) -> NDArray[np.bool_]:
    """The pixels of the thing, which alone has a colour."""
    mask: NDArray[np.bool_] = np.ptp(levels, axis=-1) > 60
    return mask


@pytest.fixture(scope="module")
def shown() -> dict[int, dict[str, tuple[Levels, Levels]]]:
    """By step and colour: the preview, and what the VAE decodes from the same latents."""
    pipeline = StableDiffusionPipeline.from_pretrained("shapes")
    prompts = [f"a large {name} square on a white background" for name in COLOURS]
    found: dict[int, dict[str, tuple[Levels, Levels]]] = {}
    request = Request(prompt=prompts, num_inference_steps=STEPS, seed=1, output_type="np")
    decode = pipeline._cache.get().vae_decoder
    for event in pipeline.stream(request):
        if isinstance(event, GenerationStep) and (event.index == MIDDLE or event.last):
            latents = event.tensors(["denoised"])["denoised"]
            previews = [np.asarray(image).astype(float) for image in pipeline.preview(latents)]
            decoded = [decode(one).astype(float) * 255 for one in latents]
            found[event.index] = dict(zip(COLOURS, zip(previews, decoded, strict=True), strict=True))
    return found


@pytest.mark.parametrize("name", COLOURS)
def test_the_last_preview_has_the_colour_that_was_asked_for(
    shown: dict[int, dict[str, tuple[Levels, Levels]]], name: str
) -> None:
    preview, decoded = shown[STEPS - 1][name]
    thing = _thing(decoded)
    colour = preview[thing].mean(0)
    assert thing.sum() > 500
    assert _nearest(colour) == name
    # Measured: at most 26. The nearest two of the eight colours differ by 97.
    assert np.linalg.norm(colour - decoded[thing].mean(0)) < 40
    background = preview[~thing].mean(0)
    assert np.linalg.norm(background - decoded[~thing].mean(0)) < 20


@pytest.mark.parametrize("name", COLOURS)
def test_a_preview_in_the_middle_has_the_colours_of_the_decoder(
    shown: dict[int, dict[str, tuple[Levels, Levels]]], name: str
) -> None:
    preview, decoded = shown[MIDDLE][name]
    thing = _thing(decoded)
    assert thing.sum() > 100
    assert np.linalg.norm(preview[thing].mean(0) - decoded[thing].mean(0)) < 45
    assert np.abs(preview - decoded).mean() < 12
