"""Writes a folder whole or not at all."""

from __future__ import annotations

import glob
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sdrt.errors import ExportError, RequestError

__all__ = ["KINDS", "check_space", "replace_folder"]

KINDS: Mapping[str, str] = {"model folder": "model_index.json", "bundle": "step.onnx"}
"""A file that every folder of a kind has."""


@contextmanager
def replace_folder(
    destination: Path, force: bool, *, reading: Path | None = None, kind: str = "model folder"
) -> Iterator[Path]:
    """Yield a staging folder beside ``destination``, which replaces it when the block ends without an error.

    If the block raises, or the process dies, ``destination`` stays as it was. The next run removes what a killed run
    left. ``reading`` is a folder that the block reads, and that must not be replaced. ``kind`` is what a folder must be
    to be replaced, a key of ``KINDS``.

    Raises:
        RequestError: the destination exists and ``force`` is not set, cannot be written, is being written, or is or
            contains ``reading``.
        ExportError: a file cannot be read or written.
    """
    destination = _unique(destination)
    if reading is not None and reading.resolve().is_relative_to(destination):
        raise RequestError.advised(
            f"{destination} contains {reading}, which is read",
            "choose another folder for the output",
            path=destination,
        )
    with _only_writer(destination):
        _recover(destination)
        _check_destination(destination, force, kind)
        staging = _make_staging(destination)
        try:
            yield staging
            _swap(staging, destination)
        except OSError as error:
            # Any file may cause this, by a full disk or a missing source. A failed swap has been undone.
            name, reason = error.filename or destination, error.strerror or error
            raise ExportError(f"{name}: {reason}; {destination} was not changed", path=destination) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def check_space(folder: Path, needed: int) -> None:
    """Check the free space on the disk.

    Raises:
        ExportError: fewer than ``needed`` bytes are free where ``folder`` will be.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise ExportError.advised(
            f"{folder}: the export needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free",
            "free some space or choose another disk",
            path=folder,
        )


def _unique(destination: Path) -> Path:
    """One path for a folder, by whichever links it is reached, for its lock and leftovers. Links at the end stay."""
    if destination.name in ("", ".."):
        return destination.resolve()
    return destination.parent.resolve() / destination.name


def _prefix(destination: Path, kind: str) -> str:
    return f".{destination.name}.sdrt-{kind}-"


def _beside(destination: Path, kind: str) -> Path:
    return destination.with_name(f"{_prefix(destination, kind)}{uuid.uuid4().hex[:12]}")


def _leftovers(destination: Path, kind: str) -> list[Path]:
    return list(destination.parent.glob(f"{glob.escape(_prefix(destination, kind))}*"))


def _check_destination(destination: Path, force: bool, kind: str) -> None:
    if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
        raise RequestError.advised(
            f"{destination} exists and is not a folder", "choose another name", path=destination
        )
    if not destination.exists() or not any(destination.iterdir()):
        return
    if not force:
        raise RequestError.advised(
            f"{destination} exists already",
            "pass --force to replace it, or choose another folder",
            path=destination,
        )
    if not (destination / KINDS[kind]).is_file():
        raise RequestError.advised(
            f"{destination} is not a {kind}, so --force does not replace it",
            "choose another folder",
            path=destination,
        )


def _swap(staging: Path, destination: Path) -> None:
    """Swap by two renames. Between them only the old model exists, beside the destination, for ``_recover``."""
    if not destination.exists():
        staging.rename(destination)
        return
    old = _beside(destination, "old")
    old.mkdir()
    try:
        destination.rename(old / "model")
        staging.rename(destination)
    except BaseException:
        # If this fails too, `_recover` brings the old model back in the next run.
        if (old / "model").exists() and not destination.exists():
            (old / "model").rename(destination)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _only_writer(destination: Path) -> Iterator[None]:
    """Hold the lock of ``destination``, a file beside it, so that all users and containers see it."""
    path = destination.parent / f".{destination.name}.sdrt-lock"
    lock = FileLock(path)
    made = [parent for parent in destination.parents if not parent.exists()]
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        # filelock takes some folders that cannot be written, such as /proc, for locked ones.
        path.touch()
        lock.acquire(timeout=0)
    except Timeout:
        raise RequestError.advised(
            f"{destination}: another export is writing this folder", "wait until it ends", path=destination
        ) from None
    except OSError as error:
        raise _unwritable(destination, error) from error
    try:
        yield
    finally:
        # Remove the file while the lock is held, so that no process locks a removed file. Windows refuses that, and
        # keeps the empty file.
        with suppress(OSError):
            path.unlink()
        lock.release()
        # Remove the folders that were made, if they are still empty because the export failed.
        with suppress(OSError):
            for parent in made:
                parent.rmdir()


def _make_staging(destination: Path) -> Path:
    staging = _beside(destination, "new")
    try:
        staging.mkdir()
    except OSError as error:
        raise _unwritable(destination, error) from error
    return staging


def _unwritable(destination: Path, error: OSError) -> RequestError:
    return RequestError.advised(
        f"{destination} cannot be written ({error.strerror})", "choose another folder", path=destination
    )


def _recover(destination: Path) -> None:
    """Clean up after a killed export: put back a model that was moved away, and remove staging folders."""
    if not destination.parent.is_dir():
        return
    for old in _leftovers(destination, "old"):
        if (old / "model").is_dir() and not destination.exists():
            (old / "model").rename(destination)
        shutil.rmtree(old, ignore_errors=True)
    for staging in _leftovers(destination, "new"):
        shutil.rmtree(staging, ignore_errors=True)
