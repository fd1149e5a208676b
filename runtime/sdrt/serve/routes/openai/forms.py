"""Multipart forms, as OpenAI's clients send images: files, and every other field as a text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.requests import ClientDisconnect

from sdrt.serve.body import loads
from sdrt.serve.errors import ServeError
from sdrt.serve.routes.openai.fields import Asked, Lora

__all__ = ["MOST_IMAGES", "Form", "read_form"]

MOST_IMAGES = 16
_MOST_FIELDS = 200
_MOST_TEXT = 256 * 1024  # bytes: a prompt, and JSON
_LORA = "lora[][{}]"
A = TypeVar("A", bound=Asked)
_LORAS = TypeAdapter(list[Lora])


@dataclass
class Form:
    """A form: its texts, and the content of its files, by the names of the fields."""

    texts: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[bytes]] = field(default_factory=dict)

    def asked(self, kind: type[A]) -> A:
        """The texts, checked.

        Raises:
            RequestValidationError, ServeError: a field is missing, unknown, wrong, or there twice.
        """
        texts = dict(self.texts)
        loras = _loras(texts)
        for name, values in texts.items():
            if len(values) > 1:
                raise ServeError(400, f"the form has {name[:64]!r} {len(values)} times", field=name[:64])
        try:
            asked = kind.model_validate_strings({name: values[0] for name, values in texts.items()})
        except ValidationError as error:
            raise RequestValidationError(error.errors()) from None
        asked.lora = loras
        return asked

    def images(self) -> list[bytes]:
        """The images to edit: one field `image`, or several `image[]`.

        Raises:
            ServeError: there is none, or there are too many.
        """
        found = [*self.files.get("image", ()), *self.files.get("image[]", ())]
        if not found:
            raise ServeError(400, "image is missing: expected a file", field="image", code="missing")
        return found

    def mask(self) -> bytes | None:
        """The mask, if there is one."""
        found = self.files.get("mask", [])
        if len(found) > 1:
            raise ServeError(400, f"the form has 'mask' {len(found)} times", field="mask")
        return found[0] if found else None


async def read_form(request: Request, *, takes: tuple[str, ...]) -> Form:
    """The form of a request. `takes` are the fields that are files.

    Raises:
        ServeError: the body is no form, or a field is a file that should be a text, or the other way round.
    """
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    if kind != b"multipart/form-data":
        raise ServeError(
            415, "the body is not a form: expected multipart/form-data", code="unsupported_media_type"
        )
    # Starlette would decode texts with any codec of Python, some of which fail or make half characters.
    if options.get(b"charset", b"utf-8").lower() not in (b"utf-8", b"utf8"):
        raise ServeError(415, "the form is not in UTF-8: expected UTF-8", code="unsupported_media_type")
    try:
        given = await request.form(
            max_files=MOST_IMAGES + 1, max_fields=_MOST_FIELDS, max_part_size=_MOST_TEXT
        )
    except FormParserError as error:
        raise ServeError(400, f"the form is damaged: {error}", code="invalid_form") from None
    except ClientDisconnect:
        raise ServeError(499, "the client has gone away", code="client_closed_request") from None
    try:
        return await _sorted(given, takes)
    finally:
        await given.close()


async def _sorted(given: FormData, takes: tuple[str, ...]) -> Form:
    form = Form()
    for name, value in given.multi_items():
        shown = name[:64]
        if isinstance(value, UploadFile):
            if name not in takes:
                raise ServeError(400, f"{shown!r} is a file, which is not expected here", field=shown)
            form.files.setdefault(name, []).append(await value.read())
        elif name in takes:
            raise ServeError(
                400,
                f"{shown!r} is a text: expected a file, as this server fetches nothing",
                field=shown.removesuffix("[]"),
            )
        else:
            form.texts.setdefault(name, []).append(value)
    return form


def _loras(texts: dict[str, list[str]]) -> list[Lora] | None:
    """Take the LoRAs out of the texts: the JSON of a list, or the names and weights that clients make of it."""
    as_json = texts.pop("lora", None)
    rows = _rows(texts)
    if as_json is not None and (rows or len(as_json) > 1):
        raise ServeError(400, "the form has LoRAs twice", field="lora")
    try:
        if as_json is not None:
            return _few(_LORAS.validate_python(loads(as_json[0].encode())))
        return _few([Lora.model_validate_strings(row) for row in rows]) if rows else None
    except ValidationError as error:
        first = error.errors()[0]
        raise ServeError(400, f"lora: {first['msg']}", field="lora", code=first["type"]) from None
    except ServeError as error:
        raise ServeError(400, f"lora: {error.message}", field="lora", code=error.code) from None


def _few(loras: list[Lora]) -> list[Lora]:
    if len(loras) > 16:
        raise ServeError(400, f"lora has {len(loras)} entries: expected at most 16", field="lora")
    return loras


def _rows(texts: dict[str, list[str]]) -> list[dict[str, str]]:
    """The LoRAs of columns. A column that lacks an entry does not tell whose."""
    columns = {
        name: texts.pop(_LORA.format(name))
        for name in ("name", "weight", "text_encoder_weight")
        if _LORA.format(name) in texts
    }
    lengths = {len(values) for values in columns.values()}
    if len(lengths) > 1:
        counts = ", ".join(f"{len(values)} of {name}" for name, values in columns.items())
        raise ServeError(
            400,
            f"lora has {counts}, and a form does not tell whose they are: give all to each, or send lora as JSON",
            field="lora",
        )
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
