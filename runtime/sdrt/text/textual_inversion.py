"""Textual inversion: new words whose embeddings come from a file (Gal et al. 2022, arXiv:2208.01618)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sdrt.common.messages import brief, wrong_value
from sdrt.common.notices import Notices
from sdrt.common.safetensors_file import SafetensorsFile, read_header, read_tensor
from sdrt.errors import ModelNotFoundError, RequestError, UnsupportedModelError
from sdrt.model_folder.file_kind import EMBEDDING, PICKLES, kind_of

__all__ = ["Inversion", "Inversions", "Reader", "read_inversions"]

Array = NDArray[np.float32]
_FILE = "a .safetensors file with a textual inversion"
# Names that programs give to every word. Such a word gets the name of its file.
_NAMELESS = frozenset(
    {"emb_params", "*", "string_to_param", "string_to_param.*"}
    | {"clip_l", "clip_g", "text_encoders_0", "text_encoders_1"}
)
# What A1111's web UI saves beside the embeddings.
_BOOKKEEPING = re.compile(r"string_to_token(\.\*)?|step")
# The parts for SDXL's first and second text encoder, as A1111 and diffusers' trainers call them.
_SDXL = (("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Inversion:
    """A new word.

    Attributes:
        token: the word.
        vectors: the embeddings [tokens, width] that represent it.
        more: the embeddings for further text encoders. Their number of tokens may differ.
        file: its file's name.
    """

    token: str
    vectors: Array
    more: tuple[Array, ...] = ()
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A text encoder that gets new words: the width of its embeddings, its most tokens at once, and its part.

    Files for SDXL have one part for each of its text encoders: 0 for CLIP, 1 for OpenCLIP.
    """

    width: int
    room: int
    part: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Inversions:
    """Words that a text encoder knows in addition to its vocabulary. Their ids follow those of the vocabulary.

    Attributes:
        vocabulary: the number of tokens in the text encoder's vocabulary.
        words: the new words, in the order of their ids.
        forgotten: which of `words` prompts can no longer use, by index. They keep their ids for the runs that began
            before.
    """

    vocabulary: int
    words: tuple[Inversion, ...] = ()
    forgotten: frozenset[int] = frozenset()

    def of_encoder(self, number: int, vocabulary: int) -> Inversions:
        """Return the words with their embeddings for another text encoder, whose vocabulary has this many tokens."""
        words = self.words
        if number:
            words = tuple(replace(word, vectors=word.more[number - 1]) for word in words)
        return replace(self, words=words, vocabulary=vocabulary)

    @property
    def usable(self) -> dict[int, Inversion]:
        """The words that prompts can use, by their index in `words`."""
        return {number: word for number, word in enumerate(self.words) if number not in self.forgotten}

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files from which the usable words were read."""
        return tuple(dict.fromkeys(word.file for word in self.usable.values() if word.file))

    def without_words(self, tokens: Sequence[str] | None) -> Inversions:
        """Return these words without `tokens`; without all of them if it is None. Case does not matter.

        Raises:
            RequestError: a token is not a loaded word.
        """
        numbers = {word.token.lower(): number for number, word in self.usable.items()}
        if tokens is None:
            return replace(self, forgotten=self.forgotten | set(numbers.values()))
        for token in tokens:
            if not isinstance(token, str) or token.lower() not in numbers:
                loaded = ", ".join(word.token for word in self.usable.values()) or "none"
                raise RequestError.advised(
                    f"textual inversion {brief(token)} is not loaded",
                    f"choose one of those that are: {loaded}",
                    argument="tokens",
                )
        return replace(self, forgotten=self.forgotten | {numbers[token.lower()] for token in tokens})

    def with_words(self, words: Sequence[Inversion]) -> Inversions:
        """Return these words plus `words`.

        Raises:
            RequestError: a word is loaded already. Words that differ only in case count as equal.
        """
        known = {word.token.lower() for word in self.usable.values()}
        for word in words:
            if word.token.lower() in known:
                raise RequestError.advised(
                    f"textual inversion {word.token!r} is loaded already",
                    "give it another token",
                    argument="token",
                )
            known.add(word.token.lower())
        return replace(self, words=(*self.words, *words))

    @property
    def tokens(self) -> tuple[str, ...]:
        """The usable words as texts."""
        return tuple(word.token for word in self.usable.values())

    @property
    def table(self) -> Array:
        """The embeddings [n, width] of all ids after the vocabulary."""
        return np.concatenate([word.vectors for word in self.words])

    def split(self, text: str) -> Iterator[tuple[str, list[int]]]:
        """Split a text into pieces. Yield each piece with its ids if it is one of the words, otherwise with no ids."""
        if not self.usable:
            yield text, []
            return
        # The longest word comes first, because one word may begin with another.
        numbers = sorted(self.usable, key=lambda number: -len(self.words[number].token))
        pattern = "|".join(f"({_bounded(self.words[number].token)})" for number in numbers)
        position = 0
        for found in re.finditer(pattern, text, re.IGNORECASE):
            if found.start() > position:
                yield text[position : found.start()], []
            assert found.lastindex is not None  # the one group that was found
            number = numbers[found.lastindex - 1]
            first = self.vocabulary + sum(len(word.vectors) for word in self.words[:number])
            yield found[0], list(range(first, first + len(self.words[number].vectors)))
            position = found.end()
        if position < len(text):
            yield text[position:], []


def _bounded(name: str) -> str:
    # A name that begins or ends with a letter matches only where no other letter touches it.
    before = r"(?<!\w)" if re.match(r"\w", name) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", name) else ""
    return f"{before}{re.escape(name)}{after}"


def read_inversions(
    path: str | Path, *, token: str | None, readers: Sequence[Reader], notices: Notices | None = None
) -> list[Inversion]:
    """Read the words of a `.safetensors` file that diffusers, A1111's web UI, ComfyUI or a trainer wrote.

    Args:
        path: the file.
        token: the name of the word; by default the name in the file, or the file's own name if it has none.
        readers: the model's text encoders.
        notices: is told if a part of the file is left out.

    Raises:
        ModelNotFoundError: there is no such file.
        UnsupportedModelError: the file is a pickle, belongs to another kind of model, or is not a textual inversion.
        RequestError: `path` is no path, `token` is not a valid name, or the file has several words.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise wrong_value("path", path, "the name of a .safetensors file with a textual inversion")
    file = _read_header(Path(path))
    names = _words(file, readers, notices or Notices())
    if token is not None and len(names) > 1:
        raise RequestError.advised(
            f"{file.path} has {len(names)} words",
            "leave out token, which can name only one",
            argument="token",
            path=file.path,
        )
    words = []
    for keys in names:
        called = (file.path.stem if keys[0] in _NAMELESS else keys[0]) if token is None else token
        first, *more = (_read_vectors(file, key, one) for key, one in zip(keys, readers, strict=True))
        words.append(
            Inversion(
                token=_checked_token(called, file.path), vectors=first, more=tuple(more), file=file.path.name
            )
        )
    return words


