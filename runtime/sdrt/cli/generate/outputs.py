"""Where pictures go: names from a pattern, checked before any work, written in one piece or not at all."""

from __future__ import annotations

import os
import string
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from re import fullmatch
from typing import BinaryIO

from sdrt.errors import RequestError, SdrtError

__all__ = [
    "FORMATS",
    "Format",
    "check_capacity",
    "format_of",
    "plan_file",
    "plan_paths",
    "plan_sheet_path",
    "write_atomically",
]

DEFAULT_NAME = "sdrt-{seed}.png"
_FIELDS = ("seed", "index")


@dataclass(frozen=True, kw_only=True)
class Format:
    """A picture format: Pillow's name, its options for `save`, and what fits into it.

    `max_side` is in pixels, `max_text` in characters of metadata.
    """

    name: str
    options: dict[str, int] = field(default_factory=dict)
    max_side: int = 2**31 - 1
    max_text: int = 2**20


# A JPEG segment holds 65,533 bytes: EXIF's header, the settings, and 2 bytes for a character (4 for a few).
_JPEG = Format(name="JPEG", options={"quality": 95, "subsampling": 0}, max_side=65_500, max_text=16_000)
FORMATS = {
    ".png": Format(name="PNG"),
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format(name="WEBP", options={"quality": 95}, max_side=16_383),
}


def format_of(path: Path, option: str = "-o") -> Format:
    """The format that a file's extension asks for."""
    try:
        return FORMATS[path.suffix.lower()]
    except KeyError:
        raise RequestError(
            f"{option} {path}: unknown extension {path.suffix!r}; expected one of {', '.join(FORMATS)}",
            argument=option,
            path=path,
            fits=", ".join(FORMATS),
        ) from None


def check_capacity(path: Path, *, sides: Sequence[int | None], text: int) -> None:
    """Refuse a format that cannot hold a side (pixels) or the metadata's `text` (characters)."""
    target = format_of(path)
    if max(side or 0 for side in sides) > target.max_side:
        raise RequestError(f"-o {path}: {target.name} holds {target.max_side} pixels a side; use .png")
    if text > target.max_text:
        larger = ".png or " if target.name != "PNG" else ""
        raise RequestError(
            f"-o {path}: the prompt is too long for {target.name}'s metadata; use {larger}--no-metadata"
        )


def plan_paths(
    pattern: str | None, seeds: Sequence[int], *, force: bool, option: str = "-o"
) -> tuple[Path, ...]:
    """One path per seed, each known to be writable and, unless `force`, not to exist yet.

    `pattern` is a file name with optional `{seed}` and `{index}`, or a folder. Names that would coincide
    get `-0`, `-1`, … before the extension.
    """
    with _writable(pattern, option):
        return _plan_paths(pattern, seeds, option, force=force)


def plan_sheet_path(pattern: str | None, seeds: Sequence[int], *, force: bool) -> Path:
    """Where the contact sheet goes: the pattern's name with `-grid` before the extension, checked alike."""
    with _writable(pattern, "-o"):
        path = Path(_template(pattern, "-o").format(seed=seeds[0], index=0))
        path = path.with_name(f"{path.stem}-grid{path.suffix}")
        _check_target(path, "-o", force=force)
    return path


def plan_file(option: str, name: str, extension: str, *, force: bool) -> Path:
    """The file that `option` names, with this extension; checked as the pictures' files are."""
    path = Path(name)
    if path.suffix.lower() != extension:
        raise RequestError(f"{option} {name}: unknown extension {path.suffix!r}; expected {extension}")
    with _writable(name, option):
        _check_target(path, option, force=force)
    return path


@contextmanager
def _writable(pattern: str | None, option: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RequestError(
            f"{option} {pattern or DEFAULT_NAME}: cannot be written: {error.strerror}; choose another name"
        ) from None


def _plan_paths(pattern: str | None, seeds: Sequence[int], option: str, *, force: bool) -> tuple[Path, ...]:
    template = _template(pattern, option)
    names = [template.format(seed=seed, index=index) for index, seed in enumerate(seeds)]
    paths = [Path(name) for name in names]
    if len(set(paths)) < len(paths):
        paths = [path.with_name(f"{path.stem}-{i}{path.suffix}") for i, path in enumerate(paths)]
    for path in paths:
        format_of(path, option)
        _check_target(path, option, force=force)
    return tuple(paths)


def _template(pattern: str | None, option: str) -> str:
    if pattern is None:
        return DEFAULT_NAME
    if pattern.endswith(("/", os.sep)) or Path(pattern).is_dir():
        literal = pattern.replace("{", "{{").replace("}", "}}")
        return str(Path(literal, DEFAULT_NAME))
    try:
        fields = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise RequestError(f"{option} {pattern}: {error}; a literal brace is written twice") from None
    for _, name, spec, conversion in fields:
        if name is not None and (name not in _FIELDS or conversion or not fullmatch(r"\d{0,2}", spec or "")):
            raise RequestError(
                f"{option} {pattern}: unknown field; expected {{seed}}, {{index}} or, with a width, {{index:03}}"
            )
    return pattern


def _check_target(path: Path, option: str, *, force: bool) -> None:
    if path.is_dir():
        raise RequestError(f"{option} {path}: is a folder; expected a file name")
    if not path.parent.is_dir():
        raise RequestError(f"{option} {path}: the folder {path.parent} does not exist; make it first")
    _check_absent(path, option, force=force)
    partial = _partial(path)
    partial.open("xb").close()
    partial.unlink()


def _check_absent(path: Path, option: str, *, force: bool) -> None:
    if not force and os.path.lexists(path):
        raise _exists(path, option)


def _exists(path: Path, option: str = "-o") -> RequestError:
    return RequestError(f"{option} {path}: exists already; choose another name, or overwrite it with --force")


def _partial(path: Path) -> Path:
    # A name of its own each time: what a killed run left behind must not be in the way. Nor must a long name.
    return path.with_name(f".sdrt-{uuid.uuid4().hex[:16]}.part")


def write_atomically(path: Path, write: Callable[[BinaryIO], object], *, force: bool) -> None:
    """Call `write` on a file beside `path`, then move it there; an interruption leaves nothing behind."""
    partial = _partial(path)
    try:
        try:
            with partial.open("wb") as file:
                write(file)
            _publish(partial, path, force=force)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise SdrtError(f"{path}: could not be written: {error.strerror or error}") from error


def _publish(partial: Path, path: Path, *, force: bool) -> None:
    """Give `partial` the name `path`; without `force` that fails, in one step, where the name is taken."""
    if force:
        partial.replace(path)
        return
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise _exists(path) from None
    except (OSError, NotImplementedError):
        # A file system without hard links: claim the name, then fill it.
        try:
            path.open("xb").close()
        except FileExistsError:
            raise _exists(path) from None
        partial.replace(path)
