"""Reads ComfyUI's metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from sdrt.images.programs.comfyui.conditioning import Conditioning, read_conditioning
from sdrt.images.programs.comfyui.graph import Graph, Node
from sdrt.images.programs.comfyui.latents import read_latents
from sdrt.images.programs.comfyui.models import read_clip_skip, read_model
from sdrt.images.programs.comfyui.output import read_output
from sdrt.images.programs.comfyui.samplers import Sampling, find_samplers, read_sampler
from sdrt.images.programs.comfyui.sizes import put_sizes, unread_sizes
from sdrt.images.programs.comfyui.workflow import graph_of_workflow
from sdrt.images.programs.made import Fields, Made, Size, as_text, whole
from sdrt.images.programs.names import comfyui_sampler_label, schedule_label

__all__ = ["read_comfyui"]

_PROGRAM = "ComfyUI"
_LEAST_DENOISE = 1e-4
_WEIGHTS = re.compile(r"(?<!\\)[()\[\]]|\bBREAK\b|\bAND\b")
_FRESH_ON_GPU = ("ancestral", "lcm", "ddpm", "_gpu")


def read_comfyui(texts: Mapping[str, str], size: Size) -> Made | None:
    """Read a graph of ComfyUI, or of a program that runs one.

    If there are several samplers, the settings are those of the first one. A further setting names the others.
    """
    text = texts.get("prompt", "")
    graph = Graph.of(text)
    if graph is None:
        text = texts.get("workflow", "")
        graph = graph_of_workflow(text)
    if graph is None:
        return None
    samplers = find_samplers(graph)
    fields = Fields({})
    if not samplers:
        fields.put("Not read", "the settings: no node samples")
        fields.put("Version", _PROGRAM)
        return Made(program=_PROGRAM, text=text, settings=fields.settings)
    prompts = _read(graph, samplers, size, fields)
    fields.put("Version", _PROGRAM)
    return Made(
        program=_PROGRAM,
        text=text,
        prompt=prompts[0].text,
        negative_prompt=prompts[1].text,
        settings=fields.settings,
    )


def _read(
    graph: Graph, samplers: Sequence[Node], size: Size, fields: Fields
) -> tuple[Conditioning, Conditioning]:
    sampling = read_sampler(graph, samplers[0])
    conditions = sampling.conditions or samplers[0]
    positive, negative = (read_conditioning(graph, conditions, role) for role in ("positive", "negative"))
    _put_sampling(fields, sampling)
    _put_latents(graph, sampling, size, fields)
    _put_model(graph, conditions, fields)
    for encoder in positive.encoders[:1]:
        skip = read_clip_skip(graph, encoder)
        fields.put("Clip skip", skip if skip != "1" else None)
    fields.put("RNG", "CPU")
    output = read_output(graph, samplers[0], list(samplers))
    fields.put("VAE", output.vae)
    fields.put("Behind the sampler", "; ".join(output.changes))
    for label, condition in (("Prompt 2", positive), ("Negative prompt 2", negative)):
        if condition.text_2 != condition.text:
            # An empty text is encoded too.
            fields.settings[label] = condition.text_2
    # ComfyUI encodes an empty text. For SDXL, diffusers takes zeros in place of a missing negative prompt.
    fields.put("Empty negative prompt", True if negative.encoders and not negative.text else None)
    put_sizes(fields, graph, positive, negative)
    _note_unread(sampling, unread_sizes(graph, positive, negative))
    _put_differences(fields, sampling, positive, negative)
    if len(samplers) > 1:
        fields.put("Sampler node", str(samplers[0]))
        fields.put("Other samplers", "; ".join(_described(graph, node) for node in samplers[1:]))
    return positive, negative


def _put_sampling(fields: Fields, sampling: Sampling) -> None:
    fields.put("Steps", sampling.settings.get("Steps"))
    fields.put("Sampler", comfyui_sampler_label(sampling.sampler) if sampling.sampler else None)
    fields.put("Schedule type", schedule_label(sampling.scheduler) if sampling.scheduler else None)
    fields.put("CFG scale", sampling.settings.get("CFG scale"))
    fields.put("Seed", sampling.settings.get("Seed"))


def _put_latents(graph: Graph, sampling: Sampling, size: Size, fields: Fields) -> None:
    latents = read_latents(graph, sampling.node)
    if latents.size is not None:
        fields.put_size(*latents.size)
    elif any(size):
        fields.put_size(*size)
    _note_unread(sampling, [f"Size, from {latents.unread}"] if latents.unread else [])
    denoise = as_text(sampling.denoise)
    if latents.image:
        fields.put("Denoising strength", denoise or "1")
        fields.put("Init image", latents.image)
        _put_steps_of_denoise(sampling, fields)
    elif denoise not in ("", "1"):
        fields.put("Denoising strength of empty latents", denoise)
    if latents.batch:
        fields.put("Image of a batch", f"one of {latents.batch}")
    fields.put("Latents", "; ".join(latents.changes))


def _put_steps_of_denoise(sampling: Sampling, fields: Fields) -> None:
    """ComfyUI's `steps` are those that run, at the end of a longer schedule. A1111's are the whole schedule."""
    steps, denoise = whole(sampling.settings.get("Steps")), sampling.denoise
    if steps and isinstance(denoise, (int, float)) and _LEAST_DENOISE < denoise < 1:
        fields.put("Steps that run", f"{steps} of {int(steps / denoise)}")


def _put_model(graph: Graph, conditions: Node, fields: Fields) -> None:
    model = read_model(graph, conditions)
    fields.put("Model", model.name)
    fields.put("LoRAs", ", ".join(model.loras))
    fields.put("Model patches", "; ".join(model.changes))


def _put_differences(
    fields: Fields, sampling: Sampling, positive: Conditioning, negative: Conditioning
) -> None:
    """Add what ComfyUI does differently, and what sdrt does not have."""
    changes = list(dict.fromkeys([*positive.changes, *negative.changes]))
    fields.put("Conditioning", "; ".join(changes))
    made = list(dict.fromkeys([*positive.makers, *negative.makers]))
    fields.put("Texts that nodes made", "; ".join(made))
    texts = (("prompt", positive.unread), ("negative prompt", negative.unread))
    unread = [f"{name}, from {', '.join(nodes)}" for name, nodes in texts if nodes]
    _note_unread(sampling, unread)
    fields.put("Second prompt", positive.other)
    fields.put("Second negative prompt", negative.other)
    for name, note in sampling.notes.items():
        fields.put(name, note)
    if any(map(_WEIGHTS.search, [*positive.words, *negative.words])):
        fields.put("Weights of words", "of ComfyUI")
    if any(word in (sampling.sampler or "") for word in _FRESH_ON_GPU):
        fields.put("Fresh noise", "of the GPU")
    # At full strength, ComfyUI multiplies the noise by √(1 + σ²), and the others by σ.
    fields.put("Noise scale", "of ComfyUI")


def _note_unread(sampling: Sampling, unread: Sequence[str]) -> None:
    """Note what cannot be told, after what is noted already."""
    if unread:
        sampling.notes["Not read"] = "; ".join(filter(None, [sampling.notes.get("Not read"), *unread]))


def _described(graph: Graph, node: Node) -> str:
    sampling = read_sampler(graph, node)
    facts = {"steps": sampling.settings.get("Steps"), "denoise": sampling.denoise}
    shown = ", ".join(f"{name} {as_text(value)}" for name, value in facts.items() if value is not None)
    return f"{node} ({shown})" if shown else str(node)