def _read_header(file: Path) -> SafetensorsFile:
    """Read what a file holds, and check that it may be a textual inversion."""
    if file.suffix.lower() in PICKLES:
        raise UnsupportedModelError.advised(
            f"{file} is a pickle, which runs code when it is read",
            "if you trust it, convert it to .safetensors",
            path=file,
        )
    _check_is_file(file)
    try:
        found = read_header(file)
    except OSError as error:
        raise _unreadable(file, error) from error
    kind = kind_of(found)
    if kind is not None and kind.what != EMBEDDING:
        raise UnsupportedModelError.expected(
            f"{file} is {kind}", "a textual inversion, which holds the embeddings of a word", path=file
        )
    return found


def _unreadable(file: Path, error: OSError) -> UnsupportedModelError:
    return UnsupportedModelError.advised(
        f"{file} cannot be read ({error.strerror or error})", "check its permissions", path=file
    )


def _words(file: SafetensorsFile, readers: Sequence[Reader], notices: Notices) -> list[tuple[str, ...]]:
    """Return for each word the names of the tensors that hold its embeddings, one for each reader."""
    names = [name for name in file.tensors if not _BOOKKEEPING.fullmatch(name)]
    if not names:
        raise UnsupportedModelError.expected(
            f"{file.path} is empty", "the embeddings of a word", path=file.path
        )
    of_sdxl = [pair for pair in _SDXL if set(pair) & set(names)]
    is_first_alone = [one.part for one in readers] == [0]
    if not of_sdxl and is_first_alone:
        return [(name,) for name in names]
    if not of_sdxl:
        wanted = " and ".join(_SDXL[0][one.part] for one in readers)
        raise UnsupportedModelError.expected(
            f"{file.path} is a textual inversion for one text encoder",
            f"one for SDXL, which has {wanted}",
            path=file.path,
        )
    keys = tuple(of_sdxl[0][one.part] for one in readers)
    if is_first_alone:
        _check_first_part(file, keys[0], readers[0].width)
        # SDXL's first text encoder is that of Stable Diffusion 1. ComfyUI uses its part for Stable Diffusion 1 too.
        if of_sdxl[0][1] in names:
            notices.warn(
                f"{file.path} is for SDXL; only its part for the first text encoder ({keys[0]}) is used"
            )
    if missing := [key for key in keys if key not in names]:
        raise UnsupportedModelError.expected(
            f"{file.path} has no {missing[0]}",
            f"a textual inversion for SDXL, which has {' and '.join(keys)}",
            path=file.path,
        )
    return [keys]


