"""Run `sdrt generate` and `sdrt plot`: plan the files, load the model, denoise batches, write images, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.cli.echo import echo_json
from sdrt.cli.generate.batches import Batch, batches
from sdrt.cli.generate.control_preview import check_controls
from sdrt.cli.generate.jobs import (
    Grid,
    ImageJob,
    Options,
    describe_seeds,
    plan,
    plan_grid,
    plan_plot,
    plan_preview_path,
)
from sdrt.cli.generate.previews import Previews
from sdrt.cli.generate.streams import STDOUT, write_stdout
from sdrt.cli.generate.terminal import Steps, Terminal
from sdrt.cli.generate.timings import Timings
from sdrt.cli.generate.variations import Axis, image_settings
from sdrt.cli.spellings import in_options, naming_options
from sdrt.common.notices import Notify
from sdrt.common.progress import export_reporter
from sdrt.errors import RequestError, SdrtError
from sdrt.images.files import write_image
from sdrt.request.loras import lora_texts

if TYPE_CHECKING:
    from PIL.Image import Image

    from sdrt.images.contact_sheet import ContactSheet
    from sdrt.pipeline import StableDiffusionPipeline
    from sdrt.run.planned import PlannedRequest
    from sdrt.run.result import StableDiffusionPipelineOutput
    from sdrt.schedulers import Scheduler

__all__ = ["run", "run_plot"]


def run(options: Options) -> None:
    """Make the images of `sdrt generate`. Prints their file names on stdout, or one JSON object."""
    jobs = plan(options)
    _run(options, jobs, plan_grid(options, jobs))


def run_plot(options: Options, axes: Sequence[Axis]) -> None:
    """Make the sheet of `sdrt plot`. Prints its file name on stdout, or one JSON object."""
    jobs, grid = plan_plot(options, axes)
    _run(options, jobs, grid, sheet_only=True)


def _run(options: Options, jobs: list[ImageJob], grid: Grid | None, *, sheet_only: bool = False) -> None:
    started = time.perf_counter()
    if options.as_json and options.output == str(STDOUT):
        raise RequestError.expected(
            "-o - and --json both write to standard output", "one of them", argument="-o"
        )
    preview_path = plan_preview_path(options, [job.path for job in jobs])
    groups = batches(jobs)
    terminal = Terminal(quiet=options.quiet)
    for notice in options.notices:
        terminal.notice(notice)
    # The safety checker of a hub model is a large download.
    checks = any(job.options.settings["safety_checker"] for batch in groups for job in batch.jobs)
    with _open(options, terminal, checks=checks) as pipeline:
        words = [word for path in options.embeddings for word in pipeline.load_textual_inversion(path)]
        if words:
            terminal.notice(f"textual inversions: {', '.join(words)}")
        if options.preview and not terminal.draws_images:
            terminal.notice(
                "--preview: cannot show images, because stderr is not a terminal with colours; "
                "--preview-file writes them to a file"
            )
        current = Run(options, pipeline, grid, groups, sheet_only=sheet_only, preview_path=preview_path)
        check_controls(options, jobs, current.setup(jobs[0]).planned)
        terminal.notice(f"{describe_seeds(jobs)}; loading {pipeline.model.name} on {pipeline.provider}")
        pipeline.load(current.setup(groups[0].jobs[0]).planned)
        current.timings.load = time.perf_counter() - started
        try:
            current.make(terminal)
        finally:
            # After an error too: the report names the images that are finished.
            current.timings.total = time.perf_counter() - started
            if options.as_json and current.finished:
                echo_json(current.report())


def _open(options: Options, terminal: Terminal, *, checks: bool) -> StableDiffusionPipeline:
    from sdrt.pipeline import StableDiffusionPipeline

    with terminal.board() as board:
        return StableDiffusionPipeline.from_pretrained(
            options.model,
            vae=options.vae,
            text_encoders=options.text_encoders,
            controlnet=options.controlnet,
            ip_adapter=options.ip_adapter,
            image_encoder=options.image_encoder,
            prediction_type=options.prediction_type,
            config=options.config,
            provider=options.provider,
            provider_options=options.provider_options,
            provider_library=options.provider_library,
            threads=options.threads,
            revision=options.revision,
            allow_fallback=options.allow_fallback,
            vae_tiling=options.vae_tiling,
            low_vram=options.low_vram,
            tune=options.tune,
            safety_checker=checks or None,
            notify=_once(naming_options(terminal.notice)),
            reporter=export_reporter(board),
        )


def _once(notify: Notify) -> Notify:
    """Leave out messages that were sent before: every batch has the same tags and the same long prompt."""
    sent: set[str] = set()

    def send(message: str) -> None:
        if message not in sent:
            sent.add(message)
            notify(message)

    return send


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all images with the same options share, for the model that makes them."""

    options: Options
    scheduler: Scheduler
    batch: Batch
    """The first batch with these options."""
    planned: PlannedRequest
    """The request of that batch, with the model's defaults and its planned steps."""

    @classmethod
    def of(cls, pipeline: StableDiffusionPipeline, batch: Batch) -> Setup:
        """Plan a batch. Raises `RequestError` if the model cannot make it."""
        options = batch.jobs[0].options
        scheduler = pipeline.scheduler_for(options.settings["scheduler"], options.settings["spacing"])
        planned = pipeline.plan(batch.request, scheduler=scheduler)
        return cls(options=options, scheduler=scheduler, batch=batch, planned=planned)


