"""Makes the images of all rows that have none yet, and keeps the index."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sdrt.batch.index import LINES, TABLE, Entry, Index
from sdrt.batch.names import check_pattern, name_of
from sdrt.batch.place import Answer, Group, Lost, Place
from sdrt.batch.row import Identities, Row
from sdrt.common.interrupt import stop_if_asked
from sdrt.errors import RequestError, SdrtError
from sdrt.images.files import write_atomically
from sdrt.serve.make import failure_of
from sdrt.serve.task import Failure, FileFormat, Made

__all__ = ["Batch", "Report", "Summary"]

_ATTEMPTS = 2
"""How often a row is tried whose worker ends. Another process may have taken the memory."""
_LOCK = ".sdrt-batch.lock"


class Report(Protocol):
    """Shows how far the rows are."""

    def begin(self, rows: int, there: int) -> None:
        """Begin with `rows` rows, `there` of which are made already."""

    def done(self, *, made: bool) -> None:
        """Count a row that is made, or has failed."""

    def notice(self, text: str) -> None:
        """Tell the user something."""


@dataclass(kw_only=True)
class Summary:
    """What a run did.

    Attributes:
        rows: the rows of the table.
        there: those whose images were there already.
        made: those whose images were made.
        failed: those that have an error now.
        table: whether there is a Parquet file of the index.
    """

    rows: int
    there: int = 0
    made: int = 0
    failed: int = 0
    table: bool = False


@dataclass(kw_only=True)
class Batch:
    """A table of prompts, and the folder of its images.

    Attributes:
        rows: the rows.
        folder: where the images go. It is made if it is missing.
        pattern: the names of the images.
        file_format: their format.
        model: what identifies the model.
        batch_size: how many rows may share a run.
        force: whether to replace files that an earlier run did not write.
        report: what shows the progress.
    """

    rows: Sequence[Row]
    folder: Path
    pattern: str
    file_format: FileFormat
    model: str
    batch_size: int = 1
    force: bool = False
    report: Report
    summary: Summary = field(init=False)
    _index: Index = field(init=False, repr=False)

    def run(self, place: Place) -> Summary:
        """Make what is missing. A row that fails has its error in the index, and the others go on.

        Raises:
            RequestError: two rows would have one name, the folder holds other files with the names of images, or
                another batch writes there.
            SdrtError: a file cannot be written, or nothing can be made any more. What is finished is in the index.
        """
        check_pattern(self.pattern)
        self._check_names()
        self.summary = Summary(rows=len(self.rows))
        with self._locked():
            self._check_folder()
            self._index = Index(self.folder)
            try:
                self._make(place)
            except BaseException:
                # The error that ended the run is the one to tell. The lines are valid without this.
                with suppress(SdrtError):
                    self._finish()
                raise
            else:
                self._finish()
            finally:
                self._index.close()
        return self.summary

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Within this block, no other batch writes into the folder."""
        from filelock import FileLock, Timeout

        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / _LOCK, timeout=0)
            with lock:
                yield
        except Timeout:
            raise RequestError.advised(
                f"another sdrt batch writes into {self.folder}", "wait for it, or choose another folder"
            ) from None
        except OSError as error:
            raise SdrtError(
                f"{self.folder} cannot be written: {error.strerror or error}", path=self.folder
            ) from error

    def _check_names(self) -> None:
        """Refuse patterns such as {row}{seed}, by which row 1 with the seed 23 and row 12 with 3 are both 123."""
        found: dict[str, int] = {}
        for row in self.rows:
            if row.error is not None:
                continue
            name = name_of(self.pattern, row)
            first = found.setdefault(name, row.number)
            if first != row.number:
                raise RequestError.advised(
                    f"name is {self.pattern!r}, by which rows {first} and {row.number} are both {name}",
                    "separate the fields, as in {row:06}-{seed}.png",
                    argument="name",
                )

    def _check_folder(self) -> None:
        """Without an index, files with the names of images are somebody else's."""
        if self.force or (self.folder / LINES).exists():
            return
        for name in (TABLE, *(name_of(self.pattern, row) for row in self.rows if row.error is None)):
            if (self.folder / name).exists():
                raise RequestError.advised(
                    f"{self.folder / name} exists already, and {self.folder} has no {LINES} that lists it",
                    "choose another folder, or overwrite it with --force",
                    path=self.folder / name,
                )

    def _make(self, place: Place) -> None:
        missing = list(self._missing())
        others = self._index.keep(range(len(self.rows)))
        if others:
            self.report.notice(
                f"{others} rows of the index are no longer in the input: their files stay, and the index forgets them"
            )
        if not missing:
            return
        with place:
            groups = list(self._groups(missing))
            while groups:
                groups = [
                    again
                    for group, answer in place.answers(groups)
                    for again in self._answered(group, answer)
                ]

    def _missing(self) -> Iterator[tuple[Row, str]]:
        """The rows without an image, with their keys. Those that are not acceptable get their error."""
        identities, missing, bad = Identities(self.model, self.file_format), [], []
        for row in self.rows:
            stop_if_asked()
            try:
                if row.error is not None:
                    raise row.error
                key = identities.of(row)
            except RequestError as error:
                bad.append((row, failure_of(error)))
                continue
            if self._index.is_made(row.number, key, name_of(self.pattern, row)):
                self.summary.there += 1
            else:
                missing.append((row, key))
        self.report.begin(len(self.rows), self.summary.there)
        for row, failure in bad:
            self._failed(row, None, failure)
        yield from missing

    def _groups(self, rows: Sequence[tuple[Row, str]]) -> Iterator[Group]:
        """Rows that follow one another and can share a run, `batch_size` at most."""
        start = 0
        while start < len(rows):
            end = start + 1
            while end < min(start + self.batch_size, len(rows)) and self._share(rows[start][0], rows[end][0]):
                end += 1
            yield Group(rows=tuple(rows[start:end]), file_format=self.file_format)
            start = end

    def _share(self, one: Row, other: Row) -> bool:
        from sdrt.serve.task import ImageTask

        tasks = [ImageTask(model="", settings=row.settings) for row in (one, other)]
        return tasks[0].shares_run_with(tasks[1])

    def _answered(self, group: Group, answer: Answer) -> Iterator[Group]:
        """Note what became of a group. Yields the groups that are to be tried again."""
        if isinstance(answer, (Failure, Lost)) and len(group.rows) > 1:
            # One of them may have failed for all.
            for one in group.rows:
                yield Group(rows=(one,), file_format=group.file_format)
            return
        if isinstance(answer, Lost):
            if group.attempt + 1 < _ATTEMPTS:
                yield Group(rows=group.rows, file_format=group.file_format, attempt=group.attempt + 1)
                return
            answer = Failure(
                kind="WorkerLost",
                message=f"its worker ended {answer.reason}, {_ATTEMPTS} times: memory may have run out",
            )
        for index, (row, key) in enumerate(group.rows):
            if isinstance(answer, Failure):
                self._failed(row, key, answer)
            else:
                self._save(row, key, answer[index])

    def _save(self, row: Row, key: str, made: Made) -> None:
        for text in made.notices:
            self.report.notice(text)
        (image,) = made.images
        name = name_of(self.pattern, row)
        write_atomically(self.folder / name, lambda file: file.write(image.data), force=True)
        self._index.add(
            Entry(
                row=row.number,
                id=row.id,
                key=key,
                prompt=row.settings.get("prompt"),
                seed=image.seed,
                file=name,
                width=image.width,
                height=image.height,
                sha256=hashlib.sha256(image.data).hexdigest(),
                seconds=round(made.seconds, 4),
                flagged=image.flagged,
                settings=made.settings,
            )
        )
        self.summary.made += 1
        self.report.done(made=True)

    def _failed(self, row: Row, key: str | None, failure: Failure) -> None:
        settings = {name: value for name, value in row.settings.items() if not _is_large(value)}
        self._index.add(
            Entry(
                row=row.number,
                id=row.id,
                key=key,
                prompt=row.settings.get("prompt"),
                seed=row.settings.get("seed"),
                error=failure.message,
                error_kind=failure.kind,
                settings=settings,
            )
        )
        self.summary.failed += 1
        self.report.done(made=False)

    def _finish(self) -> None:
        self.summary.table = self._index.finish()


def _is_large(value: Any) -> bool:
    """Whether a setting is the content of a file, or of several."""
    return isinstance(value, bytes) or (isinstance(value, (list, tuple)) and any(map(_is_large, value)))
