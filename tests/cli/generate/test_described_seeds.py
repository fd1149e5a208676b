"""The seeds of a command, in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sdrt.cli.generate.jobs import describe_seeds
from sdrt.common.seeds import MAX_SEED


@pytest.mark.parametrize(
    ("seeds", "expected"),
    [
        ([3], "seed 3"),
        ([3, 3], "seed 3"),
        ([3, 4, 5], "seeds 3 to 5"),
        ([7, 3], "seeds 7 and 3"),
        ([MAX_SEED, 0], f"seeds {MAX_SEED} and 0"),
        ([5, MAX_SEED - 1], f"seeds 5 and {MAX_SEED - 1}"),
        (list(range(0, 100, 10)), "10 seeds, 0 to 90"),
    ],
    ids=str,
)
def test_seeds_in_words(seeds: list[int], expected: str) -> None:
    """Seeds count up around the largest one, and a plot may have any; "0 to 2**64 - 1" would say nothing."""
    jobs: Any = [SimpleNamespace(seed=seed) for seed in seeds]
    assert describe_seeds(jobs) == expected
