"""The texts of one image, after all choices of their wildcards."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sdrt.request.table import WILDCARD_LABELS

if TYPE_CHECKING:
    from sdrt.images.metadata import Parameters
    from sdrt.prompts.wildcard_files import WildcardFiles
    from sdrt.prompts.wildcards import Expansion

__all__ = ["Texts"]

_PROMPT = "prompt"


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of one image."""

    made: Mapping[str, str | None]
    """Each text after the choices, by the setting's name. None if it was not given, which differs from an empty one."""
    templates: Mapping[str, str]
    """The texts before the choices, by their labels in metadata. Only texts in which something was chosen."""
    choices: tuple[str, ...]
    """What was chosen, for the text under the image on a contact sheet."""

    @classmethod
    def of(
        cls,
        prompt: str,
        settings: Mapping[str, Any],
        seed: int,
        files: WildcardFiles | None,
        *,
        literal: Set[str] = frozenset(),
    ) -> Texts:
        """Make the choices that `seed` decides. The syntax "plain" has none, nor has a text that is in `literal`.

        Raises:
            RequestError: a wildcard has no file, or a text asks for something that sdrt does not support.
        """
        given = {name: prompt if name == _PROMPT else settings[name] for name in WILDCARD_LABELS}
        if settings["prompt_syntax"] == "plain":
            literal = given.keys()
        texts = {name: _text(text or "", settings) for name, text in given.items()}
        made = {name: _expansion(name, text, seed, files, literal) for name, text in texts.items()}
        return cls(
            made={name: None if given[name] is None else one.text for name, one in made.items()},
            templates={
                WILDCARD_LABELS[name]: texts[name] for name, one in made.items() if texts[name] != one.text
            },
            choices=tuple(choice for one in made.values() for choice in one.choices),
        )

    @property
    def prompt(self) -> str:
        """The prompt."""
        return self.made[_PROMPT] or ""

    @property
    def length(self) -> int:
        """The number of characters that the texts take in metadata."""
        return sum(len(text or "") for text in (*self.made.values(), *self.templates.values()))

    def labelled(self, parameters: Parameters) -> Parameters:
        """Add the templates to an image's metadata, before the version, which comes last."""
        settings = dict(parameters.settings)
        last = {label: settings.pop(label) for label in ("Version",) if label in settings}
        return replace(parameters, settings=settings | dict(self.templates) | last)


def _text(text: str, settings: Mapping[str, Any]) -> str:
    """The text before the choices. A comment in it asks for no file."""
    from sdrt.prompts.comments import without_comments

    return without_comments(text) if settings["prompt_comments"] else text


def _expansion(name: str, text: str, seed: int, files: WildcardFiles | None, literal: Set[str]) -> Expansion:
    from sdrt.prompts.wildcards import Expansion, expand

    # The texts of both encoders make the same choices, and so do both negative ones.
    return Expansion(text) if name in literal else expand(text, seed, files, negative="negative" in name)
