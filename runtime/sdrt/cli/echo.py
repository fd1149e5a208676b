"""What the commands print: texts for people, and data."""

from __future__ import annotations

from typing import Any

import click

from sdrt.common.visible import visible

__all__ = ["echo", "echo_error", "echo_json"]


def echo(text: str) -> None:
    """Print a text for people on stdout. Newlines and tabs stay, all other control characters become visible."""
    click.echo(visible(text, lines=True))


def echo_error(text: str) -> None:
    """Print one line on stderr, with visible control characters."""
    click.echo(visible(text), err=True)


def echo_json(value: Any) -> None:
    """Print a value as one line of JSON in ASCII, in which control characters are escaped."""
    import json

    click.echo(json.dumps(value, allow_nan=False))
