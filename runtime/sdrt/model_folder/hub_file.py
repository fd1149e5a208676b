"""A single file on the hub, given as `owner/name/file.safetensors` or as the address of its page."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from sdrt.common.file_kind import PICKLES, refusal_of_pickle
from sdrt.errors import ModelNotFoundError, RequestError
from sdrt.model_folder.hub import check_id, hub_errors
from sdrt.model_folder.places import is_local

__all__ = ["HubFile", "download_file", "hub_file"]

_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_SUFFIXES = (".safetensors", *PICKLES)
# The parts of the hub's addresses for a file's page, its download, and its text.
_VIEWS = ("blob", "resolve", "raw")
_FITS = "https://huggingface.co/OWNER/NAME/blob/REVISION/FILE.safetensors"


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """The file `file` of the hub model `name`, at a revision that its address names."""

    name: str
    file: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.name}/{self.file}"


def hub_file(model: str | Path) -> HubFile | None:
    """Return the file on the hub that `model` names. None for a hub id or a path.

    Raises:
        ModelNotFoundError: it is an address of something else, or of another site.
    """
    text = str(model)
    if isinstance(model, Path):
        return None
    if text.startswith(("https://", "http://")):
        return _of_address(text)
    if text.startswith(tuple(f"{host}/" for host in _HOSTS)):
        return _of_address(f"https://{text}")
    parts = text.split("/")
    if len(parts) < 3 or not text.lower().endswith(_SUFFIXES) or not all(_is_name(part) for part in parts):
        return None
    if is_local(text):
        return None
    return HubFile(name="/".join(parts[:2]), file="/".join(parts[2:]))


def _is_name(part: str) -> bool:
    return part not in ("", ".", "..", "~") and "\\" not in part


def _of_address(address: str) -> HubFile:
    url = urlsplit(address)
    own = urlsplit(os.environ.get("HF_ENDPOINT", "")).netloc
    if url.netloc not in (*_HOSTS, own):
        raise ModelNotFoundError.advised(
            f"{address[:200]!r} is not an address on the hub",
            "download the file, then give its path",
            argument="model",
        )
    # A revision may have a quoted slash: refs%2Fpr%2F1.
    parts = [unquote(part) for part in url.path.strip("/").split("/")]
    revision = None
    if len(parts) > 4 and parts[2] in _VIEWS:
        revision, parts = parts[3], [*parts[:2], *parts[4:]]
    if len(parts) < 3 or parts[2] in ("tree", *_VIEWS) or not all(_is_name(part) for part in parts):
        raise ModelNotFoundError.expected(
            f"{address[:200]!r} is no file on the hub",
            f"{_FITS}, or the id of a model, OWNER/NAME",
            argument="model",
        )
    return HubFile(name=check_id("/".join(parts[:2])), file="/".join(parts[2:]), revision=revision)


def download_file(
    file: HubFile,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> tuple[Path, str]:
    """Download a file of the hub; return its path and the commit. A file in huggingface_hub's cache is not downloaded.

    Raises:
        RequestError: the address names another revision than `revision`.
        ModelNotFoundError: the hub has no such model, revision or file, or refuses it, or cannot be reached.
        UnsupportedModelError: it is a pickle, which is not downloaded.
    """
    if revision is not None and file.revision not in (None, revision):
        raise RequestError.advised(
            f"revision is {revision!r}, but the address names {file.revision!r}",
            "leave one of them out",
            argument="revision",
        )
    if file.file.lower().endswith(PICKLES):
        raise refusal_of_pickle(Path(file.file))
    from huggingface_hub import hf_hub_download

    revision = revision or file.revision
    with hub_errors(file.name, revision, file.file):
        path = Path(
            hf_hub_download(file.name, file.file, revision=revision, token=token, cache_dir=cache_dir)
        )
    return path, path.parents[file.file.count("/")].name
