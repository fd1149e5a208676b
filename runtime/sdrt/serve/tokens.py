"""The number of tokens of a task's texts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from sdrt.serve.task import ImageTask
from sdrt.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from sdrt.model_folder.model import Model

__all__ = ["prompt_tokens"]


def prompt_tokens(model: Model, task: ImageTask) -> int | None:
    """How many tokens the prompt and the negative prompt have for a model, as they are written.

    None if the task does not count them. The marks of the start and the end, and padding, do not count.
    """
    if not task.counts_tokens:
        return None
    spec = model.family.text_encoders[0]
    config = model.component_config(spec.component)
    folder = model.tokenizer_folder(spec.tokenizer)
    tokenizer = _opened(folder, config["max_position_embeddings"], model.prefers_vocabulary)
    texts = (task.settings.get(name) or "" for name in ("prompt", "negative_prompt"))
    return sum(len(group) for text in texts for group in tokenizer.groups(text))


@lru_cache(maxsize=4)
def _opened(folder: Path, max_positions: int, prefers_vocabulary: bool) -> Tokenizer:
    return Tokenizer(folder, max_positions=max_positions, prefers_vocabulary=prefers_vocabulary)
