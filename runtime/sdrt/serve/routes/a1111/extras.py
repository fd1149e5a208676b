"""`extra-single-image` and `extra-batch-images`, which enlarge images, and `png-info`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field

from sdrt.errors import RequestError
from sdrt.images.metadata import ImageMetadata, read_metadata
from sdrt.serve.asked import decoded
from sdrt.serve.body import StrictRoute
from sdrt.serve.errors import ServeError
from sdrt.serve.image_sizes import check_size
from sdrt.serve.make import encoded
from sdrt.serve.routes.a1111.fields import Asked, Only, refuse_effects, unsupported
from sdrt.serve.routes.a1111.pictures import errors_of, fitted, picture
from sdrt.serve.routes.common import service_of
from sdrt.serve.task import FileFormat
from sdrt.serve.waiting import side_work

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["router"]

router = APIRouter(route_class=StrictRoute)

_BY_FACTOR, _TO_SIZE = 0, 1
_NONE = "none"
_FILTERS = ("lanczos", "nearest")
_STRETCH, _CROP = 0, 1
_MOST_FACTOR = 64


class _Enlarging(Asked):
    resize_mode: int = Field(0, ge=0, le=1, description="0 enlarges by a factor, 1 to a size.")
    show_extras_results: bool = True
    upscaling_resize: float = Field(2, gt=0, le=_MOST_FACTOR)
    upscaling_resize_w: int = Field(512, ge=1)
    upscaling_resize_h: int = Field(512, ge=1)
    upscaling_crop: bool = True
    upscaler_1: str = "None"
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: float = Field(0, ge=0, le=1)

    codeformer_weight: float = Field(0, ge=0, le=1, description="Has no effect without CodeFormer.")
    upscale_first: bool = Field(False, description="Has no effect without face restoration.")
    gfpgan_visibility: Annotated[float, Only((0,))] = 0
    codeformer_visibility: Annotated[float, Only((0,))] = 0


class ExtraSingleImage(_Enlarging):
    """The body of `extra-single-image`."""

    image: str


class FileData(Asked):
    """An image of a list."""

    data: str
    name: str = ""


class ExtraBatchImages(_Enlarging):
    """The body of `extra-batch-images`."""

    imageList: list[FileData]  # noqa: N815 - A1111's name


class PngInfo(Asked):
    """The body of `png-info`."""

    image: str


@router.post("/extra-single-image")
async def extra_single_image(request: Request, body: ExtraSingleImage) -> dict[str, Any]:
    """Enlarge an image. Its text about how it was made stays."""
    image, text = (await _enlarged(request, body, [(body.image, "image")]))[0]
    return {"image": image if body.show_extras_results else None, "html_info": text}


@router.post("/extra-batch-images")
async def extra_batch_images(request: Request, body: ExtraBatchImages) -> dict[str, Any]:
    """Enlarge several images."""
    most = service_of(request).limits.images
    if len(body.imageList) > most:
        raise ServeError(
            400,
            f"imageList has {len(body.imageList)} images: this server takes at most {most}",
            field="imageList",
        )
    given = [(one.data, f"imageList.{index}") for index, one in enumerate(body.imageList)]
    made = await _enlarged(request, body, given)
    images = [image for image, _ in made] if body.show_extras_results else []
    return {"images": images, "html_info": ", ".join(text for _, text in made)}


async def _enlarged(
    request: Request, body: _Enlarging, given: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Each image as base64, with its size in words."""
    refuse_effects(body)
    for name in ("upscaler_1", "upscaler_2"):
        if getattr(body, name).lower() not in (_NONE, *_FILTERS):
            raise unsupported(name, getattr(body, name), "Lanczos")
    service = service_of(request)
    most = service.limits.pixels
    files = [(decoded(text, field), field) for text, field in given]
    # One by one, so that a list of images keeps others waiting no longer than a single one does.
    return [await side_work(request, service, _enlarge, body, data, field, most) for data, field in files]


def _enlarge(body: _Enlarging, data: bytes, field: str, most_pixels: int) -> tuple[str, str]:
    from PIL import Image

    image = picture(data, field, most_pixels)
    _check_target(body, image, most_pixels)
    made = _scaled(body, image, body.upscaler_1)
    share = body.extras_upscaler_2_visibility
    if share > 0 and body.upscaler_2.lower() != _NONE:
        made = Image.blend(made, fitted(_scaled(body, image, body.upscaler_2), _STRETCH, *made.size), share)
    text = None
    with suppress(RequestError):
        text = read_metadata(data).text or None
    file = encoded(made, FileFormat(), text)
    return base64.b64encode(file).decode(), f"{made.width}x{made.height}"


def _check_target(body: _Enlarging, image: Image.Image, most_pixels: int) -> None:
    """Check that what is made on the way to the result has not too many pixels."""
    if body.resize_mode == _TO_SIZE:
        field = "upscaling_resize_w"
        factor = max(body.upscaling_resize_w / image.width, body.upscaling_resize_h / image.height)
    else:
        field, factor = "upscaling_resize", body.upscaling_resize
    if image.width * image.height * factor**2 > most_pixels:
        raise ServeError(
            400,
            f"{field}: the image has {image.width}x{image.height} pixels, times {factor:g}: this server makes at most "
            f"{most_pixels}",
            field=field,
        )


def _scaled(body: _Enlarging, image: Image.Image, upscaler: str) -> Image.Image:
    """The image as one upscaler makes it. Without an upscaler it stays as it is, as in A1111."""
    from PIL import Image

    if upscaler.lower() == _NONE:
        return image
    nearest = upscaler.lower() == "nearest"
    method = Image.Resampling.NEAREST if nearest else Image.Resampling.LANCZOS
    target = (body.upscaling_resize_w, body.upscaling_resize_h)
    factor = body.upscaling_resize
    if body.resize_mode == _TO_SIZE:
        factor = max(target[0] / image.width, target[1] / image.height)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    scaled = image.resize(size, method)
    crops = body.resize_mode == _TO_SIZE and body.upscaling_crop
    return fitted(scaled, _CROP, *target) if crops else scaled


@router.post("/png-info")
async def png_info(request: Request, body: PngInfo) -> dict[str, Any]:
    """How an image was made, by any program that sdrt can read."""
    data = decoded(body.image.strip(), "image")
    service = service_of(request)
    found = await side_work(request, service, _metadata, data, service.limits.pixels)
    named = {"Prompt": found.prompt, "Negative prompt": found.negative_prompt, **found.settings}
    width, x, height = named.get("Size", "").partition("x")
    if x:
        # A1111 says the sides.
        del named["Size"]
        named |= {"Size-1": width, "Size-2": height}
    has_text = bool(found.text)
    return {
        "info": found.text,
        "items": {"parameters": found.text} if has_text else {},
        "parameters": named if has_text else {},
    }


def _metadata(data: bytes, most_pixels: int) -> ImageMetadata:
    # A text may be in the pixels, which are then decoded.
    with errors_of("image"):
        check_size(data, "image", most_pixels)
        return read_metadata(data)
