"""What `sdrt generate` was asked for: options, pictures, files, requests; checked before any work."""

from __future__ import annotations

import itertools
import math
import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.cli.generate.outputs import check_capacity, plan_paths, plan_sheet_path
from sdrt.cli.generate.variations import Axis, Entry, expand_wildcards, read_prompts_file
from sdrt.errors import RequestError
from sdrt.request.setting import settings_of
from sdrt.request.table import TABLE

if TYPE_CHECKING:
    from sdrt import Request

__all__ = [
    "Batch",
    "Grid",
    "Options",
    "Picture",
    "batches",
    "plan",
    "plan_grid",
    "plan_plot",
    "plan_preview_path",
    "seeds",
]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The command line, parsed; `None` leaves a value to the model or to a default that depends on others."""

    prompts: tuple[str, ...]
    prompts_file: str | None
    settings: Mapping[str, Any]
    """What an image may have for itself, by the names of the table of settings."""
    model: str
    embeddings: tuple[str, ...]
    batch_size: int
    count: int | None
    output: str | None
    grid: bool
    force: bool
    no_metadata: bool
    provider: str
    provider_options: Mapping[str, str]
    allow_fallback: bool
    vae_tiling: bool | None
    low_vram: bool | None
    threads: int | None
    revision: str | None
    preview: bool = False
    preview_file: str | None = None
    preview_every: int = 5
    as_json: bool
    quiet: bool

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """What click read, by the names of its parameters."""
        settings = {row.name: given[row.name] for row in TABLE if row.name in given}
        return cls(settings=settings, **{name: given[name] for name in given if name not in settings})

    def but(self, settings: Mapping[str, Any]) -> Options:
        """The same with other settings."""
        return replace(self, settings={**self.settings, **settings}) if settings else self


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture to make: its prompt, its seed, its file, and what else is asked for."""

    prompt: str
    seed: int
    path: Path
    options: Options
    label: str
    """What tells it from the others, for a contact sheet."""
    where: str = ""
    """File and line that ask for it, for messages."""

    @contextmanager
    def named(self) -> Iterator[None]:
        """Errors say which line of a file asked for what is wrong."""
        try:
            yield
        except RequestError as error:
            if not self.where:
                raise
            raise RequestError(
                f"{self.where}: {error}",
                component=error.component,
                path=error.path,
                argument=error.argument,
                provider=error.provider,
                fits=error.fits,
            ) from error


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The contact sheet: its file, how many pictures it shows, and how many in a row (None: as many as rows)."""

    path: Path
    count: int
    columns: int | None


def plan(options: Options) -> list[Picture]:
    """Every prompt `count` times, seeds counting up, each with a file that can be written."""
    asked = [(one, options.but(one.settings) if one.settings else options) for one in _entries(options)]
    each = _each(options)
    prompts = [(entry, own) for entry, own in asked for _ in range(each)]
    seeds = _seeds(options, asked)
    paths = plan_paths(options.output, seeds, force=options.force)
    varied, times = len(asked) > 1, Counter(entry.prompt for entry, _ in asked)
    pictures = []
    for (entry, own), seed, path in zip(prompts, seeds, paths, strict=True):
        settings = own.settings
        plain = settings["prompt_syntax"] == "plain"
        prompt = entry.prompt if plain else expand_wildcards(entry.prompt, seed)
        alone = each == times[entry.prompt] == 1
        label = _label(prompt, seed, varied=varied, alone=alone)
        picture = Picture(prompt=prompt, seed=seed, path=path, options=own, label=label, where=entry.where)
        with picture.named():
            text = 0 if options.no_metadata else len(prompt) + len(settings["negative_prompt"])
            check_capacity(path, sides=(settings["width"], settings["height"]), text=text)
        pictures.append(picture)
    return pictures


def _entries(options: Options) -> list[Entry]:
    if options.prompts_file is None:
        return [Entry(prompt=prompt, settings={}) for prompt in options.prompts]
    return read_prompts_file(options.prompts_file)


def _seeds(options: Options, asked: Sequence[tuple[Entry, Options]]) -> list[int]:
    """A seed for every picture: an entry's own, counting up; else on from those before."""
    from sdrt.common.rng import MAX_SEED

    each = _each(options)
    count = len(asked) * each
    seed = options.settings["seed"]
    following = secrets.randbelow(MAX_SEED - count) if seed is None else seed
    seeds: list[int] = []
    for entry, _ in asked:
        if "seed" in entry.settings:
            first = entry.settings["seed"]
        else:
            first, following = following, following + each
        seeds += range(first, first + each)
    return seeds


