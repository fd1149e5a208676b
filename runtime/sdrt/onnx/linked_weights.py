"""Weights that a link in the model's folder moves elsewhere. ONNX Runtime refuses to follow such links.

It reads weights only from below the folder of the graph's real file, so that a graph cannot name a file anywhere on the
disk. A link is not the graph's doing: whoever made the folder put it there. So sdrt follows it, and passes the content.
It follows only links that lie beside the graph under the name that the graph gives, never a path in a graph.
"""

from __future__ import annotations

import errno
import mmap
from pathlib import Path
from typing import Any

from sdrt.errors import IntegrityError
from sdrt.onnx.graph_file import read_graph

__all__ = ["LinkedWeights", "is_refusal_of_links"]


def is_refusal_of_links(error: BaseException) -> bool:
    """Whether ONNX Runtime refuses weights because they lie outside of the graph's folder."""
    return "escapes model directory" in str(error)


class LinkedWeights:
    """The files of weights beside a graph, or beside the file that the graph is a link to.

    `graph` is the path of the graph.
    """

    def __init__(self, graph: Path) -> None:
        folders = dict.fromkeys([graph.resolve().parent, graph.parent])
        names = [name for name in sorted(_names(graph)) if name == Path(name).name]
        # Those beside the link itself come last, because ONNX Runtime looks for them first.
        self._files = {
            name: folder / name for folder in folders for name in names if _can_be_mapped(folder / name)
        }

    def __bool__(self) -> bool:
        return bool(self._files)

    def give_to(self, options: Any) -> list[mmap.mmap]:
        """Let a session with these `SessionOptions` read the files. The result must live until the session is made."""
        maps = [_mapped(path) for path in self._files.values()]
        options.add_external_initializers_from_files_in_memory(
            list(self._files), maps, [len(one) for one in maps]
        )
        return maps


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"{path} cannot be mapped") from error
        raise


def _names(graph: Path) -> frozenset[str]:
    try:
        return frozenset(read_graph(graph).external)
    except IntegrityError:
        return frozenset()  # ONNX Runtime's own message says more


def _can_be_mapped(path: Path) -> bool:
    # This excludes an empty file, and a device, which has no end.
    return path.is_file() and path.stat().st_size > 0
