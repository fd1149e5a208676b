"""Where images go: names from a pattern, checked before any work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdrt.errors import RequestError
from sdrt.images import files
from sdrt.images.files import DEFAULT_NAME, FORMATS, check_target, format_of, write_atomically

__all__ = [
    "FORMATS",
    "check_capacity",
    "format_of",
    "plan_file",
    "plan_paths",
    "plan_sheet_path",
    "write_atomically",
]


def check_capacity(path: Path, *, sides: Sequence[int | None], text: int) -> None:
    """Refuse a format that cannot hold a side (pixels) or the metadata's `text` (characters)."""
    with _option("-o", str(path)):
        files.check_capacity(path, sides=sides, text=text)


def plan_paths(
    pattern: str | None, seeds: Sequence[int], *, force: bool, option: str = "-o"
) -> tuple[Path, ...]:
    """One path per seed, each known to be writable and, unless `force`, not to exist yet.

    `pattern` is a file name with optional `{seed}` and `{index}`, or a folder. Names that would coincide
    get `-0`, `-1`, … before the extension.
    """
    with _option(option, pattern):
        paths = files.file_names(pattern, seeds)
        for path in paths:
            check_target(path, force=force)
    return paths


def plan_sheet_path(pattern: str | None, seeds: Sequence[int], *, force: bool) -> Path:
    """Where the contact sheet goes: the pattern's name with `-grid` before the extension, checked alike."""
    with _option("-o", pattern):
        path = Path(files.name_pattern(pattern).format(seed=seeds[0], index=0))
        path = path.with_name(f"{path.stem}-grid{path.suffix}")
        check_target(path, force=force)
    return path


def plan_file(option: str, name: str, extension: str, *, force: bool) -> Path:
    """The file that `option` names, with this extension; checked as the images' files are."""
    path = Path(name)
    if path.suffix.lower() != extension:
        raise RequestError(f"{option} {name}: unknown extension {path.suffix!r}; expected {extension}")
    with _option(option, name):
        check_target(path, force=force)
    return path


@contextmanager
def _option(option: str, pattern: str | None) -> Iterator[None]:
    """Errors begin with the option that asked for the file."""
    try:
        yield
    except RequestError as error:
        raise RequestError(f"{option} {error}", argument=option) from error
    except OSError as error:
        raise RequestError(
            f"{option} {pattern or DEFAULT_NAME}: cannot be written: {error.strerror}; choose another name"
        ) from None
