"""The prompt and the negative prompt of one image, after all choices of their wildcards."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sdrt.request.table import WILDCARD_LABELS

if TYPE_CHECKING:
    from sdrt.images.metadata import Parameters
    from sdrt.prompts.wildcard_files import WildcardFiles

__all__ = ["Texts"]


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The texts of one image."""

    prompt: str
    negative_prompt: str | None
    """None if none was given, which differs from an empty one for some models."""
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
            RequestError: a wildcard has no file, or the prompt asks for something that sdrt does not support.
        """
        from sdrt.prompts.comments import without_comments
        from sdrt.prompts.wildcards import Expansion, expand

        given = (prompt, settings["negative_prompt"] or "")
        if settings["prompt_comments"]:
            # Before the choices, so that a comment asks for no file.
            given = (without_comments(given[0]), without_comments(given[1]))
        if settings["prompt_syntax"] == "plain":
            literal = {"prompt", "negative_prompt"}
        made = [
            Expansion(text) if name in literal else expand(text, seed, files, negative=name != "prompt")
            for name, text in zip(("prompt", "negative_prompt"), given, strict=True)
        ]
        labelled = zip(WILDCARD_LABELS, given, made, strict=True)
        return cls(
            prompt=made[0].text,
            negative_prompt=None if settings["negative_prompt"] is None else made[1].text,
            templates={label: text for label, text, one in labelled if text != one.text},
            choices=made[0].choices + made[1].choices,
        )

    @property
    def length(self) -> int:
        """The number of characters that the texts take in metadata."""
        texts = (self.prompt, self.negative_prompt or "", *self.templates.values())
        return sum(map(len, texts))

    def labelled(self, parameters: Parameters) -> Parameters:
        """Add the templates to an image's metadata, before the version, which comes last."""
        settings = dict(parameters.settings)
        last = {label: settings.pop(label) for label in ("Version",) if label in settings}
        return replace(parameters, settings=settings | dict(self.templates) | last)
