"""Images that grow, on the tiny model."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import Request, RequestError, StableDiffusionPipeline
from sdrt.common.seeds import MAX_SEED
from sdrt.request.fitting import fit
from sdrt.run.multi_pass import grown_request, growths
from sdrt.tasks.outpainting import Growth, grown, parse_growth, passes

FAST: dict[str, Any] = {"num_inference_steps": 2, "seed": 2}


def given_image(width: int = 64, height: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("left=64,top=32", Growth(left=64, top=32)),
        (" right = 8 ", Growth(right=8)),
        ({"bottom": 5}, Growth(bottom=5)),
        ("100x60", Growth(left=18, top=6, right=18, bottom=6)),
        ("100x48@left", Growth(right=36)),
        ("64x60@bottom-right", Growth(top=12)),
        (Growth(top=1), Growth(top=1)),
    ],
)
def test_growth(value: object, expected: Growth) -> None:
    assert parse_growth(value, 64, 48) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("left", "expected pixels for sides, as in left=64,top=32"),
        ("up=5", "expected pixels for sides"),
        ("left=-5", "expected pixels for sides"),
        ("left=5px", "expected pixels for sides"),
        ("left=99999", "expected pixels for sides"),
        (5, "expected pixels for sides"),
        ({3: 4}, "expected pixels for sides"),
        ("left=0", "but the image has 64x48 pixels already"),
        ("64x48", "but the image has 64x48 pixels already"),
        ("60x60", "expected at least the image's 64x48"),
        ("100x60@middle", "no anchor 'middle': expected one of center, left"),
        ("", "expected pixels for sides"),
    ],
)
def test_growth_that_is_none(value: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_growth(value, 64, 48)


def test_passes_add_up_and_go_on_from_twice_what_they_add() -> None:
    wanted = Growth(left=300, top=10, right=40)
    width, height, total = 64, 48, np.zeros(4, int)
    for part in passes(wanted, width, height):
        assert max(part.left, part.right) <= width / 2
        assert max(part.top, part.bottom) <= height / 2
        width, height = part.of(width, height)
        total += [part.left, part.top, part.right, part.bottom]
    assert total.tolist() == [300, 10, 40, 0]


def test_the_canvas_has_the_image_s_edge_drawn_out() -> None:
    canvas, mask = grown(np.asarray(given_image()), Growth(left=8, bottom=16))
    np.testing.assert_array_equal(canvas[:48, 8:], np.asarray(given_image()))
    assert (canvas[:48, :8] == canvas[:48, 8:9]).all()
    assert ((mask == 255).sum(), mask[:48, 8:].max()) == (72 * 64 - 64 * 48, 0)


@pytest.mark.parametrize("growth", [{"left": 32}, {"top": 20, "right": 11}, {"left": 70, "bottom": 16}])
def test_the_image_stays_bit_for_bit(pipeline: StableDiffusionPipeline, growth: dict[str, int]) -> None:
    given, made = given_image(), pipeline("a cat", image=given_image(), outpaint=growth, **FAST).images[0]
    left, top = growth.get("left", 0), growth.get("top", 0)
    assert made.size == (64 + left + growth.get("right", 0), 48 + top + growth.get("bottom", 0))
    assert made.crop((left, top, left + 64, top + 48)).tobytes() == given.tobytes()
    new = np.asarray(made)[:, :left] if left else np.asarray(made)[:top]
    assert new.std() > 1


def test_every_image_of_a_batch_grows_from_its_own_seed(pipeline: StableDiffusionPipeline) -> None:
    options: dict[str, Any] = {
        "image": given_image(),
        "outpaint": "left=48",
        "output_type": "np",
        "num_inference_steps": 2,
    }
    together = pipeline(["a cat", "a dog"], num_images_per_prompt=2, seed=7, **options)
    assert together.seeds == [7, 8, 9, 10]
    alone = pipeline("a dog", seed=9, **options)
    np.testing.assert_allclose(together.images[2], alone.images[0], atol=1e-5)


def test_the_seed_may_be_the_last_that_there_is(pipeline: StableDiffusionPipeline) -> None:
    model = pipeline.model.capabilities
    first, last = (
        fit(Request(prompt="a cat", image=given_image(), outpaint="left=8", **FAST | {"seed": seed}), model)
        for seed in (0, MAX_SEED)
    )
    grown_first, grown_last = (
        grown_request(one, one.image, growths(one)[0], 0, model) for one in (first, last)
    )
    assert (grown_first.seeds, grown_last.seeds) == ((0,), (MAX_SEED,))
    (following,) = grown_request(last, last.image, growths(last)[0], 1, model).seeds
    assert 0 <= following < MAX_SEED


def test_passes_are_steps_too(pipeline: StableDiffusionPipeline) -> None:
    request = Request(prompt="a cat", image=given_image(), outpaint="left=70", **FAST)
    *steps, result = pipeline.stream(request, scheduler="euler")
    assert len(steps) == 2 * 2
    assert len(result.timings["unet"]) == 4  # type: ignore[union-attr]


def test_the_request_of_a_result_makes_it_again_and_may_get_other_borders(
    pipeline: StableDiffusionPipeline,
) -> None:
    made = pipeline("a cat", image=given_image(), outpaint="left=70", output_type="np", **FAST)
    *_, again = pipeline.stream(made.request)
    np.testing.assert_array_equal(made.images, again.images)  # type: ignore[union-attr]
    *_, other = pipeline.stream(dataclasses.replace(made.request, outpaint="top=12"))
    direct = pipeline("a cat", image=given_image(), outpaint="top=12", output_type="np", **FAST)
    np.testing.assert_array_equal(direct.images, other.images)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outpaint": "left=8"}, "outpaint has no effect without image"),
        (
            {"image": given_image(), "outpaint": "left=8", "mask_image": given_image()},
            "at most one of outpaint and mask_image",
        ),
        ({"image": given_image(), "outpaint": "left=8", "width": 64}, "at most one of outpaint and width"),
        ({"image": given_image(), "outpaint": "left=8", "output_type": "latent"}, "output_type is 'latent'"),
    ],
)
def test_requests_that_contradict(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Request(prompt="a cat", **options)


def test_an_image_may_not_outgrow_the_limit(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(RequestError, match="width is 3064: expected at most 2048"):
        pipeline("a cat", image=given_image(), outpaint="left=3000", **FAST)
