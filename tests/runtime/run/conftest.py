"""The garbage collector, switched off."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_cycles() -> Iterator[None]:
    """Turn the cyclic garbage collector off. Sessions must be freed with their last reference, without it."""
    gc.disable()
    yield
    gc.enable()
