"""Graphs in files: read without their weights, changed, and written again with the weights one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdrt_export.graphs.files import append, plain_file
from sdrt_export.graphs.graph import Place, point_to
from sdrt_export.graphs.weights import Array, Shape

__all__ = ["StoredGraph"]

# Smaller values stay in the graph's own file.
_SMALLEST = 256


class StoredGraph:
    """The graph in a file. Its weights are views of the mapped files that it names.

    `initializers` are its weights and constants by name.
    """

    def __init__(self, path: Path) -> None:
        """Read a graph.

        Raises:
            OSError: it cannot be read.
        """
        self.model = onnx.load(str(path), load_external_data=False)
        self.folder = path.parent
        self.initializers = {tensor.name: tensor for tensor in self.model.graph.initializer}
        self._files: dict[str, Array] = {}
        self._converted: dict[str, Callable[[], Array]] = {}
