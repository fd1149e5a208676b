"""Ranges of numbers on the axes of a plot. A1111's own documentation has those in round and square brackets."""

from __future__ import annotations

import pytest

from sdrt.cli.generate.variations import parse_axis
from sdrt.errors import RequestError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps=10-30:5", [10, 15, 20, 25, 30]),
        ("steps=30-10:10", [30, 20, 10]),
        ("steps=30-10:-10", [30, 20, 10]),
        ("steps=10-31:10", [10, 20, 30]),
        ("steps=1-5", [1, 2, 3, 4, 5]),
        ("steps=3-1", [3, 2, 1]),
        ("steps=5-5", [5]),
        ("steps=1-5 (+2)", [1, 3, 5]),
        ("steps=10-5 (-3)", [10, 7]),
        ("steps=10-6(-2)", [10, 8, 6]),
        ("steps=1-10 [5]", [1, 3, 5, 7, 10]),
        ("steps=1-10 [1]", [1]),
        ("steps=5, 10-12 ,20", [5, 10, 11, 12, 20]),
        ("seed=4294967294-4294967295", [4294967294, 4294967295]),
        ("guidance_scale=1-3", [1.0, 2.0, 3.0]),
        ("guidance_scale=1-2:0.3", [1.0, 1.3, 1.6, 1.9]),
        ("guidance_scale=5-10 (+2.5)", [5.0, 7.5, 10.0]),
        ("guidance_scale=0.0-1.0 [6]", [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        ("guidance_scale=-1-1:.5", [-1.0, -0.5, 0.0, 0.5, 1.0]),
        ("eta=1e-3,.5", [0.001, 0.5]),
        # Texts have no ranges.
        ("prompt=1-5", ["1-5"]),
        ("scheduler=euler,10-30:5", ["euler", "10-30:5"]),
    ],
)
def test_a_range_is_its_numbers(text: str, expected: list[int] | list[float] | list[str]) -> None:
    values = parse_axis(text).values
    assert values == expected
    assert {type(value) for value in values} == {type(value) for value in expected}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps=1-5:0", "the range '1-5:0': expected a step from 1 to 5"),
        (r"steps=1-5 (-1)", "expected a step from 1 to 5"),
        ("steps=5-1:+1", "expected a step from 5 to 1"),
        ("steps=1-5:0.5", "the range '1-5:0.5': expected whole numbers"),
        ("steps=1.5-3", "expected whole numbers"),
        ("steps=1-5 [0]", "expected 1 to 10000 numbers"),
        ("steps=1-5 [99999]", "expected 1 to 10000 numbers"),
        ("seed=0-999999999999", "expected at most 10000 numbers"),
        ("seed=0-9999,0-9999", "has more than 10000 values"),
        ("guidance_scale=0-1:0.0000000001", "expected at most 10000 numbers"),
        ("steps=1-5:x", "expected whole numbers, or ranges such as 10-30:5"),
        ("steps=1-5-9", "expected whole numbers, or ranges"),
    ],
)
def test_ranges_that_are_refused(text: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_axis(text)
    assert message in str(caught.value)
