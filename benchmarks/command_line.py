"""The argument parser that all commands share."""

from __future__ import annotations

import argparse

__all__ = ["parser_of"]


def parser_of(command: str, text: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m benchmarks COMMAND`. Its help shows `text` unchanged."""
    return argparse.ArgumentParser(
        prog=f"python -m benchmarks {command}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
