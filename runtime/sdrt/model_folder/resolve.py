"""Turns the model that the user named (an embedded model, a folder or a hub id) into a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrt.common.notices import Notices, Notify
from sdrt.errors import IntegrityError, ModelError, ModelNotFoundError, RequestError
from sdrt.model_folder.autoexport import Source, export_once
from sdrt.model_folder.contents import GRAPH
from sdrt.model_folder.embedded import DEFAULT_MODEL, embedded_path
from sdrt.model_folder.folder import ModelFolder, exists, expand, tail
from sdrt.model_folder.index import check_checkpoint_index, known_family

__all__ = ["holds_torch_checkpoint", "open_local", "refuse_revision", "resolve_model"]


def holds_torch_checkpoint(folder: Path) -> bool:
    """Tell whether `folder` is a diffusers checkpoint that has not been exported."""
    family = known_family(folder)
    if family is None or (folder / family.denoiser.component / GRAPH).exists():
        return False
    weights = ("*.safetensors", "*.safetensors.index.json", "*.bin")
    # A hub model is checked before its weights are downloaded, so diffusers configs without a graph count too.
    graphs = any((folder / name / GRAPH).exists() for name in family.components)
    has_weights = any(any((folder / family.denoiser.component).glob(pattern)) for pattern in weights)
    return has_weights or (not graphs and (folder / family.vae.checkpoint / "config.json").is_file())


def resolve_model(
    model: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    notify: Notify | None = None,
    target: str = "cpu",
    reporter: Any = None,
) -> ModelFolder:
    """Turn an embedded model's name, a folder or a hub id into a `ModelFolder`. Torch checkpoints are exported first.

    An embedded model's name always means the embedded model. For a folder of that name, pass `./name`.

    Args:
        model: an embedded model's name, a folder or a hub id.
        revision: a branch, tag or commit on the hub.
        token: passed to huggingface_hub.
        cache_dir: where huggingface_hub keeps downloads.
        notify: receives messages for the user.
        target: the target to export a checkpoint for.
        reporter: receives the exporter's `ProgressEvent`s.

    Raises:
        ModelError: there is no such model, it is damaged, or sdrt cannot run it.
        RequestError: `model` cannot name a model, or `revision` is given for a model that is not on the hub.
    """
    notices = Notices(notify)
    folder = expand(model)
    if _is_embedded(model):
        refuse_revision(model, revision)
        if folder.is_dir():
            notices.warn(f"{model} means the embedded model: for the folder of that name, give ./{model}")
        return open_local(model)
    if exists(folder):
        refuse_revision(folder, revision)
        source = Source(name=str(folder), configs=folder)
        return _open_or_export(source, target, notices, reporter)
    if model == DEFAULT_MODEL:
        raise ModelNotFoundError.advised(
            f"this installation lacks the embedded model {model}, the default",
            "install sdrt again, with its package sdrt_models, or choose another model",
            argument="model",
        )
    source = _download(model, revision=revision, token=token, cache_dir=cache_dir)
    return _open_or_export(source, target, notices, reporter)


def _download(
    model: str | Path, *, revision: str | None, token: str | bool | None, cache_dir: str | Path | None
) -> Source:
    from sdrt.model_folder import hub

    name = hub.check_id(model)
    snapshot = hub.download(name, revision=revision, token=token, cache_dir=cache_dir)
    return Source(
        name=name,
        configs=snapshot,
        commit=snapshot.name,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
    )


def open_local(model: str | Path) -> ModelFolder:
    """Open an embedded model or a folder, without downloading or exporting anything.

    Raises:
        ModelError: there is no such model, it is damaged, or sdrt cannot run it.
    """
    path = embedded_path(model) if isinstance(model, str) else None
    if path is None:
        return ModelFolder.open(model)
    try:
        return ModelFolder.open(path, name=str(model))
    except ModelError as error:
        raise IntegrityError.advised(
            f"the embedded model {model} is damaged ({error})",
            "install sdrt again",
            path=path,
            component=error.component,
        ) from None


def _is_embedded(model: str | Path) -> bool:
    return isinstance(model, str) and embedded_path(model) is not None


def refuse_revision(model: str | Path, revision: str | None) -> None:
    """Raise `RequestError` if there is a `revision`, because `model` is not on the hub."""
    if revision is not None:
        raise RequestError.advised(
            f"revision is {revision!r}, but {str(model)!r} is not a hub id",
            "leave the revision out, or give a hub id",
            argument="revision",
        )


def _open_or_export(source: Source, target: str, notices: Notices, reporter: Any) -> ModelFolder:
    folder = source.configs
    if not (folder.is_dir() and holds_torch_checkpoint(folder)):
        return ModelFolder.open(folder, name=tail(source.name) if source.commit else None)
    # Checked first, because the export downloads the weights of a hub model.
    check_checkpoint_index(folder)
    return export_once(source, target=target, notices=notices, reporter=reporter)
