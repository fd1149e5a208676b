"""What `sdrt generate` was asked for: options, pictures, files, requests; checked before any work."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.errors import RequestError

from .outputs import check_capacity, plan_paths, plan_sheet_path

if TYPE_CHECKING:
    from sdrt import Request

__all__ = ["Grid", "Options", "Picture", "arguments", "batches", "plan", "plan_grid", "request", "seeds"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line, parsed; `None` leaves a value to the model or to a default that depends on others."""

    prompts: tuple[str, ...]
    model: str
    negative_prompt: str
    steps: int
    guidance_scale: float
    width: int | None
    height: int | None
    seed: int | None
    scheduler: str | None
    spacing: str | None
    eta: float
    clip_skip: int | None
    batch_size: int
    count: int | None
    output: str | None
    grid: bool
    force: bool
    no_metadata: bool
    provider: str
    allow_fallback: bool
    threads: int | None
    revision: str | None
    max_size: int | None
    as_json: bool
    quiet: bool


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture to make: its prompt, its seed and its file."""

    prompt: str
    seed: int
    path: Path
    label: str
    """What tells it from the others, for a contact sheet."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The contact sheet: its file, how many pictures it shows, and how many in a row (None: as many as rows)."""

    path: Path
    count: int
    columns: int | None


def plan(options: Options) -> list[Picture]:
    """Every prompt `count` times, seeds counting up, each with a file that can be written."""
    from sdrt.request import MAX_SEED

    prompts = [prompt for prompt in options.prompts for _ in range(_each(options))]
    first = secrets.randbelow(MAX_SEED - len(prompts)) if options.seed is None else options.seed
    seeds = range(first, first + len(prompts))
    paths = plan_paths(options.output, seeds, force=options.force)
    text = 0 if options.no_metadata else max(map(len, options.prompts)) + len(options.negative_prompt)
    check_capacity(paths[0], sides=(options.width, options.height), text=text)
    return [
        Picture(prompt=prompt, seed=seed, path=path, label=_label(options, prompt, seed))
        for prompt, seed, path in zip(prompts, seeds, paths, strict=True)
    ]


def plan_grid(options: Options, pictures: list[Picture]) -> Grid | None:
    """The contact sheet, if there is to be one: a row per prompt when each has several pictures."""
    if not options.grid:
        return None
    from sdrt.sheet import MAX_PICTURES

    if len(pictures) > MAX_PICTURES:
        raise RequestError(
            f"--grid with {len(pictures)} pictures: expected at most {MAX_PICTURES}; make several sheets"
        )
    seeds = [picture.seed for picture in pictures]
    each = _each(options)
    return Grid(
        path=plan_sheet_path(options.output, seeds, force=options.force),
        count=len(pictures),
        columns=each if each > 1 and len(options.prompts) > 1 else None,
    )


def _each(options: Options) -> int:
    return options.count or options.batch_size


def _label(options: Options, prompt: str, seed: int) -> str:
    if len(options.prompts) == 1:
        return f"seed {seed}"
    # The sheet's font has Latin letters.
    legible = prompt.strip() and all(ord(letter) < 0x250 for letter in prompt)
    alone = _each(options) == 1 and options.prompts.count(prompt) == 1
    return prompt if alone and legible else f"{seed}: {prompt}"


def arguments(options: Options, batch: list[Picture]) -> dict[str, Any]:
    """What the pipeline is asked for, by the names of `sdrt.Request`."""
    return {
        "prompt": [picture.prompt for picture in batch],
        "height": options.height,
        "width": options.width,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "negative_prompt": options.negative_prompt or None,
        "eta": options.eta,
        "seed": batch[0].seed,
        "clip_skip": options.clip_skip,
        "max_size": options.max_size,
    }


def request(options: Options, batch: list[Picture]) -> Request:
    """Made before a model is loaded: raises `RequestError` at once for what is wrong with any model."""
    from sdrt import Request

    return Request(**arguments(options, batch))


def seeds(pictures: list[Picture]) -> str:
    """The seeds for people."""
    first, last = pictures[0].seed, pictures[-1].seed
    return f"seed {first}" if first == last else f"seeds {first} to {last}"


def batches(pictures: list[Picture], size: int) -> Iterator[tuple[str, list[Picture]]]:
    """Groups of at most `size`, each with its name for the progress bar."""
    for start in range(0, len(pictures), size):
        batch = pictures[start : start + size]
        last = f"-{start + len(batch)}" if len(batch) > 1 else ""
        yield f"picture {start + 1}{last} of {len(pictures)}", batch
