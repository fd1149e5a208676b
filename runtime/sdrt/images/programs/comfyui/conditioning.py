"""The prompts that reach a sampler, through the nodes between it and the text encoders."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdrt.images.programs.comfyui.graph import Graph, Node

__all__ = ["Conditioning", "read_conditioning"]

_TEXT_INPUTS = ("text", "prompt", "populated_text", "string", "text_l", "text_g", "clip_l", "wildcard_text")
_SECOND_INPUTS = ("t5xxl", "clip_g", "text_2")
_FIRST, _SECOND = "text_l", "text_g"
"""The inputs for SDXL's text encoders: CLIP ViT-L, which is the first one in diffusers, and OpenCLIP ViT-bigG."""
_JOINING = ("conditioningconcat", "concat")
_PLAIN = ("reroute", "cliptextencode", "primitivenode", "getnode", "setnode")
"""Kinds of nodes, by how they begin, that change nothing beyond the text."""
Texts = tuple[str, str]
_NONE: Texts = ("", "")
_MOST_NODES = 1000
_DEPTH = 200


@dataclass(kw_only=True)
class Conditioning:
    """A prompt, the encoders' nodes, and the nodes that change more.

    `text_2` is the prompt of SDXL's second text encoder. `other` is the second prompt of encoders for other models.
    """

    text: str = ""
    text_2: str = ""
    other: str = ""
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

    def texts(self, node: Node, depth: int = 0) -> Texts:
        """The texts of a node's conditioning, for SDXL's first and second text encoder."""
        self.visits += 1
        if self.visits > _MOST_NODES or depth > _DEPTH:
            return _NONE
        kind = node.kind.lower().replace(" ", "")
        own = self._own_texts(node)
        if own is None or not kind.startswith(_PLAIN):
            self._note(node, kind)
        if "zeroout" in kind:
            return _NONE
        if own is not None:
            self.found.encoders.append(node)
            self.found.words += dict.fromkeys(own)
            return own
        found = [self.texts(source, depth + 1) for source in self._next(node)]
        # A1111's BREAK joins the embeddings of two texts as this node does.
        between = " BREAK " if kind.startswith(_JOINING) else "\n"
        first, second = (between.join(text[which] for text in found if text[which]) for which in (0, 1))
        return first, second

    def _note(self, node: Node, kind: str) -> None:
        if not kind.startswith(_PLAIN) and str(node) not in self.found.changes:
            self.found.changes.append(str(node))

    def _own_texts(self, node: Node) -> Texts | None:
        """The texts of a node that encodes text. None for other nodes, and if no text can be read."""
        if (
            "clip" not in node.inputs
            and "positive" in node.inputs
            and isinstance(node.inputs["positive"], str)
        ):
            # A node that loads a model and encodes both prompts.
            text = node.inputs.get(self.role)
            return (text, text) if isinstance(text, str) else _NONE
        if {_FIRST, _SECOND} <= node.inputs.keys():
            first, second = self._input(node, _FIRST), self._input(node, _SECOND)
            return None if first is None and second is None else (first or "", second or "")
        for name in _TEXT_INPUTS:
            if name in node.inputs and (text := self._input(node, name)) is not None:
                self._other(node, text)
                return text, text
        return None

    def _input(self, node: Node, name: str) -> str | None:
        """The text that reaches an input. None if it cannot be read."""
        if (text := self.graph.text(node, name)) is not None:
            self.found.makers += map(str, self.graph.makers(node, name))
            return text
        self.found.unread.append(str(self.graph.source(node.inputs[name]) or node))
        return None

    def _other(self, node: Node, first: str) -> None:
        for name in _SECOND_INPUTS:
            if name in node.inputs and (text := self.graph.text(node, name)) and text != first:
                self.found.other = text

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
        found.text, found.text_2 = _Walk(graph, role, found).texts(source)
        if not found.encoders and not found.unread and not any("ZeroOut" in one for one in found.changes):
            found.unread.append(str(source))
    return found
