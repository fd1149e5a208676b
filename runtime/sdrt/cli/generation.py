"""What `sdrt generate` does: plan the files, load the model, denoise in batches, write, report."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from sdrt.errors import SdrtError
from sdrt.progress import export_reporter

from .outputs import format_of, write_atomically
from .planning import Grid, Options, Picture, arguments, batches, plan, plan_grid, request, seeds
from .terminal import Steps, Terminal

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdrt import StableDiffusionPipeline, StableDiffusionPipelineOutput
    from sdrt.schedulers import Scheduler
    from sdrt.sheet import ContactSheet

__all__ = ["run"]


@dataclass(kw_only=True)
class Timings:
    """Seconds spent, summed over batches; `unet` has one value per call of it."""

    load: float = 0.0
    text_encoder: float = 0.0
    unet: list[float] = field(default_factory=list)
    vae_decoder: float = 0.0
    total: float = 0.0

    def add(self, timings: Mapping[str, Any]) -> None:
        """Add one call of the pipeline."""
        self.text_encoder += timings["text_encoder"]
        self.unet += timings["unet"]
        self.vae_decoder += timings["vae_decoder"]


def run(options: Options) -> None:
    """Make every picture that the options ask for; names go to stdout, or one JSON object."""
    from sdrt.limits import Limits

    started = time.perf_counter()
    pictures = plan(options)
    grid = plan_grid(options, pictures)
    requests = [request(options, batch) for _, batch in batches(pictures, options.batch_size)]
    terminal = Terminal(quiet=options.quiet)
    with _open(options, terminal) as pipeline:
        requests[0].fit(Limits.of(pipeline.model))
        job = Job(options, pipeline, grid)
        terminal.notice(f"{seeds(pictures)}; loading {pipeline.model.name} on {pipeline.provider}")
        pipeline.load()
        job.timings.load = time.perf_counter() - started
        try:
            job.make(pictures, terminal)
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
            threads=options.threads,
            revision=options.revision,
            allow_fallback=options.allow_fallback,
            notify=terminal.notice,
            reporter=export_reporter(board),
        )


class Job:
    """The options, the loaded model, and what making the pictures told about them."""

    def __init__(self, options: Options, pipeline: StableDiffusionPipeline, grid: Grid | None) -> None:
        self.options, self.pipeline, self.grid = options, pipeline, grid
        self.scheduler: Scheduler = pipeline.scheduler_for(options.scheduler, options.spacing)
        self.calls = len(self.scheduler.plan(options.steps).timesteps)
        self.timings = Timings()
        self.made: list[Picture] = []
        self.size = (0, 0)
        self.sheet: ContactSheet | None = None
        self.sheet_parameters = ""
        self.sheet_path: Path | None = None

    def make(self, pictures: list[Picture], terminal: Terminal) -> None:
        """Denoise batch by batch; a picture is written as soon as it is there."""
        groups = list(batches(pictures, self.options.batch_size))
        try:
            with terminal.steps(len(groups), self.calls) as steps:
                for name, batch in groups:
                    steps.describe(name)
                    output = self._denoise(batch, steps)
                    self.timings.add(output.timings)
                    for picture, image in zip(batch, output.images, strict=True):
                        self._save(picture, image)
                        if not self.options.as_json:
                            terminal.result(picture.path)
        except BaseException:
            # A sheet of what there is; the error that is told is the one that ended the run.
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

    def _denoise(self, batch: list[Picture], steps: Steps) -> StableDiffusionPipelineOutput:
        def on_step_end(*_: object) -> dict[str, Any]:
            steps.advance()
            return {}

        return self.pipeline(
            **arguments(self.options, batch), callback_on_step_end=on_step_end, scheduler=self.scheduler
        )

    def _save(self, picture: Picture, image: Image) -> None:
        parameters = self._parameters(picture, image)
        self._write(picture.path, image, parameters)
        self.made.append(picture)
        self.size = image.size
        if self.grid is not None:
            self._add_to_sheet(self.grid, picture, image, parameters)

    def _write(self, path: Path, image: Image, parameters: str) -> None:
        target = format_of(path)
        extra: dict[str, Any] = dict(target.options)
        if not self.options.no_metadata:
            from sdrt.metadata import save_options

            extra |= save_options(target.name, parameters)

        def write(file: BinaryIO) -> None:
            image.save(file, format=target.name, **extra)

        write_atomically(path, write, force=self.options.force)

    def _add_to_sheet(self, grid: Grid, picture: Picture, image: Image, parameters: str) -> None:
        """The sheet says how its first picture was made, as A1111's does."""
        from sdrt.sheet import ContactSheet

        if self.sheet is None:
            width, height = image.size
            self.sheet = ContactSheet(count=grid.count, width=width, height=height, columns=grid.columns)
            self.sheet_parameters = parameters
        self.sheet.add(image, picture.label)

    def _parameters(self, picture: Picture, image: Image) -> str:
        from sdrt import __version__
        from sdrt.metadata import Parameters

        options = self.options
        # A1111's names in A1111's order; the name of a sampler there includes "Karras".
        settings = {
            "Steps": options.steps,
            "Sampler": self.scheduler.display_name,
            "CFG scale": options.guidance_scale,
            "Seed": picture.seed,
            "Size": f"{image.width}x{image.height}",
            "Model": self.pipeline.model.name,
            # A1111 counts the last layer as 1, diffusers as 0.
            "Clip skip": options.clip_skip + 1 if options.clip_skip else None,
            "RNG": "CPU",
            "Eta": options.eta if self.scheduler.reads_eta and options.eta else None,
            "Spacing": self._spacing(),
            "Version": f"sdrt {__version__}",
        }
        present = {name: str(value) for name, value in settings.items() if value is not None}
        return str(
            Parameters(prompt=picture.prompt, negative_prompt=options.negative_prompt, settings=present)
        )

    def _spacing(self) -> str | None:
        """The spacing, where the sampler's name alone would give another."""
        spacing, usual = self.scheduler.spacing, self.pipeline.scheduler_for(self.scheduler.name).spacing
        return None if spacing in ("karras", usual) else spacing

    def report(self) -> dict[str, Any]:
        """What was made and how, for `--json`. Seconds in `timings`."""
        from sdrt import __version__

        width, height = self.size
        asked = ("negative_prompt", "steps", "guidance_scale", "eta", "clip_skip", "batch_size")
        return {
            "version": __version__,
            "model": self.pipeline.model.name,
            "provider": self.pipeline.provider,
            "files": [str(picture.path) for picture in self.made],
            "grid": str(self.sheet_path) if self.sheet_path else None,
            "prompts": [picture.prompt for picture in self.made],
            "seeds": [picture.seed for picture in self.made],
            "settings": {name: getattr(self.options, name) for name in asked}
            | {"scheduler": self.scheduler.name, "spacing": self.scheduler.spacing}
            | {"width": width, "height": height},
            "timings": vars(self.timings),
        }
