"""A working folder, the tiny model, and the command in this process or another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sdrt.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder; the cache is beside it."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return work


@pytest.fixture
def batch(folder: Path, tiny_model: Path) -> Callable[..., Result]:
    """Runs `sdrt batch` with these arguments, in two steps an image and with out/ as its folder."""

    def run(*arguments: str | Path) -> Result:
        words = command(tiny_model, *arguments)
        return CliRunner().invoke(main, words, prog_name="sdrt")

    return run


@pytest.fixture
def started(folder: Path, tiny_model: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `sdrt batch` in another process."""

    def start(*arguments: str | Path, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "sdrt", *command(tiny_model, *arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    return start


def command(model: Path, *arguments: str | Path) -> list[str]:
    """The words of the command."""
    common = ("--steps", "2", "--threads", "1", "--provider", "cpu", "-m", str(model), "-o", "out")
    return ["batch", *common, *map(str, arguments)]


def write_rows(rows: Sequence[dict[str, Any] | str], name: str = "in.jsonl") -> str:
    """Write rows as lines of JSON. A text is a line as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return name


def index(place: str = "out") -> list[dict[str, Any]]:
    """The entries of the index."""
    return [json.loads(line) for line in Path(place, "index.jsonl").read_text().splitlines()]
