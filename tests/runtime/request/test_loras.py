"""The setting `lora`, and tags in prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sdrt import Request, RequestError
from sdrt.request.loras import lora_tags, parse_lora


@pytest.mark.parametrize(
    ("text", "path", "weights"),
    [
        ("a.safetensors", "a.safetensors", (1, 1)),
        ("a.safetensors:0.8", "a.safetensors", (0.8, 0.8)),
        ("a.safetensors:-1:.5", "a.safetensors", (-1, 0.5)),
        ("C:\\loras\\a.safetensors", "C:\\loras\\a.safetensors", (1, 1)),
        ("C:\\loras\\a.safetensors:0", "C:\\loras\\a.safetensors", (0, 0)),
        ("a:b", "a:b", (1, 1)),
        ("8", "8", (1, 1)),
        (":1", ":1", (1, 1)),
    ],
)
def test_weights_stand_behind_the_path(text: str, path: str, weights: tuple[float, float]) -> None:
    found = parse_lora(text)
    assert (found.path, (found.text_encoder, found.unet)) == (Path(path), weights)


def test_one_file_or_several() -> None:
    (one,) = Request(prompt="x", lora="a.safetensors:0.5").lora
    assert (one.path, one.unet) == (Path("a.safetensors"), 0.5)
    first, second = Request(prompt="x", lora=[Path("a:1"), "b:2"]).lora
    assert (first.path, first.unet, second.path, second.unet) == (Path("a:1"), 1, Path("b"), 2)
    assert Request(prompt="x", lora=[]).lora is None


@pytest.mark.parametrize(
    "lora", [3, [3], {"a": 1}, "", [""], " ", "a:nan", "a:inf", "a:1e9", ["x"] * 65, "a\0"]
)
def test_other_values_are_refused(lora: Any) -> None:
    with pytest.raises(RequestError, match=r"^lora "):
        Request(prompt="x", lora=lora)


@pytest.mark.parametrize(
    "lora", ["a:1:2:3", "owner/name:a.safetensors:0.5:1:1:1", "C:\\a.safetensors:1:1:nan"]
)
def test_more_than_two_weights_are_refused_with_the_forms(lora: str) -> None:
    forms = "expected FILE, FILE:WEIGHT or FILE:TEXT:UNET"
    with pytest.raises(RequestError, match=rf"^lora .* has more than two weights: {forms}"):
        Request(prompt="x", lora=lora)


@pytest.mark.parametrize(("weight", "said"), [("nan", "nan"), ("-inf", "-inf"), ("2:1001", "1001")])
def test_the_weight_that_is_out_of_range_is_named(weight: str, said: str) -> None:
    with pytest.raises(RequestError, match=rf"has the weight {said}: expected one from -1000 to 1000"):
        Request(prompt="x", lora=f"a:{weight}")


def test_tags_count_with_a_folder() -> None:
    prompts = ["a <lora:x:1> cat", "a <lora:x:1> dog"]
    assert lora_tags(Request(prompt=prompts)) == []
    assert [tag.name for tag in lora_tags(Request(prompt=prompts, lora_dir="loras"))] == ["x"]
    assert lora_tags(Request(prompt=prompts, lora_dir="loras", prompt_syntax="plain")) == []


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (["<lora:x>", "<lora:y>"], "prompt has texts with different LoRAs"),
        (["<lora:x>", "x"], "prompt has texts with different LoRAs"),
        ("<lora:x:big>", "the multiplier of '<lora:x:big>' is 'big': expected a number"),
        ("<lora:x:1:1e9>", r"has the multiplier 1e\+09: expected one from -1000 to 1000"),
        ("<lora:x:1:te2=1e9>", r"has the multiplier 1e\+09"),
        ("<lora:x:1:lbw=IN02>", r"has weights for single blocks \('lbw='\), which sdrt does not support"),
        ("<lyco:x:1:1:lbwe=0>", "has weights for single blocks"),
        ("<lora:x:1:MIDD>", r"has weights for single blocks \('MIDD'\).*expected one weight, or one for"),
        ("<lora:x:1:1,0,0,1>", "has weights for single blocks"),
        ("<lora:x:1:stop=10>", r"has 'stop=' \(a part of the steps\)"),
        ("<lora:x:1:dyn=8>", r"has 'dyn=' \(a smaller rank\)"),
        ("<lora:x:1:1:8>", "has a third number"),
        ("<lora:x:1:te3=1>", "has 'te3=', which sdrt does not support"),
    ],
)
def test_tags_that_cannot_be_followed_are_refused(prompt: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Request(prompt=prompt, lora_dir="loras")


def test_a_folder_is_a_path() -> None:
    with pytest.raises(RequestError, match="lora_dir is 3: expected a folder"):
        Request(prompt="x", lora_dir=3)
