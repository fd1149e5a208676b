"""Texts that nobody would write: never a hang, never another error than ours."""

from __future__ import annotations

from contextlib import suppress

import pytest

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from sdrt.errors import RequestError  # noqa: E402
from sdrt.images.metadata import Parameters  # noqa: E402
from sdrt.prompts.a1111 import parse_parts, parse_weights  # noqa: E402
from sdrt.prompts.compel import parse_compel  # noqa: E402
from sdrt.prompts.editing import scheduled  # noqa: E402

pieces = st.sampled_from(
    [
        "(",
        ")",
        "[",
        "]",
        ":",
        "|",
        "\\",
        "a",
        " ",
        ",",
        "0.5",
        "3",
        "-1",
        ":1.2)",
        ":0)",
        " AND ",
        " BREAK ",
        "\n",
        "é",
        "🦊",
    ]
)
prompts = st.lists(pieces, max_size=60).map("".join) | st.text(max_size=200)


@given(prompts, st.integers(1, 12))
@settings(deadline=None)
def test_any_text_is_a_prompt(text: str, steps: int) -> None:
    with suppress(RequestError):  # weights beyond all bounds
        for part in parse_parts(text):
            words = scheduled(part.text, steps)
            assert len(words) == steps
            for one in words:
                for stretch in parse_weights(one):
                    assert all(fragment.text and abs(fragment.weight) < 1001 for fragment in stretch)


@given(
    st.text(st.characters(exclude_characters="()[]:|\\", exclude_categories=["Cs"]), min_size=1, max_size=100)
)
@settings(deadline=None)
def test_a_text_without_marks_is_itself(text: str) -> None:
    if "AND" not in text and "BREAK" not in text:
        (part,) = parse_parts(text)
        assert scheduled(part.text, 2) == [text, text]
        assert [[fragment.text for fragment in stretch] for stretch in parse_weights(text)] == [[text]]


compel_pieces = st.sampled_from(
    [
        *'()()""+-\\,.=:  \naé🦊',
        "0.5",
        "3",
        "1.",
        ")0.9",
        '"+',
        ".attend(0.5)",
        ".attend(+)",
        "hot-dog",
        "9" * 400,
    ]
)
compel_texts = st.lists(compel_pieces, max_size=60).map("".join) | st.text(max_size=200)
compel_joined = st.tuples(
    st.lists(compel_texts.map('"{}"'.format) | compel_texts, max_size=3).map(", ".join),
    st.sampled_from(["and", "add", "blend", "swap"]),
    st.lists(st.sampled_from(["1", "-0.5", ".3", "2.", "no_normalize", "x"]), max_size=3).map(",".join),
    st.sampled_from(["", " ", "a"]),
).map(lambda parts: "({}).{}({}){}".format(*parts))
compel_prompts = compel_texts | compel_joined


@given(compel_prompts)
@settings(deadline=None)
def test_any_text_is_a_prompt_of_compel(text: str) -> None:
    with suppress(RequestError):  # what is not done here, and weights that do not fit
        clauses = parse_compel(text)
        assert clauses
        for clause in clauses:
            assert len(clause.texts) == len(clause.shares) > 0
            assert all(abs(number) <= 1000 for number in (*clause.shares, clause.weight))
            fragments = [fragment for one in clause.texts for fragment in one]
            assert all(fragment.text and 0 <= fragment.weight < 1001 for fragment in fragments)


@given(
    st.text(st.characters(exclude_characters='()",.+-=\\', exclude_categories=["Cs", "Z", "Cc"]), min_size=1),
    st.sampled_from(["", " ", "\n "]),
)
@settings(deadline=None)
def test_a_text_without_marks_is_itself_to_compel(text: str, space: str) -> None:
    (clause,) = parse_compel(f"{space}{text} {text}{space}")
    assert [[fragment.text for fragment in one] for one in clause.texts] == [[f"{text} {text}"]]


@given(st.text(max_size=300))
@settings(deadline=None)
def test_any_text_may_stand_in_an_image(text: str) -> None:
    Parameters.parse(text)


@given(
    st.dictionaries(
        st.sampled_from(["Steps", "Seed", "Size", "Model", "Mask blur"]), st.text(max_size=30), min_size=3
    )
)
@settings(deadline=None)
def test_settings_are_read_as_they_were_written(values: dict[str, str]) -> None:
    assert Parameters.parse(str(Parameters(prompt="a cat", settings=values))).settings == values
