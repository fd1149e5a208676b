"""`sdrt.json`, the manifest of a model folder: its source, its versions, and the hash of every file in it.

ONNX Runtime loads damaged weights without an error, so only the hashes reveal damage. sdrt checks each file once.
It remembers the result by path, size and modification time, outside the model folder.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

from sdrt.common.file_hash import sha256
from sdrt.common.messages import wrong_key
from sdrt.common.notices import Notices
from sdrt.errors import IntegrityError, UnsupportedModelError
from sdrt.model_folder.manifest_defaults import DEFAULT_CHECKS

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST_NAME",
    "FileRecord",
    "Manifest",
    "component_of",
    "damaged",
    "missing",
    "read_downloaded",
    "read_json",
    "readable",
    "unreadable",
]

FORMAT_VERSION = 1
MANIFEST_NAME = "sdrt.json"
_MOST_JSON = (
    32 << 20
)  # the largest are tokenizers' files, of a few megabytes; Python takes 20 times as much memory
_AGAIN = "copy or export the model again"
_EXPORT = "export the model again"
_WHOLE = "copy the whole model folder, or export it again"


def missing(path: Path, component: str | None = None) -> IntegrityError:
    """Return the error for a file that a model folder lacks."""
    if path.is_symlink():
        return damaged(
            path, f"{path} is a link to {path.readlink()}, which does not exist", _WHOLE, component
        )
    return damaged(path, f"{path} is missing", _WHOLE, component)


def component_of(name: str) -> str | None:
    """Return the component that a file belongs to, by its path relative to the model folder."""
    folder, slash, _ = name.partition("/")
    return folder if slash else None


def damaged(path: Path, problem: str, remedy: str = _EXPORT, component: str | None = None) -> IntegrityError:
    """Return the error for a file that is not as the export wrote it."""
    return IntegrityError.advised(problem, remedy, path=path, component=component)


def read_json(path: Path, component: str | None = None, *, remedy: str = _EXPORT) -> dict[str, Any]:
    """Read the JSON object in the file `path`, which errors say belongs to `component`.

    `remedy` is what errors advise if its content is damaged.

    Raises:
        IntegrityError: the file is missing, unreadable or holds something else.
    """
    try:
        if path.exists() and not path.is_file():
            raise damaged(path, f"{path} is not a file", _WHOLE, component)
        if (size := path.stat().st_size) > _MOST_JSON:
            problem = f"{path} has {size} bytes, expected at most {_MOST_JSON}"
            raise damaged(path, problem, remedy, component)
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise missing(path, component) from None
    except (ValueError, RecursionError) as error:
        # ValueError means: not UTF-8, not JSON, or a number with more digits than Python reads.
        raise damaged(path, f"{path} is not JSON ({error})", remedy, component) from None
    except OSError as error:
        raise unreadable(path, error) from None
    if not isinstance(value, dict):
        raise damaged(
            path, f"{path} holds a JSON {type(value).__name__}, expected an object", remedy, component
        )
    return value


def read_downloaded(path: Path, component: str | None = None) -> dict[str, Any]:
    """The same as `read_json`, for a file of a checkpoint, which no export makes again."""
    return read_json(path, component, remedy="download it again")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn an `OSError` for a file in `path` into `IntegrityError`."""
    try:
        yield
    except OSError as error:
        raise unreadable(error.filename or path, error) from error