class Run:
    """Makes all batches with a loaded model, and keeps what the report says about them."""

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
        # Plan every setup now, so that an error in the last line of a file is raised before any image is made.
        self.setups: dict[int, Setup] = {}
        for batch in batches:
            first = batch.jobs[0]
            if id(first.options) not in self.setups:
                with first.line.named_by_errors():
                    self.setups[id(first.options)] = Setup.of(pipeline, batch)
        self._check_loras()
        self.previews = Previews(options, pipeline, preview_path)
        self.timings = Timings()
        self.skipped_calls = 0
        self.finished: list[ImageJob] = []
        self.flagged: list[bool | None] = []
        self.size = (0, 0)
        self.sheet: ContactSheet | None = None
        self.sheet_parameters = ""
        self.sheet_path: Path | None = None

    def _check_loras(self) -> None:
        """Find the LoRAs of every prompt now, so that a missing one is named before any image is made."""
        checked = set()
        for batch in self.batches:
            first = batch.jobs[0]
            key = (id(first.options), lora_texts(first.prompt))
            if key[1] and key not in checked:
                checked.add(key)
                with first.line.named_by_errors():
                    self._planned(batch)

    def setup(self, job: ImageJob) -> Setup:
        """The setup that `job` shares with other images."""
        return self.setups[id(job.options)]

    def make(self, terminal: Terminal) -> None:
        """Denoise one batch after the other. Each image is written as soon as it is finished."""
        try:
            counts = [self.setup(batch.jobs[0]).planned.num_evaluations for batch in self.batches]
            known = [count for count in counts if count is not None]
            with terminal.steps(sum(known) if len(known) == len(counts) else None) as steps:
                for batch, count in zip(self.batches, counts, strict=True):
                    steps.begin(batch.name, count)
                    output = self._denoise(batch, steps, terminal)
                    self.timings.add(output.timings)
                    self.skipped_calls += output.skipped_calls
                    for index, job in enumerate(batch.jobs):
                        self._save(job, output, index)
                        if not self.options.as_json and not self.sheet_only and job.path != STDOUT:
                            terminal.result(job.path)
        except BaseException:  # Ctrl-C too
            # Write a sheet of the finished images, but do not replace a complete sheet by it. An error while writing
            # becomes a notice, because the user needs to see the error that ended the run.
            if self.grid is not None and self.sheet is not None and self.grid.path.exists():
                terminal.notice(f"no contact sheet: {self.grid.path} was not overwritten")
                raise
            try:
                self._write_sheet(terminal)
            except SdrtError as error:
                terminal.notice(f"no contact sheet: {in_options(error)}")
            raise
        self._write_sheet(terminal)

    def _write_sheet(self, terminal: Terminal) -> None:
        if self.grid is None or self.sheet is None:
            return
        self._write(self.grid.path, self.sheet.render(), self.sheet_parameters)
        self.sheet_path = self.grid.path
        if not self.options.as_json and self.grid.path != STDOUT:
            terminal.result(self.grid.path)

    def _denoise(self, batch: Batch, steps: Steps, terminal: Terminal) -> StableDiffusionPipelineOutput:
        from sdrt.run.result import StableDiffusionPipelineOutput

        for event in self.pipeline.stream(self._planned(batch)):
            if isinstance(event, StableDiffusionPipelineOutput):
                return event
            steps.advance()
            self.previews.after(event, steps, terminal)
        raise AssertionError("a stream ends with its result")

    def _planned(self, batch: Batch) -> PlannedRequest:
        """The planned request of a batch. The first batch of each setup is planned already."""
        setup = self.setup(batch.jobs[0])
        if batch is setup.batch:
            return setup.planned
        return self.pipeline.plan(batch.request, scheduler=setup.scheduler)

    def _save(self, job: ImageJob, output: StableDiffusionPipelineOutput, index: int) -> None:
        image: Image = output.images[index]
        metadata = output.metadata(index, batch_size=self.setup(job).options.batch_size)
        parameters = str(job.texts.labelled(metadata))
        if not self.sheet_only:
            self._write(job.path, image, parameters)
        self.finished.append(job)
        self.flagged.append(
            None if output.nsfw_content_detected is None else output.nsfw_content_detected[index]
        )
        self.size = image.size
        if self.grid is not None:
            self._add_to_sheet(self.grid, job, image, parameters)

    def _write(self, path: Path, image: Image, parameters: str) -> None:
        text = None if self.options.no_metadata else parameters
        if path == STDOUT:
            write_stdout(image, text)
            return
        write_image(path, image, text, force=self.options.force)

    def _add_to_sheet(self, grid: Grid, job: ImageJob, image: Image, parameters: str) -> None:
        """Add an image to the sheet. The sheet gets the metadata of its first image, as in A1111."""
        from sdrt.images.contact_sheet import ContactSheet

        if self.sheet is None:
            width, height = image.size
            self.sheet = ContactSheet(count=grid.count, width=width, height=height, columns=grid.columns)
            self.sheet_parameters = parameters
        self.sheet.add(image, job.label)

    def report(self) -> dict[str, Any]:
        """What `--json` prints: the files, their settings, and the timings in seconds."""
        from sdrt.common.version import __version__

        width, height = self.size
        common = self.setup(self.finished[0])
        return {
            "version": __version__,
            "model": self.pipeline.model.name,
            "provider": self.pipeline.provider,
            "provider_options": dict(self.options.provider_options),
            "files": [] if self.sheet_only else [str(job.path) for job in self.finished],
            "grid": str(self.sheet_path) if self.sheet_path else None,
            "prompts": [job.prompt for job in self.finished],
            "negative_prompts": [job.texts.made["negative_prompt"] or "" for job in self.finished],
            # None stands for a text that was not given, which differs from an empty one.
            "prompts_2": [job.texts.made["prompt_2"] for job in self.finished],
            "negative_prompts_2": [job.texts.made["negative_prompt_2"] for job in self.finished],
            "seeds": [job.seed for job in self.finished],
            # None for an image that no safety checker has seen.
            "nsfw_content_detected": self.flagged,
            # "settings" are those of the first image. "own_settings" has the differences of each image from them.
            "settings": self._settings(common) | {"width": width, "height": height},
            "own_settings": [self._differences(self.setup(job), common) for job in self.finished],
            "timings": vars(self.timings),
            "skipped_calls": self.skipped_calls,
        }

    def _settings(self, setup: Setup) -> dict[str, Any]:
        left_out = ("prompt", "seed", "width", "height")
        rows = [row for row in image_settings() if row.name not in left_out]
        values = dict(setup.options.settings) | {
            "negative_prompt": setup.options.settings["negative_prompt"] or "",
            "guidance_scale": setup.planned.request.guidance_scale,
            "scheduler": setup.scheduler.name,
            "spacing": setup.scheduler.spacing,
        }
        reported = {row.key: values[row.name] for row in rows if not row.is_turned_off}
        # These appear under the names of their options, which turn them off.
        switches = {
            row.spelling[2:].replace("-", "_"): not values[row.name] for row in rows if row.is_turned_off
        }
        return reported | switches | {"batch_size": setup.options.batch_size}

    def _differences(self, setup: Setup, common: Setup) -> dict[str, Any]:
        usual = self._settings(common)
        return {name: value for name, value in self._settings(setup).items() if value != usual[name]}
