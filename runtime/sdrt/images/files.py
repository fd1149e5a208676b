"""Image files: names from a pattern, formats, and atomic writing."""

from __future__ import annotations

import os
import string
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from re import fullmatch
from typing import TYPE_CHECKING, Any, BinaryIO

from sdrt.errors import RequestError, SdrtError
from sdrt.images.decoding import load_plugin
from sdrt.images.metadata import save_options

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "DEFAULT_NAME",
    "FORMATS",
    "Format",
    "check_capacity",
    "check_target",
    "file_names",
    "format_of",
    "name_pattern",
    "save",
    "write_atomically",
    "write_image",
]

DEFAULT_NAME = "sdrt-{seed}.png"
_FIELDS = ("seed", "index")


@dataclass(frozen=True, kw_only=True)
class Format:
    """An image format: its name in Pillow, options for `save`, and limits.

    `max_side` is in pixels, `max_text` in characters of metadata.
    """

    name: str
    options: dict[str, int] = field(default_factory=dict)
    max_side: int = 2**31 - 1
    max_text: int = 2**20


# A JPEG segment holds 65,533 bytes: EXIF's header, the settings, and 2 bytes for most characters (4 for a few).
_JPEG = Format(name="JPEG", options={"quality": 95, "subsampling": 0}, max_side=65_500, max_text=16_000)
FORMATS = {
    # For flat colours, level 4 takes half the time of Pillow's own, 6, and 6 % more bytes. For photographs, both are
    # equal.
    ".png": Format(name="PNG", options={"compress_level": 4}),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format(name="WEBP", options={"quality": 95}, max_side=16_383),
}


def format_of(path: Path) -> Format:
    """The format of a file's extension. Raises `RequestError` for another extension."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise RequestError.expected(
            f"{path} has the extension {path.suffix!r}", f"one of {', '.join(FORMATS)}", path=path
        ) from None


def check_capacity(path: Path, *, sides: Sequence[int | None], text: int) -> None:
    """Raise `RequestError` if the format cannot hold a side (pixels) or metadata of `text` characters."""
    target = format_of(path)
    largest = max(side or 0 for side in sides)
    if largest > target.max_side:
        raise RequestError.advised(
            f"{path} cannot hold the image, because {target.name} has at most {target.max_side} "
            "pixels a side",
            "use .png" if largest <= FORMATS[".png"].max_side else "make a smaller image",
            path=path,
        )
    if text > target.max_text:
        larger = ".png or " if target.name != "PNG" else ""
        raise RequestError.advised(
            f"{path} cannot hold the prompt, which is too long for {target.name}'s metadata",
            f"use {larger}no metadata (--no-metadata, metadata=False)",
            path=path,
        )


def file_names(pattern: str | None, seeds: Sequence[int]) -> tuple[Path, ...]:
    """One path for each seed.

    `pattern` is a file name that may contain `{seed}` and `{index}`, or a folder. If names coincide, all get `-0`,
    `-1`, … before the extension.

    Raises:
        RequestError: the pattern is wrong, or its format is unknown.
    """
    template = name_pattern(pattern)
    names = [template.format(seed=seed, index=index) for index, seed in enumerate(seeds)]
    paths = [Path(name) for name in names]
    if len(set(paths)) < len(paths):
        paths = [path.with_name(f"{path.stem}-{i}{path.suffix}") for i, path in enumerate(paths)]
    for path in paths:
        format_of(path)
    return tuple(paths)


def name_pattern(pattern: str | None) -> str:
    """The checked pattern. `DEFAULT_NAME` for None, and for a folder. Raises `RequestError`."""
    if pattern is None:
        return DEFAULT_NAME
    if pattern.endswith(("/", os.sep)) or Path(pattern).is_dir():
        literal = pattern.replace("{", "{{").replace("}", "}}")
        return str(Path(literal, DEFAULT_NAME))
    try:
        fields = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise RequestError.advised(
            f"{pattern}: {error}", "write a literal brace twice", joint="; ", path=Path(pattern)
        ) from None
    for _, name, spec, conversion in fields:
        if name is not None and (name not in _FIELDS or conversion or not fullmatch(r"\d{0,2}", spec or "")):
            raise RequestError.expected(
                f"{pattern}: unknown field",
                "{seed}, {index} or, with a width, {index:03}",
                path=Path(pattern),
            )
    return pattern


def check_target(path: Path, *, force: bool) -> None:
    """Raise `RequestError` if the name is taken, unless `force`, or `OSError` if nothing can be written there."""
    if path.is_dir():
        raise RequestError.expected(f"{path} is a folder", "a file name", path=path)
    if not path.parent.is_dir():
        raise RequestError.advised(
            f"{path} cannot be written, because the folder {path.parent} does not exist",
            "make it first",
            path=path,
        )
    _check_absent(path, force=force)
    partial = _partial(path)
    try:
        partial.open("xb").close()
    finally:
        partial.unlink(missing_ok=True)


def _check_absent(path: Path, *, force: bool) -> None:
    if not force and os.path.lexists(path):
        raise _exists(path)


def write_image(path: Path, image: Image, text: str | None, *, force: bool) -> None:
    """Write an image in the format of the path's extension, with `text` as its metadata, whole or not at all.

    Raises:
        RequestError: the format is unknown, or the name is taken and `force` is false.
        SdrtError: the file cannot be written, or the format cannot hold the image.
    """
    target = format_of(path)

    def write(file: BinaryIO) -> None:
        try:
            save(file, image, target, text)
        except ValueError as error:
            raise SdrtError(f"{path} cannot be written: {error}", path=path) from error

    write_atomically(path, write, force=force)


def save(file: BinaryIO, image: Image, target: Format, text: str | None) -> None:
    """Write an image into an open file, with `text` as its metadata.

    Raises `ValueError` if the format cannot hold the image.
    """
    load_plugin(target.name)
    options: dict[str, Any] = dict(target.options)
    if text is not None:
        options |= save_options(target.name, text)
    image.save(file, format=target.name, **options)


def _exists(path: Path) -> RequestError:
    return RequestError.advised(
        f"{path} exists already",
        "choose another name, or overwrite it with --force (overwrite=True)",
        path=path,
    )


def _partial(path: Path) -> Path:
    # Unique, in case a killed run left one behind, and short, because the name of `path` may be as long as allowed.
    return path.with_name(f".sdrt-{uuid.uuid4().hex[:16]}.part")


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, force: bool) -> None:
    """Call `write` on a file beside `path`, then move it to `path`. An interruption leaves nothing behind."""
    partial = _partial(path)
    try:
        try:
            with partial.open("wb") as file:
                write(file)
            _publish(partial, path, force=force)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise SdrtError(f"{path} cannot be written: {error.strerror or error}", path=path) from error


def _publish(partial: Path, path: Path, *, force: bool) -> None:
    """Give `partial` the name `path`. Without `force`, fail atomically if the name is taken."""
    if force:
        partial.replace(path)
        return
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise _exists(path) from None
    except (OSError, NotImplementedError):
        # A file system without hard links: claim the name, then replace the file.
        try:
            path.open("xb").close()
        except FileExistsError:
            raise _exists(path) from None
        partial.replace(path)
