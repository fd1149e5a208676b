"""The nodes that sample: which there are, which made the image first, and their settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sdrt.images.programs.comfyui.graph import Graph, Node
from sdrt.images.programs.made import as_text

__all__ = ["Sampling", "find_samplers", "read_sampler"]

_SHOWING = ("save", "preview", "output")
_SAMPLER_CLASSES = {
    "eulerancestral": "euler_ancestral",
    "lms": "lms",
    "dpmpp_2s_ancestral": "dpmpp_2s_ancestral",
    "dpmpp_sde": "dpmpp_sde",
    "dpmpp_2m_sde": "dpmpp_2m_sde",
    "dpmpp_3m_sde": "dpmpp_3m_sde",
    "dpmadaptative": "dpm_adaptive",
}
"""Nodes that are one sampler, such as SamplerEulerAncestral → its name."""
_SCHEDULER_CLASSES = {
    "karrasscheduler": "karras",
    "exponentialscheduler": "exponential",
    "polyexponentialscheduler": "polyexponential",
    "alignyourstepsscheduler": "align_your_steps",
    "betasamplingscheduler": "beta",
}
_USUAL_OPTIONS: Mapping[str, tuple[object, ...]] = {
    "eta": (1,),
    "s_noise": (1,),
    "r": (0.5,),
    "solver_type": ("midpoint",),
    "noise_device": ("cpu", "gpu"),
    "order": (4,),
}
_USUAL_LEVELS: Mapping[str, float] = {"sigma_max": 14.614642, "sigma_min": 0.0291675, "rho": 7.0}
"""Those of Stable Diffusion, which ComfyUI's schedulers begin with."""
_NEAR = 0.05
_PARTS = ("noise", "guider", "sampler", "sigmas")
_MOST_SAMPLERS = 50
_MOST_SHOWN = 20


@dataclass(kw_only=True)
class Sampling:
    """What a sampling node does. `notes` are settings with other names than A1111's."""

    node: Node
    settings: dict[str, float | str] = field(default_factory=dict)
    sampler: str | None = None
    scheduler: str | None = None
    denoise: float | str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    conditions: Node | None = None
    """The node that has the links of the model and the prompts: the sampler or its guider."""


def find_samplers(graph: Graph) -> list[Node]:
    """The sampling nodes that the saved image depends on. The one that begins the image stands first."""
    found = list(_reached(graph, _shown(graph)))[:_MOST_SAMPLERS]
    if not found:
        found = [node for node in graph.nodes.values() if _samples(graph, node)][:_MOST_SAMPLERS]
    first = [node for node in found if not any(_samples(graph, one) for one in _before(graph, node))]
    return sorted(found, key=lambda node: node is not first[0]) if first else found


def _shown(graph: Graph) -> Sequence[Node]:
    """Nodes that save or show images; saving ones first."""
    nodes = [node for node in graph.nodes.values() if any(word in node.kind.lower() for word in _SHOWING)]
    return sorted(nodes, key=lambda node: "save" not in node.kind.lower())[:_MOST_SHOWN]


def _reached(graph: Graph, shown: Sequence[Node]) -> Iterator[Node]:
    seen: set[str] = set()
    for node in shown:
        for one in graph.upstream(node):
            if one.name not in seen and _samples(graph, one):
                yield one
            seen.add(one.name)
        if seen and "save" in node.kind.lower() and any(_samples(graph, graph.nodes[name]) for name in seen):
            return


def _before(graph: Graph, node: Node) -> Iterator[Node]:
    upstream = graph.upstream(node)
    next(upstream)
    return upstream


def _samples(graph: Graph, node: Node) -> bool:
    """Whether a node samples: it has a model and prompts, or a guider, and it is no node that only sets them up."""
    inputs = node.inputs.keys()
    if node.kind == "Reroute":
        return False
    if {"guider", "sigmas"} <= inputs:
        return True
    links = graph.sources(node).keys()
    if not {"positive", "negative"} & links:
        return False
    return {"steps", "cfg"} <= inputs or {"sampler", "sigmas"} <= inputs or "sampler_name" in inputs


