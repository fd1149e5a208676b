"""The options that say how an image is made, for every command that makes some."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from sdrt.cli.group import force_option
from sdrt.cli.param_types import Numbers
from sdrt.cli.provider_options import (
    MEMORY_OPTIONS,
    allow_fallback_option,
    provider_option,
    provider_options_option,
)
from sdrt.model_folder.embedded import DEFAULT_MODEL
from sdrt.request.setting import Group, Setting, help_texts
from sdrt.request.table import TABLE

__all__ = ["groups", "picture_options", "setting_options"]

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

_GROUPS: Mapping[str, tuple[str, ...]] = {
    Group.USUAL: (
        *("model", "negative_prompt", "num_inference_steps", "guidance_scale", "width", "height"),
        *("seed", "scheduler", "image", "output"),
    ),
    Group.MANY: ("x", "y", "z", "batch_size", "count", "prompts_file", "from_picture", "grid"),
    Group.PROMPTS: ("prompt_syntax", "embeddings"),
    Group.IMAGE_TO_IMAGE: (),
    Group.PAINTING: (),
    Group.LARGE: (),
    Group.SAMPLING: ("spacing",),
    "The machine": (
        *("provider", "provider_options", "allow_fallback", "threads"),
        *("vae_tiling", "low_vram", "revision"),
    ),
    "Previews": ("preview", "preview_file", "preview_every"),
}
"""What the help shows together, and which options of each group come first; other settings of it follow."""

_OTHERS = (
    click.option(
        "-m",
        "--model",
        metavar="MODEL",
        default=DEFAULT_MODEL,
        show_default=True,
        help="Model folder, hub id, or an embedded model; `sdrt models` lists them.",
    ),
    click.option(
        "--embedding",
        "embeddings",
        metavar="FILE",
        multiple=True,
        help="Load a textual inversion (.safetensors). Prompts use the name of the file, or the name in it.",
    ),
    force_option,
    click.option("--no-metadata", is_flag=True, help="Do not write into the file how it was made."),
    provider_option,
    provider_options_option,
    allow_fallback_option,
    *MEMORY_OPTIONS,
    click.option("--threads", type=int, help="CPU threads.  [default: every core]"),
    click.option("--revision", help="Branch, tag or commit of a model on the Hub."),
    click.option("-q", "--quiet", is_flag=True, help="Print errors only: no progress, no notices."),
)


def groups(table: Sequence[Setting] = TABLE) -> dict[str, tuple[str, ...]]:
    """Which options the help shows together, in its order. What is in none of the groups comes last."""
    own = [row for row in table if row.option and row.option.spellings]
    return {
        group: tuple(dict.fromkeys((*first, *(row.name for row in own if row.group == group))))
        for group, first in _GROUPS.items()
    }


def setting_options(table: Sequence[Setting] = TABLE) -> list[Decorator]:
    """An option for every setting that has one. Its value goes by the setting's name."""
    texts, options = help_texts(table), list[Decorator]()
    for row in table:
        if row.option is None or not row.option.spellings:
            continue
        given = (*row.option.spellings, row.name)
        if row.kind is bool:
            options.append(click.option(*given, is_flag=True, callback=_turned_off, help=texts[row.name]))
            continue
        kind: Any = row.kind if row.most is None else Numbers(float if row.kind is float else int)
        options.append(
            click.option(
                *given,
                metavar=row.option.metavar,
                type=click.Choice(row.choices) if row.choices else kind,
                # A text that says nothing is empty.
                default="" if row.name == "negative_prompt" else row.default,
                show_default=row.default is not None,
                help=texts[row.name],
            )
        )
    return options


def _turned_off(_: click.Context, __: click.Parameter, given: bool) -> bool:
    return not given


def picture_options(command: Command) -> Command:
    """The decorator that gives a command all of them, and what else says how images are made."""
    for option in reversed((*setting_options(), *_OTHERS)):
        command = option(command)
    return command
