"""What a mask keeps and what it gives up, in pixels, on the tiny model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import Request, RequestError, StableDiffusionPipeline
from sdrt.tasks.inpainting import covered, crop_box

FAST: dict[str, Any] = {"num_inference_steps": 3, "seed": 2}


def given_image(width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8))


def mask(box: tuple[int, int, int, int], width: int = 64, height: int = 64) -> Image.Image:
    drawn = Image.new("L", (width, height))
    drawn.paste(255, box)
    return drawn


def repainted(pipeline: StableDiffusionPipeline, **options: Any) -> np.ndarray:
    made: Image.Image = pipeline("a cat", **(FAST | options)).images[0]
    return np.asarray(made).astype(int)


@pytest.mark.parametrize("size", [(64, 64), (70, 51)])
@pytest.mark.parametrize("blur", [0, 3, 6])
def test_pixels_beyond_the_blur_are_the_image_s_own(
    pipeline: StableDiffusionPipeline, size: tuple[int, int], blur: int
) -> None:
    given, box = given_image(*size), (16, 8, 40, 48)
    made = repainted(pipeline, image=given, mask_image=mask(box, *size), mask_blur=blur)
    assert made.shape == (size[1], size[0], 3)
    white, reached = np.zeros((2, *made.shape[:2]), bool)
    white[8:48, 16:40] = True
    reached[max(0, 8 - blur) : 48 + blur, 16 - blur : 40 + blur] = True
    changed = (made != np.asarray(given)).any(-1)
    assert not changed[~reached].any()
    assert changed[white].mean() > 0.9
    if blur:
        assert changed[reached & ~white].mean() > 0.5


def test_white_is_all_new_and_fades_out_around_it(pipeline: StableDiffusionPipeline) -> None:
    options: dict[str, Any] = {"image": Image.new("RGB", (64, 64)), "mask_image": mask((16, 0, 48, 64))}
    hard = repainted(pipeline, mask_blur=0, **options)
    soft = repainted(pipeline, mask_blur=5, **options)
    made = repainted(pipeline, mask_blur=30, **options | {"composite": True})
    np.testing.assert_array_equal(soft[:, 16:48], hard[:, 16:48])
    np.testing.assert_array_equal(made[:, 16:48], hard[:, 16:48])
    outside = soft.max((0, 2))[10:16]
    assert outside[0] == 0
    assert (np.diff(outside.astype(int)) > 0).all()
    assert not soft[:, 53:].any()


@pytest.mark.parametrize("blur", [0, 4, 9])
@pytest.mark.parametrize("width", [1, 2, 3, 4, 7, 8, 12, 16])
def test_a_line_is_repainted_whatever_its_width(
    pipeline: StableDiffusionPipeline, width: int, blur: float
) -> None:
    """A sampled mask misses lines that are narrower than a latent and do not meet the pixel that it is sampled at."""
    for box in ((17, 0, 17 + width, 64), (0, 41, 64, 41 + width)):
        given, line = given_image(), mask(box)
        white = np.asarray(line) > 0
        made, other = (
            np.asarray(pipeline(prompt, image=given, mask_image=line, mask_blur=blur, **FAST).images[0])
            for prompt in ("a cat", "many dogs on a road")
        )
        assert (made != np.asarray(given))[white].any(-1).mean() > 0.9
        # Where only the known image is decoded, the prompt would not matter.
        assert (made != other)[white].any(-1).mean() > 0.5


@pytest.mark.parametrize("width", [1, 2, 5])
def test_a_thin_line_of_a_large_image_is_repainted_at_a_small_size(
    pipeline: StableDiffusionPipeline, width: int
) -> None:
    given, line = given_image(256, 256), mask((129, 0, 129 + width, 256), 256, 256)
    for size in ({"width": 64, "height": 64}, {"width": 64, "height": 64, "padding_mask_crop": 200}):
        made = repainted(pipeline, image=given, mask_image=line, mask_blur=0, **size)
        before = np.asarray(given.resize((64, 64), Image.Resampling.LANCZOS))
        column = 32 if made.shape[1] == 64 else slice(129, 129 + width)
        old = before if made.shape[1] == 64 else np.asarray(given)
        assert (made[:, column] != old[:, column]).any(-1).mean() > 0.9


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (2, 2, [[1, 0], [0, 0]]),
        (3, 2, [[1, 0], [1, 0], [0, 0]]),
        (4, 8, [[0] * 8, [0, 0, 1, 1, 0, 0, 0, 0], [0] * 8, [0] * 8]),
    ],
)
def test_a_scaled_mask_loses_no_pixel(height: int, width: int, expected: list[list[int]]) -> None:
    drawn = np.zeros((4, 4), bool)
    drawn[1, 1] = True
    np.testing.assert_array_equal(covered(drawn, height, width), np.array(expected, bool))


def test_diffusers_rule_says_which_lines_it_misses(pipeline: StableDiffusionPipeline) -> None:
    told: list[str] = []
    quiet = StableDiffusionPipeline.from_pretrained(
        pipeline.model.path, provider="cpu", verify=False, notify=told.append
    )
    repainted(quiet, image=given_image(), mask_image=mask((17, 0, 20, 64)), composite=False)
    assert [text for text in told if "mask_image has lines of less than 8 pixels" in text]
    told.clear()
    repainted(quiet, image=given_image(), mask_image=mask((16, 0, 40, 64)), composite=False)
    repainted(quiet, image=given_image(), mask_image=mask((17, 0, 20, 64)))
    assert not told


def test_without_compositing_all_of_it_is_what_was_made(pipeline: StableDiffusionPipeline) -> None:
    options: dict[str, Any] = {"image": given_image(), "mask_image": mask((16, 8, 40, 48)), "mask_blur": 0}
    made, whole = (repainted(pipeline, composite=composite, **options) for composite in (True, False))
    np.testing.assert_array_equal(made[8:48, 16:40], whole[8:48, 16:40])
    assert (whole[:, 48:] != np.asarray(given_image())[:, 48:]).any()


def test_the_mask_s_surroundings_alone_are_worked_on(pipeline: StableDiffusionPipeline) -> None:
    given, box = given_image(160, 120), (100, 40, 120, 60)
    made = repainted(
        pipeline,
        image=given,
        mask_image=mask(box, 160, 120),
        padding_mask_crop=8,
        mask_blur=0,
        height=64,
        width=64,
    )
    changed = (made != np.asarray(given)).any(-1)
    assert made.shape == (120, 160, 3)
    assert changed[40:60, 100:120].mean() > 0.9
    changed[40:60, 100:120] = False
    assert not changed.any()


@pytest.mark.parametrize(
    ("box", "padding", "expected"),
    [
        ((40, 20, 60, 40), None, (0, 0, 100, 80)),
        ((40, 20, 60, 40), 5, (35, 15, 65, 45)),
        ((0, 0, 10, 10), 5, (0, 0, 15, 15)),
        ((40, 20, 80, 30), 0, (40, 5, 80, 45)),
        ((90, 0, 100, 80), 0, (20, 0, 100, 80)),
        ((0, 0, 100, 10), 0, (0, 0, 100, 80)),
    ],
)
def test_the_box_around_a_mask(
    box: tuple[int, int, int, int], padding: int | None, expected: tuple[int, int, int, int]
) -> None:
    assert crop_box(np.asarray(mask(box, 100, 80)) > 0, padding, 64, 64) == expected


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16", "F"])
def test_masks_of_any_mode(mode: str) -> None:
    drawn = np.asarray(mask((16, 8, 40, 48)))
    if mode == "I;16":
        given = Image.fromarray(drawn.astype(np.uint16) * 257)
    elif mode == "F":
        given = Image.fromarray(drawn.astype(np.float32) / 255)
    else:
        given = Image.fromarray(drawn).convert(mode)
    request = Request(prompt="", image=given_image(), mask_image=given)
    np.testing.assert_array_equal(request.mask_image[0] >= 128, drawn >= 128)


def test_what_is_transparent_in_a_mask_stays() -> None:
    white = Image.new("RGBA", (64, 64), (255, 255, 255, 0))
    white.paste((255, 255, 255, 255), (0, 0, 32, 64))
    request = Request(prompt="", image=given_image(), mask_image=white)
    assert (request.mask_image[0] >= 128).mean() == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mask_image": mask((0, 0, 9, 9))}, "mask_image has no effect without image"),
        ({"image": given_image(), "mask_image": mask((0, 0, 0, 0))}, "has no white pixel"),
        (
            {"image": given_image(), "mask_image": mask((0, 0, 9, 9), 32, 64)},
            "mask_image has 32x64 pixels, and image has 64x64",
        ),
        (
            {"image": given_image(), "padding_mask_crop": 3},
            "padding_mask_crop has no effect without mask_image",
        ),
        ({"image": given_image(), "mask_image": mask((0, 0, 9, 9)), "mask_blur": -1}, "mask_blur is -1"),
        (
            {"image": given_image(), "mask_image": mask((0, 0, 9, 9)), "composite": 1},
            "expected True or False",
        ),
    ],
)
def test_requests_that_contradict(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Request(prompt="a cat", **options)


def test_a_full_mask_repaints_everything(pipeline: StableDiffusionPipeline) -> None:
    full = mask((0, 0, 64, 64))
    made = repainted(pipeline, image=given_image(), mask_image=full, mask_blur=4)
    assert (made != np.asarray(given_image())).any(-1).mean() > 0.95
