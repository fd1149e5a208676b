"""The options that `sdrt generate`, `plot` and `batch` share. Most of them come from the table of settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from sdrt.cli import completers
from sdrt.cli.checkpoint_options import BESIDE, CHECKPOINT_OPTIONS, MODEL_HELP, model_option
from sdrt.cli.group import force_option
from sdrt.cli.param_types import Choices, Numbers, Pairs
from sdrt.cli.provider_options import RUN_OPTIONS, provider_option, tune_option
from sdrt.cli.settings import Decorator, together
from sdrt.request.pairs import Pair
from sdrt.request.setting import Group, Setting, help_texts
from sdrt.request.table import TABLE

__all__ = ["groups", "image_options", "setting_options"]

_GROUPS: Mapping[str, tuple[str, ...]] = {
    Group.USUAL: (
        *("model", "negative_prompt", "num_inference_steps", "guidance_scale", "width", "height"),
        *("seed", "scheduler", "image", "output"),
    ),
    Group.MANY: (
        *("x", "y", "z", "batch_size", "count", "prompts_file", "wildcards", "from_image", "approximate"),
        "grid",
    ),
    Group.PROMPTS: ("lora", "lora_dir", "lora_scale", "prompt_syntax", "embeddings"),
    Group.IMAGE_TO_IMAGE: (),
    Group.PAINTING: (),
    Group.CONTROL: ("controlnet", "control_image", "control_preview"),
    Group.IMAGE_PROMPTS: (
        "ip_adapter",
        "ip_adapter_image",
        "ip_adapter_scale",
        "ip_adapter_masks",
        "image_encoder",
    ),
    Group.LARGE: (),
    Group.SIZES: (),
    Group.SAMPLING: ("spacing",),
    Group.TWO_MODELS: ("refiner", "refiner_switch"),
    "Provider, threads and memory": (
        *("provider", "provider_options", "provider_library", "allow_fallback", "threads"),
        *("vae_tiling", "low_vram", "tune", "revision"),
    ),
    "Checkpoints": tuple(
        name for name in BESIDE if name not in ("controlnet", "ip_adapter", "image_encoder")
    ),
    "Previews": ("preview", "preview_file", "preview_every"),
}
"""The headings of the help. Each has the options that come first; the other settings of the group follow."""

_OTHER_OPTIONS: tuple[Decorator, ...] = (
    model_option(f"{MODEL_HELP} `sdrt models` lists those that need no download."),
    *CHECKPOINT_OPTIONS,
    click.option(
        "--embedding",
        "embeddings",
        metavar="FILE",
        multiple=True,
        shell_complete=completers.files,
        help="Load a textual inversion (.safetensors). Prompts use it by the name in the file, or else by the name of "
        "the file. Can be repeated.",
    ),
    click.option(
        "--wildcards",
        metavar="DIR",
        shell_complete=completers.folders,
        help="In prompts, __name__ means a line of the file name.txt in this folder. The seed decides which.",
    ),
    force_option,
    click.option(
        "--no-metadata", is_flag=True, help="Write no metadata (how the image was made) into the files."
    ),
    provider_option,
    *RUN_OPTIONS,
    tune_option,
    click.option(
        "--threads", type=int, help="Number of CPU threads, at most one per CPU.  [default: every core]"
    ),
    click.option("--revision", help="Branch, tag or commit of a model on the hub."),
    click.option("-q", "--quiet", is_flag=True, help="Print errors only, no progress and no notices."),
)


def groups(table: Sequence[Setting] = TABLE) -> dict[str, tuple[str, ...]]:
    """Map each heading of the help to its options, by parameter name, in the order of the help.

    Options in none of these groups come last in the help.
    """
    with_option = [row for row in table if row.option and row.option.spellings]
    return {
        group: tuple(dict.fromkeys((*first, *(row.name for row in with_option if row.group == group))))
        for group, first in _GROUPS.items()
    }


def setting_options(table: Sequence[Setting] = TABLE) -> list[Decorator]:
    """Make the options of all settings that have one. Each parameter has the name of its setting."""
    texts, options = help_texts(table), list[Decorator]()
    for row in table:
        if row.option is None or not row.option.spellings:
            continue
        given = (*row.option.spellings, row.name)
        if row.kind is bool:
            # The option of a setting that is on by default turns it off.
            callback = _negated if row.is_turned_off else None
            options.append(click.option(*given, is_flag=True, callback=callback, help=texts[row.name]))
            continue
        options.append(
            click.option(
                *given,
                metavar=row.option.metavar,
                type=_type(row),
                default=row.default,
                multiple=row.option.repeats,
                callback=_listed if row.option.repeats else None,
                show_default=row.default is not None,
                shell_complete=_completer(row),
                help=texts[row.name],
            )
        )
    return options


def _type(row: Setting) -> Any:
    """click's type for the values of a setting."""
    if row.choices:
        return click.Choice(row.choices) if row.max_items is None else Choices(row.choices)
    if row.max_items is not None:
        label = row.label if row.reads else None
        kind = float if row.kind is float else int
        return Numbers(kind, label.read, label.expected) if label else Numbers(kind)
    return Pairs(row.kind) if row.kind is not None and issubclass(row.kind, Pair) else row.kind


def _completer(row: Setting) -> completers.Completer | None:
    """What completes the values of a setting. Choices complete themselves."""
    named = {
        "scheduler": completers.schedulers,
        "spacing": completers.spacings,
        "refiner": completers.models,
        "refiner_config": completers.folders,
    }
    if row.option is not None and row.option.metavar == "DIR":
        return completers.folders
    is_file = "FILE" in ((row.option.metavar if row.option else None) or "")
    return named.get(row.name) or (completers.files if is_file else None)


def _negated(_: click.Context, __: click.Parameter, given: bool) -> bool:
    return not given


def _listed(_: click.Context, __: click.Parameter, given: Sequence[str] | None) -> list[str] | None:
    """The values of an option that can be repeated. None without any."""
    return list(given) if given else None


image_options = together(*setting_options(), *_OTHER_OPTIONS)
"""Adds to a command all options that `sdrt generate`, `sdrt plot` and `sdrt batch` share."""
