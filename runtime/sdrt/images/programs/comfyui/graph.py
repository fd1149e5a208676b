"""A graph of nodes, and the values that reach a node's inputs directly or through other nodes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sdrt.images.programs.made import load_json

__all__ = ["Graph", "Node"]

_MOST_NODES = 5000
_MOST_LINKS = 200
_MOST_TEXTS = 1000

_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "seed": ("seed", "noise_seed", "seed_num"),
    "noise_seed": ("noise_seed", "seed", "seed_num"),
    "steps": ("steps", "steps_total", "total_steps"),
    "cfg": ("cfg", "cfg_scale", "guidance"),
    "scheduler": ("scheduler", "scheduler_name"),
    "sampler_name": ("sampler_name", "sampler"),
    "text": ("text", "prompt", "populated_text"),
    "width": ("width", "empty_latent_width"),
    "height": ("height", "empty_latent_height"),
}
"""Other names of an input in nodes that people have made."""
_MADE = ("populated_text", "text_0")
"""Where nodes that make or show a text have the one that was made."""
_NUMBERS = ("value", "int", "float", "number", "INT", "FLOAT", "Number", "Value", "a")
_TEXTS = (
    *("populated_text", "text", "value", "string", "prompt", "String", "STRING", "Text", "result"),
    *("wildcard_text", "text_0", "positive", "output", "prompt_text", "line"),
)
"""Where nodes that only hold a value have it."""
_JOINING = ("concat", "join", "combine", "append", "merge")
_DELIMITERS = ("delimiter", "separator", "delimeter")
_ALL_SEVERAL = ("text", "string", "prompt", "str")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node: its name in the graph, its class, and its inputs. An input is a value, or a link [name, output]."""

    name: str
    kind: str
    inputs: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Graph:
    """Nodes by name."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self._texts_left = _MOST_TEXTS

    @classmethod
    def of(cls, text: str | None) -> Graph | None:
        """The graph in a JSON text, or None if it is none."""
        found = load_json(text) if text and text.lstrip().startswith("{") else None
        return cls.of_object(found) if isinstance(found, dict) else None

    @classmethod
    def of_object(cls, found: Mapping[str, Any]) -> Graph | None:
        """The graph in a JSON object, or None if it has no nodes."""
        nodes = {
            str(name): Node(name=str(name), kind=str(node["class_type"]), inputs=node["inputs"])
            for name, node in list(found.items())[:_MOST_NODES]
            if isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict)
        }
        return cls(nodes) if nodes else None

    def source(self, value: Any) -> Node | None:
        """The node that a link comes from, or None if `value` is no link."""
        if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)):
            return self.nodes.get(str(value[0]))
        return None

    def sources(self, node: Node) -> dict[str, Node]:
        """The nodes that a node's inputs come from."""
        found = {name: self.source(value) for name, value in node.inputs.items()}
        return {name: source for name, source in found.items() if source is not None}

    def upstream(self, node: Node) -> Iterator[Node]:
        """`node`, and all nodes that it depends on, the nearest first."""
        seen, waiting = {node.name}, deque([node])
        while waiting:
            current = waiting.popleft()
            yield current
            for source in self.sources(current).values():
                if source.name not in seen:
                    seen.add(source.name)
                    waiting.append(source)

    def through_reroutes(self, value: Any) -> Node | None:
        """The node that a link comes from, on the other side of nodes that only pass it on."""
        node, seen = self.source(value), set[str]()
        while node is not None and node.kind.lower() == "reroute" and node.name not in seen:
            seen.add(node.name)
            node = next(iter(self.sources(node).values()), node)
        return node

    def makers(self, node: Node, name: str) -> list[Node]:
        """The nodes that may have changed the text of an input, so that it is not the one that was encoded."""
        source, seen = self.source(node.inputs.get(name)), set[str]()
        waiting, found = [source] if source is not None else [], list[Node]()
        while waiting and len(seen) < _MOST_LINKS:
            one = waiting.pop()
            if one.name in seen or any(isinstance(one.inputs.get(made), str) for made in _MADE):
                continue
            seen.add(one.name)
            waiting += self.sources(one).values()
            joins = any(word in one.kind.lower() for word in _JOINING)
            if not joins and len(one.inputs) > len(self.sources(one)) + 1:
                found.append(one)
        return found

    def number(self, node: Node, name: str) -> float | str | None:
        """The number that reaches an input. A text is taken if it is a number. None if it cannot be told."""
        found = self._value(node, name, _number, _NUMBERS, set())
        return found if isinstance(found, (int, float, str)) else None

    def text(self, node: Node, name: str) -> str | None:
        """The text that reaches an input, or None if it cannot be told."""
        found = self._value(node, name, _text, _TEXTS, set())
        return found if isinstance(found, str) else None

    def _value(self, node: Node, name: str, read: Any, holders: tuple[str, ...], seen: set[str]) -> Any:
        value = node.inputs.get(name)
        source = self.source(value)
        if source is None:
            return read(value)
        if source.name in seen or len(seen) > _MOST_LINKS or self._texts_left <= 0:
            return None
        self._texts_left -= 1
        seen = {*seen, source.name}
        if read is _text and any(word in source.kind.lower() for word in _JOINING):
            return self._joined(source, seen)
        names = [*_MADE, *_SYNONYMS.get(name, (name,)), *holders]
        for inner in names:
            if (
                inner in source.inputs
                and (found := self._value(source, inner, read, holders, seen)) is not None
            ):
                return found
        # A node that passes one thing on.
        links = list(self.sources(source))
        return self._value(source, links[0], read, holders, seen) if len(links) == 1 else None

    def _joined(self, node: Node, seen: set[str]) -> str:
        delimiter = next((node.inputs[name] for name in _DELIMITERS if name in node.inputs), " ")
        parts = [
            self._value(node, name, _text, _TEXTS, seen)
            for name in node.inputs
            if name not in _DELIMITERS and name.lower().startswith(_ALL_SEVERAL)
        ]
        between = delimiter.replace("\\n", "\n") if isinstance(delimiter, str) else " "
        return between.join(part for part in parts if part)


def _number(value: Any) -> float | str | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    try:
        float(value)
    except (TypeError, ValueError):
        return None
    return str(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
