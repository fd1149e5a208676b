"""ComfyUI's text encoders for SDXL: two texts, and the sizes, crops and scores beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import sdrt
from sdrt.cli import main
from tests.runtime.images.comfyui_graphs import USUAL, assert_same, changed, graph, image_of, node, read

SIZE = {"width": 512, "height": 768, "clip": ["4", 1]}


def xl(text_l: Any, text_g: Any, **inputs: Any) -> dict[str, Any]:
    return node("CLIPTextEncodeSDXL", text_g=text_g, text_l=text_l, **SIZE | inputs)


@pytest.mark.parametrize(
    ("text_l", "text_g", "more"),
    [
        ("a red circle", "a red circle", {}),
        ("a red circle", "flat", {"Prompt 2": "flat"}),
        # An empty text is encoded, and is not the same as a missing one.
        ("a red circle", "", {"Prompt 2": ""}),
        ("", "a red circle", {"Prompt 2": "a red circle"}),
        (["20", 0], ["21", 0], {"Prompt 2": "flat"}),
    ],
)
def test_encoders_of_sdxl_have_two_texts(text_l: Any, text_g: Any, more: dict[str, str]) -> None:
    """`text_l` is for CLIP's own text encoder, which is the first one here, and `text_g` for OpenCLIP's bigG."""
    texts = {"20": node("PrimitiveString", value="a red circle"), "21": node("PrimitiveString", value="flat")}
    found = read(graph(**{"6": xl(text_l, text_g)}, **texts))
    assert found.prompt == ("a red circle" if isinstance(text_l, list) else text_l)
    assert found.settings == USUAL | more
    found = read(graph(**{"7": xl(text_l, text_g)}, **texts))
    empty = {} if text_l else {"Empty negative prompt": "True"}
    named = {f"Negative {name[0].lower()}{name[1:]}": one for name, one in more.items()}
    assert found.settings == USUAL | named | empty


def test_both_texts_of_sdxl_are_joined() -> None:
    concat = node("ConditioningConcat", conditioning_to=["6", 0], conditioning_from=["21", 0])
    nodes = {"3": changed("3", positive=["20", 0]), "20": concat, "21": xl("on white", "big")}
    found = read(graph(**nodes, **{"6": xl("a red circle", "flat")}))
    assert (found.prompt, found.settings["Prompt 2"]) == ("a red circle BREAK on white", "flat BREAK big")


NEGATIVES = {
    "original": "Negative original size",
    "crop": "Negative crop top left",
    "target": "Negative target size",
}


@pytest.mark.parametrize(
    ("inputs", "own", "negative"),
    [
        ({}, {}, {}),
        ({"target_width": 512, "target_height": 768, "crop_w": 0, "crop_h": 0}, {}, {}),
        # ComfyUI's target is the original size, unless it is given.
        (
            {"width": 1024, "height": 2048},
            {"Original size": "1024x2048", "Target size": "1024x2048"},
            {"original": "512x768", "crop": "0,0", "target": "512x768"},
        ),
        (
            {"crop_w": 64, "crop_h": 8, "target_width": 1024, "target_height": 1536},
            {"Crop top left": "8,64", "Target size": "1024x1536"},
            {"original": "512x768", "crop": "0,0", "target": "512x768"},
        ),
        ({"width": ["22", 0], "height": 768}, {"Original size": "640x768", "Target size": "640x768"}, None),
    ],
)
def test_sizes_of_sdxl(inputs: dict[str, Any], own: dict[str, str], negative: dict[str, str] | None) -> None:
    nodes = {"6": xl("a red circle", "a red circle", **inputs), "22": node("PrimitiveInt", value=640)}
    found = read(graph(**nodes)).settings
    if negative is not None:
        # The other prompt comes from a plain encoder, which takes the size of the image.
        assert found == USUAL | own | {NEGATIVES[name]: text for name, text in negative.items()}
    both = read(graph(**nodes, **{"7": xl("blue", "blue", **inputs)})).settings
    assert both == USUAL | own


def test_sizes_that_cannot_be_told_are_said() -> None:
    nodes = {
        "6": xl(
            "a red circle", "a red circle", width=["22", 0], height=768, target_width=["22", 0], crop_w=8
        ),
        "22": node("RandomThing", low=1, high=9),
    }
    found = read(graph(**nodes)).settings
    said = ", from RandomThing 22"
    assert (
        found["Not read"]
        == f"width of CLIPTextEncodeSDXL 6{said}; target_width of CLIPTextEncodeSDXL 6{said}"
    )


@pytest.mark.parametrize("side", ["width", "height"])
def test_a_size_that_cannot_be_told_is_said(side: str) -> None:
    nodes = {"5": changed("5", **{side: ["22", 0]}), "22": node("RandomThing", low=1, high=9)}
    assert read(graph(**nodes)).settings["Not read"] == "Size, from EmptyLatentImage 5"


def test_zeros_have_the_sizes_of_their_prompt() -> None:
    zero = {"3": changed("3", negative=["20", 0]), "20": node("ConditioningZeroOut", conditioning=["6", 0])}
    found = read(graph(**zero, **{"6": xl("a red circle", "a red circle", width=1024, height=1024)})).settings
    assert found["Original size"] == "1024x1024"
    assert not any(label in found for label in NEGATIVES.values())


def test_scores_of_the_refiner_of_sdxl() -> None:
    def encoder(text: str, score: float, **inputs: Any) -> dict[str, Any]:
        return node("CLIPTextEncodeSDXLRefiner", text=text, ascore=score, **SIZE | inputs)

    assert_same(read(graph(**{"6": encoder("a red circle", 6.0), "7": encoder("blue", 2.5)})))
    found = read(
        graph(**{"6": encoder("a red circle", 7.5, width=1024), "7": encoder("blue", 6.0, width=1024)})
    )
    assert_same(found, Original_size="1024x768", Aesthetic_score="7.5", Negative_aesthetic_score="6")


def test_the_editors_encoder_of_the_refiner() -> None:
    nodes = graph(**{"6": node("CLIPTextEncodeSDXLRefiner", text="a red circle", ascore=9.0, **SIZE)})
    assert read(nodes).settings == USUAL | {"Aesthetic score": "9"}


def test_sdxls_encoders_are_made_again(tmp_path: Path) -> None:
    """A tiny SDXL makes the image from what the file says of ComfyUI's nodes."""
    size = {"width": 128, "height": 96, "crop_w": 8, "crop_h": 16, "target_width": 64, "target_height": 64}
    nodes = graph(
        **{
            "5": node("EmptyLatentImage", width=64, height=64, batch_size=1),
            "6": xl("a cat", "a dog", **size),
            "7": xl("", "blue", **size),
        }
    )
    source = tmp_path / "comfyui.png"
    source.write_bytes(image_of(prompt=json.dumps(nodes)))
    xl_model = Path(__file__).parents[2] / "models" / "tiny-xl"
    common = ["-m", str(xl_model), "--approximate", "--steps", "1", "-q"]
    result = CliRunner().invoke(
        main, ["generate", "--from", str(source), *common, "-o", str(tmp_path / "again.png")]
    )
    assert result.exit_code == 0, result.output
    made = sdrt.read_metadata(tmp_path / "again.png")
    assert (made.prompt, made.negative_prompt) == ("a cat", "")
    assert made.settings["Prompt 2"] == "a dog"
    assert made.settings["Negative prompt 2"] == "blue"
    assert made.settings["Original size"] == "128x96"
    assert made.settings["Crop top left"] == "16,8"
