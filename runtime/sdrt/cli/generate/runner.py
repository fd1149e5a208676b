"""What `sdrt generate` does: plan the files, load the model, denoise in batches, write, report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sdrt.cli.generate.jobs import (
    Batch,
    Grid,
    Options,
    Picture,
    batches,
    plan,
    plan_grid,
    plan_plot,
    plan_preview_path,
    seeds,
)
from sdrt.cli.generate.terminal import Steps, Terminal
from sdrt.cli.generate.variations import Axis, keys
from sdrt.common.progress import export_reporter
from sdrt.errors import SdrtError
from sdrt.images.files import write_image

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdrt import StableDiffusionPipeline, StableDiffusionPipelineOutput
    from sdrt.images.contact_sheet import ContactSheet
    from sdrt.run.planned import PlannedRequest
    from sdrt.schedulers import Scheduler

__all__ = ["run", "run_plot"]

# Pictures of a batch that a preview shows, and its longer side: what every format can hold.
_MOST_PREVIEWS, _PREVIEW_SIDE = 8, 2048


@dataclass(kw_only=True)
class Timings:
    """Seconds spent, summed over batches; `unet` has one value per call of it."""

    load: float = 0.0
    text_encoder: float = 0.0
    vae_encoder: float = 0.0
    unet: list[float] = field(default_factory=list)
    vae_decoder: float = 0.0
    total: float = 0.0

    def add(self, timings: Mapping[str, Any]) -> None:
        """Add one call of the pipeline."""
        self.text_encoder += timings["text_encoder"]
        self.vae_encoder += timings.get("vae_encoder", 0.0)
        self.unet += timings["unet"]
        self.vae_decoder += timings["vae_decoder"]


def run(options: Options) -> None:
    """Make every picture that the options ask for; names go to stdout, or one JSON object."""
    pictures = plan(options)
    _run(options, pictures, plan_grid(options, pictures))


def run_plot(options: Options, axes: Sequence[Axis]) -> None:
    """Make a picture for every combination of the axes' values, and one sheet of them; its name goes to stdout."""
    pictures, grid = plan_plot(options, axes)
    _run(options, pictures, grid, sheet_only=True)


def _run(options: Options, pictures: list[Picture], grid: Grid | None, *, sheet_only: bool = False) -> None:
    started = time.perf_counter()
    preview_path = plan_preview_path(options, [picture.path for picture in pictures])
    groups = batches(pictures)
    terminal = Terminal(quiet=options.quiet)
    with _open(options, terminal) as pipeline:
        words = [word for path in options.embeddings for word in pipeline.load_textual_inversion(path)]
        if words:
            terminal.notice(f"textual inversions: {', '.join(words)}")
        if options.preview and not terminal.draws_pictures:
            terminal.notice(
                "--preview: not drawn, as stderr is no terminal with colours; --preview-file writes it"
            )
        job = Job(options, pipeline, grid, groups, sheet_only=sheet_only, preview_path=preview_path)
        terminal.notice(f"{seeds(pictures)}; loading {pipeline.model.name} on {pipeline.provider}")
        pipeline.load()
        job.timings.load = time.perf_counter() - started
        try:
            job.make(terminal)
        finally:
            # Also when it ends early: the files that there are must have their names told.
            job.timings.total = time.perf_counter() - started
            if options.as_json and job.made:
                click.echo(json.dumps(job.report(), allow_nan=False))


def _open(options: Options, terminal: Terminal) -> StableDiffusionPipeline:
    from sdrt import StableDiffusionPipeline

    with terminal.board() as board:
        return StableDiffusionPipeline.from_pretrained(
            options.model,
            provider=options.provider,
            provider_options=options.provider_options,
            threads=options.threads,
            revision=options.revision,
            allow_fallback=options.allow_fallback,
            vae_tiling=options.vae_tiling,
            low_vram=options.low_vram,
            notify=terminal.notice,
            reporter=export_reporter(board),
        )


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the pictures of equal settings have in common, on the model that makes them."""

    options: Options
    scheduler: Scheduler
    batch: Batch
    """The first of them."""
    planned: PlannedRequest
    """The same, with the model's defaults and the steps that it takes."""

    @classmethod
    def of(cls, pipeline: StableDiffusionPipeline, batch: Batch) -> Setup:
        """Raises `RequestError` for what this model cannot do."""
        options = batch.pictures[0].options
        scheduler = pipeline.scheduler_for(options.settings["scheduler"], options.settings["spacing"])
        planned = pipeline.plan(batch.request, scheduler=scheduler)
        return cls(options=options, scheduler=scheduler, batch=batch, planned=planned)


