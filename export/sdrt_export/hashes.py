"""Hashes of a folder's files, for the manifest."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from sdrt.model_folder.folder import FileRecord

__all__ = ["Hashes"]


class Hashes:
    """Hashes files in the background, while the next component is loaded."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._records: dict[Path, Future[FileRecord]] = {}

    def __enter__(self) -> Hashes:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown(cancel_futures=True)

    def begin(self, paths: Iterable[Path]) -> None:
        """Start to hash these files, which are complete."""
        self._records |= {path: self._worker.submit(FileRecord.of, path) for path in paths}

    def of_all(self) -> dict[str, FileRecord]:
        """The records of all files in the folder, by POSIX path."""
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        self.begin(path for path in files if path not in self._records)
        return {path.relative_to(self._folder).as_posix(): self._records[path].result() for path in files}
