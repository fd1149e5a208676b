"""Metadata of InvokeAI, NovelAI, SwarmUI, Fooocus and others, from wherever they put them."""

from __future__ import annotations

import gzip
import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, PngImagePlugin

import sdrt
from sdrt.cli import main
from sdrt.images.metadata import ImageMetadata


def png(**texts: str) -> bytes:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name.replace("__", "-").replace("_OF_", " "), text)
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def in_exif(
    text: str, image_format: str = "JPEG", mark: bytes = b"UNICODE\0", encoding: str = "utf-16-be"
) -> bytes:
    exif = Image.Exif()
    exif[0x8769] = {0x9286: mark + text.encode(encoding)}
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, image_format, exif=exif)
    return buffer.getvalue()


def assert_made(
    content: bytes, program: str, prompt: str, negative: str, settings: dict[str, str]
) -> ImageMetadata:
    found = sdrt.read_metadata(content)
    assert (found.program, found.prompt, found.negative_prompt) == (program, prompt, negative)
    assert found.settings == settings
    return found


# --- InvokeAI ------------------------------------------------------------------------------------------------

INVOKEAI: dict[str, Any] = {
    "app_version": "5.6.0",
    "generation_mode": "txt2img",
    "positive_prompt": "a red circle++",
    "negative_prompt": "blue",
    "width": 512,
    "height": 768,
    "seed": 2371861849,
    "rand_device": "cpu",
    "cfg_scale": 7.5,
    "cfg_rescale_multiplier": 0,
    "steps": 30,
    "scheduler": "dpmpp_2m_k",
    "seamless_x": False,
    "clip_skip": 0,
    "model": {"key": "0a", "hash": "blake3:1", "name": "Dreamshaper 8", "base": "sd-1", "type": "main"},
    "loras": [],
    "controlnets": [],
}
INVOKEAI_SETTINGS = {
    "Steps": "30",
    "Sampler": "DPM++ 2M",
    "Schedule type": "Karras",
    "CFG scale": "7.5",
    "Seed": "2371861849",
    "Size": "512x768",
    "Model": "Dreamshaper 8",
    "RNG": "CPU",
    "Noise scale": "of InvokeAI",
    "Prompt syntax": "compel",
    "Version": "InvokeAI 5.6.0",
}


def test_invokeai() -> None:
    content = png(invokeai_metadata=json.dumps(INVOKEAI), invokeai_graph="{}")
    found = assert_made(content, "InvokeAI", "a red circle++", "blue", INVOKEAI_SETTINGS)
    assert json.loads(found.text) == INVOKEAI


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"model": {"model_name": "old", "base_model": "sd-1"}}, {"Model": "old"}),
        ({"clip_skip": 1}, {"Clip skip": "2"}),
        ({"cfg_rescale_multiplier": 0.7}, {"CFG rescale": "0.7"}),
        ({"seamless_x": True}, {"Seamless x": "True"}),
        ({"vae": {"name": "vae-ft-mse"}}, {"VAE": "vae-ft-mse"}),
        (
            {"loras": [{"model": {"name": "a"}, "weight": 0.75}, {"lora": {"model_name": "b"}, "weight": 1}]},
            {"LoRAs": "a (0.75), b (1)"},
        ),
        (
            {"controlnets": [{"control_model": {"name": "canny"}, "control_weight": 0.8}]},
            {"ControlNet": "canny (0.8)"},
        ),
        ({"generation_mode": "img2img", "strength": 0.6}, {"Denoising strength": "0.6"}),
        (
            {"generation_mode": "inpaint", "strength": 0.6},
            {"Denoising strength": "0.6", "Inpainting": "inpaint"},
        ),
        (
            {"scheduler": "er_sde"},
            {"Sampler": "er_sde", "Schedule type": None, "Fresh noise": "of another seed"},
        ),
        (
            {"scheduler": "euler_a"},
            {"Sampler": "Euler a", "Schedule type": None, "Fresh noise": "of another seed"},
        ),
        ({"rand_device": "cuda"}, {"RNG": "GPU"}),
        ({"positive_style_prompt": "flat"}, {"Second prompt": "flat"}),
        ({"a_later_setting": 3}, {"InvokeAI a_later_setting": "3"}),
    ],
)
def test_invokeai_says_what_it_did(change: dict[str, Any], settings: dict[str, str | None]) -> None:
    expected = {name: value for name, value in (INVOKEAI_SETTINGS | settings).items() if value is not None}
    found = sdrt.read_metadata(png(invokeai_metadata=json.dumps(INVOKEAI | change)))
    assert found.settings == expected


