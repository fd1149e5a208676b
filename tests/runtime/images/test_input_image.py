"""Images that users give, good and bad; and runs that begin from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import Request, RequestError, StableDiffusionPipeline
from sdrt.images.reading import read_images, resized

RED, GREEN = (200, 30, 20), (20, 180, 40)


def halves() -> Image.Image:
    """Red on the left, green on the right; wider than it is high."""
    image = Image.new("RGB", (12, 8), RED)
    image.paste(GREEN, (6, 0, 12, 8))
    return image


def read(value: object) -> np.ndarray:
    (image,) = read_images("image", value)
    assert (image.dtype, image.shape[2]) == (np.uint8, 3)
    return image


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK", "YCbCr"])
def test_modes_of_colour(mode: str) -> None:
    image = halves().quantize(4) if mode == "P" else halves().convert(mode)
    found = read(image)
    assert np.abs(found[0, 0].astype(int) - RED).max() < 12
    assert np.abs(found[0, -1].astype(int) - GREEN).max() < 12


def test_gray_of_8_and_16_bits_and_floats() -> None:
    eight = np.arange(0, 256, 5, dtype=np.uint8)[np.newaxis].repeat(3, 0)
    gray = Image.fromarray(eight)
    np.testing.assert_array_equal(read(gray)[..., 1], eight)
    np.testing.assert_array_equal(read(Image.fromarray(eight.astype(np.uint16) * 257))[..., 2], eight)
    np.testing.assert_array_equal(read(Image.fromarray(eight.astype(np.float32) / 255))[..., 0], eight)
    assert set(np.unique(read(gray.convert("1")))) == {0, 255}


def test_arrays() -> None:
    levels = np.asarray(halves())
    np.testing.assert_array_equal(read(levels), levels)
    np.testing.assert_array_equal(read(levels.astype(np.float64) / 255), levels)
    first, second = read_images("image", np.stack([levels, 255 - levels]))
    np.testing.assert_array_equal(second, 255 - first)


def test_transparent_pixels_become_white() -> None:
    image = halves().convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    assert read(image).min() == 255


def test_a_photograph_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    halves().save(tmp_path / "turned.png", exif=exif)
    found = read(tmp_path / "turned.png")
    assert found.shape == (12, 8, 3)
    np.testing.assert_array_equal(found[0, 0], RED)
    np.testing.assert_array_equal(found[-1, 0], GREEN)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    halves().save(tmp_path / "good.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.png")
    whole = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    halves().save(tmp_path / "jpeg-by-another-name.png", format="JPEG")
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "folder.png").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cut.png", "damaged|cannot be read"),
        ("text.png", "is not an image: expected an image in PNG, JPEG, WebP, AVIF, BMP, TIFF or GIF"),
        ("empty.png", "is empty: expected an image in PNG"),
        ("moving.gif", "has 2 frames: expected an image with one frame"),
        ("folder.png", "cannot be read"),
        ("missing.png", "No such file|cannot be read"),
    ],
)
def test_files_that_are_no_images(files: Path, name: str, message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        read(files / name)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_may_lie_about_the_format(files: Path) -> None:
    assert read(str(files / "jpeg-by-another-name.png")).shape == (8, 12, 3)


def test_too_many_pixels_are_refused(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(RequestError, match="has too many pixels: expected at most 50"):
        read(files / "good.png")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (5, "image is 5: expected a path, the bytes of a file, an open file, a PIL image or an array"),
        ([], "empty list"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \(4, 4, 4\): expected \(height, width, 3\)"),
        (np.zeros((0, 4, 3), np.uint8), "expected \\(height, width, 3\\)"),
        (np.full((4, 4, 3), 2.0), "numbers outside of 0 to 1"),
        (np.full((4, 4, 3), np.nan), "numbers outside of 0 to 1"),
        (np.zeros((4, 4, 3), np.int64), "array of int64"),
        (
            [Image.new("RGB", (8, 8)), Image.new("RGB", (8, 16))],
            "8x8 and 8x16 pixels: expected images of the same size",
        ),
    ],
)
def test_values_that_are_no_images(value: object, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_images("image", value)


def test_resizing_keeps_an_image_that_fits() -> None:
    levels = np.asarray(halves())
    assert resized(levels, 8, 12) is levels
    assert resized(levels, 16, 24).shape == (16, 24, 3)


FAST: dict[str, Any] = {"num_inference_steps": 5, "seed": 2, "output_type": "np"}


def test_the_image_shows_through_the_more_the_less_strength(pipeline: StableDiffusionPipeline) -> None:
    image = halves().resize((64, 64))
    made = {
        s: pipeline("", image=image, strength=s, guidance_scale=1, **FAST).images[0] for s in (0.2, 0.6, 1.0)
    }
    assert made[0.2].shape == (64, 64, 3)
    away = [np.abs(made[s] - made[0.2]).mean() for s in (0.2, 0.6, 1.0)]
    assert away[0] < away[1] < away[2]


def test_size_follows_the_image_unless_it_is_given(pipeline: StableDiffusionPipeline) -> None:
    image = halves().resize((70, 45))
    assert pipeline("", image=image, **FAST).images.shape[1:3] == (40, 64)
    assert pipeline("", image=image, height=64, width=32, **FAST).images.shape[1:3] == (64, 32)


def test_images_of_a_batch_begin_from_their_own(pipeline: StableDiffusionPipeline) -> None:
    one, other = halves().resize((64, 64)), halves().transpose(Image.Transpose.ROTATE_180).resize((64, 64))
    together = pipeline(["a", "b"], image=[one, other], **FAST).images
    alone = pipeline("b", image=other, **(FAST | {"seed": 3})).images
    np.testing.assert_allclose(together[1], alone[0], atol=1e-5)


def test_steps_taken_are_those_of_diffusers(pipeline: StableDiffusionPipeline) -> None:
    request = Request(
        prompt="", image=halves().resize((64, 64)), strength=0.55, num_inference_steps=11, seed=0
    )
    assert request.num_steps == 6
    *steps, _ = pipeline.stream(request, scheduler="heun")
    assert len(steps) == 11


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strength": 0.5}, "strength has no effect without image"),
        ({"image": halves(), "strength": 1.5}, "strength is 1.5: expected a number from 0 to 1"),
        ({"image": [halves()] * 3}, "image has 3 images for 1 prompts"),
        (
            {"image": halves(), "latents": np.zeros((1, 4, 1, 1), np.float32)},
            "at most one of image and latents",
        ),
    ],
)
def test_requests_that_contradict(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Request(prompt="a cat", **options)


def test_a_strength_that_runs_no_step(pipeline: StableDiffusionPipeline) -> None:
    request = Request(prompt="a cat", image=halves(), strength=0.1, num_inference_steps=5)
    with pytest.raises(RequestError, match=r"none of the 5 steps would run: expected at least 0\.2"):
        pipeline.plan(request)


def test_a_model_without_an_encoder_says_so(model_copy: Path) -> None:
    import shutil

    shutil.rmtree(model_copy / "vae_encoder")
    pipeline = StableDiffusionPipeline.from_pretrained(
        model_copy, provider="cpu", verify=False, notify=lambda _: None
    )
    with pytest.raises(RequestError, match=r"an image prompt needs a VAE encoder, .* no vae_encoder; export"):
        pipeline("a cat", image=halves())
