"""How large images are that clients send. Files of a few bytes can have many pixels."""

from __future__ import annotations

from sdrt.images.decoding import Subject, opened
from sdrt.serve.errors import ServeError

__all__ = ["check_size"]


def check_size(data: bytes, field: str, most_pixels: int) -> None:
    """Check the size of the image in a file. It is known before the pixels are decoded.

    Raises:
        RequestError: it is no image.
        ServeError: it has more than `most_pixels`.
    """
    with opened(data, Subject(name=field, argument=field), decodes=False) as image:
        width, height = image.size
    if width * height > most_pixels:
        raise ServeError(
            400, f"{field} has {width}x{height} pixels: this server takes at most {most_pixels}", field=field
        )
