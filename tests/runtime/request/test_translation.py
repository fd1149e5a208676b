"""Settings of A1111, Forge, SD.Next and Civitai, in the labels of sdrt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sdrt.request.labels import scheduler_name, settings_values
from sdrt.request.translated import Translation
from sdrt.request.translation import translate

IMAGE = np.zeros((8, 8, 3), np.uint8)
BASE = {"Steps": "20", "Sampler": "Euler", "CFG scale": "7", "Seed": "1", "Size": "512x512", "RNG": "CPU"}


def of(more: dict[str, str]) -> Translation:
    return translate(BASE | more)


@pytest.mark.parametrize(
    "more",
    [
        {"Model hash": "6ce0161689", "VAE hash": "735e4c3a44", "Version": "v1.10.1", "User": "me"},
        {"Batch size": "4", "Batch pos": "3", "Init image hash": "ab"},
        {
            "App": "SD.Next",
            "Backend": "Diffusers",
            "Pipeline": "StableDiffusionPipeline",
            "Operations": "txt2img",
        },
        {"Template": "a __b__ c", "Negative template": "d", "Wildcard prompt": "{a|b}", "Styles": "x; y"},
        {"Civitai metadata": "{}", "Created Date": "2024-05-01T10:20:30Z"},
        {"Civitai resources": '[{"type":"checkpoint","modelVersionId":1}]', "Hashes": '{"model": "a"}'},
        {"ENSD": "0", "Eta": "1.0", "Emphasis": "Original", "Noise Schedule": "Default", "Tiling": "False"},
        {"Variation seed": "5", "Variation seed strength": "0", "Seed resize from": "-1x-1"},
        {"Schedule max sigma": "0", "Schedule min sigma": "0.0", "Schedule rho": "0", "Sigma noise": "1"},
        {
            "Mask mode": "Inpaint masked",
            "Masked content": "original",
            "VAE": "Automatic",
            "VAE Encoder": "Full",
        },
        {"FP8 weight": "Disable", "Cache FP16 weight for LoRA": "False", "Downcast alphas_cumprod": "False"},
        {"RP Active": "False", "RP Divide mode": "Matrix", "RP Ratios": "1,1"},
        {
            "freeu_enabled": "False",
            "freeu_b1": "1.1",
            "dynthres_enabled": "False",
            "dynthres_mimic_scale": "7",
        },
        {"Module 1": "Built-in", "Diffusion in Low Bits": "Automatic", "Beta schedule alpha": "0.6"},
        {"Script": "X/Y/Z plot", "X Type": "Steps", "X Values": "1, 2", "Fixed Y Values": "3"},
        {"Eta DDIM": "0.5", "ENSD": "31337"},
        {"Low VRAM": "True"},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_does_not_change_the_image_is_passed_over(more: dict[str, str]) -> None:
    found = of(more)
    assert [one for one in found.differences if not one.minor] == []
    assert settings_values(found.texts).keys() <= settings_values(BASE).keys() | {
        "mask_blur",
        "version",
        "batch_size",
        # That of Euler in A1111.
        "spacing",
        "wildcard_prompt",
    }


@pytest.mark.parametrize(
    ("more", "label"),
    [
        ({"Vec. CC [1.2]": "Brightness 1.0"}, "Vec. CC [1.2]"),
        ({"Refine it": "Refine it"}, "Refine it"),
        ({"Lora hashes": "a: 1", "LoRA tags": "a"}, "Lora hashes"),
        ({"AddNet Enabled": "True", "AddNet Model 1": "a"}, "AddNet"),
        ({"Hypernet": "a", "Hypernet strength": "1"}, "Hypernet"),
        ({"ADetailer model": "face_yolov8n.pt", "ADetailer version": "24"}, "ADetailer"),
        ({"ControlNet 0": "Module: canny", "ControlNet 1": "x"}, "ControlNet"),
        ({"Refiner": "x", "Refiner start": "0.8", "Pipeline": "Diffusers"}, "Refiner"),
        ({"Refiner": "x.safetensors", "Refiner Switch": "0.8", "Version": "Fooocus v2.5.5"}, "Refiner"),
        ({"RP Active": "True", "RP Ratios": "1,1"}, "Regional Prompter"),
        ({"freeu_enabled": "True", "freeu_b1": "1.1"}, "FreeU"),
        ({"FreeU": "b1=1.1"}, "FreeU"),
        ({"Dynamic thresholding enabled": "True"}, "Dynamic thresholding"),
        ({"Variation seed": "5", "Variation seed strength": "0.2"}, "Variation seed"),
        ({"Seed resize from": "256x256"}, "Seed resize from"),
        ({"Emphasis": "No norm"}, "Emphasis"),
        ({"Noise Schedule": "Zero Terminal SNR"}, "Noise Schedule"),
        ({"Sgm noise multiplier": "True"}, "Sgm noise multiplier"),
        ({"Downcast alphas_cumprod": "True"}, "Downcast alphas_cumprod"),
        ({"Discard penultimate sigma": "True"}, "Discard penultimate sigma"),
        ({"Schedule rho": "5"}, "Schedule rho"),
        ({"NGMS": "3"}, "NGMS"),
        ({"Skip Early CFG": "1", "Steps": "20"}, "Skip Early CFG"),
        ({"Tiling": "True"}, "Tiling"),
        ({"Face restoration": "CodeFormer"}, "Face restoration"),
        ({"VAE": "vae-ft-mse-840000"}, "VAE"),
        ({"Module 1": "ae"}, "Module 1"),
        ({"Sampler": "Euler a", "ENSD": "31337"}, "ENSD"),
        ({"Sampler": "Euler a", "Eta": "0.5"}, "Eta"),
        ({"Sampler": "no such sampler"}, "Sampler"),
        ({"Schedule type": "no such type"}, "Schedule type"),
        ({"Sampler": "/dev/zero"}, "Sampler"),
        ({"Sampler": "own.json", "Version": "sdrt 0.1.0"}, "Sampler"),
        ({"Civitai resources": '[{"type":"checkpoint"},{"type":"lora"}]'}, "Civitai resources"),
        ({"Civitai resources": "[" * 10_000}, "Civitai resources"),
        ({"Hashes": '{"model": "a", "lora:b": "c"}'}, "Hashes"),
        ({"Clip skip": "1.5"}, "Clip skip"),
        ({"Sampler options": "dynamic"}, "Sampler options"),
        ({"Tiled Diffusion": '{"Method": "MultiDiffusion"}'}, "Tiled Diffusion"),
        ({"Of a later sdrt": "1", "Version": "sdrt 9.0"}, "Of a later sdrt"),
    ],
)
def test_what_cannot_be_done_is_named(more: dict[str, str], label: str) -> None:
    found = of(more)
    assert [one.label for one in found.differences] == [label]
    # What stays can be read.
    settings_values(found.texts)


def test_a_step_that_is_half_guided_is_told() -> None:
    found = of({"Skip Early CFG": "0.5", "Steps": "4", "Sampler": "Heun"})
    assert settings_values(found.texts)["guidance_interval"] == (0.75, 1.0)
    assert [(one.label, one.option) for one in found.differences] == [("Skip Early CFG", "guidance_interval")]


def test_the_refiner_of_sdnext_makes_a_run_of_its_own() -> None:
    """Its run begins at the same share of the noise schedule, but has its own number of steps."""
    found = of({"Refiner": "x", "Refiner start": "0.7", "Refiner steps": "10", "Pipeline": "XL"})
    assert settings_values(found.texts).items() >= {"refiner": "x", "refiner_switch": 0.7}.items()
    # The image differs even with --refiner.
    assert [(one.label, one.option) for one in found.differences] == [("Refiner", "")]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            {"Refiner": "sd_xl_refiner_1.0 [7440042bbd]", "Refiner switch at": "0.7"},
            {"refiner": "sd_xl_refiner_1.0", "refiner_switch": 0.7},
        ),
        (
            {"Refiner": "x", "Refiner switch at": "0.7", "Version": "v1.6.0"},
            {"refiner": "x", "refiner_switch": 0.7, "refiner_switch_by_steps": True},
        ),
        (
            {"Refiner": "x", "Refiner switch by sampling steps": "True", "Hires refiner": "both passes"},
            {"refiner": "x", "refiner_switch_by_steps": True, "hires_refiner": "both"},
        ),
        ({"Refiner switch by sampling steps": "True"}, {}),
        (
            {"Refiner": "x", "Refiner switch at": "0.5", "Refiner switch by sampling steps": "True"}
            | {"Refiner hash": "7440042bbd", "Version": "Fooocus v2.5.5"},
            {"refiner": "x", "refiner_switch": 0.5, "refiner_switch_by_steps": True},
        ),
        (
            {"Refiner": "x", "Overwrite Switch": "5", "Steps": "20", "Version": "Fooocus v2.5.5"},
            {"refiner": "x", "refiner_switch": 0.25, "refiner_switch_by_steps": True},
        ),
        ({"Refiner start": "0.8", "Pipeline": "StableDiffusionXLPipeline"}, {}),
        ({"CLiP-skip": "2"}, {"clip_skip": 1}),
        ({"Clip skip": "2.0"}, {"clip_skip": 1}),
        ({"Clip skip": "1"}, {}),
        ({"Clip skip": "0"}, {}),
        ({"cfg scale": "5"}, {"guidance_scale": 7.0}),
        ({"TI hashes": "a: 1"}, {"embeddings": "a: 1"}),
        ({"CFG rescale": "0.5"}, {"guidance_rescale": 0.5}),
        # A1111 leaves the negative prompt out of steps 0 to 4 of 20.
        ({"Skip Early CFG": "0.2", "Steps": "20", "Sampler": "Euler"}, {"guidance_interval": (0.25, 1.0)}),
        # Of the eight calls of four steps, 0 to 3.
        ({"Skip Early CFG": "0.4", "Steps": "4", "Sampler": "Heun"}, {"guidance_interval": (0.5, 1.0)}),
        # Six of ten steps run, and it leaves out those from 0 to 3.
        (
            {"Skip Early CFG": "0.5", "Steps": "10", "Sampler": "Euler", "Denoising strength": "0.5"},
            {"guidance_interval": (4 / 6, 1.0)},
        ),
        ({"Sampler": "DPM++ 2M Karras"}, {"scheduler": "DPM++ 2M Karras"}),
        ({"Sampler": "DPM++ 2M Karras", "Schedule type": "Karras"}, {"scheduler": "DPM++ 2M Karras"}),
        ({"Sampler": "DPM++ 2M Karras", "Schedule type": "Exponential"}, {"scheduler": "DPM++ 2M Karras"}),
        ({"Sampler": "DPM++ 2M", "Schedule type": "Karras"}, {"scheduler": "DPM++ 2M Karras"}),
        ({"Sampler": "Euler", "Scheduler": "karras"}, {"scheduler": "Euler karras"}),
        ({"Sampler": "Euler", "Scheduler": "EulerDiscreteScheduler"}, {"scheduler": "Euler"}),
        ({"Sampler": "Default", "Scheduler": "DDIMScheduler"}, {"scheduler": "DDIMScheduler"}),
        ({"Sampler": "Euler", "Sampler sigma": "karras"}, {"scheduler": "Euler karras"}),
        ({"Parser": "Compel parser"}, {"prompt_syntax": "compel"}),
        ({"Parser": "fixed"}, {"prompt_syntax": "plain"}),
        ({"Sampler spacing": "trailing"}, {"spacing": "trailing"}),
        # A1111's samplers on timesteps have their own spacing.
        ({"Sampler": "UniPC", "Schedule type": "Karras"}, {"scheduler": "UniPC"}),
        ({"Sampler": "DDIM", "Eta DDIM": "0.5", "Eta": "1"}, {"scheduler": "DDIM", "eta": 0.5}),
        ({"Sampler": "DDIM", "Eta": "0.25"}, {"scheduler": "DDIM", "eta": 0.25}),
    ],
)
def test_other_words_for_the_same(more: dict[str, str], said: dict[str, Any]) -> None:
    found = of(more)
    values = settings_values(found.texts)
    assert {name: values[name] for name in said} == said
    assert "clip_skip" in said or "clip_skip" not in values
    assert found.differences == []


def test_a_label_that_is_only_written_otherwise() -> None:
    found = translate({"steps": "20", "CFG": "5", "Sampling method": "Euler", "seed": "3", "size": "64x96"})
    assert settings_values(found.texts) == {
        "num_inference_steps": 20,
        "guidance_scale": 5.0,
        "scheduler": "Euler",
        "spacing": "linspace",
        "seed": 3,
        "size": (64, 96),
    }


@pytest.mark.parametrize(
    ("more", "scheduler", "spacing"),
    [
        ({"Sampler": "DPM++ 2M", "Schedule type": "Automatic"}, "DPM++ 2M", "karras"),
        ({"Sampler": "DPM++ 2M"}, "DPM++ 2M", "karras"),
        ({"Sampler": "DPM++ 2M", "Version": "v1.8.0"}, "DPM++ 2M", "normal"),
        ({"Sampler": "DPM++ 2M", "Version": "sdrt 0.1.0"}, "DPM++ 2M", None),
        ({"Sampler": "DPM++ 2M", "Pipeline": "StableDiffusionPipeline"}, "DPM++ 2M", None),
        ({"Sampler": "DPM++ 2M", "Version": "Easy Diffusion"}, "DPM++ 2M", None),
        ({"Sampler": "DPM++ 2M", "Noise scale": "of InvokeAI"}, "DPM++ 2M", None),
        ({"Sampler": "UniPC", "Schedule type": "Normal", "Noise scale": "of ComfyUI"}, "UniPC Normal", None),
        ({"Sampler": "DPM++ 2M", "Version": "f2.0.1v1.10.1-previous-659"}, "DPM++ 2M", "karras"),
        ({"Sampler": "DPM++ 2M SDE", "Schedule type": "Automatic"}, "DPM++ 2M SDE", "exponential"),
        ({"Sampler": "DDIM", "Schedule type": "Karras"}, "DDIM", "leading"),
        ({"Sampler": "Euler a", "Schedule type": "Uniform"}, "Euler a Uniform", None),
        ({"Sampler": "Euler a Karras"}, "Euler a Karras", None),
        ({"Sampler": "LCM", "Schedule type": "Automatic"}, "LCM", None),
        ({"Sampler": "DPM adaptive", "Schedule type": "Automatic"}, "DPM adaptive", None),
        ({"Sampler": "Euler", "Spacing": "trailing", "Version": "sdrt 0.1.0"}, "Euler", "trailing"),
        (
            {"Sampler": "Euler", "Schedule type": "Simple", "Spacing": "trailing", "Version": "sdrt 0.1.0"},
            "Euler",
            "trailing",
        ),
        ({"Sampler": "Euler", "Schedule type": "Uniform", "Version": "sdrt 0.1.0"}, "Euler Uniform", None),
    ],
)
def test_the_schedule_that_a_text_does_not_say(
    more: dict[str, str], scheduler: str, spacing: str | None
) -> None:
    found = of(more)
    assert [one for one in found.differences if not one.minor and one.label != "Noise scale"] == []
    values = settings_values(found.texts)
    assert (values["scheduler"], values.get("spacing")) == (scheduler, spacing)


@pytest.mark.parametrize("name", ["Karras", "karras", "Exponential", "SGM Uniform", "sgm_uniform"])
def test_a_name_that_ends_in_its_schedule_stays(name: str) -> None:
    assert scheduler_name(f"DPM++ 2M {name}", "Beta") == f"DPM++ 2M {name}"
    assert scheduler_name("DPM++ 2M", name) == f"DPM++ 2M {name}"
    assert scheduler_name("DPM++ 2M", "Automatic") == "DPM++ 2M"


def test_a_masked_image_is_the_same_except_at_the_edge() -> None:
    found = of({"Denoising strength": "0.75", "Mask blur": "4", "Inpaint area": "Only masked"})
    assert [(one.label, one.minor) for one in found.differences] == [("how the mask is blurred", True)]
    assert settings_values(found.texts)["padding_mask_crop"] == 32
    whole = of({"Denoising strength": "0.75", "Mask blur": "4", "Masked area padding": "32"})
    assert "padding_mask_crop" not in settings_values(whole.texts)
    # A1111 does not write a blur of 0.
    assert of({"Denoising strength": "0.75", "Masked content": "fill"}).texts["Mask blur"] == "0"


def test_noise_that_a1111_draws_from_a_tree_is_said() -> None:
    (one,) = of({"Sampler": "DPM++ 2M SDE", "Schedule type": "Karras"}).differences
    assert (one.minor, "fresh noise of 'DPM++ 2M SDE'" in one.label) == (True, True)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e400", "1e-320", "x", "", "9" * 5000])
@pytest.mark.parametrize(
    "label",
    [
        "Steps",
        "Denoising strength",
        "Hires upscale",
        "Hires steps",
        "Hires resize",
        "Size",
        "Clip skip",
        "Eta",
    ],
)
def test_numbers_that_are_none_raise_nothing_here(label: str, text: str) -> None:
    base = {"Denoising strength": "0.5", "Hires upscale": "2"}
    assert of(base | {label: text}).texts["Seed"] == "1"
