"""Opens a checkpoint: a diffusers folder, a single file, or a hub id or address of either."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdrt.common.messages import brief, naming
from sdrt.common.notices import Notify
from sdrt.errors import ModelNotFoundError, RequestError
from sdrt.model_folder import hub
from sdrt.model_folder.folder import exists, expand
from sdrt.model_folder.hub_file import download_file, hub_file
from sdrt.model_folder.index import check_checkpoint_index
from sdrt.model_folder.resolve import refuse_revision
from sdrt.model_folder.source import Beside
from sdrt_export.checkpoints.checkpoint import Checkpoint
from sdrt_export.checkpoints.folder import open_folder
from sdrt_export.checkpoints.replaced import with_vae
from sdrt_export.checkpoints.single_file import open_single_file

__all__ = ["Beside", "open_checkpoint"]

_CONFIGS = (
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "scheduler/scheduler_config.json",
)
_CONFIG = "a folder in diffusers' layout, or a hub id, owner/name"
_VAE = "a .safetensors file, or a folder or hub id (owner/name) of diffusers' AutoencoderKL"
_TEXT = "a .safetensors file of a text encoder, here or on the hub (owner/name/file.safetensors)"


def open_checkpoint(
    source: str | Path,
    *,
    beside: Beside | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    notify: Notify | None = None,
    safety_checker: bool = True,
) -> Checkpoint:
    """Open a checkpoint, and download it first if it is on the hub.

    Args:
        source: a folder in diffusers' layout, a single file, a hub id, or `owner/name/file.safetensors` or an address
            of such a file on the hub.
        beside: the options that go with it.
        revision, token, cache_dir: huggingface_hub's. The revision is the checkpoint's.
        notify: receives messages for the user.
        safety_checker: whether to open its safety checker, and to download it.

    Raises:
        RequestError: an argument is wrong.
        ModelNotFoundError, IntegrityError, UnsupportedModelError: the checkpoint cannot be used.
    """
    beside = beside or Beside()
    access: dict[str, Any] = {"token": token, "cache_dir": cache_dir}
    path = expand(source)
    if exists(path) or isinstance(source, Path):
        refuse_revision(source, revision)
        if path.is_file():
            return _single(path, beside, access, notify)
        return _folder(open_folder(path, safety_checker=safety_checker), beside, access)
    if (file := hub_file(source)) is not None:
        found, commit = download_file(file, revision=revision, **access)
        return _single(found, beside, access, notify, name=str(file), revision=commit)
    name = hub.check_id(source)
    # Check the small index before gigabytes of weights are downloaded.
    wanted: dict[str, Any] = {"revision": revision, "safety_checker": safety_checker, **access}
    check_checkpoint_index(hub.download(name, **wanted))
    snapshot = hub.download_checkpoint(name, **wanted)
    opened = open_folder(snapshot, name=name, revision=snapshot.name, safety_checker=safety_checker)
    return _folder(opened, beside, access)


def _single(
    path: Path, beside: Beside, access: Mapping[str, Any], notify: Notify | None, **origin: str
) -> Checkpoint:
    config = None if beside.config is None else _configs(beside.config, access)
    return open_single_file(
        path,
        vae=None if beside.vae is None else _vae(beside.vae, access),
        text_encoders=[_text_encoder(one, access) for one in beside.text_encoders],
        prediction_type=beside.prediction_type,
        config=config,
        notify=notify,
        **origin,
    )


def _vae(given: str | Path, access: Mapping[str, Any]) -> Path:
    """The path of a VAE, downloaded if it is on the hub."""
    with naming("vae"):
        return _local("vae", given, _VAE, access) or hub.download_component(
            hub.check_id_of(given, "vae", _VAE), **access
        )


def _text_encoder(given: str | Path, access: Mapping[str, Any]) -> Path:
    """The path of a text encoder's file, downloaded if it is on the hub."""
    with naming("text_encoders"):
        path = _local("text_encoders", given, _TEXT, access)
    if path is None or path.is_dir():
        problem = "which does not exist" if path is None else "a folder"
        raise ModelNotFoundError.expected(
            f"text_encoders is {brief(str(given), 200)}, {problem}",
            _TEXT,
            argument="text_encoders",
            path=path,
        )
    return path


def _local(argument: str, given: str | Path, fits: str, access: Mapping[str, Any]) -> Path | None:
    """The path of a part that is here, or is a file on the hub. Otherwise None: it can be a hub id."""
    path = expand(given, argument, fits)
    if exists(path):
        return path
    return download_file(file, **access)[0] if (file := hub_file(given)) is not None else None


def _configs(given: str | Path, access: Mapping[str, Any]) -> Path:
    """The folder of configs, downloaded without weights if it is on the hub."""
    path = expand(given)
    if not exists(path):
        with naming("config"):
            return hub.download(hub.check_id_of(given, "config", _CONFIG), **access)
    if not path.is_dir():
        raise RequestError.expected(f"config is {str(given)!r}", _CONFIG, argument="config")
    if not any((path / name).is_file() for name in _CONFIGS):
        raise RequestError.expected(
            f"config is {str(given)!r}, which has none of {', '.join(_CONFIGS)}",
            "a folder in diffusers' layout",
            argument="config",
        )
    return path


def _folder(checkpoint: Checkpoint, beside: Beside, access: Mapping[str, Any]) -> Checkpoint:
    """A diffusers folder, whose VAE may be replaced."""
    for argument in ("text_encoders", "prediction_type", "config"):
        if getattr(beside, argument):
            raise RequestError.advised(
                f"{argument} is for single files, but {checkpoint.name} is a folder in diffusers' layout",
                "leave it out, because the folder has its own configs and text encoders",
                argument=argument,
            )
    if beside.vae is None:
        return checkpoint
    return with_vae(checkpoint, _vae(beside.vae, access))
