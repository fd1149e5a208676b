"""How many tasks share a run: what the measured times say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sdrt.serve.batch_sizes import BatchSizes
from sdrt.serve.task import ImageTask


def task(**settings: object) -> ImageTask:
    return ImageTask(model="shapes", settings={"prompt": "a cat", "seed": 0, **settings})


def learned(
    sizes: BatchSizes, seconds: Callable[[int], float], runs: int = 20, **settings: object
) -> list[int]:
    """The sizes of so many runs, each of which takes `seconds(size)` for an image."""
    made = []
    for _ in range(runs):
        size = sizes.size_for(task(**settings))
        sizes.note(task(**settings), size, size * seconds(size))
        made.append(size)
    return made


def test_it_doubles_while_that_is_faster() -> None:
    # The first run opens the model, and counts for nothing.
    assert learned(BatchSizes(8), lambda size: 1 / size, 6) == [1, 1, 2, 4, 8, 8]
    assert learned(BatchSizes(6), lambda size: 1 / size, 6) == [1, 1, 2, 4, 6, 6]


@pytest.mark.parametrize(
    "seconds", [lambda size: 1.0, lambda size: 0.97 if size > 1 else 1.0, lambda size: size]
)
def test_one_at_a_time_stays_where_more_are_not_faster(seconds: Callable[[int], float]) -> None:
    assert learned(BatchSizes(8), seconds, 12) == [1, 1, 2, 2, 2, 4, 4, 4, 1, 1, 1, 1]


def test_it_returns_to_the_fastest() -> None:
    made = learned(BatchSizes(8), lambda size: {1: 1.0, 2: 0.7}.get(size, 0.9), 20)
    assert (set(made), made[-5:]) == ({1, 2, 4, 8}, [2] * 5)


def test_four_may_be_faster_where_two_are_not() -> None:
    assert learned(BatchSizes(8), lambda size: {4: 0.6, 8: 0.5}.get(size, 1.0))[-1] == 8


def test_a_busy_moment_decides_nothing() -> None:
    """Measured: a run of two that took twice as long as two runs, among others that were faster."""
    sizes, slow = BatchSizes(8), iter([0.2, 0.2, 0.9, 0.2])
    assert learned(sizes, lambda size: next(slow, 0.4) / size)[-1] == 8


def test_it_notices_that_the_machine_has_changed() -> None:
    sizes = BatchSizes(4)
    assert learned(sizes, lambda size: 1.0)[-1] == 1
    assert learned(sizes, lambda size: 1 / size, 2000)[-1] == 4
    assert learned(sizes, lambda size: size, 2000)[-1] == 1


def test_measuring_again_is_rare() -> None:
    sizes = BatchSizes(8)
    learned(sizes, lambda size: 1 / size)
    made = learned(sizes, lambda size: 1 / size, 1000)
    assert made.count(8) >= 980
    assert 4 in made


def test_every_kind_of_task_has_its_own() -> None:
    sizes = BatchSizes(8)
    learned(sizes, lambda size: 1 / size, height=64)
    learned(sizes, lambda size: 1.0, height=512)
    assert (sizes.size_for(task(height=64)), sizes.size_for(task(height=512))) == (8, 1)
    assert sizes.size_for(task(height=64, prompt="a dog", seed=3)) == 8
    assert sizes.size_for(task(height=64, negative_prompt="a dog")) == 1


def test_what_fails_together_twice_is_not_tried_again() -> None:
    sizes = BatchSizes(8)
    learned(sizes, lambda size: 1 / size, 2)
    assert sizes.size_for(task()) == 2
    sizes.failed(task(), 2)
    assert sizes.size_for(task()) == 2
    sizes.failed(task(), 2)
    assert sizes.size_for(task()) == 1


def test_fewer_that_wait_are_a_measurement_too() -> None:
    sizes = BatchSizes(8)
    learned(sizes, lambda size: 1.0)
    assert sizes.size_for(task()) == 1
    for _ in range(5):
        sizes.note(task(), 3, 3 * 0.5)
    assert sizes.size_for(task()) == 8
    for _ in range(3):
        sizes.note(task(), 5, 5 * 0.9)
    for _ in range(3):
        sizes.note(task(), 8, 8 * 0.9)
    assert sizes.size_for(task()) == 2


def test_nothing_is_learned_of_tasks_that_share_no_run() -> None:
    sizes = BatchSizes(8)
    assert set(learned(sizes, lambda size: 1 / size, image=b"x")) == {1}
    assert set(learned(BatchSizes(1), lambda size: 1 / size)) == {1}
    assert sizes.size_for(task()) == 1


def test_a_run_that_works_makes_up_for_one_that_did_not() -> None:
    sizes = BatchSizes(8)
    learned(sizes, lambda size: 1 / size, 2)
    for _ in range(3):
        sizes.failed(task(), 2)
        sizes.note(task(), 2, 1.0)
    assert sizes.size_for(task()) > 1
