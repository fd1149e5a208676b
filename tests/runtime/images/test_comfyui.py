"""Graphs of ComfyUI: what reaches the sampler, through whatever nodes stand between."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.runtime.images.comfyui_graphs import USUAL, Graph, assert_same, changed, graph, node, read


def test_the_first_graph() -> None:
    assert_same(read(graph()))


def test_numbers_of_nodes_may_be_anything() -> None:
    text = json.dumps(graph()).replace('"3"', '"12:3"').replace('"6"', '"abc"')
    assert_same(read(prompt=text))
    assert_same(read(prompt=text.replace('["4", 0]', "[4, 0]")))
    # ComfyUI writes what is no number so.
    assert_same(read(graph(**{"9": node("SaveImage", images=["8", 0]) | {"is_changed": [float("nan")]}})))


HOLDERS = [
    node("PrimitiveInt", value=7),
    node("Seed (rgthree)", seed=7),
    node("easy seed", seed=7, control_after_generate="fixed"),
    node("Int Literal", int=7),
    node("INTConstant", value=7),
    node("CR Seed", seed="7"),
    node("Reroute", **{"": ["21", 0]}),
    node("SomeSwitch", a=["21", 0]),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: str(holder["class_type"]))
def test_a_seed_through_other_nodes(holder: dict[str, Any]) -> None:
    found = read(
        graph(**{"3": changed("3", seed=["20", 0]), "20": holder, "21": node("PrimitiveNode", value=7)})
    )
    assert_same(found, Seed="7")


def test_a_seed_that_is_computed_is_said() -> None:
    found = read(graph(**{"3": changed("3", seed=["20", 0]), "20": node("RandomThing", low=1, high=9)}))
    assert_same(found, Seed="", Not_read="Seed, from RandomThing 20")


TEXTS = {
    "a primitive": ({"20": node("PrimitiveString", value="a red circle")}, "a red circle"),
    "a text box": ({"20": node("Text Multiline", text="a red circle")}, "a red circle"),
    "what was shown": (
        {"20": node("ShowText|pysssss", text=["21", 0], text_0="a red circle")},
        "a red circle",
    ),
    "a wildcard": (
        {
            "20": node(
                "ImpactWildcardProcessor", wildcard_text="a {red|blue} circle", populated_text="a red circle"
            )
        },
        "a red circle",
    ),
    "joined": (
        {
            "20": node("Text Concatenate", text_a=["21", 0], text_b="circle", delimiter=", "),
            "21": node("String Literal", string="a red"),
        },
        "a red, circle",
    ),
    "joined by ComfyUI": (
        {"20": node("StringConcatenate", string_a="a red", string_b="circle", delimiter=" ")},
        "a red circle",
    ),
    "rerouted twice": (
        {
            "20": node("Reroute", **{"": ["21", 0]}),
            "21": node("Reroute", **{"": ["22", 0]}),
            "22": node("CR Text", text="a red circle"),
        },
        "a red circle",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_prompt_through_other_nodes(name: str) -> None:
    nodes, prompt = TEXTS[name]
    assert_same(read(graph(**{"6": changed("6", text=["20", 0])}, **nodes)), prompt=prompt)


def test_conditioning_is_joined_and_what_changes_it_is_said() -> None:
    sampler = changed("3", positive=["20", 0])
    more = node("CLIPTextEncode", text="on white", clip=["4", 1])
    concat = node("ConditioningConcat", conditioning_to=["6", 0], conditioning_from=["21", 0])
    found = read(graph(**{"3": sampler, "20": concat, "21": more}))
    assert_same(found, prompt="a red circle BREAK on white", Conditioning="ConditioningConcat 20")
    combine = node("ConditioningCombine", conditioning_1=["6", 0], conditioning_2=["21", 0])
    found = read(graph(**{"3": sampler, "20": combine, "21": more}))
    assert (found.prompt, found.settings["Conditioning"]) == (
        "a red circle\non white",
        "ConditioningCombine 20",
    )
    area = node("ConditioningSetArea", conditioning=["6", 0], width=64, height=64, x=0, y=0, strength=1)
    assert_same(read(graph(**{"3": sampler, "20": area})), Conditioning="ConditioningSetArea 20")
    zero = node("ConditioningZeroOut", conditioning=["6", 0])
    found = read(graph(**{"3": changed("3", negative=["20", 0]), "20": zero}))
    assert_same(found, negative="", Conditioning="ConditioningZeroOut 20")


def test_a_controlnet_has_both_prompts() -> None:
    control = node(
        "ControlNetApplyAdvanced",
        positive=["6", 0],
        negative=["7", 0],
        control_net=["21", 0],
        image=["22", 0],
        strength=0.8,
    )
    found = read(
        graph(
            **{"3": changed("3", positive=["20", 0], negative=["20", 1])},
            **{
                "20": control,
                "21": node("ControlNetLoader", control_net_name="canny"),
                "22": node("LoadImage", image="a.png"),
            },
        )
    )
    assert_same(found, Conditioning="ControlNetApplyAdvanced 20")


def test_loras_and_patches_of_the_model_are_said() -> None:
    loras: Graph = {
        "3": changed("3", model=["22", 0]),
        "22": node("FreeU_V2", model=["21", 0], b1=1.3),
        "21": node(
            "LoraLoader",
            model=["20", 0],
            clip=["20", 1],
            lora_name="b.safetensors",
            strength_model=0.5,
            strength_clip=1,
        ),
        "20": node("LoraLoaderModelOnly", model=["4", 0], lora_name="a.safetensors", strength_model=1.0),
    }
    assert_same(
        read(graph(**loras)), LoRAs="b.safetensors (0.5), a.safetensors (1)", Model_patches="FreeU_V2 22"
    )
    power = node(
        "Power Lora Loader (rgthree)",
        model=["4", 0],
        clip=["4", 1],
        lora_1={"on": True, "lora": "a.safetensors", "strength": 0.7},
        lora_2={"on": False, "lora": "b.safetensors", "strength": 1},
    )
    assert_same(read(graph(**{"3": changed("3", model=["20", 0]), "20": power})), LoRAs="a.safetensors (0.7)")


def test_clip_skip_counts_as_in_a1111() -> None:
    found = read(
        graph(
            **{
                "6": changed("6", clip=["20", 0]),
                "20": node("CLIPSetLastLayer", clip=["4", 1], stop_at_clip_layer=-2),
            }
        )
    )
    assert_same(found, Clip_skip="2")


@pytest.mark.parametrize(
    ("nodes", "prompt", "more"),
    [
        (
            {"20": node("DPRandomGenerator", text="a {red|blue} circle", seed=5, autorefresh="No")},
            "a {red|blue} circle",
            {"Texts_that_nodes_made": "DPRandomGenerator 20"},
        ),
        ({"20": node("Florence2Run", task="caption")}, "", {"Not_read": "prompt, from Florence2Run 20"}),
        (
            {
                "20": node("ShowText|pysssss", text=["21", 0], text_0="a red circle"),
                "21": node("LLM", prompt="write a prompt", seed=3),
            },
            "a red circle",
            {},
        ),
    ],
)
def test_a_prompt_that_is_not_in_the_graph_is_said(nodes: Graph, prompt: str, more: dict[str, str]) -> None:
    assert_same(read(graph(**{"6": changed("6", text=["20", 0])}, **nodes)), prompt=prompt, **more)


def test_loaders_that_do_all_at_once() -> None:
    loader = node(
        "Efficient Loader",
        ckpt_name="v1-5-pruned-emaonly.safetensors",
        clip_skip=-2,
        lora_name="None",
        positive="a red circle",
        negative="blue",
        empty_latent_width=512,
        empty_latent_height=768,
        batch_size=1,
    )
    sampler = changed("3", model=["20", 0], positive=["20", 1], negative=["20", 2], latent_image=["20", 3])
    sampler["class_type"] = "KSampler (Efficient)"
    found = read(graph(**{"3": sampler, "20": loader, "4": None, "5": None, "6": None, "7": None}))
    assert (found.prompt, found.negative_prompt) == ("a red circle", "blue")
    assert {name: found.settings.get(name) for name in USUAL} == USUAL


@pytest.mark.parametrize(
    ("prompt", "is_said"),
    [
        ("(red:1.2) circle", True),
        (r"red \(flat\)", False),
        ("[red] circle", True),
        ("red BREAK circle", True),
    ],
)
def test_weights_of_words_are_said_to_differ(prompt: str, is_said: bool) -> None:
    found = read(graph(**{"6": changed("6", text=prompt)}))
    assert ("Weights of words" in found.settings) == is_said
