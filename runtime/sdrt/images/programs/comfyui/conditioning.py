"""The prompts that reach a sampler, through the nodes between it and the text encoders."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdrt.images.programs.comfyui.graph import Graph, Node

__all__ = ["Conditioning", "read_conditioning"]

_TEXT_INPUTS = ("text", "prompt", "populated_text", "string", "text_g", "clip_l", "wildcard_text")
_SECOND_INPUTS = ("text_l", "t5xxl", "clip_g", "text_2")
_JOINING = ("conditioningconcat", "concat")
_PLAIN = ("reroute", "cliptextencode", "primitivenode", "getnode", "setnode")
"""Kinds of nodes, by how they begin, that change nothing beyond the text."""
_MOST_NODES = 1000
_DEPTH = 200


@dataclass(kw_only=True)
class Conditioning:
    """A prompt, the encoder's other prompt (SDXL has two), the encoders' nodes, and the nodes that change more."""

    text: str = ""
    second: str = ""
    words: list[str] = field(default_factory=list)
    """The texts of the encoders, one by one."""
    encoders: list[Node] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    makers: list[str] = field(default_factory=list)
    """Nodes that may have made another text of what stands in the graph."""
    unread: list[str] = field(default_factory=list)
    """Nodes whose text cannot be told."""


class _Walk:
    def __init__(self, graph: Graph, role: str, found: Conditioning) -> None:
        self.graph, self.role, self.found, self.visits = graph, role, found, 0

    def text(self, node: Node, depth: int = 0) -> str:
        """The text of a node's conditioning."""
        self.visits += 1
        if self.visits > _MOST_NODES or depth > _DEPTH:
            return ""
        kind = node.kind.lower().replace(" ", "")
        own = self._own_text(node)
        if own is None or not kind.startswith(_PLAIN):
            self._note(node, kind)
        if "zeroout" in kind:
            return ""
        if own is not None:
            self.found.encoders.append(node)
            self.found.words.append(own)
            return own
        texts = [self.text(source, depth + 1) for source in self._next(node)]
        texts = [text for text in texts if text]
        # A1111's BREAK joins the embeddings of two texts as this node does.
        return " BREAK ".join(texts) if kind.startswith(_JOINING) else "\n".join(texts)

    def _note(self, node: Node, kind: str) -> None:
        if not kind.startswith(_PLAIN) and str(node) not in self.found.changes:
            self.found.changes.append(str(node))

    def _own_text(self, node: Node) -> str | None:
        """The text of a node that encodes one, or None."""
        if (
            "clip" not in node.inputs
            and "positive" in node.inputs
            and isinstance(node.inputs["positive"], str)
        ):
            # A node that loads a model and encodes both prompts.
            text = node.inputs.get(self.role)
            return text if isinstance(text, str) else ""
        for name in _TEXT_INPUTS:
            if name not in node.inputs:
                continue
            if (text := self.graph.text(node, name)) is not None:
                self.found.makers += map(str, self.graph.makers(node, name))
                self._second(node, text)
                return text
            self.found.unread.append(str(self.graph.source(node.inputs[name]) or node))
        return None

    def _second(self, node: Node, first: str) -> None:
        for name in _SECOND_INPUTS:
            if name in node.inputs and (text := self.graph.text(node, name)) and text != first:
                self.found.second = text

    def _next(self, node: Node) -> list[Node]:
        """The nodes whose conditioning a node takes: those of the same role, or all that are conditioning."""
        sources = self.graph.sources(node)
        if self.role in sources:
            return [sources[self.role]]
        named = {name: source for name, source in sources.items() if "cond" in name.lower()}
        if named:
            return list(named.values())
        return [sources[name] for name in list(sources)[:1]] if len(sources) == 1 else []


def read_conditioning(graph: Graph, node: Node, role: str) -> Conditioning:
    """The prompt that reaches the input `role` ("positive" or "negative") of a sampler or a guider."""
    found = Conditioning()
    names = (role, "conditioning", "cond1") if role == "positive" else (role,)
    source = next((one for name in names if (one := graph.source(node.inputs.get(name)))), None)
    if source is not None:
        found.text = _Walk(graph, role, found).text(source)
        if not found.encoders and not found.unread and not any("ZeroOut" in one for one in found.changes):
            found.unread.append(str(source))
    return found
