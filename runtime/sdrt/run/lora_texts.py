"""LoRAs in an image's metadata, as A1111 writes them: tags in the prompt, and "Lora hashes"."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sdrt.adapters.adaptation import Adaptation, Weighted
from sdrt.adapters.lora_folder import short_hash
from sdrt.errors import ModelNotFoundError
from sdrt.prompts.tags import Tag, tags
from sdrt.request.derived import DerivedSettings
from sdrt.request.loras import LORA_TAGS, lora_tags

__all__ = ["NO_LORAS", "LoraTexts"]


@dataclass(frozen=True, kw_only=True)
class LoraTexts:
    """What metadata say of the LoRAs of a call.

    Attributes:
        hashes: the value of A1111's label. None without LoRAs.
        added: the tags of LoRAs that the prompt does not name.
        rewritten: whether the prompt's own tags are left out, because their weights were multiplied, or because they
            had no effect.
    """

    hashes: str | None = None
    added: str = ""
    rewritten: bool = False

    @classmethod
    def of(
        cls, request: DerivedSettings, adaptation: Adaptation, encoders: Sequence[str], unet: str
    ) -> LoraTexts:
        """The texts for a call. `encoders` are the text encoders and `unet` the denoiser, by their names.

        Raises:
            ModelNotFoundError: a file is no longer there.
        """
        parts = adaptation.parts
        if not parts:
            return cls()
        # Without a folder, only files changed the model. In a plain prompt, tags are words.
        is_plain = request.prompt_syntax == "plain"
        rewritten = not is_plain and (request.lora_scale != 1 or request.lora_dir is None)
        said = 0 if rewritten else len(lora_tags(request))
        added = parts[: len(parts) - said]
        return cls(
            hashes=", ".join(f"{_plain(part.name)}: {_hash(part)}" for part in parts),
            added="".join(_tag(part, encoders, unet) for part in added),
            rewritten=rewritten,
        )

    def prompt(self, text: str) -> str:
        """The prompt in the metadata. A1111 adds tags without a blank too."""
        for tag in _lora_tags(text) if self.rewritten else ():
            text = text.replace(tag.text, "")
        return text + self.added


_NAMELESS = "lora"
NO_LORAS = LoraTexts()
"""Without LoRAs."""


def _lora_tags(text: str) -> list[Tag]:
    return [tag for tag in tags(text) if tag.kind in LORA_TAGS]


def _tagged(name: str) -> str:
    """A name without what ends a tag or a line. `--from` finds a file of another name by its hash."""
    text = "".join(one if one.isprintable() else " " for one in name)
    text = text.translate(dict.fromkeys(map(ord, "<>:"))).strip()
    return text if text.strip(", ") else _NAMELESS


def _plain(name: str) -> str:
    """The name of a tag without the commas that separate names with their hashes."""
    return _tagged(name).replace(",", "").strip()


def _hash(part: Weighted) -> str:
    path = part.adapter.path
    try:
        return short_hash(path)
    except OSError as error:
        raise ModelNotFoundError.advised(
            f"{path} cannot be read ({error.strerror or error})",
            "keep a LoRA's file in its place while it is in use",
            joint="; ",
            path=path,
            argument="lora",
        ) from None


def _tag(part: Weighted, encoders: Sequence[str], unet: str) -> str:
    """``<lora:name:weight>``, or with the weights of the text encoders and the U-Net if they differ."""
    texts = [part.weight(one) for one in encoders] or [part.weight(unet)]
    weights = [texts[0], part.weight(unet)]
    values = [_number(one) for one in (weights[:1] if weights[0] == weights[1] else weights)]
    # A1111 has one weight for both text encoders, and ignores names that it does not know.
    values += [f"te2={_number(one)}" for one in texts[1:] if one != texts[0]]
    return f"<lora:{':'.join([_tagged(part.name), *values])}>"


def _number(value: float) -> str:
    return f"{value:.10g}"
