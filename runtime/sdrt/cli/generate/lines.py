"""The lines of a prompts file, which errors name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from sdrt.cli.spellings import located
from sdrt.errors import ModelError, RequestError

__all__ = ["NO_LINE", "Line"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a prompts file."""

    location: str = ""
    """The file and the number of the line, such as "prompts.txt, line 3". Empty if there is none."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """The keys of the settings that the line has, by the names of the arguments in Python."""

    @contextmanager
    def named_by_errors(self) -> Iterator[None]:
        """Within this block, every `RequestError` and `ModelError` begins with the location, and names settings as the
        line does.

        A line's model is that of the command, but its LoRAs are its own.
        """
        try:
            yield
        except (RequestError, ModelError) as error:
            if not self.location:
                raise
            kind = RequestError if isinstance(error, RequestError) else type(error)
            raise kind(located(error, self.location, self.keys), **vars(error)) from error


NO_LINE = Line()
"""The line of images that come from no prompts file."""
