"""`python -m benchmarks browser`: how it judges, and what its table says."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("onnx")

from benchmarks import browser, in_turn
from benchmarks.bars import judge_browser, met


def figures(*, warm: float, first: float) -> dict[str, Any]:
    """A record of three rounds, of which one was slow for both."""
    turns = [
        {"sdrt": {"warm": 0.5 * slow}, "wasm": {"warm": warm * slow}, "webgpu": {"warm": 80.0}}
        for slow in (1.0, 4.0, 1.0)
    ]
    firsts = {
        name: [{"first": seconds, "bytes": 4e7, "own_bytes": 3e8}]
        for name, seconds in (("wasm", first), ("webgpu", 90.0), ("sdrt", 1.0))
    }
    return {
        "model": "shapes, 20 steps",
        "systems": in_turn.spreads(turns, ["warm"]),
        "ratios": in_turn.ratios(turns, ["warm"], "sdrt"),
        "first": {
            name: {key: {"median": value, "min": value, "max": value} for key, value in found[0].items()}
            for name, found in firsts.items()
        },
        "bars": judge_browser(turns, firsts),
    }


@pytest.mark.parametrize(
    ("warm", "first", "verdicts"),
    [(1.5, 10.0, ["met", "met"]), (1.6, 9.0, ["NOT met", "met"]), (1.0, 10.1, ["met", "NOT met"])],
)
def test_the_goals_are_a_ratio_within_a_round_and_the_first_image(
    warm: float, first: float, verdicts: list[str]
) -> None:
    found = figures(warm=warm, first=first)
    assert [bar["verdict"] for bar in found["bars"]] == verdicts
    assert met(found) == ("NOT met" not in verdicts)


def test_the_table_names_what_each_backend_costs() -> None:
    shown = browser.table(figures(warm=1.0, first=5.0))
    assert "| `wasm` | 1.00 s (2.00×, 2.00–2.00) | 5.00 s (5.00–5.00) | 40.0 MB | 300 MB |" in shown
    assert "| `sdrt` | 0.50 s | " in shown


def test_webgpu_alone_has_no_goals() -> None:
    assert judge_browser([], {"webgpu": []}) == []