def test_invokeai_before_version_3() -> None:
    old = {
        "model": "stable diffusion",
        "model_weights": "stable-diffusion-1.5",
        "app_id": "invoke-ai/InvokeAI",
        "app_version": "2.3.5",
        "image": {
            "prompt": [{"prompt": "a red circle [blue, square] on white", "weight": 1}],
            "steps": 50,
            "cfg_scale": 7.5,
            "threshold": 0,
            "perlin": 0.1,
            "height": 512,
            "width": 512,
            "seed": 5,
            "type": "txt2img",
            "postprocessing": None,
            "sampler": "k_euler_a",
            "variations": [],
        },
    }
    settings = {
        "Steps": "50",
        "Sampler": "Euler a",
        "CFG scale": "7.5",
        "Seed": "5",
        "Size": "512x512",
        "Model": "stable-diffusion-1.5",
        "RNG": "GPU",
        "Perlin noise": "0.1",
        "Fresh noise": "of another seed",
        "Noise scale": "of InvokeAI",
        "Prompt syntax": "compel",
        "Version": "InvokeAI 2.3.5",
    }
    content = png(sd__metadata=json.dumps(old), Dream='"other" -s 3')
    assert_made(content, "InvokeAI", "a red circle  on white", "blue, square", settings)


@pytest.mark.parametrize(
    "options", ["-s50 -S123 -W512 -H768 -C7.5 -Ak_lms", "-s 50 -S 123 -W 512 -H 768 -C 7.5 -A k_lms"]
)
def test_invokeai_s_command(options: str) -> None:
    settings = {
        "Steps": "50",
        "Seed": "123",
        "CFG scale": "7.5",
        "Sampler": "LMS",
        "Size": "512x768",
        "RNG": "GPU",
        "Noise scale": "of InvokeAI",
        "Prompt syntax": "compel",
        "Version": "InvokeAI",
    }
    assert_made(
        png(Dream=f'"a "red" circle [blue]" {options}'), "InvokeAI", 'a "red" circle', "blue", settings
    )


# --- NovelAI -------------------------------------------------------------------------------------------------

NOVELAI: dict[str, Any] = {
    "prompt": "red circle, white",
    "steps": 28,
    "height": 1216,
    "width": 832,
    "scale": 5.0,
    "uncond_scale": 1.0,
    "cfg_rescale": 0.0,
    "seed": 3816166865,
    "n_samples": 1,
    "hide_debug_overlay": False,
    "noise_schedule": "karras",
    "sampler": "k_euler_ancestral",
    "sm": False,
    "sm_dyn": False,
    "dynamic_thresholding": False,
    "uc": "blue",
    "request_type": "PromptGenerateRequest",
    "signed_hash": "abc=",
}
NOVELAI_TEXTS = {
    "Title": "AI generated image",
    "Description": "red circle, white",
    "Software": "NovelAI",
    "Source": "Stable Diffusion XL 7BCCAA2C",
    "Comment": json.dumps(NOVELAI),
}
NOVELAI_SETTINGS = {
    "Steps": "28",
    "Sampler": "Euler a",
    "Schedule type": "Karras",
    "CFG scale": "5",
    "Seed": "3816166865",
    "Size": "832x1216",
    "Model": "Stable Diffusion XL 7BCCAA2C",
    "Version": "NovelAI",
}


