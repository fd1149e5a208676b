"""Metadata of Easy Diffusion, Draw Things, Civitai and others, and what the command says of programs."""

from __future__ import annotations

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
from tests.runtime.images.program_files import (
    FOOOCUS,
    INVOKEAI,
    INVOKEAI_SETTINGS,
    NOVELAI,
    SWARMUI,
    assert_made,
    in_exif,
    png,
)


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
