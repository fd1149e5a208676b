"""Reads the rows of `sdrt batch` from a table or a list of prompts. A row that is wrong has its error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from sdrt.batch.row import Row
from sdrt.cli.generate.texts import Texts
from sdrt.cli.generate.variations import Entry, entry_of, image_settings, is_object, object_of
from sdrt.cli.process import standard_input
from sdrt.common.seeds import seeds_from, settled_seed
from sdrt.errors import RequestError
from sdrt.prompts.wildcard_files import WildcardFiles
from sdrt.request.request import Request
from sdrt.request.setting import settings_of
from sdrt.request.table import TABLE
from sdrt.serve.task import IMAGES

__all__ = ["read_rows"]

MAX_ROWS = 1_000_000
_LONGEST_LINE = 64 << 20
_OF_CALL = ("scheduler", "spacing")
_RANDOM = -1


@dataclass(frozen=True)
class Found:
    """A row of the input before the options are added: its settings, or what is wrong with it."""

    id: str | None
    entry: Entry | RequestError


def read_rows(name: str, settings: Mapping[str, Any], wildcards: WildcardFiles | None) -> list[Row]:
    """Read the rows of a file.

    Args:
        name: a file that ends in .jsonl, .parquet or .txt, or - for standard input, which is read as .txt.
        settings: the settings that rows take if they have none of their own, by name.
        wildcards: where the wildcards of prompts are looked up.

    Raises:
        RequestError: the file cannot be read, holds no rows or too many, or a column is no setting.
    """
    reader = _READERS.get(Path(name).suffix.lower()) if name != "-" else _read_prompts
    if reader is None:
        raise RequestError.expected(
            f"{name} has the extension {Path(name).suffix!r}",
            f"one of {', '.join(_READERS)}, or - for standard input",
            path=Path(name),
        )
    first = settled_seed("seed", settings["seed"] or 0)
    rows: list[Row] = []
    for number, found in enumerate(reader(name)):
        if number >= MAX_ROWS:
            raise RequestError.advised(f"{name} has more than {MAX_ROWS} rows", "split it", path=Path(name))
        rows.append(_row(number, found, settings, first, wildcards))
    if not rows:
        raise RequestError.expected(f"{name} has no rows", "one for each image", path=Path(name))
    return rows


def _row(
    number: int, found: Found, common: Mapping[str, Any], first: int, wildcards: WildcardFiles | None
) -> Row:
    """The row with the settings that all have. Its seed is that of the table, or counts up from the command's."""
    entry = found.entry
    if isinstance(entry, RequestError):
        return Row(number=number, id=found.id, error=entry)
    settings = {**common, **entry.settings}
    try:
        with entry.line.named_by_errors():
            own = entry.settings.get("seed", _RANDOM)
            seed = settled_seed("seed", own) if own != _RANDOM else seeds_from(first + number, 1)[0]
            texts = Texts.of(entry.prompt, settings, seed, wildcards)
    except RequestError as error:
        return Row(number=number, id=found.id, settings={"prompt": entry.prompt}, error=error)
    given = settings | dict(texts.made) | {"seed": seed}
    usual = {row.name: row.default for row in TABLE}
    names = [*(row.name for row in settings_of(Request)), *_OF_CALL]
    return Row(
        number=number,
        id=found.id,
        settings={
            name: given[name]
            for name in names
            if name in given and (name in ("prompt", "seed") or given[name] != usual[name])
        },
    )


def _found(make: Callable[[], tuple[dict[str, Any], str]], facts: Mapping[str, Any]) -> Found:
    """The row of a mapping, or its error. Its `id` is no setting."""
    identifier: str | None = None
    try:
        given, location = make()
        identifier = _identifier(given.pop("id", None), location)
        images = {name: given.pop(name) for name in IMAGES if _is_content(given.get(name))}
        entry = entry_of(given, image_settings(), location, facts)
        settings = {**entry.settings, **images}
        return Found(identifier, Entry(prompt=entry.prompt, settings=settings, line=entry.line))
    except RequestError as error:
        return Found(identifier, error)


def _identifier(given: Any, location: str) -> str | None:
    if given is None or isinstance(given, str):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return str(given)
    raise RequestError.expected(f"{location}: id is {given!r:.64}", "a text or a whole number", argument="id")


def _is_content(value: Any) -> bool:
    """Whether a setting is the content of image files, which only tables of bytes have."""
    many = value if isinstance(value, list) else [value]
    return bool(many) and all(isinstance(one, bytes) for one in many)


def _read_prompts(name: str) -> Iterator[Found]:
    """The rows of a list of prompts, in which a line may also be a JSON object, as `sdrt generate` reads it."""
    for text, location, facts in _lines(name):
        if isinstance(text, RequestError):
            yield Found(None, text)
        elif text.startswith("#"):
            continue
        elif is_object(text):
            yield _json(text, location, facts)
        else:
            yield _found(lambda text=text, location=location: ({"prompt": text}, location), facts)  # type: ignore[misc]


def _read_json_lines(name: str) -> Iterator[Found]:
    for text, location, facts in _lines(name):
        yield Found(None, text) if isinstance(text, RequestError) else _json(text, location, facts)


def _json(text: str, location: str, facts: Mapping[str, Any]) -> Found:
    return _found(lambda: (object_of(text, location, facts), location), facts)


def _lines(name: str) -> Iterator[tuple[str | RequestError, str, Mapping[str, Any]]]:
    """The lines that are not empty, without their ends, with where they are. One that is no text has an error."""
    shown = "standard input" if name == "-" else name
    facts = {"path": None if name == "-" else Path(name)}
    with _opened(name) as stream:
        for number, line in enumerate(iter(lambda: stream.readline(_LONGEST_LINE + 1), b""), 1):
            location = f"{shown}, line {number}"
            if len(line) > _LONGEST_LINE:
                raise RequestError.expected(
                    f"{location} has more than {_LONGEST_LINE >> 20} MB", "a row in each line", **facts
                )
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except ValueError as error:
                yield (
                    RequestError(f"{location} is not UTF-8 text: {error}", fits="UTF-8 text"),
                    location,
                    facts,
                )
                continue
            if text:
                yield text, location, facts


@contextmanager
def _opened(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield standard_input()
        return
    try:
        with Path(name).open("rb") as stream:
            yield stream
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"{name} cannot be read: {reason}", path=Path(name)) from error


def _read_parquet(name: str) -> Iterator[Found]:
    from sdrt.cli.batch.parquet import rows_of

    for number, given in enumerate(rows_of(name, image_settings())):
        location = f"{name}, row {number}"
        yield _found(lambda given=given, location=location: (given, location), {"path": Path(name)})  # type: ignore[misc]


_READERS = {
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
    ".txt": _read_prompts,
}