def alpha(text: str) -> bytes:
    """A PNG with a text in the lowest bits of alpha, as NovelAI writes it."""
    content = gzip.compress(text.encode())
    head = b"stealth_pngcomp" + (len(content) * 8).to_bytes(4, "big")
    bits = np.unpackbits(np.frombuffer(head + content, np.uint8))
    pixels = np.full((128, 96, 4), 255, np.uint8)
    flat = pixels[..., 3].T.reshape(-1).copy()
    flat[: len(bits)] = 254 | bits
    pixels[..., 3] = flat.reshape(96, 128).T
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        png(**NOVELAI_TEXTS),
        alpha(json.dumps(NOVELAI_TEXTS)),
        alpha(json.dumps(NOVELAI_TEXTS | {"Comment": NOVELAI})),
        in_exif(json.dumps(NOVELAI_TEXTS)),
        in_exif(json.dumps(NOVELAI_TEXTS), "WEBP", b"ASCII\0\0\0", "utf-8"),
    ],
    ids=["chunks", "alpha", "alpha with an object", "exif", "webp"],
)
def test_novelai(content: bytes) -> None:
    assert_made(content, "NovelAI", "red circle, white", "blue", NOVELAI_SETTINGS)


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"prompt": "{red} circle"}, {"Weights of words": "of NovelAI"}),
        ({"prompt": "1.3::red:: circle"}, {"Weights of words": "of NovelAI"}),
        ({"cfg_rescale": 0.2}, {"CFG rescale": "0.2"}),
        ({"sm": True}, {"NovelAI sm": "True"}),
        ({"noise_schedule": "native"}, {"Schedule type": None}),
        ({"strength": 0.7, "noise": 0.1}, {"Denoising strength": "0.7", "Extra noise": "0.1"}),
        (
            {"v4_prompt": {"caption": {"base_caption": "x", "char_captions": [{"char_caption": "a girl"}]}}},
            {"Characters": "a girl"},
        ),
        ({"v4_prompt": {"caption": {"base_caption": "x", "char_captions": []}}}, {}),
        ({"sampler": "ddim_v3"}, {"Sampler": "DDIM"}),
    ],
)
def test_novelai_says_what_it_did(change: dict[str, Any], settings: dict[str, str | None]) -> None:
    texts = NOVELAI_TEXTS | {"Comment": json.dumps(NOVELAI | change)}
    expected = {name: value for name, value in (NOVELAI_SETTINGS | settings).items() if value is not None}
    assert sdrt.read_metadata(png(**texts)).settings == expected


# --- SwarmUI -------------------------------------------------------------------------------------------------

SWARMUI: dict[str, Any] = {
    "sui_image_params": {
        "prompt": "a red circle",
        "negativeprompt": "blue",
        "model": "OfficialStableDiffusion/v1-5",
        "seed": 1,
        "steps": 20,
        "cfgscale": 7.0,
        "aspectratio": "1:1",
        "width": 512,
        "height": 512,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "automaticvae": True,
        "swarm_version": "0.9.3.1",
    },
    "sui_extra_data": {"date": "2025-01-25", "prep_time": "6.11 sec"},
    "sui_models": [{"name": "OfficialStableDiffusion/v1-5.safetensors", "param": "model"}],
}
SWARMUI_SETTINGS = {
    "Steps": "20",
    "Sampler": "DPM++ 2M",
    "Schedule type": "Karras",
    "CFG scale": "7",
    "Seed": "1",
    "Size": "512x512",
    "Model": "OfficialStableDiffusion/v1-5",
    "RNG": "CPU",
    "Noise scale": "of ComfyUI",
    "Version": "SwarmUI 0.9.3.1",
}


