"""Images as people bring them from NumPy, torch, Pillow and diffusers: read as meant, or refused with the remedy."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sdrt import Request, RequestError, StableDiffusionPipeline
from sdrt.images.reading import read_images, read_masks
from sdrt.tasks.hires import Latents

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
WHITE = np.zeros((6, 9), bool)
WHITE[2:4, 3:7] = True


class Tensor:
    """What torch, JAX and others offer NumPy."""

    def __init__(self, array: np.ndarray, error: Exception | None = None) -> None:
        self._array, self._error = array, error

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if self._error is not None:
            raise self._error
        return self._array


def images(value: object) -> list[np.ndarray]:
    return list(read_images("image", value))


def channels_first(array: np.ndarray) -> np.ndarray:
    """As in torch."""
    return np.moveaxis(array, -1, 0)


UNIT = RGB.astype(np.float32) / 255


@pytest.mark.parametrize(
    "value",
    [
        RGB,
        RGB[np.newaxis],
        channels_first(RGB),
        channels_first(RGB)[np.newaxis],
        channels_first(UNIT)[np.newaxis],
        channels_first(UNIT).astype(np.float64),
        Tensor(channels_first(UNIT)[np.newaxis]),
        [Tensor(channels_first(UNIT))],
        [RGB[np.newaxis]],
        (Image.fromarray(RGB),),
        [channels_first(RGB)[np.newaxis]],
        np.asfortranarray(RGB),
    ],
)
def test_layouts_of_one_image(value: object) -> None:
    (found,) = images(value)
    np.testing.assert_array_equal(found, RGB)


@pytest.mark.parametrize(
    "value",
    [
        np.stack([RGB, 255 - RGB]),
        np.moveaxis(np.stack([RGB, 255 - RGB]), -1, 1),
        [Tensor(channels_first(RGB)), Image.fromarray(255 - RGB)],
        [RGB[np.newaxis], 255 - RGB],
    ],
)
def test_layouts_of_two_images(value: object) -> None:
    one, other = images(value)
    np.testing.assert_array_equal(one, RGB)
    np.testing.assert_array_equal(other, 255 - RGB)


GRAY = RGB[..., 0]


@pytest.mark.parametrize(
    "value", [GRAY, GRAY[..., np.newaxis], GRAY[np.newaxis], GRAY[np.newaxis, np.newaxis], GRAY / 255.0]
)
def test_layouts_of_a_grey_image(value: np.ndarray) -> None:
    (found,) = images(value)
    np.testing.assert_array_equal(found, np.stack([GRAY] * 3, -1))


@pytest.mark.parametrize(
    "value",
    [
        WHITE,
        WHITE.astype(np.uint8),
        WHITE.astype(np.uint8) * 255,
        WHITE.astype(np.int64),
        WHITE.astype(np.int32) * 255,
        WHITE.astype(np.float32),
        WHITE.astype(np.float64)[..., np.newaxis],
        WHITE.astype(np.uint8)[..., np.newaxis],
        WHITE.astype(np.uint8)[np.newaxis],
        WHITE.astype(np.float32)[np.newaxis, np.newaxis],
        np.stack([WHITE] * 3, -1).astype(np.uint8),
        np.stack([WHITE] * 3).astype(np.float32),
        Tensor(WHITE.astype(np.float32)[np.newaxis]),
        [WHITE],
        Image.fromarray(WHITE),
        Image.fromarray(WHITE.astype(np.uint8)),
        Image.fromarray(WHITE.astype(np.uint8) * 255).convert("I"),
        Image.fromarray(WHITE.astype(np.uint16)),
        Image.fromarray(WHITE.astype(np.int32)),
        Image.fromarray(WHITE.astype(np.uint8)).convert("RGB"),
    ],
)
def test_masks(value: object) -> None:
    (found,) = read_masks("mask_image", value)
    np.testing.assert_array_equal(found >= 128, WHITE)


def test_a_mask_file_of_zeros_and_ones(tmp_path: Path) -> None:
    Image.fromarray(WHITE.astype(np.uint8)).save(tmp_path / "mask.png")
    (found,) = read_masks("mask_image", tmp_path / "mask.png")
    np.testing.assert_array_equal(found, WHITE * np.uint8(255))


def test_several_masks_in_one_array() -> None:
    masks = np.stack([WHITE, ~WHITE, WHITE, WHITE]).astype(np.uint8)
    found = read_masks("mask_image", masks)
    np.testing.assert_array_equal(np.stack(found) >= 128, masks == 1)
    with pytest.raises(
        RequestError, match=r"may be one mask or three: expected \(6, 9, 3\) for one mask, or a list"
    ):
        read_masks("mask_image", masks[:3])


MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I", "I;16")


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_pillow(mode: str) -> None:
    white = Image.fromarray(WHITE.astype(np.uint8) * 255)
    if mode == "I;16":
        given = Image.fromarray(WHITE.astype(np.uint16) * 65535)
    elif mode in ("La", "RGBa"):
        given = white.convert(mode.upper()).convert(mode)
    elif mode == "RGBX":
        given = Image.merge(mode, [white] * 4)
    elif mode == "PA":
        given = white.convert("P").convert("PA")
    else:
        given = (
            white.convert("RGB").convert(mode) if mode not in ("LA", "L", "1", "I") else white.convert(mode)
        )
    (found,) = images(given)
    np.testing.assert_allclose(found, np.stack([WHITE * 255.0] * 3, -1), atol=4)
    (mask,) = read_masks("mask_image", given)
    np.testing.assert_array_equal(mask >= 128, WHITE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            "https://example.org/a.png",
            "image is the URL 'https://example.org/a.png', and sdrt downloads no images: ",
        ),
        ("HTTP://example.org/a.png", "is the URL .*: download it, and give the file or a PIL image"),
        ("file:///tmp/a.png", "is the URL"),
        ("s3://bucket/a.png", "is the URL"),
        ("data:image/png;base64,AAAA", "is the URL"),
        (["https://example.org/a.png"], "is the URL"),
        ((), "is an empty list"),
        (Image.new("RGB", (0, 5)), "has 0x5 pixels: expected at least one"),
        (UNIT * 2 - 1, r"outside of 0 to 1: expected 0 to 1, such as image / 2 \+ 0.5, or uint8"),
        (UNIT * 255, "outside of 0 to 1: expected 0 to 1, or uint8"),
        (np.zeros((2, 5, 6, 9)), r"shape \(2, 5, 6, 9\): expected \(height, width, 3\)"),
        (np.zeros((2, 6, 9)), r"shape \(2, 6, 9\): expected \(height, width, 3\)"),
        (np.zeros((1, 3, 0, 9)), r"shape \(1, 3, 0, 9\): expected"),
        (np.uint8(5), r"shape \(\): expected"),
        (
            Tensor(UNIT, TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu()")),
            "cuda:0",
        ),
        (Tensor(UNIT, RuntimeError("Can't call numpy() on Tensor that requires grad.")), "requires grad"),
        (Tensor(np.array(["a"])), "array of shape"),
    ],
)
def test_what_is_refused_says_the_remedy(value: object, message: str) -> None:
    with pytest.raises(RequestError, match=message) as error:
        images(value)
    assert error.value.argument == "image"
    assert "\n" not in str(error.value)


def test_tensors_that_numpy_cannot_read_are_named() -> None:
    with pytest.raises(
        RequestError, match=r"image is a Tensor .*, as tensor.detach\(\).float\(\).cpu\(\) makes it"
    ):
        images(Tensor(UNIT, TypeError("Got unsupported ScalarType BFloat16")))


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp", "a.tiff"])
@pytest.mark.parametrize("loaded", [False, True])
def test_closed_images(tmp_path: Path, name: str, loaded: bool) -> None:
    Image.fromarray(RGB).save(tmp_path / name)
    with Image.open(tmp_path / name) as left:
        pass
    closed = Image.open(tmp_path / name)
    if loaded:
        closed.load()
    closed.close()
    with (tmp_path / name).open("rb") as file:
        without_file = Image.open(file)
    for value in (left, closed, without_file):
        with pytest.raises(
            RequestError, match=r"is a PIL image that cannot be read .*call its load\(\) before"
        ) as error:
            images(value)
        assert "\n" not in str(error.value)


def test_an_image_that_was_loaded_before_its_file_was_closed(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        image.load()
    with (tmp_path / "a.png").open("rb") as file:
        other = Image.open(io.BytesIO(file.read()))
    for one in (image, other):
        (found,) = images(one)
        np.testing.assert_array_equal(found, RGB)


def test_a_mask_turns_as_its_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(WHITE.astype(np.uint8) * 255).save(tmp_path / "turned.png", exif=exif)
    (found,) = read_masks("mask_image", tmp_path / "turned.png")
    np.testing.assert_array_equal(found >= 128, np.rot90(WHITE, -1))


@pytest.mark.parametrize(
    ("shape", "is_latents"),
    [
        ((1, 4, 8, 8), True),
        ((1, 3, 8, 8), False),
        ((1, 8, 8, 3), False),
        ((1, 1, 8, 8), False),
        ((1, 8, 8, 1), False),
    ],
)
@pytest.mark.parametrize("wrap", [np.asarray, Tensor])
def test_which_arrays_are_latents(shape: tuple[int, ...], is_latents: bool, wrap: Any) -> None:
    request = Request(prompt="", image=wrap(np.zeros(shape, np.float32)))
    assert isinstance(request.image, Latents) == is_latents


@pytest.mark.parametrize("size", [(128, 96), (32, 24), (70, 48), (64, 50)])
def test_a_mask_of_another_size_is_brought_to_the_image_s(size: tuple[int, int]) -> None:
    mask = Image.new("L", size)
    mask.paste(255, (0, 0, size[0] // 2, size[1]))
    request = Request(prompt="", image=Image.new("RGB", (64, 48)), mask_image=mask)
    (found,) = request.mask_image
    assert found.shape == (48, 64)
    assert (found[:, :31] == 255).all()
    assert not found[:, 34:].any()


def test_a_thin_line_of_a_larger_mask_is_not_lost() -> None:
    mask = Image.new("L", (256, 192))
    mask.paste(255, (101, 0, 102, 192))
    request = Request(prompt="", image=Image.new("RGB", (64, 48)), mask_image=mask)
    assert np.flatnonzero(request.mask_image[0].all(0)).tolist() == [25]


def test_a_mask_in_other_proportions_is_refused() -> None:
    for size in ((32, 64), (48, 64), (200, 100)):
        with pytest.raises(
            RequestError, match="and image has 64x64: expected the same size or the same proportions"
        ):
            Request(prompt="", image=Image.new("RGB", (64, 64)), mask_image=Image.new("L", size, 255))


def test_torch_tensors(pipeline: StableDiffusionPipeline) -> None:
    torch = pytest.importorskip("torch")
    (found,) = images(torch.from_numpy(UNIT).permute(2, 0, 1)[None])
    np.testing.assert_array_equal(found, RGB)
    (mask,) = read_masks("mask_image", torch.from_numpy(WHITE.astype(np.float32))[None, None])
    np.testing.assert_array_equal(mask >= 128, WHITE)
    for tensor in (torch.zeros(3, 8, 8, requires_grad=True), torch.zeros(3, 8, 8, dtype=torch.bfloat16)):
        with pytest.raises(
            RequestError, match=r"is a Tensor that NumPy cannot read .*detach\(\).float\(\).cpu\(\)"
        ):
            images(tensor)
    assert pipeline.preview(torch.zeros(1, 4, 2, 3))[0].size == (24, 16)