def read_sampler(graph: Graph, node: Node) -> Sampling:
    """The settings of a sampling node."""
    found = Sampling(node=node, conditions=node)
    parts = {name: graph.through_reroutes(node.inputs.get(name)) for name in _PARTS}
    if parts["guider"] is not None:
        found.conditions = parts["guider"]
        _read_guider(found, parts["guider"])
    places = [node, *(part for part in parts.values() if part is not None)]
    for label, names in (("Steps", ("steps",)), ("CFG scale", ("cfg",)), ("Seed", ("seed", "noise_seed"))):
        _put_number(graph, found, label, places, names)
    found.sampler = _text(graph, places, "sampler_name")
    if parts["sampler"] is not None and found.sampler is None:
        _read_sampler_class(found, parts["sampler"])
    sigmas = parts["sigmas"]
    found.scheduler = _text(graph, places, "scheduler")
    if sigmas is not None:
        _read_sigmas(graph, found, sigmas)
    if found.denoise is None:
        found.denoise = next(
            (graph.number(one, "denoise") for one in places if "denoise" in one.inputs), None
        )
    _note_part_of_steps(graph, found, parts["noise"])
    return found


def _put_number(
    graph: Graph, found: Sampling, label: str, places: Sequence[Node], names: Sequence[str]
) -> None:
    for node in places:
        for name in names:
            if name not in node.inputs:
                continue
            number = graph.number(node, name)
            if number is None:
                source = graph.source(node.inputs[name])
                found.notes["Not read"] = _and(found.notes.get("Not read"), f"{label}, from {source or name}")
            else:
                found.settings[label] = number
            return


def _and(before: str | None, text: str) -> str:
    return f"{before}; {text}" if before else text


def _text(graph: Graph, places: Sequence[Node], name: str) -> str | None:
    found = (graph.text(node, name) for node in places if name in node.inputs)
    return next((text for text in found if text), None)


def _read_guider(found: Sampling, guider: Node) -> None:
    """BasicGuider has no guidance. Other guiders than these two guide in ways of their own."""
    if guider.kind == "BasicGuider":
        found.settings["CFG scale"] = 1
    elif guider.kind != "CFGGuider":
        found.notes["Guider"] = str(guider)


def _read_sampler_class(found: Sampling, node: Node) -> None:
    """A node that is one sampler, with settings of its own."""
    found.sampler = _SAMPLER_CLASSES.get(node.kind.lower().removeprefix("sampler"), node.kind)
    options = (
        f"{name} {as_text(value)}"
        for name, value in node.inputs.items()
        if not isinstance(value, list) and value not in _USUAL_OPTIONS.get(name, ())
    )
    if text := ", ".join(options):
        found.notes["Sampler options"] = text


def _is_usual(name: str, value: object) -> bool:
    usual = _USUAL_LEVELS.get(name)
    return usual is None or (isinstance(value, (int, float)) and abs(value / usual - 1) < _NEAR)


def _read_sigmas(graph: Graph, found: Sampling, sigmas: Node) -> None:
    """The node that makes the noise levels. Nodes after it may change them."""
    for node in graph.upstream(sigmas):
        scheduler = graph.text(node, "scheduler") or _SCHEDULER_CLASSES.get(node.kind.lower())
        if scheduler is not None or "steps" in node.inputs:
            found.scheduler = scheduler or node.kind
            _put_number(graph, found, "Steps", [node], ["steps"])
            found.denoise = graph.number(node, "denoise")
            if not all(_is_usual(name, graph.number(node, name)) for name in node.inputs):
                _note_levels(found, node)
            return
        _note_levels(found, node)


def _note_levels(found: Sampling, node: Node) -> None:
    found.notes["Noise levels"] = _and(found.notes.get("Noise levels"), str(node))


def _note_part_of_steps(graph: Graph, found: Sampling, noise: Node | None) -> None:
    """A sampler may run only some of the steps, or begin without noise."""
    node, steps = found.node, found.settings.get("Steps")
    start, end = graph.number(node, "start_at_step"), graph.number(node, "end_at_step")
    if start not in (None, 0, "0") or (end is not None and steps is not None and float(end) < float(steps)):
        found.notes["Steps that run"] = f"{start or 0} to {end}"
    is_off = node.inputs.get("add_noise") in ("disable", False)
    if is_off or (noise is not None and noise.kind == "DisableNoise"):
        found.notes["First noise"] = "none"
