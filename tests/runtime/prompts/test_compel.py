"""Compel's prompt grammar and what it does to embeddings.

The cases in `COMPEL` are those of its own documentation and tests; embeddings are as `tools/goldens/record_compel.py`
recorded them from Compel itself.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sdrt import RequestError, StableDiffusionPipeline
from sdrt.prompts.a1111 import Fragment
from sdrt.prompts.compel import Clause, parse_compel
from sdrt.text.chunks import split_at_sentences
from sdrt.text.compel_embeddings import embed
from tests.safetensors_files import save_file
from tools.goldens.compel_cases import CASES

GOLDENS = Path(__file__).resolve().parents[2] / "goldens"

# float32 sums in another order; 6e-7 at worst when it was recorded.
TOLERANCE = 1e-5

COMPEL: dict[str, list[tuple[str, float]]] = {
    "": [],
    "fire (flames)": [("fire flames", 1.0)],
    "cat hot-dog eating": [("cat hot-dog eating", 1.0)],
    "(flames)0.5": [("flames", 0.5)],
    "(flames).attend(0.5)": [("flames", 0.5)],
    "flames.attend(-)": [("flames", 0.9)],
    '"flames"+': [("flames", 1.1)],
    "(flowers)--- flames+++": [("flowers", 0.729), ("flames", 1.331)],
    "flowers fire++ flames": [("flowers", 1.0), ("fire", 1.21), ("flames", 1.0)],
    "(pretty flowers)+, the flames": [("pretty flowers", 1.1), (", the flames", 1.0)],
    "middle age,fantasy++ style": [("middle age,", 1.0), ("fantasy", 1.21), ("style", 1.0)],
    "a tall (picking (apricots)1.3)1.1": [("a tall", 1.0), ("picking", 1.1), ("apricots", 1.43)],
    "fire (flames (trees)1.5)2.0": [("fire", 1.0), ("flames", 2.0), ("trees", 3.0)],
    # Brackets and signs that mean nothing.
    "a badly (formed +test )prompt": [("a badly formed +test prompt", 1.0)],
    "(((a badly (formed +test )prompt": [("(((a badly formed +test prompt", 1.0)],
    "(a (ba)dly (f)ormed +test": [("(a ba dly f ormed +test", 1.0)],
    "hamburger ((bun))": [("hamburger bun", 1.0)],
    "(a + b)1.5 c": [("(a + b)1.5 c", 1.0)],
    "x(y)+ ) - =": [("x(y)+ ) - =", 1.0)],
    "(cat) 2": [("cat 2", 1.0)],
    "(cat)-0.5": [("cat", 0.9), ("0.5", 1.0)],
    'a "cat (dog"+': [('a "cat (dog"+', 1.0)],
    "()2 cat": [("cat", 1.0)],
    "(a)1. (b).5": [("a", 1.0), ("b", 0.5)],
    # Backslashes.
    r"mountain (\(man\))+": [("mountain", 1.0), ("(man)", 1.1)],
    r"\"mountain\" (\(man)\)": [('"mountain" (man )', 1.0)],
    r"c\+\+ logo+": [("c++", 1.0), ("logo", 1.1)],
    'hairy ("mountain, \\"man\\"" with a (beard)2.0)+': [
        ("hairy", 1.0),
        ('mountain , "man" with a', 1.1),
        ("beard", 2.2),
    ],
    "a\\": [("a\\", 1.0)],
}


def rounded(fragments: Any) -> list[tuple[str, float]]:
    return [(fragment.text, round(fragment.weight, 9)) for fragment in fragments]


@pytest.mark.parametrize("text", COMPEL)
def test_weights(text: str) -> None:
    (clause,) = parse_compel(text)
    assert [rounded(one) for one in clause.texts] == [COMPEL[text]]
    assert (clause.shares, clause.weight) == ((1.0,), 1.0)


def test_a_point_in_a_name_leaves_it_whole() -> None:
    assert parse_compel("(by style.v2)0.8") == [Clause([[Fragment("by style.v2", 0.8)]])]
    assert parse_compel("(a)1.b (wait...)1.") == [Clause([[Fragment("a b wait. . .")]])]


@pytest.mark.parametrize(
    ("text", "texts", "shares"),
    [
        ('("spider man", "robot mech").blend(1, 0.25)', ["spider man", "robot mech"], [0.8, 0.2]),
        ("(mountain, (tall man)).blend()", ["mountain", "tall man"], [0.5, 0.5]),
        ('("fire", "").blend(0.5,.5) ', ["fire", ""], [0.5, 0.5]),
        ('("a", "b").blend(1, -1, no_normalize)', ["a", "b"], [1, -1]),
        ('("((a badly (formed +test ").blend(1.0)', ["((a badly (formed +test"], [1]),
    ],
)
def test_blends(text: str, texts: list[str], shares: list[float]) -> None:
    (clause,) = parse_compel(text)
    assert [" ".join(fragment.text for fragment in one) for one in clause.texts] == texts
    assert list(clause.shares) == pytest.approx(shares)


def test_conjunctions() -> None:
    one, other = Clause([[Fragment("fire")]], weight=2.0), Clause([[Fragment("flames", 0.9)]], weight=0.5)
    assert parse_compel('("fire", "flames-").and(2, 0.5)') == [one, other]
    assert parse_compel('( fire , "flames-" ) .add( 2.0,.5 )') == [one, other]
    assert parse_compel('("a, b", "c").and()') == [Clause([[Fragment("a , b")]]), Clause([[Fragment("c")]])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a cat.swap(dog)",
            r"the prompt's \.swap\(…\) is not supported: write",
        ),
        ("a (cat) withLora(x, 0.5)", r"withLora\(…\) is not supported: leave it out"),
        ('("a", "b").blend(1)', r"weights of \.blend\('1'\) are not 2 numbers: give one for each text"),
        ('("a", "b").and(1, x)', r"weights of \.and\('1, x'\) are not 2 numbers"),
        ('("a", "b").and(1, no_normalize)', "are not 2 numbers"),
        ('("a", "b").blend(1, -1)', "add up to 0: choose others, or end with no_normalize"),
        ('("a", "b").blend(1, -0.9999)', "is 10000: expected -1000 to 1000"),
        ('("a", "b").and(1, 1001)', "is 1001: expected -1000 to 1000"),
        (
            'a ("b", "c").blend(1, 1)',
            r"has '\)\.blend\(' within other text: quote whole prompts",
        ),
        ('("b", "c").and() a', r"has '\)\.and\(' within other text"),
        ('("a (b).and(c)", "d").and()', "within other text"),
        ("(a)1001", "weights multiply to more than 1000 at 'a': use smaller weights"),
        ("a" + "+" * 9000, "weights multiply to more than 1000"),
        ("a- b " * 101, "has 101 stretches with a weight below 1: expected at most 100"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_compel(text)


def test_marks_that_are_escaped_ask_for_nothing() -> None:
    assert parse_compel(r"cat\.swap(dog)") == [Clause([[Fragment("cat.swap(dog)")]])]


@pytest.mark.parametrize(
    "piece",
    ["(", "( ", ")", '"', '" ( ', '( "', "(a ", "( a = ", '(a "b" ', "(a)+", "a.attend(", "\\", "+", ") "],
)
def test_long_texts_take_no_longer_than_their_length(piece: str) -> None:
    begun = time.perf_counter()
    for text in (piece * 5000, "(" + piece * 5000 + ")2", '("' + piece * 5000 + '").and()'):
        try:
            parse_compel(text)
        except RequestError:
            continue
    assert time.perf_counter() - begun < 10  # half a second, on a machine with nothing else to do


# --- embeddings ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny() -> Any:
    """The model that was recorded, whatever SDRT_TEST_MODEL says."""
    folder = GOLDENS.parent / "models" / "tiny"
    with StableDiffusionPipeline.from_pretrained(
        folder, provider="cpu", threads=1, notify=lambda _: None
    ) as made:
        yield made


@pytest.mark.parametrize("name", CASES)
def test_embeddings_are_compel_s(tiny: StableDiffusionPipeline, name: str) -> None:
    prompt, clip_skip = CASES[name]
    with np.load(GOLDENS / "compel.npz") as goldens:
        expected = goldens[name]
    embeds = embed(parse_compel(prompt), tiny._cache.get().text_encoder(), clip_skip)
    assert (embeds.shape, embeds.dtype) == (expected.shape, np.float32)
    assert np.abs(embeds - expected).max() / np.abs(expected).max() < TOLERANCE


def test_without_weights_it_is_the_plain_prompt(pipeline: StableDiffusionPipeline) -> None:
    encoder = pipeline._cache.get().text_encoder()
    for text in ("a (cat)1 on a mat", '("a cat on a mat").and()', '("a cat on a mat").blend(7)'):
        np.testing.assert_array_equal(embed(parse_compel(text), encoder), encoder(["a cat on a mat"])[0])


def latents(pipeline: StableDiffusionPipeline, prompt: str, **options: Any) -> Any:
    settings: dict[str, Any] = {"num_inference_steps": 2, "seed": 3, "output_type": "latent"}
    return pipeline(prompt, **settings, **{"prompt_syntax": "compel"} | options).images


def test_images_take_it(pipeline: StableDiffusionPipeline) -> None:
    np.testing.assert_array_equal(
        latents(pipeline, "a cat", negative_prompt="blue"),
        latents(pipeline, "a cat", negative_prompt="blue", prompt_syntax="a1111"),
    )
    assert np.abs(latents(pipeline, "a cat++") - latents(pipeline, "a cat")).max() > 1e-3
    # The negative prompt is as long as the prompt, and weighs too.
    joined = latents(pipeline, '("a cat", "a dog").and()', negative_prompt="blue+")
    assert np.abs(joined - latents(pipeline, "a cat", negative_prompt="blue+")).max() > 1e-3
    np.testing.assert_array_equal(
        joined, latents(pipeline, '("a cat", "a dog").and()', negative_prompt='("blue+", "").and()')
    )
    with pytest.raises(RequestError, match=r"\.swap\(…\) is not supported"):
        latents(pipeline, "a cat.swap(dog)")


class Letters:
    """A token for each letter, and no room for more than six."""

    room = 6

    def groups(self, text: str) -> list[list[int]]:
        return [
            [ord(letter)] if letter.islower() or letter in ".,;:" else [ord(letter)] * 3 for letter in text
        ]

    def ends_word(self, token: int) -> bool:
        return chr(token) in "xyz"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [""]),
        ("abcdef", ["abcdef"]),
        ("a.b.c,dxa", ["a.b.", "c,dxa"]),
        ("ab,cx;ax", ["ab,cx;", "ax"]),
        ("abxcdefg", ["abx", "cdefg"]),
        ("abcdefg", ["abcdef", "g"]),
        (".abcdefgh", [".", "abcdef", "gh"]),
        # Tokens of one name stay together, and a word ends with it.
        ("abcdA", ["abcd", "AAA"]),
        ("AbcBde", ["AAA", "bcBBB", "de"]),
    ],
)
def test_long_texts_are_cut_where_sentences_end(text: str, expected: list[str]) -> None:
    chunks = split_at_sentences([Fragment(text[:3], 0.5), Fragment(text[3:])], Letters())
    assert ["".join(map(chr, chunk.tokens)) for chunk in chunks] == expected
    assert [weight for chunk in chunks for weight in chunk.weights].count(0.5) == len(
        [token for group in Letters().groups(text[:3]) for token in group]
    )


def test_a_textual_inversion_is_weighed_and_not_cut(
    pipeline: StableDiffusionPipeline, tmp_path: Path
) -> None:
    vectors = np.linspace(-1, 1, 40 * 32, dtype=np.float32).reshape(40, 32)
    save_file({"style.v2": vectors}, tmp_path / "a.safetensors")
    own = StableDiffusionPipeline.from_pretrained(pipeline.model.path, provider="cpu", notify=lambda _: None)
    own.load_textual_inversion(tmp_path / "a.safetensors")
    encoder = own._cache.get().text_encoder()
    (clause,) = parse_compel("(style.v2)1.2 a (style.v2)0.8")
    first, second = split_at_sentences(clause.texts[0], encoder.tokenizer)
    assert first.tokens[:40] == second.tokens[:40]
    assert (set(first.weights[:40]), set(second.weights)) == ({1.2}, {0.8})
    embeds = embed([clause], encoder)
    assert len(embeds) == 2 * encoder.tokenizer.length
    assert np.isfinite(embeds).all()
