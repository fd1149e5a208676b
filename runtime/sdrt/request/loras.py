"""LoRAs that a call names: files with weights, and A1111's tags in its prompts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.common.messages import brief, refused, wrong_value
from sdrt.errors import RequestError
from sdrt.prompts.tags import Tag, tags

if TYPE_CHECKING:
    from sdrt.request.derived import DerivedSettings

__all__ = ["LORA_TAGS", "LoraFile", "checked_loras", "lora_tags", "lora_texts", "parse_lora"]

LORA_TAGS = ("lora", "lyco")
"""The tags that ask for a LoRA. A1111 reads both alike."""
MOST_WEIGHT = 1000.0
_RANGE = f"one from {-MOST_WEIGHT:g} to {MOST_WEIGHT:g}"
_MOST_LORAS = 64
_NAMED = ("te", "unet", "te2")
# Of the extension for block weights, and A1111's own dyn.
_OF_BLOCKS = ("lbw", "lbwe")
_MEANINGS = {
    **dict.fromkeys(("start", "stop", "step"), " (a part of the steps)"),
    "dyn": " (a smaller rank)",
}
_FORMS = "FILE, FILE:WEIGHT or FILE:TEXT:UNET, the weights in the text encoders and in the U-Net"
_EXPECTED = "a path, or a path and a weight such as style.safetensors:0.8"


@dataclass(frozen=True)
class LoraFile:
    """A file with its weights in the text encoders and in the U-Net."""

    path: Path
    text_encoder: float = 1.0
    unet: float = 1.0

    def __str__(self) -> str:
        same = self.text_encoder == self.unet
        weights = f"{self.unet:g}" if same else f"{self.text_encoder:g}:{self.unet:g}"
        return f"{self.path}:{weights}"


def parse_lora(text: str) -> LoraFile:
    """Read ``FILE``, ``FILE:WEIGHT`` or ``FILE:TEXT:UNET``. Raises `RequestError`."""
    path, weights = text, list[float]()
    while len(weights) < 2:
        before, colon, last = path.rpartition(":")
        number = _number(last) if colon and before else None
        if number is None:
            break
        path, weights = before, [number, *weights]
    if not path.strip() or "\0" in path:
        raise wrong_value("lora", text, _EXPECTED)
    if len(weights) == 2 and ":" in path and _number(path.rpartition(":")[2]) is not None:
        raise refused("lora", f"{brief(text)} has more than two weights", _FORMS)
    if wrong := [one for one in weights if not abs(one) <= MOST_WEIGHT]:
        raise refused("lora", f"{brief(text)} has the weight {wrong[0]:g}", _RANGE)
    weights = weights or [1.0]
    # pathlib drops a "./" at the beginning, which says that the path is no hub id.
    place = Path.cwd() / path if path.startswith(("./", ".\\")) else Path(path).expanduser()
    return LoraFile(place, weights[0], weights[-1])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def checked_loras(given: Any) -> tuple[LoraFile, ...] | None:
    """Check the setting `lora`: a file, or a list of files. Raises `RequestError`."""
    if given is None:
        return None
    listed = [given] if isinstance(given, (str, os.PathLike, LoraFile)) else given
    if not isinstance(listed, (list, tuple)) or len(listed) > _MOST_LORAS:
        raise wrong_value("lora", given, f"at most {_MOST_LORAS} files, each {_EXPECTED}")
    return tuple(_checked(one) for one in listed) or None


def _checked(one: Any) -> LoraFile:
    if isinstance(one, LoraFile):
        return one
    if not isinstance(one, (str, os.PathLike)):
        raise wrong_value("lora", one, _EXPECTED)
    return parse_lora(one) if isinstance(one, str) else LoraFile(Path(one))


def lora_tags(request: DerivedSettings) -> list[Tag]:
    """The tags of LoRAs in the prompts of a call, if the call says where to look them up.

    Raises:
        RequestError: the prompts differ in their tags, or a multiplier is no number.
    """
    if request.lora_dir is None or request.prompt_syntax == "plain":
        return []
    if len({lora_texts(text) for text in request.prompts}) > 1:
        raise refused(
            "prompt", "has texts with different LoRAs", "the same tags in each, or a call for each prompt"
        )
    found = _of(request.prompts[0]) if request.prompts else []
    for tag in found:
        _check_parts(tag)
        for weight in (
            tag.text_encoder_multiplier,
            tag.unet_multiplier,
            tag.second_text_encoder_multiplier,
        ):
            if not abs(weight) <= MOST_WEIGHT:
                raise refused("prompt", f"{brief(tag.text)} has the multiplier {weight:g}", _RANGE)
    return found


def _check_parts(tag: Tag) -> None:
    """Refuse parts of a tag that would change the image otherwise than by a weight, such as those of extensions."""
    texts = [one for one in tag.values[1:] if _number(one) is None]
    other = [name for name in tag.named if name not in _NAMED]
    blocks = [f"{name}=" for name in other if name in _OF_BLOCKS] or texts
    if blocks:
        problem = f"weights for single blocks ({brief(blocks[0])})"
    elif other:
        problem = f"{brief(f'{other[0]}=')}{_MEANINGS.get(other[0], '')}"
    elif len(tag.values) > 2:
        problem = f"a third number{_MEANINGS['dyn']}"
    else:
        return
    raise RequestError.expected(
        f"{brief(tag.text)} has {problem}, which sdrt does not support",
        "one weight, or one for the text encoders and one for the U-Net: <lora:name:0.5:1>",
        argument="prompt",
    )


def lora_texts(prompt: str) -> tuple[str, ...]:
    """The tags of LoRAs in a prompt, as they are written."""
    return tuple(tag.text for tag in _of(prompt))


def _of(text: str) -> list[Tag]:
    return [tag for tag in tags(text) if tag.kind in LORA_TAGS]
