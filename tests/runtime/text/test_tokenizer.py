"""The tokenizer and the text encoder without transformers. tests/parity compares them with transformers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sdrt import IntegrityError, ModelError, RequestError, StableDiffusionPipeline
from sdrt.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> Tokenizer:
    return Tokenizer(tiny_model / "tokenizer", max_positions=77)


def test_ids_are_framed_and_padded(tokenizer: Tokenizer) -> None:
    empty, cat = tokenizer("").ids, tokenizer("a cat").ids
    assert empty.shape == cat.shape == (tokenizer.length,)
    assert cat[0] == empty[0]
    end = empty[1]
    assert end in cat[2:]
    assert (cat[list(cat).index(end) + 1 :] == empty[2:][0]).all()


def test_case_and_spaces_do_not_matter(tokenizer: Tokenizer) -> None:
    np.testing.assert_array_equal(tokenizer("A  CAT\n").ids, tokenizer("a cat").ids)


def test_the_dropped_end_is_returned(tokenizer: Tokenizer) -> None:
    words = [str(number % 10) for number in range(tokenizer.length)]
    result = tokenizer(" ".join(words))
    assert result.dropped == " ".join(words[tokenizer.length - 2 :])
    assert tokenizer(" ".join(words[: tokenizer.length - 2])).dropped == ""


def test_truncation_is_reported(tiny_model: Path) -> None:
    messages: list[str] = []
    pipeline = StableDiffusionPipeline.from_pretrained(
        tiny_model, provider="cpu", threads=1, verify=False, notify=messages.append
    )
    pipeline(
        "1 " * 200 + "the very end",
        num_inference_steps=1,
        guidance_scale=1,
        output_type="latent",
        prompt_syntax="plain",
    )
    assert len(messages) == 1
    assert "tokens; the end is ignored" in messages[0]
    assert len(messages[0]) < 400


def test_both_forms_of_the_files_agree(tiny_model: Path, model_copy: Path) -> None:
    """tokenizer.json has the same content as vocab.json and merges.txt."""
    (model_copy / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    built = Tokenizer(model_copy / "tokenizer", max_positions=77)
    given = Tokenizer(tiny_model / "tokenizer", max_positions=77)
    for text in ("a cat! it's 42 cats", "naïve café, ÇA VA?", "日本語 🦊🦊", "<|endoftext|> x", "a" * 500):
        np.testing.assert_array_equal(built(text).ids, given(text).ids)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("vocab.json", None),
        ("vocab.json", "{"),
        ("vocab.json", "{}"),
        ("vocab.json", '{"a": "b"}'),
        ("vocab.json", '{"a": 0}'),
        ("merges.txt", None),
        ("merges.txt", "#version: 0.2\na b c\n"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"model_max_length": "77"}'),
        ("tokenizer_config.json", '{"model_max_length": 2}'),
        ("tokenizer_config.json", '{"model_max_length": NaN}'),
        pytest.param("tokenizer_config.json", '{"model_max_length": ' + "9" * 5000 + "}", id="digits"),
        ("tokenizer_config.json", '{"bos_token": ["a"]}'),
        ("tokenizer_config.json", '{"bos_token": {"content": 5}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {"content": "a"}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"1": {}}}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"1": {"content": "a", "lstrip": "x"}}}'),
        ("vocab.json", '{"a": -1}'),
        ("vocab.json", '{"a": 99999999999999999999}'),
        ("vocab.json", '{"a": true}'),
        pytest.param("vocab.json", "[" * 100_000, id="depth"),
        ("special_tokens_map.json", '{"eos_token": 5}'),
    ],
)
def test_damaged_files_are_named(model_copy: Path, name: str, text: str | None) -> None:
    folder = model_copy / "tokenizer"
    (folder / "tokenizer.json").unlink(missing_ok=True)
    if name == "tokenizer_config.json" and text and text.startswith("{"):
        # special_tokens_map.json would take precedence.
        (folder / "special_tokens_map.json").unlink()
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    with pytest.raises(IntegrityError, match="tokenizer"):
        Tokenizer(folder, max_positions=77)


def test_a_damaged_file_may_be_of_a_checkpoint_or_of_an_export(model_copy: Path) -> None:
    folder = model_copy / "tokenizer"
    (folder / "tokenizer.json").unlink(missing_ok=True)
    (folder / "vocab.json").write_text("{")
    with pytest.raises(
        IntegrityError, match=r"vocab\.json is not JSON .*: download or export the model again$"
    ):
        Tokenizer(folder, max_positions=77)


def test_a_damaged_tokenizer_json_is_named(model_copy: Path) -> None:
    for text in ("{", "{}", '{"model": {"type": "WordPiece"}}'):
        (model_copy / "tokenizer" / "tokenizer.json").write_text(text)
        with pytest.raises(IntegrityError, match=r"tokenizer\.json"):
            Tokenizer(model_copy / "tokenizer", max_positions=77)


def test_a_special_token_outside_the_vocabulary(model_copy: Path) -> None:
    path = model_copy / "tokenizer" / "vocab.json"
    vocabulary = json.loads(path.read_text(encoding="utf-8"))
    del vocabulary["<|startoftext|>"]
    path.write_text(json.dumps(vocabulary), encoding="utf-8")
    (model_copy / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    with pytest.raises(ModelError, match="startoftext"):
        Tokenizer(model_copy / "tokenizer", max_positions=77)


def test_clip_skip_out_of_range_or_not_exported(pipeline: StableDiffusionPipeline) -> None:
    with pytest.raises(RequestError, match="clip_skip is 99"):
        pipeline("a", clip_skip=99, num_inference_steps=1, output_type="latent")
