"""Finds the block of a network that each node of a graph belongs to, from the names of its weights."""

from __future__ import annotations

import re
from pathlib import Path

from sdrt.onnx.graph_file import read_graph

__all__ = ["blocks"]

_WEIGHT = re.compile(r"(?:^|/)(?:(?:text_model|encoder|decoder)[./])*([a-z][a-z_]*(?:[./]\d+)?)[./]")


def blocks(path: Path) -> dict[str, str]:
    """Node → block, such as "down_blocks.0", for nodes whose weights or own names contain it."""
    found = {}
    for node in read_graph(path).nodes:
        weights = [one for one in node.inputs if re.search(r"\.(weight|bias)\b", one)]
        if node.name and (block := _block(weights[0] if weights else node.name)):
            found[node.name] = block
    return found


def _block(name: str) -> str | None:
    match = _WEIGHT.match(name)
    return match[1].replace("/", ".") if match else None
