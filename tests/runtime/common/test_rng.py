from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sdrt.common.rng import MAX_SEED, Generator
from sdrt.errors import RequestError

GOLDENS = Path(__file__).resolve().parents[2] / "goldens" / "schedulers.npz"
# torch evaluates log, sin and cos in float32.
TOLERANCE = 1e-6


@pytest.mark.parametrize("seed", [0, 1, 2**31 + 5, MAX_SEED])
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


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 1.5, "7", None])
def test_a_seed_that_torch_would_alias_is_refused(seed: object) -> None:
    with pytest.raises(RequestError, match="expected a whole number from 0 to 4294967295"):
        Generator(seed)  # type: ignore[arg-type]
