"""Files with the metadata of other programs, and what is made of them."""

from __future__ import annotations

import gzip
import io
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

import sdrt
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
