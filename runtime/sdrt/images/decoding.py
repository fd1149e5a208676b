"""Opening images. A file's first bytes choose the format, and Pillow gets no other than those of `READABLE`.

Pillow has more than 40 formats and tries them all by default. Some start other programs (EPS starts Ghostscript), and
most are rare. Only `opened` calls `PIL.Image.open`.
"""

from __future__ import annotations

import importlib
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeGuard

from sdrt.common.messages import brief
from sdrt.errors import RequestError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "EXPECTED",
    "MOST_BYTES",
    "READABLE",
    "Source",
    "Subject",
    "described",
    "errors_are_about",
    "format_of_content",
    "is_source",
    "load_plugin",
    "open_file",
    "opened",
]

Source = Path | bytes | bytearray | memoryview | BinaryIO
"""A file by its path, the content of one, or an open file."""

MOST_BYTES = 1 << 30
"""The most bytes that are read from a pipe, or from another file that cannot be read twice."""
_HEAD = 1024


@dataclass(frozen=True, kw_only=True)
class _Readable:
    """A format that is read: its name in Pillow, Pillow's module, and a pattern for the first bytes of a file."""

    name: str
    plugin: str
    begins: re.Pattern[bytes]


def _row(name: str, plugin: str, begins: bytes) -> _Readable:
    return _Readable(name=name, plugin=plugin, begins=re.compile(begins, re.DOTALL))


