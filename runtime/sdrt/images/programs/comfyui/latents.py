"""The latents that a sampler starts from: empty ones of a size, or those of an image."""

from __future__ import annotations

from dataclasses import dataclass, field

from sdrt.images.programs.comfyui.graph import Graph, Node
from sdrt.images.programs.made import as_text

__all__ = ["Latents", "read_latents"]

_LINKS = ("latent_image", "latent", "samples", "latents", "LATENT", "optional_latent", "")
_IMAGES = ("pixels", "image", "images", "IMAGE")
_PLAIN = ("reroute", "getnode", "setnode")
_MOST = 200


@dataclass(kw_only=True)
class Latents:
    """The size in pixels, how many images there are, and what the latents were made from."""

    size: tuple[str, str] | None = None
    batch: str = ""
    image: str = ""
    changes: list[str] = field(default_factory=list)
    unread: str = ""
    """The node whose size cannot be told. Empty if it can."""


def read_latents(graph: Graph, sampler: Node) -> Latents:
    """The latents that reach a sampling node."""
    found, seen, node = Latents(), set[str](), sampler
    while len(seen) < _MOST:
        source = next((one for name in _LINKS if (one := graph.source(node.inputs.get(name)))), None)
        if source is None:
            image = _image_of(graph, node)
            if image is not None and node is not sampler:
                found.image = image
            return found
        if source.name in seen:
            return found
        seen.add(source.name)
        node = source
        if _is_empty(graph, node):
            _read_empty(graph, node, found)
            return found
        if not _is_plain(graph, node):
            found.changes.append(str(node))
    return found


def _is_plain(graph: Graph, node: Node) -> bool:
    """Whether a node passes latents on, or only encodes an image, without a mask."""
    if node.kind.lower().startswith(_PLAIN):
        return True
    return _image_of(graph, node) is not None and "mask" not in graph.sources(node)


def _is_empty(graph: Graph, node: Node) -> bool:
    links = graph.sources(node).keys()
    sides = ("width", "height", "empty_latent_width", "empty_latent_height")
    sized = any(graph.number(node, side) is not None for side in sides)
    return sized and not links & {*_IMAGES, "samples", "latent", "latent_image"}


def _read_empty(graph: Graph, node: Node, found: Latents) -> None:
    names = ("width", "height") if "width" in node.inputs else ("empty_latent_width", "empty_latent_height")
    width, height = (graph.number(node, name) for name in names)
    if width is not None and height is not None:
        found.size = as_text(width), as_text(height)
    else:
        found.unread = str(node)
    batch = graph.number(node, "batch_size")
    found.batch = as_text(batch) if batch not in (None, 1, "1") else ""


def _image_of(graph: Graph, node: Node) -> str | None:
    """The name of the image that a node encodes, "unknown" if it has none, or None if it encodes no image."""
    source = next((one for name in _IMAGES if (one := graph.source(node.inputs.get(name)))), None)
    if source is None:
        return None
    for one in list(graph.upstream(source))[:_MOST]:
        if isinstance(one.inputs.get("image"), str):
            return str(one.inputs["image"])
    return "unknown"
