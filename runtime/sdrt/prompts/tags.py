"""Tags in a prompt that are not words: ``<lora:name:0.8>`` of A1111's web UI, ``embedding:name`` of ComfyUI."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sdrt.common.messages import brief
from sdrt.errors import RequestError

__all__ = ["EmbeddingName", "Tag", "embedding_names", "tags", "without_tags"]

# A1111 also allows "<" in a tag. No name has one, and without it every text is read in linear time.
_TAG = re.compile(r"<(\w+):([^<>]+)>")
_EMBEDDING = re.compile(r"(?<![\w<])embedding:([^\s,()\[\]{}|:<>]+)")
_EXTENSION = re.compile(r"\.(?:safetensors|pt|bin)\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Tag:
    """``<kind:name:…>``, which asks for an extra network such as a LoRA.

    Attributes:
        text: the tag as it is written.
        kind: ``lora``, ``lyco``, ``hypernet``, or any other word.
        name: the name of the network.
        values: the values after the name, in order.
        named: the values that are written as ``key=value``.
    """

    text: str
    kind: str
    name: str
    values: tuple[str, ...] = ()
    named: dict[str, str] = field(default_factory=dict)

    @property
    def text_encoder_multiplier(self) -> float:
        """The strength in the text encoder: the first value, or ``te=``, else 1. Raises `RequestError`."""
        return self._number("te", 0, 1.0)

    @property
    def unet_multiplier(self) -> float:
        """The strength in the U-Net: the second value, or ``unet=``, else that of the text encoder.

        Raises:
            RequestError: it is not a number.
        """
        return self._number("unet", 1, self.text_encoder_multiplier)

    @property
    def second_text_encoder_multiplier(self) -> float:
        """The strength in SDXL's second text encoder: ``te2=``, which is sdrt's own, else that of the first one.

        Raises:
            RequestError: it is not a number.
        """
        return self._number("te2", len(self.values), self.text_encoder_multiplier)

    def _number(self, key: str, place: int, usual: float) -> float:
        text = self.named.get(key, self.values[place] if place < len(self.values) else None)
        if text is None:
            return usual
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise RequestError.expected(
                f"the multiplier of {brief(self.text)} is {brief(text)}", "a number", argument="prompt"
            )
        return number


@dataclass(frozen=True)
class EmbeddingName:
    """``embedding:name``, which asks for a textual inversion.

    Attributes:
        text: the tag as it is written, without punctuation after it.
        word: the loaded word that it names, or None if there is none.
    """

    text: str
    word: str | None


def tags(text: str) -> list[Tag]:
    """Return the tags ``<kind:name:…>`` in a text, in order."""
    return [_tag(found) for found in _TAG.finditer(text)]


def embedding_names(text: str, words: Sequence[str] = ()) -> list[EmbeddingName]:
    """Return the names ``embedding:name`` in a text, in order. `words` are those of the loaded textual inversions."""
    return [one for _, one in _embeddings(text, words)]


def without_tags(text: str, words: Sequence[str] = ()) -> str:
    """Return a text without its tags, as A1111's web UI takes them out.

    ``embedding:name`` becomes the word of that name. It is taken out if no such word is among `words`, those of the
    loaded textual inversions.
    """
    text = _TAG.sub("", text)
    pieces, position = list[str](), 0
    for start, one in _embeddings(text, words):
        pieces += [text[position:start], one.word or ""]
        position = start + len(one.text)
    return "".join([*pieces, text[position:]])


def _tag(found: re.Match[str]) -> Tag:
    name, *rest = found[2].split(":")
    named = dict(one.split("=", 1) for one in rest if "=" in one)
    values = tuple(one for one in rest if "=" not in one)
    return Tag(text=found[0], kind=found[1], name=name, values=values, named=named)


def _embeddings(text: str, words: Sequence[str]) -> Iterator[tuple[int, EmbeddingName]]:
    """Yield where each ``embedding:name`` begins, and what it names."""
    known = {word.lower(): word for word in words}
    for found in _EMBEDDING.finditer(text):
        name = found[1]
        word = _word(name, known)
        if word is None:
            # Punctuation after the name is not a part of it, unless a word says so.
            name = name.rstrip(".;!?\"'") or name
            word = _word(name, known)
        yield found.start(), EmbeddingName(text=f"embedding:{name}", word=word)


def _word(name: str, known: dict[str, str]) -> str | None:
    """Return the word that a name means. The name may have a folder and an extension, as in ComfyUI."""
    file = re.split(r"[\\/]", name)[-1]
    for one in (name, file, _EXTENSION.sub("", file)):
        if one.lower() in known:
            return known[one.lower()]
    return None
