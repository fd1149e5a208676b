"""`Setting`, a row of the table of settings: its type and bounds, its command line option, its label in metadata."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from sdrt.request.pairs import Corner, Size

__all__ = [
    "GROUPS",
    "Group",
    "Kind",
    "Label",
    "Option",
    "Setting",
    "help_texts",
    "positional",
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
    CONTROL = "ControlNet"
    IMAGE_PROMPTS = "Image prompts (IP-Adapter)"
    LARGE = "Large images"
    SIZES = "Sizes and scores for SDXL"
    SAMPLING = "Sampling"
    TWO_MODELS = "Two models, or a part of a run"
    PROGRAMS = "For programs"


GROUPS = (
    Group.USUAL,
    Group.MANY,
    Group.PROMPTS,
    Group.IMAGE_TO_IMAGE,
    Group.PAINTING,
    Group.CONTROL,
    Group.IMAGE_PROMPTS,
    Group.LARGE,
    Group.SIZES,
    Group.SAMPLING,
    Group.TWO_MODELS,
    Group.PROGRAMS,
)
"""All headings, in the order of the help."""

Kind = type[str] | type[int] | type[float] | type[bool] | type[Size] | type[Corner]


@dataclass(frozen=True, eq=False)
class Label:
    """How a setting appears in an image's metadata: A1111's label, and the conversions to text and back.

    Without conversions of its own, a setting uses those of its `kind`.
    """

    name: str
    read: Callable[[str], Any] | None = None
    """Converts a text to a value. Raises `ValueError` if it cannot."""
    write: Callable[[Any], str] | None = None
    """Converts a value to a text."""
    expected: str | None = None
    """Which texts `read` accepts, for messages."""
    always: bool = False
    """Whether metadata contain the setting even if it has its default value."""


@dataclass(frozen=True, eq=False)
class Option:
    """How users give a setting to `sdrt generate` and `sdrt plot`, and in a prompts file."""

    spellings: tuple[str, ...] = ()
    """The spellings of the command line option. It is empty for an argument. The option of a bool turns it off."""
    metavar: str | None = None
    key: str = ""
    """The name in prompts files, axes and reports. The default is the name of the setting."""
    also: tuple[str, ...] = ()
    """More names that prompts files and axes accept, besides the spellings."""
    help: str | None = None
    """The text of the help, if it differs from `Setting.about`."""
    usual: str | None = None
    """The default in the help, if it differs from `Setting.usual`."""
    repeats: bool = False
    """Whether the option can be given several times. The value is then a list of texts. An axis varies lists of one."""


_NO_OPTION = Option()
_BRACES = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """A row of the table of settings.

    `about` and `usual` may contain the name of another setting in braces. The help replaces it by that setting's
    option.
    """

    name: str = ""
    """The name of the argument in Python, and of the field of `Request`."""
    default: Any = None
    kind: Kind | None = None
    """The type of the value, or of each item of a list. None for arrays and functions, which only programs can pass."""
    bounds: tuple[float, float] | None = None
    """The smallest and largest number. None if the bounds depend on other settings."""
    choices: tuple[str, ...] = ()
    max_items: int | None = None
    """The largest length of a list of numbers. None if the value is not a list."""
    takes_one: bool = False
    """Whether a list of numbers may also be a single number."""
    rank: int | None = None
    """The number of dimensions of an array of floating-point numbers."""
    keeps_int: bool = False
    """Whether an int stays an int in a setting of floats. Metadata then show the number as the user wrote it."""
    reads: Callable[[str, Any], Any] | None = None
    """Checks and converts an item that is a dict. Its first argument is the name. None if an item is never a dict."""
    only_with: tuple[str, ...] = ()
    """The setting has no effect unless one of these settings is given."""
    about: str = ""
    """The description in the help and in the Python documentation."""
    more: str = ""
    """More text for the Python documentation."""
    usual: str = ""
    """The default that None stands for, in words."""
    group: str = ""
    """The heading in the help and in the documentation."""
    option: Option | None = None
    label: Label | None = None

    @property
    def key(self) -> str:
        """The name in prompts files, axes and reports."""
        return (self.option.key if self.option else "") or self.name

    @property
    def spelling(self) -> str:
        """The long spelling of the option, for messages and help."""
        long = [one for one in self.option.spellings if one.startswith("--")] if self.option else []
        return long[0] if long else self.name

    @property
    def is_turned_off(self) -> bool:
        """Whether the setting is on by default, so that its option turns it off."""
        return self.kind is bool and self.default is True

    @property
    def names(self) -> tuple[str, ...]:
        """All names that prompts files and axes accept."""
        if self.option is None:
            return ()
        if self.is_turned_off:
            # The spelling of the option would mean the opposite.
            return (self.name,)
        long = (one[2:].replace("-", "_") for one in self.option.spellings if one.startswith("--"))
        return tuple(dict.fromkeys((self.key, self.name, *long, *self.option.also)))


def help_texts(table: Iterable[Setting]) -> dict[str, str]:
    """The help of every option, by the setting's name."""
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
    """A dataclass field that is also a row of the table. The arguments are those of `Setting`."""
    made = Setting(default=default, about=about, **row)
    texts = {"about": f"{about} {made.more}".strip(), "usual": made.usual}
    named = {key: _BRACES.sub(r"\1", text) for key, text in texts.items()}
    return field(default=default, metadata=named | {"setting": made})


def positional(arguments: Any, name: str) -> Any:
    """The field `name` of a keyword-only dataclass, for a dataclass in which it may be positional."""
    row = arguments.__dataclass_fields__[name]
    return field(default=row.default, metadata=row.metadata)


def settings_of(arguments: Any) -> tuple[Setting, ...]:
    """The rows of a dataclass and its bases, in the order of their fields."""
    return _rows(arguments)


@functools.cache
def _rows(arguments: Any) -> tuple[Setting, ...]:
    found: dict[str, Setting] = {}
    for base in reversed(arguments.__mro__):
        for name, one in vars(base).get("__dataclass_fields__", {}).items():
            if "setting" in one.metadata:
                found[name] = replace(one.metadata["setting"], name=name)
    return tuple(found.values())
