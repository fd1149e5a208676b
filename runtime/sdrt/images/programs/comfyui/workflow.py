"""The graph that ComfyUI's editor saves, as the one that ComfyUI runs.

The editor keeps the values of a node's widgets in a list. Their names are known for ComfyUI's own nodes; newer editors
also list them among the node's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sdrt.images.programs.comfyui.graph import Graph
from sdrt.images.programs.made import load_object

__all__ = ["graph_of_workflow"]

_SEED = "control_after_generate"  # a widget after each seed; the graph does not have it
_WIDGETS: Mapping[str, tuple[str, ...]] = {
    "KSampler": ("seed", _SEED, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        *("add_noise", "noise_seed", _SEED, "steps", "cfg", "sampler_name", "scheduler"),
        *("start_at_step", "end_at_step", "return_with_leftover_noise"),
    ),
    "SamplerCustom": ("add_noise", "noise_seed", _SEED, "cfg"),
    "RandomNoise": ("noise_seed", _SEED),
    "KSamplerSelect": ("sampler_name",),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KarrasScheduler": ("steps", "sigma_max", "sigma_min", "rho"),
    "CFGGuider": ("cfg",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": (
        *("width", "height", "crop_w", "crop_h", "target_width", "target_height"),
        *("text_g", "text_l"),
    ),
    "CLIPTextEncodeSDXLRefiner": ("ascore", "width", "height", "text"),
    "CLIPSetLastLayer": ("stop_at_clip_layer",),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name", "weight_dtype"),
    "VAELoader": ("vae_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "EmptyLatentImage": ("width", "height", "batch_size"),
    "LatentUpscale": ("upscale_method", "width", "height", "crop"),
    "LatentUpscaleBy": ("upscale_method", "scale_by"),
    "LoadImage": ("image", "upload"),
    "ControlNetLoader": ("control_net_name",),
    "ControlNetApply": ("strength",),
    "ControlNetApplyAdvanced": ("strength", "start_percent", "end_percent"),
    "PrimitiveNode": ("value",),
}
_MUTED, _BYPASSED = 2, 4
_MOST = 5000


def graph_of_workflow(text: str | None) -> Graph | None:
    """The graph of a workflow, or None if the text is none."""
    workflow = load_object(text)
    nodes, links = workflow.get("nodes"), workflow.get("links")
    if not isinstance(nodes, list):
        return None
    sources = _sources(links if isinstance(links, list) else [])
    return Graph.of_object(
        {
            str(node["id"]): _node(node, sources)
            for node in nodes[:_MOST]
            if isinstance(node, dict) and "id" in node and "type" in node and node.get("mode") != _MUTED
        }
    )


def _sources(links: list[Any]) -> dict[Any, list[Any]]:
    """Link → the node and output that it comes from."""
    found: dict[Any, list[Any]] = {}
    for link in links[: 10 * _MOST]:
        if isinstance(link, list) and len(link) >= 3 and isinstance(link[0], int):
            found[link[0]] = [str(link[1]), link[2]]
        elif isinstance(link, dict) and isinstance(link.get("id"), int):
            found[link["id"]] = [str(link.get("origin_id")), link.get("origin_slot")]
    return found


def _node(node: Mapping[str, Any], sources: Mapping[Any, list[Any]]) -> dict[str, Any]:
    listed = node.get("inputs")
    inputs = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    linked = {
        str(one.get("name")): sources[one["link"]]
        for one in inputs
        if isinstance(one.get("link"), int) and one["link"] in sources
    }
    if node.get("mode") == _BYPASSED:
        # It passes on what it gets, and does nothing.
        return {"class_type": "Reroute", "inputs": linked}
    return {"class_type": str(node["type"]), "inputs": _widgets(node, inputs) | linked}


def _widgets(node: Mapping[str, Any], inputs: list[dict[str, Any]]) -> dict[str, Any]:
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return dict(values)
    if not isinstance(values, list):
        return {}
    names = _WIDGETS.get(str(node["type"]))
    if names is None:
        named = [one["widget"] for one in inputs if isinstance(one.get("widget"), dict)]
        names = tuple(str(one.get("name")) for one in named)
        # A text alone is the node's text.
        if not names and len(values) == 1:
            names = ("value",)
        if any("seed" in name for name in names) and len(values) > len(names):
            place = next(place for place, name in enumerate(names) if "seed" in name)
            names = (*names[: place + 1], _SEED, *names[place + 1 :])
    return dict(zip(names, values, strict=False))
