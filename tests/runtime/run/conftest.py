"""A second model with the same latents, an image and a mask; the garbage collector, switched off."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sdrt import StableDiffusionPipeline
from tests.runtime.run.refining import opened


@pytest.fixture
def no_cycles() -> Iterator[None]:
    """Turn the cyclic garbage collector off. Sessions must be freed with their last reference, without it."""
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def other_folder(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights, said to predict v: another model with the same latents."""
    folder = tmp_path_factory.mktemp("models") / "other"
    shutil.copytree(tiny_model, folder)
    (folder / "sdrt.json").unlink()
    config = folder / "scheduler" / "scheduler_config.json"
    values = json.loads(config.read_text()) | {"prediction_type": "v_prediction"}
    config.write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module")
def other(other_folder: Path) -> Iterator[StableDiffusionPipeline]:
    with opened(other_folder) as made:
        yield made


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


@pytest.fixture
def mask() -> np.ndarray:
    drawn = np.zeros((64, 64), np.uint8)
    drawn[16:48, 8:40] = 255
    return drawn
