"""The command's own options for ControlNets: `--controlnet`, and `--control-preview`, which writes what they see."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sdrt.cli.generate.jobs import ImageJob, Options, plan_side_file
from sdrt.errors import RequestError

if TYPE_CHECKING:
    from sdrt.run.planned import PlannedRequest

__all__ = ["check_controls"]

_OPTION = "--control-preview"


def check_controls(options: Options, jobs: list[ImageJob], planned: PlannedRequest) -> None:
    """Check the command's own options for ControlNets and IP-Adapters, and write the preview.

    `planned` is the first request.

    Raises:
        RequestError: there is no control image, or the file cannot be written.
    """
    if options.controlnet and not any(job.options.settings["control_image"] for job in jobs):
        raise _needs_image("--controlnet")
    if options.ip_adapter and not any(job.options.settings["ip_adapter_image"] for job in jobs):
        raise _needs_image("--ip-adapter", "--ip-image")
    path = plan_side_file(options.control_preview, _OPTION, options, [job.path for job in jobs])
    if path is None:
        return
    if not planned.request.controls:
        raise _needs_image(_OPTION)
    _write_maps(path, planned, force=options.force)


def _needs_image(option: str, image: str = "--control-image") -> RequestError:
    return RequestError.advised(
        f"{option} has no effect without {image}",
        f"give {image}, or leave it out",
        joint="; ",
        argument=option,
    )


def _write_maps(path: Path, planned: PlannedRequest, *, force: bool) -> None:
    """Write the control images of the first image, side by side, as large as the ControlNets see them."""
    from PIL import Image

    from sdrt.images.arrays import side_by_side
    from sdrt.images.files import write_image
    from sdrt.run.controls import control_maps
    from sdrt.run.multi_pass import last_part
    from sdrt.run.preparation import canvases_of

    request = planned.request
    if request.outpaint is not None:
        request = last_part(request, planned.model.capabilities)
    canvases = [
        canvas
        for canvas in canvases_of(request, planned.model.capabilities)
        for _ in range(request.num_images_per_prompt)
    ]
    maps = [control_maps(control, request, canvases)[0] for control in request.controls]
    write_image(path, side_by_side([Image.fromarray(one) for one in maps]), None, force=force)
