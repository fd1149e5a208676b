"""A1111's prompt grammar; the cases in `A1111` are those of its own documentation and source."""

from __future__ import annotations

import time

import pytest

from sdrt.errors import RequestError
from sdrt.prompts.a1111 import Fragment, Part, parse_parts, parse_weights
from sdrt.prompts.editing import scheduled

A1111 = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.573),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641),
        (".", 1.1),
    ],
}


@pytest.mark.parametrize("text", A1111)
def test_weights_of_a1111_s_own_examples(text: str) -> None:
    (found,) = parse_weights(text)
    assert [fragment.text for fragment in found] == [text for text, _ in A1111[text]]
    assert [fragment.weight for fragment in found] == pytest.approx(
        [weight for _, weight in A1111[text]], abs=1e-9
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("()", []),
        ("a)b]", [("a)b]", 1.0)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("a:1.2", [("a:1.2", 1.0)]),
        ("(a: -0.5 )", [("a", -0.5)]),
        ("(a:0)", [("a", 0.0)]),
        ("((a:-1):-1)", [("a", 1.0)]),
        ("(a:1.2", [("a:1.2", 1.1)]),
        ("[a:1.2]", [("a:1.2", 1 / 1.1)]),
        (r"a\\(b)", [("a\\", 1.0), ("b", 1.1)]),
        # A backslash escapes brackets and itself. Any other is left out, and its colon still weighs.
        (r"a\n \:", [("an :", 1.0)]),
        ("a\\", [("a", 1.0)]),
        (r"C:\dir", [("C:dir", 1.0)]),
        (r"(cat\:1.2)", [("cat", 1.2)]),
        (r"\(cat\:1.2\)", [("(cat:1.2)", 1.0)]),
        ("(a|b)", [("a|b", 1.1)]),
    ],
)
def test_weights(text: str, expected: list[tuple[str, float]]) -> None:
    (found,) = parse_weights(text)
    assert [(fragment.text, round(fragment.weight, 9)) for fragment in found] == [
        (text, round(weight, 9)) for text, weight in expected
    ]


def test_break_begins_another_stretch() -> None:
    assert parse_weights("a BREAK (b BREAK c:2)") == [
        [Fragment("a")],
        [Fragment("b", 2.0)],
        [Fragment("c", 2.0)],
    ]
    assert parse_weights("BREAKFAST") == [[Fragment("BREAKFAST")]]


def test_weights_without_bound_are_refused() -> None:
    with pytest.raises(RequestError, match=r"weights multiply to more than 1000 at 'a'"):
        parse_weights("(" * 100 + "a")
    with pytest.raises(RequestError, match="weights multiply to more than 1000"):
        parse_weights("(a:1e3)".replace("1e3", "1001"))
    assert parse_weights("(" * 100 + "a" + ":0.01)" * 100)[0][0].weight == 0.0
    huge = "9" * 400
    with pytest.raises(RequestError, match="weights multiply to more than 1000"):
        parse_weights(f"(a:{huge})")
    assert parse_weights(f"(:{huge})b") == [[Fragment("b")]]
    assert parse_weights(f"((a:0):{huge})b") == [[Fragment("a", 0.0), Fragment("b")]]


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("test", 2, ["test", "test"]),
        ("a [b:3]", 5, ["a ", "a ", "a ", "a b", "a b"]),
        ("a [b: 3]", 4, ["a ", "a ", "a ", "a b"]),
        ("a [b:c:0.5] d", 4, ["a b d", "a b d", "a c d", "a c d"]),
        ("[b::1]", 3, ["b", "", ""]),
        ("[a|b|c]", 4, ["a", "b", "c", "a"]),
        ("[a|]", 3, ["a", "", "a"]),
        ("[[a|b]:c:2]", 4, ["a", "b", "c", "c"]),
        ("[(a:1.2):(b:0.5):0.5]", 2, ["(a:1.2)", "(b:0.5)"]),
        ("[a:b:0]", 2, ["b", "b"]),
        # A number with a point is a share, whatever its size.
        ("[a:b:1.0]", 3, ["a", "a", "a"]),
        ("[a:b:1]", 3, ["a", "b", "b"]),
        ("[a:b:1.5]", 3, ["a", "a", "a"]),
        ("[a:b:2.]", 3, ["a", "a", "a"]),
        ("[a:b:0.0]", 2, ["b", "b"]),
        ("[a:b:-1]", 2, ["b", "b"]),
        ("[a:b:1e0]", 3, ["a", "b", "b"]),
        ("[a:b:5e-1]", 2, ["b", "b"]),
        ("[a:b:1e400]", 2, ["a", "a"]),
        ("[a|||b]", 4, ["a", "", "", "b"]),
        ("[a\\:b:c:1]", 2, ["a\\:b", "c"]),
        ("[a:b:9]", 2, ["a", "a"]),
        ("[fe|]male", 2, ["female", "male"]),
        # Of these nothing changes, and nothing is lost.
        ("[a] (b:1.2) c:d|e", 1, ["[a] (b:1.2) c:d|e"]),
        ("[a:b:c]", 1, ["[a:b:c]"]),
        ("[a:b:c:0.5]", 1, ["[a:b:c:0.5]"]),
        ("[a [b:1", 1, ["[a [b:1"]),
        ("a]b", 1, ["a]b"]),
        (r"\[a|b\]", 1, [r"\[a|b\]"]),
        ("[a [b|c]", 2, ["[a b", "[a c"]),
        ("[[a:b]:c:1]", 2, ["[[a:b]:c:1]"] * 2),
        ("[a)b:c:1]", 2, ["[a)b:c:1]"] * 2),
        # With a bar outside of an alternation, or a backslash before nothing, nothing changes at all.
        ("d|e [a:b:1]", 2, ["d|e [a:b:1]"] * 2),
        ("[(a|b):c:1]", 2, ["[(a|b):c:1]"] * 2),
        ("[a:b:1]\\", 2, ["[a:b:1]\\"] * 2),
        ("[(a:b|c:0.5]", 1, ["[(a:b|c:0.5]"]),
        ("([a:b:1])", 2, ["(a)", "(b)"]),
        ("", 1, [""]),
    ],
)
def test_editing_and_alternation(text: str, steps: int, expected: list[str]) -> None:
    assert scheduled(text, steps) == expected


