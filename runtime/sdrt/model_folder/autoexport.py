"""Exports torch checkpoints, or architectures with random weights, once into the cache, and reuses the result."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sdrt.common.cache import cache_root
from sdrt.common.extras import install_command, missing_modules
from sdrt.common.messages import brief, refused
from sdrt.common.notices import Notices
from sdrt.common.progress import export_reporter
from sdrt.errors import IntegrityError, ModelNotFoundError, RequestError
from sdrt.families import family_of
from sdrt.families.stable_diffusion import STABLE_DIFFUSION
from sdrt.model_folder.exporter import load_exporter
from sdrt.model_folder.folder import ModelFolder
from sdrt.model_folder.manifest import MANIFEST_NAME, readable
from sdrt.model_folder.source import Source

__all__ = ["DTYPE", "Source", "export_once", "export_random", "require_exporter"]

DTYPE = "auto"


def export_once(source: Source, *, target: str, notices: Notices, reporter: Any = None) -> ModelFolder:
    """Export `source` into the cache unless it is there already. Return the exported model.

    Raises:
        ModelNotFoundError: the export extra is not installed. The message has the commands to run.
        IntegrityError: the copy in the cache is damaged. The message has the folder to delete.
        RequestError: the cache cannot be written.
        ExportError: the export failed.
    """
    name = source.model_name
    output = _place(source, target)
    if not source.safety_checker and not _is_exported(output):
        output = _place(source, target, "no safety checker")
    if not _is_exported(output):
        require_exporter(source)
        _export_alone(
            source.name, output, notices, lambda: _export(source, output, target, notices, reporter)
        )
    return _verified(output, name, notices)


def _place(source: Source, target: str, *more: str) -> Path:
    """The folder in the cache for an export."""
    name = re.sub(r"[^A-Za-z0-9._-]", "_", source.model_name)
    return cache_root() / "exported" / f"{name}-{_key(source, target, *more)}"


def export_random(architecture: str, *, target: str, notices: Notices, reporter: Any = None) -> ModelFolder:
    """Export an `architecture` of the exporter's table with random weights. Return the exported model.

    It runs as fast as a trained model and needs no download.

    Raises:
        ModelNotFoundError: the export extra is not installed. The message has the command to run.
        IntegrityError: the copy in the cache is damaged. The message has the folder to delete.
        RequestError: the architecture is unknown or needs an input image, or the cache cannot be written.
        ExportError: the export failed.
    """
    from sdrt.common.version import __version__

    key = hashlib.sha256(json.dumps([architecture, target, DTYPE, __version__]).encode()).hexdigest()[:16]
    name = f"{architecture}-random"
    output = cache_root() / "exported" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}-{key}"
    if not _is_exported(output):
        _require_architecture(architecture)
        _export_alone(
            f"{architecture} with random weights",
            output,
            notices,
            lambda: _export_random(architecture, output, target, notices, reporter),
        )
    return _verified(output, name, notices)


def _export_alone(what: str, output: Path, notices: Notices, export: Callable[[], None]) -> None:
    """Call `export` while holding the lock of `output`, unless another process made `output` meanwhile."""
    with _locked(output, notices):
        if not _is_exported(output):
            notices.inform(f"exporting {what} to {output}, once")
            export()


def _verified(output: Path, name: str, notices: Notices) -> ModelFolder:
    try:
        model = ModelFolder.open(output, name=name)
        model.verify(notices)
    except IntegrityError as error:
        raise IntegrityError(
            f"{error}. It is a copy in the cache: delete {output}, and sdrt makes it again",
            path=output,
            component=error.component,
            fits=f"delete {output}, and sdrt makes it again",
        ) from error
    return model


def _is_exported(output: Path) -> bool:
    return (output / MANIFEST_NAME).is_file()


def _key(source: Source, target: str, *more: str) -> str:
    from sdrt.common.version import __version__

    what: list[Any] = [source.name, source.commit] if source.commit else list(_file_stats(source.configs))
    given = {**source.beside.given(), "files": [list(_file_stats(path)) for path in source.beside.paths()]}
    text = json.dumps(
        [what, target, DTYPE, __version__, *([given] if source.beside.given() else []), *more], default=str
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_stats(where: Path) -> Iterator[tuple[str, int, int]]:
    """The path, size and time of a file, or of each file in a folder."""
    with readable(where):
        whole = where.resolve()
        for path in sorted([whole, *whole.rglob("*")]):
            if path.is_file():
                stat = path.stat()
                yield str(path), stat.st_size, stat.st_mtime_ns


def require_exporter(source: Source) -> None:
    """Raise `ModelNotFoundError` with the command that installs the exporter, unless it is there."""
    if missing_modules("export"):
        raise ModelNotFoundError.advised(
            f"{source.name} is a torch checkpoint, which needs sdrt's exporter, and this is not installed",
            f"{install_command('export')}, then run this again",
            argument="model",
            path=source.configs,
        )


def _require_architecture(name: str) -> None:
    if missing_modules("export"):
        raise ModelNotFoundError.advised(
            f"{name} with random weights must be exported first",
            install_command("export"),
            argument="architecture",
        )
    architectures = load_exporter().ARCHITECTURES
    if name not in architectures:
        raise RequestError.expected(
            f"unknown architecture {brief(name)}",
            f"one of {', '.join(architectures)}",
            argument="architecture",
        )
    row = architectures[name]
    family = family_of(row.get("model_index", {})) or STABLE_DIFFUSION
    channels = row[family.vae.checkpoint]["latent_channels"]
    if family.task_of(row[family.denoiser.component], channels) is not family.tasks[0]:
        raise refused("architecture", f"{name} needs an input image", "an architecture for text to image")


@contextmanager
def _locked(output: Path, notices: Notices) -> Iterator[None]:
    """Hold the lock of `output`. Wait for it if another process has it."""
    from filelock import FileLock, Timeout

    lock = FileLock(output.with_name(f"{output.name}.lock"))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notices.inform(f"waiting for another process, which is exporting to {output}")
            lock.acquire()
    except OSError as error:
        raise RequestError.advised(
            f"{output.parent} cannot be written ({error.strerror or error})",
            "set SDRT_CACHE to a folder that you can write to",
            path=output.parent,
        ) from error
    try:
        yield
    finally:
        lock.release()


def _export(source: Source, output: Path, target: str, notices: Notices, reporter: Any) -> None:
    with notices.board() as board:
        load_exporter().export_model(
            source.name if source.commit else source.configs,
            output,
            target=target,
            dtype=DTYPE,
            revision=source.commit,
            token=source.token,
            cache_dir=source.cache_dir,
            reporter=reporter or export_reporter(board),
            safety_checker=source.safety_checker,
            **source.beside.given(),
        )


def _export_random(architecture: str, output: Path, target: str, notices: Notices, reporter: Any) -> None:
    with notices.board() as board:
        load_exporter().export_model(
            None,
            output,
            target=target,
            dtype=DTYPE,
            architecture=architecture,
            random_weights=0,
            reporter=reporter or export_reporter(board),
        )
