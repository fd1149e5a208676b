"""What the routes of all APIs share."""

from __future__ import annotations

from fastapi import Request
from pydantic import BaseModel, ConfigDict

from sdrt.serve.service import Service

__all__ = ["Strict", "client_of", "service_of"]


class Strict(BaseModel):
    """A body whose unknown fields are refused, and whose values are not converted. Numbers are finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def service_of(request: Request) -> Service:
    """The server's state."""
    service: Service = request.app.state.service
    return service


def client_of(request: Request) -> str:
    """Who sent the request: the name of a key, or an address."""
    return str(request.state.client)
