"""Notices about what a prompt contains that is not read as words, because it changes the images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from sdrt.common.messages import brief
from sdrt.prompts.tags import Tag, embedding_names, tags
from sdrt.prompts.wildcards import wildcard_names
from sdrt.text.syntaxes import SYNTAXES

__all__ = ["NO_FOLDER", "OTHER_TEXT", "unread"]

_KINDS = {"lora": "LoRAs", "lyco": "LyCORIS", "hypernet": "hypernetworks"}
"""The networks that A1111's tags ask for."""
_LORAS = ("lora", "lyco")
NO_FOLDER = "give the folder of LoRAs with --lora-dir, or lora_dir"
"""Why LoRAs are left out if nothing says where they are."""
OTHER_TEXT = "write it in the prompt itself, where it applies to every text"
"""Why LoRAs are left out of negative prompts, and of texts for the second text encoder."""


def unread(
    prompts: Iterable[str],
    negative_prompts: Iterable[str],
    syntax: str,
    words: Sequence[str] = (),
    *,
    loras: str = NO_FOLDER,
) -> list[str]:
    """Return a message for each thing in the prompts that is left out, or that a user may not expect.

    `words` are those of the loaded textual inversions. `loras` says why the LoRAs in the prompts are left out. It is
    empty if they are applied.
    """
    found: list[str] = []
    for text in prompts:
        found += [*_in_any(text, syntax, words, loras), *_guidance(text, syntax, words)]
    for text in negative_prompts:
        found += _in_any(text, syntax, words, loras or OTHER_TEXT)
    return list(dict.fromkeys(found))


def _in_any(text: str, syntax: str, words: Sequence[str], loras: str) -> Iterator[str]:
    if not SYNTAXES[syntax].has_tags:
        for tag in tags(text):
            if tag.kind in _KINDS:
                yield f"{brief(tag.text)} is read as words, because prompt_syntax is {syntax!r}"
        return
    for tag in tags(text):
        if reason := loras if tag.kind in _LORAS else _reason(tag):
            yield f"{brief(tag.text)} is left out of the prompt: {reason}"
    for embedding in embedding_names(text, words):
        if embedding.word is None:
            yield (
                f"{brief(embedding.text)} is left out of the prompt: no textual inversion of this name is loaded; "
                "load its file with --embedding, or load_textual_inversion"
            )
    for name in wildcard_names(text):
        yield (
            f"{brief(name)} is read as words; sdrt.expand_wildcards, and sdrt generate --wildcards, put a line of a "
            "file in its place"
        )


def _reason(tag: Tag) -> str:
    if tag.kind in _KINDS:
        return f"{_KINDS[tag.kind]} are not supported yet"
    return f"{brief(tag.kind)} is no kind of network that sdrt knows"


def _guidance(text: str, syntax: str, words: Sequence[str]) -> Iterator[str]:
    parts = SYNTAXES[syntax].parts(SYNTAXES[syntax].without_tags(text, words))
    if len(parts) == 1 and parts[0].weight != 1:
        weight = f"{parts[0].weight:g}"
        yield (
            f"the number after the prompt's last colon multiplies its guidance scale by {weight}, as in A1111's web "
            f"UI; to weigh words, write (words:{weight}); to keep the number as words, put a comma after it"
        )
