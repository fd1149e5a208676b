"""The index of a folder of images: a line for each row when it is done, and a table at the end."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO

from sdrt.common.file_hash import sha256
from sdrt.errors import SdrtError
from sdrt.images.files import write_atomically

__all__ = ["LINES", "TABLE", "Entry", "Index"]

LINES, TABLE = "index.jsonl", "index.parquet"


_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("row", "seed", "width", "height"), (int,)),
    **dict.fromkeys(("id", "key", "prompt", "file", "sha256", "error", "error_kind"), (str,)),
    **{"seconds": (int, float), "flagged": (bool,), "settings": (dict,)},
}
"""The types of an entry's values, for lines that somebody else has written."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What became of a row.

    Attributes:
        row: the row's number, counted from 0.
        id: what the input calls it.
        key: what identifies its settings and the model.
        prompt, seed: those of the image.
        file: the image's file in the folder. None if there is none.
        width, height: its size in pixels.
        sha256: the hash of the file.
        seconds: how long the image took. Images of one run took this long together.
        flagged: whether the safety checker flagged it. None if none looked.
        error: why there is no image.
        error_kind: the class of the error.
        settings: the settings after the model's defaults were filled in; of a row with an error, those that it has.
    """

    row: int
    id: str | None = None
    key: str | None = None
    prompt: str | None = None
    seed: int | None = None
    file: str | None = None
    width: int | None = None
    height: int | None = None
    sha256: str | None = None
    seconds: float | None = None
    flagged: bool | None = None
    error: str | None = None
    error_kind: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, line: bytes) -> Entry | None:
        """The entry in a line. None for a line that a killed run left unfinished, or that is something else."""
        try:
            entry = cls(**json.loads(line))
        except (ValueError, TypeError, RecursionError):
            return None
        return entry if all(_fits(name, getattr(entry, name)) for name in _KINDS) else None

    def line(self) -> bytes:
        """The entry as a line of JSON."""
        return json.dumps(dataclasses.asdict(self), default=str).encode() + b"\n"


def _fits(name: str, value: Any) -> bool:
    """Whether a value of an entry has its type, and is no number that the table cannot hold."""
    if value is None:
        return name not in ("row", "settings")
    if type(value) is int and not 0 <= value < 2 ** (64 if name == "seed" else 63):
        return False
    return type(value) in _KINDS[name]


class Index:
    """The entries of a folder, by row. `add` writes a line at once, so a killed run loses only unfinished rows.

    Args:
        folder: the folder, which exists.

    Raises:
        SdrtError: the file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / LINES
        self._entries: dict[int, Entry] = {}
        try:
            if self._path.exists():
                for line in self._path.read_bytes().splitlines():
                    if (entry := Entry.read(line)) is not None:
                        self._entries[entry.row] = entry
            self._stream: BinaryIO = self._path.open("ab", buffering=0)
            self._end_last_line()
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def is_made(self, row: int, key: str, file: str) -> bool:
        """Whether the row's image is there, of these settings, and whole."""
        entry = self._entries.get(row)
        if entry is None or entry.error is not None or (entry.key, entry.file) != (key, file):
            return False
        path = self._folder / file
        try:
            return not path.is_symlink() and path.is_file() and sha256(path) == entry.sha256
        except OSError:
            return False

    def add(self, entry: Entry) -> None:
        """Add an entry, in place of one of the same row.

        Raises:
            SdrtError: the line cannot be written. What there is of it is taken back.
        """
        line = entry.line()
        size = os.fstat(self._stream.fileno()).st_size
        try:
            if self._stream.write(line) < len(line):
                # The reason comes with the next byte.
                self._stream.write(line[-1:])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BaseException as error:
            os.ftruncate(self._stream.fileno(), size)
            if isinstance(error, OSError):
                raise self._unwritable(error) from error
            raise
        self._entries[entry.row] = entry

    def keep(self, rows: Container[int]) -> int:
        """Forget the entries of other rows, and return how many they were."""
        others = [row for row in self._entries if row not in rows]
        for row in others:
            del self._entries[row]
        return len(others)

    def finish(self) -> bool:
        """Write both files in the order of the rows. Return whether there is a table, which needs pyarrow.

        Raises:
            SdrtError: a file cannot be written. The lines that were added stay.
        """
        entries = [self._entries[row] for row in sorted(self._entries)]

        def write_lines(file: BinaryIO) -> None:
            for entry in entries:
                file.write(entry.line())

        write_atomically(self._path, write_lines, force=True)
        self._stream.close()
        if find_spec("pyarrow") is None:
            (self._folder / TABLE).unlink(missing_ok=True)
            return False
        write_atomically(self._folder / TABLE, lambda file: _write_table(file, entries), force=True)
        return True

    def _end_last_line(self) -> None:
        """End a line that a killed run left unfinished, so that the next one is its own."""
        if os.fstat(self._stream.fileno()).st_size and self._path.read_bytes()[-1:] != b"\n":
            self._stream.write(b"\n")

    def _unwritable(self, error: OSError) -> SdrtError:
        return SdrtError(f"{self._path} cannot be written: {error.strerror or error}", path=self._path)


def _write_table(file: BinaryIO, entries: Iterable[Entry]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {
        **dict.fromkeys(("row", "width", "height"), pa.int64()),
        **{"seed": pa.uint64(), "seconds": pa.float64(), "flagged": pa.bool_()},
    }
    names = [one.name for one in dataclasses.fields(Entry)]
    schema = pa.schema([(name, types.get(name, pa.string())) for name in names])
    rows = [
        {name: _text(value) for name, value in dataclasses.asdict(entry).items()}
        | {"settings": json.dumps(dict(entry.settings), default=str)}
        for entry in entries
    ]
    # An OSError of the file must stay one: pyarrow keeps those of Python's files.
    pq.write_table(pa.Table.from_pylist(rows, schema), file)


def _text(value: Any) -> Any:
    """A text as UTF-8 can hold it: JSON may have half of a surrogate pair in an id or a file's name."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
