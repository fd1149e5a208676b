"""Previews of a batch while it is made, in the terminal and in a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sdrt.cli.generate.jobs import Options
from sdrt.cli.generate.terminal import Steps, Terminal
from sdrt.cli.spellings import in_options
from sdrt.errors import SdrtError
from sdrt.images.files import write_image

if TYPE_CHECKING:
    from sdrt.pipeline import StableDiffusionPipeline
    from sdrt.run.result import GenerationStep

__all__ = ["Previews"]

_MAX_PREVIEWS = 8  # images of a batch
_PREVIEW_SIDE = 2048  # pixels of the longer side, which every file format can hold


class Previews:
    """Shows previews if the options ask for them. `path` is the file for them, or None.

    Raises:
        UnsupportedModelError: the model cannot make previews.
    """

    def __init__(self, options: Options, pipeline: StableDiffusionPipeline, path: Path | None) -> None:
        self._options, self._pipeline, self._path = options, pipeline, path
        self._are_asked_for = options.preview or options.preview_file is not None
        self._has_failed = False
        if self._are_asked_for:
            pipeline.preview  # noqa: B018 - raises now if the model cannot make previews

    def after(self, step: GenerationStep, steps: Steps, terminal: Terminal) -> None:
        """Show the images of a batch after a step, if it is the turn of one.

        If that fails, tell the user once, because the images themselves are fine.
        """
        is_due = step.last or (step.index + 1) % self._options.preview_every == 0
        if not (self._are_asked_for and is_due):
            return
        try:
            self._show(step.denoised, steps)
        except SdrtError as error:
            if not self._has_failed:
                self._has_failed = True
                terminal.notice(f"warning: no preview: {in_options(error)}")

    def _show(self, denoised: Any, steps: Steps) -> None:
        """Show the images of a batch side by side."""
        from sdrt.images.arrays import side_by_side

        preview = side_by_side(self._pipeline.preview(denoised[:_MAX_PREVIEWS]))
        preview.thumbnail((_PREVIEW_SIDE, _PREVIEW_SIDE))
        if self._options.preview:
            steps.show(preview)
        if self._path is not None:
            write_image(self._path, preview, None, force=True)
