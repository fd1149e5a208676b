"""`sdrt models`: lists the models that need no download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import click

from sdrt.cli.echo import echo, echo_error, echo_json
from sdrt.cli.group import debug_option
from sdrt.cli.models.here import Here, visible_entries
from sdrt.cli.models.row import EXPORTED, Row, folder_row
from sdrt.cli.models.summary import human_size
from sdrt.cli.settings import CONTEXT
from sdrt.cli.tables import columns
from sdrt.errors import RequestError
from sdrt.model_folder.embedded import DEFAULT_MODEL, embedded_names, embedded_path

__all__ = ["models"]

HEADINGS = ("model", "family", "target", "dtype", "size", "from")


@click.command(context_settings=CONTEXT)
@click.option(
    "--architectures",
    is_flag=True,
    help="List the architectures of `sdrt export --architecture` instead, with their sizes.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@debug_option
def models(architectures: bool, as_json: bool) -> None:
    """List the models that `-m` accepts without a download.

    These are the embedded model, checkpoints that sdrt exported into its cache, exported models in huggingface_hub's
    cache, and the models in the working directory: model folders, checkpoints in diffusers' layout, and single-file
    checkpoints. Other files of weights there, such as LoRAs, are only counted.
    """
    if architectures:
        _list_architectures(as_json)
        return
    here = Here.found()
    rows = [*_embedded(), *_exported(), *_from_hub(), *here.rows]
    if as_json:
        others = {"left_out": dict(here.left_out), "unread": here.unread}
        echo_json({"default": DEFAULT_MODEL, "models": [asdict(row) for row in rows], **others})
        return
    echo(_table(rows))
    for line in _notes(here):
        echo_error(line)


def _notes(here: Here) -> Iterator[str]:
    """What the working directory has besides the models of the table."""
    if here.left_out:
        counted = ", ".join(
            f"{count} × {what.partition(' ')[2]}" for what, count in sorted(here.left_out.items())
        )
        yield f"other files here: {counted}; `sdrt info FILE` describes each"
    if here.unread:
        yield f"{here.unread} more files here were not read, to save time; `sdrt info FILE` describes each"


def _list_architectures(as_json: bool) -> None:
    from sdrt.cli.models.architectures import architectures_table, known_architectures

    rows = known_architectures()
    if as_json:
        echo_json({"architectures": rows})
    else:
        echo(architectures_table(rows))


def _embedded() -> Iterator[Row]:
    for name in embedded_names():
        if path := embedded_path(name):
            yield folder_row(name, "embedded", path)


def _exported() -> Iterator[Row]:
    """Checkpoints that `-m` exported. Rows show folders, because a checkpoint's name may now mean another revision."""
    from sdrt.common.cache import cache_root
    from sdrt.model_folder.manifest import MANIFEST_NAME

    with suppress(RequestError, OSError):
        for folder in visible_entries(cache_root() / "exported"):
            with suppress(OSError, RuntimeError):  # a folder without permission, a link to itself
                if (folder / MANIFEST_NAME).is_file():
                    yield folder_row(str(folder), "exported", folder)


def _from_hub() -> Iterator[Row]:
    """Exported models from the hub, at the revision that `-m` uses without `--revision`."""
    from huggingface_hub import constants, try_to_load_from_cache

    from sdrt.model_folder.folder import denoiser_graphs

    with suppress(OSError):  # there is no cache, or it is not readable
        for repo in sorted(Path(constants.HF_HUB_CACHE).glob("models--*--*")):
            name = repo.name.removeprefix("models--").replace("--", "/", 1)
            with suppress(OSError, ValueError, RuntimeError):  # not a hub name, or a damaged repository
                graphs = [
                    try_to_load_from_cache(name, file, cache_dir=constants.HF_HUB_CACHE)
                    for file in denoiser_graphs()
                ]
                if found := [graph for graph in graphs if isinstance(graph, str)]:
                    yield folder_row(name, "hub", Path(found[0]).parents[1])


def _table(rows: list[Row]) -> str:
    return columns([HEADINGS, *map(_cells, rows)])


def _cells(row: Row) -> tuple[str, ...]:
    if row.problem is not None:
        return (row.model, "", "", "", "", f"{row.where}: {row.problem}")
    origin = row.where if row.source in (None, row.model) else f"{row.where}, {row.source}"
    known = (row.family, row.target, row.dtype)
    if row.kind != EXPORTED:
        # A checkpoint's graphs are made for the provider that runs it.
        known, origin = (row.family or row.base, "any", row.dtype), f"{row.where}, {row.kind}"
    if row.model == DEFAULT_MODEL and row.where == "embedded":
        origin = "embedded, the default"
    return (row.model, *(value or "unknown" for value in known), human_size(row.bytes or 0), origin)
