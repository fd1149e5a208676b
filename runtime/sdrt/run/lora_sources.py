"""Where a LoRA's file is: on this machine, or on the hub, as ``owner/name``, ``owner/name:file`` or an address."""

from __future__ import annotations

import os
import re
from pathlib import Path

from sdrt.adapters.lora_folder import USUAL_NAME, file_in
from sdrt.errors import ModelNotFoundError
from sdrt.model_folder.folder import expand
from sdrt.model_folder.hub import hub_errors
from sdrt.model_folder.hub_file import HubFile, download_file, hub_file
from sdrt.model_folder.places import is_local

__all__ = ["file_of", "name_of"]

_SUFFIX = ".safetensors"
_ID = re.compile(r"([\w.-]+/[\w.-]+?)(?::([^:]+\.safetensors))?", re.ASCII)
# A path loses one of the two slashes.
_ADDRESS = re.compile(r"(https?:)/+")
_MOST_LISTED = 8


def file_of(path: str | Path, weight_name: str | None = None, **options: str | bool | None) -> Path:
    """The file of a LoRA, which is downloaded if it is on the hub.

    Args:
        path: a file, a folder, the id of a model on the hub, or an address there.
        weight_name: the file in the folder, or in the model.
        options: `revision` and `token` for the hub.

    Raises:
        ModelNotFoundError: there is no such file, or several.
        UnsupportedModelError: the hub's file is a pickle.
        RequestError: `path` is no path.
    """
    named = _on_hub(path, weight_name)
    if named is None:
        return file_in(path, weight_name)
    name, file, revision = named
    revision = str(options["revision"]) if options.get("revision") else revision
    token = options.get("token")
    chosen = file or _only_file(name, revision, token)
    return download_file(HubFile(name=name, file=chosen), revision=revision, token=token)[0]


def name_of(path: Path) -> str:
    """What a LoRA is called: its file without the extension, or the model on the hub."""
    named = _on_hub(path, None)
    if named is None:
        return path.stem
    name, file, _ = named
    return Path(file).stem if file else name.rpartition("/")[2]


def _on_hub(path: str | Path, weight_name: str | None) -> tuple[str, str | None, str | None] | None:
    """The model, the file and the revision. None for what is on this machine, or should be.

    A path whose first folder exists is one on this machine.
    """
    if not isinstance(path, (str, Path)) or not str(path) or "\0" in str(path):
        return None
    text = _ADDRESS.sub(r"\1//", path.as_posix() if isinstance(path, Path) else path, count=1)
    # pathlib's own exists() and is_file() raise an error for names that are too long.
    if os.path.exists(text.partition("/")[0]) or os.path.exists(expand(text)):  # noqa: PTH110
        return None
    found = _ID.fullmatch(text)
    if found and ".." not in text and not is_local(found[1]):
        return found[1], found[2] or weight_name, None
    file = hub_file(text)
    return None if file is None else (file.name, file.file, file.revision)


def _only_file(name: str, revision: str | None, token: str | bool | None) -> str:
    """The file of a model on the hub: the one that diffusers saves, or the only one."""
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return USUAL_NAME
    from huggingface_hub import HfApi

    with hub_errors(name, revision):
        files = HfApi(token=token).list_repo_files(name, revision=revision)
    found = sorted(file for file in files if file.lower().endswith(_SUFFIX))
    if USUAL_NAME in found:
        return USUAL_NAME
    if len(found) == 1:
        return found[0]
    listed = ", ".join(found[:_MOST_LISTED]) or "none"
    raise ModelNotFoundError.advised(
        f"hub model {name!r} has no single .safetensors file to take (it has {listed})",
        f"name one: {name}:FILE{_SUFFIX}, or weight_name in Python",
        joint="; ",
        argument="lora",
    )
