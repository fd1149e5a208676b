"""Messages name the arguments of the Python API. On the command line, they name the options that a user types."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Set
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sdrt.common.notices import Notify
    from sdrt.errors import SdrtError

__all__ = ["in_options", "located", "naming_options", "options_of", "spelled"]

_LOCATED = re.compile(r".*?, line \d+: ")
"""What messages about a line of a prompts file begin with."""
_FREE = r"(?<![\w/.'\"-]){}(?![\w/.'\"-])"
"""A name that is no part of a longer name, of a path or of a quoted value."""
_SIDES = ("width", "height")
_LEADS = "without |give |leave out |leave |one of "
_ENDS = r"(?= (?:or|and|has|is|out|\d)\b|[,;:.]|$)"


def options_of(command: click.Command | None) -> dict[str, str]:
    """The first long spelling of each option of a command, by the name of the argument in Python."""
    found = {}
    for one in command.params if command else ():
        long = [spelling for spelling in one.opts if spelling.startswith("--")]
        if isinstance(one, click.Option) and long and one.name:
            found[one.name] = long[0]
    # Where `--size` has both, nobody knows whether the user typed these.
    return {name: one for name, one in found.items() if "sizes" not in found or name not in _SIDES}


def in_options(error: SdrtError, command: click.Command | None = None) -> str:
    """The message of an error with the options of a command in place of arguments.

    Without `command`, it is the one that runs.
    """
    text = str(error)
    # In a message about a line, `located` has replaced the names.
    return text if _LOCATED.match(text) else spelled(text, options_of(command or _running()), error.argument)


def located(error: SdrtError, location: str, keys: Mapping[str, str]) -> str:
    """The message of an error, after the `location` of a line of a prompts file.

    It names the settings of the line by their `keys`, and others by the options of the command that runs.
    """
    options = options_of(_running()) | dict(keys)
    return f"{location}: {spelled(str(error), options, error.argument)}"


def naming_options(notify: Notify) -> Notify:
    """Tell the user the same with the options of the command that runs in place of arguments."""
    options = options_of(_running())
    return lambda message: notify(spelled(message, options))


def _running() -> click.Command | None:
    context = click.get_current_context(silent=True)
    return context.command if context else None


def spelled(text: str, options: Mapping[str, str], argument: str | None = None) -> str:
    """A message with `options` in place of arguments, which are the keys of this mapping.

    Names with an underscore are replaced everywhere. Others, such as "image", are words too. They are replaced at the
    beginning, if the message is about this `argument` or says what the argument is, and where the message says what
    to give or to leave out.
    """
    if not options or not (argument is None or argument in options or argument in _only_in_python()):
        return text
    text = _without_python(text, options)
    words = {name for name in options if "_" not in name}
    first = text.partition(" ")[0].rstrip(":")
    if first in words and (first == argument or re.match(r"\w+ (?:has|is|needs)\b", text)):
        text = options[first] + text[len(first) :]
    text = re.sub(_FREE.format(r"[a-z]+(?:_[a-z0-9]+)+"), lambda found: options.get(found[0], found[0]), text)
    return _in_phrases(text, options, words)


def _in_phrases(text: str, options: Mapping[str, str], words: Set[str]) -> str:
    """Replace `words` that follow what asks for an argument, or an option and "and" or "or"."""
    if not words:
        return text
    any_word = "|".join(sorted(words, key=len, reverse=True))

    def replaced(found: re.Match[str]) -> str:
        return found[1] + options[found[2]]

    for lead in (rf"\b{_LEADS}", r"--[\w-]+ (?:and|or) "):
        text = re.sub(rf"({lead})({any_word}){_ENDS}", replaced, text)
    return text


def _without_python(text: str, options: Mapping[str, str]) -> str:
    """Leave out what only programs can do: the code before an option in parentheses, and arguments without option."""

    def option_alone(found: re.Match[str]) -> str:
        is_code = found[1] in options or not found[1].isidentifier()
        return found[2] if is_code and found[3] in options.values() else found[0]

    text = re.sub(r"(?<!\S)([a-z]\w*(?:=\S+|\([^()]*\))?) \(((--[\w-]+)[^()]*)\)", option_alone, text)
    for name in _only_in_python():
        text = re.sub(rf" or {_FREE.format(name)}", "", text)
    return text


@functools.cache
def _only_in_python() -> frozenset[str]:
    """The arguments of a call that have no option."""
    from sdrt.request.table import TABLE

    return frozenset(row.name for row in TABLE if row.option is None)