def unreadable(path: str | Path, error: OSError) -> IntegrityError:
    """Return the `IntegrityError` for a file that the system cannot read."""
    return IntegrityError.advised(
        f"{path} cannot be read ({error.strerror or error})",
        "check its permissions, or copy the model again",
        path=Path(path),
    )


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """The size in bytes and the SHA-256 (hex) of one file."""

    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> FileRecord:
        """Return the record of the file `path`."""
        return cls(size=path.stat().st_size, sha256=sha256(path))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `sdrt.json`.

    Attributes:
        family: the model's family.
        target: the target that the model was exported for.
        dtype: the precision of the weights, such as "float32".
        opset: the version of the ONNX operator set.
        exporter: the program that wrote the graphs.
        source: the `id` and `revision` of the checkpoint.
        versions: the version of each package that took part in the export.
        components: the parity results and details of each component.
        defaults: values that calls use if they give none: `guidance_scale`, `num_inference_steps` and `timesteps`.
            `origin` says in words where they come from.
        files: the record of each file but `sdrt.json`, by its POSIX path relative to the folder.
        format_version: the version of this format.
    """

    family: str
    target: str
    dtype: str
    opset: int
    exporter: str
    source: Mapping[str, str | None]
    versions: Mapping[str, str]
    components: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read `path`, which is an `sdrt.json` or a folder with one.

        Raises:
            IntegrityError: the file is missing or damaged.
            UnsupportedModelError: a newer sdrt wrote it.
        """
        path = path / MANIFEST_NAME if path.is_dir() and path.name != MANIFEST_NAME else path
        data = read_json(path)
        version = data.get("format_version")
        if version != FORMAT_VERSION:
            raise UnsupportedModelError.advised(
                f"{path}: format_version is {version!r}, but this sdrt reads {FORMAT_VERSION}",
                "upgrade with pip install -U sdrt, or export the model again",
                path=path,
            )
        data.setdefault("defaults", {})  # older exports have none
        _check_types(path, data)
        return cls(**(data | {"files": _records(path, data["files"])}))

    def write(self, path: Path) -> None:
        """Write the manifest to `path`, which is an `sdrt.json` or a folder, through a temporary file."""
        path = path / MANIFEST_NAME if path.is_dir() else path
        _write_atomically(path, json.dumps(asdict(self), indent=2, sort_keys=True) + "\n")


def _check_types(path: Path, data: dict[str, Any]) -> None:
    known: dict[str, type] = {item.name: dict for item in fields(Manifest)}
    known |= dict.fromkeys(("family", "target", "dtype", "exporter"), str)
    known |= dict.fromkeys(("format_version", "opset"), int)
    if unknown := sorted(data.keys() - known.keys()):
        raise UnsupportedModelError.advised(
            f"{path}: unknown key {unknown[0]!r}", "upgrade with pip install -U sdrt", path=path
        )
    for key, kind in known.items():
        if not isinstance(data.get(key), kind) or isinstance(data[key], bool):
            raise damaged(path, f"{path}: {key!r} must be a JSON {kind.__name__}")
    for key in ("source", "versions"):
        for name, value in data[key].items():
            if not (isinstance(value, str) or (value is None and key == "source")):
                raise damaged(path, f"{path}: {key}.{name} must be a JSON str")
    for name, value in data["defaults"].items():
        if name not in DEFAULT_CHECKS:
            raise wrong_key(path, "a key of defaults", name, " or ".join(DEFAULT_CHECKS), path=path)
        fits, expected = DEFAULT_CHECKS[name]
        if not fits(value):
            raise wrong_key(path, f"defaults.{name}", value, expected, path=path)
    for name, entry in data["components"].items():
        if not _has_parity(entry):
            raise damaged(
                path, f"{path}: components.{name} must list relative errors under 'parity'", component=name
            )


