"""Textual inversions: their files, finding their words in a text, and files that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from sdrt import ModelError, RequestError, StableDiffusionPipeline
from sdrt.text.textual_inversion import Inversion, Inversions, read_inversions

WIDTH = 32


def written(folder: Path, tensors: dict[str, np.ndarray], name: str = "shell.safetensors") -> Path:
    save_file(tensors, folder / name)
    return folder / name


def rows(count: int, width: int = WIDTH) -> np.ndarray:
    return np.linspace(-1, 1, count * width, dtype=np.float32).reshape(count, width)


def read(path: Path, token: str | None = None) -> list[Inversion]:
    return read_inversions(path, token=token, width=WIDTH, room=75)


@pytest.mark.parametrize(
    ("tensors", "token", "expected"),
    [
        ({"<shell>": rows(1)[0]}, None, {"<shell>": 1}),
        ({"<shell>": rows(3).astype(np.float16)}, "sea", {"sea": 3}),
        ({"emb_params": rows(2)}, None, {"shell": 2}),
        ({"<a>": rows(1), "<b>": rows(2)}, None, {"<a>": 1, "<b>": 2}),
        ({"bad hands": rows(1)}, None, {"bad hands": 1}),
    ],
    ids=["diffusers", "renamed", "a1111", "two", "with a space"],
)
def test_files(
    tmp_path: Path, tensors: dict[str, np.ndarray], token: str | None, expected: dict[str, int]
) -> None:
    found = read(written(tmp_path, tensors), token)
    assert {word.token: len(word.vectors) for word in found} == expected
    assert all(word.vectors.dtype == np.float32 for word in found)


@pytest.mark.parametrize(
    ("tensors", "token", "message"),
    [
        (
            {"<shell>": rows(1, 16)},
            None,
            "expected float embeddings of width 32: choose a file for this text encoder",
        ),
        ({"<shell>": rows(80)}, None, "has 80 tokens: expected 1 to 75"),
        ({"<shell>": np.full((1, WIDTH), np.nan, np.float32)}, None, "with finite values only"),
        ({"<shell>": np.ones((1, WIDTH), np.int32)}, None, "is int32 of shape"),
        ({}, None, "is empty"),
        ({"clip_l": rows(1), "clip_g": rows(1)}, None, "for SDXL"),
        ({"<a>": rows(1), "<b>": rows(1)}, "c", "has 2 words: leave out token"),
        (
            {"emb_params": rows(1)},
            " word",
            r"shell.safetensors: its token is ' word', expected a word without spaces at its ends",
        ),
        ({"a\u200bb": rows(1)}, None, r"its token is 'a\\u200bb', expected a word of visible characters"),
        ({"emb_params": rows(1)}, "\ud83d", "expected a word of visible characters"),
        ({"emb_params": rows(1)}, "", "its token is '', expected a word of 1 to 200"),
    ],
    ids=[
        "width",
        "long",
        "nan",
        "integers",
        "empty file",
        "sdxl",
        "several",
        "spaces",
        "invisible",
        "surrogate",
        "empty name",
    ],
)
def test_files_that_are_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], token: str | None, message: str
) -> None:
    with pytest.raises((ModelError, RequestError), match=message):
        read(written(tmp_path, tensors), token)


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"")
    (tmp_path / "a.safetensors").write_bytes(b"nonsense")
    for name, message in (
        ("a.pt", "is a pickle"),
        ("b.safetensors", "does not exist"),
        ("a.safetensors", "cannot be read as a safetensors file"),
    ):
        with pytest.raises(ModelError, match=message):
            read(tmp_path / name)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"^{tmp_path} is a folder: expected a .safetensors file with a"):
        read(tmp_path)
    file = written(tmp_path, {"<a>": rows(1)}, "learned_embeds.safetensors")
    with pytest.raises(ModelError, match=f"is a folder: expected .*, such as {file}$"):
        read(tmp_path)
    for path in (5, None, ["a.safetensors"], "a\0b"):
        with pytest.raises(RequestError, match="expected the name of a"):
            read(path)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="cannot be read"):
        read(Path("x" * 5000))


def test_only_whole_words_are_found() -> None:
    words = Inversions(vocabulary=100).with_words(
        [Inversion(token="shell", vectors=rows(2)), Inversion(token="<shell>", vectors=rows(1))]
    )
    assert list(words.split("a Shell, shells <shell> seashell")) == [
        ("a ", []),
        ("Shell", [100, 101]),
        (", shells ", []),
        ("<shell>", [102]),
        (" seashell", []),
    ]
    assert list(words.split("")) == []
    with pytest.raises(RequestError, match="'SHELL' is loaded already"):
        words.with_words([Inversion(token="SHELL", vectors=rows(1))])


def test_letters_with_unusual_case_rules() -> None:
    """A regular expression that ignores case treats a dotless i as an i. `str.lower` does not."""
    words = Inversions(vocabulary=10).with_words([Inversion(token="bird", vectors=rows(1))])
    for text in ("a b\u0131rd", "B\u0130RD", "\u017fbird"):
        assert "".join(piece for piece, _ in words.split(text)) == text


def test_words_of_one_file_that_differ_only_in_case() -> None:
    with pytest.raises(RequestError, match="'<a>' is loaded already"):
        Inversions(vocabulary=10).with_words(
            [Inversion(token="<A>", vectors=rows(3)), Inversion(token="<a>", vectors=rows(1))]
        )


def test_a_word_changes_images_whose_prompt_has_it(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    path = written(tmp_path, {"<shell>": rows(3)})
    options: dict[str, Any] = {"seed": 2, "num_inference_steps": 2, "output_type": "np"}
    own = StableDiffusionPipeline.from_pretrained(pipeline.model.path, provider="cpu", notify=lambda _: None)
    before = own("a <shell> on a table", **options).images
    assert own.load_textual_inversion(path) == ["<shell>"]
    after = own("a <shell> on a table", **options).images
    assert np.abs(after - before).max() > 0.01
    np.testing.assert_array_equal(own("a table", **options).images, pipeline("a table", **options).images)
    own.close()  # new sessions know the word too
    np.testing.assert_array_equal(own("a <shell> on a table", **options).images, after)
    with pytest.raises(RequestError, match="loaded already"):
        own.load_textual_inversion(path)


def test_a_word_of_many_tokens_is_not_cut(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    own = StableDiffusionPipeline.from_pretrained(pipeline.model.path, provider="cpu", notify=lambda _: None)
    own.load_textual_inversion(written(tmp_path, {"<shell>": rows(40)}))
    encoder = own._cache.get().text_encoder()
    from sdrt.prompts.a1111 import parse_weights
    from sdrt.text.chunks import chunked

    chunks = chunked(parse_weights("<shell> <shell> a"), encoder.tokenizer)
    assert len(chunks[0].tokens) == 40
    assert chunks[1].tokens[:40] == chunks[0].tokens


def test_words_are_forgotten(pipeline: StableDiffusionPipeline, tmp_path: Path) -> None:
    options: dict[str, Any] = {"seed": 2, "num_inference_steps": 2, "output_type": "np"}
    own = StableDiffusionPipeline.from_pretrained(pipeline.model.path, provider="cpu", notify=lambda _: None)
    own.load_textual_inversion(written(tmp_path, {"<shell>": rows(3)}, "one.safetensors"))
    own.load_textual_inversion(written(tmp_path, {"<sea>": -rows(2)}, "two.safetensors"))
    sea = own("a <sea>", **options)
    assert sea.metadata(0).settings["Embeddings"] == "one.safetensors, two.safetensors"
    own.unload_textual_inversion("<SHELL>")
    # The other word means what it did, and the metadata no longer name the file.
    again = own("a <sea>", **options)
    np.testing.assert_array_equal(again.images, sea.images)
    assert again.metadata(0).settings["Embeddings"] == "two.safetensors"
    without = pipeline("a <shell>", **options).images
    np.testing.assert_array_equal(own("a <shell>", **options).images, without)
    with pytest.raises(RequestError, match="'<shell>' is not loaded: choose one of those that are: <sea>"):
        own.unload_textual_inversion(["<shell>"])
    own.unload_textual_inversion()
    np.testing.assert_array_equal(own("a <sea>", **options).images, pipeline("a <sea>", **options).images)
    # A word may be loaded again, also with other embeddings.
    assert own.load_textual_inversion(written(tmp_path, {"<sea>": rows(1)}, "two.safetensors")) == ["<sea>"]
    assert np.abs(own("a <sea>", **options).images - sea.images).max() > 0.01
    own.close()
    assert np.abs(own("a <sea>", **options).images - sea.images).max() > 0.01


def test_what_is_no_list_of_words(pipeline: StableDiffusionPipeline) -> None:
    pipeline.unload_textual_inversion()
    with pytest.raises(RequestError, match="tokens is 5: expected a word, a list of words, or None for all"):
        pipeline.unload_textual_inversion(5)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="'<a>' is not loaded: choose one of those that are: none"):
        pipeline.unload_textual_inversion("<a>")
