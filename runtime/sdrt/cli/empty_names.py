"""Empty names of files, such as from an unset variable of the shell."""

from __future__ import annotations

import click

from sdrt.errors import RequestError

__all__ = ["refuse_empty_names"]

_FITS = {
    "FILE": "the name of a file",
    "FILE|-": "the name of a file, or - for standard input",
    "DIR": "the name of a folder",
}
"""What an option takes, by its metavar."""


def refuse_empty_names() -> None:
    """Raise `RequestError` for an option of the command that runs, if it got an empty name of a file or folder.

    pathlib takes an empty name for the current folder.
    """
    context = click.get_current_context()
    for one in context.command.params:
        fits = _FITS.get(one.metavar or "") if isinstance(one, click.Option) else None
        given = context.params.get(one.name or "")
        if fits and "" in (given if isinstance(given, (list, tuple)) else [given]):
            spelling = next((name for name in one.opts if name.startswith("--")), one.opts[0])
            raise RequestError.expected(f"{spelling} is ''", fits, argument=one.name)
