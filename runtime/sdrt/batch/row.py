"""A row of the table: its settings, the task that makes its image, and what identifies both."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdrt.errors import RequestError, SdrtError
from sdrt.images.decoding import MOST_BYTES
from sdrt.request.loras import LoraFile, parse_lora
from sdrt.request.pairs import Pair
from sdrt.serve.task import IMAGES, FileFormat, ImageTask

__all__ = ["MODEL", "Identities", "Row"]

MODEL = "model"
"""What the tasks call the model. All rows have the same one."""
_FILES = ("lora", "lora_dir", "refiner", "refiner_config", "hires_refiner", "scheduler")
"""The settings that may name files other than images."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row of the table, which makes one image.

    Attributes:
        number: its place in the table, counted from 0.
        id: what the table calls it, if it does.
        settings: arguments of the call that makes the image. Those with their usual value are missing. Images are
            paths, or the bytes of files.
        error: what is wrong with the row, if it was not acceptable when it was read.
    """

    number: int
    id: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    error: RequestError | None = None

    @property
    def seed(self) -> int:
        """The seed of the image. 0 for a row that was not acceptable."""
        return int(self.settings.get("seed", 0))

    def task(self, file_format: FileFormat) -> ImageTask:
        """The task that makes the image, with the content of the row's files.

        Raises:
            RequestError: a file cannot be read.
        """
        settings = dict(self.settings)
        for name in settings.keys() & set(IMAGES):
            given = settings[name]
            settings[name] = (
                [_content(name, one) for one in given]
                if isinstance(given, (list, tuple))
                else _content(name, given)
            )
        return ImageTask(model=MODEL, settings=settings, file_format=file_format)


def _content(name: str, given: str | bytes) -> bytes:
    if isinstance(given, bytes):
        return given
    try:
        state = Path(given).stat()
        # A device may have no end, and a pipe can be read only once.
        if not stat.S_ISREG(state.st_mode) or state.st_size > MOST_BYTES:
            raise OSError(f"it is no file of at most {MOST_BYTES >> 20} MB")
        return Path(given).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError.expected(
            f"{name} {given} cannot be read ({reason})", "an image file", argument=name
        ) from None


class Identities:
    """Tells rows apart by what their images depend on. Each file is read once.

    Args:
        model: what identifies the model.
        file_format: the format of the images.
    """

    def __init__(self, model: str, file_format: FileFormat) -> None:
        self._common = [model, file_format.suffix, file_format.quality, file_format.metadata]
        self._digests: dict[str, str] = {}

    def of(self, row: Row) -> str:
        """64 hex digits that are others when the row's settings, its files or the model are.

        Raises:
            RequestError: an image of the row cannot be read.
        """
        facts = {name: self._fact(name, value) for name, value in row.settings.items()}
        return _digest(json.dumps([*self._common, facts], sort_keys=True, default=str).encode())

    def _fact(self, name: str, value: Any) -> Any:
        each: Callable[[str, Any], Any] | None = None
        if name in IMAGES:
            each = self._image
        elif name in _FILES:
            each = _file
        if isinstance(value, Pair) or each is None:
            return value
        return [each(name, one) for one in value] if isinstance(value, (list, tuple)) else each(name, value)

    def _image(self, name: str, given: str | bytes) -> str:
        if isinstance(given, bytes):
            return _digest(given)
        if given not in self._digests:
            self._digests[given] = _digest(_content(name, given))
        return self._digests[given]


def _file(name: str, given: Any) -> Any:
    """A text that may name a file, with the file's size and time: weights are too large to be read for each run."""
    text = str(given)
    try:
        found = given if isinstance(given, LoraFile) else parse_lora(text) if name == "lora" else None
        state = (found.path if found else Path(text)).stat()
    except (OSError, ValueError, SdrtError):
        return text
    return [text, state.st_size, state.st_mtime_ns]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
