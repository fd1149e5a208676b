"""The settings of a job that would make an image again, from the image's file."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sdrt.errors import RequestError
from sdrt.images.decoding import Subject, format_of_content, opened
from sdrt.images.metadata import ImageMetadata, read_metadata
from sdrt.request.labels import settings_values
from sdrt.request.table import TABLE, labelled_settings
from sdrt.request.translated import Translation
from sdrt.request.translation import translate
from sdrt.schedulers import split_name
from sdrt.serve.errors import ServeError

__all__ = ["read_file"]

_HEAD = 1024
_MOST_SETTINGS = 1000
_FIELD = "file"
# Facts that change no pixel, and those of which a field of the job says the same.
_NO_DIFFERENCE = frozenset(
    {
        *("size", "schedule_type", "batch_size", "version", "nsfw_content_detected", "lora_hashes", "rng"),
        *("empty_negative_prompt", "wildcard_prompt", "wildcard_negative_prompt", "wildcard_prompt_2"),
        *("wildcard_negative_prompt_2", "ip_adapter_masked"),
    }
)


def read_file(
    data: bytes, *, fields: Collection[str], models: Collection[str], pixels: int
) -> dict[str, Any]:
    """How an image was made, as the file says it, and as the fields of a job that would make it again.

    Args:
        data: the file.
        fields: the fields that a job has.
        models: the models that it can name.
        pixels: the most pixels of an image.

    Raises:
        ServeError: it is no image or text, is too large, or does not say how it was made.
    """
    try:
        _check_pixels(data, pixels)
        metadata = read_metadata(data)
    except RequestError as error:
        raise ServeError(400, str(error), field=_FIELD) from None
    if not metadata.text:
        raise ServeError(400, "the file does not say how it was made", field=_FIELD, code="no_metadata")
    if len(metadata.settings) > _MOST_SETTINGS:
        raise ServeError(400, f"the file has more than {_MOST_SETTINGS} settings", field=_FIELD)
    request, differences = _job_of(metadata, fields, models)
    return {
        "format": metadata.format,
        "size": list(metadata.size) if any(metadata.size) else None,
        "program": metadata.program or None,
        "parameters": metadata.text,
        "settings": dict(metadata.settings),
        "request": request,
        "differences": [{"label": label, "value": value} for label, value in differences.items()],
    }


def _check_pixels(data: bytes, most: int) -> None:
    """Check the size, because the text may be hidden in pixels, which are then decoded."""
    if format_of_content(data[:_HEAD]) is None:
        return
    with opened(data, Subject(name="the file"), decodes=False) as image:
        width, height = image.size
    if width * height > most:
        raise ServeError(
            400, f"the image has {width}x{height} pixels: this server takes at most {most}", field=_FIELD
        )


def _job_of(
    metadata: ImageMetadata, fields: Collection[str], models: Collection[str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The fields of a job, and what it does not do as the file says, by its label."""
    found = translate(metadata.settings, TABLE, (metadata.prompt, metadata.negative_prompt))
    differences = {one.label: one.value for one in found.differences}
    values = _values(found, differences)
    labels = {row.name: row.label.name for row in labelled_settings() if row.label}
    request: dict[str, Any] = {"prompt": metadata.prompt}
    if metadata.negative_prompt or values.get("empty_negative_prompt"):
        request["negative_prompt"] = metadata.negative_prompt
    if "size" in values and "outpaint" not in values:
        request["width"], request["height"] = values["size"]
    for name, value in values.items():
        if _is_usable(name, value, fields, models):
            request[name] = list(value) if isinstance(value, tuple) else value
        elif name not in _NO_DIFFERENCE:
            differences.setdefault(labels[name], found.texts[labels[name]])
    if values.get("rng") != "CPU":
        differences["RNG"] = values.get("rng", "not named, so probably GPU, whose noise differs")
    return _with_names(request), differences


def _values(found: Translation, differences: dict[str, str]) -> dict[str, Any]:
    """The values of the labels. A value that cannot be read becomes a difference."""
    texts = dict(found.texts)
    labels = {row.name: row.label.name for row in labelled_settings() if row.label}
    while True:
        try:
            return settings_values(texts)
        except RequestError as error:
            label = labels[str(error.argument)]
            differences[label] = texts.pop(label)


def _is_usable(name: str, value: Any, fields: Collection[str], models: Collection[str]) -> bool:
    return value in models if name == "model" else name in fields


def _with_names(request: Mapping[str, Any]) -> dict[str, Any]:
    """The request with sdrt's own names of its scheduler and spacing."""
    sampler, spacing = split_name(str(request.get("scheduler", "")))
    if sampler is None:
        return dict(request)
    spaced = {"spacing": spacing} if spacing else {}
    return spaced | dict(request) | {"scheduler": sampler.name}
