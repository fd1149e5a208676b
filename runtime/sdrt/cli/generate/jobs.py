"""Turn the command line into image jobs and output files. `batches` makes requests of them.

Everything that can be checked without a model is checked here, before any work begins.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.cli.generate.lines import NO_LINE, Line
from sdrt.cli.generate.outputs import check_capacity, plan_paths, plan_sheet_path
from sdrt.cli.generate.texts import Texts
from sdrt.cli.generate.variations import Axis, Entry, read_prompts_file
from sdrt.common.messages import refused
from sdrt.common.seeds import seeds_from, settled_seed
from sdrt.errors import RequestError
from sdrt.request.table import TABLE

if TYPE_CHECKING:
    from sdrt.prompts.wildcard_files import WildcardFiles

__all__ = [
    "Grid",
    "ImageJob",
    "Options",
    "describe_seeds",
    "plan",
    "plan_grid",
    "plan_plot",
    "plan_preview_path",
    "plan_side_file",
]

_MOST_SEEDS = 8
"""How many seeds that do not count up are listed."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """The parsed command line.

    `None` stands for a default that depends on the model or on other options.
    """

    prompts: tuple[str, ...]
    prompts_file: str | None
    settings: Mapping[str, Any]
    """The settings that may differ from image to image. The keys are the names in the table of settings."""
    literal: Set[str] = frozenset()
    """The texts whose wildcards stay as they are, because the text in an image's metadata is complete."""
    model: str
    vae: str | None = None
    text_encoders: tuple[str, ...] = ()
    prediction_type: str | None = None
    config: str | None = None
    controlnet: tuple[str, ...] = ()
    ip_adapter: tuple[str, ...] = ()
    image_encoder: str | None = None
    embeddings: tuple[str, ...]
    wildcards: str | None
    batch_size: int
    count: int | None
    output: str | None
    grid: bool
    force: bool
    no_metadata: bool
    provider: str
    provider_options: Mapping[str, str]
    provider_library: str | None = None
    allow_fallback: bool
    vae_tiling: bool | None
    low_vram: bool | None
    tune: bool | None = None
    threads: int | None
    revision: str | None
    preview: bool = False
    preview_file: str | None = None
    preview_every: int = 5
    control_preview: str | None = None
    as_json: bool
    quiet: bool
    notices: tuple[str, ...] = ()
    """What to tell the user before the first image."""

    @classmethod
    def from_parameters(cls, given: Mapping[str, Any]) -> Options:
        """Make the options from click's parameters. `given` maps the name of each parameter to its value."""
        settings = {row.name: given[row.name] for row in TABLE if row.name in given}
        return cls(settings=settings, **{name: given[name] for name in given if name not in settings})

    def wildcard_files(self) -> WildcardFiles | None:
        """The files of `--wildcards`. Raises `RequestError` if it is not a folder."""
        from sdrt.prompts.wildcard_files import WildcardFiles

        return None if self.wildcards is None else WildcardFiles(self.wildcards)

    def with_settings(self, settings: Mapping[str, Any]) -> Options:
        """Return these options with `settings` changed."""
        return replace(self, settings={**self.settings, **settings}) if settings else self


