"""`generator=` against diffusers: the same objects give the same images, or are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from sdrt import RequestError, StableDiffusionPipeline

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
LEVEL = 1 / 255
OPTIONS: dict[str, Any] = {"prompt": "a horse", "num_inference_steps": 6, "output_type": "np"}


def drawn(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator("cpu").manual_seed(seed) for seed in seeds]


@pytest.fixture
def ours(sdrt_folder: Callable[[str], Path]) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(
        sdrt_folder("sd1"), provider="cpu", threads=1, notify=lambda _: None
    )


@pytest.fixture
def theirs(diffusers_pipeline: Callable[[str], Any]) -> Any:
    return diffusers_pipeline("sd1")


@pytest.mark.parametrize("seed", [3, -5, 2**63 + 11])
def test_one_generator(ours: StableDiffusionPipeline, theirs: Any, seed: int) -> None:
    got, expected = (pipe(generator=drawn(seed)[0], **OPTIONS).images for pipe in (ours, theirs))
    assert np.abs(got - expected).max() <= LEVEL


def test_one_for_each_image_with_noise_in_each_step(ours: StableDiffusionPipeline, theirs: Any) -> None:
    before = theirs.scheduler
    changed = [diffusers.EulerAncestralDiscreteScheduler.from_config(before.config) for _ in range(2)]
    ours.scheduler, theirs.scheduler = changed
    try:
        options = OPTIONS | {"num_images_per_prompt": 3}
        got, expected = (pipe(generator=drawn(9, 4, 2**35), **options).images for pipe in (ours, theirs))
    finally:
        theirs.scheduler = before
    assert np.abs(got - expected).max() <= LEVEL


def test_a_generator_is_used_once(ours: StableDiffusionPipeline, theirs: Any) -> None:
    """diffusers continues the generator and makes another image. sdrt refuses, and does not make the same again."""
    (generator,) = drawn(3)
    first = ours(generator=generator, **OPTIONS)
    with pytest.raises(
        RequestError, match=r"has drawn numbers already.*generator\.manual_seed\(3\), or seed="
    ):
        ours(generator=generator, **OPTIONS)
    again = ours(generator=generator.manual_seed(3), **OPTIONS)
    np.testing.assert_array_equal(first.images, again.images)
    (generator,) = drawn(3)
    one, two = (theirs(generator=generator, **OPTIONS).images for _ in range(2))
    assert np.abs(one - two).max() > LEVEL


def test_a_refused_call_does_not_use_the_generator(ours: StableDiffusionPipeline) -> None:
    (generator,) = drawn(3)
    with pytest.raises(RequestError, match="height is 12"):
        ours(generator=generator, height=12, **OPTIONS)
    assert ours(generator=generator, **OPTIONS).seeds == [3]


def test_generators_that_are_not_fresh_or_not_here(ours: StableDiffusionPipeline) -> None:
    (moved,) = drawn(3)
    torch.randn(1, generator=moved)
    (restored,) = drawn(3)
    restored.set_state(moved.get_state())
    for generator in (moved, restored):
        with pytest.raises(RequestError, match="has drawn numbers already"):
            ours(generator=generator, **OPTIONS)


def test_a_random_state_is_that_of_the_onnx_pipelines(ours: StableDiffusionPipeline, theirs: Any) -> None:
    """diffusers' `OnnxStableDiffusionPipeline` draws `generator.randn(images, 4, height / 8, width / 8)`."""
    got = ours(generator=np.random.RandomState(3), num_images_per_prompt=2, **OPTIONS).images
    height, width = got.shape[1] // 8, got.shape[2] // 8
    latents = torch.from_numpy(np.random.RandomState(3).randn(2, 4, height, width).astype(np.float32))
    expected = theirs(latents=latents, num_images_per_prompt=2, **OPTIONS).images
    assert np.abs(got - expected).max() <= LEVEL
