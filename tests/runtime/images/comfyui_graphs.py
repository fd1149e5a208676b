"""Graphs of ComfyUI for the tests: the usual one, changed, and what is read from it."""

from __future__ import annotations

import io
import json
from typing import Any

from PIL import Image, PngImagePlugin

import sdrt
from sdrt.images.metadata import ImageMetadata

Graph = dict[str, Any]


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(**changes: Any) -> Graph:
    """The graph that ComfyUI shows at first, with changed or further nodes; None removes one."""
    nodes: Graph = {
        "3": node(
            "KSampler",
            seed=2**50 + 5,
            steps=20,
            cfg=8.0,
            sampler_name="dpmpp_2m",
            scheduler="karras",
            denoise=1.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "6": node("CLIPTextEncode", text="a red circle", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="blue", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    }
    return {name: value for name, value in (nodes | changes).items() if value is not None}


def changed(name: str, **inputs: Any) -> dict[str, Any]:
    """A node of the first graph with other inputs."""
    first: dict[str, Any] = graph()[name]
    return {"class_type": first["class_type"], "inputs": first["inputs"] | inputs}


def read(nodes: Any = None, **texts: str) -> ImageMetadata:
    info = PngImagePlugin.PngInfo()
    for name, text in ({"prompt": json.dumps(nodes)} if nodes is not None else {} | texts).items():
        info.add_text(name, text)
    return sdrt.read_metadata(image_of(info, **texts))


def image_of(info: PngImagePlugin.PngInfo | None = None, **texts: str) -> bytes:
    """The content of a PNG with these texts."""
    info = info or PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


USUAL = {
    "Steps": "20",
    "Sampler": "DPM++ 2M",
    "Schedule type": "Karras",
    "CFG scale": "8",
    "Seed": str(2**50 + 5),
    "Size": "512x768",
    "Model": "v1-5-pruned-emaonly.safetensors",
    "RNG": "CPU",
    "Noise scale": "of ComfyUI",
    "Version": "ComfyUI",
}


def assert_same(
    found: ImageMetadata, prompt: str = "a red circle", negative: str = "blue", **more: str
) -> None:
    assert (found.program, found.prompt, found.negative_prompt) == ("ComfyUI", prompt, negative)
    settings = USUAL | {name.replace("_", " "): value for name, value in more.items()}
    assert found.settings == {name: value for name, value in settings.items() if value}
