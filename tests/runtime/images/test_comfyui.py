"""Graphs of ComfyUI: what reaches the sampler, through whatever nodes stand between."""

from __future__ import annotations

import io
import json
import time
from typing import Any

import pytest
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
    for name, text in texts.items():
        info.add_text(name, text)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "PNG", pnginfo=info)
    return sdrt.read_metadata(buffer.getvalue())


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


def test_encoders_of_sdxl_have_two_texts() -> None:
    both = {"width": 1024, "height": 1024, "clip": ["4", 1]}
    same = node("CLIPTextEncodeSDXL", text_g="a red circle", text_l="a red circle", **both)
    assert_same(read(graph(**{"6": same})))
    other = node("CLIPTextEncodeSDXL", text_g="a red circle", text_l="flat", **both)
    assert_same(read(graph(**{"6": other})), Second_prompt="flat")
    refiner = node("CLIPTextEncodeSDXLRefiner", text="a red circle", ascore=6.0, **both)
    assert_same(read(graph(**{"6": refiner})))


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


def test_an_image_as_the_start() -> None:
    found = read(
        graph(
            **{
                "3": changed("3", denoise=0.6, latent_image=["20", 0]),
                "20": node("VAEEncode", pixels=["21", 0], vae=["4", 2]),
                "21": node("LoadImage", image="in.png", upload="image"),
                "5": None,
            }
        )
    )
    assert_same(
        found,
        Size="64x48",
        Denoising_strength="0.6",
        Init_image="in.png",
        Steps_that_run="20 of 33",
    )


def test_one_image_of_a_batch_and_steps_left_out_are_said() -> None:
    assert_same(read(graph(**{"5": changed("5", batch_size=4)})), Image_of_a_batch="one of 4")
    found = read(graph(**{"3": changed("3", denoise=0.5)}))
    assert_same(found, Denoising_strength_of_empty_latents="0.5")
    advanced = node(
        "KSamplerAdvanced",
        **{name: value for name, value in graph()["3"]["inputs"].items() if name not in ("seed", "denoise")},
        noise_seed=9,
        add_noise="enable",
        start_at_step=0,
        end_at_step=10,
        return_with_leftover_noise="enable",
    )
    assert_same(read(graph(**{"3": advanced})), Seed="9", Steps_that_run="0 to 10")
    advanced["inputs"] |= {"end_at_step": 10_000}
    assert_same(read(graph(**{"3": advanced})), Seed="9")


def test_custom_samplers_are_put_together_from_their_parts() -> None:
    parts = dict(PARTS)
    assert_same(read(graph(**parts)), Seed="11")
    parts["22"] = node("SamplerEulerAncestral", eta=1, s_noise=1)
    parts["23"] = node("KarrasScheduler", steps=20, sigma_max=14.6, sigma_min=0.03, rho=7)
    assert_same(read(graph(**parts)), Seed="11", Sampler="Euler a", Fresh_noise="of the GPU")
    custom = node(
        "SamplerCustom",
        model=["4", 0],
        add_noise=True,
        noise_seed=11,
        cfg=8,
        positive=["6", 0],
        negative=["7", 0],
        sampler=["22", 0],
        sigmas=["23", 0],
        latent_image=["5", 0],
    )
    parts |= {"3": custom, "22": node("KSamplerSelect", sampler_name="dpmpp_2m")}
    assert_same(read(graph(**parts)), Seed="11")


PARTS: Graph = {
    "3": node(
        "SamplerCustomAdvanced",
        noise=["20", 0],
        guider=["21", 0],
        sampler=["22", 0],
        sigmas=["23", 0],
        latent_image=["5", 0],
    ),
    "20": node("RandomNoise", noise_seed=11),
    "21": node("CFGGuider", model=["4", 0], positive=["6", 0], negative=["7", 0], cfg=8),
    "22": node("KSamplerSelect", sampler_name="dpmpp_2m"),
    "23": node("BasicScheduler", model=["4", 0], scheduler="karras", steps=20, denoise=1),
}