# "ftyp" begins a box of MP4's family, with a major brand and compatible brands of four letters.
_AVIF = rb".{4}ftyp(avi[fs]|m(if|sf)1.{4}(.{4}){0,14}?avi[fs])"
READABLE = (
    _row("PNG", "PngImagePlugin", rb"\x89PNG\r\n\x1a\n"),
    _row("JPEG", "JpegImagePlugin", rb"\xff\xd8\xff"),
    _row("WEBP", "WebPImagePlugin", rb"RIFF.{4}WEBP"),
    _row("AVIF", "AvifImagePlugin", _AVIF),
    _row("BMP", "BmpImagePlugin", rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    _row("TIFF", "TiffImagePlugin", rb"II[*+]\0|MM\0[*+]"),
    _row("GIF", "GifImagePlugin", rb"GIF8[79]a"),
)
"""The formats that are read, all others are refused."""

EXPECTED = "an image in PNG, JPEG, WebP, AVIF, BMP, TIFF or GIF"

_REFUSED = {
    "a PDF document": rb"%PDF-",
    "an EPS or PostScript file": rb"%!PS|\xc5\xd0\xd3\xc6",
    "an SVG drawing": rb"(\xef\xbb\xbf)?\s*(<svg|<[?!].*<svg)",
    "a HEIC image": rb".{4}ftyp(he[iv]|m(if|sf)1)",
    "a JPEG XL image": rb"\xff\x0a|\0\0\0\x0cJXL \r\n",
    "a JPEG 2000 image": rb"\0\0\0\x0cjP  \r\n|\xff\x4f\xff\x51",
    "a Photoshop file": rb"8BP[SB]",
    "a GIMP file": rb"gimp xcf",
    "an icon": rb"\0\0[\x01\x02]\0|icns",
    "an OpenEXR image": rb"v/1\x01",
    "a Radiance image": rb"#\?RADIANCE|#\?RGBE",
    "a DDS texture": rb"DDS ",
    "a QOI image": rb"qoif",
    "a Netpbm image": rb"P[1-7]\s|P[Ff]\s",
    "a FITS image": rb"SIMPLE  =",
    "a Windows metafile": rb"\xd7\xcd\xc6\x9a|\x01\0\0\0.{36} EMF",
    "a video": rb".{4}ftyp|\x1aE\xdf\xa3|RIFF.{4}AVI ",
    "a ZIP archive": rb"PK\x03\x04",
}
"""Kinds of files that are refused, each with a pattern for its first bytes."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What an error is about: its name in messages, and the error's attributes."""

    name: str
    argument: str | None = None
    path: Path | None = None

    def refused(self, problem: str, fits: str) -> RequestError:
        """The error "name problem: expected fits"."""
        return RequestError.expected(f"{self.name} {problem}", fits, argument=self.argument, path=self.path)

    def unreadable(self, problem: str) -> RequestError:
        """The error "name problem", for content that cannot be read."""
        return RequestError(f"{self.name} {problem}", argument=self.argument, path=self.path, fits=EXPECTED)


def is_source(value: object) -> TypeGuard[bytes | bytearray | memoryview | BinaryIO]:
    """Whether `value` is the content of a file, or an open file."""
    return isinstance(value, (bytes, bytearray, memoryview)) or callable(getattr(value, "read", None))


def format_of_content(head: bytes) -> str | None:
    """Pillow's name of the format of a file that begins with `head`, or None if it is not in `READABLE`."""
    return next((row.name for row in READABLE if row.begins.match(head)), None)


def load_plugin(name: str) -> bool:
    """Import Pillow's module for a format, so that Pillow does not import all. False if this Pillow lacks it."""
    plugin = next(row.plugin for row in READABLE if row.name == name)
    try:
        module = importlib.import_module(f"PIL.{plugin}")
    except ImportError:
        return False
    return bool(getattr(module, "SUPPORTED", True))


@contextmanager
def opened(source: Source, subject: Subject, *, decodes: bool = True) -> Iterator[Image.Image]:
    """Open an image of one of the formats in `READABLE`, and decode its pixels.

    With `decodes` false, nobody uses the pixels, so they are not decoded and the size of the image is not limited.

    Raises:
        RequestError: the source cannot be read, has another format, is damaged, or has too many pixels. The message is
            about `subject`.
    """
    with ExitStack() as stack:
        # Pillow warns of a large size, and of EXIF that ends early.
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        with errors_are_about(subject):
            image = _open(stack.enter_context(open_file(source, subject)), subject, decodes=decodes)
        yield stack.enter_context(image)


@contextmanager
def errors_are_about(subject: Subject) -> Iterator[None]:
    """Within this block, which calls nothing but Pillow, every error becomes one about the image."""
    from PIL import Image

    try:
        yield
    except RequestError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise subject.refused("has too many pixels", f"at most {Image.MAX_IMAGE_PIXELS}") from None
    except OSError as error:
        raise subject.unreadable(f"cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # Pillow's readers raise errors of any type for content that does not match the header.
        raise subject.unreadable(f"is damaged: {brief(str(error))}") from error


@contextmanager
def open_file(source: Source, subject: Subject) -> Iterator[BinaryIO]:
    """`source` as an open file at its start that can be read twice."""
    if isinstance(source, Path):
        if "\0" in str(source):
            raise subject.refused("has a zero byte in its name", "the name of an image file")
        with source.open("rb") as file:
            yield file if file.seekable() else _read_once(file, subject)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        yield io.BytesIO(source)
    else:
        seekable = getattr(source, "seekable", None)
        yield source if seekable is not None and seekable() else _read_once(source, subject)


def _read_once(file: BinaryIO, subject: Subject) -> BinaryIO:
    content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise subject.refused(f"has more than {MOST_BYTES >> 20} MB", "a smaller image")
    return io.BytesIO(content)


def _open(file: BinaryIO, subject: Subject, *, decodes: bool) -> Image.Image:
    from PIL import Image, UnidentifiedImageError

    file.seek(0)
    head = file.read(_HEAD)
    file.seek(0)
    name = format_of_content(head)
    if name is None:
        raise subject.refused(f"is {described(head)}", EXPECTED)
    if not load_plugin(name):
        raise subject.refused(f"is in {name}, which this Pillow cannot read", _upgrade(name))
    if decodes:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
    try:
        image = Image.open(file, formats=[name])
    except UnidentifiedImageError:
        raise subject.unreadable(f"is damaged: it begins like {name}, but the rest is not {name}") from None
    if decodes:
        getattr(image, "n_frames", 1)  # counts the frames here, where errors of damaged files are handled
        image.load()
    return image


def _upgrade(name: str) -> str:
    return f"another format, or a Pillow with {name} (pip install --upgrade pillow)"


def described(head: bytes) -> str:
    """What an unreadable file is that begins with `head`, such as "a PDF document"."""
    if not head:
        return "empty"
    told = (name for name, begins in _REFUSED.items() if re.match(begins, head, re.DOTALL))
    return next(told, "not an image")
