"""Images that tests send, and pixels of those that come back."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["circle", "hole", "opened", "pixels", "png"]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def circle(color: str = "red", ground: str = "white") -> Image.Image:
    """A circle in the middle, as the embedded model draws it."""
    image = Image.new("RGB", (128, 128), ground)
    ImageDraw.Draw(image).ellipse((32, 32, 96, 96), fill=color)
    return image


def hole(box: tuple[int, int, int, int], size: tuple[int, int] = (128, 128)) -> bytes:
    """OpenAI's mask: opaque, but transparent in the box."""
    mask = Image.new("RGBA", size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), box)
    return png(mask)


def opened(b64_json: str | None) -> Image.Image:
    assert b64_json is not None
    return Image.open(io.BytesIO(base64.b64decode(b64_json)))


def pixels(image: Image.Image | str | None) -> np.ndarray[Any, Any]:
    made = image if isinstance(image, Image.Image) else opened(image)
    return np.asarray(made.convert("RGB")).astype(int)
