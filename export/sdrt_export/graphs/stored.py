"""Graphs in files: read without their weights, changed, and written again with the weights one by one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sdrt.errors import IntegrityError
from sdrt_export.graphs.files import append, plain_file
from sdrt_export.graphs.graph import Place, external
from sdrt_export.tensors.array import Array, Shape

__all__ = ["StoredGraph"]

# Smaller values stay in the graph's own file.
_SMALLEST = 256


class StoredGraph:
    """The graph in a file. Weights are views of the mapped files that it names, until they are converted.

    Attributes:
        model: the graph, to be changed by its users. Its initializers are not: they are in `initializers` by name.
    """

    def __init__(self, model: onnx.ModelProto, folder: Path = Path()) -> None:
        self.model, self.folder = model, folder
        self.initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self._files: dict[str, Array] = {}
        self._converted: dict[str, Callable[[], Array]] = {}

    @classmethod
    def read(cls, path: Path) -> StoredGraph:
        """Read a graph. Raises `OSError`."""
        return cls(onnx.load(str(path), load_external_data=False), path.parent)

    @property
    def nodes(self) -> list[onnx.NodeProto]:
        """The graph's nodes, in order."""
        return list(self.model.graph.node)

    @nodes.setter
    def nodes(self, nodes: list[onnx.NodeProto]) -> None:
        # Copies, because protobuf frees nodes that are taken out of a graph.
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.model.graph.node[:]
        self.model.graph.node.extend(copies)

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The entries of the model's metadata."""
        return {entry.key: entry.value for entry in self.model.metadata_props}

    # --- initializers ---------------------------------------------------------------------------------------

    def shape(self, name: str) -> Shape:
        """The shape of an initializer."""
        return tuple(self.initializers[name].dims)

    def dtype(self, name: str) -> np.dtype[Any]:
        """The type of an initializer."""
        return np.dtype(helper.tensor_dtype_to_np_dtype(self.initializers[name].data_type))

    def array(self, name: str) -> Array:
        """An initializer's value, which is computed each time if it was converted.

        Raises:
            IntegrityError: its file is not where the graph says.
        """
        if name in self._converted:
            return self._converted[name]()
        tensor = self.initializers[name]
        if tensor.data_location == TensorProto.EXTERNAL:
            return self._mapped(tensor)
        made: Array = numpy_helper.to_array(tensor)
        return made

    def place(self, name: str) -> Place | None:
        """Where an initializer's bytes are. None for those in the graph's own file."""
        tensor = self.initializers[name]
        if name in self._converted or tensor.data_location != TensorProto.EXTERNAL:
            return None
        entries = {entry.key: entry.value for entry in tensor.external_data}
        length = int(np.prod(tensor.dims, dtype=np.int64)) * self.dtype(name).itemsize
        return Place(
            location=entries["location"],
            offset=int(entries.get("offset", 0)),
            length=int(entries.get("length", length)),
        )

    def constant(self, name: str, array: Any) -> str:
        """Add an initializer, if there is none of this name. Return the name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(array), name)
        return name

    def convert(
        self, name: str, dtype: Any, make: Callable[[], Array], *, shape: Shape | None = None
    ) -> None:
        """Set an initializer to the value that `make` returns, of the same `shape` by default.

        It is called when the value is needed.
        """
        self._converted[name] = make
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))
        tensor.dims.extend(self.shape(name) if shape is None else shape)
        self.initializers[name] = tensor

    def _mapped(self, tensor: TensorProto) -> Array:
        place = self.place(tensor.name)
        assert place is not None
        if place.location not in self._files:
            self._files[place.location] = self._map(place.location)
        data = self._files[place.location][place.offset : place.offset + place.length]
        dtype = self.dtype(tensor.name)
        if data.nbytes != int(np.prod(tensor.dims, dtype=np.int64)) * dtype.itemsize:
            raise IntegrityError.advised(
                f"{self.folder / place.location} is too short for {tensor.name}", "export the model again"
            )
        array: Array = data.view(dtype).reshape(tuple(tensor.dims))
        return array

    def _map(self, location: str) -> Array:
        path = self.folder / location
        if Path(location).name != location or not path.is_file():
            raise IntegrityError.advised(f"there is no file of weights {path}", "export the model again")
        return np.memmap(path, np.uint8, "r") if path.stat().st_size else np.empty(0, np.uint8)

    # --- writing --------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the graph to `path`, and large initializers one by one to a file beside it with the suffix `_data`."""
        data, tensors = f"{path.name}_data", []
        with plain_file(path.with_name(data)) as file:
            for name in self.initializers:
                array = self.array(name)
                if array.nbytes < _SMALLEST:
                    tensors.append(numpy_helper.from_array(array, name))
                else:
                    tensors.append(self._elsewhere(name, append(file, array, array.dtype, data)))
        self._write(path, tensors)

    def save_beside(self, path: Path, whole: StoredGraph) -> None:
        """Write the graph to `path`, with the weights in the file of `whole`, a graph in the same folder.

        Values that are missing there, or differ, stay in the graph's own file.
        """
        self._write(path, [self._shared(name, whole) for name in self.initializers])

    def _shared(self, name: str, whole: StoredGraph) -> TensorProto:
        array, place = self.array(name), whole.place(name) if name in whole.initializers else None
        if place and whole.dtype(name) == array.dtype and np.array_equal(whole.array(name), array):
            return self._elsewhere(name, place)
        return numpy_helper.from_array(np.asarray(array), name)

    def _elsewhere(self, name: str, place: Place) -> TensorProto:
        return external(name, self.initializers[name].data_type, self.shape(name), place)

    def _write(self, path: Path, tensors: list[TensorProto]) -> None:
        written = onnx.ModelProto()
        written.CopyFrom(self.model)
        del written.graph.initializer[:]
        written.graph.initializer.extend(tensors)
        path.write_bytes(written.SerializeToString())
