"""Prompts as A1111's own parser reads them; `tools/goldens/record_a1111.py` records what it makes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from sdrt.prompts.a1111 import parse_parts, parse_weights
from sdrt.prompts.editing import scheduled

GOLDENS = json.loads((Path(__file__).resolve().parents[2] / "goldens" / "a1111.json").read_text())
STEPS, HIRES_STEPS = GOLDENS["steps"], GOLDENS["hires_steps"]
PROMPTS: dict[str, dict[str, Any]] = GOLDENS["prompts"]


def texts(schedule: Sequence[tuple[int, str]], steps: int) -> list[str]:
    """The text of each step, of a schedule that gives the last step of each text."""
    return [next(text for last, text in schedule if step <= last) for step in range(1, steps + 1)]


def test_many_prompts_change_in_the_recorded_passes() -> None:
    changing = [one for one in PROMPTS.values() if len(one["first"]) > 1 or len(one["hires"]) > 1]
    assert len(PROMPTS) > 450
    assert len(changing) > 200


def test_every_step_has_the_text_of_a1111() -> None:
    made = {prompt: scheduled(prompt, STEPS) for prompt in PROMPTS}
    assert made == {prompt: texts(one["first"], STEPS) for prompt, one in PROMPTS.items()}


def test_every_step_of_a_hires_pass_has_the_text_of_a1111() -> None:
    made = {prompt: scheduled(prompt, HIRES_STEPS, STEPS) for prompt in PROMPTS}
    assert made == {prompt: texts(one["hires"], HIRES_STEPS) for prompt, one in PROMPTS.items()}


def test_texts_have_the_weights_of_a1111() -> None:
    for prompt, one in PROMPTS.items():
        if one["weights"] is None:  # A1111 fails
            continue
        pieces = [(text, weight) for text, weight in one["weights"] if text]
        expected = [
            ("".join(text for text, _ in same), pytest.approx(weight, abs=1e-8))
            for weight, same in groupby(pieces, lambda piece: piece[1])
        ]
        (found,) = parse_weights(prompt)
        assert [(fragment.text, fragment.weight) for fragment in found] == expected, prompt


def test_parts_are_those_of_a1111() -> None:
    made = {prompt: [[part.text.strip(), part.weight] for part in parse_parts(prompt)] for prompt in PROMPTS}
    assert made == {
        prompt: [[text.strip(), weight] for text, weight in one["parts"]] for prompt, one in PROMPTS.items()
    }
