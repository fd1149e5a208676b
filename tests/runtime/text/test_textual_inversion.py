"""Textual inversions: their files, finding their words in a text, and files that are refused."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import ModelError, RequestError, StableDiffusionPipeline
from sdrt.common.notices import Notices
from sdrt.text.textual_inversion import Inversion, Inversions, Reader, read_inversions
from tests.safetensors_files import save_file, write_file

WIDTH = 32


def written(folder: Path, tensors: dict[str, np.ndarray], name: str = "shell.safetensors") -> Path:
    save_file(tensors, folder / name)
    return folder / name


def rows(count: int, width: int = WIDTH) -> np.ndarray:
    return np.linspace(-1, 1, count * width, dtype=np.float32).reshape(count, width)


def read(path: Path, token: str | None = None, messages: list[str] | None = None) -> list[Inversion]:
    notices = Notices(([] if messages is None else messages).append)
    return read_inversions(path, token=token, readers=[Reader(width=WIDTH, room=75)], notices=notices)


@pytest.mark.parametrize(
    ("tensors", "token", "expected"),
    [
        ({"<shell>": rows(1)[0]}, None, {"<shell>": 1}),
        ({"<shell>": rows(3).astype(np.float16)}, "sea", {"sea": 3}),
        ({"emb_params": rows(2)}, None, {"shell": 2}),
        ({"<a>": rows(1), "<b>": rows(2)}, None, {"<a>": 1, "<b>": 2}),
        ({"bad hands": rows(1)}, None, {"bad hands": 1}),
        ({"clip_l": rows(2)}, None, {"shell": 2}),
        ({"string_to_param": rows(2)}, None, {"shell": 2}),
        (
            {"string_to_param.*": rows(2), "string_to_token.*": np.array(265), "step": np.array(500)},
            "sea",
            {"sea": 2},
        ),
        ({"*": rows(2)}, None, {"shell": 2}),
    ],
    ids=[
        *("diffusers", "renamed", "a1111", "two", "with a space"),
        *("comfyui", "a1111, as a tensor", "a1111, as a dictionary", "a1111, only its parameter"),
    ],
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
        (
            {"<shell>": np.full((1, WIDTH), np.nan, np.float32)},
            None,
            "'<shell>' contains NaN, so its training",
        ),
        ({"<shell>": np.full((2, WIDTH), -np.inf, np.float16)}, None, "'<shell>' contains infinity, so its"),
        ({"<shell>": np.full((1, WIDTH), 1e300, np.float64)}, None, "'<shell>' contains infinity, so its"),
        ({"<shell>": np.ones((1, WIDTH), np.int32)}, None, "is int32 of shape"),
        ({}, None, "is empty"),
        ({"clip_l": rows(1, 24), "clip_g": rows(1, 40)}, None, "for SDXL"),
        ({"clip_g": rows(1)}, None, "for SDXL: expected one for Stable Diffusion 1 or 2"),
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
        "infinity",
        "too large",
        "integers",
        "empty file",
        "sdxl",
        "clip_g",
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


@pytest.mark.parametrize(
    "names", [("clip_l", "clip_g"), ("text_encoders_0", "text_encoders_1")], ids=["a1111", "diffusers"]
)
def test_the_part_for_the_first_text_encoder_of_sdxl(tmp_path: Path, names: tuple[str, str]) -> None:
    """SDXL's first text encoder is that of Stable Diffusion 1, and ComfyUI shares its embeddings too."""
    path, messages = written(tmp_path, {names[0]: rows(2), names[1]: rows(2, 40)}), []
    (word,) = read(path, messages=messages)
    assert word.token == "shell"
    np.testing.assert_array_equal(word.vectors, rows(2))
    assert messages == [f"{path} is for SDXL; only its part for the first text encoder ({names[0]}) is used"]


def raw(path: Path, dtype: str, shape: list[int], data: bytes, name: str = "emb_params") -> Path:
    """Write a safetensors file with one tensor of any number type."""
    write_file(path, {name: {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}}, [data])
    return path


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [
        # 1, -2, 0.3125 and the smallest number above 0, each in 2 or 1 bytes.
        ("BF16", {1.0: b"\x80\x3f", -2.0: b"\x00\xc0", 0.3125: b"\xa0\x3e", 2.0**-133: b"\x01\x00"}),
        ("F8_E4M3", {1.0: b"\x38", -2.0: b"\xc0", 0.3125: b"\x2a", 2.0**-9: b"\x01", 448.0: b"\x7e"}),
        ("F8_E5M2", {1.0: b"\x3c", -2.0: b"\xc0", 0.3125: b"\x35", 2.0**-16: b"\x01", 57344.0: b"\x7b"}),
    ],
)
def test_number_types_that_numpy_lacks(tmp_path: Path, dtype: str, numbers: dict[float, bytes]) -> None:
    padding = WIDTH - len(numbers)
    data = b"".join(numbers.values()) + next(iter(numbers.values())) * padding
    (word,) = read(raw(tmp_path / "shell.safetensors", dtype, [1, WIDTH], data))
    assert word.vectors.tolist() == [[*numbers, *[1.0] * padding]]


def test_number_types_that_are_not_read(tmp_path: Path) -> None:
    path = raw(tmp_path / "shell.safetensors", "F8_E8M0", [1, WIDTH], bytes(WIDTH))
    with pytest.raises(ModelError, match="has the number type 'F8_E8M0', which is not supported: save it in"):
        read(path)
    path = raw(tmp_path / "shell.safetensors", "F8_E4M3", [1, WIDTH], b"\x7f" * WIDTH)
    with pytest.raises(ModelError, match="'emb_params' contains NaN"):
        read(path)


def test_a_file_of_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    """The shape is checked before the numbers are read. The file is sparse."""
    path = tmp_path / "shell.safetensors"
    header = json.dumps(
        {"emb_params": {"dtype": "F32", "shape": [1 << 25, WIDTH], "data_offsets": [0, 1 << 32]}}
    )
    path.write_bytes(len(header).to_bytes(8, "little") + header.encode())
    os.truncate(path, 8 + len(header) + (1 << 32))
    tracemalloc.start()
    try:
        with pytest.raises(ModelError, match="has 33554432 tokens: expected 1 to 75"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        ({"lora_unet_x.lora_down.weight": rows(4), "lora_unet_x.alpha": rows(1)}, "is a LoRA: expected"),
        ({"lora_te2_text_model_x.lora_up.weight": rows(4)}, "is a LoRA for SDXL"),
        ({"transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight": rows(4)}, "is a LoRA for Flux"),
        ({"decoder.conv_in.weight": rows(4)}, "is a VAE"),
        ({"control_model.zero_convs.0.0.weight": rows(4)}, "is a ControlNet"),
        ({"768.0.linear.0.weight": rows(4)}, "is a hypernetwork"),
        ({"cond_stage_model.transformer.x": rows(4)}, "is a single-file checkpoint of Stable Diffusion 1"),
    ],
)
def test_other_files_of_weights_are_named(tmp_path: Path, tensors: dict[str, np.ndarray], kind: str) -> None:
    with pytest.raises(ModelError, match=kind):
        read(written(tmp_path, tensors))


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
