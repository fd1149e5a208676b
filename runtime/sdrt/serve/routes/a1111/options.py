"""A1111's options: those that a client sets for itself, and those that one request overrides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Request

from sdrt.serve.body import StrictRoute
from sdrt.serve.errors import ServeError
from sdrt.serve.routes.a1111.clients import Client, client_state
from sdrt.serve.routes.a1111.fields import unsupported
from sdrt.serve.routes.a1111.model_facts import facts_of, name_of, title_of
from sdrt.serve.routes.common import service_of
from sdrt.serve.service import Service

__all__ = ["PREVIEW_EVERY", "chosen", "router"]

router = APIRouter(route_class=StrictRoute)

PREVIEW_EVERY = 5
"""After how many steps there is a preview."""
_MODEL, _CLIP = "sd_model_checkpoint", "CLIP_stop_at_last_layers"
_MOST_SKIPPED = 12

_FIXED: Mapping[str, tuple[Any, ...]] = {
    "sd_vae": ("Automatic", "None", "", None),
    "randn_source": ("CPU",),
    "eta_noise_seed_delta": (0,),
    "img2img_color_correction": (False,),
    "face_restoration_model": (None, "", "None"),
    "samples_format": ("png",),
    "return_grid": (False,),
    "live_previews_enable": (True,),
    "show_progress_every_n_steps": (PREVIEW_EVERY,),
    "sd_model_refiner": ("None", "", None),
}
"""Options that cannot be changed. The first value is what this server does, and all of them mean it."""


async def chosen(
    service: Service, client: Client, given: Mapping[str, Any], prefix: str = ""
) -> tuple[str, int]:
    """The model and the clip skip of a client, with `given` options in place of its own.

    Args:
        service: the server's state.
        client: the client.
        given: options by A1111's names.
        prefix: what comes before their names in errors.

    Raises:
        ServeError: an option is unknown, or has a value that this server does not have.
    """
    for name, value in given.items():
        if name in _FIXED and value not in _FIXED[name]:
            raise unsupported(prefix + name, value, _FIXED[name][0])
        if name not in (_MODEL, _CLIP, *_FIXED):
            known = ", ".join((_MODEL, _CLIP, *_FIXED))
            field = prefix + name[:64]
            raise ServeError(
                400, f"this server has no option {field!r}: expected {known}", field=field, code="unsupported"
            )
    model = client.model or service.default_model
    if wanted := given.get(_MODEL):
        model = await name_of(
            service, _checked(wanted, str, prefix + _MODEL, "a model's title"), prefix + _MODEL
        )
    skip = given.get(_CLIP, client.clip_skip)
    _checked(skip, int, prefix + _CLIP, f"a whole number from 1 to {_MOST_SKIPPED}")
    if not 1 <= skip <= _MOST_SKIPPED:
        raise _wrong(prefix + _CLIP, skip, f"a whole number from 1 to {_MOST_SKIPPED}")
    return model, skip


def _checked(value: Any, kind: type, field: str, fits: str) -> Any:
    if type(value) is not kind:
        raise _wrong(field, value, fits)
    return value


def _wrong(field: str, value: object, fits: str) -> ServeError:
    return ServeError(400, f"{field} is {value!r:.64}: expected {fits}", field=field)


@router.get("/options")
async def options(request: Request) -> dict[str, Any]:
    """The options of this client, and those that nobody can change."""
    service, client = service_of(request), client_state(request)
    model = client.model or service.default_model
    facts = await facts_of(service, model)
    return {
        _MODEL: title_of(model, facts),
        "sd_checkpoint_hash": facts.sha256 or "",
        _CLIP: client.clip_skip,
        **{name: values[0] for name, values in _FIXED.items()},
    }


@router.post("/options")
async def set_options(request: Request, body: dict[str, Any]) -> None:
    """Choose this client's model and clip skip. Other clients keep theirs."""
    client = client_state(request)
    given = {name: value for name, value in body.items() if name != "sd_checkpoint_hash"}
    client.model, client.clip_skip = await chosen(service_of(request), client, given)
