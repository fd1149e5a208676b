"""Turns the model that the user named (an embedded model, a folder, a file or a hub id) into a `Model`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sdrt.common.file_kind import check_checkpoint_file
from sdrt.common.messages import naming
from sdrt.common.notices import Notices, Notify
from sdrt.errors import IntegrityError, ModelError, ModelNotFoundError, RequestError
from sdrt.model_folder.adapter_place import controlnet_place, ip_adapter_place
from sdrt.model_folder.autoexport import export_once, require_exporter
from sdrt.model_folder.contents import GRAPH
from sdrt.model_folder.embedded import DEFAULT_MODEL, embedded_path
from sdrt.model_folder.exporter import load_exporter
from sdrt.model_folder.folder import ModelFolder, exists, expand
from sdrt.model_folder.index import check_checkpoint_index, known_family
from sdrt.model_folder.model import CONTROLNET, IP_ADAPTER, Model
from sdrt.model_folder.source import Beside, Source

__all__ = ["holds_torch_checkpoint", "open_again", "open_local", "refuse_revision", "resolve_model"]


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
    beside: Beside = Beside(),  # noqa: B008 - frozen
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    notify: Notify | None = None,
    target: str = "cpu",
    in_memory: bool = False,
    safety_checker: bool = True,
    reporter: Any = None,
) -> Model:
    """Open an embedded model, a folder, a file or a hub id.

    Torch checkpoints are built in memory, or exported into the cache first. An embedded model's name always means the
    embedded model. For a folder of that name, pass `./name`.

    Args:
        model: an embedded model's name, a folder, a checkpoint's file or a hub id.
        beside: what is given beside a checkpoint.
        revision: a branch, tag or commit on the hub.
        token: passed to huggingface_hub.
        cache_dir: where huggingface_hub keeps downloads.
        notify: receives messages for the user.
        target: the target that a checkpoint's graphs are for.
        in_memory: whether a checkpoint's graphs may be in memory.
        safety_checker: whether to open the model's safety checker, and to download it. Its files may be missing
            otherwise.
        reporter: receives the exporter's `ProgressEvent`s.

    Raises:
        ModelError: there is no such model, it is damaged, or sdrt cannot run it.
        RequestError: `model` cannot name a model, `revision` is given for a model that is not on the hub, or `beside`
            for a model that is no checkpoint.
    """
    if _is_embedded(model):
        opened = _open_embedded(model, revision, beside, Notices(notify))
        return _with_adapters(opened, beside, in_memory=in_memory, token=token, cache_dir=cache_dir)
    access = {"token": token, "cache_dir": cache_dir}
    source = _source(model, beside=beside, revision=revision, safety_checker=safety_checker, **access)
    return _open(source, target, in_memory, notify, reporter)


def _open_embedded(model: str | Path, revision: str | None, beside: Beside, notices: Notices) -> ModelFolder:
    refuse_revision(model, revision)
    _refuse_beside(model, beside)
    if expand(model).is_dir():
        notices.warn(f"{model} means the embedded model: for the folder of that name, give ./{model}")
    return open_local(model)


def _source(
    model: str | Path, *, beside: Beside, revision: str | None, safety_checker: bool, **access: Any
) -> Source:
    """The source of a folder, file or hub id. Downloads a model on the hub. `access` has huggingface_hub's options."""
    folder = expand(model)
    if exists(folder):
        refuse_revision(folder, revision)
        return Source(
            name=str(folder), configs=folder, beside=beside, safety_checker=safety_checker, **access
        )
    if model == DEFAULT_MODEL:
        raise ModelNotFoundError.advised(
            f"this installation lacks the embedded model {model}, the default",
            "install sdrt again, with its package sdrt_models, or choose another model",
            argument="model",
        )
    return _download(model, beside=beside, revision=revision, safety_checker=safety_checker, **access)


def _download(
    model: str | Path, *, beside: Beside, revision: str | None, safety_checker: bool, **access: Any
) -> Source:
    from sdrt.model_folder import hub
    from sdrt.model_folder.hub_file import download_file, hub_file

    if (file := hub_file(model)) is not None:
        path, commit = download_file(file, revision=revision, **access)
        return Source(name=str(file), configs=path, commit=commit, beside=beside, **access)
    name = hub.check_id(model)
    snapshot = hub.download(name, revision=revision, safety_checker=safety_checker, **access)
    return Source(
        name=name,
        configs=snapshot,
        commit=snapshot.name,
        beside=beside,
        revision=revision,
        safety_checker=safety_checker,
        **access,
    )


