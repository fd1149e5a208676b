"""The weights that a graph names: where each comes from in a checkpoint, and how the graph stores it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sdrt.adapters.arrangement import Arrangement, AsItIs, Transposed
from sdrt.errors import IntegrityError
from sdrt_export.tensors.array import Array, Shape

__all__ = ["Weight"]

_AS_IT_IS, _TRANSPOSED = AsItIs(), Transposed()


@dataclass(frozen=True, kw_only=True)
class Weight:
    """One weight of a graph.

    Attributes:
        name: in the graph, and in the file of its weights.
        sources: the tensors of the checkpoint that it is made of, with their shapes.
        shape: in the graph.
        arrange: makes it from those tensors. The manifest says how, so that adapters can change the stored weight.
        exact: whether to keep it in float32 where the graph computes in float16.
    """

    name: str
    sources: Mapping[str, Shape]
    shape: Shape
    arrange: Arrangement = _AS_IT_IS
    exact: bool = False

    @property
    def is_transposed(self) -> bool:
        """Whether it is one matrix of the checkpoint, transposed."""
        return self.arrange == _TRANSPOSED

    @property
    def is_plain(self) -> bool:
        """Whether it is one tensor of the checkpoint, unchanged."""
        return self.arrange == _AS_IT_IS

    def value(self, tensors: Mapping[str, Array]) -> Array:
        """The weight, made of a checkpoint's `tensors`. Raises like `parts`."""
        return self.arrange(self.parts(tensors))

    def parts(self, tensors: Mapping[str, Array]) -> list[Array]:
        """The tensors that the weight is made of.

        Raises:
            IntegrityError: a tensor is missing, or has another shape than the config says.
        """
        arrays = []
        for name, shape in self.sources.items():
            if name not in tensors:
                raise IntegrityError.advised(f"the weights lack {name}", "download the checkpoint again")
            # Once, because some mappings convert a tensor whenever it is asked for.
            tensor = tensors[name]
            if tensor.shape != shape:
                raise IntegrityError.expected(
                    f"the weight {name} is of shape {list(tensor.shape)}",
                    f"{list(shape)}, as config.json says: the two files do not belong together",
                )
            arrays.append(tensor)
        return arrays