@pytest.mark.parametrize(
    "content",
    [
        png(parameters=json.dumps(SWARMUI, indent=2)),
        in_exif(json.dumps(SWARMUI), encoding="utf-16-le"),
        in_exif(json.dumps(SWARMUI), "WEBP", b"ASCII\0\0\0", "utf-8"),
        alpha(json.dumps(SWARMUI)),
        json.dumps(SWARMUI).encode(),
    ],
    ids=["chunk", "jpeg", "webp", "alpha", "a text file"],
)
def test_swarmui(content: bytes) -> None:
    assert_made(content, "SwarmUI", "a red circle", "blue", SWARMUI_SETTINGS)


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({"sampler": None, "scheduler": None}, {"Sampler": "Euler", "Schedule type": "Normal"}),
        (
            {
                "sampler": None,
                "comfyuisampler": "euler_ancestral",
                "scheduler": None,
                "comfyuischeduler": "simple",
            },
            {"Sampler": "Euler a", "Schedule type": "Simple"},
        ),
        ({"seed": "1", "steps": "20", "cfgscale": "7.0"}, {"CFG scale": "7.0"}),
        ({"loras": ["a", "b"], "loraweights": ["0.5", "1"]}, {"LoRAs": "a (0.5), b (1)"}),
        ({"loras": "a,b", "loraweights": "0.5"}, {"LoRAs": "a (0.5), b (1)"}),
        ({"initimage": "in.png", "initimagecreativity": 0.4}, {"Denoising strength": "0.4"}),
        ({"clipstopatlayer": -2}, {"Clip skip": "2"}),
        ({"refinermethod": "PostApply"}, {"SwarmUI refinermethod": "PostApply"}),
        ({"variationseed": 5, "variationseedstrength": 0.1}, {"SwarmUI variationseedstrength": "0.1"}),
    ],
)
def test_swarmui_says_what_it_did(change: dict[str, Any], settings: dict[str, str]) -> None:
    params = {k: v for k, v in (SWARMUI["sui_image_params"] | change).items() if v is not None}
    found = sdrt.read_metadata(png(parameters=json.dumps({"sui_image_params": params})))
    assert found.settings == SWARMUI_SETTINGS | settings


# --- Fooocus -------------------------------------------------------------------------------------------------

FOOOCUS: dict[str, Any] = {
    "adm_guidance": "(1.5, 0.8, 0.3)",
    "base_model": "juggernautXL_v8Rundiffusion",
    "base_model_hash": "aeb7e9e689",
    "clip_skip": 2,
    "full_negative_prompt": ["blue", "ugly"],
    "full_prompt": ["a red circle", "flat drawing"],
    "guidance_scale": 4,
    "loras": [["sd_xl_offset_example-lora_1.0", 0.1, "4852686128"]],
    "metadata_scheme": "fooocus",
    "negative_prompt": "blue",
    "performance": "Speed",
    "prompt": "a red circle",
    "refiner_model": "None",
    "refiner_switch": 0.5,
    "resolution": "(512, 768)",
    "sampler": "dpmpp_2m_sde_gpu",
    "scheduler": "karras",
    "seed": "123",
    "sharpness": 2,
    "steps": 30,
    "styles": "['Fooocus V2']",
    "vae": "Default (model)",
    "version": "Fooocus v2.5.5",
}
FOOOCUS_SETTINGS = {
    "Steps": "30",
    "Sampler": "DPM++ 2M SDE",
    "Schedule type": "Karras",
    "CFG scale": "4",
    "Seed": "123",
    "Size": "512x768",
    "Model": "juggernautXL_v8Rundiffusion",
    "Clip skip": "2",
    "Sharpness": "2",
    "ADM Guidance": "(1.5, 0.8, 0.3)",
    "LoRAs": "sd_xl_offset_example-lora_1.0 (0.1)",
    "Version": "Fooocus v2.5.5",
}