@pytest.mark.parametrize(
    ("text", "first", "second"),
    [
        ("[a:b:0.5]", ["a", "a", "b", "b"], ["b", "b"]),
        ("[a:b:1.0]", ["a"] * 4, ["b", "b"]),
        ("[a:b:1.5]", ["a"] * 4, ["a", "b"]),
        ("[a:b:2.0]", ["a"] * 4, ["a", "a"]),
        # Whole numbers count on.
        ("[a:b:3]", ["a", "a", "a", "b"], ["b", "b"]),
        ("[a:b:5]", ["a"] * 4, ["a", "b"]),
        ("[a|b]", ["a", "b", "a", "b"], ["a", "b"]),
    ],
)
def test_editing_in_both_passes_of_hires(text: str, first: list[str], second: list[str]) -> None:
    assert scheduled(text, 4) == first
    assert scheduled(text, 2, steps_before=4) == second


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a cat", [Part("a cat")]),
        ("a cat:2", [Part("a cat", 2.0)]),
        ("a cat, sharp : 1.4 ", [Part("a cat, sharp", 1.4)]),
        ("a cat: big", [Part("a cat: big")]),
        ("a cat AND a dog", [Part("a cat "), Part(" a dog")]),
        ("a cat :1.2 AND a dog: -0.5", [Part("a cat", 1.2), Part(" a dog", -0.5)]),
        ("(a:1.2) AND [b:c:0.5]", [Part("(a:1.2) "), Part(" [b:c:0.5]")]),
        ("SAND AND LAND", [Part("SAND "), Part(" LAND")]),
    ],
)
def test_and(text: str, expected: list[Part]) -> None:
    assert parse_parts(text) == expected


def test_a_part_s_weight_has_bounds() -> None:
    with pytest.raises(RequestError, match="is 99999: expected -1000 to 1000"):
        parse_parts("a:99999 AND b")


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "[a|" * 6_000 + "]" * 6_000, "[" * 9_999 + "a:1]" * 2_500, "(]" * 10_000]
)
def test_brackets_may_nest_by_the_thousand(text: str) -> None:
    (first, *_) = scheduled(text, 3)
    assert first == text or "|" in text or ":" in text
    assert parse_weights("[" * 20_000 + "a")[0][0].weight == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "x AND :" + "1" * 20_000 + "b",
        "a" + " " * 20_000 + "b",
        "BREAK " * 4000,
        "[a:b:" + "1" * 20_000 + "b]",
    ],
    ids=["digits", "spaces", "breaks", "editing"],
)
def test_long_texts_take_no_time(text: str) -> None:
    """No bar for speed: what takes the square of its length took 15 to 20 s here."""
    began = time.perf_counter()
    for part in parse_parts(text):
        for step in set(scheduled(part.text, 3)):
            parse_weights(step)
    assert time.perf_counter() - began < 5


def test_a_break_takes_the_spaces_around_it() -> None:
    stretches = parse_weights("  a  BREAK  b BREAK (c:2)  ")
    assert [[(one.text, one.weight) for one in stretch] for stretch in stretches] == [
        [("  a", 1.0)],
        [("b", 1.0)],
        [("c", 2.0), ("  ", 1.0)],
    ]
