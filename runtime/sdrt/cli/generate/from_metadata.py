"""`--from`: the options that a picture's metadata tells, so that it can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.images.metadata import read_metadata
from sdrt.model_folder.embedded import embedded_names
from sdrt.request.bounds import MAX_SIZE
from sdrt.request.labels import settings_values
from sdrt.request.setting import Setting
from sdrt.request.table import TABLE, said

__all__ = ["options_of"]


# What made an image and is an option too, by a name that is the same.
_OPTIONS_OF_RUNS = ("model", "vae_tiling")
# Labels of other programs that are no obstacle.
_FOREIGN = {"Model hash", "Schedule type"}


def options_of(name: str, given: set[str], table: Sequence[Setting] = TABLE) -> dict[str, Any]:
    """Options, by the names of click's parameters, for what is not among those that were `given`.

    Raises:
        RequestError: the file tells nothing, something that is no setting, or of what cannot be made from it alone.
    """
    found = read_metadata(name)
    if not found.text:
        raise RequestError(
            f"--from {name}: does not say how it was made; expected a picture that sdrt made without --no-metadata"
        )
    _check_complete(name, found.settings, given, table)
    told: dict[str, Any] = {"negative_prompt": found.negative_prompt}
    if "prompts_file" not in given:
        told["prompts"] = (found.prompt,)
    told |= _options(name, found.settings, table)
    if "spacing" in given and "scheduler" in told:
        told["scheduler"] = _without_spacing(told["scheduler"])
    dropped = set(given)
    if given & {"num_inference_steps", "spacing", "timesteps", "sigmas"}:
        # They say which levels are visited in other words.
        dropped |= {"timesteps", "sigmas"}
    if "scheduler" in given:
        dropped.add("spacing")
    told = {option: value for option, value in told.items() if option not in dropped}
    largest = (
        round(max(told.get("width", 0), told.get("height", 0)) * min(told.get("hires_scale", 1.0), 16)) + 64
    )
    if largest > MAX_SIZE and "max_size" not in given:
        told["max_size"] = largest
    return told


def _options(name: str, texts: Mapping[str, str], table: Sequence[Setting]) -> dict[str, Any]:
    try:
        values = settings_values(texts, table)
    except RequestError as error:
        raise RequestError(f"--from {name}: {error}") from None
    options = {*_OPTIONS_OF_RUNS, *(row.name for row in table if row.option is not None)}
    told = {key: value for key, value in values.items() if key in options}
    if "size" in values and "outpaint" not in values:
        told["width"], told["height"] = values["size"]
    return told


def _without_spacing(scheduler: str) -> str:
    from sdrt.schedulers import SPACING_LABELS

    for label in SPACING_LABELS.values():
        scheduler = scheduler.removesuffix(f" {label}")
    return scheduler


def _check_complete(
    name: str, settings: Mapping[str, str], given: set[str], table: Sequence[Setting]
) -> None:
    model = settings.get("Model")
    if "model" not in given and model not in (None, *embedded_names()):
        raise RequestError(f"--from {name}: was made by the model {brief(model)}: say where it is with -m")
    from_text = "Hires upscale" in settings
    if "image" not in given and not from_text and any(label in settings for label in _of_images(table)):
        raise RequestError(f"--from {name}: was made from a picture: give it with -i")
    if "mask_image" not in given and "Mask blur" in settings and "Outpaint" not in settings:
        raise RequestError(f"--from {name}: was made with a mask: give it with --mask")
    if "Embeddings" in settings and "embeddings" not in given:
        raise RequestError(
            f"--from {name}: was made with {brief(settings['Embeddings'])}: give the files with --embedding"
        )
    if "Scheduler config" in settings and "scheduler" not in given:
        raise RequestError(
            f"--from {name}: was made with {brief(settings['Scheduler config'])}: give the file with --scheduler"
        )
    if settings.get("RNG") != "CPU":
        told = f"its RNG is {brief(settings['RNG'])}" if "RNG" in settings else "it names no RNG"
        raise RequestError(
            f"--from {name}: was made with noise that is not drawn here ({told}, expected CPU): give the options "
            "themselves for one like it"
        )
    known = {row.label.name for row in said(table) if row.label} | _FOREIGN
    if other := [label for label in settings if label not in known]:
        raise RequestError(
            f"--from {name}: says {brief(other[0])}, which is of another program: give the options themselves for a "
            "picture like it"
        )


def _of_images(table: Sequence[Setting]) -> list[str]:
    """The labels that only an image that was made from another has."""
    return [row.label.name for row in table if row.label and row.only_with == ("image",)]
