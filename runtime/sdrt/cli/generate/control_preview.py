"""The command's own options for ControlNets: `--controlnet`, and `--control-preview`, which writes what they see."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sdrt.cli.generate.jobs import ImageJob, Options, plan_side_file
from sdrt.errors import RequestError

if TYPE_CHECKING:
    from sdrt.run.planned import PlannedRequest

__all__ = ["check_has_image", "write_control_preview"]

_OPTION = "--control-preview"


def check_has_image(options: Options, jobs: list[ImageJob]) -> None:
    """Raise `RequestError` for `--controlnet` if no image of the command has a control image."""
    if options.controlnet and not any(job.options.settings["control_image"] for job in jobs):
        raise RequestError.advised(
            "--controlnet has no effect without --control-image",
            "give the image that guides the model",
            joint="; ",
            argument="--control-image",
        )


def write_control_preview(options: Options, jobs: list[ImageJob], planned: PlannedRequest) -> None:
    """Write the control images of the first image, side by side, as large as the ControlNets see them.

    Raises:
        RequestError: there is no control image, or the file cannot be written.
    """
    from PIL import Image

    from sdrt.images.arrays import side_by_side
    from sdrt.images.files import write_image
    from sdrt.run.controls import control_maps
    from sdrt.run.preparation import canvases_of

    path = plan_side_file(options.control_preview, _OPTION, options, [job.path for job in jobs])
    if path is None:
        return
    request = planned.request
    if not request.controls:
        raise RequestError.advised(
            f"{_OPTION} has no effect without --control-image",
            "give --control-image, or leave it out",
            joint="; ",
            argument=_OPTION,
        )
    canvases = [
        canvas
        for canvas in canvases_of(request, planned.model.capabilities)
        for _ in range(request.num_images_per_prompt)
    ]
    maps = [control_maps(control, request, canvases)[0] for control in request.controls]
    write_image(path, side_by_side([Image.fromarray(one) for one in maps]), None, force=options.force)
