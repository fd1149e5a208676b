"""Outpainting, judged by what it shows: nothing but the background that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from sdrt import StableDiffusionPipeline
from sdrt_models.shapes.drawing import draw_scene
from sdrt_models.shapes.recognise import recognise
from sdrt_models.shapes.scenes import Scene, sample_scene

COUNT = 6


def drawings() -> list[tuple[Scene, Image.Image]]:
    """One thing each, on one shade, which the recogniser sees."""
    rng, made = np.random.default_rng(11), []
    while len(made) < COUNT:
        scene = sample_scene(rng)
        if len(scene.things) == len(scene.background.shades) == 1:
            drawing = draw_scene(scene, rng)
            if len(recognise(drawing).things) == 1:
                made.append((scene, drawing))
    return made


@pytest.mark.full
@pytest.mark.parametrize(
    ("growth", "left", "top"), [("left=64,top=32", 64, 32), ("192x192", 32, 32), ("256x128@right", 128, 0)]
)
def test_the_thing_stays_and_no_second_one_comes(growth: str, left: int, top: int) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained("shapes")
    for seed, (scene, drawing) in enumerate(drawings()):
        shade = scene.background.shades[0]
        options = {"outpaint": growth, "num_inference_steps": 15, "scheduler": "dpmpp_2m", "seed": seed}
        large = pipeline(f"a {shade} background", image=drawing, **options).images[0]  # type: ignore[arg-type]
        place = (left, top, left + drawing.width, top + drawing.height)
        np.testing.assert_array_equal(np.asarray(large.crop(place)), np.asarray(drawing))
        seen = recognise(large)
        assert (len(seen.things), seen.shades) == (1, (shade,)), f"scene {seed}"


@pytest.mark.full
def test_the_measure_sees_second_things() -> None:
    """A prompt that names a thing has it drawn again in some of the images."""
    pipeline = StableDiffusionPipeline.from_pretrained("shapes")
    found = 0
    for seed, (scene, drawing) in enumerate(drawings()):
        thing = scene.things[0]
        large = pipeline(
            f"a {thing.colour} {thing.shape}",
            image=drawing,
            outpaint="left=64,top=32",
            num_inference_steps=15,
            seed=seed,
        ).images[0]
        found += len(recognise(large).things) > 1
    assert found > 0
