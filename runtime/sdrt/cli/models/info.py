"""`sdrt info`: shows how an image was made, or what a model folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from sdrt.cli.completers import images_and_models
from sdrt.cli.group import CONTEXT, debug_option
from sdrt.errors import RequestError

__all__ = ["info"]


@click.command(context_settings=CONTEXT)
@click.argument("path", metavar="FILE|MODEL", shell_complete=images_and_models)
@click.option("--verify", is_flag=True, help="Read every file of a model folder now and check its hash.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@debug_option
def info(path: str, verify: bool, as_json: bool) -> None:
    """Show how an image was made, or what a model folder holds.

    FILE is an image from `sdrt generate`, or from another program that writes the same text.
    MODEL is a model folder, or the name of an embedded model.
    """
    from sdrt.model_folder.embedded import embedded_path

    target = Path(path)
    if embedded_path(path) is None and target.is_file():
        if verify:
            raise RequestError.expected(
                f"--verify: {path} is a file", "a model folder", argument="--verify", path=target
            )
        about, text = image_info(target)
    else:
        about, text = model_info(path, verify=verify)
    click.echo(json.dumps(about, allow_nan=False) if as_json else text)


def image_info(path: Path) -> tuple[dict[str, Any], str]:
    """The metadata of an image, as JSON and as text."""
    from sdrt.images.metadata import read_metadata

    found = read_metadata(path)
    if not found.text:
        raise RequestError.expected(
            f"{path} does not say how it was made", "an image from sdrt without --no-metadata", path=path
        )
    return {
        "file": str(path),
        "format": found.format,
        "width": found.size[0],
        "height": found.size[1],
        "prompt": found.prompt,
        "negative_prompt": found.negative_prompt,
        "settings": dict(found.settings),
        "parameters": found.text,
    }, found.text


def model_info(model: str, *, verify: bool) -> tuple[dict[str, Any], str]:
    """The contents of a model folder, as JSON and as text. With `verify`, a wrong file raises `IntegrityError`."""
    from sdrt.cli.models.summary import render, summarise, verify_now
    from sdrt.model_folder.resolve import open_local

    folder = open_local(model)
    if verify:
        verify_now(folder, lambda text: click.echo(text, err=True))
    summary = summarise(folder, verified=verify)
    return summary, render(summary)