def fooocus_exif() -> bytes:
    exif = Image.Exif()
    exif[0x9286], exif[0x0131], exif[0x927C] = json.dumps(FOOOCUS), "Fooocus v2.5.5", "fooocus"
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content", [png(parameters=json.dumps(FOOOCUS), fooocus_scheme="fooocus"), fooocus_exif()]
)
def test_fooocus(content: bytes) -> None:
    assert_made(content, "Fooocus", "a red circle, flat drawing", "blue, ugly", FOOOCUS_SETTINGS)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        # Fooocus counts steps: half of 30, or the user's own number.
        ({}, {"Refiner switch at": "0.5", "Refiner switch by sampling steps": "True"}),
        (
            {"refiner_switch": 0.66},
            {"Refiner switch at": repr(20 / 30), "Refiner switch by sampling steps": "True"},
        ),
        ({"overwrite_switch": 6}, {"Refiner switch at": "0.2", "Refiner switch by sampling steps": "True"}),
        # The share is that of the performance's steps, though the user chose another number.
        (
            {"steps": 60},
            {"Refiner switch at": "0.25", "Refiner switch by sampling steps": "True", "Steps": "60"},
        ),
        (
            {"refiner_swap_method": "vae"},
            {"Refiner switch at": "0.5", "Refiner switch by sampling steps": "True"}
            | {"Fooocus refiner_swap_method": "vae"},
        ),
        ({"refiner_switch": "soon"}, {"Fooocus refiner_switch": "soon"}),
    ],
    ids=str,
)
def test_the_refiner_of_fooocus(more: dict[str, Any], said: dict[str, str]) -> None:
    values = FOOOCUS | {"refiner_model": "sd_xl_refiner", "refiner_model_hash": "7440042bbd"} | more
    found = sdrt.read_metadata(png(parameters=json.dumps(values)))
    assert found.settings == FOOOCUS_SETTINGS | {"Refiner": "sd_xl_refiner"} | said


def test_a_refiner_of_fooocus_that_never_takes_over() -> None:
    for more in ({"refiner_switch": 1.0}, {"overwrite_switch": 30, "refiner_swap_method": "vae"}):
        values = FOOOCUS | {"refiner_model": "sd_xl_refiner"} | more
        assert sdrt.read_metadata(png(parameters=json.dumps(values))).settings == FOOOCUS_SETTINGS


def test_fooocus_in_the_form_of_a1111() -> None:
    text = (
        "a red circle, flat drawing\nNegative prompt: blue\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 123, "
        'Size: 512x768, CFG scale: 4, Sharpness: 2, ADM Guidance: "(1.5, 0.8, 0.3)", Model: juggernaut, '
        "Performance: Speed, Scheduler: karras, Version: Fooocus v2.5.5"
    )
    found = sdrt.read_metadata(png(parameters=text, fooocus_scheme="a1111"))
    assert (found.program, found.prompt, found.settings["Sharpness"]) == (
        "Fooocus",
        "a red circle, flat drawing",
        "2",
    )


def test_ruined_fooocus() -> None:
    values = {
        "Prompt": "a red circle",
        "Negative": "blue",
        "steps": 30,
        "cfg": 7,
        "width": 512,
        "height": 768,
        "seed": 5,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
        "base_model_name": "some.safetensors",
        "loras": [{"name": "a", "weight": 0.5}],
        "denoise": None,
        "software": "RuinedFooocus",
    }
    settings = {
        "Steps": "30",
        "Sampler": "DPM++ 2M",
        "Schedule type": "Karras",
        "CFG scale": "7",
        "Seed": "5",
        "Size": "512x768",
        "Model": "some.safetensors",
        "LoRAs": "a (0.5)",
        "Version": "RuinedFooocus",
    }
    assert_made(png(parameters=json.dumps(values)), "RuinedFooocus", "a red circle", "blue", settings)


# --- others --------------------------------------------------------------------------------------------------


