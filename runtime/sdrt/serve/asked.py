"""Turns what a request asks for, in sdrt's own names, into a task. Each API translates its names into these."""

from __future__ import annotations

import asyncio
import base64
import binascii
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from sdrt.adapters.lora_folder import LoraFolder
from sdrt.errors import RequestError, SdrtError
from sdrt.request.image_prompt_settings import MAX_IMAGE_PROMPTS
from sdrt.request.loras import LoraFile
from sdrt.request.request import Request
from sdrt.schedulers import split_name, unknown_scheduler
from sdrt.serve.errors import ServeError
from sdrt.serve.image_sizes import check_size
from sdrt.serve.service import Service
from sdrt.serve.task import IMAGES, FileFormat, ImageTask

__all__ = ["decoded", "image_task", "lora_files", "model_name"]

_SEED_BITS = 32


async def image_task(
    service: Service,
    settings: Mapping[str, Any],
    *,
    model: str | None = None,
    file_format: FileFormat = FileFormat(),  # noqa: B008 - frozen
    previews: int = 0,
    fields: Mapping[str, str] | None = None,
) -> ImageTask:
    """Check what is asked for and make a task of it.

    Args:
        service: the server's state, with its limits.
        settings: settings of a call. Those that are None are left out.
        model: the model's name. None for the default one.
        file_format: the format of the images.
        previews: how many previews to make.
        fields: the API's names of settings that it calls otherwise, for errors.

    Raises:
        ServeError: a value is wrong, or more than the server allows.
    """
    fields = fields or {}
    given = {name: value for name, value in settings.items() if value is not None}
    if given.get("seed", -1) == -1:
        given["seed"] = secrets.randbits(_SEED_BITS)
    if service.lora_dir is not None:
        given["lora_dir"] = str(service.lora_dir)
    _check_limits(service, given, fields)
    _check_scheduler(given, fields)
    name = model_name(service, model, fields.get("model", "model"))
    if any(one in given for one in IMAGES):
        # Decoding takes long enough to keep others waiting, and memory: that of many small files may be large.
        service.check_room()
        async with service.decoding:
            await asyncio.to_thread(_check, service, given, fields)
    else:
        _check(service, given, fields)
    return ImageTask(
        model=name,
        settings=given,
        file_format=file_format,
        previews=previews,
        max_pixels=service.limits.pixels,
    )


def decoded(text: str, field: str) -> bytes:
    """The bytes of base64, also in a `data:` address, as browsers make it.

    Raises:
        ServeError: it is an address, or something else.
    """
    head, comma, body = text.partition(",")
    if comma and head.startswith("data:"):
        if not head.endswith(";base64"):
            raise ServeError(400, f"{field} is a data address without base64: expected base64", field=field)
        text = body
    elif text[:8].lower().startswith(("http://", "https://", "file://", "ftp://")):
        raise ServeError(
            400, f"{field} is an address: this server fetches nothing. Send the file as base64", field=field
        )
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ServeError(
            400, f"{field} is not base64: expected the base64 of an image's file", field=field
        ) from None


async def lora_files(
    service: Service, wanted: Sequence[tuple[str, float, float]], field: str
) -> list[LoraFile] | None:
    """The files of LoRAs that are asked for by their names, with their weights in the text encoders and the U-Net.

    Raises:
        ServeError: the server has no LoRAs, or none of this name.
    """
    if not wanted:
        return None
    if service.lora_dir is None:
        raise ServeError(400, f"{field}: this server has no LoRAs (sdrt serve --lora-dir)", field=field)
    try:
        # For a name that no file has, `find` reads the headers of all files.
        return await asyncio.to_thread(_found, service.lora_dir, wanted)
    except SdrtError as error:
        raise ServeError(400, _without_folder(str(error), service), field=field) from None


def _found(path: Path, wanted: Sequence[tuple[str, float, float]]) -> list[LoraFile]:
    folder = LoraFolder(path)
    return [LoraFile(folder.find(name), text, unet) for name, text, unet in wanted]


def _without_folder(message: str, service: Service) -> str:
    """A message without the server's own path."""
    return message.replace(str(service.lora_dir), "its folder")


def model_name(service: Service, model: str | None, field: str = "model") -> str:
    """The name of the model that a request asks for. None stands for the default one.

    Raises:
        ServeError: the server has no such model.
    """
    name = service.default_model if model is None else model
    if name not in service.model_names:
        known = ", ".join(service.model_names)
        raise ServeError(
            404,
            f"there is no model {name[:128]!r}: expected one of {known}",
            field=field,
            code="model_not_found",
        )
    return name


def _check_limits(service: Service, given: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    limits = service.limits
    for name, most in (
        ("num_inference_steps", limits.steps),
        ("hires_steps", limits.steps),
        ("num_images_per_prompt", limits.images),
    ):
        value = given.get(name)
        if isinstance(value, int) and value > most:
            field = fields.get(name, name)
            raise ServeError(400, f"{field} is {value}: this server makes at most {most}", field=field)


def _check_scheduler(given: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Check that schedulers are names: a path would be one of the server's."""
    for name in ("scheduler", "hires_scheduler"):
        value = given.get(name)
        if isinstance(value, str) and split_name(value)[0] is None:
            raise ServeError(400, str(unknown_scheduler(value)), field=fields.get(name, name))


def _check(service: Service, given: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Check everything that needs no model, as the command line does."""
    _check_images(service, given, fields)
    try:
        Request(**{name: value for name, value in given.items() if name not in ("scheduler", "spacing")})
    except RequestError as error:
        field = None if error.argument is None else fields.get(error.argument, error.argument)
        raise ServeError(400, str(error), field=field) from None


def _check_images(service: Service, given: Mapping[str, Any], fields: Mapping[str, str]) -> None:
    """Check how many images there are, and how large, before their pixels take memory."""
    for name in IMAGES:
        field, files = fields.get(name, name), list(_files(given.get(name)))
        if len(files) > MAX_IMAGE_PROMPTS:
            raise ServeError(
                400, f"{field} has {len(files)} images: expected at most {MAX_IMAGE_PROMPTS}", field=field
            )
        for data in files:
            with suppress(RequestError):  # of what is no image, the request says more
                check_size(data, field, service.limits.pixels)


def _files(given: Any) -> Iterator[bytes]:
    if isinstance(given, (list, tuple)):
        for one in given:
            yield from _files(one)
    elif isinstance(given, bytes):
        yield given
