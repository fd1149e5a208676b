"""Where images are made: in processes of this machine, or on a cluster. Both answer groups of rows as they finish."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from sdrt.batch.row import Row
from sdrt.errors import RequestError
from sdrt.serve.make import failure_of
from sdrt.serve.task import Failure, FileFormat, ImageTask, Made

__all__ = ["Answer", "Group", "Lost", "Place"]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that are made in one run.

    Attributes:
        rows: the rows, with their keys.
        file_format: the format of their images.
        attempt: how often workers ended during a run of them before.
    """

    rows: tuple[tuple[Row, str], ...]
    file_format: FileFormat
    attempt: int = 0

    def tasks(self) -> list[ImageTask] | Failure:
        """The tasks, with the contents of files, or why a file cannot be read."""
        try:
            return [row.task(self.file_format) for row, _ in self.rows]
        except RequestError as error:
            return failure_of(error)


@dataclass(frozen=True)
class Lost:
    """A run ended with its worker. `reason` says how."""

    reason: str


Answer = Sequence[Made] | Failure | Lost


class Place(AbstractContextManager[Any], Protocol):
    """Makes images while it is entered."""

    def answers(self, groups: Sequence[Group]) -> Iterator[tuple[Group, Answer]]:
        """Make the images of all groups, and yield each with its answer when it has one, in any order.

        Raises:
            SdrtError: nothing can be made any more, such as without the model.
        """
