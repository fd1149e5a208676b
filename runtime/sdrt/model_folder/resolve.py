"""From what a user names as a model, an embedded name, a folder or a hub id, to a model folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sdrt.common.notices import Notices, Notify
from sdrt.errors import IntegrityError, ModelError, ModelNotFoundError, RequestError
from sdrt.model_folder.autoexport import Source, export_once
from sdrt.model_folder.embedded import DEFAULT_MODEL, embedded_path
from sdrt.model_folder.folder import GRAPH, ModelFolder, exists, expand, tail
from sdrt.model_folder.index import check_checkpoint_index, known_family

__all__ = ["holds_torch_checkpoint", "open_local", "refuse_revision", "resolve_model"]


def holds_torch_checkpoint(folder: Path) -> bool:
    """Whether `folder` is a diffusers checkpoint that has not been exported."""
    family = known_family(folder)
    if family is None or (folder / family.denoiser.component / GRAPH).exists():
        return False
    weights = ("*.safetensors", "*.safetensors.index.json", "*.bin")
    # A hub id is looked at before its weights are downloaded: diffusers configs without any graph count too.
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
    """Turn an embedded name, a folder or a hub id into a `ModelFolder`; a torch checkpoint is exported first.

    An embedded name means the embedded model whatever lies in the working folder; a folder of that name is `./name`.

    `cache_dir` is where huggingface_hub keeps downloads; `revision`, `token` and its own environment
    variables are passed through. `reporter` receives the exporter's `ProgressEvent`s.
    """
    notices = Notices(notify)
    folder = expand(model)
    if _is_embedded(model):
        refuse_revision(model, revision)
        if folder.is_dir():
            notices.warn(f"{model} is the embedded model; the folder of that name is ./{model}")
        return open_local(model)
    if exists(folder):
        refuse_revision(folder, revision)
        source = Source(name=str(folder), configs=folder)
        return _open_or_export(source, target, notices, reporter)
    if model == DEFAULT_MODEL:
        raise ModelNotFoundError(
            f"this installation lacks the embedded model {model}, the default: install sdrt again, with its package "
            "sdrt_models, or name another model"
        )
    from sdrt.model_folder import hub

    name = hub.check_id(model)
    snapshot = hub.download(name, revision=revision, token=token, cache_dir=cache_dir)
    source = Source(
        name=name,
        configs=snapshot,
        commit=snapshot.name,
        revision=revision,
        token=token,
        cache_dir=cache_dir,
    )
    return _open_or_export(source, target, notices, reporter)


def open_local(model: str | Path) -> ModelFolder:
    """An embedded model by its name, or a folder; nothing is downloaded or exported."""
    path = embedded_path(model) if isinstance(model, str) else None
    if path is None:
        return ModelFolder.open(model)
    try:
        return ModelFolder.open(path, name=str(model))
    except ModelError as error:
        raise IntegrityError(f"the embedded model {model} is damaged ({error}): install sdrt again") from None


def _is_embedded(model: str | Path) -> bool:
    return isinstance(model, str) and embedded_path(model) is not None


def refuse_revision(model: str | Path, revision: str | None) -> None:
    """Raise `RequestError` for a `revision` of what is no hub id."""
    if revision is not None:
        raise RequestError(
            f"revision is {revision!r} and {str(model)!r} is no hub id: leave the revision out, or give a hub id"
        )


def _open_or_export(source: Source, target: str, notices: Notices, reporter: Any) -> ModelFolder:
    folder = source.configs
    if not (folder.is_dir() and holds_torch_checkpoint(folder)):
        return ModelFolder.open(folder, name=tail(source.name) if source.commit else None)
    # Before the weights: a hub's are downloaded by the export.
    check_checkpoint_index(folder)
    return export_once(source, target=target, notices=notices, reporter=reporter)
