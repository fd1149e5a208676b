"""Scales of image prompts for single blocks: what is refused, and their text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdrt import Request, RequestError
from sdrt.request.block_scales import BlockScales, read_scales, write_scales

EMBEDS = np.zeros((1, 1, 4), np.float32)
LAYERS = (
    *("down.block_0.0", "down.block_0.1", "down.block_1.0", "down.block_1.1", "down.block_1.1"),
    *("up.block_2.0", "up.block_2.1", "up.block_2.2", "mid"),
)


def of_layers(given: Any) -> list[float]:
    made = BlockScales.of("scale", given)
    made.check_fits("scale", LAYERS)
    return made.of_layers(LAYERS)


def test_what_is_not_named_is_zero() -> None:
    assert of_layers({}) == [0] * 9
    assert of_layers({"mid": 0.5}) == [*[0] * 8, 0.5]
    assert of_layers({"up": {"block_2": [0, 1, 2]}, "down": 3}) == [3, 3, 3, 3, 3, 0, 1, 2, 0]
    assert of_layers({"down": {"block_1": [1, 2]}}) == [0, 0, 1, 2, 2, 0, 0, 0, 0]
    assert of_layers({"down": [1, 2], "up": {"block_2": [4]}}) == [1, 2, 1, 2, 2, 4, 4, 4, 0]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"middle": 1}, "scale has 'middle': expected down, mid or up"),
        ({"down": {"block_7": 1}}, "scale has 'down.block_7': expected blocks that see images: down.block_0"),
        ({"up": {"block_2": [1, 2]}}, "scale has 2 numbers for up.block_2: expected 1 or 3"),
        ({"mid": [1, 2]}, "scale has 2 numbers for mid: expected 1"),
        ({"up": {"block_2": []}}, r"scale has \[\] for 'up.block_2': expected a dict such as"),
        ({"up": {"block_2": [[1, 2]]}}, r"scale has \[\[1, 2\]\] for 'up.block_2': expected a dict such as"),
        (
            {"up": {"block_2": {"a": 1}}},
            "scale has {'a': 1} for 'up.block_2': expected a number from -100 to 100",
        ),
        ({"up": float("nan")}, "scale has nan for 'up': expected a number from -100 to 100$"),
        ({"up": {"block_1": 1, "block_2": [0, float("nan"), 0]}}, "scale has nan for 'up.block_2': expected"),
        ({"down": {"block_0": float("inf")}}, "scale has inf for 'down.block_0': expected a number"),
        ({"mid": True}, "scale has True for 'mid': expected a number"),
        ({1: 1}, "scale has 1: expected down, mid or up"),
    ],
)
def test_what_is_refused(given: Any, told: str) -> None:
    with pytest.raises(RequestError, match=f"^{told}"):
        of_layers(given)


def test_a_request_takes_dicts() -> None:
    given = {"up": {"block_0": [0, 1.5, 0]}}
    request = Request(prompt="a", ip_adapter_image_embeds=[EMBEDS], ip_adapter_scale=[0.5, given])
    assert request.ip_adapter_scale == (0.5, given)
    with pytest.raises(RequestError, match=r"^ip_adapter_scale has 'left': expected down, mid or up"):
        Request(prompt="a", ip_adapter_image_embeds=[EMBEDS], ip_adapter_scale={"left": 1})


@pytest.mark.parametrize(
    ("scales", "text"),
    [
        ((0.5, 1), "0.5,1"),
        (({"up": 1},), '{"up": 1}'),
        ((0.5, {"up": {"block_0": [0, 1.5, 0]}}), '[0.5, {"up": {"block_0": [0, 1.5, 0]}}]'),
    ],
)
def test_texts(scales: tuple[Any, ...], text: str) -> None:
    assert write_scales(scales) == text
    assert read_scales(text) == scales


@pytest.mark.parametrize(
    "text",
    ["", "a", "{", "[" * 100_000, '["a"]', "[[1]]", "null", "{} x", '{"up": {"block_1": 1, "block_1": 0}}'],
)
def test_texts_of_something_else(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its readers make messages of their own
        read_scales(text)
