"""A folder that appears whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sdrt.errors import ExportError, RequestError
from sdrt.model import cache_dir

__all__ = ["check_space", "replace_folder"]


@contextmanager
def replace_folder(destination: Path, force: bool) -> Iterator[Path]:
    """Yield a staging folder beside ``destination``; when the block ends well, it takes the destination's place.

    If the block raises, or the process dies, ``destination`` is what it was. What a killed run left beside it is
    cleared by the next one.

    Raises:
        RequestError: the destination exists and ``force`` is not set, cannot be written, or is being written.
    """
    destination = destination.absolute()
    with _only_writer(destination):
        _recover(destination)
        _check_destination(destination, force)
        staging = _make_staging(destination)
        try:
            yield staging
            _swap(staging, destination)
        except OSError as error:
            reason = error.strerror or error
            raise ExportError(
                f"{destination}: could not be written: {reason}; nothing was changed"
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def check_space(folder: Path, needed: int) -> None:
    """Refuse to start what the disk cannot hold.

    Raises:
        ExportError: fewer than ``needed`` bytes are free where ``folder`` will be.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ExportError(
            f"{folder}: the export needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; "
            "free some space or choose another disk with -o"
        )


def _prefix(destination: Path, kind: str) -> str:
    return f".{destination.name}.sdrt-{kind}-"


def _check_destination(destination: Path, force: bool) -> None:
    if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
        raise RequestError(f"{destination}: exists and is no folder; choose another with -o")
    if not destination.exists() or not any(destination.iterdir()):
        return
    if not force:
        raise RequestError(f"{destination}: exists; pass --force to replace it, or choose another with -o")
    if not (destination / "model_index.json").is_file():
        raise RequestError(
            f"{destination}: is not a model folder, so --force does not replace it; choose another with -o"
        )


def _swap(staging: Path, destination: Path) -> None:
    """Two renames; between them the destination is absent, and the old model is beside it for ``_recover``."""
    if destination.exists():
        old = Path(tempfile.mkdtemp(prefix=_prefix(destination, "old"), dir=destination.parent))
        destination.rename(old / "model")
        staging.rename(destination)
        shutil.rmtree(old)
    else:
        staging.rename(destination)


@contextmanager
def _only_writer(destination: Path) -> Iterator[None]:
    """Hold the lock of ``destination``, which lies in the cache so that nothing stays beside the model."""
    locks = cache_dir() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / hashlib.sha256(str(destination).encode()).hexdigest()[:16])
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RequestError(f"{destination}: another export is writing it; wait for it to end") from None
    try:
        yield
    finally:
        lock.release()


def _make_staging(destination: Path) -> Path:
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=_prefix(destination, "new"), dir=destination.parent))
        staging.chmod(0o755)
    except OSError as error:
        raise RequestError(
            f"{destination}: cannot write there: {error.strerror}; choose another folder with -o"
        ) from error
    return staging


def _recover(destination: Path) -> None:
    """Undo what a killed export left: put back a model that was moved away, remove abandoned staging folders."""
    if not destination.parent.is_dir():
        return
    for old in destination.parent.glob(f"{_prefix(destination, 'old')}*"):
        if (old / "model").is_dir() and not destination.exists():
            (old / "model").rename(destination)
        shutil.rmtree(old, ignore_errors=True)
    for staging in destination.parent.glob(f"{_prefix(destination, 'new')}*"):
        shutil.rmtree(staging, ignore_errors=True)
