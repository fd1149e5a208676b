"""Images through the standard streams: `-i -` and `--from -` read one, and `-o -` writes one."""

from __future__ import annotations

import io
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.cli.process import standard_input
from sdrt.errors import RequestError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["STDIN", "STDOUT", "check_stdin", "check_stdout", "image_or_stdin", "read_stdin", "write_stdout"]

STDIN = "-"
"""The file name that stands for standard input."""
STDOUT = Path("-")
"""The output file that stands for standard output. No image file has this name, because it has no extension."""
_MOST_BYTES = 1 << 30

_READERS = {
    "from_image": "--from",
    "prompts_file": "--prompts-file",
    "image": "-i",
    "mask_image": "--mask",
    "control_image": "--control-image",
    "ip_adapter_image": "--ip-image",
    "ip_adapter_masks": "--ip-mask",
}


def check_stdin(options: Mapping[str, Any]) -> None:
    """Raise `RequestError` if several of click's parameters take standard input, which can be read once."""
    takers = [
        spelling
        for name, spelling in _READERS.items()
        for given in _listed(options.get(name))
        if given == STDIN
    ]
    if len(takers) > 1:
        raise RequestError.advised(
            f"{' and '.join(takers)} both read standard input, which can be read once",
            "give one of them a file",
            argument=takers[1],
        )


def _listed(given: Any) -> Sequence[Any]:
    return given if isinstance(given, (list, tuple)) else [given]


def read_stdin(option: str) -> bytes:
    """Read the image that `option` names. Raises `RequestError` if it is too large."""
    content = standard_input().read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise RequestError.expected(
            f"{option} -: standard input has more than {_MOST_BYTES >> 20} MB",
            "a smaller image",
            argument=option,
        )
    return content


def image_or_stdin(option: str, name: str) -> str | bytes:
    """The name of a file, or what standard input holds if the name is -."""
    return read_stdin(option) if name == STDIN else name


def check_stdout(seeds: Sequence[int]) -> None:
    """Raise `RequestError` unless one image is made and standard output takes it."""
    if len(seeds) != 1:
        raise RequestError.expected(
            f"-o - writes one image to standard output, and there are {len(seeds)}",
            "a file name such as sdrt-{seed}.png",
            argument="-o",
        )
    if sys.stdout is None or sys.stdout.isatty():
        raise RequestError.expected(
            "-o - writes the image to standard output, which is a terminal",
            "a pipe or a file, such as > a.png",
            argument="-o",
        )


def write_stdout(image: Image, text: str | None) -> None:
    """Write the image to standard output as PNG, with `text` as its metadata."""
    from sdrt.images.files import FORMATS, save

    buffer = io.BytesIO()
    save(buffer, image, FORMATS[".png"], text)
    sys.stdout.buffer.write(buffer.getvalue())
    sys.stdout.buffer.flush()
