"""The model that a sampler uses, with its LoRAs, and the nodes that change it; the text encoder's last layer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sdrt.images.programs.comfyui.graph import Graph, Node
from sdrt.images.programs.made import as_text, whole

__all__ = ["Model", "read_clip_skip", "read_model"]

_NAMES = ("ckpt_name", "unet_name", "model_name", "checkpoint", "base_ckpt_name", "ckpt")
_LINKS = ("model", "MODEL", "model1", "unet", "base_model", "sdxl_tuple", "pipe", "basic_pipe", "")
_LORA = re.compile(r"(lora|lora_name)(_?\d+)?")
_OLDER_WEIGHTS = ("lora_wt", "lora_weight", "lora_strength", "strength", "weight")
_WEIGHTS = ("strength_model", "model_weight", "model_str", "lora_model_strength", *_OLDER_WEIGHTS)
_PLAIN = ("reroute", "getnode", "setnode", "primitivenode")
_MOST = 200


@dataclass(kw_only=True)
class Model:
    """The name of the model's file, its LoRAs with their weights, and the nodes that change the model."""

    name: str = ""
    loras: list[str] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)


def read_model(graph: Graph, node: Node) -> Model:
    """The model that reaches a sampler or a guider."""
    found = Model()
    for one in _chain(graph, node):
        loras = [
            *_loras(one.inputs),
            *(lora for stack in _stacks(graph, one) for lora in _loras(stack.inputs)),
        ]
        found.loras += loras
        name = next((text for key in _NAMES if (text := graph.text(one, key))), "")
        if name:
            found.name = name
            return found
        if not loras and not one.kind.lower().startswith(_PLAIN):
            found.changes.append(str(one))
    return found


def _chain(graph: Graph, node: Node) -> Iterator[Node]:
    """The nodes that the model comes through, the nearest to the sampler first."""
    seen: set[str] = set()
    while len(seen) < _MOST:
        source = next((one for name in _LINKS if (one := graph.source(node.inputs.get(name)))), None)
        if source is None and node.kind.lower().startswith(_PLAIN):
            source = next(iter(graph.sources(node).values()), None)
        if source is None or source.name in seen:
            return
        seen.add(source.name)
        yield source
        node = source


def _stacks(graph: Graph, node: Node) -> list[Node]:
    """Nodes that list LoRAs for a loader."""
    found = [source for name, source in graph.sources(node).items() if "lora" in name.lower()]
    return [one for source in found[:10] for one in list(graph.upstream(source))[:20]]


def _loras(inputs: Mapping[str, Any]) -> list[str]:
    found = []
    for key, value in inputs.items():
        if isinstance(value, dict) and isinstance(value.get("lora"), str):
            # rgthree's loader keeps each LoRA as an object that can be off.
            if value.get("on", True):
                found.append(f"{value['lora']} ({as_text(value.get('strength', 1))})")
        elif (match := _LORA.fullmatch(key)) and isinstance(value, str) and value not in ("", "None"):
            suffix = match[2] or ""
            if inputs.get(f"switch{suffix}") == "Off":
                continue
            weight = next((inputs[name + suffix] for name in _WEIGHTS if name + suffix in inputs), 1)
            found.append(f"{value} ({as_text(weight)})")
    return found


def read_clip_skip(graph: Graph, encoder: Node) -> str:
    """A1111's "Clip skip" of the text encoder that an encoding node uses, or an empty text."""
    source = graph.source(encoder.inputs.get("clip"))
    for node in list(graph.upstream(source))[:_MOST] if source else []:
        for name in ("stop_at_clip_layer", "clip_skip"):
            layer = graph.number(node, name) if name in node.inputs else None
            if (count := whole(layer)) is not None:
                # ComfyUI counts the last layer as -1.
                return as_text(abs(count))
    return ""
