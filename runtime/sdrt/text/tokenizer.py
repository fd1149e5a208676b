"""Turns prompts into token ids, with CLIP's byte-level BPE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import wrong_key
from sdrt.model_folder.manifest import damaged
from sdrt.text.clip_bpe import configured, load_bpe
from sdrt.text.textual_inversion import Inversions

__all__ = ["Tokenized", "Tokenizer"]

# The start token, one token, the end token.
_LEAST_LENGTH = 3


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """The ids [length] of one prompt with padding, and the part at its end that did not fit (`dropped`)."""

    ids: NDArray[np.int64]
    dropped: str = ""


class Tokenizer:
    """CLIP's byte-level BPE, read from `tokenizer.json` or built from `vocab.json` and `merges.txt`.

    Args:
        folder: the folder of the tokenizer.
        max_positions: the length of the text encoder's inputs, from its config.
        text_encoder: the component to name in an error about `max_positions`.
        prefers_vocabulary: whether `vocab.json` and `merges.txt` decide if all files are there. A checkpoint's
            `tokenizer.json` is a conversion, and may be of another tokenizer.

    Raises:
        IntegrityError: a file is missing or damaged.
        UnsupportedModelError: an added token would get another id than the model expects.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_positions: int,
        text_encoder: str = "text_encoder",
        prefers_vocabulary: bool = False,
    ) -> None:
        config, special = configured(folder)
        self.length = _length(folder, config.get("model_max_length"), max_positions, text_encoder)
        self._bpe = load_bpe(folder, config, special, prefers_vocabulary=prefers_vocabulary)
        self.inversions = Inversions(vocabulary=0)
        self._bos, self._eos, self._pad = (
            self._id(special[f"{name}_token"], folder) for name in ("bos", "eos", "pad")
        )

    def __call__(self, text: str) -> Tokenized:
        """Tokenize a text: a start token, at most `room` tokens, an end token, then padding."""
        if self.inversions.words:
            return self._with_inversions(text)
        encoding = self._bpe.encode(text, add_special_tokens=False)
        dropped = text[encoding.offsets[self.room][0] :] if len(encoding.ids) > self.room else ""
        return Tokenized(ids=self.framed(encoding.ids[: self.room]), dropped=dropped.strip())

    @property
    def room(self) -> int:
        """The most tokens that fit between the start and the end token."""
        return self.length - 2

    def groups(self, text: str) -> Iterator[list[int]]:
        """Yield the ids of a text of any length, without start and end; those of a textual inversion as one group."""
        for piece, ids in self.inversions.split(text):
            if ids:
                yield ids
            else:
                yield from ([token] for token in self._bpe.encode(piece, add_special_tokens=False).ids)

    def ends_word(self, token: int) -> bool:
        """Tell whether a token ends a word. A textual inversion is a word."""
        text = self._bpe.id_to_token(token)
        return text is None or str(text).endswith("</w>")

    def _with_inversions(self, text: str) -> Tokenized:
        """Tokenize a text with textual inversions. `dropped` begins at the piece that does not fit whole."""
        ids: list[int] = []
        read = 0
        for piece, own in self.inversions.split(text):
            ids += own or self._bpe.encode(piece, add_special_tokens=False).ids
            if len(ids) > self.room:
                return Tokenized(ids=self.framed(ids[: self.room]), dropped=text[read:].strip())
            read += len(piece)
        return Tokenized(ids=self.framed(ids))

    def framed(self, tokens: Sequence[int]) -> NDArray[np.int64]:
        """Add the start token, the end token and padding to at most `room` tokens. Returns ids [length]."""
        ids = [self._bos, *tokens, self._eos]
        return np.array([*ids, *[self._pad] * (self.length - len(ids))], dtype=np.int64)

    def end(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the index of the first end token in `ids` [length], as an array [1]."""
        return np.array([int((ids == self._eos).argmax())])

    def _id(self, token: str, folder: Path) -> int:
        found = self._bpe.token_to_id(token)
        if found is None:
            raise damaged(
                folder,
                f"{folder}: the special token {token!r} is not in the vocabulary",
                component=folder.name,
            )
        return int(found)


def _length(folder: Path, most: object, max_positions: int, text_encoder: str) -> int:
    """Return the length of a tokenized prompt: the smaller of the tokenizer's and the text encoder's limit."""
    if max_positions < _LEAST_LENGTH:
        raise wrong_key(
            f"{text_encoder}/config.json",
            "max_position_embeddings",
            max_positions,
            f"at least {_LEAST_LENGTH}",
            component=text_encoder,
        )
    if most is None:
        return max_positions
    # transformers writes 10^30 if there is no limit.
    if isinstance(most, bool) or not isinstance(most, (int, float)) or not most >= _LEAST_LENGTH:
        raise wrong_key(
            folder,
            "model_max_length",
            most,
            f"a number of at least {_LEAST_LENGTH}",
            path=folder,
            component=folder.name,
        )
    return int(min(most, max_positions))
