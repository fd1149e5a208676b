"""The tokenizer's files, with a ``tokenizer.json`` for the runtime, which has only ``tokenizers``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from sdrt.errors import ExportError, SdrtError
from sdrt.text.clip_bpe import from_vocabulary

__all__ = ["check_tokenizer", "write_byte_tokenizer", "write_tokenizer"]

_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# CLIP's tokenizers read no merges past 49152 tokens, less the bytes and the two special ones.
_MERGES_END = 49152 - 256 - 2 + 1
_BOS, _EOS = "<|startoftext|>", "<|endoftext|>"


def write_tokenizer(source: Path, destination: Path) -> None:
    """Copy the original files from ``source`` and write ``tokenizer.json``.

    Raises:
        ExportError: the files are missing, or are not a CLIP tokenizer.
    """
    check_tokenizer(source)
    destination.mkdir(parents=True)
    for name in _FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, destination / name)
    if not _has_originals(source):
        shutil.copyfile(source / "tokenizer.json", destination / "tokenizer.json")
        return
    # The originals decide. A tokenizer.json beside them is a conversion, and may belong to another tokenizer.
    try:
        tokenizer = from_vocabulary(destination)
    except SdrtError as error:
        raise ExportError(f"{source} is not a CLIP tokenizer: {error}", path=source) from error
    tokenizer.save(str(destination / "tokenizer.json"))


def check_tokenizer(source: Path) -> None:
    """Check the files of ``source`` before minutes of work.

    Raises:
        ExportError: the files are missing, or are not a CLIP tokenizer.
    """
    if not _has_originals(source) and (source / "tokenizer.json").is_file():
        return
    try:
        _check_vocabulary(source)
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{source} is not a CLIP tokenizer: {error}", path=source) from error


def _has_originals(source: Path) -> bool:
    return all((source / name).is_file() for name in ("vocab.json", "merges.txt"))


def _check_vocabulary(folder: Path) -> None:
    """Raise ValueError for files that make the tokenizers library raise a bare ``Exception``, or that it accepts."""
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    if not isinstance(vocabulary, dict) or not all(isinstance(index, int) for index in vocabulary.values()):
        raise ValueError("vocab.json is not a table of tokens and numbers")
    lines = (folder / "merges.txt").read_text(encoding="utf-8").strip().split("\n")
    for line in lines[1:_MERGES_END]:
        unknown = [token for token in (*line.split(), "".join(line.split())) if token not in vocabulary]
        if unknown:
            raise ValueError(f"merges.txt joins {unknown[0]!r}, which vocab.json lacks")


def write_byte_tokenizer(scratch: Path, destination: Path, length: int) -> None:
    """Write a CLIP tokenizer of single bytes, without merges, for random weights."""
    symbols = list(_byte_symbols())
    tokens = [*symbols, *(f"{symbol}</w>" for symbol in symbols), _BOS, _EOS]
    special = {"bos_token": _BOS, "eos_token": _EOS, "unk_token": _EOS, "pad_token": _EOS}
    config = special | {"model_max_length": length, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    scratch.mkdir(parents=True)
    _write(
        scratch / "vocab.json",
        json.dumps({token: index for index, token in enumerate(tokens)}, ensure_ascii=False),
    )
    _write(scratch / "merges.txt", "#version: 0.2\n")
    _write(scratch / "special_tokens_map.json", json.dumps(special, indent=2))
    _write(scratch / "tokenizer_config.json", json.dumps(config, indent=2))
    write_tokenizer(scratch, destination)
    shutil.rmtree(scratch)


def _byte_symbols() -> list[str]:
    """The printable characters of byte-level BPE for all byte values: the byte itself, or one from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(0x100 + index) for index in range(len(others))]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
