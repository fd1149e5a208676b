"""Texts in A1111's grammar, as A1111, Forge, SD.Next, Civitai and users' editors leave them."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sdrt.images.parameters import Parameters
from sdrt.request.translation import translate

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

LINE = "Steps: 8, Sampler: Euler, CFG scale: 3, Seed: 5, Size: 128x128"
SETTINGS = {"Steps": "8", "Sampler": "Euler", "CFG scale": "3", "Seed": "5", "Size": "128x128"}


@pytest.mark.parametrize(
    ("between", "found"),
    [
        ('Vec. CC [1.2]: "Brightness 1.0, Contrast 0.5"', {"Vec. CC [1.2]": "Brightness 1.0, Contrast 0.5"}),
        ("Vec. CC [1.2]: on", {"Vec. CC [1.2]": "on"}),
        ("NegPiP (v2.1): True", {"NegPiP (v2.1)": "True"}),
        ("freeu_b1: 1.01", {"freeu_b1": "1.01"}),
        ("ADetailer prompt 2nd: a face", {"ADetailer prompt 2nd": "a face"}),
        ("a/b-c & d+e: 1", {"a/b-c & d+e": "1"}),
        ("1st pass: 2", {"1st pass": "2"}),
        ("日本: 語", {"日本": "語"}),
        ("Refine", {"Refine": "Refine"}),
        ("Mask only, Refine", {"Mask only": "Mask only", "Refine": "Refine"}),
        ("Comment: ", {"Comment": ""}),
        ("Comment:", {"Comment": ""}),
        ("Date: 2024-05-01T10:20:30.123Z", {"Date": "2024-05-01T10:20:30.123Z"}),
        ("Civitai metadata: {}", {"Civitai metadata": "{}"}),
        (
            'Civitai resources: [{"type":"lora","weight":0.4,"name":"a: b, [c"},{"x":[1,2]}]',
            {"Civitai resources": '[{"type":"lora","weight":0.4,"name":"a: b, [c"},{"x":[1,2]}]'},
        ),
        (
            'Hashes: {"model": "6ce0161689", "lora:add detail": "7c6bad76eb"}',
            {"Hashes": '{"model": "6ce0161689", "lora:add detail": "7c6bad76eb"}'},
        ),
        ('Lora hashes: "a: 1, b: 2"', {"Lora hashes": "a: 1, b: 2"}),
        ('TI hashes: "easynegative: c74b4e810b03"', {"TI hashes": "easynegative: c74b4e810b03"}),
        (r'Wildcard prompt: "say \"hi\", \\n {a|b}: c"', {"Wildcard prompt": r'say "hi", \n {a|b}: c'}),
        ('Hires prompt: "two\\nlines, and: more"', {"Hires prompt": "two\nlines, and: more"}),
        ('ControlNet 0: "Module: canny, Model: x [abc], Weight: 1"', None),
        ("X Values: 1, 2, 3", {"X Values": "1, 2, 3"}),
        ("Ratios: ['a', 'b']", {"Ratios": "['a', 'b']"}),
        ('Broken: {"a": 1, "b": [2', {"Broken": '{"a": 1, "b": [2'}),
        ('Broken: "no end', {"Broken": '"no end'}),
        ('Broken: "a" b', {"Broken": '"a" b'}),
        (r'Path: "C:\models"', {"Path": r'"C:\models"'}),
        ("Steps: 9", {"Steps": "9"}),
        (",,", {}),
    ],
)
def test_every_setting_is_read(between: str, found: dict[str, str] | None) -> None:
    if found is None:
        name, _, value = between.partition(": ")
        found = {name: json.loads(value)}
    for line in (f"{LINE}, {between}", f"{LINE}, {between}, Version: v1.10.1"):
        parsed = Parameters.parse(f"a cat\nNegative prompt: dog\n{line}")
        version = {"Version": "v1.10.1"} if "Version" in line else {}
        assert parsed.settings == SETTINGS | found | version
        assert (parsed.prompt, parsed.negative_prompt) == ("a cat", "dog")


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n \n\t\n", " \r\n\r\n", "  "])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_lines_may_end_and_be_followed_as_they_like(line_end: str, end: str) -> None:
    text = line_end.join(["a cat", "at dawn", "Negative prompt: dog", "bird", LINE]) + end
    assert Parameters.parse(text) == Parameters(
        prompt="a cat\nat dawn", negative_prompt="dog\nbird", settings=SETTINGS
    )


@pytest.mark.parametrize(
    ("text", "prompt", "negative"),
    [
        (f"Negative prompt: dog\n{LINE}", "", "dog"),
        (f"Negative prompt:\ndog\n{LINE}", "", "dog"),
        (f"a cat\nNegative prompt: \n{LINE}", "a cat", ""),
        (f"a cat\n  Negative prompt: dog\n{LINE}", "a cat", "dog"),
        (f"a cat\n{LINE}", "a cat", ""),
        (LINE, "", ""),
        (f"Steps: not settings\n{LINE}", "Steps: not settings", ""),
        (f"(cat:1.2), (dog:1.1), [bird:fish:0.5]\n{LINE}", "(cat:1.2), (dog:1.1), [bird:fish:0.5]", ""),
    ],
)
def test_prompts_are_apart(text: str, prompt: str, negative: str) -> None:
    assert Parameters.parse(text) == Parameters(prompt=prompt, negative_prompt=negative, settings=SETTINGS)


def test_a_prompt_with_colons_is_no_settings() -> None:
    text = "(cat:1.2), (dog:1.1), (bird:0.9), (fish:0.8)"
    assert Parameters.parse(text) == Parameters(prompt=text)


def test_sdnext_writes_its_templates_behind_the_prompts() -> None:
    text = (
        "a red cat\nNegative prompt: dog\nTemplate: a __colour__ cat,\nwith: colons\nNegative template: d\n"
        f"{LINE}, App: SD.Next, Version: abc, Pipeline: StableDiffusionPipeline, Operations: txt2img"
    )
    parsed = Parameters.parse(text)
    assert (parsed.prompt, parsed.negative_prompt) == ("a red cat", "dog")
    assert parsed.settings["Template"] == "a __colour__ cat,\nwith: colons"
    assert parsed.settings["Negative template"] == "d"
    # To A1111, such lines are a prompt.
    other = Parameters.parse(f"Template: a\nNegative prompt: b\nTemplate: c\n{LINE}")
    assert (other.prompt, other.negative_prompt) == ("Template: a", "b\nTemplate: c")


@pytest.mark.parametrize(
    ("below", "found"),
    [
        (
            "Template: a {red|blue} cat\nNegative Template: b",
            {"Template": "a {red|blue} cat", "Negative Template": "b"},
        ),
        (
            "Template: a cat,\nmood: dark, light: low, place: x",
            {"Template": "a cat,\nmood: dark, light: low, place: x"},
        ),
        ("Negative Template: b", {"Negative Template": "b"}),
        ("\n\nUsed embeddings: easynegative [119b]\n", {"Used embeddings": "easynegative [119b]"}),
        ("found on a forum", {"Text below the settings": "found on a forum"}),
        ("by: me, on: Monday, in: bed", {"Text below the settings": "by: me, on: Monday, in: bed"}),
    ],
)
def test_lines_below_the_settings_are_no_prompt(below: str, found: dict[str, str]) -> None:
    parsed = Parameters.parse(f"a cat\nNegative prompt: dog\n{LINE}\n{below}")
    assert parsed == Parameters(prompt="a cat", negative_prompt="dog", settings=SETTINGS | found)


def test_a_prompt_that_begins_as_settings_do_is_no_settings() -> None:
    prompt = "Steps: 1, cats: two, dogs: three, birds: four"
    assert Parameters.parse(f"{prompt}\n{LINE}") == Parameters(prompt=prompt, settings=SETTINGS)


# --- lines that A1111 writes ---------------------------------------------------------------------------------

_NAMES = (
    st.text("abcXYZ019 ._-/()[]+#é語", min_size=2, max_size=20)
    .map(str.strip)
    .filter(lambda name: len(name) > 1 and name[0].isalpha() and name not in SETTINGS)
)
_PLAIN = st.text(st.characters(categories=["L", "N", "P", "S", "Zs"]), max_size=30)
_VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.booleans().map(str),
    _PLAIN,
    _PLAIN.map(lambda v: f"{v}, {v}: {v}\n"),
)


def as_a1111(name: str, value: str) -> str:
    """How A1111 writes a setting. A value that is its name stands alone, and only three characters ask for quotes."""
    if name == value:
        return name
    quoted = json.dumps(value, ensure_ascii=False) if any(letter in value for letter in ",\n:") else value
    return f"{name}: {quoted}"


def is_a1111s_own_loss(value: str) -> bool:
    """Whether A1111 itself does not get the value back, because it writes outer spaces and quotes as they are."""
    bare = not any(letter in value for letter in ",\n:")
    return bare and (value != value.strip() or value.startswith('"'))


@hypothesis.settings(deadline=None)
@given(
    prompt=st.lists(_PLAIN.map(str.strip).filter(lambda line: not line.startswith("Negative")), max_size=3),
    negative=st.lists(_PLAIN.map(str.strip), max_size=3),
    more=st.dictionaries(_NAMES, _VALUES | st.none(), max_size=6),
)
def test_what_a1111_writes_is_read(prompt: list[str], negative: list[str], more: dict[str, Any]) -> None:
    own = {name: name if value is None else value for name, value in more.items()}
    hypothesis.assume(not any(map(is_a1111s_own_loss, own.values())))
    # A word alone is read if it looks like a name that A1111 could have.
    hypothesis.assume(all(value is not None or not set(name) & set("[]") for name, value in more.items()))
    lines = [*prompt, f"Negative prompt: {chr(10).join(negative)}"]
    settings = SETTINGS | own
    text = "\n".join([*lines, ", ".join(as_a1111(*pair) for pair in settings.items())])
    parsed = Parameters.parse(text)
    assert parsed.settings == settings
    assert (parsed.prompt, parsed.negative_prompt) == ("\n".join(prompt), "\n".join(negative))


@pytest.mark.parametrize(
    "piece", ["a: [", 'a: "', "a: {", 'a: "\\"', "a:", ",", "a", " ", "[", '"', "{", 'a: ["b', "a: [[[[[["]
)
def test_time_grows_with_the_length_only(piece: str) -> None:
    start = time.perf_counter()
    Parameters.parse(f"{LINE}, " + piece * 100_000)
    Parameters.parse(f"{LINE}, " + f"{piece}, " * 100_000)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    "text",
    [
        "\r" * 300_000 + "x",
        f"{LINE}, a: " + "x" * 10_000_000 + ", !" * 100_000,
        f"{LINE}, Refiner switch at: 0.5, Refiner: a" + " " * 300_000 + "b",
        f'{LINE}, ControlNet 0: "' + "a" * 300_000 + '"',
        f'{LINE}, ControlNet 0: "' + "a: (," * 100_000 + '"',
    ],
    ids=["line ends", "a long value", "a refiner", "a unit's name", "a unit's brackets"],
)
def test_time_does_not_grow_with_the_square_of_the_length(text: str) -> None:
    start = time.perf_counter()
    translate(dict(Parameters.parse(text).settings))
    assert time.perf_counter() - start < 10
