"""CLIP's tokenizer from the package: published ids, and those that transformers makes of the same files."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import pytest
from transformers import CLIPTokenizerFast

from sdrt.text.tokenizer import Tokenizer
from sdrt_export.checkpoints.clip_vocabulary import VOCABULARY, clip_tokenizer, vocabulary
from sdrt_export.tokenizer import check_tokenizer

# Without the library ftfy, the slow CLIPTokenizer splits Chinese words by characters. With it, both agree.
END = "<|endoftext|>"
TEXTS = [
    "a photo of a cat",
    "",
    "Astronaut riding a horse on Mars, 4k, (masterpiece:1.2), trending on artstation!!!",
    "café déjà-vu naïve ÀÉÎÕÜ",
    "日本の城 🏯 с кириллицей",
    "it's 1990s 'n' roll — don't",
    "  double   spaces\tand\nlines ",
    "word " * 100,
]


def test_published_ids() -> None:
    """Those of the paper's example in OpenAI's repository, and of the special tokens."""
    tokenizer = Tokenizer(clip_tokenizer(END), max_positions=77)
    ids = tokenizer("a photo of a cat").ids
    assert ids[:7].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]
    words = vocabulary()
    assert len(words) == VOCABULARY
    assert (words["!"], words[END], words["cat</w>"]) == (0, 49407, 2368)


@pytest.mark.parametrize("pad", [END, "!"])
@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_those_of_transformers(pad: str, text: str) -> None:
    folder = clip_tokenizer(pad)
    theirs = CLIPTokenizerFast.from_pretrained(folder)
    expected = theirs(text, padding="max_length", max_length=77, truncation=True).input_ids
    assert Tokenizer(folder, max_positions=77)(text).ids.tolist() == expected
    assert expected[-1] == (49407 if pad == END or len(text) > 400 else 0)


def test_the_folder_is_one_that_an_export_takes() -> None:
    folder = clip_tokenizer("!")
    check_tokenizer(folder)
    assert clip_tokenizer("!") == folder
    special = json.loads((folder / "special_tokens_map.json").read_text())
    assert special == {"bos_token": "<|startoftext|>", "eos_token": END, "unk_token": END, "pad_token": "!"}


def test_its_origin_and_licence_are_beside_it() -> None:
    data = files("sdrt_export.checkpoints.clip_vocabulary")
    notice = data.joinpath("NOTICE").read_text()
    assert "MIT License" in notice
    assert "OpenAI" in notice
    assert Path(str(data.joinpath("merges.txt.gz"))).stat().st_size < 300_000
