"""Choices in prompts. The expected options are those that dynamicprompts 0.31 makes of the same texts."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path

import pytest

import sdrt
from sdrt.errors import RequestError
from sdrt.prompts.wildcard_files import WildcardFiles
from sdrt.prompts.wildcards import expand, expand_wildcards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "colors/warm.txt": "\ufeff# warm colours\nred\r\n\r\n  orange  \nred\n",
        "colors/cold.txt": "blue\n#green\n",
        "colors-old.txt": "mauve\n",
        "deep.txt": "{big|small} __colors/cold__\n",
        "self.txt": "a __self__\n",
        "double.txt": "__double__ __double__\n",
        "lucky.txt": "{__lucky__|found}\n",
        "my hair.txt": "long hair\n",
        "empty.txt": "# nothing\n\n",
        "latin.txt": "caf\udce9\n",
        ".hidden/x.txt": "x\n",
    }
    root = tmp_path / "wildcards"
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    (tmp_path / "outside.txt").write_text("secret\n")
    return root


def options(prompt: str, folder: Path | None = None, seeds: int = 200) -> set[str]:
    return {expand_wildcards(prompt, seed, folder) for seed in range(seeds)}


def test_a_seed_chooses_as_in_version_0_1() -> None:
    assert [expand_wildcards("a {red|blue} {big|small|} cat", seed) for seed in range(6)] == [
        "a red big cat",
        "a red big cat",
        "a blue small cat",
        "a blue  cat",
        "a red big cat",
        "a red  cat",
    ]
    assert [expand_wildcards("{a|{b|c}}{d|{e|f}|}", seed) for seed in range(4)] == ["ae", "a", "ce", "ce"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("{2$$a|b|c}", {"a,b", "a,c", "b,a", "b,c", "c,a", "c,b"}),
        ("{2$$ and $$a|b}", {"a and b", "b and a"}),
        ("{2$$|$$a|b}", {"a|b", "b|a"}),
        ("{1-2$$ and $$a|b}", {"a", "b", "a and b", "b and a"}),
        ("{2-1$$a|b}", {"a", "b", "a,b", "b,a"}),
        ("{-2$$a|b}", {"a", "b", "a,b", "b,a"}),
        ("{2-$$a|b}", {"a,b", "b,a"}),
        ("{0-1$$a|b}", {"", "a", "b"}),
        ("{0$$a|b}", {""}),
        ("{4$$a|b}", {"a,b", "b,a"}),
        ("{3$$a}", {"a"}),
        ("{2$$3::a|b|}", {"a", "b", "a,b", "b,a"}),
        ("{0::a|b}", {"b"}),
        ("{0.5::a|b}", {"a", "b"}),
        ("{1$$2::a|b}", {"a", "b"}),
        ("{~a|b}", {"a", "b"}),
        ("{2$$a|{b|c}}", {"a,b", "a,c", "b,a", "c,a"}),
        ("{ 2$$a|b}", {"a,b", "b,a"}),
        # These ask for nothing.
        ("$5, 10% {cute}, a::b, 2$$", {"$5, 10% {cute}, a::b, 2$$"}),
        ("{2$$a|b", {"{2$$a|b"}),
    ],
)
def test_options(prompt: str, expected: set[str]) -> None:
    assert options(prompt) == expected


def test_weights_are_relative() -> None:
    found = Counter(expand_wildcards("{0.5::a|b|2.5::c}", seed) for seed in range(4000))
    assert {text: round(count / 1000, 1) for text, count in found.items()} == pytest.approx(
        {"a": 0.5, "b": 1.0, "c": 2.5}, abs=0.15
    )


def test_a_weight_stays_with_its_option_when_another_is_taken() -> None:
    found = Counter(expand_wildcards("{2$$1::a|9::b|1::c}", seed) for seed in range(2000))
    assert found["c,b"] > 5 * found["c,a"]


def test_options_in_turn_follow_the_seed() -> None:
    assert [expand_wildcards("{@a|b|c} {@1|2|3}", seed) for seed in range(4)] == ["a 1", "b 2", "c 3", "a 1"]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a __colors/warm__ cat", {"a red cat", "a orange cat"}),
        ("__colors*__", {"red", "orange", "blue", "mauve"}),
        ("__colors/*__", {"red", "orange", "blue"}),
        ("__colors/????__", {"red", "orange", "blue"}),
        (r"__colors\warm__", {"red", "orange"}),
        ("__/colors//warm/__", {"red", "orange"}),
        # A name is searched in all folders if the first has none.
        ("__cold__", {"blue"}),
        ("__COLD__", {"blue"}),
        ("__~cold__", {"blue"}),
        ("x__cold__y", {"xbluey"}),
        ("__my hair__", {"long hair"}),
        ("__deep__", {"big blue", "small blue"}),
        ("{__cold__|__warm__}", {"blue", "red", "orange"}),
        ("__colors/{warm|cold}__", {"red", "orange", "blue"}),
        ("{2$$__warm__}", {"red,orange", "orange,red"}),
        ("{2$$ & $$__warm__|__cold__}", {"red & blue", "orange & blue", "blue & red", "blue & orange"}),
        ("{1-9$$__deep__}", {"big blue", "small blue"}),
        ("__lucky__", {"found"}),
        ("snake__case and other__case", {"snake__case and other__case"}),
        ("a __ b __ c ____", {"a __ b __ c ____"}),
    ],
)
def test_lines_of_files(folder: Path, prompt: str, expected: set[str]) -> None:
    assert options(prompt, folder) == expected


def test_lines_in_turn_follow_the_seed(folder: Path) -> None:
    assert [expand_wildcards("__@warm__", seed, folder) for seed in range(3)] == ["red", "orange", "red"]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("__../outside__", "leads out of"),
        ("__colors/../../outside__", "leads out of"),
        (r"__..\outside__", "leads out of"),
        ("__linked__", "no file for the wildcard '__linked__'"),
        ("__folder/outside__", "no file for the wildcard"),
        ("__pipe__", "no file for the wildcard"),
        ("__hidden/x__", "no file for the wildcard"),
        ("__colours/warm__", "expected colours/warm.txt; it has colors/warm"),
        ("__empty__", "'empty.txt' in .* has no options: expected an option in each line"),
        ("__latin__", "is not UTF-8 text: save it as UTF-8"),
        ("__self__", "'__self__' leads to more and more wildcards"),
        ("__double__", "'__double__' leads to more and more wildcards"),
        ("{2$$__self__}", "'__self__' leads to more and more wildcards"),
        ("__warm(a=b)__", "gives values to a template"),
        ("{!a|b}", "makes every combination"),
        ("__!warm__", "makes every combination"),
        ("{@2$$a|b}", "in turn, with a number"),
        ("${x={a|b}}", "variables and wraps"),
        ("a ${x}", "variables and wraps"),
        ("%{a ... b$$c}", "variables and wraps"),
        ("{0::a|0::b}", "all have a weight of 0"),
    ],
)
def test_prompts_that_are_refused(folder: Path, prompt: str, message: str) -> None:
    (folder / "linked.txt").symlink_to(folder.parent / "outside.txt")
    (folder / "folder").symlink_to(folder.parent)
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(RequestError, match=message):
        expand_wildcards(prompt, 1, folder)


def test_a_folder_is_needed() -> None:
    with pytest.raises(RequestError, match="'__warm__': give the folder of its file with --wildcards"):
        sdrt.expand_wildcards("a __warm__ cat", 1)
    with pytest.raises(RequestError, match="'nope' is not a folder"):
        sdrt.expand_wildcards("a __warm__ cat", 1, "nope")


def test_files_of_other_kinds_are_mentioned(folder: Path) -> None:
    (folder / "pack.yaml").write_text("animals: [cat]")
    with pytest.raises(RequestError, match=r"and 1 \.yaml or \.json files, which sdrt does not read"):
        expand_wildcards("__animals__", 1, folder)


def test_files_are_bounded(folder: Path) -> None:
    (folder / "large.txt").write_bytes(b"a" * ((16 << 20) + 1))
    with pytest.raises(RequestError, match="has more than 16 MB"):
        expand_wildcards("__large__", 1, folder)
    (folder / "long.txt").write_bytes(b"a" * 600_000)
    with pytest.raises(RequestError, match="1200001 characters: expected at most 1000000"):
        expand_wildcards("__long__ __long__", 1, folder)


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [
        ("a cat", ()),
        ("a {red|red} {cat}", ("red",)),
        ("{a {b|b}|a {b|b}}", ("a b",)),
        ("__cold__ {x|x}", ("blue", "x")),
        ("{__cold__|__cold__}, __deep__", ("blue", "big blue")),
        ("__{cold|cold}__", ("blue",)),
        ("{open {x|x}", ("x",)),
        ("{2$$ and $$x|x}", ("x and x",)),
    ],
)
def test_what_was_chosen_is_known(folder: Path, prompt: str, choices: tuple[str, ...]) -> None:
    found = expand(prompt, 0, WildcardFiles(folder)).choices
    assert tuple(one.replace("small", "big") for one in found) == choices


def test_the_negative_prompt_chooses_apart() -> None:
    pairs = {(expand("{a|b}", seed).text, expand("{a|b}", seed, negative=True).text) for seed in range(50)}
    assert len(pairs) == 4


@pytest.mark.parametrize(
    "prompt",
    ["{a|b}" * 10_000, "{" * 30_000, "{2$$" * 10_000, "{1$$a" * 10_000, "${" * 20_000, "__a b" * 10_000],
)
def test_long_texts_take_no_time(prompt: str) -> None:
    began = time.perf_counter()
    expand_wildcards(prompt, 1)
    assert time.perf_counter() - began < 5