def test_easy_diffusion() -> None:
    values = {
        "prompt": "a red circle",
        "negative_prompt": "blue",
        "seed": "5",
        "num_inference_steps": "25",
        "guidance_scale": "7.5",
        "width": "512",
        "height": "768",
        "sampler_name": "euler_a",
        "use_stable_diffusion_model": "C:\\models\\sd-v1-5.ckpt",
        "clip_skip": "True",
    }
    settings = {
        "Steps": "25",
        "Sampler": "Euler a",
        "CFG scale": "7.5",
        "Seed": "5",
        "Size": "512x768",
        "Model": "sd-v1-5",
        "Clip skip": "2",
        "Version": "Easy Diffusion",
    }
    assert_made(png(**values), "Easy Diffusion", "a red circle", "blue", settings)
    assert_made(in_exif(json.dumps(values)), "Easy Diffusion", "a red circle", "blue", settings)


def test_draw_things() -> None:
    values = {
        "c": "a red circle",
        "uc": "blue",
        "model": "sd_v1.5_f16.ckpt",
        "sampler": "DPM++ 2M Karras",
        "scale": 7,
        "seed": 5,
        "steps": 20,
        "strength": 1,
        "size": "512x768",
        "v2": {"hiresFix": False},
    }
    item = json.dumps(values).replace('"', "&quot;")
    xmp = (
        '<rdf:Description xmp:CreatorTool="Draw Things"><exif:UserComment><rdf:Alt><rdf:li xml:lang="x-default">'
        f"{item}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description>"
    )
    settings = {
        "Steps": "20",
        "Sampler": "DPM++ 2M Karras",
        "CFG scale": "7",
        "Seed": "5",
        "Size": "512x768",
        "Model": "sd_v1.5_f16.ckpt",
        "Version": "Draw Things",
    }
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG", pnginfo=info)
    assert_made(buffer.getvalue(), "Draw Things", "a red circle", "blue", settings)


def test_civitai_s_generator() -> None:
    extra = {
        "prompt": "a red circle",
        "negativePrompt": "blue",
        "steps": 25,
        "cfgScale": 7,
        "sampler": "Euler a",
        "seed": 5,
    }
    graph = {
        "3": {"class_type": "KSampler", "inputs": {"seed": 1}},
        "extra": {"airs": []},
        "extraMetadata": json.dumps(extra),
    }
    settings = {"Steps": "25", "Sampler": "Euler a", "CFG scale": "7", "Seed": "5", "Version": "Civitai"}
    for content in (in_exif(json.dumps(graph)), png(prompt=json.dumps(graph))):
        assert_made(content, "Civitai", "a red circle", "blue", settings)


@pytest.mark.parametrize(
    ("version", "program"),
    [
        ("Version: v1.10.1", "AUTOMATIC1111"),
        ("Version: f2.0.1v1.10.1-previous-665-gae278f79", "Forge"),
        ("Version: sdrt 0.1.0", "sdrt"),
        ("Version: ComfyUI", "ComfyUI"),
        ("Version: stable-diffusion.cpp", "stable-diffusion.cpp"),
        ("Version: 0afbe5a, App: SD.Next", "SD.Next"),
        ("Model: x", ""),
    ],
)
def test_programs_that_write_the_text_of_a1111(version: str, program: str) -> None:
    text = f"a cat\nSteps: 8, Sampler: Euler, Seed: 5, {version}"
    found = sdrt.read_metadata(png(parameters=text))
    assert (found.program, found.prompt, found.text) == (program, "a cat", text)


@pytest.mark.parametrize(
    "value", [None, 3, "x", [], [1], {}, {"a": 1}, True, 1e400, "\ud800", "²", "9" * 5000, -(10**30)]
)
def test_values_of_another_type_are_no_reason_to_fail(value: Any) -> None:
    for template, place in (
        (INVOKEAI, "invokeai_metadata"),
        (NOVELAI, "Comment"),
        (SWARMUI["sui_image_params"], None),
        (FOOOCUS, "parameters"),
    ):
        for name in template:
            changed = template | {name: value}
            text = json.dumps(changed if place else {"sui_image_params": changed})
            found = sdrt.read_metadata(png(**{place or "parameters": text}))
            assert all(isinstance(one, str) for pair in found.settings.items() for one in pair)
            str(found.parameters)


