"""Finds operators of a graph by how they are connected, because exporters name tensors in many ways."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator

from sdrt.onnx.graph_file import GraphFile, Node

__all__ = ["Wiring"]

# Weights pass through these unchanged in shape.
_SAME_SHAPE = frozenset({"Cast", "Identity", "DequantizeLinear"})
# Their outputs contain no numbers of their inputs.
_ONLY_SHAPES = frozenset({"Shape", "Size", "ConstantOfShape"})


class Wiring:
    """The operators of a graph, by the tensors that they take and make."""

    def __init__(self, graph: GraphFile) -> None:
        self._constants = graph.constants
        self._maker: dict[str, Node] = {name: node for node in graph.nodes for name in node.outputs}
        self._takers: dict[str, list[Node]] = defaultdict(list)
        for node in graph.nodes:
            for name in node.inputs:
                self._takers[name].append(node)

    def maker(self, tensor: str) -> Node | None:
        """The operator that makes `tensor`; None for an input or a weight."""
        return self._maker.get(tensor)

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """The shape of a weight or constant; None if `tensor` is computed from an input."""
        seen = 0
        while tensor not in self._constants:
            node = self._maker.get(tensor)
            if node is None or node.op not in _SAME_SHAPE or not node.inputs or seen > len(self._maker):
                return None
            tensor, seen = node.inputs[0], seen + 1
        return self._constants[tensor]

    def after(self, tensor: str, fits: Callable[[Node, str], bool]) -> Node | None:
        """The nearest operator that uses the numbers of `tensor` and fits.

        `fits` is called with an operator and with the tensor through which it was reached.
        """
        return next(
            (node for node, name in self._walk([tensor], self._onwards) if fits(node, name)),
            None,
        )

    def before(self, tensor: str, op: str) -> list[Node]:
        """The operators of the kind `op` from which `tensor` is made, without those that lie before another one."""
        found = []

        def back(name: str) -> Iterator[tuple[Node, str]]:
            node = self._maker.get(name)
            if node is None:
                return
            if node.op == op:
                found.append(node)
                return
            for given in node.inputs:
                yield node, given

        for _ in self._walk([tensor], back):
            pass
        return list(dict.fromkeys(found))

    def _onwards(self, name: str) -> Iterator[tuple[Node, str]]:
        for node in self._takers.get(name, ()):
            if node.op not in _ONLY_SHAPES:
                for made in node.outputs:
                    yield node, made

    def _walk(
        self, start: Iterable[str], step: Callable[[str], Iterable[tuple[Node, str]]]
    ) -> Iterator[tuple[Node, str]]:
        """Yield operators, nearest first, each with the tensor through which it was reached."""
        queue = deque(start)
        seen = set(queue)
        while queue:
            name = queue.popleft()
            for node, following in step(name):
                yield node, name
                if following not in seen:
                    seen.add(following)
                    queue.append(following)