def _check_first_part(file: SafetensorsFile, key: str, width: int) -> None:
    if key not in file.tensors or file.tensors[key].shape[-1:] != (width,):
        raise UnsupportedModelError.expected(
            f"{file.path} is a textual inversion for SDXL", "one for Stable Diffusion 1 or 2", path=file.path
        )


def _check_is_file(file: Path) -> None:
    try:
        is_folder, is_file = file.is_dir(), file.is_file()
    except OSError as error:  # the name may be too long
        raise ModelNotFoundError.expected(
            f"{brief(str(file))} cannot be read ({error.strerror})", _FILE, path=file
        ) from None
    if is_folder:
        found = sorted(one.name for one in file.glob("*.safetensors"))
        such = f", such as {file / found[0]}" if found else ""
        raise ModelNotFoundError.expected(f"{file} is a folder", f"{_FILE}{such}", path=file)
    if not is_file:
        raise ModelNotFoundError.expected(f"{file} does not exist", _FILE, path=file)


def _checked_token(token: object, file: Path) -> str:
    """Return `token` if a prompt can contain it as a word.

    Spaces are allowed, as in many of A1111's names, but not at its ends. A prompt cannot contain surrogates, and nobody
    can see that a prompt lacks an invisible character.
    """
    if not isinstance(token, str) or not 0 < len(token) <= 200:
        fits = "a word of 1 to 200 characters"
    elif token != token.strip():
        fits = "a word without spaces at its ends"
    elif not token.isprintable():
        fits = "a word of visible characters"
    else:
        return token
    raise RequestError(
        f"{file}: its token is {brief(token)}, expected {fits}: choose another with "
        "load_textual_inversion(…, token=…), or rename the file",
        argument="token",
        path=file,
        fits=fits,
    )


def _read_vectors(file: SafetensorsFile, name: str, reader: Reader) -> Array:
    """Read the embeddings [tokens, width] of a word. Their shape is checked before they take memory."""
    width, room = reader.width, reader.room
    *tokens, last = file.tensors[name].shape or (0,)
    if len(tokens) > 1 or last != width:
        raise _misfit(file, name, width)
    if tokens and not 1 <= tokens[0] <= room:
        problem = f"{file.path}: {brief(name)} has {tokens[0]} tokens"
        raise UnsupportedModelError.expected(problem, f"1 to {room}", path=file.path)
    try:
        vectors = np.atleast_2d(read_tensor(file, name))
    except OSError as error:
        raise _unreadable(file.path, error) from error
    if vectors.dtype.kind != "f":
        raise _misfit(file, name, width)
    with np.errstate(over="ignore"):  # float64 may overflow to infinity
        vectors = vectors.astype(np.float32)
    if not np.isfinite(vectors).all():
        what = "NaN" if np.isnan(vectors).any() else "infinity"
        problem = f"{file.path}: {brief(name)} contains {what}, so its training failed or the file is damaged"
        remedy = "download it again, or use an earlier step of the training"
        raise UnsupportedModelError.advised(problem, remedy, path=file.path)
    return vectors


def _misfit(file: SafetensorsFile, name: str, width: int) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"{file.path}: {brief(name)} is {file.tensors[name]}, expected float embeddings of width {width}: "
        "choose a file for this text encoder",
        path=file.path,
        fits=f"float embeddings of width {width}",
    )
