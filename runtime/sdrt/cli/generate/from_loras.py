"""LoRAs of an image that `--from` makes again: A1111's tags in its prompt, and their hashes."""

from __future__ import annotations

import re
from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

from sdrt.errors import RequestError
from sdrt.images.metadata import ImageMetadata
from sdrt.prompts.tags import Tag, tags
from sdrt.request.loras import LORA_TAGS
from sdrt.request.translated import Translation

if TYPE_CHECKING:
    from sdrt.adapters.lora_folder import LoraFolder

__all__ = ["LORA_HASHES", "prompt_for"]

LORA_HASHES = "Lora hashes"
"""The label of names and hashes: `a: 0123456789ab, b: ba9876543210`."""
_HASH = re.compile(r"([^,]+?):\s*([0-9a-fA-F]{6,64})(?=\s*(?:,|$))")
_SHORT = 12
_SYNTAX = "Prompt syntax"


def prompt_for(metadata: ImageMetadata, found: Translation, given: Set[str], lora_dir: str | None) -> str:
    """The prompt of the metadata. Notes in `found` if the image needs LoRAs that are not given, or other files.

    `given` has the names of the options that the user gave. Files of `--lora` replace the image's LoRAs.

    Raises:
        ModelNotFoundError, RequestError: a LoRA is not in `lora_dir`.
    """
    prompt, hashes = metadata.prompt, found.texts.get(LORA_HASHES)
    if given & {"prompts", "prompts_file"}:
        return prompt
    is_plain = found.texts.get(_SYNTAX) == "plain"
    if hashes is None:
        # Of its own LoRAs, sdrt says the hashes. Without any, the tags had no effect.
        had_none = found.texts.get("Version", "").startswith("sdrt ")
        return _without(prompt) if had_none and lora_dir is not None and not is_plain else prompt
    if is_plain:
        # The last tags stand for the files of --lora. All others are words.
        if "lora" not in given:
            found.differs(LORA_HASHES, hashes, "lora")
        return _without(prompt, last=len(_HASH.findall(hashes)))
    if lora_dir is not None:
        prompt = _found(prompt, hashes, found, Path(lora_dir).expanduser())
    elif "lora" in given:
        prompt = _without(prompt)
    else:
        found.differs(LORA_HASHES, hashes)
    return prompt


def _without(prompt: str, last: int | None = None) -> str:
    """The prompt without its tags of LoRAs, or without the last ones."""
    found = _loras(prompt)
    for tag in reversed(found if last is None else found[max(0, len(found) - last) :]):
        before, _, after = prompt.rpartition(tag.text)
        prompt = before + after
    return prompt


def _loras(prompt: str) -> list[Tag]:
    return [tag for tag in tags(prompt) if tag.kind in LORA_TAGS]


def _found(prompt: str, hashes: str, found: Translation, folder: Path) -> str:
    """The prompt with the names that the image's LoRAs have in `folder`. Notes a file that did not make the image.

    A file that was renamed, or has a namesake, is found by its hash.
    """
    from sdrt.adapters.lora_folder import LoraFolder

    known, files, at = _known(hashes), LoraFolder(folder), 0
    for tag in _loras(prompt):
        own = known.get(_plain(tag.name), [])
        wanted = own.pop(0) if own else ""
        text = tag.text
        if (name := _name(files, tag.name, wanted)) is not None:
            start = f"<{tag.kind}:"
            text = start + name + text[len(start) + len(tag.name) :]
        else:
            found.differs(LORA_HASHES, f"{tag.name}: {wanted}")
        at = prompt.index(tag.text, at)
        prompt = prompt[:at] + text + prompt[at + len(tag.text) :]
        at += len(text)
    return prompt


def _name(files: LoraFolder, name: str, wanted: str) -> str | None:
    """What a LoRA is called in a folder. None if the file of its name is another one.

    Raises:
        RequestError: no file has the name or the hash, or several have the name and none the hash.
    """
    from sdrt.adapters.lora_folder import short_hash

    # A1111 writes 12 digits; some of its forks write 8 or 10, of the whole file.
    if len(wanted) != _SHORT:
        files.find(name)
        return name
    try:
        if short_hash(files.find(name)) == wanted:
            return name
    except RequestError:
        if (other := files.of_hash(wanted)) is None:
            raise
        return other
    return files.of_hash(wanted)


def _known(hashes: str) -> dict[str, list[str]]:
    """The hashes of each name, in order."""
    known: dict[str, list[str]] = {}
    for name, value in _HASH.findall(hashes):
        known.setdefault(name.strip(), []).append(value.lower())
    return known


def _plain(name: str) -> str:
    return name.replace(":", "").replace(",", "").strip()
