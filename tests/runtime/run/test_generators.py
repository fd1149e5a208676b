"""`generator=`: what is taken, and what is refused. tests/parity compares the images with diffusers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdrt import RequestError, StableDiffusionPipeline

FAST: dict[str, Any] = {"num_inference_steps": 2, "output_type": "np"}


class Drawn:
    """A generator that has what of torch's is needed, so that torch is not."""

    def __init__(self, seed: int, device: str = "cpu") -> None:
        self._seed, self.device = seed, device

    def manual_seed(self, seed: int) -> Drawn:
        self._seed = seed
        return self

    def initial_seed(self) -> int:
        return self._seed


def test_a_generator_stands_for_its_seed(pipeline: StableDiffusionPipeline) -> None:
    output = pipeline("a", generator=Drawn(0).manual_seed(7), **FAST)
    assert output.seeds == [7]
    np.testing.assert_array_equal(output.images, pipeline("a", seed=7, **FAST).images)
    assert output.metadata(0).settings["Seed"] == "7"


def test_each_image_has_its_generator(pipeline: StableDiffusionPipeline) -> None:
    output = pipeline(["a", "b"], generator=[Drawn(900), Drawn(2**40)], **FAST)
    assert output.seeds == [900, 2**40]
    np.testing.assert_allclose(output.images[1], pipeline("b", seed=2**40, **FAST).images[0], atol=1e-5)


def test_a_random_state_draws_the_latents(pipeline: StableDiffusionPipeline) -> None:
    noise = np.random.RandomState(3).randn(2, 4, 8, 8)
    options = {"num_images_per_prompt": 2, "scheduler": "ddim", **FAST}
    state = np.random.RandomState(3)
    made = pipeline("a", generator=state, **options)
    np.testing.assert_array_equal(made.images, pipeline("a", latents=noise, **options).images)
    # As in diffusers it has moved on, so that the next images differ.
    assert state.randn() != np.random.RandomState(3).randn()
    assert "RNG" not in made.metadata(0).settings


@pytest.mark.parametrize(
    ("generator", "options", "message"),
    [
        (42, {}, "generator is 42: expected a fresh torch.Generator on the CPU"),
        (np.random.default_rng(0), {}, "a numpy RandomState; or give seed="),
        ([np.random.RandomState(0)], {}, "expected a fresh torch.Generator"),
        (Drawn(0, "cuda:0"), {}, "generator is on cuda:0, which draws other noise than the CPU"),
        (Drawn(0), {"num_images_per_prompt": 2}, "generator is 1, for 2 images: expected a list"),
        ([Drawn(0)], {"num_images_per_prompt": 2}, "generator is a list of 1, for 2 images"),
        ([], {}, "generator is a list of 0, for 1 images"),
        ([None], {}, "generator is None"),
        ([Drawn(0)] * 2, {"num_images_per_prompt": 2}, "contains the same generator twice"),
        (Drawn(0), {"seed": 0}, "expected at most one of generator and seed, got both"),
        (Drawn(2**64), {}, "seed is 18446744073709551616"),
        (np.random.RandomState(0), {"scheduler": "euler_a"}, "the scheduler euler_a adds noise in each step"),
        (np.random.RandomState(0), {"scheduler": "ddim", "eta": 0.5}, "ddim adds noise in each step"),
        (np.random.RandomState(0), {"image": np.zeros((64, 64, 3))}, "the call has an image"),
        (np.random.RandomState(0), {"latents": np.zeros((1, 4, 8, 8))}, "the call has latents"),
        (np.random.RandomState(0), {"hires_scale": 2}, "hires_scale draws noise twice"),
    ],
    # Only the messages: generators and arrays have other names in every process.
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_would_make_another_image_is_refused(
    pipeline: StableDiffusionPipeline, generator: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        pipeline("a", generator=generator, **(FAST | options))
