"""What ComfyUI's text encoders for SDXL and its refiner give the model besides the text: sizes, crops and scores.

The rules are those of ComfyUI's `SDXL.encode_adm` and `SDXLRefiner.encode_adm`: without such an encoder, both sizes are
the image's, and the scores are 6 and 2.5, as in diffusers.
"""

from __future__ import annotations

from dataclasses import dataclass

from sdrt.images.programs.comfyui.conditioning import Conditioning
from sdrt.images.programs.comfyui.graph import Graph, Node
from sdrt.images.programs.made import Fields, as_text, whole

__all__ = ["put_sizes", "unread_sizes"]

_KIND = "CLIPTextEncodeSDXL"
_INPUTS = ("width", "height", "crop_w", "crop_h", "target_width", "target_height")
_LABELS = ("Original size", "Crop top left", "Target size")
_SCORES = {"Aesthetic score": "6", "Negative aesthetic score": "2.5"}


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """The sizes and the corner of the crop, as texts of the metadata."""

    original: str
    corner: str = "0,0"
    target: str

    def texts(self) -> tuple[str, str, str]:
        return self.original, self.corner, self.target


def put_sizes(fields: Fields, graph: Graph, positive: Conditioning, negative: Conditioning) -> None:
    """Add the sizes and scores that differ from the usual ones. `fields` has the size of the image."""
    size = fields.settings.get("Size", "")
    usual = _Sizes(original=size, target=size)
    first, second = (next(iter(one.encoders), None) for one in (positive, negative))
    own = _sizes(graph, first, usual)
    for label, text, plain in zip(_LABELS, own.texts(), usual.texts(), strict=True):
        fields.put(label, text if text != plain else None)
    # A prompt without an encoder of its own, such as zeros, has the sizes of the other prompt.
    other = own if second is None else _sizes(graph, second, usual)
    if other != own:
        for label, text in zip(_LABELS, other.texts(), strict=True):
            fields.put(f"Negative {label[0].lower()}{label[1:]}", text)
    for (label, plain), node in zip(_SCORES.items(), (first, second), strict=True):
        score = as_text(graph.number(node, "ascore")) if node is not None and "ascore" in node.inputs else ""
        fields.put(label, score if score != plain else None)


def unread_sizes(graph: Graph, *conditions: Conditioning) -> list[str]:
    """The inputs for sizes that cannot be told, with the nodes that they come from. `put_sizes` has the usual ones."""
    found = []
    for node in (next(iter(one.encoders), None) for one in conditions):
        if node is None or not _has_sizes(node):
            continue
        for name in (*_INPUTS, "ascore"):
            if name in node.inputs and graph.number(node, name) is None:
                source = graph.source(node.inputs[name])
                found.append(f"{name} of {node}, from {source or name}")
    return list(dict.fromkeys(found))


def _has_sizes(node: Node) -> bool:
    return node.kind.startswith(_KIND) or "crop_w" in node.inputs


def _sizes(graph: Graph, node: Node | None, usual: _Sizes) -> _Sizes:
    """The sizes of an encoder. Sizes that cannot be read are the usual ones. The refiner has no target size."""
    if node is None or not _has_sizes(node):
        return usual
    width, height, left, top, target_width, target_height = (
        whole(graph.number(node, name)) if name in node.inputs else None for name in _INPUTS
    )
    original = _shown(width, height) or usual.original
    target = _shown(target_width, target_height) or original
    is_refiner = "ascore" in node.inputs
    return _Sizes(
        original=original, corner=f"{top or 0},{left or 0}", target=usual.target if is_refiner else target
    )


def _shown(width: int | None, height: int | None) -> str:
    return "" if width is None or height is None else f"{width}x{height}"
