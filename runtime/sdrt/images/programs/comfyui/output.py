"""What becomes of the latents that a sampler made: the VAE that decodes them, and nodes that change the image."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdrt.images.programs.comfyui.graph import Graph, Node

__all__ = ["Output", "read_output"]

_PLAIN = ("vaedecode", "reroute", "getnode", "setnode", "primitivenode")
_SHOWING = ("save", "preview", "output", "show", "display")
_USUAL_VAES = ("", "Baked VAE", "None")


@dataclass(kw_only=True)
class Output:
    """The name of the VAE's file, if it is not the checkpoint's, and the nodes between sampler and image."""

    vae: str = ""
    changes: list[str] = field(default_factory=list)


def read_output(graph: Graph, first: Node, samplers: list[Node]) -> Output:
    """What happens behind the sampler that begins the image, apart from the other samplers."""
    found, others = Output(), {node.name for node in samplers}
    for name in _behind(graph, first):
        node = graph.nodes[name]
        kind = node.kind.lower().replace(" ", "")
        vae = graph.through_reroutes(node.inputs.get("vae"))
        if kind.startswith("vaedecode") and vae is not None:
            text = vae.inputs.get("vae_name")
            found.vae = text if isinstance(text, str) and text not in _USUAL_VAES else found.vae
        if name not in others and not kind.startswith(_PLAIN) and not any(word in kind for word in _SHOWING):
            found.changes.append(str(node))
    return found


def _behind(graph: Graph, first: Node) -> list[str]:
    """The names of the nodes that depend on a node, in the graph's order."""
    users: dict[str, list[str]] = {}
    for node in graph.nodes.values():
        for source in graph.sources(node).values():
            users.setdefault(source.name, []).append(node.name)
    seen, waiting = {first.name}, [first.name]
    while waiting:
        for name in users.get(waiting.pop(), ()):
            if name not in seen:
                seen.add(name)
                waiting.append(name)
    return [name for name in graph.nodes if name in seen and name != first.name]
