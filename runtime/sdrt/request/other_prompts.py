"""Finds the parts of prompts that A1111 reads in another way than sdrt does.

The rules are those of A1111's `modules/infotext_versions.py`, `prompt_parser.py` and `sd_samplers_cfg_denoiser.py`
(version 1.10).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sdrt.request.other_labels import plain

if TYPE_CHECKING:
    from sdrt.request.translated import Translation

__all__ = ["note_old_editing", "note_padding"]

_OLD_EDITING = "Old prompt editing timelines"
_FIRST_WITH_NEW_EDITING = (1, 6)
_WHEN = re.compile(r":\s*[-+]?(\d+\.\d*|\.\d+|\d+)\s*\]")
# The pieces into which CLIP's tokenizer cuts a text first. Each becomes a token or more.
_PIECES = re.compile(r"[^\W\d_]+|\d|(?:[^\w\s]|_)+")
_PIECES_TO_TOKENS = 1.5
_CHUNK = 75
_MOST_CHARACTERS = 100_000
# One at the end adds no chunk.
_BREAK = re.compile(r"\bBREAK\b(?!\s*\Z)")


def note_old_editing(found: Translation, prompts: Sequence[str]) -> None:
    """Before 1.6, A1111 read ``[a:b:1.0]`` as one step, and each of two passes had shares of its own."""
    from sdrt.schedulers import version_of_a1111

    is_old = plain(found.texts.pop(_OLD_EDITING, "")) == "true"
    version = found.texts.get("Version")
    if not is_old and version_of_a1111(version) >= _FIRST_WITH_NEW_EDITING:
        return
    numbers = [when for prompt in prompts for when in _WHEN.findall(prompt)]
    has_two_passes = "Hires upscale" in found.texts
    if numbers and (has_two_passes or any("." in when and float(when) >= 1 for when in numbers)):
        found.differs("prompt editing before A1111 1.6", ", ".join(numbers), "prompts")


def note_padding(found: Translation, prompts: Sequence[str]) -> None:
    """A1111 pads the shorter of prompt and negative prompt only with "Pad conds"; sdrt always does.

    How many tokens a text has depends on the model's tokenizer, so this says what may differ.
    """
    if plain(found.texts.pop("Pad conds", "")) == "true":
        return
    fewest, most = zip(*map(_chunks, prompts), strict=True)
    if min(fewest) != max(most):
        found.differs(
            "the padding of a prompt and a negative prompt of unequal length", "", "prompts", minor=True
        )


def _chunks(prompt: str) -> tuple[int, int]:
    """The fewest and the most chunks of 75 tokens that a prompt may have."""
    counts = [sum(1 for _ in _PIECES.finditer(part)) for part in _BREAK.split(prompt[:_MOST_CHARACTERS])]
    fewest = sum(max(1, math.ceil(count / _CHUNK)) for count in counts)
    return fewest, sum(max(1, math.ceil(count * _PIECES_TO_TOKENS / _CHUNK)) for count in counts)
