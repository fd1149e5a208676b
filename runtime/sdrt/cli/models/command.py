"""`sdrt models`: lists the models that need no download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from sdrt.cli.echo import echo, echo_json
from sdrt.cli.group import debug_option
from sdrt.cli.models.summary import human_size, summarise
from sdrt.cli.settings import CONTEXT
from sdrt.cli.tables import columns
from sdrt.errors import RequestError, SdrtError
from sdrt.model_folder.embedded import DEFAULT_MODEL, embedded_names, embedded_path

__all__ = ["models"]

HEADINGS = ("model", "family", "target", "dtype", "size", "from")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model. `model` is the value for `-m`, and `where` is embedded, exported, hub or here.

    Fields that come from the manifest are None without one. `problem` says why the model cannot be used.
    """

    model: str
    where: str
    path: str
    family: str | None = None
    target: str | None = None
    dtype: str | None = None
    bytes: int | None = None
    source: str | None = None
    problem: str | None = None


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
    cache, and model folders in the working directory.
    """
    if architectures:
        _list_architectures(as_json)
        return
    rows = [*_embedded(), *_exported(), *_from_hub(), *_here()]
    if as_json:
        echo_json({"default": DEFAULT_MODEL, "models": [asdict(row) for row in rows]})
    else:
        echo(_table(rows))


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
            yield _row(name, "embedded", path)


def _exported() -> Iterator[Row]:
    """Checkpoints that `-m` exported. Rows show folders, because a checkpoint's name may now mean another revision."""
    from sdrt.common.cache import cache_root

    with suppress(RequestError, OSError):
        for folder in _visible(cache_root() / "exported", "sdrt.json"):
            yield _row(str(folder), "exported", folder)


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
                    yield _row(name, "hub", Path(found[0]).parents[1])


def _here() -> Iterator[Row]:
    from sdrt.model_folder.folder import denoiser_graphs

    with suppress(OSError):  # the working directory is gone or not readable
        for folder in _visible(Path(), *denoiser_graphs()):
            yield _row(f"{folder}/", "here", folder.absolute())


def _visible(parent: Path, *files: str) -> list[Path]:
    """Folders of `parent` that contain one of `files`, without the hidden folders that a killed export leaves there."""
    if not parent.is_dir():
        return []
    return sorted(
        path
        for path in parent.iterdir()
        if not path.name.startswith(".") and any(_holds(path, file) for file in files)
    )


def _holds(folder: Path, file: str) -> bool:
    try:
        return (folder / file).is_file()
    except (OSError, RuntimeError):  # a folder without permission, a link to itself
        return False


def _row(name: str, where: str, path: Path) -> Row:
    from sdrt.model_folder.folder import ModelFolder

    try:
        known = summarise(ModelFolder.open(path), verified=False)
    except (SdrtError, OSError, RuntimeError) as error:
        return Row(model=name, where=where, path=str(path), problem=str(error))
    return Row(
        model=name,
        where=where,
        path=str(path),
        source=(known["source"] or {}).get("id"),
        **{key: known[key] for key in ("family", "target", "dtype", "bytes")},
    )


def _table(rows: list[Row]) -> str:
    return columns([HEADINGS, *map(_cells, rows)])


def _cells(row: Row) -> tuple[str, ...]:
    if row.problem is not None:
        return (row.model, "", "", "", "", f"{row.where}: {row.problem}")
    origin = row.where if row.source in (None, row.model) else f"{row.where}, {row.source}"
    if row.model == DEFAULT_MODEL and row.where == "embedded":
        origin = "embedded, the default"
    known = (row.family, row.target, row.dtype)
    return (row.model, *(value or "unknown" for value in known), human_size(row.bytes or 0), origin)
