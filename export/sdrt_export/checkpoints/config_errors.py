"""Errors about the configs of what the user gives beside a model, which name the user's file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sdrt.errors import ModelError
from sdrt.model_folder.contents import CONFIG_NAME

__all__ = ["naming_config"]


@contextmanager
def naming_config(place: Path, component: str) -> Iterator[None]:
    """Within this block, errors about the config of a `component` name `place`: the folder of the config, or a file.

    A file has no config. What is wrong with the one that its tensors show is wrong with the file. Of several components
    of a kind, such as "controlnet" and "controlnet_2", `component` is the first.
    """
    try:
        yield
    except ModelError as error:
        short, text = f"{error.component}/{CONFIG_NAME}", str(error)
        if not (text.startswith(short) and short.startswith(component)):
            raise
        path = place / CONFIG_NAME if place.is_dir() else place
        raise type(error)(f"{path}{text.removeprefix(short)}", **vars(error) | {"path": path}) from error
