"""A second family, registered while the tests of this folder run, and a model of it. They need onnx."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdrt import StableDiffusionPipeline
from sdrt.families import FAMILIES

collect_ignore_glob = [] if importlib.util.find_spec("onnx") else ["test_*.py"]


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    """Add the family's row to the table. sdrt needs nothing else."""
    from tests.runtime.families.second.duet import DUET

    FAMILIES.append(DUET)
    yield
    FAMILIES.remove(DUET)


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder of the family's model."""
    from tests.runtime.families.second.duet import write_model

    write_model(tmp_path / "duet", tiny_model / "tokenizer")
    return tmp_path / "duet"


@pytest.fixture
def duet(folder: Path) -> StableDiffusionPipeline:
    """The family's model, loaded."""
    return StableDiffusionPipeline.from_pretrained(folder, provider="cpu", threads=1)
