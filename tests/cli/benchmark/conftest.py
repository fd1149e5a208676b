"""One measured record for the tests in this folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.cli.benchmark.tiny_benchmark import FAST, benchmark


@pytest.fixture(scope="package")
def measured(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """One run with a profile, and the file of its record."""
    path = tmp_path_factory.mktemp("benchmark") / "a.json"
    return benchmark("-m", str(tiny_model), *FAST, "--profile", "--json", str(path)), path


@pytest.fixture
def record(measured: tuple[Result, Path]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(measured[1].read_text())
    return found