def plan_plot(options: Options, axes: Sequence[Axis]) -> tuple[list[Picture], Grid]:
    """A picture for every combination of the axes' values, the first axis across, and the sheet that they go on."""
    from sdrt.common.rng import MAX_SEED
    from sdrt.images.contact_sheet import MAX_IMAGES

    first = options.settings["seed"]
    if first is None:
        first = secrets.randbelow(MAX_SEED)
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_IMAGES:
        raise RequestError(f"the plot has {count} pictures: expected at most {MAX_IMAGES}")
    path = plan_paths(options.output or "sdrt-plot-{seed}.png", [first], force=options.force)[0]
    pictures = []
    for values in itertools.product(*(axis.values for axis in reversed(axes))):
        settings = {axis.name: value for axis, value in zip(reversed(axes), values, strict=True)}
        prompt = settings.pop("prompt", options.prompts[0])
        own = options.but(settings)
        seed = settings.get("seed", first)
        if own.settings["prompt_syntax"] != "plain":
            prompt = expand_wildcards(prompt, seed)
        shown = [axis.label(value) for axis, value in zip(axes, reversed(values), strict=True)]
        pictures.append(Picture(prompt=prompt, seed=seed, path=path, options=own, label=", ".join(shown)))
    return pictures, Grid(path=path, count=count, columns=len(axes[0].values))


def plan_preview_path(options: Options, others: Sequence[Path]) -> Path | None:
    """Where previews go; checked as the pictures' files are, and to be none of them."""
    if options.preview_file is None:
        return None
    (path,) = plan_paths(options.preview_file, [0], force=options.force, option="--preview-file")
    if path.resolve() in {other.resolve() for other in others}:
        raise RequestError(f"--preview-file {path}: is the name of a picture too; choose another")
    return path


def plan_grid(options: Options, pictures: list[Picture]) -> Grid | None:
    """The contact sheet, if there is to be one: a row per prompt when each has several pictures."""
    if not options.grid:
        return None
    from sdrt.images.contact_sheet import MAX_IMAGES

    if len(pictures) > MAX_IMAGES:
        raise RequestError(
            f"--grid with {len(pictures)} pictures: expected at most {MAX_IMAGES}; make several sheets"
        )
    seeds = [picture.seed for picture in pictures]
    each = _each(options)
    return Grid(
        path=plan_sheet_path(options.output, seeds, force=options.force),
        count=len(pictures),
        columns=each if 1 < each < len(pictures) else None,
    )


def _each(options: Options) -> int:
    return options.count or options.batch_size


def _label(prompt: str, seed: int, *, varied: bool, alone: bool) -> str:
    if not varied:
        return f"seed {seed}"
    # The sheet's font has Latin letters.
    legible = prompt.strip() and all(ord(letter) < 0x250 for letter in prompt)
    return prompt if alone and legible else f"{seed}: {prompt}"


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures that are denoised at once."""

    name: str
    """For the progress bar."""
    pictures: list[Picture]
    request: Request


def batches(pictures: list[Picture]) -> list[Batch]:
    """Groups of at most the batch's size, of equal settings and with seeds that count up.

    Made before a model is loaded: raises `RequestError` at once for what is wrong with any model.
    """
    files = _Files()
    found, start = [], 0
    while start < len(pictures):
        end = start + 1
        while end < len(pictures) and end - start < pictures[start].options.batch_size:
            first, following = pictures[start], pictures[end]
            if following.options is not first.options or following.seed != first.seed + end - start:
                break
            end += 1
        batch = pictures[start:end]
        last = f"-{end}" if len(batch) > 1 else ""
        name = f"picture {start + 1}{last} of {len(pictures)}"
        with batch[0].named():
            found.append(Batch(name=name, pictures=batch, request=_request(batch, files)))
        start = end
    return found


class _Files:
    """Pictures and masks, read once: files may change under a long run, or be pipes."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, str], Any] = {}

    def image(self, path: str | None) -> Any:
        """The picture in a file."""
        from sdrt.images.reading import read_images

        return self._once("image", path, read_images)

    def mask(self, path: str | None) -> Any:
        """The mask in a file."""
        from sdrt.images.reading import read_masks

        return self._once("mask_image", path, read_masks)

    def _once(self, name: str, path: str | None, read: Callable[[str, str], Any]) -> Any:
        if path is None:
            return None
        if (name, path) not in self._read:
            self._read[name, path] = read(name, path)
        return self._read[name, path]


def _request(batch: list[Picture], files: _Files) -> Request:
    from sdrt import Request

    settings = batch[0].options.settings
    return Request(
        **{row.name: settings[row.name] for row in settings_of(Request) if row.name in settings}
        | {
            "prompt": [picture.prompt for picture in batch],
            "negative_prompt": settings["negative_prompt"] or None,
            "seed": batch[0].seed,
            "image": files.image(settings["image"]),
            "mask_image": files.mask(settings["mask_image"]),
        }
    )


def seeds(pictures: list[Picture]) -> str:
    """The seeds for people."""
    first, last = min(picture.seed for picture in pictures), max(picture.seed for picture in pictures)
    return f"seed {first}" if first == last else f"seeds {first} to {last}"
