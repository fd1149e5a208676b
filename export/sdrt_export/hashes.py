"""Hashes of a folder's files, for the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sdrt.model_folder.folder import FileRecord
from sdrt_export.tensors.array import Array

__all__ = ["HashedFile", "Hashes"]


class HashedFile:
    """A file that is hashed in the background while it is written, so that its bytes are read once."""

    def __init__(self, file: BinaryIO, worker: ThreadPoolExecutor) -> None:
        self._file, self._worker = file, worker
        self._digest, self._size = hashlib.sha256(), 0

    def write(self, array: Array) -> None:
        """Write the bytes of a contiguous array."""
        data = array.reshape(-1).view("u1").data if array.size else b""
        hashed = self._worker.submit(self._digest.update, data)
        self._file.write(data)
        hashed.result()
        self._size += array.nbytes

    def tell(self) -> int:
        """The number of bytes written."""
        return self._size

    def record(self) -> FileRecord:
        """The file's record."""
        return FileRecord(size=self._size, sha256=self._digest.hexdigest())


class Hashes:
    """The records of the files in `folder`: hashed while they are written, or at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._worker = ThreadPoolExecutor(max_workers=1)
        self._records: dict[Path, FileRecord] = {}

    def __enter__(self) -> Hashes:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.shutdown(cancel_futures=True)

    @contextmanager
    def create(self, path: Path) -> Iterator[HashedFile]:
        """Create a file to write to."""
        with path.open("xb") as stream:
            file = HashedFile(stream, self._worker)
            yield file
        self._records[path] = file.record()

    def of_all(self) -> dict[str, FileRecord]:
        """The records of all files in the folder, by POSIX path."""
        files = sorted(path for path in self._folder.rglob("*") if path.is_file())
        pending: dict[Path, Future[FileRecord]] = {
            path: self._worker.submit(FileRecord.of, path) for path in files if path not in self._records
        }
        found = self._records | {path: future.result() for path, future in pending.items()}
        return {path.relative_to(self._folder).as_posix(): found[path] for path in files}
