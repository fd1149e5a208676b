"""Where ComfyUI's graphs stand in files, the editor's own form of them, and hostile ones."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest
from PIL import Image

import sdrt
from tests.runtime.images.comfyui_graphs import assert_same, changed, graph, node, read

WORKFLOW: dict[str, Any] = {
    "nodes": [
        {
            "id": 3,
            "type": "KSampler",
            "inputs": [
                {"name": "model", "type": "MODEL", "link": 1},
                {"name": "positive", "link": 4},
                {"name": "negative", "link": 6},
                {"name": "latent_image", "link": 2},
                {"name": "seed", "link": 9, "widget": {"name": "seed"}},
            ],
            "widgets_values": [1, "randomize", 20, 8, "dpmpp_2m", "karras", 1],
        },
        {"id": 4, "type": "CheckpointLoaderSimple", "widgets_values": ["v1-5-pruned-emaonly.safetensors"]},
        {"id": 5, "type": "EmptyLatentImage", "widgets_values": [512, 768, 1]},
        {
            "id": 6,
            "type": "CLIPTextEncode",
            "inputs": [{"name": "clip", "link": 3}],
            "widgets_values": ["a red circle"],
        },
        {
            "id": 7,
            "type": "CLIPTextEncode",
            "inputs": [{"name": "clip", "link": 5}],
            "widgets_values": ["blue"],
        },
        {"id": 8, "type": "VAEDecode", "inputs": [{"name": "samples", "link": 7}]},
        {
            "id": 9,
            "type": "SaveImage",
            "inputs": [{"name": "images", "link": 8}],
            "widgets_values": ["ComfyUI"],
        },
        {"id": 10, "type": "PrimitiveNode", "widgets_values": [2**50 + 5, "fixed"]},
        {"id": 11, "type": "KSampler", "mode": 2, "inputs": [], "widgets_values": [1]},
        {"id": 12, "type": "Note", "widgets_values": ["a note"]},
    ],
    "links": [
        [1, 4, 0, 3, 0, "MODEL"],
        [2, 5, 0, 3, 3, "LATENT"],
        [3, 4, 1, 6, 0, "CLIP"],
        [4, 6, 0, 3, 1, "CONDITIONING"],
        [5, 4, 1, 7, 0, "CLIP"],
        [6, 7, 0, 3, 2, "CONDITIONING"],
        [7, 3, 0, 8, 0, "LATENT"],
        [8, 8, 0, 9, 0, "IMAGE"],
        [9, 10, 0, 3, 4, "INT"],
    ],
    "version": 0.4,
}


def test_nodes_that_the_editor_bypasses_do_nothing() -> None:
    bypassed = json.loads(json.dumps(WORKFLOW))
    lora = {"id": 20, "type": "LoraLoader", "mode": 4, "widgets_values": ["a.safetensors", 0.5, 0.5]}
    lora["inputs"] = [{"name": "model", "link": 1}, {"name": "clip", "link": 3}]
    second = json.loads(json.dumps(WORKFLOW["nodes"][0])) | {"id": 21, "mode": 4}
    second["inputs"] = [{"name": "model", "link": 21}, {"name": "latent_image", "link": 7}]
    second["inputs"] += [{"name": "positive", "link": 4}, {"name": "negative", "link": 6}]
    bypassed["nodes"] += [lora, second]
    bypassed["nodes"][0]["inputs"][0]["link"] = 20
    bypassed["nodes"][5]["inputs"][0]["link"] = 22
    bypassed["links"] += [
        [20, 20, 0, 3, 0, "MODEL"],
        [21, 20, 0, 21, 0, "MODEL"],
        [22, 21, 0, 8, 0, "LATENT"],
    ]
    assert_same(read(workflow=json.dumps(bypassed)))
    for node_of_editor in bypassed["nodes"]:
        node_of_editor["mode"] = 0
    found = read(workflow=json.dumps(bypassed))
    assert found.settings["LoRAs"] == "a.safetensors (0.5)"
    assert found.settings["Other samplers"] == "KSampler 21 (steps 20, denoise 1)"


def test_the_editor_s_graph_alone() -> None:
    assert_same(read(workflow=json.dumps(WORKFLOW)))
    # The graph that ran goes before it.
    assert_same(read(graph(**{"3": changed("3", seed=4)}), workflow=json.dumps(WORKFLOW)), Seed="4")


def encoded(image_format: str, exif: Image.Exif) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, image_format, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "tags",
    [
        {0x0110: "prompt:{graph}", 0x010F: "workflow:{}"},
        {0x010F: "Prompt: {graph}", 0x010E: "Workflow: {}"},
        {0x9286: '{"prompt": {graph}, "workflow": {}}'},
        {0x9286: "{graph}"},
    ],
    ids=["SaveAnimatedWEBP", "save-image-extended", "saveimage-plus", "alone"],
)
@pytest.mark.parametrize("image_format", ["WEBP", "JPEG"])
def test_exif(tags: dict[int, str], image_format: str) -> None:
    exif = Image.Exif()
    for tag, text in tags.items():
        exif[tag] = text.replace("{graph}", json.dumps(graph()))
    assert_same(sdrt.read_metadata(encoded(image_format, exif)))


def test_the_text_of_a_node_that_saves_goes_before_the_graph() -> None:
    text = "a cat\nSteps: 3, Sampler: Euler, Seed: 1, Version: ComfyUI"
    found = read(graph(), parameters=text)
    assert (found.program, found.prompt, found.settings["Steps"], found.text) == (
        "ComfyUI",
        "a cat",
        "3",
        text,
    )


def test_a_graph_that_samples_nothing_is_still_named() -> None:
    found = read({"1": node("LoadImage", image="a.png"), "2": node("SaveImage", images=["1", 0])})
    assert (found.program, found.prompt) == ("ComfyUI", "")
    assert found.settings == {"Not read": "the settings: no node samples", "Version": "ComfyUI"}


HOSTILE: list[Any] = [
    {
        "3": node(
            "KSampler",
            positive=["3", 0],
            negative=["3", 0],
            model=["3", 0],
            latent_image=["3", 0],
            steps=["3", 0],
            cfg=["3", 0],
        )
    },
    {str(i): node("Reroute", **{"": [str(i + 1), 0]}) for i in range(4000)}
    | graph(**{"6": changed("6", text=["0", 0])}),
    {str(i): node("Text Concatenate", **{f"text_{j}": [str(i + 1), 0] for j in range(9)}) for i in range(100)}
    | graph(**{"6": changed("6", text=["0", 0])}),
    {
        str(i): node("ConditioningCombine", conditioning_1=[str(i + 1), 0], conditioning_2=[str(i + 1), 0])
        for i in range(100)
    }
    | graph(**{"3": changed("3", positive=["0", 0])}),
    {str(i): changed("3", latent_image=[str(i - 1), 0], positive=[str(i - 1), 0]) for i in range(3000)},
    {str(i): node("SaveImage", images=[str(i - 1), 0]) for i in range(4000)},
    graph(
        **{
            "3": node(
                "KSampler", steps={}, cfg=[], seed=None, positive=[[], 0], negative=["7"], sampler_name=3
            )
        }
    ),
    graph(
        **{"3": changed("3", steps="many", cfg=float("inf"), seed=True, scheduler=["9", 9], end_at_step="x")}
    ),
    graph(
        **{
            "6": changed("6", clip=["20", 0]),
            "20": node("CLIPSetLastLayer", stop_at_clip_layer=float("inf"), clip_skip="²"),
        }
    ),
    graph(**{"3": changed("3", steps=float("nan"), cfg="9" * 5000, end_at_step=float("nan"))}),
    graph(**{"20": node("X") | {"inputs": 3}, "21": [], "22": None}),
    {"3": {"class_type": 5, "inputs": {}}},
]


@pytest.mark.parametrize("nodes", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_graphs_take_no_long_time(nodes: Any) -> None:
    start = time.perf_counter()
    read(nodes)
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    "text", ["[]", "3", "{", '{"a": 1}', "[" * 100_000, '{"a":' * 100_000, '{"nodes": 3}']
)
def test_what_is_no_graph_says_nothing(text: str) -> None:
    for found in (read(prompt=text), read(workflow=text)):
        assert (found.program, found.settings) == ("", {})
