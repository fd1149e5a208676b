"""The files of CLIP's tokenizers, which single files lack. All of Stable Diffusion has the same vocabulary."""

from __future__ import annotations

import gzip
import json
import tempfile
from functools import cache
from pathlib import Path

__all__ = ["VOCABULARY", "byte_symbols", "clip_tokenizer", "merges", "vocabulary"]

VOCABULARY = 49408
"""The number of tokens."""
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"
_LENGTH = 77


def byte_symbols() -> list[str]:
    """The printable characters of byte-level BPE for all byte values: the byte's own, or one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(len(others))]


@cache
def merges() -> list[str]:
    """The pairs that are joined, most frequent first, such as "i n"."""
    packed = Path(__file__).with_name("merges.txt.gz").read_bytes()
    return gzip.decompress(packed).decode().split("\n")[:-1]


def vocabulary() -> dict[str, int]:
    """The id of each token: bytes, bytes that end a word, joined pairs, the start and the end."""
    symbols = byte_symbols()
    tokens = [*symbols, *(f"{one}</w>" for one in symbols), *(pair.replace(" ", "") for pair in merges())]
    return {token: index for index, token in enumerate([*tokens, _BOS, _EOS])}


@cache
def _folders() -> tempfile.TemporaryDirectory[str]:
    """The folder of all tokenizers. It disappears at the end of the process."""
    return tempfile.TemporaryDirectory(prefix="sdrt-tokenizers-")


@cache
def clip_tokenizer(pad: str) -> Path:
    """A folder with the files of a tokenizer that pads with the token `pad`, as transformers writes them.

    Stable Diffusion 1 pads with the end token, OpenCLIP's encoders with "!", whose id is 0.
    """
    folder = Path(_folders().name) / f"pad-{vocabulary()[pad]}"
    folder.mkdir()
    special = {"bos_token": _BOS, "eos_token": _EOS, "unk_token": _EOS, "pad_token": pad}
    config = {**special, "model_max_length": _LENGTH, "do_lower_case": True}
    _write(folder / "vocab.json", json.dumps(vocabulary(), ensure_ascii=False))
    _write(folder / "merges.txt", "\n".join(["#version: 0.2", *merges()]) + "\n")
    _write(folder / "special_tokens_map.json", json.dumps(special, indent=2))
    _write(
        folder / "tokenizer_config.json", json.dumps({**config, "tokenizer_class": "CLIPTokenizer"}, indent=2)
    )
    return folder


def _write(path: Path, text: str) -> None:
    # The files are written as bytes, because on Windows text mode would change the ends of lines.
    path.write_bytes(text.encode())