def _has_parity(entry: object) -> bool:
    rows = entry.get("parity", []) if isinstance(entry, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return False
    errors = [row.get("relative_error") for row in rows]
    # Python counts True and False as integers.
    return all(type(one) is not bool and isinstance(one, (int, float)) and 0 <= one < 1e9 for one in errors)


def _records(path: Path, files: dict[str, Any]) -> dict[str, FileRecord]:
    """Read the record of each file. Raises `IntegrityError` for a damaged record or a path outside the folder."""
    records = {}
    for name, entry in files.items():
        _check_file_name(path, name)
        if not isinstance(entry, dict) or entry.keys() != {"size", "sha256"}:
            raise damaged(path, f"{path}: {name!r} must have a size and a sha256")
        size, digest = entry["size"], entry["sha256"]
        if type(size) is not int or size < 0:
            raise damaged(path, f"{path}: the size of {name!r} must be a count of bytes")
        if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
            raise damaged(path, f"{path}: the sha256 of {name!r} must be 64 hex digits")
        records[name] = FileRecord(size=size, sha256=digest)
    return records


def _check_file_name(path: Path, name: str) -> None:
    parts = PurePosixPath(name)
    # Refused on every system: on Windows "C:/x" is on a drive and a backslash separates folders.
    odd = any(letter in name for letter in "\\:\0") or any("\ud800" <= letter <= "\udfff" for letter in name)
    if parts.is_absolute() or ".." in parts.parts or odd or not parts.parts:
        raise damaged(path, f"{path}: file {name!r} lies outside the model folder")


def _write_atomically(path: Path, text: str) -> None:
    # The tempfile module does not fit: only the owner can read its files, but a model may be shared.
    temporary = path.with_name(f".sdrt-{uuid.uuid4().hex}.part")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
        temporary.replace(path)
    except BaseException:  # Ctrl-C too
        temporary.unlink(missing_ok=True)
        raise


class Verifier:
    """Checks files against their records. The JSON file `state`, if any, remembers which files were hashed."""

    def __init__(self, state: Path | None) -> None:
        self._state = state
        self._seen = self._read()

    def check(self, folder: Path, files: Mapping[str, FileRecord], notices: Notices) -> None:
        """Check files, given by relative path. Raises `IntegrityError` for the first missing or damaged file."""
        with readable(folder):
            pending = [name for name in files if not self.remembers(folder / name, files[name])]
            for name in pending:
                _check_size(folder, name, files[name])
        if not pending:
            return
        total = sum(files[name].size for name in pending)
        try:
            with notices.board() as board, readable(folder):
                board.show("hashes", f"checking {len(pending)} files, {total / 1e6:.0f} MB, once")
                for name in pending:
                    _check_hash(folder, name, files[name])
                    self._seen[str((folder / name).resolve())] = _fingerprint(folder / name, files[name])
                board.show("hashes", "correct", done=True)
        finally:
            # This runs after an error too, so that intact files need not be hashed again.
            self._write()

    def remembers(self, path: Path, record: FileRecord) -> bool:
        """Tell whether the file `path` was found to match `record` before, and has not changed since."""
        if self._state is None or not path.is_file() or (seen := self._seen.get(str(path.resolve()))) is None:
            return False
        return seen == _fingerprint(path, record)

    def _read(self) -> dict[str, list[Any]]:
        # If the state is damaged or missing, the files are hashed again.
        try:
            seen = json.loads(self._state.read_text(encoding="utf-8")) if self._state else {}
        except (OSError, ValueError, RecursionError):
            return {}
        return seen if isinstance(seen, dict) else {}

    def _write(self) -> None:
        if self._state is None:
            return
        # Another process may have added entries meanwhile. If one gets lost, its file is hashed once more.
        try:
            self._state.parent.mkdir(parents=True, exist_ok=True)
            seen = self._read() | self._seen
            there = {path: entry for path, entry in seen.items() if os.path.exists(path)}  # noqa: PTH110
            _write_atomically(self._state, json.dumps(there))
        except OSError:
            # The cache is read-only, so the files are checked again next time.
            return


def _fingerprint(path: Path, record: FileRecord) -> list[Any]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, record.sha256]


def _check_size(folder: Path, name: str, record: FileRecord) -> None:
    path = folder / name
    if not path.is_file():
        raise missing(path, component_of(name))
    if (size := path.stat().st_size) != record.size:
        raise damaged(path, f"{path} has {size} bytes, expected {record.size}", _AGAIN, component_of(name))


def _check_hash(folder: Path, name: str, record: FileRecord) -> None:
    path = folder / name
    if (found := sha256(path)) != record.sha256:
        differs = f"its sha256 is {found[:12]}…, expected {record.sha256[:12]}…"
        raise damaged(path, f"{path} is damaged: {differs}", _AGAIN, component_of(name))
