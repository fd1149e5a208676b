"""Where the commands run, and on what."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; the cache is beside it."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def model(tiny_model: Path) -> str:
    """The tiny model as `-m` takes it."""
    return str(tiny_model)