def open_local(model: str | Path) -> ModelFolder:
    """Open an embedded model or a folder, without downloading or exporting anything.

    Raises:
        ModelError: there is no such model, it is damaged, or sdrt cannot run it.
    """
    path = embedded_path(model) if isinstance(model, str) else None
    if path is None and expand(model).is_dir() and holds_torch_checkpoint(expand(model)):
        raise ModelNotFoundError.expected(
            f"{model} is a torch checkpoint, which has no files of graphs",
            "a model folder: make one with sdrt export, or run the checkpoint with sdrt generate -m",
            argument="model",
            path=expand(model),
        )
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


def _refuse_beside(model: str | Path, beside: Beside) -> None:
    """Raise `RequestError` if `beside` has anything for a model that is no checkpoint."""
    for name in beside.given():
        if name in ("controlnet", "ip_adapter", "image_encoder"):
            continue
        raise RequestError.advised(
            f"{name} is given, but {model} has been exported already",
            f"leave it out, or export the checkpoint with its own {name}",
            argument=name,
            path=Path(model),
        )


def _open(source: Source, target: str, in_memory: bool, notify: Notify | None, reporter: Any) -> Model:
    where = source.configs
    if where.is_dir() and not holds_torch_checkpoint(where):
        _refuse_beside(where, source.beside)
        name = source.model_name if source.commit else None
        model = ModelFolder.open(where, name=name, without_checker=not source.safety_checker)
        access = {"token": source.token, "cache_dir": source.cache_dir}
        return _with_adapters(model, source.beside, in_memory=in_memory, **access)
    # Checked first, because the exporter may be missing, and because a hub model's weights are downloaded next.
    if where.is_dir():
        check_checkpoint_index(where)
    else:
        check_checkpoint_file(where)
    if not in_memory:
        return export_once(source, target=target, notices=Notices(notify), reporter=reporter)
    require_exporter(source)
    return _in_memory(source, target, notify)


def _with_adapters(model: ModelFolder, beside: Beside, *, in_memory: bool, **access: Any) -> Model:
    """The model with the ControlNets and IP-Adapters that the user gave, if any."""
    opened = _controlled(model, beside, in_memory=in_memory, **access)
    return _prompted(opened, beside, in_memory=in_memory, **access)


def _prompted(model: Model, beside: Beside, *, in_memory: bool = True, **access: Any) -> Model:
    """The model with the IP-Adapters that the user gave, if any. Their graphs are built in memory."""
    if not beside.ip_adapter:
        if beside.image_encoder is not None:
            raise RequestError.advised(
                "image_encoder has no effect without an IP-Adapter",
                "give an IP-Adapter (--ip-adapter FILE), or leave it out",
                joint="; ",
                argument="image_encoder",
            )
        return model
    if not in_memory:
        raise RequestError.advised(
            f"ip_adapter is given, but this provider runs only what is exported, and {model.path} is exported already",
            "export the checkpoint with sdrt export --ip-adapter",
            argument="ip_adapter",
        )
    # A mistyped path is said before a missing exporter is.
    with naming(IP_ADAPTER):
        for one in beside.ip_adapter:
            ip_adapter_place(one)
    return load_exporter("IP-Adapters beside a model folder").add_ip_adapters(
        model, beside.ip_adapter, beside.image_encoder, **access
    )


def _controlled(model: ModelFolder, beside: Beside, *, in_memory: bool, **access: Any) -> Model:
    """The model with the ControlNets that the user gave, if any. Their graphs are built in memory."""
    if not beside.controlnet:
        return model
    if not in_memory:
        raise RequestError.advised(
            f"controlnet is given, but this provider runs only what is exported, and {model.path} is exported already",
            "export the checkpoint with sdrt export --controlnet",
            argument="controlnet",
        )
    with naming(CONTROLNET):
        for one in beside.controlnet:
            controlnet_place(one)
    return load_exporter("ControlNets beside a model folder").add_controlnets(
        model, beside.controlnet, **access
    )


def _in_memory(source: Source, target: str, notify: Notify | None) -> Model:
    opened = load_exporter().open_direct(
        source.name if source.commit else source.configs,
        path=source.configs,
        target=target,
        name=source.model_name,
        revision=source.commit,
        token=source.token,
        cache_dir=source.cache_dir,
        notify=notify,
        safety_checker=source.safety_checker,
        **source.beside.given(),
    )
    return _prompted(opened, source.beside, token=source.token, cache_dir=source.cache_dir)


def open_again(path: Path, name: str, target: str, beside: Beside) -> Model:
    """Open a model's folder, or a checkpoint that runs in memory, in another process. Nothing is exported."""
    if path.is_dir() and not holds_torch_checkpoint(path):
        return ModelFolder.open(path, name=name)
    opened = resolve_model(path, beside=beside, target=target, in_memory=True)
    return replace(opened, name=name)
