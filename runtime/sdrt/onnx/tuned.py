"""Graphs in the user's cache as ONNX Runtime runs them on this machine's CPU: optimized, with packed weights.

A session of such a graph is created in a fraction of the time, and its weights stay in the mapped file, which processes
share. Each is in a folder of its own, which appears when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sdrt.common.cache import cache_root
from sdrt.common.file_hash import sha256
from sdrt.common.version import __version__
from sdrt.errors import RequestError
from sdrt.onnx.cpu_layout import cpu_layout
from sdrt.onnx.engine import FAILURES, ort
from sdrt.onnx.engine_cache import Weights
from sdrt.onnx.error_messages import Subject
from sdrt.onnx.graph_file import FLOAT32, ElsewhereWeight, read_graph
from sdrt.onnx.memory_graph import MemoryGraph
from sdrt.onnx.tuned_weights import TunedWeight

__all__ = ["MOST_BYTES", "NOT_TUNED", "TunedGraph", "clear", "every_tuned_graph", "make_room", "tuned_graph"]

MOST_BYTES = 50 * 10**9
"""How many bytes all tuned graphs of a machine may take together."""

NOT_TUNED = "not tuned for this machine"
"""What messages say of a graph that was to be tuned."""

_GRAPH, _WEIGHTS, _RECORD = "graph.onnx", "weights", "tuned.json"
# The record goes first, because no graph counts without it.
_FILES = (_RECORD, _GRAPH, _WEIGHTS)
_MOST_RECORDED = 1 << 24
_PREFIX, _PARTIAL, _DIGEST = "cpu-", ".partial-", "sha256"
_LEFT_FREE = 10**9
_ABANDONED = 24 * 3600
_NO_PLACE: tuple[type[BaseException], ...] = (OSError, RequestError, *FAILURES)


@dataclass(frozen=True, kw_only=True)
class TunedGraph:
    """A place for a tuned graph. It may be empty.

    Attributes:
        folder: the place.
        of: the graph's file, for users.
    """

    folder: Path
    of: Path

    @property
    def graph(self) -> Path:
        """The graph's file."""
        return self.folder / _GRAPH

    @property
    def record(self) -> dict[str, Any] | None:
        """What `tuned.json` says. None if it is missing or damaged."""
        try:
            found = _read_record(self.folder / _RECORD)
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) and isinstance(found.get("files"), dict) else None

    def is_whole(self) -> bool:
        """Whether its files are there as they were written. Files that changed since then are hashed."""
        record = self.record
        if record is None or record["files"].keys() != {_GRAPH, _WEIGHTS}:
            return False
        return all(_is_same(self.folder / name, entry) for name, entry in record["files"].items())

    def changed(self, values: Mapping[str, NDArray[Any]]) -> MemoryGraph | None:
        """The tuned graph with other values for weights of its graph. None if it stores one of them as something else.

        Raises `IntegrityError` or `OSError` if the graph is damaged.
        """
        graph, places = read_graph(self.graph), (self.record or {}).get("weights")
        if not isinstance(places, dict) or not values.keys() <= places.keys():
            return None
        try:
            stored = {name: TunedWeight.read(places[name]) for name in values}
            changes = {one.name: one(values[name]) for name, one in stored.items()}
        except (TypeError, ValueError):
            return None
        if not all(_is_float32(graph.weights.get(name), value.shape) for name, value in changes.items()):
            return None
        return graph.with_values(changes, is_optimized=True)

    def used(self) -> None:
        """Note that it was used now."""
        with suppress(OSError):
            os.utime(self.folder / _RECORD)

    @property
    def last_used(self) -> float:
        """When it was used last, in seconds since 1970. 0 if it is not whole."""
        with suppress(OSError):
            return (self.folder / _RECORD).stat().st_mtime
        return 0.0

    @property
    def size(self) -> int:
        """The bytes of its files."""
        return sum(_bytes(self.folder / name) for name in _FILES)

    @property
    def is_there(self) -> bool:
        """Whether something of it is there."""
        return any((self.folder / name).exists() for name in _FILES)

    def remove(self) -> None:
        """Remove it. Processes that use it keep it until they end, except on Windows, where it stays."""
        # Nothing but its own files: a link is the user's, and so is another file.
        for name in () if self.folder.is_symlink() else _FILES:
            with suppress(OSError):
                (self.folder / name).unlink()
        with suppress(OSError):
            self.folder.unlink() if self.folder.is_symlink() else self.folder.rmdir()

    def begin(self) -> Path:
        """Make a folder beside it, in which it is written. Raises `OSError`."""
        partial = self.folder.with_name(f"{_PARTIAL}{uuid.uuid4().hex}")
        partial.mkdir(parents=True)
        return partial

    def finish(self, partial: Path, weights: Mapping[str, TunedWeight]) -> None:
        """Move the written folder here. If another process was faster, its result stays. Raises `OSError`.

        `weights` says how it stores those of its graph.
        """
        files = {path.name: _entry(path) for path in (partial / _GRAPH, partial / _WEIGHTS)}
        versions = {"sdrt": __version__, "onnxruntime": ort.__version__}
        places = {name: one.record() for name, one in weights.items()}
        _write_record(
            partial / _RECORD, {"of": str(self.of), "versions": versions, "files": files, "weights": places}
        )
        try:
            partial.rename(self.folder)
        except OSError:
            if not self.is_whole():
                self.remove()
                partial.rename(self.folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def tuned_graph(
    subject: Subject, weights: Weights, memory: MemoryGraph | None, *, write: bool = False
) -> TunedGraph:
    """The place of a graph on this machine. Unless `write`, it is asked for only to load what is there.

    A place is for one graph with these weights, one version of ONNX Runtime, and one kind of CPU. With adapters, the
    graph has the place that it has without them.

    Raises `LookupError`, which says why there is no place.
    """
    try:
        root = cache_root() / "compiled"
        if not write and next(root.glob(f"{_PREFIX}*"), None) is None:
            raise LookupError("no graph is tuned")
        identity, layout = _identity(weights, memory), cpu_layout()
    except _NO_PLACE as error:
        raise LookupError(str(error)) from error
    key = json.dumps([identity, weights.dtype, subject.name, subject.path.name])
    name = f"{subject.name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}"
    return TunedGraph(folder=root / f"{_PREFIX}{layout[:24]}" / name, of=subject.path)


def _identity(weights: Weights, memory: MemoryGraph | None) -> list[str | None]:
    """What identifies a graph and its weights before adapters change them. Raises `LookupError` if nothing does."""
    folder = weights.base if weights.adapted else weights.digest
    if memory is None or not memory.structure:
        # All weights are in the model's folder.
        found = [folder, "" if memory is None else _graph_in(memory)]
    else:
        # Some may be elsewhere: those of an IP-Adapter are in a file of its own.
        found = [_digest(memory.files), folder or "", memory.structure]
    if found[0] is None:
        raise LookupError("nothing identifies its weights")
    return found


def _graph_in(memory: MemoryGraph) -> str:
    """What identifies a graph in memory. Empty for that of a file."""
    return hashlib.sha256(memory.content).hexdigest() if memory.structure is None else ""


def _digest(files: Iterable[Path]) -> str | None:
    """What identifies the content of files, as long as nobody writes to them. None without files."""
    states = [(file, file.stat()) for file in files]
    facts = [[str(file), state.st_size, state.st_mtime_ns] for file, state in states]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest() if facts else None


def every_tuned_graph() -> list[TunedGraph]:
    """The tuned graphs of this machine, for any CPU and version, the last used first. Raises `RequestError`."""
    folders = [folder for folder in _folders() if not folder.name.startswith(_PARTIAL)]
    found = [one for one in (TunedGraph(folder=folder, of=Path()) for folder in folders) if one.is_there]
    named = [replace(one, of=Path(str((one.record or {}).get("of", "unknown")))) for one in found]
    return sorted(named, key=lambda one: -one.last_used)


def clear() -> list[TunedGraph]:
    """Remove all tuned graphs, and what other processes are writing. Returns those that stay. Raises `RequestError`."""
    _remove_abandoned(0)
    for one in every_tuned_graph():
        one.remove()
    return every_tuned_graph()


def make_room(size: int) -> str:
    """Make room for a tuned graph of about `size` bytes. Returns why there is none, or nothing.

    The graphs that were used longest ago are removed, until all together take at most `MOST_BYTES`.
    """
    if size > MOST_BYTES:
        return f"it would take {size / 1e9:.1f} GB, and all together may take {MOST_BYTES / 1e9:.0f} GB"
    _remove_abandoned(_ABANDONED)
    stay, go = every_tuned_graph(), list[TunedGraph]()
    while stay and sum(one.size for one in stay) + size > MOST_BYTES:
        go.append(stay.pop())
    root = cache_root()
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free + sum(one.size for one in go) < size + _LEFT_FREE:
        return (
            f"it needs about {(size + _LEFT_FREE) / 1e9:.1f} GB of disk, and {free / 1e9:.1f} GB are free in "
            f"{root}; SDRT_CACHE chooses another folder"
        )
    for one in go:
        one.remove()
    return ""


def _remove_abandoned(seconds: float) -> None:
    """Remove what processes began to write this long ago. They have ended too early, or fail now."""
    for folder in _folders():
        with suppress(OSError):
            if folder.name.startswith(_PARTIAL) and time.time() - folder.stat().st_mtime >= seconds:
                shutil.rmtree(folder, ignore_errors=True)


def _folders() -> Iterator[Path]:
    for kind in (cache_root() / "compiled").glob(f"{_PREFIX}*"):
        with suppress(OSError):
            yield from [folder for folder in kind.iterdir() if folder.is_dir() and not folder.is_symlink()]


def _read_record(path: Path) -> dict[str, Any] | None:
    """The record in a file. None if it is not as it was written. Raises `OSError`, `ValueError`, `RecursionError`."""
    if not path.is_file() or path.stat().st_size > _MOST_RECORDED:
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    digest = found.pop(_DIGEST, None) if isinstance(found, dict) else None
    return found if digest is not None and digest == _digest_of(found) else None


def _write_record(path: Path, record: dict[str, Any]) -> None:
    path.write_text(json.dumps({**record, _DIGEST: _digest_of(record)}) + "\n", encoding="utf-8")


def _digest_of(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _bytes(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _is_float32(weight: ElsewhereWeight | None, shape: tuple[int, ...]) -> bool:
    return weight is not None and (weight.dtype, weight.shape) == (FLOAT32, shape)


def _entry(path: Path) -> dict[str, Any]:
    with path.open("r+b") as file:
        # The record must not reach the disk before what it describes.
        os.fsync(file.fileno())
    state = path.stat()
    return {"size": state.st_size, "mtime_ns": state.st_mtime_ns, "sha256": sha256(path)}


def _is_same(path: Path, entry: Any) -> bool:
    try:
        state = path.stat()
        if state.st_size != entry["size"]:
            return False
        if state.st_mtime_ns == entry["mtime_ns"]:
            return True
        if sha256(path) != entry["sha256"]:
            return False
    except (OSError, KeyError, TypeError):
        return False
    # So that a copied file is hashed only once.
    with suppress(OSError, TypeError, ValueError, OverflowError):
        os.utime(path, ns=(state.st_atime_ns, entry["mtime_ns"]))
    return True
