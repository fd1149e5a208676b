"""What a row of the table of settings says: its kind and bounds, its option, its label in files."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = [
    "GROUPS",
    "Group",
    "Kind",
    "Label",
    "Option",
    "Setting",
    "help_texts",
    "setting",
    "settings_of",
]


class Group:
    """The headings of the help."""

    USUAL = "The options that most people need"
    MANY = "Many images"
    PROMPTS = "Prompts"
    IMAGE_TO_IMAGE = "Image to image"
    PAINTING = "Inpainting and outpainting"
    LARGE = "Large images"
    SAMPLING = "Sampling"
    PROGRAMS = "For programs"


GROUPS = (
    Group.USUAL,
    Group.MANY,
    Group.PROMPTS,
    Group.IMAGE_TO_IMAGE,
    Group.PAINTING,
    Group.LARGE,
    Group.SAMPLING,
    Group.PROGRAMS,
)
"""In the order of the help."""

Kind = type[str] | type[int] | type[float] | type[bool]


@dataclass(frozen=True, eq=False)
class Label:
    """How a setting stands in an image's metadata: A1111's label, and its way to a text and back.

    Without a way of its own, a setting takes that of its kind.
    """

    name: str
    read: Callable[[str], Any] | None = None
    """Raises `ValueError` for what is not `expected`."""
    write: Callable[[Any], str] | None = None
    expected: str | None = None
    always: bool = False
    """Whether it is written where it has its default, too."""


@dataclass(frozen=True, eq=False)
class Option:
    """How a setting is given to `sdrt generate` and `sdrt plot`, and in a prompts file.

    `spellings` are those of the option, none for an argument. A value of kind bool has an option that turns it off.
    """

    spellings: tuple[str, ...] = ()
    metavar: str | None = None
    key: str = ""
    """Its name in prompts files, as an axis and in reports; that of the setting unless said otherwise."""
    also: tuple[str, ...] = ()
    """More names that prompts files and axes may use, beside the spellings."""
    help: str | None = None
    """Where the help says it in other words than the Python documentation."""
    usual: str | None = None
    """The same, of the default."""


_NO_OPTION = Option()
_BRACES = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """A row of the table.

    In `about` and `usual`, another setting's name in braces is its option in the help.
    """

    name: str = ""
    """The argument of a call and the field of `Request`."""
    default: Any = None
    kind: Kind | None = None
    """What it is as a text or number; None for arrays and functions, which programs alone give."""
    bounds: tuple[float, float] | None = None
    """The least and the most, of a number or each of several; None where it depends on other settings."""
    choices: tuple[str, ...] = ()
    most: int | None = None
    """The most numbers of a list of them; None for what is no list."""
    rank: int | None = None
    """Of an array of floating-point numbers."""
    keeps_int: bool = False
    """Whether a float that was given as an int stays one: metadata say it as it was given."""
    only_with: tuple[str, ...] = ()
    """It means nothing unless one of these is given."""
    about: str = ""
    more: str = ""
    """What only the Python documentation says."""
    usual: str = ""
    """What None stands for."""
    group: str = ""
    """The heading that help and documentation show it under."""
    option: Option | None = None
    label: Label | None = None

    @property
    def key(self) -> str:
        """Its name in prompts files, as an axis and in reports."""
        return (self.option.key if self.option else "") or self.name

    @property
    def spelling(self) -> str:
        """Its option, for messages and help."""
        long = [one for one in self.option.spellings if one.startswith("--")] if self.option else []
        return long[0] if long else self.name

    @property
    def names(self) -> tuple[str, ...]:
        """What prompts files and axes may call it."""
        if self.option is None:
            return ()
        if self.kind is bool:
            # Its option says the opposite of its name.
            return (self.name,)
        long = (one[2:].replace("-", "_") for one in self.option.spellings if one.startswith("--"))
        return tuple(dict.fromkeys((self.key, self.name, *long, *self.option.also)))


def help_texts(table: Iterable[Setting]) -> dict[str, str]:
    """The help of every setting's option, by the setting's name."""
    table = tuple(table)
    spellings = {
        row.name: next((one for one in row.option.spellings if one.startswith("--")), row.name)
        if row.option
        else row.name
        for row in table
    }
    texts = {}
    for row in table:
        option = row.option or _NO_OPTION
        text = row.about if option.help is None else option.help
        if usual := row.usual if option.usual is None else option.usual:
            text += f"  [default: {usual}]"
        texts[row.name] = _BRACES.sub(lambda found: spellings.get(found[1], found[1]), text)
    return texts


def setting(default: Any, about: str = "", **row: Any) -> Any:
    """A field of a dataclass that is a row of the table; the arguments are those of `Setting`."""
    made = Setting(default=default, about=about, **row)
    said = {"about": f"{about} {made.more}".strip(), "usual": made.usual}
    named = {key: _BRACES.sub(r"\1", text) for key, text in said.items()}
    return field(default=default, metadata=named | {"setting": made})


def settings_of(arguments: Any) -> tuple[Setting, ...]:
    """The rows that a dataclass and its bases were made of, in the order of their fields."""
    return _rows(arguments)


@functools.cache
def _rows(arguments: Any) -> tuple[Setting, ...]:
    found: dict[str, Setting] = {}
    for base in reversed(arguments.__mro__):
        for name, one in vars(base).get("__dataclass_fields__", {}).items():
            if "setting" in one.metadata:
                found[name] = replace(one.metadata["setting"], name=name)
    return tuple(found.values())