@dataclass(frozen=True, kw_only=True)
class ImageJob:
    """One image to make: its texts, its seed, its file and its options."""

    texts: Texts
    seed: int
    path: Path
    options: Options
    label: str
    """The text under the image on a contact sheet, which distinguishes it from the other images."""
    line: Line = NO_LINE
    """The line of a prompts file that describes this image, if there is one."""

    @property
    def prompt(self) -> str:
        """The prompt, after all choices."""
        return self.texts.prompt


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A contact sheet to make."""

    path: Path
    count: int
    """How many images it shows."""
    columns: int | None
    """How many images stand in a row. None makes about as many rows as columns."""


def plan(options: Options) -> list[ImageJob]:
    """Plan `count` images of every prompt. Seeds count up, and every image has a file that can be written."""
    entries = [(entry, options.with_settings(entry.settings)) for entry in _entries(options)]
    count = _images_per_prompt(options)
    seeds = _seeds(options, [entry for entry, _ in entries])
    paths = plan_paths(options.output, seeds, force=options.force)
    varied, uses = len(entries) > 1, Counter(entry.prompt for entry, _ in entries)
    repeated = [(entry, own) for entry, own in entries for _ in range(count)]
    files = options.wildcard_files()
    jobs = []
    for (entry, own), seed, path in zip(repeated, seeds, paths, strict=True):
        settings = own.settings
        with entry.line.named_by_errors():
            texts = Texts.of(
                entry.prompt, settings, seed, files, literal=options.literal - entry.settings.keys()
            )
            text = 0 if options.no_metadata else texts.length
            check_capacity(path, sides=(settings["width"], settings["height"]), text=text)
        alone = count == uses[entry.prompt] == 1
        label = _label(texts, seed, varied=varied, alone=alone)
        job = ImageJob(texts=texts, seed=seed, path=path, options=own, label=label, line=entry.line)
        jobs.append(job)
    return jobs


def _entries(options: Options) -> list[Entry]:
    if options.prompts_file is None:
        return [Entry(prompt=prompt, settings={}) for prompt in options.prompts]
    return read_prompts_file(options.prompts_file)


def _seeds(options: Options, entries: Sequence[Entry]) -> list[int]:
    """One seed for every image.

    An entry's own seed counts up over the images of that entry. All other images share one sequence of seeds.
    """
    count = _images_per_prompt(options)
    shared = iter(seeds_from(settled_seed("seed", options.settings["seed"]), len(entries) * count))
    seeds: list[int] = []
    for entry in entries:
        if "seed" in entry.settings:
            with entry.line.named_by_errors():
                seeds += seeds_from(settled_seed("seed", entry.settings["seed"]), count)
        else:
            seeds += itertools.islice(shared, count)
    return seeds


def plan_plot(options: Options, axes: Sequence[Axis]) -> tuple[list[ImageJob], Grid]:
    """Plan an image for every combination of the axes' values, and the sheet that shows them.

    The first axis runs from left to right.
    """
    from sdrt.images.contact_sheet import MAX_IMAGES

    first = settled_seed("seed", options.settings["seed"])
    axes = [_with_settled_seeds(axis) for axis in axes]
    count = math.prod(len(axis.values) for axis in axes)
    if count > MAX_IMAGES:
        raise RequestError.expected(
            f"the plot has {count} images",
            f"at most {MAX_IMAGES}; give fewer values to -x, -y or -z",
            argument="-x",
        )
    path = plan_paths(options.output or "sdrt-plot-{seed}.png", [first], force=options.force)[0]
    files = options.wildcard_files()
    jobs = []
    for values in itertools.product(*(axis.values for axis in reversed(axes))):
        settings = {axis.name: value for axis, value in zip(reversed(axes), values, strict=True)}
        prompt = settings.pop("prompt", options.prompts[0])
        own = options.with_settings(settings)
        seed = settings.get("seed", first)
        texts = Texts.of(prompt, own.settings, seed, files)
        labels = [axis.label(value) for axis, value in zip(axes, reversed(values), strict=True)]
        label = ", ".join([*labels, *texts.choices])
        jobs.append(ImageJob(texts=texts, seed=seed, path=path, options=own, label=label))
    return jobs, Grid(path=path, count=count, columns=len(axes[0].values))


def _with_settled_seeds(axis: Axis) -> Axis:
    """The axis, with a random seed in place of each -1."""
    if axis.name != "seed":
        return axis
    return replace(axis, values=[settled_seed("seed", value) for value in axis.values])


def plan_preview_path(options: Options, image_paths: Sequence[Path]) -> Path | None:
    """The file for previews, or None without `--preview-file`.

    The file is checked as those of images are. It must not be one of `image_paths`.
    """
    return plan_side_file(options.preview_file, "--preview-file", options, image_paths)


def plan_side_file(
    name: str | None, spelling: str, options: Options, image_paths: Sequence[Path]
) -> Path | None:
    """The file that the option `spelling` names, or None without it. See `plan_preview_path`."""
    if name is None:
        return None
    (path,) = plan_paths(name, [0], force=options.force, option=spelling)
    if path.resolve() in {image_path.resolve() for image_path in image_paths}:
        raise RequestError.advised(
            f"{spelling} {path}: an image has this name too",
            "choose another name",
            joint="; ",
            argument=spelling,
            path=path,
        )
    return path


def plan_grid(options: Options, jobs: list[ImageJob]) -> Grid | None:
    """The contact sheet, or None without `--grid`. It has a row per prompt if each prompt has several images."""
    if not options.grid:
        return None
    from sdrt.images.contact_sheet import MAX_IMAGES

    if len(jobs) > MAX_IMAGES:
        raise refused("--grid", f"with {len(jobs)} images", f"at most {MAX_IMAGES}; make several sheets")
    count = _images_per_prompt(options)
    return Grid(
        path=plan_sheet_path(options.output, [job.seed for job in jobs], force=options.force),
        count=len(jobs),
        columns=count if 1 < count < len(jobs) else None,
    )


def _images_per_prompt(options: Options) -> int:
    return options.count or options.batch_size


def _label(texts: Texts, seed: int, *, varied: bool, alone: bool) -> str:
    """The text under an image. What was chosen comes first, because a long prompt is cut."""
    chosen = ", ".join(texts.choices)
    if not varied:
        return f"seed {seed}: {chosen}" if chosen else f"seed {seed}"
    prompt = f"{chosen}: {texts.prompt}" if chosen else texts.prompt
    # The font of the sheet has only Latin letters.
    legible = prompt.strip() and all(ord(letter) < 0x250 for letter in prompt)
    return prompt if alone and legible else f"{seed}: {prompt}"


def describe_seeds(jobs: list[ImageJob]) -> str:
    """The seeds in words: "seed 3", "seeds 3 to 5", or for seeds that do not count up "seeds 7, 3 and 5"."""
    seeds = list(dict.fromkeys(job.seed for job in jobs))
    first, last = seeds[0], seeds[-1]
    if len(seeds) == 1:
        return f"seed {first}"
    if all(after == before + 1 for before, after in itertools.pairwise(seeds)):
        return f"seeds {first} to {last}"
    if len(seeds) > _MOST_SEEDS:
        return f"{len(seeds)} seeds, {first} to {last}"
    return f"seeds {', '.join(map(str, seeds[:-1]))} and {last}"
