"""`tokenizer.json`, written for serving without transformers, gives transformers' ids."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models
from transformers import CLIPTokenizer, CLIPTokenizerFast

from sdrt.errors import ExportError
from sdrt_export.tokenizer import write_byte_tokenizer, write_tokenizer

STRINGS = [
    "a photo of an astronaut riding a horse on mars",
    "",
    "  two  spaces\tand\nlines ",
    "UPPER CamelCase snake_case",
    "it's, isn't! (weighted:1.3) [x]",
    "1234567890 3.14 8k",
    "naïve café Ångström",
    "cafe\u0301 A\u030angstrom",
    "a 🦊 on 🌈",
    "<|startoftext|> and <|endoftext|> in the text",
    "astronaut" * 60,
]
# transformers' slow tokenizer, without ftfy, puts spaces around each; OpenAI's original does not.
FAST_ONLY = ["日本語の猫", "İstanbul", "a\u200bb"]


def _ids(folder: Path, text: str) -> list[int]:
    return list(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids)


@pytest.mark.parametrize("variant", ["sd1", "sd2"])
def test_ids_equal_transformers(checkpoint: Callable[[str], Path], variant: str, tmp_path: Path) -> None:
    source = checkpoint(variant) / "tokenizer"
    write_tokenizer(source, tmp_path / "tokenizer")
    slow, fast = CLIPTokenizer.from_pretrained(source), CLIPTokenizerFast.from_pretrained(source)
    for text in STRINGS:
        assert _ids(tmp_path / "tokenizer", text) == slow(text).input_ids == fast(text).input_ids
    for text in FAST_ONLY:
        assert _ids(tmp_path / "tokenizer", text) == fast(text).input_ids


def test_the_original_files_are_kept(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    source = checkpoint("sd2") / "tokenizer"
    write_tokenizer(source, tmp_path / "tokenizer")
    for path in source.iterdir():
        assert (tmp_path / "tokenizer" / path.name).read_bytes() == path.read_bytes()


def test_a_conversion_of_anothers_is_only_the_second_choice(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source, alone = tmp_path / "source", tmp_path / "alone"
    shutil.copytree(checkpoint("sd1") / "tokenizer", source)
    foreign = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    foreign.save(str(source / "tokenizer.json"))
    write_tokenizer(source, tmp_path / "made")
    expected = CLIPTokenizer.from_pretrained(checkpoint("sd1") / "tokenizer")
    assert _ids(tmp_path / "made", "a cat") == expected("a cat").input_ids
    alone.mkdir()
    shutil.copyfile(tmp_path / "made" / "tokenizer.json", alone / "tokenizer.json")
    write_tokenizer(alone, tmp_path / "copied")
    assert _ids(tmp_path / "copied", "a cat") == expected("a cat").input_ids


def test_byte_tokenizer_knows_every_byte(tmp_path: Path) -> None:
    """What random weights are exported with: no words, but every string has ids and comes back."""
    write_byte_tokenizer(tmp_path / "scratch", tmp_path / "tokenizer", 77)
    assert not (tmp_path / "scratch").exists()
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer" / "tokenizer.json"))
    vocabulary = json.loads((tmp_path / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocabulary.values()) == list(range(514))
    slow = CLIPTokenizer.from_pretrained(tmp_path / "tokenizer")
    for text in STRINGS[:-2]:
        ids = tokenizer.encode(text).ids
        assert ids == slow(text).input_ids
        assert (ids[0], ids[-1]) == (512, 513)
    spelled = tokenizer.decode(tokenizer.encode("héllo 🦊 b").ids)
    assert spelled.replace("</w>", " ") == "héllo 🦊 b "


@pytest.mark.parametrize("damage", ["{", "[]", "{}", '{"a": "b"}', None])
def test_what_is_no_clip_tokenizer(
    checkpoint: Callable[[str], Path], damage: str | None, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in (checkpoint("sd1") / "tokenizer").iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    if damage is None:
        (source / "vocab.json").unlink()
    else:
        (source / "vocab.json").write_text(damage)
    with pytest.raises(ExportError, match="not a CLIP tokenizer"):
        write_tokenizer(source, tmp_path / "tokenizer")
