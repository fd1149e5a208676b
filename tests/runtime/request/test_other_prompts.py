"""Prompts that A1111 reads in another way than sdrt: what is said about them."""

from __future__ import annotations

import time

import pytest

from sdrt.request.translation import Difference, translate

BASE = {"Steps": "20", "Sampler": "Euler", "CFG scale": "7", "Seed": "1", "Size": "512x512", "RNG": "CPU"}
HIRES = {"Denoising strength": "0.5", "Hires upscale": "2", "Hires upscaler": "Latent", "Hires steps": "10"}
LONG = ", ".join(["a castle"] * 40)
OLD = "Old prompt editing timelines"


def differences(prompt: str, negative: str = "", **more: str) -> list[Difference]:
    settings = BASE | {name.replace("_", " "): value for name, value in more.items()}
    return translate(settings, prompts=(prompt, negative)).differences


@pytest.mark.parametrize(
    ("prompt", "more", "said"),
    [
        ("[a:b:1.0]", {"Version": "v1.5.2"}, "1.0"),
        ("[a:b:10.5] c [d:0.5]", {"Version": "v1.5.2"}, "10.5, 0.5"),
        ("[a:b:1.0]", {OLD: "True", "Version": "v1.10.1"}, "1.0"),
        ("[a:b:0.5]", {"Version": "v1.5.2", **HIRES}, "0.5"),
        ("[a:b:0.5]", {"Version": "v1.5.2"}, None),
        ("[a:b:5]", {"Version": "v1.5.2"}, None),
        ("[a:b:1.0]", {"Version": "v1.6.0"}, None),
        ("[a:b:1.0]", {"Version": "f2.0.1v1.10.1-previous-1"}, None),
        ("[a:b:1.0]", {}, None),
        ("[a] (b:1.5)", {"Version": "v1.5.2", **HIRES}, None),
        ("[a]", {OLD: "True", "Version": "v1.10.1"}, None),
        ("[a:b:1.0]", {OLD: "False", "Version": "v1.10.1"}, None),
    ],
)
def test_editing_of_old_versions_is_said_where_it_differs(
    prompt: str, more: dict[str, str], said: str | None
) -> None:
    expected = [] if said is None else [("prompt editing before A1111 1.6", said, False)]
    found = differences(prompt, **more)
    assert [(one.label, one.value, one.minor) for one in found] == expected


@pytest.mark.parametrize(
    ("prompt", "negative", "more", "is_said"),
    [
        (LONG, "blurry", {}, True),
        ("a castle", LONG, {"Version": "v1.10.1"}, True),
        ("a castle BREAK at dawn", "blurry", {}, True),
        (LONG, "blurry", {"Pad_conds": "True"}, False),
        (LONG, "blurry", {"Pad_conds": "False"}, True),
        ("a castle", "blurry", {}, False),
        ("a castle BREAK ", "", {}, False),
        ("a castle BREAK at dawn", "blurry BREAK dark", {}, False),
        (LONG, "blurry", {"Version": "sdrt 0.1.0"}, False),
    ],
)
def test_prompts_of_unequal_length_are_said(
    prompt: str, negative: str, more: dict[str, str], is_said: bool
) -> None:
    found = differences(prompt, negative, **more)
    assert [one.minor for one in found] == ([True] if is_said else [])


@pytest.mark.parametrize("piece", ["[a:1", ":1.", "1", ": ", "BREAK ", "a", "["])
def test_time_grows_with_the_length_only(piece: str) -> None:
    start = time.perf_counter()
    differences(piece * 200_000, "", Version="v1.5.0")
    assert time.perf_counter() - start < 10
