"""`--from`: read options from the metadata of an image, so that it can be made again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sdrt.common.messages import brief
from sdrt.errors import RequestError
from sdrt.images.metadata import read_metadata
from sdrt.model_folder.embedded import embedded_names
from sdrt.request.bounds import MAX_SIZE
from sdrt.request.labels import settings_values
from sdrt.request.setting import Setting
from sdrt.request.table import TABLE, labelled_settings

__all__ = ["options_of"]


# Options that are not settings. The metadata has them under the same name.
_OTHER_OPTIONS = ("model", "vae_tiling")
# Labels of other programs that do not prevent making the image again.
_HARMLESS_LABELS = {"Model hash"}


def options_of(name: str, given: set[str], table: Sequence[Setting] = TABLE) -> dict[str, Any]:
    """Read the options of an image's metadata that are not in `given`, the names of the options that the user gave.

    Options have the names of click's parameters.

    Raises:
        RequestError: the file has no metadata, the metadata contains an unknown setting, or the image cannot be made
            from its metadata alone.
    """
    metadata = read_metadata(name)
    if not metadata.text:
        raise RequestError.expected(
            f"--from {name} does not say how it was made",
            "an image that sdrt made without --no-metadata",
            argument="--from",
            path=Path(name),
        )
    _check_complete(name, metadata.settings, given, table)
    options: dict[str, Any] = {"negative_prompt": metadata.negative_prompt}
    if "prompts_file" not in given:
        options["prompts"] = (metadata.prompt,)
    options |= _options(name, metadata.settings, table)
    if "spacing" in given and "scheduler" in options:
        options["scheduler"] = _without_spacing(options["scheduler"])
    dropped = set(given)
    if given & {"num_inference_steps", "spacing", "timesteps", "sigmas"}:
        # Each of these options decides which noise levels the steps visit, so it replaces those of the metadata.
        dropped |= {"timesteps", "sigmas"}
    if "scheduler" in given:
        dropped.add("spacing")
    options = {option: value for option, value in options.items() if option not in dropped}
    largest_side = max(options.get("width", 0), options.get("height", 0))
    max_size = round(largest_side * min(options.get("hires_scale", 1.0), 16)) + 64
    if max_size > MAX_SIZE and "max_size" not in given:
        options["max_size"] = max_size
    return options


def _options(name: str, texts: Mapping[str, str], table: Sequence[Setting]) -> dict[str, Any]:
    try:
        values = settings_values(texts, table)
    except RequestError as error:
        raise RequestError(
            f"--from {name}: {error}", argument="--from", path=Path(name), fits=error.fits
        ) from None
    names = {*_OTHER_OPTIONS, *(row.name for row in table if row.option is not None)}
    options = {key: value for key, value in values.items() if key in names}
    if "size" in values and "outpaint" not in values:
        options["width"], options["height"] = values["size"]
    return options


def _without_spacing(scheduler: str) -> str:
    from sdrt.schedulers import split_name

    sampler, _ = split_name(scheduler)
    return scheduler if sampler is None else sampler.display_name


def _check_complete(
    name: str, settings: Mapping[str, str], given: set[str], table: Sequence[Setting]
) -> None:
    model = settings.get("Model")
    if "model" not in given and model not in (None, *embedded_names()):
        raise _unusable(
            name, f"the image was made by the model {brief(model)}", "give the model with -m", "model"
        )
    from_text = "Hires upscale" in settings
    if "image" not in given and not from_text and any(label in settings for label in _image_labels(table)):
        raise _unusable(name, "the image was made from another image", "give that one with -i", "image")
    if "mask_image" not in given and "Mask blur" in settings and "Outpaint" not in settings:
        raise _unusable(name, "the image was made with a mask", "give the mask with --mask", "mask_image")
    if "Embeddings" in settings and "embeddings" not in given:
        raise _unusable(
            name,
            f"the image was made with {brief(settings['Embeddings'])}",
            "give the files with --embedding",
            "--embedding",
        )
    if "Scheduler config" in settings and "scheduler" not in given:
        raise _unusable(
            name,
            f"the image was made with {brief(settings['Scheduler config'])}",
            "give the file with --scheduler",
            "scheduler",
        )
    if settings.get("RNG") != "CPU":
        found = f"its RNG is {brief(settings['RNG'])}" if "RNG" in settings else "it names no RNG"
        raise _unusable(
            name,
            f"the image was made with noise that sdrt cannot draw ({found}, expected CPU)",
            "to make a similar image, give its prompt and options without --from",
        )
    known = {row.label.name for row in labelled_settings(table) if row.label} | _HARMLESS_LABELS
    if other := [label for label in settings if label not in known]:
        raise _unusable(
            name,
            f"the image has the setting {brief(other[0])} of another program",
            "to make a similar image, give its prompt and options without --from",
        )


def _image_labels(table: Sequence[Setting]) -> list[str]:
    """The labels that only images made from another image have."""
    return [row.label.name for row in table if row.label and row.only_with == ("image",)]


def _unusable(name: str, problem: str, remedy: str, argument: str = "--from") -> RequestError:
    """The error for an image that cannot be made from its metadata, unless `argument` is given otherwise."""
    return RequestError.advised(
        f"--from {name}: {problem}", remedy, joint="; ", argument=argument, path=Path(name)
    )