def dual_guider() -> dict[str, Any]:
    return node(
        "DualCFGGuider", model=["4", 0], cond1=["6", 0], cond2=["6", 0], negative=["7", 0], cfg_conds=8
    )


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"20": node("DisableNoise")}, {"First noise": "none", "Seed": None}),
        ({"21": node("BasicGuider", model=["4", 0], conditioning=["6", 0])}, {"CFG scale": "1"}),
        ({"21": dual_guider()}, {"Guider": "DualCFGGuider 21", "CFG scale": None}),
        (
            {"22": node("SamplerLCMUpscale", scale_ratio=2)},
            {"Sampler": "SamplerLCMUpscale", "Sampler options": "scale_ratio 2"},
        ),
        (
            {"22": node("SamplerDPMPP_SDE", eta=0.5, s_noise=1, r=0.5)},
            {"Sampler": "DPM++ SDE", "Sampler options": "eta 0.5"},
        ),
        (
            {"22": node("Reroute", **{"": ["24", 0]}), "24": node("SamplerLMS", order=4)},
            {"Sampler": "LMS", "Sampler options": None},
        ),
        (
            {"23": node("KarrasScheduler", steps=20, sigma_max=14.614642, sigma_min=0.0291675, rho=5)},
            {"Noise levels": "KarrasScheduler 23", "Schedule type": "Karras"},
        ),
        ({"23": node("ManualSigmas", sigmas="7, 1, 0")}, {"Noise levels": "ManualSigmas 23", "Steps": None}),
        (
            {"23": node("SplitSigmas", sigmas=["24", 0], step=9), "24": PARTS["23"]},
            {"Noise levels": "SplitSigmas 23", "Steps": "20"},
        ),
    ],
    ids=lambda one: str(next(iter(one.values()))["class_type"]) if "class_type" in str(one) else "",
)
def test_parts_of_a_custom_sampler_that_change_the_image_are_said(
    part: Graph, said: dict[str, str | None]
) -> None:
    found = read(graph(**PARTS | part))
    assert found.prompt == "a red circle"
    assert {name: found.settings.get(name) for name in said} == said


def test_a_second_pass_without_noise_of_its_own_is_said() -> None:
    found = read(
        graph(**PARTS | {"3": node("SamplerCustom", **{**graph()["3"]["inputs"], "add_noise": False})})
    )
    assert found.settings["First noise"] == "none"


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


def test_what_happens_behind_the_sampler_is_said() -> None:
    loader = node("VAELoader", vae_name="b.safetensors")
    assert_same(read(graph(**{"8": changed("8", vae=["20", 0]), "20": loader})), VAE="b.safetensors")
    saved = changed("9", images=["20", 0])
    larger = node("ImageUpscaleWithModel", upscale_model=["21", 0], image=["8", 0])
    model = node("UpscaleModelLoader", model_name="4x.pth")
    found = read(graph(**{"9": saved, "20": larger, "21": model}))
    assert_same(found, Behind_the_sampler="ImageUpscaleWithModel 20")


def test_a_mask_is_said() -> None:
    masked = node("VAEEncodeForInpaint", pixels=["20", 0], mask=["20", 1], vae=["4", 2], grow_mask_by=6)
    found = read(graph(**{"5": masked, "20": node("LoadImage", image="in.png")}))
    assert_same(
        found,
        Size="64x48",
        Denoising_strength="1",
        Init_image="in.png",
        Latents="VAEEncodeForInpaint 5",
    )


def test_of_several_samplers_the_one_that_begins_is_read_and_the_others_are_said() -> None:
    second = changed("3", seed=99, steps=14, denoise=0.5, latent_image=["21", 0])
    nodes = graph(
        **{
            "20": second,
            "21": node(
                "LatentUpscale", samples=["3", 0], upscale_method="nearest-exact", width=1024, height=1536
            ),
            "8": changed("8", samples=["20", 0]),
        }
    )
    found = read(nodes)
    assert_same(
        found,
        Behind_the_sampler="LatentUpscale 21",
        Sampler_node="KSampler 3",
        Other_samplers="KSampler 20 (steps 14, denoise 0.5)",
    )
    # The same in any order, and beside a sampler whose image is not saved.
    nodes = dict(reversed(list(nodes.items()))) | {"90": changed("3", seed=1)}
    assert read(nodes).settings == found.settings


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


@pytest.mark.parametrize(
    ("sampler", "scheduler", "labels"),
    [
        ("euler", "normal", ("Euler", "Normal")),
        ("euler_ancestral", "sgm_uniform", ("Euler a", "SGM Uniform")),
        ("dpmpp_sde_gpu", "exponential", ("DPM++ SDE", "Exponential")),
        ("uni_pc_bh2", "simple", ("UniPC", "Simple")),
        ("ddim", "ddim_uniform", ("Euler", "DDIM")),
        ("dpmpp_2s_ancestral", "beta", ("DPM++ 2S a", "beta_timesteps")),
        ("res_multistep", "linear_quadratic", ("res_multistep", "linear_quadratic")),
    ],
)
def test_names(sampler: str, scheduler: str, labels: tuple[str, str]) -> None:
    settings = read(graph(**{"3": changed("3", sampler_name=sampler, scheduler=scheduler)})).settings
    assert (settings["Sampler"], settings["Schedule type"]) == labels


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
