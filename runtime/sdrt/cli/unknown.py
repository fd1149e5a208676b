"""Messages for unknown options and commands, which say what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

import click

from sdrt.foreign.command import COMMANDS, OPTIONS
from sdrt.foreign.word import find

__all__ = ["explain_option", "unknown_command"]

_LIKENESS = 0.7


def explain_option(error: click.NoSuchOption) -> str:
    """The message for an option that a command does not have."""
    asked = error.option_name
    context, name = error.ctx, asked.lstrip("-").replace("_", "-").lower()
    command = "" if context is None else context.info_name or ""
    is_top = context is not None and context.parent is None
    words = OPTIONS.get("generate" if is_top else command, ())
    if word := find(name, words) or find(name.removeprefix("no-"), words):
        return f"no option {asked} ({word.what}): {word.ours}"
    known = [] if context is None else _options(context.command, context)
    if close := _close(name, [one.lstrip("-") for one in known if one.startswith("--")]):
        return f"no option {asked}; did you mean {' or '.join(f'--{one}' for one in close)}?"
    if context is not None and isinstance(context.command, click.Group):
        return f"no option {asked}: write the command first, as in sdrt generate … {asked}"
    return f"no option {asked}"


def _options(command: click.Command, context: click.Context) -> list[str]:
    options = [one for one in command.get_params(context) if isinstance(one, click.Option) and not one.hidden]
    return [spelling for one in options for spelling in (*one.opts, *one.secondary_opts)]


def _close(name: str, known: Sequence[str]) -> list[str]:
    """The known names that `name` is an abbreviation or a misspelling of."""
    begins = [one for one in known if len(name) > 2 and one.startswith(name)]
    return begins or difflib.get_close_matches(name, known, n=2, cutoff=_LIKENESS)


def unknown_command(name: str, known: Iterable[str]) -> str:
    """The message for an unknown command."""
    known = list(known)
    if " " in name.strip():
        return f'unknown command {name!r}; to make an image of it, write sdrt generate "…"'
    if word := find(name.lower().replace("_", "-"), COMMANDS):
        return f"unknown command {name!r} ({word.what}); {word.ours}"
    if close := difflib.get_close_matches(name.lower(), known, n=1, cutoff=_LIKENESS):
        return f"unknown command {name!r}; did you mean {close[0]}?"
    return f"unknown command {name!r}; the commands are {', '.join(known)}"
