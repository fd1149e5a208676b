"""`sdrt.json`: what a model folder was made from and with, and the hash of every file in it.

ONNX Runtime loads weights with a flipped bit without a word, so the hashes are the only guard. They are
checked once per file and remembered, by path, size and modification time, outside the model folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from sdrt.config import Notices
from sdrt.errors import IntegrityError, UnsupportedModelError

__all__ = ["FORMAT_VERSION", "MANIFEST_NAME", "FileRecord", "Manifest", "read_json", "sha256"]

FORMAT_VERSION = 1
MANIFEST_NAME = "sdrt.json"
_BLOCK = 1 << 20


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`. Raises `IntegrityError` for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IntegrityError(f"{path} is missing: copy the whole model folder, or export it again") from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise IntegrityError(f"{path} is not JSON ({error}): export the model again") from None
    except OSError as error:
        raise IntegrityError(f"{path} cannot be read ({error.strerror or error})") from None
    if not isinstance(value, dict):
        raise IntegrityError(
            f"{path} holds a JSON {type(value).__name__}, expected an object: export it again"
        )
    return value


def sha256(path: Path) -> str:
    """Hex digest of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """Size in bytes and SHA-256 of one file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Measure `path`."""
        return cls(size=path.stat().st_size, sha256=sha256(path))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `sdrt.json`; `files` maps POSIX paths relative to the folder, `sdrt.json` left out."""

    family: str
    target: str
    dtype: str
    opset: int
    exporter: str
    source: Mapping[str, str | None]
    versions: Mapping[str, str]
    components: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read `path`, an `sdrt.json` or the folder that holds one."""
        path = path / MANIFEST_NAME if path.is_dir() else path
        data = read_json(path)
        version = data.get("format_version")
        if version != FORMAT_VERSION:
            raise UnsupportedModelError(
                f"{path}: format_version is {version!r}, this sdrt reads {FORMAT_VERSION}: "
                "upgrade with pip install -U sdrt, or export the model again"
            )
        _check_types(path, data)
        return cls(**(data | {"files": {name: _record(path, name, data) for name in data["files"]}}))

    def write(self, path: Path) -> None:
        """Write to `path`, an `sdrt.json` or a folder, through a temporary file."""
        path = path / MANIFEST_NAME if path.is_dir() else path
        _write_atomically(path, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")


def _check_types(path: Path, data: dict[str, Any]) -> None:
    known: dict[str, type] = {item.name: dict for item in fields(Manifest)}
    known |= dict.fromkeys(("family", "target", "dtype", "exporter"), str)
    known |= dict.fromkeys(("format_version", "opset"), int)
    if unknown := sorted(data.keys() - known.keys()):
        raise UnsupportedModelError(f"{path}: unknown key {unknown[0]!r}: upgrade with pip install -U sdrt")
    for key, kind in known.items():
        if not isinstance(data.get(key), kind):
            raise IntegrityError(f"{path}: {key!r} must be a JSON {kind.__name__}: export the model again")


def _record(path: Path, name: str, data: dict[str, Any]) -> FileRecord:
    entry, parts = data["files"][name], PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name:
        raise IntegrityError(f"{path}: file {name!r} lies outside the model folder: export the model again")
    if not isinstance(entry, dict) or entry.keys() != {"size", "sha256"}:
        raise IntegrityError(f"{path}: {name!r} must have a size and a sha256: export the model again")
    return FileRecord(**entry)


def _write_atomically(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


class Verifier:
    """Checks files against their records; remembers in `state` (a JSON file) which ones it has hashed."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._seen = self._read()

    def check(self, folder: Path, files: Mapping[str, FileRecord], notices: Notices) -> None:
        """Raise `IntegrityError` for the first file that is missing or altered."""
        pending = [name for name in files if not self.remembers(folder / name, files[name])]
        for name in pending:
            _check_size(folder / name, files[name])
        if pending:
            total = sum(files[name].size for name in pending)
            notices.inform(f"checking the hashes of {len(pending)} files ({total / 1e6:.0f} MB), once")
        for name in pending:
            _check_hash(folder / name, files[name])
            self._seen[str((folder / name).resolve())] = _fingerprint(folder / name, files[name])
        if pending:
            self._write()

    def remembers(self, path: Path, record: FileRecord) -> bool:
        """Whether `path` was hashed before, with `record`'s digest, and has not been touched since."""
        return path.is_file() and self._seen.get(str(path.resolve())) == _fingerprint(path, record)

    def _read(self) -> dict[str, list[Any]]:
        # A damaged or missing memory costs a second hashing, nothing else.
        try:
            seen = json.loads(self._state.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return seen if isinstance(seen, dict) else {}

    def _write(self) -> None:
        # Another process may have added entries in the meantime; one lost entry is one more hashing.
        try:
            self._state.parent.mkdir(parents=True, exist_ok=True)
            _write_atomically(self._state, json.dumps(self._read() | self._seen))
        except OSError:
            # A read-only home: the files are checked again next time.
            return


def _fingerprint(path: Path, record: FileRecord) -> list[Any]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, record.sha256]


def _check_size(path: Path, record: FileRecord) -> None:
    if not path.is_file():
        raise IntegrityError(f"{path} is missing: copy the whole model folder, or export it again")
    if (size := path.stat().st_size) != record.size:
        raise IntegrityError(
            f"{path} has {size} bytes, expected {record.size}: copy or export the model again"
        )


def _check_hash(path: Path, record: FileRecord) -> None:
    if (found := sha256(path)) != record.sha256:
        raise IntegrityError(
            f"{path} is damaged: its sha256 is {found[:12]}…, expected {record.sha256[:12]}…: "
            "copy or export the model again"
        )


def iter_files(folder: Path) -> Iterator[str]:
    """POSIX names, relative to `folder`, of every file that a manifest lists, in order."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != MANIFEST_NAME:
            yield name
