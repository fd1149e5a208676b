"""LoRAs of an image that `--from` makes again: A1111's tags in its prompt, and their hashes."""

from __future__ import annotations

import re
from collections.abc import Set
from pathlib import Path

from sdrt.images.metadata import ImageMetadata
from sdrt.prompts.tags import Tag, tags
from sdrt.request.loras import LORA_TAGS
from sdrt.request.translated import Translation

__all__ = ["LORA_HASHES", "prompt_for"]

LORA_HASHES = "Lora hashes"
"""The label of names and hashes: `a: 0123456789ab, b: ba9876543210`."""
_HASH = re.compile(r"([^,]+?):\s*([0-9a-fA-F]{6,64})(?=\s*(?:,|$))")


def prompt_for(metadata: ImageMetadata, found: Translation, given: Set[str], lora_dir: str | None) -> str:
    """The prompt of the metadata. Notes in `found` if the image needs LoRAs that are not given, or other files.

    `given` has the names of the options that the user gave. Files of `--lora` replace the image's LoRAs.

    Raises:
        ModelNotFoundError, RequestError: a LoRA is not in `lora_dir`.
    """
    prompt, hashes = metadata.prompt, found.texts.get(LORA_HASHES)
    if hashes is None or given & {"prompts", "prompts_file"}:
        return prompt
    if lora_dir is not None:
        _compare(_loras(prompt), hashes, found, Path(lora_dir).expanduser())
    elif "lora" in given:
        for tag in _loras(prompt):
            prompt = prompt.replace(tag.text, "")
    else:
        found.differs(LORA_HASHES, hashes)
    return prompt


def _loras(prompt: str) -> list[Tag]:
    return [tag for tag in tags(prompt) if tag.kind in LORA_TAGS]


def _compare(loras: list[Tag], hashes: str, found: Translation, folder: Path) -> None:
    """Note a LoRA whose file is not the one that made the image."""
    from sdrt.adapters.lora_folder import LoraFolder, short_hash

    known = {name.strip(): value.lower() for name, value in _HASH.findall(hashes)}
    files = LoraFolder(folder)
    for tag in loras:
        wanted = known.get(tag.name.replace(":", "").replace(",", ""))
        # A1111 writes 12 digits; some of its forks write 8 or 10, of the whole file.
        if wanted is not None and len(wanted) == 12 and short_hash(files.find(tag.name)) != wanted:
            found.differs(LORA_HASHES, f"{tag.name}: {wanted}")
