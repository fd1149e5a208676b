"""Where the tests of target cuda run, and what they are given."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest

from sdrt.onnx.engine import available_providers, cuda_works


def _find_gpu() -> bool:
    """Whether CUDA works here, or NumPy plays its part where it does not: `benchmarks/gpu.sh --dry-run`."""
    found = "cuda" in available_providers() and cuda_works()
    if not found and os.environ.get("SDRT_GPU_REHEARSAL"):
        from tests.gpu import stand_in

        stand_in.install()
        return True
    return found


ON_GPU = _find_gpu()


@dataclass(frozen=True, kw_only=True)
class Export:
    """A checkpoint, and the model that was made of it for a target."""

    checkpoint: Path
    folder: Path


def fail(message: str) -> None:
    """Receives what a pipeline says: of a fallback, an overflow or too little memory it would be here."""
    # What takes long is no failure: files that are read for the first time, the first image of a size, and what was
    # exported for another target.
    if not message.startswith(("hashes: ", "warming up ")) and "was exported for target" not in message:
        pytest.fail(message)


class Exports(Protocol):
    """Makes what it was not asked for before: seconds on a machine that is lent."""

    def __call__(self, variant: str, target: str = "cuda") -> Export: ...
