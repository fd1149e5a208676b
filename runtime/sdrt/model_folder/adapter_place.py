"""Where a ControlNet or IP-Adapter is that the user gave beside a model. Nothing is downloaded or opened."""

from __future__ import annotations

from pathlib import Path

from sdrt.errors import ModelNotFoundError
from sdrt.model_folder.folder import exists, expand
from sdrt.model_folder.hub import check_id_of
from sdrt.model_folder.hub_file import HubFile, hub_file
from sdrt.model_folder.model import CONTROLNET, IP_ADAPTER

__all__ = ["CONTROLNET_FITS", "controlnet_place", "ip_adapter_place"]

CONTROLNET_FITS = (
    "a ControlNet or T2I-Adapter: a .safetensors file, or a folder or hub id (owner/name) of diffusers' "
    "ControlNetModel or T2IAdapter"
)
"""What a ControlNet is, for messages."""
_IP_ADAPTER_FITS = (
    "a .safetensors file, or where it is on the hub, such as "
    "h94/IP-Adapter/models/ip-adapter_sd15.safetensors"
)


def controlnet_place(given: str | Path) -> Path | HubFile | str:
    """The file or folder of a ControlNet, its file on the hub, or its hub id.

    Raises:
        ModelNotFoundError: it is none of these.
        RequestError: it is no path.
    """
    path = expand(given, CONTROLNET, CONTROLNET_FITS)
    if exists(path):
        return path
    return hub_file(given) or check_id_of(given, CONTROLNET, CONTROLNET_FITS)


def ip_adapter_place(given: str | Path) -> Path | HubFile:
    """The file of an IP-Adapter, or where it is on the hub.

    Raises:
        ModelNotFoundError: it is none of these.
        RequestError: it is no path.
    """
    path = expand(given, IP_ADAPTER, _IP_ADAPTER_FITS)
    place = path if exists(path) else hub_file(given)
    if place is None:
        raise ModelNotFoundError.expected(
            f"there is no file {given}", _IP_ADAPTER_FITS, argument=IP_ADAPTER, path=path
        )
    return place
