"""What commands share: the argument parser, and what happens with the figures."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.bars import met

__all__ = ["conclude", "parser_of"]


def parser_of(command: str, text: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m benchmarks COMMAND`. Its help shows `text` unchanged."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks {command}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def conclude(
    options: argparse.Namespace,
    compare: Callable[[Path], Mapping[str, Any]],
    table: Callable[[Mapping[str, Any]], str],
) -> None:
    """Measure with `compare`, which is given the work folder, and print the table of the figures.

    `options` have `work`, None for a temporary folder, and `json`, the file for the figures or None. The program ends
    with an error if a goal that was measured is missed.
    """
    with tempfile.TemporaryDirectory() as scratch:
        work = (options.work or Path(scratch)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        figures = compare(work)
    print(table(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    if not met(figures):
        sys.exit("misses a goal")
