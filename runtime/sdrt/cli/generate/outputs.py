"""Plan the names of output files, and check them before any work begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sdrt.cli.generate.streams import STDOUT, check_stdout
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
    """Check that the format of `path` can hold the image's sides (pixels) and its metadata (`text` characters).

    Raises `RequestError` if it cannot.
    """
    if path == STDOUT:
        return
    with _errors_name_option("-o", str(path)):
        files.check_capacity(path, sides=sides, text=text)


def plan_paths(
    pattern: str | None, seeds: Sequence[int], *, force: bool, option: str = "-o"
) -> tuple[Path, ...]:
    """Return one path per seed. Every path can be written and, unless `force` is True, does not exist yet.

    `pattern` is a folder, or a file name that may contain `{seed}` and `{index}`. If several images would get the same
    name, `-0`, `-1`, … is added before the extension. The pattern "-" is standard output.

    Raises:
        RequestError: a file cannot be written, or exists already. The message begins with `option`.
    """
    if pattern == str(STDOUT) and option == "-o":
        check_stdout(seeds)
        return (STDOUT,)
    with _errors_name_option(option, pattern):
        paths = files.file_names(pattern, seeds)
        for path in paths:
            check_target(path, force=force)
    return paths


def plan_sheet_path(pattern: str | None, seeds: Sequence[int], *, force: bool) -> Path:
    """Return the path of the contact sheet: `pattern` with `-grid` before the extension.

    Raises `RequestError` as `plan_paths` does.
    """
    if pattern == str(STDOUT):
        raise RequestError.expected(
            "-o - writes one image, and --grid a second one", "a file name", argument="-o"
        )
    with _errors_name_option("-o", pattern):
        path = Path(files.name_pattern(pattern).format(seed=seeds[0], index=0))
        path = path.with_name(f"{path.stem}-grid{path.suffix}")
        check_target(path, force=force)
    return path


def plan_file(option: str, name: str, extension: str, *, force: bool) -> Path:
    """Check the file `name`, which the user gave with `option`, and return its path.

    Raises `RequestError` as `plan_paths` does, and if the extension is not `extension`.
    """
    path = Path(name)
    if path.suffix.lower() != extension:
        raise RequestError.expected(
            f"{option} {name} has the extension {path.suffix!r}", extension, argument=option, path=path
        )
    with _errors_name_option(option, name):
        check_target(path, force=force)
    return path


@contextmanager
def _errors_name_option(option: str, pattern: str | None) -> Iterator[None]:
    """Within this block, errors become `RequestError`s that begin with the option that names the file."""
    try:
        yield
    except RequestError as error:
        raise RequestError(f"{option} {error}", **vars(error) | {"argument": option}) from error
    except OSError as error:
        raise RequestError.advised(
            f"{option} {pattern or DEFAULT_NAME} cannot be written ({error.strerror})",
            "choose another name",
            argument=option,
            path=Path(pattern or DEFAULT_NAME),
        ) from None