def test_info_names_the_program(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(invokeai_metadata=json.dumps(INVOKEAI)))
    shown = CliRunner().invoke(main, ["info", str(tmp_path / "a.png")])
    assert shown.exit_code == 0
    lines = shown.stdout.splitlines()
    assert lines[:4] == ["InvokeAI made this image.", "", "a red circle++", "Negative prompt: blue"]
    assert lines[4].startswith("Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5")
    about = json.loads(CliRunner().invoke(main, ["info", str(tmp_path / "a.png"), "--json"]).stdout)
    assert (about["program"], about["settings"]) == ("InvokeAI", INVOKEAI_SETTINGS)


def test_a_text_file_makes_the_image_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "a red circle\nNegative prompt: blue\nSteps: 2, Sampler: Euler, CFG scale: 3, Seed: 5, Size: 64x64, RNG: CPU"
    Path("infotext.txt").write_text(text)
    options = ["--quiet", "--threads", "1", "--provider", "cpu"]
    run = CliRunner().invoke
    made = run(main, ["generate", "--from", "infotext.txt", "-o", "a.png", *options])
    assert made.exit_code == 0, made.output
    made = run(main, ["generate", "--from", "-", "-o", "b.png", *options], input=text)
    assert made.exit_code == 0, made.output
    settings = [
        "--steps",
        "2",
        "--scheduler",
        # A1111's Euler without a schedule type.
        "Euler Uniform",
        "--guidance-scale",
        "3",
        "-s",
        "5",
        "-W",
        "64",
        "-H",
        "64",
    ]
    made = run(main, ["generate", "a red circle", "-n", "blue", *settings, "-o", "c.png", *options])
    assert made.exit_code == 0, made.output
    pixels = [np.asarray(Image.open(f"{name}.png")) for name in "abc"]
    np.testing.assert_array_equal(pixels[0], pixels[2])
    np.testing.assert_array_equal(pixels[1], pixels[2])


def test_from_says_what_another_program_did(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(parameters=json.dumps(SWARMUI)))
    refused = CliRunner().invoke(main, ["generate", "--from", str(tmp_path / "a.png"), "-m", "shapes"])
    assert refused.exit_code == 2
    assert "'Noise scale'" in refused.stderr
    assert "of SwarmUI" in refused.stderr
    assert "--approximate makes it as closely as possible" in refused.stderr


@pytest.mark.parametrize(
    "texts",
    [
        {"Dream": '"a" ' + " -a" * 300_000},
        {"Dream": '"a" -' + "a" * 1_000_000},
        {"Dream": "[" * 1_000_000},
        {"parameters": json.dumps(FOOOCUS | {"resolution": "1" * 1_000_000})},
        {"Comment": json.dumps(NOVELAI | {"prompt": "1" * 1_000_000})},
        {"XML:com.adobe.xmp": "<exif:UserComment" * 50_000},
        {"parameters": "{" * 1_000_000},
    ],
)
def test_long_texts_take_no_long_time(texts: dict[str, str]) -> None:
    start = time.perf_counter()
    sdrt.read_metadata(png(**texts))
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("prompt", ["{red|blue", '{"prompt": "a"}', '"a red circle"'])
def test_info_shows_a_prompt_that_looks_like_json_as_it_is(tmp_path: Path, prompt: str) -> None:
    text = f"{prompt}\nSteps: 8, Sampler: Euler, CFG scale: 3, Seed: 5"
    (tmp_path / "a.png").write_bytes(png(parameters=text))
    shown = CliRunner().invoke(main, ["info", str(tmp_path / "a.png")])
    assert (shown.exit_code, shown.stdout) == (0, f"{text}\n")
