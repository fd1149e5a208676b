from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdrt.common.rng import Generator
from sdrt.common.seeds import MAX_SEED, seeds_from, settled_seed
from sdrt.errors import RequestError

GOLDENS = Path(__file__).resolve().parents[2] / "goldens" / "schedulers.npz"
# torch evaluates log, sin and cos in float32.
TOLERANCE = 1e-6


@pytest.mark.parametrize("seed", [0, 1, 2**31 + 5, 2**32 - 1])
def test_successive_draws_of_any_length_equal_torch(seed: int) -> None:
    with np.load(GOLDENS) as goldens:
        lengths, expected = goldens["rng/lengths"], goldens[f"rng/{seed}"]
    generator = Generator(seed)
    found = np.concatenate([generator.randn(int(length)) for length in lengths])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE, rtol=TOLERANCE)


def test_shape_and_dtype() -> None:
    noise = Generator(0).randn((2, 4, 8, 8))
    assert noise.shape == (2, 4, 8, 8)
    assert noise.dtype == np.float32
    np.testing.assert_array_equal(noise.ravel(), Generator(0).randn(512))


def test_noise_is_standard_normal() -> None:
    noise = Generator(3).randn(100_000)
    assert abs(float(noise.mean())) < 0.01
    assert abs(float(noise.std()) - 1) < 0.01


def test_drawing_nothing_changes_nothing() -> None:
    generator, untouched = Generator(5), Generator(5)
    generator.randn(3), untouched.randn(3)
    assert generator.randn(0).shape == (0,)
    np.testing.assert_array_equal(generator.randn(2), untouched.randn(2))


@pytest.mark.parametrize("seed", [-(2**63) - 1, MAX_SEED + 1, 1.5, "7", None, True])
def test_a_seed_that_torch_would_not_take_is_refused(seed: object) -> None:
    with pytest.raises(RequestError, match=r"expected a whole number from -2\*\*63 to 2\*\*64 - 1"):
        Generator(seed)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seed", "same"),
    [
        (2**32, 0),
        (7 * 2**32 + 5, 5),
        (MAX_SEED, 2**32 - 1),
        (-1, 2**32 - 1),
        (-5, 2**32 - 5),
        (-(2**63), 0),
        (np.uint64(2**63 + 5), 5),
    ],
)
def test_the_low_32_bits_of_a_seed_count(seed: int, same: int) -> None:
    np.testing.assert_array_equal(Generator(seed).randn(20), Generator(same).randn(20))


def test_seeds_count_up_and_begin_again() -> None:
    assert seeds_from(settled_seed("seed", -3), 4) == (MAX_SEED - 2, MAX_SEED - 1, MAX_SEED, 0)
    # -1 stands for any seed, so two of them differ.
    assert settled_seed("seed", -1) != settled_seed("seed", -1)
    assert 0 <= settled_seed("seed", None) < 2**32