class Job:
    """The options, the loaded model, and what making the pictures told about them."""

    def __init__(
        self,
        options: Options,
        pipeline: StableDiffusionPipeline,
        grid: Grid | None,
        batches: list[Batch],
        *,
        sheet_only: bool = False,
        preview_path: Path | None = None,
    ) -> None:
        self.options, self.pipeline, self.grid, self.batches = options, pipeline, grid, batches
        self.sheet_only = sheet_only
        # Every one, before any work: the last line of a file may ask for what there is not.
        self.setups: dict[int, Setup] = {}
        for batch in batches:
            first = batch.pictures[0]
            if id(first.options) not in self.setups:
                with first.named():
                    self.setups[id(first.options)] = Setup.of(pipeline, batch)
        self.watched = options.preview or options.preview_file is not None
        self.preview_path = preview_path
        if self.watched:
            pipeline.preview  # noqa: B018 - raises where the model has none, before any work
        self.timings = Timings()
        self.made: list[Picture] = []
        self.size = (0, 0)
        self.sheet: ContactSheet | None = None
        self.sheet_parameters = ""
        self.sheet_path: Path | None = None

    def setup(self, picture: Picture) -> Setup:
        """What this picture has in common with others."""
        return self.setups[id(picture.options)]

    def make(self, terminal: Terminal) -> None:
        """Denoise batch by batch; a picture is written as soon as it is there."""
        try:
            counts = [self.setup(batch.pictures[0]).planned.num_evaluations for batch in self.batches]
            with terminal.steps(sum(counts)) as steps:
                for batch, count in zip(self.batches, counts, strict=True):
                    steps.begin(batch.name, count)
                    output = self._denoise(batch, steps)
                    self.timings.add(output.timings)
                    for index, picture in enumerate(batch.pictures):
                        self._save(picture, output, index)
                        if not self.options.as_json and not self.sheet_only:
                            terminal.result(picture.path)
        except BaseException:
            # A sheet of what there is, but not in the place of one that was whole; the error that is told is the one
            # that ended the run.
            if self.grid is not None and self.sheet is not None and self.grid.path.exists():
                terminal.notice(f"no contact sheet: {self.grid.path} stays what it is")
                raise
            try:
                self._write_sheet(terminal)
            except SdrtError as error:
                terminal.notice(f"no contact sheet: {error}")
            raise
        self._write_sheet(terminal)

    def _write_sheet(self, terminal: Terminal) -> None:
        if self.grid is None or self.sheet is None:
            return
        self._write(self.grid.path, self.sheet.render(), self.sheet_parameters)
        self.sheet_path = self.grid.path
        if not self.options.as_json:
            terminal.result(self.grid.path)

    def _denoise(self, batch: Batch, steps: Steps) -> StableDiffusionPipelineOutput:
        from sdrt import StableDiffusionPipelineOutput

        for event in self.pipeline.stream(self._planned(batch)):
            if isinstance(event, StableDiffusionPipelineOutput):
                return event
            steps.advance()
            if self.watched and (event.last or (event.index + 1) % self.options.preview_every == 0):
                self._show(event.denoised, steps)
        raise AssertionError("a stream ends with its result")

    def _planned(self, batch: Batch) -> PlannedRequest:
        """The batch, fitted and planned once: the first of a setup when that was made, others when it is their turn."""
        setup = self.setup(batch.pictures[0])
        if batch is setup.batch:
            return setup.planned
        return self.pipeline.plan(batch.request, scheduler=setup.scheduler)

    def _show(self, denoised: Any, steps: Steps) -> None:
        """The batch side by side, in the terminal and in a file."""
        from sdrt.images.arrays import side_by_side

        picture = side_by_side(self.pipeline.preview(denoised[:_MOST_PREVIEWS]))
        picture.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
        if self.options.preview:
            steps.show(picture)
        if self.preview_path is not None:
            write_image(self.preview_path, picture, None, force=True)

    def _save(self, picture: Picture, output: StableDiffusionPipelineOutput, index: int) -> None:
        image: Image = output.images[index]
        parameters = str(output.metadata(index, batch_size=self.setup(picture).options.batch_size))
        if not self.sheet_only:
            self._write(picture.path, image, parameters)
        self.made.append(picture)
        self.size = image.size
        if self.grid is not None:
            self._add_to_sheet(self.grid, picture, image, parameters)

    def _write(self, path: Path, image: Image, parameters: str) -> None:
        text = None if self.options.no_metadata else parameters
        write_image(path, image, text, force=self.options.force)

    def _add_to_sheet(self, grid: Grid, picture: Picture, image: Image, parameters: str) -> None:
        """The sheet says how its first picture was made, as A1111's does."""
        from sdrt.images.contact_sheet import ContactSheet

        if self.sheet is None:
            width, height = image.size
            self.sheet = ContactSheet(count=grid.count, width=width, height=height, columns=grid.columns)
            self.sheet_parameters = parameters
        self.sheet.add(image, picture.label)

    def report(self) -> dict[str, Any]:
        """What was made and how, for `--json`. Seconds in `timings`."""
        from sdrt import __version__

        width, height = self.size
        common = self.setup(self.made[0])
        return {
            "version": __version__,
            "model": self.pipeline.model.name,
            "provider": self.pipeline.provider,
            "provider_options": dict(self.options.provider_options),
            "files": [] if self.sheet_only else [str(picture.path) for picture in self.made],
            "grid": str(self.sheet_path) if self.sheet_path else None,
            "prompts": [picture.prompt for picture in self.made],
            "seeds": [picture.seed for picture in self.made],
            # Of the first; what others have for themselves is beside.
            "settings": self._settings(common) | {"width": width, "height": height},
            "own_settings": [self._differences(self.setup(picture), common) for picture in self.made],
            "timings": vars(self.timings),
        }

    def _settings(self, setup: Setup) -> dict[str, Any]:
        left_out = ("prompt", "seed", "width", "height")
        rows = [row for row in keys() if row.name not in left_out]
        own = dict(setup.options.settings) | {
            "guidance_scale": setup.planned.request.guidance_scale,
            "scheduler": setup.scheduler.name,
            "spacing": setup.scheduler.spacing,
        }
        told = {row.key: own[row.name] for row in rows if row.kind is not bool}
        # A switch is told as its option is, which turns it off.
        switches = {row.spelling[2:].replace("-", "_"): not own[row.name] for row in rows if row.kind is bool}
        return told | switches | {"batch_size": setup.options.batch_size}

    def _differences(self, setup: Setup, common: Setup) -> dict[str, Any]:
        usual = self._settings(common)
        return {name: value for name, value in self._settings(setup).items() if value != usual[name]}
