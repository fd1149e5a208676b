"""Tags in prompts that are not words."""

from __future__ import annotations

import time

import pytest

from sdrt.errors import RequestError
from sdrt.prompts.tags import embedding_names, tags, without_tags
from sdrt.text.unread import unread


@pytest.mark.parametrize(
    ("text", "kind", "name", "multipliers"),
    [
        ("<lora:detail>", "lora", "detail", (1.0, 1.0)),
        ("<lora:detail:0.8>", "lora", "detail", (0.8, 0.8)),
        ("<lora:a b.v2:-0.5:1.5>", "lora", "a b.v2", (-0.5, 1.5)),
        ("<lyco:x:te=0.3:unet=.7>", "lyco", "x", (0.3, 0.7)),
        ("<lora:x:0.5:unet=0>", "lora", "x", (0.5, 0.0)),
        ("<hypernet:folder/h:1>", "hypernet", "folder/h", (1.0, 1.0)),
    ],
)
def test_a_tag_names_a_network_and_its_multipliers(
    text: str, kind: str, name: str, multipliers: tuple[float, float]
) -> None:
    (tag,) = tags(f"a {text}, b")
    assert (tag.text, tag.kind, tag.name) == (text, kind, name)
    assert (tag.text_encoder_multiplier, tag.unet_multiplier) == multipliers


@pytest.mark.parametrize("value", ["strong", "nan", "inf", ""])
def test_a_multiplier_is_a_number(value: str) -> None:
    (tag,) = tags(f"<lora:x:{value}>")
    with pytest.raises(RequestError, match=r"the multiplier of .* expected a number"):
        _ = tag.unet_multiplier


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat <lora:x:0.8>, big", "a cat , big"),
        ("<lora:x><lora:y:1:2>a", "a"),
        ("a <unknown:x> b", "a  b"),
        # These are no tags.
        ("<3 cats, a < b > c", "<3 cats, a < b > c"),
        ("<cat-toy> <lora> <:x>", "<cat-toy> <lora> <:x>"),
        ("a <lora:x", "a <lora:x"),
        # ComfyUI's names of textual inversions.
        ("embedding:EasyNegative, fog", "easynegative, fog"),
        ("(embedding:easynegative.pt:1.2)", "(easynegative:1.2)"),
        ("embedding:sub/easynegative.safetensors", "easynegative"),
        ("embedding:easynegative.", "easynegative."),
        ("embedding:v2.1. x", "v2.1. x"),
        ("a embedding:other b", "a  b"),
        ("(embedding:other:1.2)", "(:1.2)"),
        ("my embedding: x", "my embedding: x"),
    ],
)
def test_tags_are_taken_out(text: str, expected: str) -> None:
    assert without_tags(text, ("easynegative", "v2.1")) == expected


def test_names_without_a_word_are_known() -> None:
    found = embedding_names("embedding:a, embedding:b!", ("A",))
    assert [(one.text, one.word) for one in found] == [("embedding:a", "A"), ("embedding:b", None)]


def test_users_are_told_once_of_each() -> None:
    told = unread(["<lora:x:1> a", "<lora:x:1> b"], ["<lora:x:1> <hypernet:y>"], "a1111")
    assert told == [
        "'<lora:x:1>' is left out of the prompt: give the folder of LoRAs with --lora-dir, or lora_dir",
        "'<hypernet:y>' is left out of the prompt: hypernetworks are not supported yet",
    ]
    assert unread(["<lora:x:1> a"], ["<lora:x:1> b"], "a1111", loras="") == [
        "'<lora:x:1>' is left out of the prompt: write it in the prompt itself, where it applies to every text"
    ]


@pytest.mark.parametrize(
    ("prompt", "syntax", "message"),
    [
        ("<foo:bar>", "a1111", "'foo' is no kind of network"),
        ("<lyco:bar>", "compel", "give the folder of LoRAs with --lora-dir"),
        ("<lora:bar>", "plain", "is read as words, because prompt_syntax is 'plain'"),
        ("embedding:no, a", "a1111", "'embedding:no' is left out of the prompt: no textual inversion"),
        ("a __hair_color__ cat", "a1111", "'__hair_color__' is read as words"),
        ("a cat, sharp:1.4", "a1111", r"multiplies its guidance scale by 1\.4"),
    ],
)
def test_users_are_told(prompt: str, syntax: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert not unread([prompt], [], syntax)


@pytest.mark.parametrize(
    ("prompt", "syntax"),
    [
        ("a cat, (sharp:1.4)", "a1111"),
        ("a cat AND a dog:1.4", "a1111"),
        ("a cat, sharp:1.4", "compel"),
        ("a cat, sharp:1.0", "a1111"),
        ("a photo, 16:9,", "a1111"),
        ("embedding:Yes", "a1111"),
        ("snake__case and other__case", "a1111"),
        ("__x__ <cat:toy>", "plain"),
    ],
)
def test_users_are_told_nothing(prompt: str, syntax: str) -> None:
    assert unread([prompt], [prompt.partition("sharp")[0]], syntax, ("yes",)) == []


@pytest.mark.parametrize("text", ["<a:" * 30_000, "<" + "a" * 30_000, "embedding:" * 9_000, "__a" * 20_000])
def test_long_texts_take_no_time(text: str) -> None:
    began = time.perf_counter()
    unread([text], [], "a1111")
    assert time.perf_counter() - began < 5
