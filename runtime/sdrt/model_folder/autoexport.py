"""Models that are exported once into the cache, then reused: torch checkpoints, and architectures without one."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sdrt.common.cache import cache_root
from sdrt.common.extras import install_command, missing_modules
from sdrt.common.messages import brief
from sdrt.common.notices import Notices
from sdrt.common.progress import export_reporter
from sdrt.errors import IntegrityError, ModelNotFoundError, RequestError
from sdrt.families.stable_diffusion import STABLE_DIFFUSION, TEXT_TO_IMAGE
from sdrt.model_folder.exporter import load_exporter
from sdrt.model_folder.folder import ModelFolder, tail
from sdrt.model_folder.manifest import MANIFEST_NAME, readable

__all__ = ["DTYPE", "Source", "export_once", "export_random"]

DTYPE = "auto"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A model as the user named it, with its files, or only its configs, in `configs`.

    `commit` is None for a folder; `revision`, `token` and `cache_dir` are what was passed for the hub.
    """

    name: str
    configs: Path
    commit: str | None = None
    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | Path | None = None


def export_once(source: Source, *, target: str, notices: Notices, reporter: Any = None) -> ModelFolder:
    """The exported `source`, from the cache if it was exported before.

    Raises `ModelNotFoundError` naming the commands to run when the export extra is not installed, `IntegrityError`
    naming the folder to delete when what the cache holds is damaged.
    """
    name = tail(source.name)
    output = cache_root() / "exported" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}-{_key(source, target)}"
    if not _is_there(output):
        _require_exporter(source)
        _take_turn(source.name, output, notices, lambda: _export(source, output, target, notices, reporter))
    return _verified(output, name, notices)


def export_random(architecture: str, *, target: str, notices: Notices, reporter: Any = None) -> ModelFolder:
    """`architecture`, a row of the exporter's table, with random weights: as fast as a trained one, and no download.

    Raises `ModelNotFoundError` naming the command to run when the export extra is not installed, `RequestError` for a
    row that there is not, or whose pictures are made from others.
    """
    from sdrt import __version__

    key = hashlib.sha256(json.dumps([architecture, target, DTYPE, __version__]).encode()).hexdigest()[:16]
    name = f"{architecture}-random"
    output = cache_root() / "exported" / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}-{key}"
    if not _is_there(output):
        _require_architecture(architecture)
        _take_turn(
            f"{architecture} with random weights",
            output,
            notices,
            lambda: _export_random(architecture, output, target, notices, reporter),
        )
    return _verified(output, name, notices)


def _take_turn(what: str, output: Path, notices: Notices, export: Callable[[], None]) -> None:
    with _turn(output, notices):
        # While this one waited, another process may have done it.
        if not _is_there(output):
            notices.inform(f"exporting {what} to {output}, once")
            export()


def _verified(output: Path, name: str, notices: Notices) -> ModelFolder:
    try:
        model = ModelFolder.open(output, name=name)
        model.verify(notices)
    except IntegrityError as error:
        raise IntegrityError(
            f"{error}; it is a copy in the cache: delete {output} and it is made again"
        ) from error
    return model


def _is_there(output: Path) -> bool:
    return (output / MANIFEST_NAME).is_file()


def _key(source: Source, target: str) -> str:
    from sdrt import __version__

    what = [source.name, source.commit] if source.commit else list(_file_stats(source.configs))
    text = json.dumps([what, target, DTYPE, __version__])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_stats(folder: Path) -> Iterator[tuple[str, int, int]]:
    with readable(folder):
        for path in sorted(folder.resolve().rglob("*")):
            if path.is_file():
                stat = path.stat()
                yield str(path), stat.st_size, stat.st_mtime_ns


def _require_exporter(source: Source) -> None:
    if missing_modules("export"):
        revision = f" --revision {source.revision}" if source.revision else ""
        raise ModelNotFoundError(
            f"{source.name} is a torch checkpoint, which must be exported first: {install_command('export')}, "
            f"then sdrt export {source.name}{revision} -o model/"
        )


def _require_architecture(name: str) -> None:
    if missing_modules("export"):
        raise ModelNotFoundError(
            f"random weights of {name} must be exported first: {install_command('export')}"
        )
    architectures = load_exporter().ARCHITECTURES
    if name not in architectures:
        raise RequestError(f"unknown architecture {brief(name)}: expected one of {', '.join(architectures)}")
    row = architectures[name]
    if STABLE_DIFFUSION.task_of(row["unet"], row["vae"]["latent_channels"]) is not TEXT_TO_IMAGE:
        raise RequestError(
            f"architecture {name} makes pictures from pictures: expected one for text to image"
        )


@contextmanager
def _turn(output: Path, notices: Notices) -> Iterator[None]:
    """Hold the only turn to make `output`, once whoever has it is done."""
    from filelock import FileLock, Timeout

    lock = FileLock(output.with_name(f"{output.name}.lock"))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notices.inform(f"waiting for another process, which makes {output}")
            lock.acquire()
    except OSError as error:
        raise RequestError(
            f"{output.parent}: cannot write there ({error.strerror or error}): set SDRT_CACHE to a folder "
            "that can be written"
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
