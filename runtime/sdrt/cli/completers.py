"""What the options and arguments of sdrt complete to in a shell."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import click
from click.shell_completion import CompletionItem

__all__ = [
    "axes",
    "commands",
    "files",
    "folders",
    "images_and_models",
    "models",
    "providers",
    "schedulers",
    "spacings",
]

Items = list[CompletionItem[Any]]
Completer = Callable[[click.Context, click.Parameter, str], Items]


def _starting(names: Iterable[str], incomplete: str) -> Items:
    """The names that begin with what was typed. Case does not matter."""
    start = incomplete.casefold()
    return [CompletionItem(name) for name in dict.fromkeys(names) if name.casefold().startswith(start)]


def files(_: click.Context, __: click.Parameter, incomplete: str) -> Items:
    """Any file."""
    return [CompletionItem(incomplete, type="file")]


def folders(_: click.Context, __: click.Parameter, incomplete: str) -> Items:
    """Any folder."""
    return [CompletionItem(incomplete, type="dir")]


def commands(context: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """The commands."""
    top = context.find_root()
    assert isinstance(top.command, click.Group)
    return _starting(top.command.list_commands(top), incomplete)


def schedulers(_: click.Context, __: click.Parameter, incomplete: str) -> Items:
    """The names of schedulers, A1111's and diffusers' names, and files."""
    from sdrt.schedulers import SAMPLERS, SPACING_LABELS

    rows = SAMPLERS.values()
    names = [*SAMPLERS, *(row.display_name for row in rows)]
    if incomplete:
        names += [row.class_name for row in rows if row.class_name]
        # A1111's names with a spacing are many, so they come when the name is there.
        names += [
            f"{row.display_name} {label}"
            for row in rows
            if incomplete.casefold().startswith(row.display_name.casefold())
            for spacing, label in SPACING_LABELS.items()
            if spacing in row.spacings
        ]
    found = _starting(names, incomplete)
    return found or [CompletionItem(incomplete, type="file")]


def spacings(_: click.Context, __: click.Parameter, incomplete: str) -> Items:
    """The names of spacings."""
    from sdrt.schedulers import SPACINGS

    return _starting(SPACINGS, incomplete)


def providers(_: click.Context, __: click.Parameter, incomplete: str) -> Items:
    """The names of providers."""
    from sdrt.onnx.providers import PROVIDERS, provider_names

    numbered = [f"{name}:{number}" for name, row in PROVIDERS.items() if row.device for number in range(4)]
    return _starting([*provider_names(), *(numbered if ":" in incomplete else ())], incomplete)


def models(_: click.Context, __: click.Parameter, incomplete: str) -> Items:
    """Embedded models, models in the hub's cache, folders, and checkpoints' files."""
    from sdrt.model_folder.embedded import embedded_names

    names = [*embedded_names(), *_cached()]
    return [*_starting(names, incomplete), CompletionItem(incomplete, type="file")]


def images_and_models(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """Files, and embedded models."""
    from sdrt.model_folder.embedded import embedded_names

    return [*_starting(embedded_names(), incomplete), *files(context, parameter, incomplete)]


def _cached() -> list[str]:
    """The ids of the models in the hub's cache."""
    from pathlib import Path

    from huggingface_hub import constants

    with suppress(OSError):  # there is no cache, or it is not readable
        found = Path(constants.HF_HUB_CACHE).glob("models--*--*")
        names = [folder.name.removeprefix("models--").replace("--", "/", 1) for folder in found]
        return sorted(name for name in names if name.isprintable())
    return []


def axes(context: click.Context, parameter: click.Parameter, incomplete: str) -> Items:
    """The settings that a plot can vary, as `steps=`, and the values of those that have names."""
    from sdrt.cli.generate.variations import axis_settings

    name, equals, given = incomplete.partition("=")
    if not equals:
        return _starting([f"{row.key}=" for row in axis_settings()], incomplete)
    before, comma, last = given.rpartition(",")
    found: Items = []
    for row in axis_settings():
        if name in row.names:
            complete = {"scheduler": schedulers, "spacing": spacings}.get(row.name)
            found = complete(context, parameter, last) if complete else _starting(row.choices, last)
    return [CompletionItem(f"{name}={before}{comma}{one.value}") for one in found if one.type == "plain"]
